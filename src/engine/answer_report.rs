//! The report of one answer as it is made: its tokens and text as they become certain, what the rounds did, and the report
//! made of it.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::Error;
use super::stream::{Canceller, Event};
use crate::answer::{Answer, FinishReason};
use crate::certificate::Certified;
use crate::drafters::DrafterChoice;
use crate::lossy::LossyPlan;
use crate::meters::{Energy, UNAVAILABLE};
use crate::model::Hidden;
use crate::report::{Adaptations, BIT_IDENTICAL, PlanReport, QualityMetrics, Report, Speculation};
use crate::routing::{ExpectedQuality, Reader};
use crate::speculation::{Flow, Listener, Round};
use crate::text::Tokenizer;
use crate::text::stream::{StreamError, TextStream};

/// Where an answer's events go.
pub(super) type Events = UnboundedSender<Result<Event, Error>>;

/// A tokenizer that an answer keeps.
pub(super) struct KeptTokenizer(pub(super) Arc<Tokenizer>);

impl Borrow<tokenizers::Tokenizer> for KeptTokenizer {
    fn borrow(&self) -> &tokenizers::Tokenizer {
        self.0.inner()
    }
}

/// Listens to an answer's rounds and writes down what it hears.
pub(super) struct AnswerReport {
    events: Events,
    canceller: Canceller,
    started: Instant,
    stream: TextStream<KeptTokenizer>,
    stop_tokens: Vec<u32>,
    prompt_tokens: usize,
    names: Vec<String>,
    /// Collects the prompt's states for the router, if it judges.
    reader: Option<Reader>,
    text: String,
    /// Tokens of the round that goes on. Waking the receiver takes longer than picking a token, so it is woken once a round.
    pending: Vec<Event>,
    stopped: bool,
    text_error: Option<StreamError>,
    time_to_first_token_ms: Option<f64>,
    /// Seconds of the steps that read the prompt, the first time.
    reading: f64,
    /// Its share of these, for the reading that counts.
    own_reading: f64,
    /// Tokens of the prompt that were told to be read.
    told_read: Option<usize>,
    draft_ms: f64,
    verify_ms: f64,
    /// The most answers that shared a step with this one.
    company: usize,
    /// Seconds of all its steps, each divided among the answers that shared it.
    own_seconds: f64,
    speculation: Speculation,
    warnings: Vec<String>,
}

/// Facts that the decode thread adds to what was heard, to make a report.
pub(super) struct AnswerFacts<'a> {
    pub(super) prompt_tokens: Vec<u32>,
    pub(super) tokens: Vec<u32>,
    /// Tokens that the answer could have had.
    pub(super) most_tokens: usize,
    pub(super) asked: &'a DrafterChoice,
    /// Quality given up, if that was asked for.
    pub(super) lossy: &'a LossyPlan,
    /// The certificate of a bounded answer, and the prompt's level where the plan depends on it.
    pub(super) certified: Option<(&'a Certified, Option<usize>)>,
    /// The precision of the target as it was loaded, and the one it answered in.
    pub(super) whole_precision: String,
    pub(super) precision: String,
    /// The precision that a drafter computes in, by its name.
    pub(super) draft_precision: &'a dyn Fn(&DrafterChoice) -> Option<String>,
    pub(super) exact: bool,
    pub(super) prefill_ms: f64,
    /// Energy of the answer, if there is a meter.
    pub(super) energy: Option<Energy>,
    /// Time of the router, if there is one.
    pub(super) routing_ms: Option<f64>,
    /// Router's estimates of the prompt's difficulty, and of the answer in words.
    pub(super) difficulty: Option<&'static str>,
    pub(super) expected: Option<String>,
    /// Effect on the answer that the router expects of a lossy plan.
    pub(super) quality: Option<ExpectedQuality>,
    /// Acceptance that the router expects of each drafter.
    pub(super) expected_acceptance: Option<BTreeMap<String, f64>>,
    pub(super) step_costs_ms: BTreeMap<usize, f64>,
    pub(super) draft_costs_ms: BTreeMap<String, f64>,
    pub(super) verification_shares: BTreeMap<String, f64>,
    pub(super) layer_evaluations: u64,
    pub(super) kv_cache: String,
    pub(super) kv_cache_bytes: u64,
    pub(super) threads: usize,
}

impl AnswerReport {
    /// A report of an answer to a prompt of so many tokens, that began at `started`.
    pub(super) fn new(
        (events, canceller): (Events, Canceller),
        started: Instant,
        stream: TextStream<KeptTokenizer>,
        stop_tokens: Vec<u32>,
        prompt_tokens: usize,
        reader: Option<Reader>,
    ) -> Self {
        Self {
            events,
            canceller,
            started,
            stream,
            stop_tokens,
            prompt_tokens,
            names: Vec::new(),
            reader,
            text: String::new(),
            pending: Vec::new(),
            stopped: false,
            text_error: None,
            time_to_first_token_ms: None,
            reading: 0.0,
            own_reading: 0.0,
            told_read: None,
            draft_ms: 0.0,
            verify_ms: 0.0,
            company: 0,
            own_seconds: 0.0,
            speculation: Speculation::default(),
            warnings: Vec::new(),
        }
    }

    /// Names the planner's candidates.
    pub(super) fn name_drafters(&mut self, names: Vec<String>) {
        self.names = names;
    }

    /// The states that were collected for the router.
    pub(super) fn take_reader(&mut self) -> Option<Reader> {
        self.reader.take()
    }

    /// Seconds that reading the prompt took.
    pub(super) fn reading_seconds(&self) -> f64 {
        self.reading
    }

    /// The most answers that shared a step with this one.
    pub(super) fn company(&self) -> usize {
        self.company
    }

    /// Its share of the seconds that reading the prompt took.
    pub(super) fn own_reading_seconds(&self) -> f64 {
        self.own_reading
    }

    /// Seconds of all its steps, each divided among the answers that shared it.
    pub(super) fn own_seconds(&self) -> f64 {
        self.own_seconds
    }

    /// True if there is nobody to hand the answer to.
    pub(super) fn is_dropped(&self) -> bool {
        self.events.is_closed()
    }

    /// Sends the last event.
    pub(super) fn send(events: &Events, event: Result<Event, Error>) {
        // A receiver that is gone has cancelled: there is nobody to tell.
        let _ = events.send(event);
    }

    /// Hands over the tokens of a round.
    pub(super) fn send_tokens(&mut self) {
        for event in self.pending.drain(..) {
            // A receiver that is gone has cancelled; the loop asks for that itself.
            let _ = self.events.send(Ok(event));
        }
    }

    /// Adds a sentence that deserves attention.
    pub(super) fn warn(&mut self, sentence: String) {
        self.warnings.push(sentence);
    }

    /// The last event: the whole answer with its report.
    ///
    /// # Errors
    /// If the tokens could not be turned into text.
    pub(super) fn finish(mut self, facts: AnswerFacts<'_>) -> Result<Event, Error> {
        if let Some(error) = self.text_error {
            return Err(error.into());
        }
        let latency_ms = self.started.elapsed().as_secs_f64() * 1e3;
        let rest = self.stream.finish()?;
        self.stopped |= self.stream.stopped().is_some();
        self.text.push_str(&rest);
        let AnswerFacts { prompt_tokens, tokens, precision, energy, .. } = &facts;
        let energy = energy.as_ref();
        self.speculation.tokens_per_step = tokens.len() as f64 / self.speculation.steps.max(1) as f64;
        let report = Report {
            latency_ms,
            time_to_first_token_ms: self.time_to_first_token_ms,
            prefill_ms: facts.prefill_ms,
            routing_ms: facts.routing_ms,
            draft_ms: self.draft_ms,
            verify_ms: self.verify_ms,
            energy_wh: energy.map(Energy::watt_hours),
            energy_net_wh: energy.and_then(Energy::net_watt_hours),
            energy_source: energy.map_or(UNAVAILABLE, |energy| &energy.source).to_owned(),
            energy_doubt: energy.and_then(|energy| energy.doubt.clone()),
            exactness: exactness(&self.speculation, tokens.len(), &facts),
            plan: plan_report(&self.speculation, &facts),
            speculation: self.speculation,
            adaptations: Adaptations {
                precision: precision.clone(),
                layers_skipped: layers_skipped(facts.lossy),
                context_used: prompt_tokens.len() + tokens.len(),
                batch_size: self.company + 1,
                certificate: facts.certified.map(|(certified, _)| certified.path().display().to_string()),
            },
            quality_metrics: QualityMetrics {
                estimated_perplexity_delta: facts.quality.map(|quality| quality.perplexity_delta),
                confidence: facts.quality.map(|quality| quality.confidence),
            },
            step_costs_ms: facts.step_costs_ms,
            draft_costs_ms: facts.draft_costs_ms,
            verification_shares: facts.verification_shares,
            layer_evaluations: facts.layer_evaluations,
            kv_cache: facts.kv_cache,
            kv_cache_bytes: facts.kv_cache_bytes,
            threads: facts.threads,
            warnings: self.warnings,
        };
        let finish_reason = match (self.stopped, facts.tokens.len() < facts.most_tokens) {
            (true, _) => FinishReason::Stop,
            (false, false) => FinishReason::Length,
            // Nothing else ends an answer before its limit.
            (false, true) => FinishReason::Cancelled,
        };
        let answer =
            Answer { prompt_tokens: facts.prompt_tokens, tokens: facts.tokens, text: self.text, finish_reason, report };
        Ok(Event::Done { text: rest, answer: Box::new(answer) })
    }
}

impl Listener for AnswerReport {
    fn reading(&mut self, done: usize) {
        // What is read again was told before.
        if self.told_read.is_none_or(|told| done > told) {
            self.told_read = Some(done);
            // Nobody listens to an answer that was dropped; the next round asks.
            let _ = self.events.send(Ok(Event::Prefill { done, total: self.prompt_tokens }));
        }
    }

    fn states(&mut self, states: Hidden) {
        if let Some(reader) = &mut self.reader {
            reader.see(states);
        }
    }

    fn reading_again(&mut self) {
        self.reader.iter_mut().for_each(Reader::forget);
        self.own_reading = 0.0;
    }

    fn read(&mut self, seconds: f64, company: usize, again: bool) {
        let own = seconds / (company + 1) as f64;
        self.own_seconds += own;
        self.company = self.company.max(company);
        if !again {
            self.reading += seconds;
            self.own_reading += own;
        }
    }

    fn token(&mut self, token: u32) -> Flow {
        let elapsed_ms = self.started.elapsed().as_secs_f64() * 1e3;
        self.time_to_first_token_ms.get_or_insert(elapsed_ms);
        let mut piece = String::new();
        if self.stop_tokens.contains(&token) {
            self.stopped = true;
        } else {
            match self.stream.push(token) {
                Ok(pushed) => {
                    self.stopped = pushed.stopped.is_some();
                    piece = pushed.text;
                }
                Err(error) => self.text_error = Some(error),
            }
        }
        self.text.push_str(&piece);
        self.pending.push(Event::Token { id: token, text: piece });
        if self.stopped || self.text_error.is_some() { Flow::Stop } else { Flow::Continue }
    }

    fn round(&mut self, round: &Round, company: usize) {
        self.send_tokens();
        self.company = self.company.max(company);
        // Its drafting is its own share already.
        self.own_seconds += round.asking_seconds + round.draft_seconds + round.verify_seconds / (company + 1) as f64;
        let drafter = round.candidate.filter(|_| round.drafted > 0).map(|index| self.names[index].as_str());
        self.speculation.add(drafter, round.drafted, round.evaluated, round.accepted);
        self.draft_ms += (round.asking_seconds + round.draft_seconds) * 1e3;
        self.verify_ms += round.verify_seconds * 1e3;
    }

    fn unverified(&mut self, tokens: usize, seconds: f64) {
        self.send_tokens();
        self.speculation.unverified += tokens as u64;
        self.draft_ms += seconds * 1e3;
        self.own_seconds += seconds;
    }

    fn drafter_failed(&mut self, candidate: usize, error: &crate::sampling::SamplingError) {
        let name = &self.names[candidate];
        self.warnings.push(format!("Drafter {name} was left out of the rest of this answer: {error}"));
    }

    fn is_cancelled(&self) -> bool {
        self.canceller.is_cancelled() || self.events.is_closed()
    }
}

/// Statement that the tokens are those of plain decoding with the target as it was loaded, or of what was given up and
/// on what grounds.
fn exactness(speculation: &Speculation, tokens: usize, facts: &AnswerFacts<'_>) -> String {
    let kept = given_up(speculation, tokens, facts);
    match facts.certified {
        Some((certified, _)) if kept.starts_with(LOSSY) => {
            let floor = certified.certificate().floor;
            format!("{kept}, within a quality floor of {floor} by the certificate {}", certified.path().display())
        }
        _ => kept,
    }
}

/// Beginning of sentences about answers in which something was given up.
const LOSSY: &str = "lossy: ";

fn given_up(speculation: &Speculation, tokens: usize, facts: &AnswerFacts<'_>) -> String {
    match facts.lossy {
        LossyPlan::Exit { depth, threshold } if speculation.unverified > 0 => format!(
            "{LOSSY}{} of {tokens} tokens left the target after layer {depth} without verification, at a confidence of at least {threshold}",
            speculation.unverified
        ),
        LossyPlan::Skip(plan) => format!("{LOSSY}the target did without {plan}"),
        LossyPlan::Precision(_) => {
            format!("{LOSSY}the target answered in {} instead of {}", facts.precision, facts.whole_precision)
        }
        _ if facts.exact => BIT_IDENTICAL.to_owned(),
        _ => "unverified on this device".to_owned(),
    }
}

/// Layers that the target did without.
fn layers_skipped(plan: &LossyPlan) -> usize {
    if let LossyPlan::Skip(plan) = plan { plan.whole_layers() } else { 0 }
}

/// Which way was taken and why, in plain words.
fn plan_report(speculation: &Speculation, facts: &AnswerFacts<'_>) -> PlanReport {
    let asked = facts.asked;
    let target_precision = facts.precision.clone();
    let difficulty = facts.difficulty.map(str::to_owned);
    let expected_acceptance = facts.expected_acceptance.clone();
    let certified = facts.certified.map(|(certified, level)| certified.sentence(level));
    let expected: String = certified.iter().chain(&facts.expected).map(|said| format!(" {said}")).collect();
    let Some((drafter, counts)) = speculation.main_drafter() else {
        let skipped = layers_skipped(facts.lossy);
        if let LossyPlan::Exit { depth, threshold } = facts.lossy {
            let (left, steps) = (speculation.unverified, speculation.steps);
            return PlanReport {
                drafter: "none".into(),
                exit_depth: Some(*depth),
                target_precision,
                why: format!(
                    "Tokens may leave at exit:{depth} from a confidence of {threshold} on: {left} did, {steps} took all layers.{expected}"
                ),
                difficulty,
                ..PlanReport::default()
            };
        }
        let why = match asked {
            DrafterChoice::None => "Plain decoding was asked for.",
            DrafterChoice::Lookup => "Nothing drafted: no earlier occurrence was found, or drafting did not pay.",
            _ => "Nothing drafted: by the measured step costs and acceptance, drafting does not pay here.",
        };
        let why = format!("{why}{expected}");
        return PlanReport {
            drafter: "none".into(),
            target_precision,
            layers_skipped: skipped,
            difficulty,
            expected_acceptance,
            why,
            ..PlanReport::default()
        };
    };
    let accepted = 100.0 * counts.accepted as f64 / counts.evaluated.max(1) as f64;
    let (rounds, steps) = (counts.rounds, speculation.steps);
    let reason = match asked {
        DrafterChoice::Auto => "drafted most, by measured step costs and acceptance",
        _ => "was asked for",
    };
    let name = drafter.parse().unwrap_or(DrafterChoice::None);
    PlanReport {
        drafter: drafter.to_owned(),
        draft_length: counts.drafted as f64 / rounds.max(1) as f64,
        exit_depth: if let DrafterChoice::Exit(depth) = name { Some(depth) } else { None },
        draft_precision: (facts.draft_precision)(&name),
        target_precision,
        layers_skipped: match (&name, facts.lossy) {
            // The draft does without both.
            (DrafterChoice::Skip(plan), LossyPlan::Skip(own)) => plan.and(own).whole_layers(),
            (DrafterChoice::Skip(plan), _) => plan.whole_layers(),
            (_, own) => layers_skipped(own),
        },
        difficulty,
        expected_acceptance,
        why: format!(
            "{drafter} {reason}: in {rounds} of {steps} steps, {accepted:.0}% of evaluated tokens accepted.{expected}"
        ),
    }
}

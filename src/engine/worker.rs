//! The decode thread: takes requests from the queue and answers them one by one.
//!
//! What it learned about this machine and its drafters (the planner) stays from answer to answer; everything else is made anew for each.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::stream::{Answer, Event, FinishReason};
use crate::config::GenerationConfig;
use crate::drafters::exit::ExitDrafter;
use crate::drafters::lookup::LookupDrafter;
use crate::drafters::model::ModelDrafter;
use crate::drafters::{Drafter, DrafterChoice};
use crate::error::Error;
use crate::model::{Decoder, Sequence};
use crate::report::{Adaptations, PlanReport, QualityMetrics, Report, Speculation};
use crate::sampling::Sampler;
use crate::speculation::calibrate::calibrate;
use crate::speculation::decode::{Decode, Flow};
use crate::speculation::planner::{Candidate, DraftLength, Planner};
use crate::speculation::{MAX_DRAFT, Round, VerifyCosts};
use crate::text::Tokenizer;
use crate::text::stream::TextStream;

/// Prompt tokens that go through the target together. A cancelled answer ends after at most one such part.
const PREFILL_CHUNK: usize = 256;
/// With more layers than this, `auto` considers only a few exits: a shallow one, a quarter and half of the way.
const ALL_EXITS_UP_TO: usize = 8;

/// A draft model and what it is called.
pub(super) struct DraftModel {
    pub(super) name: String,
    pub(super) decoder: Arc<Decoder>,
}

/// A request on its way to the decode thread.
pub(super) struct Job {
    pub(super) prompt: Vec<u32>,
    pub(super) config: GenerationConfig,
    pub(super) events: UnboundedSender<Result<Event, Error>>,
}

/// What the decode thread owns.
pub(super) struct Worker {
    target: Arc<Decoder>,
    drafts: Vec<DraftModel>,
    tokenizer: Arc<Tokenizer>,
    planner: Planner,
    threads: usize,
}

impl Worker {
    pub(super) fn new(
        target: Arc<Decoder>,
        drafts: Vec<DraftModel>,
        tokenizer: Arc<Tokenizer>,
        threads: usize,
    ) -> Self {
        let models = drafts.iter().map(|draft| DrafterChoice::Model(Some(draft.name.clone())));
        let exits = (1..target.layer_count()).map(DrafterChoice::Exit);
        let names = std::iter::once(DrafterChoice::Lookup).chain(models).chain(exits);
        let planner = Planner::new(names.map(Candidate::new).collect(), VerifyCosts::default());
        Self { target, drafts, tokenizer, planner, threads }
    }

    /// Answers until the engine is gone.
    pub(super) fn serve(mut self, queue: &mpsc::Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            let result = self.answer(&job);
            // A receiver that is gone has cancelled: there is nobody to tell.
            let _ = match result {
                Ok(Some(event)) => job.events.send(Ok(event)),
                Ok(None) => Ok(()),
                Err(error) => job.events.send(Err(error)),
            };
        }
    }

    /// Answers one request; `None` if it was cancelled.
    fn answer(&mut self, job: &Job) -> Result<Option<Event>, Error> {
        let config = &job.config;
        let allowed = self.candidates_for(&config.drafter);
        let calibration_ms = self.calibrate(config, &allowed);
        let started = Instant::now();
        let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1e3;

        let prompt = job.prompt.len();
        let limit = self.target.config().context.min(prompt.saturating_add(config.max_new_tokens));
        let mut target = self.sequence(&self.target, limit + MAX_DRAFT)?;
        let mut drafters = Vec::with_capacity(self.planner.candidates().len());
        for (index, candidate) in self.planner.candidates().iter().enumerate() {
            let wanted = allowed.contains(&index);
            drafters.push(if wanted { Some(self.drafter(&candidate.name, limit + MAX_DRAFT)?) } else { None });
        }

        // Prefill. The prompt's last token stays out: the first step takes it, with a draft behind it.
        let cancelled = || job.events.is_closed();
        let most = &job.prompt[..prompt - 1];
        let done = target.prefill(most, PREFILL_CHUNK, |done| {
            let _ = job.events.send(Ok(Event::Prefill { done, total: prompt }));
            !cancelled()
        });
        if done < most.len() {
            return Ok(None);
        }
        let prefill_ms = milliseconds(started);

        // Decode.
        let mut text = TextStream::new(self.tokenizer.inner(), &config.stop, &job.prompt)?;
        let mut tokens = job.prompt.clone();
        let mut answer_text = String::new();
        let mut stopped = false;
        let mut text_error = None;
        let mut time_to_first_token_ms = None;
        let stop_tokens = if config.ignore_eos { &[][..] } else { &self.target.config().stop_tokens[..] };
        let mut emit = |token: u32| {
            time_to_first_token_ms.get_or_insert_with(|| milliseconds(started));
            let at_stop_token = stop_tokens.contains(&token);
            let mut piece = String::new();
            if !at_stop_token {
                match text.push(token) {
                    Ok(pushed) => {
                        stopped |= pushed.stopped.is_some();
                        piece = pushed.text;
                    }
                    Err(error) => text_error = Some(error),
                }
            }
            stopped |= at_stop_token;
            answer_text.push_str(&piece);
            let _ = job.events.send(Ok(Event::Token { id: token, text: piece }));
            if stopped || text_error.is_some() { Flow::Stop } else { Flow::Continue }
        };
        let names: Vec<String> = self.planner.candidates().iter().map(|c| c.name.to_string()).collect();
        let mut speculation = Speculation::default();
        let (mut draft_ms, mut verify_ms) = (0.0, 0.0);
        let mut observe = |round: &Round| {
            let drafter = round.candidate.map(|index| names[index].as_str());
            speculation.add(drafter, round.drafted, round.accepted);
            draft_ms += round.draft_seconds * 1e3;
            verify_ms += round.verify_seconds * 1e3;
        };
        let mut warnings = Vec::new();
        let mut failed = |index: usize, error| {
            warnings.push(format!("Drafter {} was left out of the rest of this answer: {error}", names[index]));
        };
        let mut sampler = Sampler::new(&config.sampling)?;
        let decode = Decode {
            target: &mut target,
            drafters: &mut drafters,
            planner: &mut self.planner,
            length: config.draft_len,
            sampler: &mut sampler,
            tokens: &mut tokens,
            prompt,
            limit,
            failed: &mut failed,
        };
        decode.run(&mut emit, &mut observe, &cancelled)?;
        if let Some(error) = text_error {
            return Err(error.into());
        }
        if cancelled() {
            return Ok(None);
        }
        let latency_ms = milliseconds(started);

        let rest = text.finish()?;
        answer_text.push_str(&rest);
        let new_tokens = tokens.split_off(prompt);
        speculation.tokens_per_step = new_tokens.len() as f64 / speculation.steps.max(1) as f64;
        let precision = self.target.format().to_string();
        let report = Report {
            latency_ms,
            time_to_first_token_ms,
            prefill_ms,
            draft_ms,
            verify_ms,
            calibration_ms,
            energy_wh: None,
            energy_source: "unavailable",
            exactness: if self.target.compute().is_row_invariant() {
                "bit-identical to plain decoding"
            } else {
                "unverified on this device"
            },
            plan: self.plan_report(config, &speculation, &precision),
            speculation,
            adaptations: Adaptations {
                precision,
                layers_skipped: 0,
                context_used: prompt + new_tokens.len(),
                batch_size: 1,
            },
            quality_metrics: QualityMetrics { estimated_perplexity_delta: None, confidence: None },
            step_costs_ms: self.planner.costs().observed().map(|(rows, seconds)| (rows, seconds * 1e3)).collect(),
            layer_evaluations: target.layer_evaluations(),
            threads: self.threads,
            warnings,
        };
        let answer = Answer {
            prompt_tokens: job.prompt.clone(),
            tokens: new_tokens,
            text: answer_text,
            finish_reason: if stopped { FinishReason::Stop } else { FinishReason::Length },
            report,
        };
        Ok(Some(Event::Done { text: rest, answer: Box::new(answer) }))
    }

    /// The planner's candidates that a choice of drafter allows.
    fn candidates_for(&self, choice: &DrafterChoice) -> Vec<usize> {
        let layers = self.target.layer_count();
        let allowed = |name: &DrafterChoice| match (choice, name) {
            (DrafterChoice::None, _) => false,
            (DrafterChoice::Auto, &DrafterChoice::Exit(depth)) => {
                layers <= ALL_EXITS_UP_TO || [layers / 8, layers / 4, layers / 2].contains(&depth)
            }
            (DrafterChoice::Auto, _) => true,
            (DrafterChoice::Model(None), DrafterChoice::Model(Some(name))) => *name == self.drafts[0].name,
            (choice, name) => choice == name,
        };
        let candidates = self.planner.candidates().iter().enumerate();
        candidates.filter(|(_, candidate)| allowed(&candidate.name)).map(|(index, _)| index).collect()
    }

    /// Measures what the planner needs to decide and does not know yet. Milliseconds it took.
    fn calibrate(&mut self, config: &GenerationConfig, allowed: &[usize]) -> f64 {
        let decides = config.draft_len == DraftLength::Auto || allowed.len() > 1;
        if !decides || allowed.is_empty() {
            return 0.0;
        }
        let started = Instant::now();
        let drafts = &self.drafts;
        let decoder_of = |name: &DrafterChoice| match name {
            DrafterChoice::Model(Some(name)) => {
                drafts.iter().find(|draft| draft.name == *name).map(|draft| Arc::clone(&draft.decoder))
            }
            _ => None,
        };
        if calibrate(&self.target, &mut self.planner, allowed, &decoder_of) {
            started.elapsed().as_secs_f64() * 1e3
        } else {
            0.0
        }
    }

    fn sequence(&self, decoder: &Arc<Decoder>, positions: usize) -> Result<Sequence, Error> {
        Sequence::try_new(Arc::clone(decoder), positions).map_err(|bytes| Error::CacheTooLarge { bytes, positions })
    }

    fn drafter(&self, name: &DrafterChoice, positions: usize) -> Result<Box<dyn Drafter>, Error> {
        Ok(match name {
            DrafterChoice::Exit(depth) => Box::new(ExitDrafter::new(*depth)),
            DrafterChoice::Model(Some(name)) => {
                let draft = self.drafts.iter().find(|draft| draft.name == *name).ok_or(Error::Stopped)?;
                let positions = positions.min(draft.decoder.config().context);
                Box::new(ModelDrafter::new(self.sequence(&draft.decoder, positions)?))
            }
            _ => Box::new(LookupDrafter::new()),
        })
    }

    fn plan_report(&self, config: &GenerationConfig, speculation: &Speculation, precision: &str) -> PlanReport {
        let target_precision = precision.to_owned();
        let Some((drafter, counts)) = speculation.main_drafter() else {
            let why = match config.drafter {
                DrafterChoice::None => "Plain decoding was asked for.",
                DrafterChoice::Lookup => "Nothing drafted: no earlier occurrence was found or drafting did not pay.",
                _ => "Nothing drafted: by the measured step costs and acceptance, drafting does not pay here.",
            };
            return PlanReport { drafter: "none".into(), target_precision, why: why.into(), ..PlanReport::default() };
        };
        let exit_depth = match drafter.parse() {
            Ok(DrafterChoice::Exit(depth)) => Some(depth),
            _ => None,
        };
        let accepted = 100.0 * counts.accepted as f64 / counts.evaluated.max(1) as f64;
        let draft_length = counts.drafted as f64 / counts.rounds.max(1) as f64;
        let rounds = counts.rounds;
        let steps = speculation.steps;
        let why = match config.drafter {
            DrafterChoice::Auto => format!(
                "{drafter} paid most by measured step costs and acceptance: it drafted in {rounds} of {steps} steps, {accepted:.0}% of evaluated tokens accepted."
            ),
            _ => format!(
                "{drafter} was asked for: it drafted in {rounds} of {steps} steps, {accepted:.0}% of evaluated tokens accepted."
            ),
        };
        let draft_precision = match drafter.parse() {
            Ok(DrafterChoice::Model(Some(name))) => {
                self.drafts.iter().find(|draft| draft.name == name).map(|draft| draft.decoder.format().to_string())
            }
            Ok(DrafterChoice::Exit(_)) => Some(precision.to_owned()),
            _ => None,
        };
        PlanReport {
            drafter: drafter.to_owned(),
            draft_length,
            exit_depth,
            draft_precision,
            target_precision,
            layers_skipped: 0,
            difficulty: None,
            why,
        }
    }
}

//! One answer of the engine: what it begins with, what is settled once its prompt was read, and the report in which it ends.

use std::collections::BTreeMap;
use std::time::Instant;

use paceline_kernels::PAGE_POSITIONS;

use super::Error;
use super::answer_report::{AnswerFacts, AnswerReport, KeptTokenizer};
use super::stream::Event;
use super::variant::Variant;
use super::worker::{Job, Worker};
use crate::answer::Answer;
use crate::certificate::Certified;
use crate::config::GenerationConfig;
use crate::drafters::DrafterChoice;
use crate::journal::Entry;
use crate::lossy::LossyPlan;
use crate::meters::{Energy, MeterError, Window};
use crate::model::{Decoder, PoolError};
use crate::routing::{Advice, Shown};
use crate::sampling::Sampler;
use crate::speculation::drafter_stats::DrafterStats;
use crate::speculation::machine::DrafterCosts;
use crate::speculation::planner::Planner;
use crate::speculation::request::DecodeSetup;
use crate::speculation::{EarlyExit, End, MAX_DRAFT, Request};
use crate::text::stream::TextStream;

/// An answer in the making.
pub(super) struct Answering {
    pub(super) request: Request<AnswerReport>,
    pub(super) job: Job,
    /// The quality that is given up, which says on what it runs.
    plan: LossyPlan,
    window: Window,
    /// Tokens that it may have with its prompt.
    limit: usize,
    /// Tokens that its sequences may have: with those of a last draft.
    positions: usize,
    /// Advice of the router about the prompt, the seconds that it took, and the prompt's level where the plan depends on it.
    advice: Option<Advice>,
    routing: f64,
    level: Option<usize>,
    /// True if the plan is still to be settled by the prompt's level.
    is_judged: bool,
    /// Expectation of the router, in words.
    expected: Option<String>,
}

impl Answering {
    /// True if it runs on the variant of this plan.
    pub(super) fn runs_on(&self, plan: &LossyPlan) -> bool {
        self.plan == *plan || self.plan.keeps_target() && plan.keeps_target()
    }

    /// True if the router has a say.
    fn is_routed(&self) -> bool {
        is_routed(&self.job.config, &self.plan)
    }
}

impl Worker {
    /// Begins with a request; `None` if nobody wants the answer any more.
    pub(super) fn begin(&mut self, job: Job) -> Result<Option<Answering>, Error> {
        if job.events.is_closed() {
            return Ok(None);
        }
        self.files.check()?;
        let (window, started) = (self.meter.start(), Instant::now());
        // Where the certified plan depends on the prompt's level, the whole target reads the prompt first: its states are what
        // the router judges.
        let is_judged = job.certified.as_deref().is_some_and(|certified| certified.only_plan().is_none());
        let plan = match job.certified.as_deref().map(Certified::only_plan) {
            None => self.plan(&job.config)?,
            Some(only) => only.cloned().unwrap_or_default(),
        };
        let variant = self.variants.of(&plan).ok_or(Error::Internal)?;
        let context = variant.target.config().context;
        let limit = context.min(job.prompt.len().saturating_add(job.config.max_new_tokens));
        let positions = limit + MAX_DRAFT;
        variant.check_room(positions)?;
        let stop_tokens = if job.config.ignore_eos { Vec::new() } else { variant.target.config().stop_tokens.clone() };
        let sampler = Sampler::new(&job.config.sampling)?;
        let stream = TextStream::new(KeptTokenizer(self.tokenizer.clone()), &job.config.stop, &job.prompt)?;

        let advisor = self.advisor.as_ref().filter(|_| is_judged || is_routed(&job.config, &plan));
        let (tap, reader) = (advisor.map(|advisor| advisor.layer()), advisor.map(|advisor| advisor.reader()));
        let ends = (job.events.clone(), job.canceller.clone());
        let answer_report = AnswerReport::new(ends, started, stream, stop_tokens.clone(), job.prompt.len(), reader);
        let request = Request::new(job.prompt.clone(), limit, sampler, tap, answer_report).stopping_at(stop_tokens);
        variant.running += 1;
        Ok(Some(Answering {
            request,
            job,
            plan,
            window,
            limit,
            positions,
            advice: None,
            routing: 0.0,
            level: None,
            is_judged,
            expected: None,
        }))
    }

    /// Settles what drafts for an answer whose prompt was read, and has it decode. Where the prompt's level asks for another
    /// target, that reads the prompt first.
    pub(super) fn decode(&mut self, answering: &mut Answering) -> Result<(), Error> {
        self.advise(answering)?;
        if std::mem::take(&mut answering.is_judged) {
            let certified = answering.job.certified.as_deref().ok_or(Error::Internal)?;
            let plan = certified.plan(answering.level.ok_or(Error::Internal)?).clone();
            if !plan.keeps_target() {
                // Lower precisions and skipped layers change keys and values from the prompt on.
                self.release(answering);
                answering.plan = plan;
                let variant = self.variants.of(&answering.plan).ok_or(Error::Internal)?;
                variant.running += 1;
                answering.request.read_again();
                return variant.check_room(answering.positions);
            }
            answering.plan = plan;
        }
        let is_routed = answering.is_routed();
        let Answering { request, job: Job { prompt, config, .. }, plan, limit, positions, advice, .. } = answering;
        let variant = self.variants.of(plan).ok_or(Error::Internal)?;
        let early = early_exit(plan, &variant.target);
        let drafters = match early {
            Some(_) => Vec::new(),
            None => variant.drafters(&config.drafter, *positions)?,
        };
        let per_token = request.listener.own_reading_seconds() / (prompt.len() - 1).max(1) as f64;
        let mut state = variant.planner.begin(*limit - prompt.len(), per_token);
        state.aim(config.objective(), variant.target.weight_bytes());
        if !matches!(config.drafter, DrafterChoice::Auto | DrafterChoice::None) {
            state.insist();
        }
        let drafting = advice.as_ref().filter(|_| is_routed);
        answering.expected = drafting.and_then(|advice| variant.expect(&mut state, advice, prompt.len(), *limit));
        let names = variant.planner.names().map(ToString::to_string).collect();
        request.listener.name_drafters(names);
        request.decode(DecodeSetup { drafters, length: config.draft_len, early, state });
        Ok(())
    }

    /// Asks the router about a prompt that was read.
    fn advise(&mut self, answering: &mut Answering) -> Result<(), Error> {
        let (Some(reader), Some(advisor)) = (answering.request.listener.take_reader(), &self.advisor) else {
            return Ok(());
        };
        let started = Instant::now();
        let target = &self.variants.of(&answering.plan).ok_or(Error::Internal)?.target;
        let Job { prompt, config, .. } = &answering.job;
        let advice = advisor.advise(reader, target, prompt, config.sampling.temperature, &config.hints);
        answering.routing = started.elapsed().as_secs_f64();
        // The level is the network's alone: what was learned while serving corrects acceptances, and not this.
        answering.level = answering.is_judged.then_some(advice.level.0);
        answering.advice = Some(advice);
        Ok(())
    }

    /// Gives back the memory of an answer that has ended, or goes on on another variant.
    pub(super) fn release(&mut self, answering: &mut Answering) {
        if let Some(variant) = self.variants.of(&answering.plan) {
            answering.request.release(&variant.target, &mut self.pools);
            variant.running = variant.running.saturating_sub(1);
            if let Some(state) = answering.request.state() {
                variant.planner.end(state);
            }
        }
    }

    /// The last event of an answer that has ended; `None` if nobody wants it.
    pub(super) fn finish(&mut self, mut answering: Answering) -> Result<Option<Event>, Error> {
        // Where a round ended early, what came before is certain nevertheless.
        answering.request.listener.send_tokens();
        self.check_end(&mut answering)?;
        // Nobody vouches for an answer, and nothing is learned from it, if the weights changed meanwhile.
        self.files.check()?;
        if answering.request.listener.is_dropped() {
            return Ok(None);
        }
        let is_routed = answering.is_routed();
        self.learn(&answering)?;
        let whole_precision = self.variants.whole().target.format().to_string();
        let Answering { request, job, plan, window, limit, advice, routing, level, expected, .. } = answering;
        let variant = self.variants.of(&plan).ok_or(Error::Internal)?;
        let drafting = advice.as_ref().filter(|_| is_routed);
        let quality = advice.as_ref().zip(self.advisor.as_ref());
        let quality = quality.and_then(|(advice, advisor)| advisor.quality(advice, &plan.routed()?));
        let (mut tokens, layer_evaluations) = (request.tokens().to_vec(), request.layer_evaluations());
        let kv_cache_bytes = request.cache_bytes();
        let mut answer_report = request.into_listener();
        self.notes.iter().cloned().chain(job.warnings).for_each(|sentence| answer_report.warn(sentence));
        if let (true, Some(reason)) = (is_routed, &self.refused) {
            answer_report.warn(format!("Drafters were chosen by measurements alone. {reason}"));
        }
        let warnings = self.advisor.as_mut().map(|advisor| advisor.take_warnings());
        warnings.into_iter().flatten().for_each(|warning| answer_report.warn(warning));
        let energy = energy_of(window, &mut answer_report);
        let facts = AnswerFacts {
            tokens: tokens.split_off(job.prompt.len()),
            prompt_tokens: tokens,
            most_tokens: limit - job.prompt.len(),
            asked: &job.config.drafter,
            lossy: &plan,
            whole_precision,
            precision: variant.target.format().to_string(),
            draft_precision: &|drafter| variant.catalog.precision(drafter),
            exact: variant.target.compute().is_row_invariant(),
            prefill_ms: answer_report.reading_seconds() * 1e3,
            energy,
            routing_ms: advice.is_some().then_some(routing * 1e3),
            difficulty: advice.as_ref().map(Advice::difficulty),
            certified: job.certified.as_deref().map(|certified| (certified, level)),
            expected,
            quality,
            expected_acceptance: drafting.map(Advice::expected),
            step_costs_ms: step_costs_ms(&variant.planner),
            draft_costs_ms: by_drafter(variant, |_, costs| Some(costs.token.seconds()? * 1e3)),
            verification_shares: by_drafter(variant, |stats, costs| stats.shares_layers().then_some(costs.share)),
            layer_evaluations,
            kv_cache: variant.target.cache_format().to_string(),
            kv_cache_bytes,
            threads: self.threads,
        };
        let mut event = answer_report.finish(facts)?;
        if let Event::Done { answer, .. } = &mut event {
            self.note(answer, &plan);
        }
        Ok(Some(event))
    }

    /// The error of an answer that did not end well.
    fn check_end(&self, answering: &mut Answering) -> Result<(), Error> {
        match answering.request.take_end() {
            Some(End::Complete) => Ok(()),
            Some(End::Failed(error)) => Err(error.into()),
            Some(End::NoRoom(PoolError::Full { pages })) => {
                Err(Error::LargerThanPool { positions: answering.positions, pool: pages * PAGE_POSITIONS })
            }
            Some(End::NoRoom(PoolError::Memory(none))) => {
                Err(Error::CacheTooLarge { bytes: none.bytes as u64, positions: answering.positions })
            }
            Some(End::Panicked) | None => Err(Error::Internal),
        }
    }

    /// Has the router's state learn from an answer. What is learned is of the target as it was loaded.
    fn learn(&mut self, answering: &Answering) -> Result<(), Error> {
        let (true, true, Some(advice), Some(state), Some(advisor)) = (
            answering.plan == LossyPlan::None,
            answering.is_routed(),
            &answering.advice,
            answering.request.state(),
            self.advisor.as_mut().filter(|advisor| !advisor.is_frozen()),
        ) else {
            return Ok(());
        };
        let planner = &self.variants.of(&answering.plan).ok_or(Error::Internal)?.planner;
        for (name, (shown, scored)) in planner.names().zip(planner.shown(state).into_iter().zip(state.shadow_scores()))
        {
            let shown = shown.map(Shown::Drafting).or(scored.map(Shown::Shadow));
            shown.into_iter().for_each(|shown| advisor.learn(advice, &name.to_string(), shown));
        }
        advisor.end_answer(planner.cost_table());
        Ok(())
    }

    /// Adds an answer to the journal. What goes wrong is told in its report.
    fn note(&mut self, answer: &mut Answer, plan: &LossyPlan) {
        let Some(journal) = &self.journal else { return };
        // What an answer saved is measured against the target as it was loaded, whatever it was given by.
        let mut costs = self.variants.whole().planner.machine().steps.observed();
        let plain_step = costs.find(|(rows, _)| *rows == 1).map(|(_, seconds)| seconds * 1e3);
        // The time of steps that answers shared is not comparable.
        let plain_step = plain_step.filter(|_| answer.report.adaptations.batch_size == 1);
        let result = journal.append(&Entry::now(answer, plan, plain_step));
        let failed = result.is_err();
        answer.report.warnings.extend(result.err().filter(|_| !self.journal_failed).map(|error| error.to_string()));
        self.journal_failed = failed;
    }
}

/// True if the router has a say: it knows the target as it was loaded, and rounded it is nearly the same.
fn is_routed(config: &GenerationConfig, plan: &LossyPlan) -> bool {
    config.drafter == DrafterChoice::Auto && matches!(plan, LossyPlan::None | LossyPlan::Precision(_))
}

/// The energy of an answer: its share of what was counted, where others shared its steps.
fn energy_of(window: Window, answer_report: &mut AnswerReport) -> Option<Energy> {
    match window.finish() {
        Ok(energy) => Some(match answer_report.company() {
            0 => energy,
            _ => energy.shared(answer_report.own_seconds()),
        }),
        Err(MeterError::Unavailable(_)) => None,
        Err(failed) => {
            answer_report.warn(failed.to_string());
            None
        }
    }
}

/// Milliseconds of the target's steps, by their rows.
fn step_costs_ms(planner: &Planner) -> BTreeMap<usize, f64> {
    planner.machine().steps.observed().map(|(rows, seconds)| (rows, seconds * 1e3)).collect()
}

/// A number of each drafter that has one.
fn by_drafter(
    variant: &Variant,
    number: impl Fn(&DrafterStats, &DrafterCosts) -> Option<f64>,
) -> BTreeMap<String, f64> {
    let of = |(stats, costs): (&DrafterStats, &DrafterCosts)| Some((stats.name.to_string(), number(stats, costs)?));
    variant.planner.drafters().filter_map(of).collect()
}

/// When tokens leave the target early, if they do by this plan.
fn early_exit(plan: &LossyPlan, target: &Decoder) -> Option<EarlyExit> {
    let LossyPlan::Exit { depth, threshold } = *plan else { return None };
    Some(EarlyExit { depth, temperature: target.exit_temperature(depth), threshold })
}

//! The decode thread: takes requests from the queue and answers them one by one.
//!
//! The planner, which learns about this machine and its drafters, stays from answer to answer; everything else is made
//! anew for each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;

use super::Error;
use super::importance::{self, Texts};
use super::lane::Lanes;
use super::queue::Queue;
use super::record::{Circumstances, Events, Record};
use super::stream::{Canceller, Event};
use super::{EngineInfo, RouterState};
use crate::answer::Answer;
use crate::certificate::Certified;
use crate::checkpoint::MappedFiles;
use crate::config::{GenerationConfig, Quality};
use crate::drafters::DrafterChoice;
use crate::drafters::catalog::Catalog;
use crate::journal::{Entry, Journal};
use crate::lossy::{self, LossyPlan, Means};
use crate::meters::{Meter, MeterError};
use crate::model::Decoder;
use crate::routing::{Advice, Advisor, Shown};
use crate::sampling::Sampler;
use crate::speculation::MAX_DRAFT;
use crate::speculation::decode::Decode;
use crate::speculation::planner::Candidate;
use crate::speculation::unverified::{DecodeEarly, EarlyExit};
use crate::text::Tokenizer;
use crate::text::stream::TextStream;

/// Prompt tokens that go through the target together. An answer that is cancelled ends after at most one such part.
const PREFILL_CHUNK: usize = 256;

/// A request on its way to the decode thread.
pub(super) struct Job {
    pub(super) prompt: Vec<u32>,
    pub(super) config: GenerationConfig,
    /// Certificate that names the plan of a bounded answer.
    pub(super) certified: Option<Arc<Certified>>,
    /// Sentences about the prompt that belong into the report.
    pub(super) warnings: Vec<String>,
    pub(super) events: Events,
    pub(super) canceller: Canceller,
}

impl Job {
    /// True if the answer is to end here.
    fn is_cancelled(&self) -> bool {
        self.canceller.is_cancelled() || self.events.is_closed()
    }
}

/// State owned by the decode thread.
pub(super) struct Worker {
    lanes: Lanes,
    tokenizer: Arc<Tokenizer>,
    /// Texts on which the importance of the target's layers is measured.
    texts: Texts,
    /// Influence of each of the target's layers on the hidden state in such texts, once somebody asked.
    influence: Option<Vec<f64>>,
    advisor: Option<Advisor>,
    /// The weights files, of which some rows are read where they lie.
    files: MappedFiles,
    /// Why the router beside the target is not used, if that is so.
    refused: Option<String>,
    /// Errors in what the models' files say about themselves.
    notes: Vec<String>,
    threads: usize,
    meter: Meter,
    journal: Option<Journal>,
    /// True if it was reported that answers are not in the journal. It is reported once, until they are again.
    journal_failed: bool,
}

impl Worker {
    pub(super) fn new(
        catalog: Catalog,
        tokenizer: Arc<Tokenizer>,
        texts: Texts,
        advisor: Option<Advisor>,
        files: MappedFiles,
        info: &EngineInfo,
    ) -> Self {
        let mut lanes = Lanes::new(catalog);
        if let Some(advisor) = &advisor {
            lanes.restore(advisor.costs());
        }
        let refused = match &info.router {
            RouterState::Refused(reason) => Some(reason.clone()),
            _ => None,
        };
        Self {
            lanes,
            tokenizer,
            texts,
            influence: None,
            advisor,
            files,
            refused,
            notes: info.notes.clone(),
            threads: info.threads,
            meter: info.meter.clone(),
            journal: info.journal.as_ref().map(Journal::new),
            journal_failed: false,
        }
    }

    /// Answers until the engine is gone. Gives the sentences that no answer told any more.
    pub(super) fn serve(mut self, queue: &Queue) -> Vec<String> {
        // If this thread ends in a panic all the same, nobody waits for answers that no longer come.
        let _abandon = Abandon(queue);
        while let Some(job) = queue.pop() {
            // A bug in one answer must not end the engine.
            let result = catch_unwind(AssertUnwindSafe(|| self.answer(&job))).unwrap_or(Err(Error::Internal));
            // A receiver that is gone has cancelled: there is nobody to tell.
            let _ = match result {
                Ok(Some(event)) => job.events.send(Ok(event)),
                Ok(None) => Ok(()),
                Err(error) => job.events.send(Err(error)),
            };
            // Who waits for an answer does not wait for the disk.
            if let Some(advisor) = &mut self.advisor {
                advisor.save_now_and_then();
            }
        }
        self.advisor.map(Advisor::close).unwrap_or_default()
    }

    /// Answers one request; `None` if it was cancelled.
    fn answer(&mut self, job: &Job) -> Result<Option<Event>, Error> {
        let Job { prompt, config, certified, warnings, events, canceller } = job;
        if events.is_closed() {
            return Ok(None);
        }
        self.files.check()?;
        let window = self.meter.start();
        let started = Instant::now();

        // Where the certified plan depends on the prompt's level, the whole target reads the prompt first: its states are what
        // the router judges.
        let judging = certified.as_deref().filter(|certified| certified.only_plan().is_none());
        let mut plan = match certified.as_deref().map(Certified::only_plan) {
            None => self.plan(config)?,
            Some(only) => only.cloned().unwrap_or_default(),
        };
        let whole_precision = self.lanes.whole().target.format().to_string();
        let mut lane = self.lanes.of(&plan).ok_or(Error::Internal)?;
        let limit = lane.target.config().context.min(prompt.len().saturating_add(config.max_new_tokens));
        let positions = limit + MAX_DRAFT;
        let mut target = lane.sequence(positions)?;
        let mut sampler = Sampler::new(&config.sampling)?;

        // Prefill. The prompt's last token stays out: the first step takes it, with a draft behind it.
        let most = &prompt[..prompt.len() - 1];
        // The router knows the target as it was loaded, and rounded it is nearly the same.
        let is_routed = |plan: &LossyPlan| {
            config.drafter == DrafterChoice::Auto && matches!(plan, LossyPlan::None | LossyPlan::Precision(_))
        };
        let advisor = self.advisor.as_ref().filter(|_| judging.is_some() || is_routed(&plan));
        let mut reader = advisor.map(|advisor| (advisor, advisor.reader()));
        let mut see = |hidden| reader.iter_mut().for_each(|(_, reader)| reader.see(Tensor::clone(&hidden)));
        let watch = advisor.map(|advisor| (advisor.layer(), &mut see as &mut dyn FnMut(Tensor<2>)));
        let listen = |done| {
            // Nobody listens to an answer that was dropped, and sending says so.
            !canceller.is_cancelled() && events.send(Ok(Event::Prefill { done, total: prompt.len() })).is_ok()
        };
        let mut read = target.prefill_seeing(most, PREFILL_CHUNK, watch, listen);
        if events.is_closed() {
            return Ok(None);
        }
        let mut reading = started.elapsed().as_secs_f64();
        let mut prefill = reading;
        // A prompt that was not read to its end is judged by nobody.
        let advice = reader.filter(|_| read == most.len() && !job.is_cancelled()).map(|(advisor, reader)| {
            advisor.advise(reader, &lane.target, prompt, config.sampling.temperature, &config.hints)
        });
        let routing = started.elapsed().as_secs_f64() - prefill;
        // Layers that ran for the router's sake alone.
        let mut judging_layers = 0;
        // The level is the network's alone: what was learned while serving corrects acceptances, and not this.
        let level = advice.as_ref().map(|advice| advice.level.0).filter(|_| judging.is_some());
        if let (Some(certified), false) = (judging, job.is_cancelled()) {
            plan = certified.plan(level.ok_or(Error::Internal)?).clone();
            if !plan.keeps_target() {
                // Lower precisions and skipped layers change keys and values from the prompt on.
                let again = Instant::now();
                judging_layers = target.layer_evaluations();
                lane = self.lanes.of(&plan).ok_or(Error::Internal)?;
                target = lane.sequence(positions)?;
                read = target.prefill(most, PREFILL_CHUNK, listen);
                reading = again.elapsed().as_secs_f64();
                prefill += reading;
            }
        }
        let is_routed = is_routed(&plan);
        let exit = early_exit(&plan, &lane.target);
        let mut drafters = match exit {
            Some(_) => Vec::new(),
            None => lane.drafters(&config.drafter, positions)?,
        };
        lane.planner.begin_answer(limit - prompt.len(), reading / read.max(1) as f64);
        lane.planner.aim(config.objective(), lane.target.weight_bytes());
        if !matches!(config.drafter, DrafterChoice::Auto | DrafterChoice::None) {
            lane.planner.insist();
        }
        let drafting = advice.as_ref().filter(|_| is_routed);
        let expected = drafting.and_then(|advice| lane.expect(advice, prompt.len(), limit));

        let stream = TextStream::new(self.tokenizer.inner(), &config.stop, prompt)?;
        let stop_tokens = if config.ignore_eos { &[][..] } else { &lane.target.config().stop_tokens };
        let names = lane.planner.candidates().iter().map(|candidate| candidate.name.to_string()).collect();
        let mut record = Record::new((events, canceller), started, stream, stop_tokens, names);
        self.notes.iter().for_each(|note| record.warn(note.clone()));
        warnings.iter().for_each(|warning| record.warn(warning.clone()));
        if let (true, Some(reason)) = (is_routed, &self.refused) {
            record.warn(format!("Drafters were chosen by measurements alone. {reason}"));
        }
        let mut tokens = prompt.clone();
        if let Some(exit) = exit {
            let (target, sampler, tokens) = (&mut target, &mut sampler, &mut tokens);
            DecodeEarly { target, exit, sampler, tokens, prompt: prompt.len(), limit }.run(&mut record)?;
        } else {
            let decode = Decode {
                target: &mut target,
                drafters: &mut drafters,
                planner: &mut lane.planner,
                length: config.draft_len,
                sampler: &mut sampler,
                tokens: &mut tokens,
                prompt: prompt.len(),
                limit,
                stop_tokens,
            };
            let result = decode.run(&mut record);
            // Where a round ends early, what came before is certain nevertheless.
            record.send_tokens();
            result?;
        }
        // Nobody vouches for an answer, and nothing is learned from it, if the weights changed meanwhile.
        self.files.check()?;
        let quality = advice.as_ref().zip(self.advisor.as_ref());
        let quality = quality.and_then(|(advice, advisor)| advisor.quality(advice, &plan.routed()?));
        // What is learned is of the target as it was loaded.
        let exact = plan == LossyPlan::None;
        let learning = self.advisor.as_mut().filter(|advisor| exact && !advisor.is_frozen());
        if let (Some(advisor), Some(advice)) = (learning, drafting) {
            let seen = lane.planner.shown().into_iter().zip(lane.planner.overheard());
            for (candidate, (shown, overheard)) in lane.planner.candidates().iter().zip(seen) {
                let shown = shown.map(Shown::Drafting).or(overheard.map(Shown::Overheard));
                shown.into_iter().for_each(|shown| advisor.learn(advice, &candidate.name.to_string(), shown));
            }
            advisor.end_answer(lane.planner.cost_table());
        }
        let warnings = self.advisor.as_mut().map(Advisor::take_warnings);
        warnings.into_iter().flatten().for_each(|warning| record.warn(warning));
        if events.is_closed() {
            return Ok(None);
        }

        let energy = match window.finish() {
            Ok(energy) => Some(energy),
            Err(MeterError::Unavailable(_)) => None,
            Err(failed) => {
                record.warn(failed.to_string());
                None
            }
        };
        let step_costs = lane.planner.costs().observed().map(|(rows, seconds)| (rows, seconds * 1e3)).collect();
        let of_candidates = |cost: &dyn Fn(&Candidate) -> Option<f64>| {
            let of = |candidate: &Candidate| Some((candidate.name.to_string(), cost(candidate)?));
            lane.planner.candidates().iter().filter_map(of).collect()
        };
        let circumstances = Circumstances {
            tokens: tokens.split_off(prompt.len()),
            prompt_tokens: tokens,
            most_tokens: limit - prompt.len(),
            asked: &config.drafter,
            lossy: &plan,
            whole_precision,
            precision: lane.target.format().to_string(),
            draft_precision: &|drafter| lane.catalog.precision(drafter),
            exact: lane.target.compute().is_row_invariant(),
            prefill_ms: prefill * 1e3,
            energy,
            routing_ms: advice.is_some().then_some(routing * 1e3),
            difficulty: advice.as_ref().map(Advice::difficulty),
            certified: certified.as_deref().map(|certified| (certified, level)),
            expected,
            quality,
            expected_acceptance: drafting.map(Advice::expected),
            step_costs_ms: step_costs,
            draft_costs_ms: of_candidates(&|candidate| Some(candidate.draft_cost.seconds()? * 1e3)),
            verification_shares: of_candidates(&|candidate| candidate.shares_layers().then_some(candidate.share)),
            layer_evaluations: judging_layers + target.layer_evaluations(),
            kv_cache: lane.target.cache_format().to_string(),
            kv_cache_bytes: target.cache_bytes(),
            threads: self.threads,
        };
        let mut event = record.finish(circumstances)?;
        if let Event::Done { answer, .. } = &mut event {
            self.note(answer, &plan);
        }
        Ok(Some(event))
    }

    /// Adds an answer to the journal. What goes wrong is told in its report.
    fn note(&mut self, answer: &mut Answer, plan: &LossyPlan) {
        let Some(journal) = &self.journal else { return };
        // What an answer saved is measured against the target as it was loaded, whatever it was given by.
        let mut costs = self.lanes.whole().planner.costs().observed();
        let plain_step = costs.find(|(rows, _)| *rows == 1).map(|(_, seconds)| seconds * 1e3);
        let result = journal.append(&Entry::now(answer, plan, plain_step));
        let failed = result.is_err();
        answer.report.warnings.extend(result.err().filter(|_| !self.journal_failed).map(|error| error.to_string()));
        self.journal_failed = failed;
    }

    /// Plan of the quality that a request gives up.
    fn plan(&mut self, config: &GenerationConfig) -> Result<LossyPlan, Error> {
        let Self { lanes, tokenizer, texts, influence, advisor, .. } = self;
        let (whole, mut failed) = (lanes.whole(), None);
        let (exits, lower) = (whole.trained_exits(), whole.catalog.lower_precisions());
        let means = Means { layers: whole.target.layer_count(), exits: &exits, lower: &lower };
        let mut measure = || {
            let measured = influence.take().map_or_else(|| importance::influence(&whole.target, tokenizer, texts), Ok);
            match measured {
                Ok(measured) => influence.insert(measured).clone(),
                Err(error) => {
                    failed = Some(error);
                    Vec::new()
                }
            }
        };
        let plan = lossy::resolve(config, means, &mut measure)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        // Where something may be given up and nothing is named, the router chooses.
        let may_choose =
            config.quality == Quality::BestEffort && plan == LossyPlan::None && config.drafter == DrafterChoice::Auto;
        let chosen = advisor.as_ref().filter(|_| may_choose).and_then(|advisor| {
            let lossy = advisor.lossy(|lossy| LossyPlan::of_router(lossy, &means).is_some())?;
            LossyPlan::of_router(lossy, &means)
        });
        Ok(chosen.unwrap_or(plan))
    }
}

/// Lets go of the requests that still wait when the decode thread ends.
struct Abandon<'a>(&'a Queue);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// When tokens leave the target early, if they do by this plan.
fn early_exit(plan: &LossyPlan, target: &Decoder) -> Option<EarlyExit> {
    let LossyPlan::Exit { depth, threshold } = *plan else { return None };
    let temperature = target.exits().find(|exit| exit.depth == depth).map_or(1.0, |exit| exit.temperature);
    Some(EarlyExit { depth, temperature, threshold })
}

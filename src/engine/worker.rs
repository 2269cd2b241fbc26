//! The decode thread: takes requests from the queue and answers them one by one.
//!
//! What it learned about this machine and its drafters (the planner) stays from answer to answer; everything else is
//! made anew for each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use super::record::{Circumstances, Events, Record};
use super::stream::Event;
use crate::config::GenerationConfig;
use crate::drafters::exit::ExitDrafter;
use crate::drafters::lookup::LookupDrafter;
use crate::drafters::model::ModelDrafter;
use crate::drafters::{Drafter, DrafterChoice};
use crate::error::Error;
use crate::model::{Decoder, Sequence};
use crate::sampling::Sampler;
use crate::speculation::MAX_DRAFT;
use crate::speculation::decode::Decode;
use crate::speculation::planner::{Candidate, Planner};
use crate::text::Tokenizer;
use crate::text::stream::TextStream;

/// Prompt tokens that go through the target together. A cancelled answer ends after at most one such part.
const PREFILL_CHUNK: usize = 256;

/// A draft model and what it is called.
pub(super) struct DraftModel {
    pub(super) name: String,
    pub(super) decoder: Arc<Decoder>,
}

/// A request on its way to the decode thread.
pub(super) struct Job {
    pub(super) prompt: Vec<u32>,
    pub(super) config: GenerationConfig,
    pub(super) events: Events,
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
        // A first guess at what a drafted token costs: the weights it reads, in units of the target's.
        let layers = target.layer_count();
        let models = drafts.iter().map(|draft| {
            let guess = draft.decoder.weight_bytes() as f64 / target.weight_bytes() as f64;
            Candidate::new(DrafterChoice::Model(Some(draft.name.clone())), guess)
        });
        let exits = (1..layers).map(|depth| Candidate::new(DrafterChoice::Exit(depth), depth as f64 / layers as f64));
        let lookup = Candidate::new(DrafterChoice::Lookup, 0.0);
        let planner = Planner::new(std::iter::once(lookup).chain(models).chain(exits).collect());
        Self { target, drafts, tokenizer, planner, threads }
    }

    /// Answers until the engine is gone.
    pub(super) fn serve(mut self, queue: &mpsc::Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            // A bug in one answer must not end the engine.
            let result = catch_unwind(AssertUnwindSafe(|| self.answer(&job))).unwrap_or(Err(Error::Internal));
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
        let Job { prompt, config, events } = job;
        let allowed = self.candidates_for(&config.drafter);
        if events.is_closed() {
            return Ok(None);
        }
        let started = Instant::now();

        let limit = self.target.config().context.min(prompt.len().saturating_add(config.max_new_tokens));
        let mut target = sequence(&self.target, limit + MAX_DRAFT)?;
        let mut drafters = self.drafters(&allowed, limit + MAX_DRAFT)?;
        let mut sampler = Sampler::new(&config.sampling)?;

        // Prefill. The prompt's last token stays out: the first step takes it, with a draft behind it.
        let most = &prompt[..prompt.len() - 1];
        let done = target.prefill(most, PREFILL_CHUNK, |done| {
            // Nobody listens to a cancelled answer, and sending says so.
            events.send(Ok(Event::Prefill { done, total: prompt.len() })).is_ok()
        });
        if done < most.len() {
            return Ok(None);
        }
        let prefill = started.elapsed().as_secs_f64();
        self.planner.begin_answer(limit - prompt.len(), prefill / most.len().max(1) as f64);

        let stream = TextStream::new(self.tokenizer.inner(), &config.stop, prompt)?;
        let stop_tokens = if config.ignore_eos { &[][..] } else { &self.target.config().stop_tokens };
        let names = self.planner.candidates().iter().map(|candidate| candidate.name.to_string()).collect();
        let mut record = Record::new(events, started, stream, stop_tokens, names);
        let mut tokens = prompt.clone();
        let decode = Decode {
            target: &mut target,
            drafters: &mut drafters,
            planner: &mut self.planner,
            length: config.draft_len,
            sampler: &mut sampler,
            tokens: &mut tokens,
            prompt: prompt.len(),
            limit,
        };
        decode.run(&mut record)?;
        if events.is_closed() {
            return Ok(None);
        }

        let step_costs = self.planner.costs().observed().map(|(rows, seconds)| (rows, seconds * 1e3)).collect();
        let draft_cost = |candidate: &Candidate| {
            candidate.draft_cost.seconds().map(|seconds| (candidate.name.to_string(), seconds * 1e3))
        };
        let draft_costs = self.planner.candidates().iter().filter_map(draft_cost).collect();
        let circumstances = Circumstances {
            tokens: tokens.split_off(prompt.len()),
            prompt_tokens: tokens,
            asked: &config.drafter,
            precision: self.target.format().to_string(),
            draft_precision: &|name| self.draft_precision(name),
            exact: self.target.compute().is_row_invariant(),
            prefill_ms: prefill * 1e3,
            step_costs_ms: step_costs,
            draft_costs_ms: draft_costs,
            layer_evaluations: target.layer_evaluations(),
            threads: self.threads,
        };
        record.finish(circumstances).map(Some)
    }

    /// The planner's candidates that a choice of drafter allows.
    fn candidates_for(&self, choice: &DrafterChoice) -> Vec<usize> {
        let layers = self.target.layer_count();
        let allowed = |name: &DrafterChoice| match (choice, name) {
            (DrafterChoice::None, _) => false,
            // A few exits stand for all: each has to be tried before it can be given up.
            (DrafterChoice::Auto, DrafterChoice::Exit(depth)) => {
                [layers.div_ceil(4), layers.div_ceil(2), (3 * layers).div_ceil(4)].contains(depth)
            }
            (DrafterChoice::Auto, _) => true,
            (DrafterChoice::Model(None), DrafterChoice::Model(Some(name))) => {
                self.drafts.first().is_some_and(|draft| draft.name == *name)
            }
            (choice, name) => choice == name,
        };
        let candidates = self.planner.candidates().iter().enumerate();
        candidates.filter(|(_, candidate)| allowed(&candidate.name)).map(|(index, _)| index).collect()
    }

    /// A drafter for each of the planner's candidates that is allowed, with room for so many positions.
    fn drafters(&self, allowed: &[usize], positions: usize) -> Result<Vec<Option<Box<dyn Drafter>>>, Error> {
        let candidates = self.planner.candidates().iter().enumerate();
        let make = |(index, candidate): (usize, &Candidate)| {
            if !allowed.contains(&index) {
                return Ok(None);
            }
            let drafter: Box<dyn Drafter> = match (&candidate.name, draft_model(&self.drafts, &candidate.name)) {
                (_, Some(DraftModel { decoder, .. })) => {
                    Box::new(ModelDrafter::new(sequence(decoder, positions.min(decoder.config().context))?))
                }
                (DrafterChoice::Exit(depth), _) => Box::new(ExitDrafter::new(*depth)),
                _ => Box::new(LookupDrafter::new()),
            };
            Ok(Some(drafter))
        };
        candidates.map(make).collect()
    }

    fn draft_precision(&self, name: &DrafterChoice) -> Option<String> {
        match name {
            DrafterChoice::Exit(_) => Some(self.target.format().to_string()),
            name => draft_model(&self.drafts, name).map(|draft| draft.decoder.format().to_string()),
        }
    }
}

/// The draft model that a candidate names, if it names one.
fn draft_model<'a>(drafts: &'a [DraftModel], name: &DrafterChoice) -> Option<&'a DraftModel> {
    match name {
        DrafterChoice::Model(Some(name)) => drafts.iter().find(|draft| draft.name == *name),
        _ => None,
    }
}

/// An empty sequence, if there is memory for it.
fn sequence(decoder: &Arc<Decoder>, positions: usize) -> Result<Sequence, Error> {
    Sequence::try_new(Arc::clone(decoder), positions).map_err(|bytes| Error::CacheTooLarge { bytes, positions })
}

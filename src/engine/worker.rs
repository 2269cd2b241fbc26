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
use crate::drafters::catalog::Catalog;
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

/// A request on its way to the decode thread.
pub(super) struct Job {
    pub(super) prompt: Vec<u32>,
    pub(super) config: GenerationConfig,
    pub(super) events: Events,
}

/// What the decode thread owns.
pub(super) struct Worker {
    target: Arc<Decoder>,
    catalog: Catalog,
    tokenizer: Arc<Tokenizer>,
    planner: Planner,
    threads: usize,
}

impl Worker {
    pub(super) fn new(target: Arc<Decoder>, catalog: Catalog, tokenizer: Arc<Tokenizer>, threads: usize) -> Self {
        let candidate = |name| {
            let guess = catalog.guess(&name);
            Candidate::new(name, guess)
        };
        let planner = Planner::new(catalog.all().into_iter().map(candidate).collect());
        Self { target, catalog, tokenizer, planner, threads }
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
        if events.is_closed() {
            return Ok(None);
        }
        let started = Instant::now();

        let limit = self.target.config().context.min(prompt.len().saturating_add(config.max_new_tokens));
        let positions = limit + MAX_DRAFT;
        let mut target = Sequence::try_new(Arc::clone(&self.target), positions)
            .map_err(|bytes| Error::CacheTooLarge { bytes, positions })?;
        if let DrafterChoice::Skip(_) = &config.drafter {
            self.planner.admit(&config.drafter, self.catalog.guess(&config.drafter));
        }
        let mut drafters = self.drafters(&config.drafter, positions)?;
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
            stop_tokens,
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
            draft_precision: &|drafter| self.catalog.precision(drafter),
            exact: self.target.compute().is_row_invariant(),
            prefill_ms: prefill * 1e3,
            step_costs_ms: step_costs,
            draft_costs_ms: draft_costs,
            layer_evaluations: target.layer_evaluations(),
            kv_cache: self.target.cache_format().to_string(),
            kv_cache_bytes: self.target.cache_bytes_per_token() * target.len() as u64,
            threads: self.threads,
        };
        record.finish(circumstances).map(Some)
    }

    /// A drafter for each of the planner's candidates that the request allows, with room for so many positions.
    fn drafters(&self, asked: &DrafterChoice, positions: usize) -> Result<Vec<Option<Box<dyn Drafter>>>, Error> {
        let make = |candidate: &Candidate| {
            let allowed = self.catalog.allows(asked, &candidate.name);
            allowed.then(|| self.catalog.make(&candidate.name, positions)).transpose()
        };
        let drafters: Result<_, u64> = self.planner.candidates().iter().map(make).collect();
        drafters.map_err(|bytes| Error::CacheTooLarge { bytes, positions })
    }
}

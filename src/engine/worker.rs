//! The decode thread: takes requests from the queue and answers them one by one.
//!
//! What it learned about this machine and its drafters (the planner) stays from answer to answer; everything else is
//! made anew for each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use burn::tensor::Tensor;

use super::record::{Circumstances, Events, Record};
use super::stream::Event;
use super::{EngineInfo, RouterState};
use crate::config::GenerationConfig;
use crate::drafters::catalog::Catalog;
use crate::drafters::{Drafter, DrafterChoice};
use crate::error::Error;
use crate::model::{Decoder, Sequence};
use crate::routing::{Advice, Advisor, Shown};
use crate::sampling::Sampler;
use crate::speculation::MAX_DRAFT;
use crate::speculation::decode::Decode;
use crate::speculation::planner::{Candidate, Outlook, Planner, Situation};
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
    advisor: Option<Advisor>,
    /// Why the router beside the target is not used, if that is so.
    refused: Option<String>,
    threads: usize,
}

impl Worker {
    pub(super) fn new(
        target: Arc<Decoder>,
        catalog: Catalog,
        tokenizer: Arc<Tokenizer>,
        advisor: Option<Advisor>,
        info: &EngineInfo,
    ) -> Self {
        let candidate = |name| {
            let (guess, bytes) = (catalog.guess(&name), catalog.bytes(&name, target.config().context));
            Candidate::new(name, guess).needing(bytes)
        };
        let mut planner = Planner::new(catalog.all().into_iter().map(candidate).collect());
        if let Some(advisor) = &advisor {
            planner.restore(advisor.costs());
        }
        let refused = match &info.router {
            RouterState::Refused(reason) => Some(reason.clone()),
            _ => None,
        };
        Self { target, catalog, tokenizer, planner, advisor, refused, threads: info.threads }
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
        if let Some(advisor) = &mut self.advisor {
            advisor.save();
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
        let advisor = self.advisor.as_ref().filter(|_| config.drafter == DrafterChoice::Auto);
        let mut reader = advisor.map(|advisor| (advisor, advisor.reader()));
        let mut see = |hidden| reader.iter_mut().for_each(|(_, reader)| reader.see(Tensor::clone(&hidden)));
        let watch = advisor.map(|advisor| (advisor.layer(), &mut see as &mut dyn FnMut(Tensor<2>)));
        let done = target.prefill_seeing(most, PREFILL_CHUNK, watch, |done| {
            // Nobody listens to a cancelled answer, and sending says so.
            events.send(Ok(Event::Prefill { done, total: prompt.len() })).is_ok()
        });
        if done < most.len() {
            return Ok(None);
        }
        let prefill = started.elapsed().as_secs_f64();
        self.planner.begin_answer(limit - prompt.len(), prefill / most.len().max(1) as f64);
        self.planner.aim(config.objective(), self.target.weight_bytes());
        let advice = reader.map(|(advisor, reader)| {
            advisor.advise(reader, &self.target, prompt, config.sampling.temperature, &config.hints)
        });
        let routing = started.elapsed().as_secs_f64() - prefill;
        let expected = advice.as_ref().map(|advice| {
            let expectation = self.expect(advice);
            self.planner.expect(&expectation);
            self.why(advice, prompt.len(), limit)
        });

        let stream = TextStream::new(self.tokenizer.inner(), &config.stop, prompt)?;
        let stop_tokens = if config.ignore_eos { &[][..] } else { &self.target.config().stop_tokens };
        let names = self.planner.candidates().iter().map(|candidate| candidate.name.to_string()).collect();
        let mut record = Record::new(events, started, stream, stop_tokens, names);
        if let (DrafterChoice::Auto, Some(reason)) = (&config.drafter, &self.refused) {
            record.warn(format!("Drafters were chosen by measurements alone. {reason}"));
        }
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
        if let (Some(advisor), Some(advice)) = (&mut self.advisor, &advice) {
            let seen = self.planner.shown().into_iter().zip(self.planner.overheard());
            for (candidate, (shown, overheard)) in self.planner.candidates().iter().zip(seen) {
                let shown = shown.map(Shown::Drafting).or(overheard.map(Shown::Overheard));
                shown.into_iter().for_each(|shown| advisor.learn(advice, &candidate.name.to_string(), shown));
            }
            advisor.end_answer(self.planner.cost_table());
            advisor.take_warnings().into_iter().for_each(|warning| record.warn(warning));
        }
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
            routing_ms: advice.is_some().then_some(routing * 1e3),
            difficulty: advice.as_ref().map(|advice| advice.difficulty()),
            expected: expected.flatten(),
            step_costs_ms: step_costs,
            draft_costs_ms: draft_costs,
            layer_evaluations: target.layer_evaluations(),
            kv_cache: self.target.cache_format().to_string(),
            kv_cache_bytes: self.target.cache_bytes_per_token() * target.len() as u64,
            threads: self.threads,
        };
        record.finish(circumstances).map(Some)
    }

    /// What the planner is to expect.
    fn expect(&self, advice: &Advice) -> Outlook {
        let forecast = |candidate: &Candidate| advice.of(&candidate.name.to_string());
        let forecasts = self.planner.candidates().iter().map(forecast).collect();
        Outlook { forecasts, tokens: Some(advice.prediction.length) }
    }

    /// What is expected of the answer to a prompt of so many tokens, in words; `None` as long as no costs are known.
    fn why(&self, advice: &Advice, prompt: usize, limit: usize) -> Option<String> {
        let candidates = self.planner.candidates();
        let is_usable = |index: &usize| self.catalog.allows(&DrafterChoice::Auto, &candidates[*index].name);
        let usable: Vec<usize> = (0..candidates.len()).filter(is_usable).collect();
        let reads = |index: usize| if matches!(candidates[index].name, DrafterChoice::Model(_)) { prompt } else { 0 };
        let situation = Situation { usable: &usable, backlog: &reads, remaining: limit - prompt };
        let choice = self.planner.decide(&situation)?;
        let name =
            |plan: Option<usize>| plan.map_or("plain decoding".to_owned(), |index| candidates[index].name.to_string());
        let (level, sure) = (advice.difficulty(), 100.0 * advice.level.1);
        let runner_up = choice.runner_up.map_or(String::new(), |second| {
            format!("; next comes {}, {:.0}% dearer", name(second), 100.0 * choice.margin)
        });
        Some(format!(
            "The router takes the prompt to be {level} ({sure:.0}% sure) and expects {} to cost {:.2} of plain decoding{runner_up}.",
            name(choice.plan),
            choice.cost
        ))
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

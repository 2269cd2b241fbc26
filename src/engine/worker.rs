//! The decode thread: takes requests from the queue and moves all of their answers on, round by round.
//!
//! The planners, which learn about this machine and its drafters, stay from answer to answer; everything else is made
//! anew for each ([`answering`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::answer_report::{AnswerReport, Events};
use super::answering::Answering;
use super::importance::{self, Texts};
use super::queue::Queue;
use super::stream::Canceller;
use super::variant::Variants;
use super::{EngineInfo, Error, RouterState};
use crate::certificate::Certified;
use crate::checkpoint::MappedFiles;
use crate::config::{GenerationConfig, Quality};
use crate::drafters::DrafterChoice;
use crate::drafters::catalog::Catalog;
use crate::journal::Journal;
use crate::lossy::{self, Capabilities, LossyPlan};
use crate::meters::Meter;
use crate::model::{KvPool, Pools};
use crate::routing::Advisor;
use crate::speculation::{MAX_DRAFT, Target, round};
use crate::text::Tokenizer;

/// Bytes of each pool that are kept while there is nothing to answer.
const KEPT_BYTES: u64 = 64 << 20;

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

/// Settings of the decode thread.
pub(super) struct Settings {
    /// Answers that are made at once.
    pub(super) parallel: usize,
    /// Pages that a model's pool may have.
    pub(super) pool_pages: usize,
}

/// State owned by the decode thread.
pub(super) struct Worker {
    /// Answers in the making, the oldest first.
    answers: Vec<Answering>,
    /// The most that there may be.
    parallel: usize,
    pub(super) variants: Variants,
    pub(super) pools: Pools,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// Texts on which the importance of the target's layers is measured.
    texts: Texts,
    /// Influence of each of the target's layers on the hidden state in such texts, once somebody asked.
    influence: Option<Vec<f64>>,
    pub(super) advisor: Option<Advisor>,
    /// The weights files, of which some rows are read where they lie.
    pub(super) files: MappedFiles,
    /// Why the router beside the target is not used, if that is so.
    pub(super) refused: Option<String>,
    /// Errors in what the models' files say about themselves.
    pub(super) notes: Vec<String>,
    pub(super) threads: usize,
    pub(super) meter: Meter,
    pub(super) journal: Option<Journal>,
    /// True if it was reported that answers are not in the journal. It is reported once, until they are again.
    pub(super) journal_failed: bool,
}

impl Worker {
    pub(super) fn new(
        catalog: Catalog,
        tokenizer: Arc<Tokenizer>,
        texts: Texts,
        advisor: Option<Advisor>,
        files: MappedFiles,
        info: &EngineInfo,
        settings: &Settings,
    ) -> Self {
        let mut variants = Variants::new(catalog);
        if let Some(advisor) = &advisor {
            variants.restore(advisor.costs());
        }
        let refused = match &info.router {
            RouterState::Refused(reason) => Some(reason.clone()),
            _ => None,
        };
        Self {
            answers: Vec::new(),
            parallel: settings.parallel,
            variants,
            pools: Pools::new(settings.pool_pages),
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
        while self.take_requests(queue) {
            self.round();
            self.end_answers();
        }
        self.advisor.map(Advisor::close).unwrap_or_default()
    }

    /// Begins with requests that wait, as many as there is room for; waits for one if there is nothing to answer. False once the
    /// queue is closed and everything is answered.
    fn take_requests(&mut self, queue: &Queue) -> bool {
        while self.answers.len() < self.parallel {
            let job = if self.answers.is_empty() {
                self.pools.trim(KEPT_BYTES);
                match queue.pop() {
                    Some(job) => job,
                    None => return false,
                }
            } else if self.answers.iter().any(|answering| answering.request.is_waiting()) {
                // Who waits for memory comes first.
                break;
            } else {
                let kv = self.pools.of(&self.variants.whole().target);
                let free = kv.most_pages() - kv.used_pages();
                let fits = |job: &Job| KvPool::pages_for(job.prompt.len() + MAX_DRAFT) <= free;
                match queue.pop_if(fits) {
                    Some(job) => job,
                    None => break,
                }
            };
            let events = job.events.clone();
            match shielded(|| self.begin(job)) {
                Ok(answering) => self.answers.extend(answering),
                Err(error) => AnswerReport::send(&events, Err(error)),
            }
        }
        true
    }

    /// Moves every answer on, those of a target together.
    fn round(&mut self) {
        let Self { answers, variants, pools, .. } = self;
        for (plan, variant) in variants.each() {
            let of_variant = answers.iter_mut().filter(|answering| answering.runs_on(plan));
            let mut requests: Vec<_> = of_variant.map(|answering| &mut answering.request).collect();
            if !requests.is_empty() {
                let (decoder, skip) = (&variant.target, variant.skip.as_ref());
                let mut target = Target { decoder, skip, planner: &mut variant.planner, pools: &mut *pools };
                // What goes wrong in one answer ends it alone. Should anything else go wrong, those of this target end.
                if catch_unwind(AssertUnwindSafe(|| round(&mut target, &mut requests))).is_err() {
                    requests.iter_mut().for_each(|request| request.fail());
                }
            }
        }
    }

    /// Has answers whose prompt was read decode, and hands over those that have ended.
    fn end_answers(&mut self) {
        for mut answering in std::mem::take(&mut self.answers) {
            let events = answering.job.events.clone();
            if answering.request.is_read()
                && let Err(error) = shielded(|| self.decode(&mut answering))
            {
                self.release(&mut answering);
                AnswerReport::send(&events, Err(error));
                continue;
            }
            if answering.request.end().is_none() {
                self.answers.push(answering);
                continue;
            }
            self.release(&mut answering);
            match shielded(|| self.finish(answering)) {
                Ok(Some(event)) => AnswerReport::send(&events, Ok(event)),
                Ok(None) => {}
                Err(error) => AnswerReport::send(&events, Err(error)),
            }
            // Who waits for an answer does not wait for the disk.
            if let Some(advisor) = &mut self.advisor {
                advisor.save_now_and_then();
            }
        }
    }

    /// Plan of the quality that a request gives up.
    pub(super) fn plan(&mut self, config: &GenerationConfig) -> Result<LossyPlan, Error> {
        let Self { variants, tokenizer, texts, influence, advisor, .. } = self;
        let (whole, mut failed) = (variants.whole(), None);
        let (exits, lower) = (whole.target.exit_depths(), whole.catalog.lower_precisions());
        let capabilities = Capabilities { layers: whole.target.layer_count(), exits: &exits, lower: &lower };
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
        let plan = lossy::resolve(config, capabilities, &mut measure)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        // Where something may be given up and nothing is named, the router chooses.
        let may_choose =
            config.quality == Quality::BestEffort && plan == LossyPlan::None && config.drafter == DrafterChoice::Auto;
        let chosen = advisor.as_ref().filter(|_| may_choose).and_then(|advisor| {
            let lossy = advisor.lossy(|lossy| LossyPlan::of_router(lossy, &capabilities).is_some())?;
            LossyPlan::of_router(lossy, &capabilities)
        });
        Ok(chosen.unwrap_or(plan))
    }
}

/// Calls `f`; a bug in what one answer needs must not end the engine.
fn shielded<T>(f: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(Error::Internal))
}

/// Lets go of the requests that still wait when the decode thread ends.
struct Abandon<'a>(&'a Queue);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

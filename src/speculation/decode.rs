//! The decode loop: draft, verify, accept, roll back.
//!
//! Why the output cannot depend on the draft: row `i` of a verification holds the logits that plain decoding
//! would compute after the same tokens, bit for bit (row-invariant kernels), and [`Sampler::pick`] is a
//! function of those logits, the history and the token's index alone (Gumbel coupling). A drafted token is
//! kept if and only if it is that pick.

use std::time::Instant;

use burn::tensor::Tensor;

use super::planner::{Planner, Round, Situation};
use super::{DraftLength, watch};
use crate::drafters::{Draft, DraftRequest, DraftText, Drafter};
use crate::model::Sequence;
use crate::sampling::{Sampler, SamplingError};

/// Decision of a token's receiver: to go on or to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More tokens.
    Continue,
    /// No more: a stop token, a stop string or the last token allowed.
    Stop,
}

/// Hears what the decode loop does.
pub trait Listener {
    /// A token is certain.
    fn token(&mut self, token: u32) -> Flow;
    /// A round is over.
    fn round(&mut self, round: &Round);
    /// So many tokens came out that the target did not verify, which took so many seconds.
    fn unverified(&mut self, tokens: usize, seconds: f64) {
        let _ = (tokens, seconds);
    }
    /// A drafter failed and is left out of the rest of the answer, which continues: a draft model whose logits are not
    /// finite must not change the output.
    fn drafter_failed(&mut self, candidate: usize, error: &SamplingError);
    /// True if the answer is no longer wanted. Asked between steps, and by drafters with long work.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// One answer in the making.
pub struct Decode<'a> {
    /// The target, which holds all of `tokens` but the last.
    pub target: &'a mut Sequence,
    /// Drafters by the planner's candidate index; `None` where a candidate does not apply to this answer.
    pub drafters: &'a mut [Option<Box<dyn Drafter>>],
    /// Decides what drafts and how far.
    pub planner: &'a mut Planner,
    /// Tokens to draft ahead.
    pub length: DraftLength,
    /// Picks tokens.
    pub sampler: &'a mut Sampler,
    /// Prompt and answer so far.
    pub tokens: &'a mut Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that `tokens` may grow to.
    pub limit: usize,
    /// Tokens that end the answer, for drafts to end there too.
    pub stop_tokens: &'a [u32],
}

impl Decode<'_> {
    /// Decodes until the listener says stop, the limit is reached or the answer is cancelled.
    ///
    /// # Errors
    /// If the target's logits are not numbers.
    pub fn run(mut self, listener: &mut dyn Listener) -> Result<(), SamplingError> {
        let mut hidden: Option<Tensor<2>> = None;
        while self.tokens.len() < self.limit && !listener.is_cancelled() {
            let Drafted { candidate, backlog, draft, draft_seconds, asking_seconds } =
                self.draft(hidden.as_ref(), listener);

            // Verify: the newest token and the draft go through the target together.
            let started = Instant::now();
            let newest = self.tokens.len() - 1;
            let rows: Vec<u32> = self.tokens[newest..].iter().chain(&draft.tokens).copied().collect();
            let watched = self.planner.watch(candidate, &self.usable());
            let verified = self.target.verify_watching(&rows, watched.map(|(_, depth)| depth));
            let verify_seconds = started.elapsed().as_secs_f64();

            // Accept drafted tokens for as long as they are what the target picks.
            let (mut evaluated, mut accepted, mut flow) = (0, 0, Flow::Continue);
            while flow == Flow::Continue {
                let index = (self.tokens.len() - self.prompt) as u64;
                let token = self.sampler.pick(verified.row(accepted), self.tokens, index)?;
                self.tokens.push(token);
                flow = listener.token(token);
                let Some(&drafted) = draft.tokens.get(accepted) else { break };
                evaluated += 1;
                if drafted != token {
                    break;
                }
                accepted += 1;
            }

            // Roll back what was not accepted, and learn.
            self.target.truncate(newest + 1 + accepted);
            hidden = Some(verified.hidden.narrow(0, 0, accepted + 1));
            let round = Round {
                candidate,
                drafted: draft.tokens.len(),
                evaluated,
                accepted,
                tokens: self.tokens.len() - 1 - newest,
                backlog,
                draft_seconds,
                asking_seconds,
                verify_seconds,
            };
            self.planner.observe(&round, &draft);
            if let (Some((exit, depth)), Some(states)) = (watched, &verified.watched) {
                let started = Instant::now();
                let text = watch::Verified { tokens: self.tokens, prompt: self.prompt, new: round.tokens };
                // An exit whose logits are not finite is not scored.
                let heard = watch::score(self.target.decoder(), depth, states, text, self.sampler).unwrap_or_default();
                self.planner.hear(exit, &heard, started.elapsed().as_secs_f64());
            }
            listener.round(&round);
            if flow == Flow::Stop {
                break;
            }
        }
        Ok(())
    }

    /// The candidates that may draft.
    fn usable(&self) -> Vec<usize> {
        (0..self.drafters.len()).filter(|&index| self.drafters[index].is_some()).collect()
    }

    /// Asks the planned drafters, best first, until one has something to draft.
    fn draft(&mut self, hidden: Option<&Tensor<2>>, listener: &mut dyn Listener) -> Drafted {
        let usable = self.usable();
        let known = self.tokens.len();
        let backlog = |index: usize| self.drafters[index].as_ref().map_or(0, |drafter| drafter.backlog(known));
        let situation = Situation { usable: &usable, backlog: &backlog, remaining: self.limit - known };
        let mut asking_seconds = 0.0;
        for plan in self.planner.plans(&situation, self.length) {
            let started = Instant::now();
            let Some(drafter) = &mut self.drafters[plan.candidate] else { continue };
            let backlog = drafter.backlog(known);
            let cancelled = || listener.is_cancelled();
            let text = DraftText { history: self.tokens, prompt: self.prompt, stop_tokens: self.stop_tokens };
            let mut judge = self.planner.judge(plan);
            let mut request = DraftRequest::new(self.target, hidden, self.sampler, &cancelled, text, judge.as_mut());
            let result = drafter.draft(&mut request);
            let draft = request.take();
            drop(judge);
            if let Err(error) = result {
                self.drafters[plan.candidate] = None;
                listener.drafter_failed(plan.candidate, &error);
            }
            if !draft.tokens.is_empty() || !self.planner.passes_on(plan, &draft) {
                let (candidate, draft_seconds) = (Some(plan.candidate), started.elapsed().as_secs_f64());
                return Drafted { candidate, backlog, draft, draft_seconds, asking_seconds };
            }
            asking_seconds += started.elapsed().as_secs_f64();
        }
        Drafted { asking_seconds, ..Drafted::default() }
    }
}

/// A draft and whose it is.
#[derive(Default)]
struct Drafted {
    candidate: Option<usize>,
    /// Tokens that the drafter had to read before.
    backlog: usize,
    draft: Draft,
    draft_seconds: f64,
    /// Spent on drafters that had nothing.
    asking_seconds: f64,
}

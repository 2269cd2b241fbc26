//! The decode loop: draft, verify, accept, roll back.
//!
//! Why the output cannot depend on the draft: row `i` of a verification holds the logits that plain decoding would compute after the same tokens, bit
//! for bit (row-invariant kernels), and [`Sampler::pick`] is a function of those logits, the history and the token's index alone (Gumbel coupling).
//! A drafted token is kept if and only if it is that pick.

use std::time::Instant;

use burn::tensor::Tensor;

use super::planner::{DraftLength, Planner, Round};
use crate::drafters::{DraftRequest, Drafter};
use crate::model::Sequence;
use crate::sampling::{Sampler, SamplingError};

/// What the receiver of a token wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More tokens.
    Continue,
    /// No more: a stop token, a stop string or the last token allowed.
    Stop,
}

/// One answer in the making.
pub struct Decode<'a> {
    /// The target, which holds all of `tokens` but the last.
    pub target: &'a mut Sequence,
    /// Drafters by the planner's candidate index; `None` where a candidate does not apply to this answer.
    pub drafters: &'a mut [Option<Box<dyn Drafter>>],
    /// Decides what drafts and how far.
    pub planner: &'a mut Planner,
    /// How far to draft.
    pub length: DraftLength,
    /// Picks tokens.
    pub sampler: &'a mut Sampler,
    /// Prompt and answer so far.
    pub tokens: &'a mut Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that `tokens` may grow to.
    pub limit: usize,
    /// Hears of a drafter that failed. It is left out of the rest of the answer, which goes on: a draft model whose logits are no
    /// numbers must not change what comes out.
    pub failed: &'a mut dyn FnMut(usize, SamplingError),
}

impl Decode<'_> {
    /// Decodes until `emit`, which hears every token as soon as it is certain, says stop, the limit is reached, or `cancelled` says so between two steps.
    /// `observe` hears of every round.
    ///
    /// # Errors
    /// If the target's logits are not numbers.
    pub fn run(
        self,
        emit: &mut dyn FnMut(u32) -> Flow,
        observe: &mut dyn FnMut(&Round),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), SamplingError> {
        let Self { target, drafters, planner, length, sampler, tokens, prompt, limit, failed } = self;
        let allowed: Vec<usize> = (0..drafters.len()).filter(|&index| drafters[index].is_some()).collect();
        let mut hidden: Option<Tensor<2>> = None;

        while tokens.len() < limit && !cancelled() {
            // Draft. The target adds a token of its own, so the draft leaves room for it.
            let started = Instant::now();
            let (mut draft, mut candidate) = (Vec::new(), None);
            for plan in planner.plans(&allowed, length, limit - tokens.len() - 1) {
                let Some(drafter) = &mut drafters[plan.candidate] else { continue };
                let hidden = hidden.as_ref();
                let mut request =
                    DraftRequest::new(target, hidden, sampler, cancelled, tokens, prompt, plan.length);
                let drafted = drafter.draft(&mut request);
                draft = request.take();
                if let Err(error) = drafted {
                    drafters[plan.candidate] = None;
                    failed(plan.candidate, error);
                }
                if !draft.is_empty() {
                    candidate = Some(plan.candidate);
                    break;
                }
            }
            let draft_seconds = started.elapsed().as_secs_f64();

            // Verify: the newest token and the draft go through the target together.
            let started = Instant::now();
            let base = tokens.len() - 1;
            let rows: Vec<u32> = tokens[base..].iter().chain(&draft).copied().collect();
            let verified = target.verify(&rows);
            let verify_seconds = started.elapsed().as_secs_f64();

            // Accept drafted tokens for as long as they are what the target picks.
            let mut accepted = 0;
            loop {
                let token = sampler.pick(verified.row(accepted), tokens, (tokens.len() - prompt) as u64)?;
                tokens.push(token);
                let kept = draft.get(accepted) == Some(&token);
                accepted += usize::from(kept);
                if emit(token) == Flow::Stop {
                    observe(&Round { candidate, drafted: draft.len(), accepted, draft_seconds, verify_seconds });
                    return Ok(());
                }
                if !kept {
                    break;
                }
            }

            // Roll back what was not accepted, and learn.
            target.truncate(tokens.len() - 1);
            hidden = Some(verified.hidden.narrow(0, 0, accepted + 1));
            let round = Round { candidate, drafted: draft.len(), accepted, draft_seconds, verify_seconds };
            planner.observe(&round);
            observe(&round);
        }
        Ok(())
    }
}

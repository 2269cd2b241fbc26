//! Drafters: what may come next, guessed cheaply.
//!
//! A drafter is asked for as many tokens as a judge wants ([`DraftJudge`]) and answers with those or fewer. It cannot change
//! what comes out: the verifier alone decides ([`crate::speculation`]); a drafter only decides how soon. A new
//! drafter is one new file with an implementation of [`Drafter`], a name in [`DrafterChoice`] and a line in
//! [`catalog`].

pub mod catalog;
pub mod choice;
pub mod exit;
pub mod lookup;
pub mod model;
pub mod skip_search;
pub mod view;

use burn::tensor::Tensor;

pub use choice::{ChoiceError, DrafterChoice};

use crate::model::{DraftAccess, Sequence};
use crate::sampling::{Sampler, SamplingError};

/// Guesses the next tokens of one answer. Made anew for every answer.
pub trait Drafter {
    /// Drafts with [`DraftRequest::push`] or [`DraftRequest::propose`] until no further token is wanted or it knows
    /// none.
    ///
    /// # Errors
    /// If its own logits cannot be sampled.
    fn draft(&mut self, request: &mut DraftRequest<'_>) -> Result<(), SamplingError>;

    /// Tokens that it has to run before it can draft after a text of `known` tokens. A planner weighs that
    /// against what drafting may still gain.
    fn backlog(&self, known: usize) -> usize {
        let _ = known;
        0
    }
}

/// Decides how far a draft goes.
pub trait DraftJudge {
    /// True if a further token is worth drafting.
    fn wants_another(&self) -> bool;

    /// True if a token that was drafted is worth verifying, if its drafter gives such log-odds, in nats, that it is
    /// right. If not, the draft ends before it.
    fn takes(&mut self, log_odds: f32) -> bool;
}

/// A draft.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The tokens to verify.
    pub tokens: Vec<u32>,
    /// Log-odds that the drafter gave each of them.
    pub log_odds: Vec<f32>,
    /// Log-odds of a last token that was not worth verifying.
    pub declined: Option<f32>,
}

impl Draft {
    /// Tokens that the drafter worked for, to be verified or not.
    pub fn attempted(&self) -> usize {
        self.tokens.len() + usize::from(self.declined.is_some())
    }
}

/// A drafter's view of an answer, and the place for its draft.
pub struct DraftRequest<'a> {
    /// The target's sequence, for drafters that run ahead of it. What they leave there is used by verification if
    /// it fits, and forgotten otherwise.
    pub target: DraftAccess<'a>,
    /// The target's last hidden states (before the final norm), `[rows, hidden]`, one row for each token
    /// accepted by the last step and standing before the newest token; `None` before the first step.
    pub hidden: Option<&'a Tensor<2>>,
    /// Returns true if the answer is no longer wanted. Drafters with long work ask between its parts.
    pub cancelled: &'a dyn Fn() -> bool,
    sampler: &'a mut Sampler,
    text: DraftText<'a>,
    judge: &'a mut dyn DraftJudge,
    draft: Draft,
    ended: bool,
}

/// The text that a draft continues.
pub struct DraftText<'a> {
    /// Prompt and answer so far. The newest token has not been through the target yet. Drafted tokens are put behind it, and
    /// removed again when the draft is taken.
    pub history: &'a mut Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that end the answer: nothing is drafted behind them.
    pub stop_tokens: &'a [u32],
}

impl<'a> DraftRequest<'a> {
    /// Asks for as many tokens behind the text as the judge wants.
    pub fn new(
        target: &'a mut Sequence,
        hidden: Option<&'a Tensor<2>>,
        sampler: &'a mut Sampler,
        cancelled: &'a dyn Fn() -> bool,
        text: DraftText<'a>,
        judge: &'a mut dyn DraftJudge,
    ) -> Self {
        let (target, draft) = (DraftAccess::to(target), Draft::default());
        Self { target, hidden, cancelled, sampler, text, judge, draft, ended: false }
    }

    /// Prompt and answer so far, without the draft.
    pub fn accepted(&self) -> &[u32] {
        let history = self.history();
        &history[..history.len() - self.draft.log_odds.len()]
    }

    /// Prompt, answer so far and draft.
    pub fn history(&self) -> &[u32] {
        self.text.history
    }

    /// The newest token, drafted or not.
    pub fn last(&self) -> u32 {
        self.history().last().copied().unwrap_or(0)
    }

    /// True if a further token is wanted.
    pub fn wants_another(&self) -> bool {
        !self.ended && self.judge.wants_another()
    }

    /// Drafts a token with what the drafter believes of it: the log-odds, in nats, that it is right. What that is worth is
    /// learned, so that a drafter that knows nothing of odds may say 0. Once no further token is wanted, it is dropped.
    pub fn push(&mut self, token: u32, log_odds: f32) {
        if !self.wants_another() {
            return;
        }
        if self.judge.takes(log_odds) {
            self.text.history.push(token);
            self.draft.log_odds.push(log_odds);
            self.ended = self.text.stop_tokens.contains(&token);
        } else {
            self.draft.declined = Some(log_odds);
            self.ended = true;
        }
    }

    /// Drafts the token that the answer's sampler picks from the drafter's logits `[vocabulary]` (of which
    /// those beyond the target's vocabulary are padding and are left out): with the same penalties, filters
    /// and noise as the target's own pick at this place, which is what makes the two agree most often
    /// (Daliri, Musco and Suresh 2024). Its lead over the runner-up is what the drafter believes of it. Returns it, also where
    /// it was not worth verifying.
    ///
    /// # Errors
    /// If the logits are not numbers.
    pub fn propose(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        let index = (self.history().len() - self.text.prompt) as u64;
        let known = logits.len().min(self.target.decoder().config().vocab_size);
        let (token, lead) = self.sampler.pick_with_lead(&logits[..known], self.text.history, index)?;
        self.push(token, lead);
        Ok(token)
    }

    /// Ends the request: the draft, removed from the history.
    pub fn take(self) -> Draft {
        let accepted = self.accepted().len();
        Draft { tokens: self.text.history.split_off(accepted), ..self.draft }
    }
}

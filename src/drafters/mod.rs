//! Drafters: what may come next, guessed cheaply.
//!
//! A drafter is asked for up to so many tokens and answers with as many as it likes. It cannot change what
//! comes out: the verifier alone decides ([`crate::speculation`]); a drafter only decides how soon. A new
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
    /// Drafts with [`DraftRequest::push`] or [`DraftRequest::propose`] until the request is full or it knows
    /// no further.
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

/// What a drafter may see, and where its draft goes.
pub struct DraftRequest<'a> {
    /// The target's sequence, for drafters that run ahead of it. What they leave there is used by verification if
    /// it fits, and forgotten otherwise.
    pub target: DraftAccess<'a>,
    /// The target's last hidden states (before the final norm), `[rows, hidden]`, one row for each token
    /// accepted by the last step and standing before the newest token; `None` before the first step.
    pub hidden: Option<&'a Tensor<2>>,
    /// Whether the answer is no longer wanted. Drafters with long work ask between its parts.
    pub cancelled: &'a dyn Fn() -> bool,
    sampler: &'a mut Sampler,
    history: &'a mut Vec<u32>,
    accepted: usize,
    prompt: usize,
    length: usize,
}

impl<'a> DraftRequest<'a> {
    /// Asks for up to `length` tokens after `history` (prompt and answer so far, of which the first `prompt`
    /// are the prompt). The newest token of the history has not been through the target yet. Drafted tokens
    /// are put behind the history; [`DraftRequest::take`] removes them again.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        target: &'a mut Sequence,
        hidden: Option<&'a Tensor<2>>,
        sampler: &'a mut Sampler,
        cancelled: &'a dyn Fn() -> bool,
        history: &'a mut Vec<u32>,
        prompt: usize,
        length: usize,
    ) -> Self {
        let accepted = history.len();
        Self { target: DraftAccess::to(target), hidden, cancelled, sampler, history, accepted, prompt, length }
    }

    /// Prompt and answer so far, without the draft.
    pub fn accepted(&self) -> &[u32] {
        &self.history[..self.accepted]
    }

    /// Prompt, answer so far and draft.
    pub fn history(&self) -> &[u32] {
        self.history
    }

    /// The newest token, drafted or not.
    pub fn last(&self) -> u32 {
        self.history.last().copied().unwrap_or(0)
    }

    /// Whether no more tokens are wanted.
    pub fn is_full(&self) -> bool {
        self.history.len() - self.accepted >= self.length
    }

    /// Drafts a token. Beyond the length asked for it is dropped in the end.
    pub fn push(&mut self, token: u32) {
        self.history.push(token);
    }

    /// Drafts the token that the answer's sampler picks from the drafter's logits `[vocabulary]` (of which
    /// those beyond the target's vocabulary are padding and are left out): with the same penalties, filters
    /// and noise as the target's own pick at this place, which is what makes the two agree most often
    /// (Daliri, Musco and Suresh 2024). Returns it.
    ///
    /// # Errors
    /// If the logits are not numbers.
    pub fn propose(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        let index = (self.history.len() - self.prompt) as u64;
        let known = logits.len().min(self.target.decoder().config().vocab_size);
        let token = self.sampler.pick(&logits[..known], self.history, index)?;
        self.push(token);
        Ok(token)
    }

    /// Ends the request: the draft, removed from the history, and no longer than asked for.
    pub fn take(self) -> Vec<u32> {
        self.history.truncate(self.accepted + self.length);
        self.history.split_off(self.accepted)
    }
}

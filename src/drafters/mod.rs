//! Drafters: what may come next, guessed cheaply.
//!
//! A drafter is asked for as many tokens as a stop rule wants ([`StopRule`]) and answers with those or fewer. It cannot change
//! what comes out: the verifier alone decides ([`crate::speculation`]); a drafter only decides how soon. What it wants computed
//! it says ([`Ask`]), so that drafters of several answers share steps. A new drafter is one new file with an implementation of
//! [`Drafter`], a name in [`DrafterChoice`] and a line in [`catalog`].

pub mod catalog;
pub mod choice;
pub mod exit;
pub mod lookup;
pub mod model;
pub mod self_draft;
pub mod skip_search;

use std::sync::Arc;

pub use choice::{ChoiceError, DrafterChoice};

use crate::model::{Decoder, SelfDraft};
use crate::sampling::{Sampler, SamplingError};

/// Guesses the next tokens of one answer. Made anew for every answer.
pub trait Drafter: Send {
    /// Goes on with a draft: drafts with [`DraftRequest::push`] or [`DraftRequest::propose`], and says what has to be computed
    /// before it can go on: nothing, once the draft is over. A draft begins without logits; later calls bring those of the last token that was asked about
    /// (none, if they were not wanted). Drafters that want nothing computed are called once.
    ///
    /// # Errors
    /// If its own logits cannot be sampled.
    fn go_on(&mut self, request: &mut DraftRequest<'_>, logits: Option<&[f32]>) -> Result<Option<Ask>, SamplingError>;

    /// Tokens that it has to run before it can draft after a text of `known` tokens. A planner weighs that
    /// against what drafting may still gain.
    fn backlog(&self, known: usize) -> usize {
        let _ = known;
        0
    }

    /// Forgets what was computed for it, as its memory was given to another answer.
    fn forget(&mut self) {}
}

/// Work that a drafter needs done before it goes on. Where there is no room for it, the draft ends.
pub enum Ask {
    /// A token through the target's lowest layers, behind those that went there before, and the exit's logits.
    Exit {
        /// Number of layers.
        depth: usize,
        /// The token.
        token: u32,
    },
    /// A token through a self-draft, behind those that went there before, and its logits.
    SelfDraft {
        /// Which one.
        way: Arc<SelfDraft>,
        /// The token.
        token: u32,
    },
    /// Tokens through a draft model, whose sequence is cut to the first `keep` tokens before.
    Model {
        /// Which one.
        decoder: Arc<Decoder>,
        /// Tokens that stay.
        keep: usize,
        /// Tokens to run, at least one.
        tokens: Vec<u32>,
        /// True if the logits after the last of them are wanted.
        wants_logits: bool,
    },
}

/// Decides how far a draft goes.
pub trait StopRule: Send {
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

/// A draft in the making: the rule by which it stops, and what there is of it.
pub struct DraftInProgress {
    rule: Box<dyn StopRule>,
    draft: Draft,
    ended: bool,
}

impl DraftInProgress {
    /// An empty draft.
    pub fn new(rule: Box<dyn StopRule>) -> Self {
        Self { rule, draft: Draft::default(), ended: false }
    }
}

/// A drafter's view of an answer, and the place for its draft.
pub struct DraftRequest<'a> {
    progress: &'a mut DraftInProgress,
    sampler: &'a mut Sampler,
    text: DraftText<'a>,
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
    /// Tokens of the target's vocabulary.
    pub vocabulary: usize,
    /// True if a drafter that has much to read before it drafts may go on reading now; else it goes on in its next draft.
    pub may_read_on: bool,
}

impl<'a> DraftRequest<'a> {
    /// Goes on with a draft behind a text.
    pub fn new(progress: &'a mut DraftInProgress, sampler: &'a mut Sampler, text: DraftText<'a>) -> Self {
        Self { progress, sampler, text }
    }

    /// Prompt and answer so far, without the draft.
    pub fn accepted(&self) -> &[u32] {
        let history = self.history();
        &history[..history.len() - self.progress.draft.log_odds.len()]
    }

    /// Prompt, answer so far and draft.
    pub fn history(&self) -> &[u32] {
        self.text.history
    }

    /// The newest token, drafted or not.
    pub fn last(&self) -> u32 {
        self.history().last().copied().unwrap_or(0)
    }

    /// True if a drafter that has much to read before it drafts may go on reading now.
    pub fn may_read_on(&self) -> bool {
        self.text.may_read_on
    }

    /// True if a further token is wanted.
    pub fn wants_another(&self) -> bool {
        !self.progress.ended && self.progress.rule.wants_another()
    }

    /// Drafts a token with what the drafter believes of it: the log-odds, in nats, that it is right. What that is worth is
    /// learned, so that a drafter that knows nothing of odds may say 0. Once no further token is wanted, it is dropped.
    pub fn push(&mut self, token: u32, log_odds: f32) {
        if !self.wants_another() {
            return;
        }
        let DraftInProgress { rule, draft, ended } = &mut *self.progress;
        if rule.takes(log_odds) {
            self.text.history.push(token);
            draft.log_odds.push(log_odds);
            *ended = self.text.stop_tokens.contains(&token);
        } else {
            draft.declined = Some(log_odds);
            *ended = true;
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
        let known = logits.len().min(self.text.vocabulary);
        let (token, lead) = self.sampler.pick_with_lead(&logits[..known], self.text.history, index)?;
        self.push(token, lead);
        Ok(token)
    }

    /// Ends the draft and removes it from the history.
    pub fn take(self) -> Draft {
        let accepted = self.accepted().len();
        let draft = std::mem::take(&mut self.progress.draft);
        self.progress.ended = true;
        Draft { tokens: self.text.history.split_off(accepted), ..draft }
    }
}

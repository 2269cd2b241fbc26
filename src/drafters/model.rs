//! Drafting with a smaller model of the same vocabulary (Leviathan, Kalman and Matias 2023).
//!
//! The draft model keeps its own cache. It rolls back to what the target accepted and catches up in one pass;
//! the last token drafted in a round joins the next catch-up instead of costing a step of its own.

use std::sync::Arc;

use super::{Ask, DraftRequest, Drafter};
use crate::model::Decoder;
use crate::sampling::SamplingError;

/// Tokens caught up with at a time: bounds how long a cancelled answer, or another one, waits for that.
const CATCH_UP_CHUNK: usize = 256;

/// Drafts with another decoder.
pub struct ModelDrafter {
    decoder: Arc<Decoder>,
    /// Tokens that its sequence may have.
    positions: usize,
    /// The tokens that its sequence holds.
    cached: Vec<u32>,
    /// Number of them that are known to be in the history for good.
    committed: usize,
}

impl ModelDrafter {
    /// A drafter that runs a sequence of its own through `decoder`, of so many positions at most. Where it is full, the drafter
    /// falls silent.
    pub fn new(decoder: Arc<Decoder>, positions: usize) -> Self {
        Self { decoder, positions, cached: Vec::new(), committed: 0 }
    }

    /// True if there is nothing that it can draft: a draft model with a shorter context than the target falls silent when it is
    /// full, and one that knows fewer ids once the target has used another.
    fn is_silent(&self, accepted: &[u32]) -> bool {
        let vocabulary = self.decoder.config().vocab_size;
        let unknown = |&token: &u32| token as usize >= vocabulary;
        accepted.len() >= self.positions || accepted[self.committed..].iter().any(unknown)
    }

    /// Rolls back what the target refused.
    fn roll_back(&mut self, accepted: &[u32]) {
        let known = &accepted[..accepted.len() - 1];
        let pairs = self.cached[self.committed..].iter().zip(&known[self.committed..]);
        self.committed += pairs.take_while(|(a, b)| a == b).count();
        self.cached.truncate(self.committed);
    }

    /// Runs what its sequence lacks: all but the last part without logits.
    fn run(&mut self, request: &DraftRequest<'_>) -> Ask {
        let (keep, missing) = (self.cached.len(), &request.history()[self.cached.len()..]);
        let tokens = missing[..missing.len().min(CATCH_UP_CHUNK)].to_vec();
        let wants_logits = tokens.len() == missing.len();
        self.cached.extend_from_slice(&tokens);
        Ask::Model { decoder: Arc::clone(&self.decoder), keep, tokens, wants_logits }
    }
}

impl Drafter for ModelDrafter {
    fn go_on(&mut self, request: &mut DraftRequest<'_>, logits: Option<&[f32]>) -> Result<Option<Ask>, SamplingError> {
        match logits {
            None if self.is_silent(request.accepted()) => return Ok(None),
            None => self.roll_back(request.accepted()),
            // It has run all of the text now, and of that nothing is taken back.
            Some(logits) if !logits.is_empty() => {
                self.committed = self.committed.max(request.accepted().len());
                request.propose(logits)?;
            }
            Some(_) => {
                self.committed = self.cached.len().min(request.accepted().len() - 1);
                if !request.may_read_on() {
                    return Ok(None);
                }
            }
        }
        let has_room = request.history().len() <= self.positions;
        Ok((has_room && request.wants_another()).then(|| self.run(request)))
    }

    fn backlog(&self, known: usize) -> usize {
        known.saturating_sub(1 + self.committed)
    }

    fn forget(&mut self) {
        self.cached.clear();
        self.committed = 0;
    }
}

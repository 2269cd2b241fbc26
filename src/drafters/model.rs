//! Drafting with a smaller model of the same vocabulary (Leviathan, Kalman and Matias 2023).
//!
//! The draft model keeps its own cache. It rolls back to what the target accepted and catches up in one pass;
//! the last token drafted in a round joins the next catch-up instead of costing a step of its own.

use std::sync::Arc;

use super::{DraftRequest, Drafter};
use crate::model::{Decoder, Sequence};
use crate::sampling::SamplingError;

/// Tokens caught up with at a time: bounds how long a cancelled request keeps running.
const CATCH_UP_CHUNK: usize = 256;

/// Drafts with another decoder.
pub struct ModelDrafter {
    decoder: Arc<Decoder>,
    /// Tokens that its sequence has room for.
    positions: usize,
    /// Made when it first drafts: of several drafters most are never asked in an answer.
    sequence: Option<Sequence>,
    /// The tokens its cache holds.
    cached: Vec<u32>,
    /// Number of them that are known to be in the history for good.
    settled: usize,
}

impl ModelDrafter {
    /// A drafter that runs a sequence of its own through `decoder`, with room for so many positions. Where it is full, the drafter
    /// falls silent.
    pub fn new(decoder: Arc<Decoder>, positions: usize) -> Self {
        Self { decoder, positions, sequence: None, cached: Vec::new(), settled: 0 }
    }

    /// Rolls back what the target refused and runs all of the history but its newest token.
    fn catch_up(&mut self, history: &[u32], cancelled: &dyn Fn() -> bool) -> bool {
        let sequence = match &mut self.sequence {
            Some(sequence) => sequence,
            // Where there is no memory for its cache the answer does without drafts.
            empty => match Sequence::try_new(Arc::clone(&self.decoder), self.positions) {
                Ok(sequence) => empty.insert(sequence),
                Err(_) => return false,
            },
        };
        let known = &history[..history.len() - 1];
        let agreed = self.cached[self.settled..].iter().zip(&known[self.settled..]).take_while(|(a, b)| a == b).count();
        self.settled += agreed;
        self.cached.truncate(self.settled);
        sequence.truncate(self.settled);
        let missing = &known[self.settled..];
        // All but a few go through without logits; the few share the pass that makes the first draft's logits.
        let ahead = missing.len().saturating_sub(CATCH_UP_CHUNK);
        let done = sequence.prefill(&missing[..ahead], CATCH_UP_CHUNK, |_| !cancelled());
        self.cached.extend_from_slice(&missing[..done]);
        done == ahead && !cancelled()
    }
}

impl Drafter for ModelDrafter {
    fn draft(&mut self, request: &mut DraftRequest<'_>) -> Result<(), SamplingError> {
        // A draft model with a shorter context than the target falls silent when it is full.
        let room = self.positions.saturating_sub(request.accepted().len());
        // So does one that knows fewer ids than the target, once the target has used another.
        let vocabulary = self.decoder.config().vocab_size;
        let unknown = |&token: &u32| token as usize >= vocabulary;
        if request.accepted()[self.settled..].iter().any(unknown) {
            return Ok(());
        }
        if !request.wants_another() || room == 0 || !self.catch_up(request.accepted(), request.cancelled) {
            return Ok(());
        }
        let Some(sequence) = &mut self.sequence else { return Ok(()) };
        for _ in 0..room {
            let unseen = &request.history()[self.cached.len()..];
            let logits = sequence.next_draft_logits(unseen);
            self.cached.extend_from_slice(unseen);
            // It has run all of the text now, and of that nothing is taken back.
            self.settled = self.settled.max(request.accepted().len());
            request.propose(&logits)?;
            if !request.wants_another() {
                break;
            }
        }
        Ok(())
    }

    fn backlog(&self, known: usize) -> usize {
        known.saturating_sub(1 + self.settled)
    }
}

//! Drafting by early exit (LayerSkip, Elhoushi et al. 2024): the target's own lower layers with an exit head.
//!
//! The head is the one trained for this depth (`exits.safetensors` beside the model), or else the target's final norm and
//! output matrix. The lower layers' work is not lost: verification starts from the hidden states it left in the
//! target's sequence.

use super::{Ask, DraftRequest, Drafter};
use crate::sampling::SamplingError;

/// Drafts with the lowest `depth` layers of the target.
pub struct ExitDrafter {
    depth: usize,
    /// Divisor of the head's logits, so that they say how sure it can be.
    temperature: f32,
}

impl ExitDrafter {
    /// `depth` layers run, at least 1 and fewer than the target has, and logits are divided by `temperature`, 1 where none
    /// was fitted: how sure a drafter is decides how far it drafts, and with noise also how often it picks what the target
    /// picks.
    pub fn new(depth: usize, temperature: f32) -> Self {
        Self { depth, temperature }
    }
}

impl Drafter for ExitDrafter {
    fn go_on(&mut self, request: &mut DraftRequest<'_>, logits: Option<&[f32]>) -> Result<Option<Ask>, SamplingError> {
        let token = match logits {
            None => request.last(),
            Some(logits) => {
                let logits: Vec<f32> = logits.iter().map(|logit| logit / self.temperature).collect();
                request.propose(&logits)?
            }
        };
        Ok(request.wants_another().then_some(Ask::Exit { depth: self.depth, token }))
    }
}

//! Drafting by early exit (LayerSkip, Elhoushi et al. 2024): the target's own lower layers with an exit head.
//!
//! The head is the one trained for this depth (`exits.safetensors` beside the model), or else the target's final norm and
//! output matrix. The lower layers' work is not lost: verification starts from the hidden states it left in the
//! target's sequence.

use super::{DraftRequest, Drafter};
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
    fn draft(&mut self, request: &mut DraftRequest<'_>) -> Result<(), SamplingError> {
        let mut token = request.last();
        while request.wants_another() {
            let Some(mut logits) = request.target.draft_early(token, self.depth) else { break };
            logits.iter_mut().for_each(|logit| *logit /= self.temperature);
            token = request.propose(&logits)?;
        }
        Ok(())
    }
}

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
}

impl ExitDrafter {
    /// `depth` layers run, at least 1 and fewer than the target has.
    pub fn new(depth: usize) -> Self {
        Self { depth }
    }
}

impl Drafter for ExitDrafter {
    fn draft(&mut self, request: &mut DraftRequest<'_>) -> Result<(), SamplingError> {
        let mut token = request.last();
        while request.wants_another() {
            let Some(logits) = request.target.draft_early(token, self.depth) else { break };
            token = request.propose(&logits)?;
        }
        Ok(())
    }
}

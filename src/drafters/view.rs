//! Drafting with the target's own weights, cheaper: at a lower precision (`self:int4`), or without some sublayers
//! (`skip:PLAN`; Draft & Verify, Zhang et al. 2023; SWIFT, Xia et al. 2024).
//!
//! Drafts run over the target's cache. They begin from what the target itself made of the text, and there is neither
//! a second cache nor a prompt to catch up with.

use std::sync::Arc;

use super::{DraftRequest, Drafter};
use crate::model::DraftView;
use crate::sampling::SamplingError;

/// Drafts through another view of the target.
pub struct ViewDrafter {
    view: Arc<DraftView>,
}

impl ViewDrafter {
    /// A drafter through `view`, whose decoder has the target's shape.
    pub fn new(view: DraftView) -> Self {
        Self { view: Arc::new(view) }
    }
}

impl Drafter for ViewDrafter {
    fn draft(&mut self, request: &mut DraftRequest<'_>) -> Result<(), SamplingError> {
        // The first token to run is the newest of the text, which the target has not seen yet.
        let mut token = request.last();
        while request.wants_another() {
            let Some(logits) = request.target.draft_through(&self.view, &[token]) else { break };
            token = request.propose(&logits)?;
        }
        Ok(())
    }
}

//! Drafting with the target's own weights, cheaper: at a lower precision (`self:int4`), or without some sublayers
//! (`skip:PLAN`; Draft & Verify, Zhang et al. 2023; SWIFT, Xia et al. 2024).
//!
//! Drafts run over the target's cache. They begin from what the target itself made of the text, and there is neither
//! a second cache nor a prompt to catch up with.

use std::sync::Arc;

use super::{Ask, DraftRequest, Drafter};
use crate::model::SelfDraft;
use crate::sampling::SamplingError;

/// Drafts through a cheaper way through the target.
pub struct SelfDrafter {
    way: Arc<SelfDraft>,
}

impl SelfDrafter {
    /// A drafter through `way`, whose decoder has the target's shape.
    pub fn new(way: SelfDraft) -> Self {
        Self { way: Arc::new(way) }
    }
}

impl Drafter for SelfDrafter {
    fn go_on(&mut self, request: &mut DraftRequest<'_>, logits: Option<&[f32]>) -> Result<Option<Ask>, SamplingError> {
        let token = match logits {
            // The first token to run is the newest of the text, which the target has not seen yet.
            None => request.last(),
            Some(logits) => request.propose(logits)?,
        };
        Ok(request.wants_another().then(|| Ask::SelfDraft { way: Arc::clone(&self.way), token }))
    }
}

//! The tokens that drafts with a model choose from: `draft_vocabulary.json` beside its weights.
//!
//! A draft needs logits of likely tokens alone, and the output matrix over all of them is most of a small draft's work
//! (FR-Spec, Zhao et al. 2025). Verification looks at all tokens, so this changes how soon tokens come and never which.

use super::{Checkpoint, CheckpointError, side_file};
use crate::files::of_model::read_json_if_there;

/// The file's name in a model directory: a list of token ids, rising.
pub const DRAFT_VOCABULARY: &str = "draft_vocabulary.json";

/// Bytes of the largest file that is read: a list of a million ids has fewer.
const LARGEST: u64 = 1 << 23;

impl Checkpoint {
    /// The ids of the tokens that drafts choose from, rising; `None` for all of them.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a list of ids of the model's that rise.
    pub fn draft_vocabulary(&self) -> Result<Option<Vec<u32>>, CheckpointError> {
        let path = side_file(self.path(), DRAFT_VOCABULARY);
        let Some(tokens) = read_json_if_there::<Vec<u32>>(&path, LARGEST)? else { return Ok(None) };
        let vocabulary = self.config().vocab_size;
        let reason = match (tokens.last(), tokens.windows(2).find(|pair| pair[0] >= pair[1])) {
            (None, _) => "it names no token".to_owned(),
            (_, Some(pair)) => format!("{} stands before {}, and ids must rise", pair[0], pair[1]),
            (Some(&last), _) if last as usize >= vocabulary => {
                format!("it names token {last}, and the model has {vocabulary} tokens")
            }
            _ => return Ok(Some(tokens)),
        };
        Err(CheckpointError::DraftVocabulary { path, reason })
    }
}

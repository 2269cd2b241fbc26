//! `[draft_vocabulary]`: the tokens that drafts choose from.

use serde::{Deserialize, Serialize};

/// The section `[draft_vocabulary]` of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftVocabularyRecipe {
    /// The number of tokens that drafts choose from.
    pub tokens: usize,
}

impl DraftVocabularyRecipe {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub fn check(self) -> Result<(), String> {
        match self.tokens {
            0 => {
                Err("`tokens` of [draft_vocabulary] must be above zero; leave the section out to draft with all"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }
}

//! `[tokenizer]`: the vocabulary that text is cut into.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The vocabulary to learn, or to take over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Tokens to learn, the six special ones and the 256 bytes included.
    pub vocabulary: usize,
    /// Bytes to learn from, about so many, shared among the sources by their weights.
    pub sample_bytes: u64,
    /// A model directory whose tokenizer is taken over instead; none is learned then.
    pub from: Option<PathBuf>,
}

impl Default for TokenizerRecipe {
    fn default() -> Self {
        Self { vocabulary: 4096, sample_bytes: 32 << 20, from: None }
    }
}

//! Tokens that end an answer, as llama.cpp collects them from a GGUF file.

use super::Metadata;
use crate::checkpoint::CheckpointError;

/// Keys that name such a token.
const KEYS: [&str; 3] = ["eos_token_id", "eot_token_id", "eom_token_id"];

/// Placeholder until the tokenizer's part is merged.
pub(super) fn end_of_generation(metadata: &Metadata, vocab_size: usize) -> Result<Vec<u32>, CheckpointError> {
    let mut stops = Vec::new();
    for key in KEYS.map(|key| format!("tokenizer.ggml.{key}")) {
        if let Some(id) = metadata.integer::<u32>(&key)? {
            if id as usize >= vocab_size {
                return Err(metadata.error(&key, format!("is {id}, but there are {vocab_size} tokens")));
            }
            if !stops.contains(&id) {
                stops.push(id);
            }
        }
    }
    Ok(stops)
}

//! A tokenizer: learned from texts as a byte-level BPE vocabulary ([`learn()`]), saved as transformers, llama.cpp and Paceline
//! read it ([`save()`]), and opened as a [`ChatTokenizer`], through which all training data goes.

mod chat;
mod learn;
mod save;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests;

use std::path::Path;

use anyhow::bail;
use paceline::checkpoint::ModelConfig;
use paceline::text::Tokenizer;

pub use self::chat::{ChatTokenizer, Conversation, TokenizerError};
pub use self::learn::{LearnError, learn};
pub use self::save::{ASSISTANT, BEGIN, CHAT_TEMPLATE, END, PAD, SPECIAL, SYSTEM, SaveError, USER, save};

/// Checks that a model knows all tokens of the tokenizer beside it; both are of `dir`.
///
/// # Errors
/// If not.
pub fn check_vocabulary(dir: &Path, tokenizer: &Tokenizer, config: &ModelConfig) -> anyhow::Result<()> {
    let (tokens, known) = (tokenizer.vocab_size(), config.vocab_size);
    if tokens > known {
        bail!(
            "The tokenizer of {} has {tokens} tokens, and its model knows {known}: put the tokenizer there that the model was made with.",
            dir.display()
        );
    }
    Ok(())
}

//! The step `tokenizer`: learns a byte-level BPE vocabulary from the recipe's text and tasks, and saves it as
//! transformers, llama.cpp and Paceline read it. And [`ChatTokenizer`], through which all training data goes.

mod chat;
mod learn;
mod sample;
mod save;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests;

use std::path::Path;

use anyhow::bail;
use paceline::checkpoint::ModelConfig;
use paceline::command::Failure;
use paceline::files::AtomicFolder;
use paceline::text::Tokenizer;

pub use self::chat::{ChatTokenizer, Conversation, TokenizerError};
pub use self::learn::{LearnError, learn};
use self::sample::Sample;
pub use self::save::{ASSISTANT, BEGIN, CHAT_TEMPLATE, END, PAD, SPECIAL, SYSTEM, SaveError, USER, save};
use crate::checksum::Checksum;
use crate::job::{Job, Outcome};
use crate::progress::{Progress, grouped};
use crate::tasks::prepare;

/// Whether a model knows all tokens of the tokenizer beside it; both are of `dir`.
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

/// Learns the vocabulary, unless that is done already or the recipe takes one over.
///
/// # Errors
/// When text is missing or unusable, or the result cannot be written.
pub fn run(job: &Job) -> Result<Outcome, Failure> {
    prepare(job)?;
    const STEP: &str = "tokenizer";
    let recipe = &job.recipe.tokenizer;
    let folder = job.tokenizer();
    if recipe.from.is_some() {
        ChatTokenizer::open(&folder)?;
        return Ok(Outcome::Kept);
    }
    let mut sample = Sample::open(job)?;
    let mut key = Checksum::default();
    key.text(&format!("{recipe:?} {:?}", job.recipe.data));
    sample.contents(&mut key)?;
    let key = key.finish();
    AtomicFolder::recover(&folder)?;
    if job.is_done(STEP, key) && ChatTokenizer::open(&folder).is_ok() {
        return Ok(Outcome::Kept);
    }
    let part = AtomicFolder::create(&folder)?;
    let mut progress = Progress::start(STEP, "bytes of text", 0, sample.size());
    let mut failure = None;
    let texts = std::iter::from_fn(|| {
        let text = sample.next().map_err(|error| failure = Some(error)).ok().flatten();
        progress.show(sample.read(), String::new);
        text
    });
    let learned = learn(texts, recipe.vocabulary);
    if let Some(error) = failure {
        return Err(error.into());
    }
    save(&learned?, job.recipe.data.document_tokens, part.part())?;
    part.commit()?;
    job.mark_done(STEP, key)?;
    progress.finish(&format!("{} tokens in {}", grouped(recipe.vocabulary as u64), folder.display()));
    Ok(Outcome::Made)
}

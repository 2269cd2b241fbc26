//! Importance of a target's layers, measured on a text that was given or, without one, on texts that the target writes
//! itself: there is nothing to fetch, and the same model has the same layers.

use std::path::Path;
use std::sync::Arc;

use super::Error;
use crate::drafters::skip_search::{WRITTEN, cut_text, write_texts};
use crate::files::read_text;
use crate::model::Decoder;
use crate::model::importance::block_influence;
use crate::sampling::SamplingError;
use crate::text::{ChatTemplate, Message, Tokenizer};

/// Texts that are written, of [`WRITTEN`] tokens or up to a stop token, or parts that a given text is cut into.
const TEXTS: usize = 6;
/// The largest text that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 22;

/// Texts for the measurement.
pub(super) enum Texts {
    /// Texts that the target writes by itself, with its chat template if it has one.
    Written(Option<Arc<ChatTemplate>>),
    /// These.
    Given(Vec<Vec<u32>>),
}

/// Parts of the text in a file, spread over it, for a model of a context and a vocabulary. Marks of a chat template are read as
/// such.
///
/// # Errors
/// If it cannot be read, or has too little.
pub(super) fn read(path: &Path, tokenizer: &Tokenizer, context: usize, vocabulary: usize) -> Result<Texts, Error> {
    let unreadable = |reason: String| Error::ImportanceText { path: path.to_owned(), reason };
    let text = read_text(path, LARGEST_FILE).map_err(|error| unreadable(error.to_string()))?;
    let tokens = tokenizer.encode_chat(&text)?;
    if tokens.len() < 2 {
        return Err(unreadable("it has fewer than two tokens".to_owned()));
    }
    if tokens.iter().any(|&token| token as usize >= vocabulary) {
        return Err(unreadable("it has tokens that the model does not know".to_owned()));
    }
    let parts = cut_text(&tokens, context, TEXTS * WRITTEN);
    Ok(Texts::Given(parts.into_iter().map(|(part, _)| part).collect()))
}

/// Tokens before a text that a target writes by itself: of a model that talks, an empty question, so that it writes
/// what it was made for; of another, those that its tokenizer begins a text with.
fn beginning(tokenizer: &Tokenizer, template: Option<&ChatTemplate>, vocabulary: usize) -> Vec<u32> {
    let empty = [Message::new("user", "")];
    let asked = template.and_then(|template| template.render(&empty, true).ok());
    let asked = asked.and_then(|text| tokenizer.encode_chat(&text).ok());
    let begun = ["", "The"].map(|text| tokenizer.encode(text).ok());
    let is_known = |tokens: &Vec<u32>| !tokens.is_empty() && tokens.iter().all(|&token| (token as usize) < vocabulary);
    // A model that knows none of the tokenizer's tokens has its own.
    let known = asked.into_iter().chain(begun.into_iter().flatten()).find(is_known);
    known.unwrap_or_else(|| vec![0])
}

/// Influence of each layer of a target on the hidden state ([`block_influence`]), over given texts or those that it
/// writes at temperature 1.
///
/// # Errors
/// If its logits are not finite.
pub(super) fn influence(
    target: &Arc<Decoder>,
    tokenizer: &Tokenizer,
    texts: &Texts,
) -> Result<Vec<f64>, SamplingError> {
    let template = match texts {
        Texts::Given(texts) => return Ok(block_influence(target, texts)),
        Texts::Written(template) => template.as_deref(),
    };
    let beginning = beginning(tokenizer, template, target.config().vocab_size);
    let written = write_texts(target, &beginning, TEXTS * WRITTEN)?;
    let written: Vec<Vec<u32>> = written.into_iter().map(|(text, _)| text).collect();
    Ok(block_influence(target, &written))
}

//! What a target's layers matter, measured on texts that it writes itself: there is nothing to fetch, and the same model has the
//! same layers.

use std::sync::Arc;

use crate::drafters::skip_search::{WRITTEN, write_texts};
use crate::model::Decoder;
use crate::model::importance::block_influence;
use crate::sampling::SamplingError;
use crate::text::{ChatTemplate, Message, Tokenizer};

/// Texts that are written, of [`WRITTEN`] tokens or up to a stop token.
const TEXTS: usize = 6;

/// What stands before a text that a target writes by itself: of a model that talks, an empty question, so that it writes what it
/// was made for; of another what its tokenizer begins a text with.
pub(super) fn beginning(tokenizer: &Tokenizer, template: Option<&ChatTemplate>, vocabulary: usize) -> Vec<u32> {
    let empty = [Message { role: "user".into(), content: String::new() }];
    let asked = template.and_then(|template| template.render(&empty, true).ok());
    let asked = asked.and_then(|text| tokenizer.encode_chat(&text).ok());
    let begun = ["", "The"].map(|text| tokenizer.encode(text).ok());
    let is_known = |tokens: &Vec<u32>| !tokens.is_empty() && tokens.iter().all(|&token| (token as usize) < vocabulary);
    // A model that knows none of the tokenizer's tokens has its own.
    asked.into_iter().chain(begun.into_iter().flatten()).find(is_known).unwrap_or_else(|| vec![0])
}

/// What each layer of a target does to the hidden state ([`block_influence`]), over texts that it writes at temperature 1 after
/// `beginning`.
///
/// # Errors
/// If its logits are no numbers.
pub(super) fn influence(target: &Arc<Decoder>, beginning: &[u32]) -> Result<Vec<f64>, SamplingError> {
    let texts = write_texts(target, beginning, TEXTS * WRITTEN)?;
    let texts: Vec<Vec<u32>> = texts.into_iter().map(|(text, _)| text).collect();
    Ok(block_influence(target, &texts))
}

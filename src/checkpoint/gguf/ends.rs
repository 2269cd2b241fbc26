//! Tokens that end an answer.

use std::collections::BTreeSet;

use super::Metadata;
use super::vocabulary::{self, Form, Kind, SpecialIds, Vocabulary};
use crate::checkpoint::CheckpointError;

/// Tokens that end an answer, by their texts, as llama.cpp lists them.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Tokens of code completion after which nothing of the answer comes, by key and otherwise by text: padding, the name of another
/// repository, and another file.
const COMPLETION: [(&str, &[&str]); 3] = [
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    ("tokenizer.ggml.fim_rep_token_id", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// The ids that end an answer, in ascending order, as llama.cpp collects them: `eos_token_id`, `eot_token_id` and `eom_token_id`
/// of the metadata, tokens that are known to end answers by their texts, and those of code completion that begin something else.
///
/// Two things differ. A token that is known by its text counts only if it is not ordinary text (llama.cpp counts every one, and
/// makes it a control token), unless the file says nothing about kinds. And where no `eos_token_id` is given, none is assumed for
/// byte-level vocabularies, where llama.cpp takes Falcon's 11.
///
/// # Errors
/// When the vocabulary cannot be read, or an id is not in it.
pub fn end_of_generation(metadata: &Metadata) -> Result<Vec<u32>, CheckpointError> {
    let form = Form::of(metadata)?;
    let vocabulary = Vocabulary::read(metadata, form)?;
    let size = vocabulary.len();
    let known: Vec<(u32, &str)> = vocabulary
        .used()
        .filter(|(_, _, kind)| *kind != Kind::Byte && (*kind != Kind::Normal || !vocabulary.has_kinds))
        .map(|(id, token, _)| (id, token))
        .collect();
    let mut ends: BTreeSet<u32> = known.iter().filter(|(_, token)| ENDS.contains(token)).map(|(id, _)| *id).collect();
    for (key, texts) in COMPLETION {
        let by_text = || known.iter().find(|(_, token)| texts.contains(token)).map(|(id, _)| *id);
        ends.extend(vocabulary::id(metadata, key, size)?.or_else(by_text));
    }
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ends.extend(vocabulary::id(metadata, key, size)?);
    }
    let named = |text: &str| ends.iter().copied().find(|&id| vocabulary.token(id) == Some(text));
    // These only end a message of several in an answer of gpt-oss and Solar.
    let has_return = named("<|return|>").is_some() && named("<|call|>").is_some();
    let has_flush = named("<|flush|>").is_some() && (named("<|call|>").or(named("<|calls|>"))).is_some();
    let of_message = named("<|end|>").filter(|_| has_return || has_flush);
    // Text in Gemma 4.
    let text = named("</s>").filter(|_| named("<|tool_response>").is_some());
    for id in of_message.into_iter().chain(text) {
        ends.remove(&id);
    }
    ends.extend(SpecialIds::read(metadata, form, size)?.eos);
    Ok(ends.into_iter().collect())
}

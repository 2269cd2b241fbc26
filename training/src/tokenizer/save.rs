//! A tokenizer in files: `tokenizer.json` with what transformers reads beside it.

use std::path::Path;

use paceline::files::{WriteError, write_file};
use serde_json::{Value, json};

use super::LearnError;

/// Begins every text.
pub const BEGIN: &str = "<|begin|>";
/// Ends every text and every message.
pub const END: &str = "<|end|>";
/// Begins what the user says.
pub const USER: &str = "<|user|>";
/// Begins an answer.
pub const ASSISTANT: &str = "<|assistant|>";
/// Begins instructions.
pub const SYSTEM: &str = "<|system|>";
/// Fills up rows of a batch; no text has it. It is token 0, which programs take for padding when nobody tells them.
pub const PAD: &str = "<|pad|>";

/// The special tokens in the order of their ids, which begin at 0.
pub const SPECIAL: [&str; 6] = [PAD, BEGIN, END, USER, ASSISTANT, SYSTEM];

/// A conversation as a text: each message after a mark for who speaks, with an end behind it. Nothing stands between
/// marks and words, so a text has the same tokens whether it is cut at the marks before or after it is encoded.
pub const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
{% if message['role'] not in ['system', 'user', 'assistant'] %}\
{{ raise_exception('A message is of the role ' + message['role'] + '; use system, user or assistant.') }}\
{% endif %}\
{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// Why a tokenizer was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The library did not write it down.
    #[error(transparent)]
    Library(#[from] LearnError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes `tokenizer.json`, `tokenizer_config.json` with the chat template, `special_tokens_map.json` and
/// `generation_config.json` into `folder`, for models with a context of `context` tokens.
///
/// # Errors
/// When one cannot be written.
pub fn save(tokenizer: &tokenizers::Tokenizer, context: usize, folder: &Path) -> Result<(), SaveError> {
    let text = tokenizer.to_string(true).map_err(LearnError::from)?;
    write_file(&folder.join("tokenizer.json"), text.as_bytes())?;
    let roles = [USER, ASSISTANT, SYSTEM];
    let settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": roles,
        "model_max_length": context,
        "clean_up_tokenization_spaces": false,
        "chat_template": CHAT_TEMPLATE,
    });
    let special = json!({
        "bos_token": BEGIN, "eos_token": END, "pad_token": PAD, "additional_special_tokens": roles,
    });
    let id = |token: &str| tokenizer.token_to_id(token);
    let generation =
        json!({"bos_token_id": id(BEGIN), "eos_token_id": id(END), "pad_token_id": id(PAD), "do_sample": false});
    for (name, value) in [
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", special),
        ("generation_config.json", generation),
    ] {
        write_file(&folder.join(name), pretty(&value).as_bytes())?;
    }
    Ok(())
}

/// JSON as people read it.
fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

//! Engine errors, in sentences a user can act on.

use std::path::PathBuf;

use paceline_kernels::QuantizedFormat;

use crate::certificate::CertificateError;
use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::drafters::ChoiceError;
use crate::journal::JournalError;
use crate::local::LocateError;
use crate::lossy::LossyError;
use crate::meters::MeterError;
use crate::model::{DeviceError, ModelError, SkipError};
use crate::sampling::SamplingError;
use crate::text::TextError;
use crate::text::stream::StreamError;

/// Why an engine could not be built or a prompt could not be answered. Each message says what is wrong,
/// where, and what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the variants and their fields mean")]
pub enum Error {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Locate(#[from] LocateError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    #[error(transparent)]
    Drafter(#[from] ChoiceError),
    #[error(transparent)]
    Meter(#[from] MeterError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Lossy(#[from] LossyError),
    #[error(
        "No model was named: set `model` to a GGUF file, a directory in the Hugging Face layout, or a name such as org/name."
    )]
    NoModel,
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(
        "This engine keeps no journal, so past answers are not known: set `journal` to a file when the engine is loaded."
    )]
    NoJournal,
    #[error(
        "Draft model {} has another vocabulary than {}: a draft must share the target's tokenizer, or its tokens mean something else; choose another draft.",
        draft.display(), target.display()
    )]
    OtherVocabulary { draft: PathBuf, target: PathBuf },
    #[error(
        "Two draft models are called `{0}`: give each directory once, or rename one, so that `model:{0}` names one of them."
    )]
    SameName(String),
    #[error("There is no draft model{}: {}.", if wanted.is_empty() { String::new() } else { format!(" {wanted}") }, known_drafts(known))]
    NoSuchDraft { wanted: String, known: Vec<String> },
    #[error("`exit:{depth}` does not exist: {}.", known_exits(*layers))]
    NoSuchExit { depth: usize, layers: usize },
    #[error(transparent)]
    Skip(#[from] SkipError),
    #[error("`self:{0}` is not loaded: name the precision when the engine is loaded, as in `self-draft = [\"{0}\"]`.")]
    NoSelfDraft(QuantizedFormat),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("The text for `importance-text` in {} cannot be used: {reason}; name a text in UTF-8 like those that the model is for.", path.display())]
    ImportanceText { path: PathBuf, reason: String },
    #[error("The prompt is empty, and this model's tokenizer adds nothing to an empty text: write a prompt.")]
    EmptyPrompt,
    #[error(
        "The prompt has {tokens} tokens, but the model's context holds {context}, one of them for the answer: shorten the prompt."
    )]
    PromptTooLong { tokens: usize, context: usize },
    #[error(
        "Token {token} at place {place} of the prompt is outside the model's vocabulary of {vocabulary}: is this the model's own tokenizer?"
    )]
    TokenOutsideVocabulary { token: u32, place: usize, vocabulary: usize },
    #[error(
        "The model has no chat template: give a plain prompt instead of messages, or add a `chat_template` to tokenizer_config.json."
    )]
    NoChatTemplate,
    #[error("{0}")]
    ChatTemplate(String),
    #[error(
        "The answer takes too much memory: {bytes} bytes for the cache of {positions} positions cannot be had; ask for fewer new tokens, or shorten the prompt."
    )]
    CacheTooLarge { bytes: u64, positions: usize },
    #[error(
        "The answer may take {positions} positions of key-value cache, and the pool holds {pool}: ask for fewer new tokens, shorten the prompt, or raise `kv-pool`."
    )]
    LargerThanPool { positions: usize, pool: usize },
    #[error(
        "The engine is busy: {waiting} requests wait for their answers already, and no more are taken; ask again when one of them is done, or cancel some."
    )]
    Busy { waiting: usize },
    #[error(
        "The engine has stopped working (its decode thread ended): load it again; if this repeats, please report it."
    )]
    Stopped,
    #[error(
        "This answer ended in an error of Paceline's own, described on standard error: please report it; the engine goes on."
    )]
    Internal,
}

fn known_drafts(known: &[String]) -> String {
    if known.is_empty() {
        "none was given; name its directory with `--draft DIR`".to_owned()
    } else {
        format!("choose one of those given: {}", known.join(", "))
    }
}

fn known_exits(layers: usize) -> String {
    match layers {
        0 | 1 => "the target has one layer, so it has no exits; choose another drafter".to_owned(),
        _ => format!("the target has {layers} layers, so choose exit:1 to exit:{}", layers - 1),
    }
}

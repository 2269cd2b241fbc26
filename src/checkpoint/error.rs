//! Problems of a model directory, each as a sentence that says what, where and what to do about it.
//!
//! Names that come from files are shown escaped and shortened, so that a message stays on one line whatever they hold.

use std::path::PathBuf;

use crate::files::of_model::FileError;
use crate::visible::{shown, shown_path};

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Nothing is at the path given.
    #[error(
        "The model {} does not exist; give a GGUF file, or a directory that holds config.json and model.safetensors.",
        shown_path(.path)
    )]
    NoDirectory {
        /// The path given.
        path: PathBuf,
    },
    /// The path given leads to something that is not a directory.
    #[error("{} is not a directory, nor a GGUF file; give the directory that holds config.json, not a file in it.", shown_path(.path))]
    NotADirectory {
        /// The path given.
        path: PathBuf,
    },
    /// The path given could not be looked at.
    #[error("The model {} cannot be read: {source}.", shown_path(.path))]
    Directory {
        /// The path given.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A weights file was written to while it was in use.
    #[error(
        "The weights file {} changed while it was in use, so what was computed from it cannot be vouched for; load the model again.",
        shown_path(.path)
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The directory has no `config.json`.
    #[error(
        "{} has no config.json; a model directory in the Hugging Face layout is needed.",
        shown_path(.dir)
    )]
    NoConfig {
        /// The model directory.
        dir: PathBuf,
    },
    /// The path leads to something that is often taken for a model's directory or file.
    #[error("{} {reason}.", shown_path(.path))]
    NotAModel {
        /// The directory or file.
        path: PathBuf,
        /// Rest of the sentence: the kind of file and the remedy.
        reason: String,
    },
    /// The directory has no safetensors file.
    #[error(
        "{} holds no model.safetensors and no model.safetensors.index.json; {}.",
        shown_path(.dir),
        match .other {
            Some(other) => format!("convert {} to safetensors", shown(other)),
            None => "download the model's weights in the safetensors format".to_owned(),
        }
    )]
    NoWeights {
        /// The model directory.
        dir: PathBuf,
        /// Weights in another format that were found there.
        other: Option<String>,
    },
    /// A file could not be read, or is not the JSON it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key of `config.json` has a value that cannot be used.
    #[error("The key \"{}\" of {} {reason}.", shown(.key), shown_path(.path))]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key, with dots for nesting.
        key: String,
        /// The rest of the sentence.
        reason: String,
    },
    /// The values of `config.json` do not go together.
    #[error("The configuration {} {reason}.", shown_path(.path))]
    Contradiction {
        /// The configuration file.
        path: PathBuf,
        /// The rest of the sentence.
        reason: String,
    },
    /// A weights file or the index breaks its format.
    #[error("The weights file {} is damaged: {reason}; download or convert it again.", shown_path(.path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// The index sends a tensor to a file that cannot be meant.
    #[error(
        "The index {} puts tensors into \"{}\", which is not a plain file name; only files of the same directory are read.",
        shown_path(.path),
        shown(.shard)
    )]
    ShardName {
        /// The index file.
        path: PathBuf,
        /// The name it gives.
        shard: String,
    },
    /// A file that the index lists is not there.
    #[error(
        "The weights file {} does not exist, one of {missing} missing of the {listed} that the index lists; download it again.",
        shown_path(.path)
    )]
    MissingShard {
        /// The first file that is missing.
        path: PathBuf,
        /// Number of missing files.
        missing: usize,
        /// Number of files that the index lists.
        listed: usize,
    },
    /// The index lists a tensor that the model needs in a file that does not hold it.
    #[error(
        "The weights file {} does not hold the tensor \"{}\", which the index lists for it; download that file again.",
        shown_path(.path),
        shown(.tensor)
    )]
    NotInShard {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// The configuration implies a tensor that no file holds.
    #[error(
        "The tensor \"{}\" that {} implies is in no weights file; the download may be incomplete, or the file belongs to another model.",
        shown(.tensor),
        shown_path(.config)
    )]
    Missing {
        /// The tensor's name.
        tensor: String,
        /// The file that describes the model.
        config: PathBuf,
    },
    /// A file holds a tensor that the configuration does not imply.
    #[error(
        "{} holds the tensor \"{}\", which {reason}; the weights and the configuration belong to different models.",
        shown_path(.path),
        shown(.tensor)
    )]
    Surplus {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Why it is surplus.
        reason: &'static str,
    },
    /// A tensor's shape is not the one that the configuration implies.
    #[error(
        "The tensor \"{}\" of {} has the shape {}, but the configuration implies {}; the weights and the configuration belong to different models.",
        shown(.tensor),
        shown_path(.path),
        shown_shape(.found),
        shown_shape(.expected)
    )]
    Shape {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a format that is not read.
    #[error("The tensor \"{}\" of {} is stored as {kind}; {read}.", shown(.tensor), shown_path(.path))]
    Format {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The format in the file.
        kind: String,
        /// Rest of the sentence: formats that are read, and advice.
        read: String,
    },
    /// The exit heads beside the model are not what they should be.
    #[error(
        "The exit heads {} cannot be used: {}; train them again with `paceline-train exits`, or move the file away to draft with untrained exits.",
        shown_path(.path),
        shown(.reason)
    )]
    Exits {
        /// Their file.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// The tokens that drafts choose from cannot be used.
    #[error(
        "The draft vocabulary {} cannot be used: {}; make it again with `paceline-train draft-vocabulary`, or move the file away to draft with all tokens.",
        shown_path(.path),
        shown(.reason)
    )]
    DraftVocabulary {
        /// Its file.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// [`tensor`](super::Checkpoint::tensor) was asked for a name that the model does not have.
    #[error("The model {} has no tensor named \"{}\".", shown_path(.path), shown(.tensor))]
    Unknown {
        /// Its directory or file.
        path: PathBuf,
        /// The name asked for.
        tensor: String,
    },
}

/// `[2, 3]`, shortened when there are many dimensions.
fn shown_shape(shape: &[usize]) -> String {
    shown(&format!("{shape:?}"))
}

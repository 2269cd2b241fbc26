//! Reading models: Hugging Face directories, and GGUF files.
//!
//! [`Checkpoint::open`] reads the configuration, maps the weights and holds one against the other: when it
//! succeeds, every tensor that the configuration implies is there with the right shape in a format that is read, and
//! nothing else is. Code that builds a model from it cannot fail on names or shapes. Weights are not copied, headers are, and
//! memory does not depend on what a damaged file claims.

mod config;
mod directory;
mod draft_vocabulary;
mod error;
mod exits;
mod fingerprint;
mod gguf;
mod header;
mod key_table;
mod keys;
mod layer_spec;
mod layout;
mod location;
mod mapped;
mod matching;
mod rope;
mod shards;
mod tensor;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use paceline_kernels::Activation;
use paceline_kernels::{FloatFormat, StoredFormat};

pub use self::config::{Family, ModelConfig, Windows};
pub(crate) use self::directory::snapshots;
pub use self::draft_vocabulary::DRAFT_VOCABULARY;
pub use self::error::CheckpointError;
pub use self::exits::{EXITS, ExitConfig, Exits, ExitsConfig, exit_tensors};
#[cfg(test)]
pub(crate) use self::gguf::writer as gguf_writer;
pub use self::gguf::{Gguf, Metadata, Value, end_of_generation, metadata_of};
pub(crate) use self::gguf::{models_in as gguf_models_in, vocabulary};
pub use self::layer_spec::{LayerSpec, LayerSpecs};
pub(crate) use self::layout::{EMBEDDING, OUTPUT, layer_name, mlp_norm};
pub use self::layout::{FINAL_NORM, tensors_of};
#[cfg(feature = "download")]
pub(crate) use self::location::is_whole;
pub use self::location::side_file;
pub use self::mapped::MappedFiles;
use self::matching::Matching;
pub use self::rope::{Frequencies, Rope, RopeScaling};
use self::shards::Shards;
pub use self::shards::WeightsFile;
pub use self::tensor::StoredTensor;
pub use crate::files::of_model::FileError;

/// A model whose configuration and weights fit each other.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: ModelConfig,
    files: Vec<WeightsFile>,
    tensors: HashMap<String, StoredTensor>,
    notes: Vec<String>,
    metadata: Option<Metadata>,
    /// Made when it is asked for: exits and routers are held to it, and it reads all weights.
    fingerprint: OnceLock<u64>,
}

impl Checkpoint {
    /// Opens the model at `path`: a directory in the Hugging Face layout, a GGUF file, or a directory with one. Reads the
    /// configuration, maps the weights and checks both against each other.
    ///
    /// # Errors
    /// A sentence on the first thing that is wrong: a file that is missing or damaged, a model that is not
    /// supported, a tensor that is missing, surplus, of another shape, or stored in a format that is not read.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if let Some(file) = gguf::find(path)? {
            let gguf::Model { config, shards, notes, metadata } = gguf::Model::open(&file)?;
            let checkpoint = Self::with_weights(path, &file, config, shards, notes)?;
            return Ok(Self { metadata: Some(metadata), ..checkpoint });
        }
        check_directory(path)?;
        let config = ModelConfig::read(path)?;
        Self::with_weights(path, &path.join("config.json"), config, Shards::open(path)?, Vec::new())
    }

    /// Maps the weights in `dir` as those of the model that `config` describes, whatever its `config.json` says.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the description contradicts itself.
    pub fn open_as(dir: &Path, config: ModelConfig) -> Result<Self, CheckpointError> {
        check_directory(dir)?;
        config.check(dir)?;
        Self::with_weights(dir, &dir.join("config.json"), config, Shards::open(dir)?, Vec::new())
    }

    fn with_weights(
        path: &Path,
        source: &Path,
        mut config: ModelConfig,
        shards: Shards,
        notes: Vec<String>,
    ) -> Result<Self, CheckpointError> {
        let mut matching = Matching { source, shards, taken: HashMap::new(), notes };
        matching.take_all(&mut config)?;
        matching.check_rest()?;
        let Matching { shards: Shards { files, .. }, taken: tensors, notes, .. } = matching;
        Ok(Self { path: path.to_owned(), config, files, tensors, notes, metadata: None, fingerprint: OnceLock::new() })
    }

    /// The model's description.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The metadata of a GGUF file, if the model lies in one.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Sentences on what the files say wrongly of themselves, without harm to what is computed.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The directory or file that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensor of a name as in Hugging Face files, such as `model.layers.0.self_attn.q_proj.weight`. With
    /// tied embeddings `model.embed_tokens.weight` and `lm_head.weight` are the same tensor, under whichever
    /// name the file has it.
    ///
    /// # Errors
    /// When the model has no such tensor; never for those that [`config`](Self::config) implies.
    pub fn tensor(&self, name: &str) -> Result<&StoredTensor, CheckpointError> {
        let name = if self.config.tied_embeddings && name == OUTPUT { EMBEDDING } else { name };
        let unknown = || CheckpointError::Unknown { path: self.path.clone(), tensor: name.to_owned() };
        self.tensors.get(name).ok_or_else(unknown)
    }

    /// All tensors of the model with their names, a tied matrix once.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The format in which the largest part of the matrices is stored, in elements.
    pub fn stored_format(&self) -> StoredFormat {
        let formats = self.stored_formats();
        formats.first().map_or(FloatFormat::F32.into(), |(format, _)| *format)
    }

    /// The formats in which the matrices are stored, with their elements, the largest part first.
    pub fn stored_formats(&self) -> Vec<(StoredFormat, u64)> {
        let matrices = self.tensors.values().filter(|tensor| tensor.shape.len() == 2);
        added_up(matrices.map(|tensor| (tensor.format, tensor.elements() as u64)))
    }

    /// Bytes of the model's weights as stored, a tied matrix counted once.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.bytes.len() as u64).sum()
    }

    /// The number of parameters, a tied matrix counted once.
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.elements() as u64).sum()
    }

    /// The weights files.
    pub fn files(&self) -> &[WeightsFile] {
        &self.files
    }
}

/// The values of each kind, added up, the largest part first.
fn added_up<K: PartialEq + fmt::Display>(values: impl Iterator<Item = (K, u64)>) -> Vec<(K, u64)> {
    let mut all: Vec<(K, u64)> = Vec::new();
    for (kind, count) in values {
        match all.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, sum)) => *sum += count,
            None => all.push((kind, count)),
        }
    }
    all.sort_by_key(|(kind, sum)| (Reverse(*sum), kind.to_string()));
    all
}

/// Refuses what is not the directory of a model.
fn check_directory(dir: &Path) -> Result<(), CheckpointError> {
    let metadata = fs::metadata(dir).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => directory::absent(dir),
        io::ErrorKind::NotADirectory => directory::not_a_directory(dir),
        _ => CheckpointError::Directory { path: dir.to_owned(), source },
    })?;
    if !metadata.is_dir() {
        return Err(directory::not_a_directory(dir));
    }
    directory::check(dir)
}

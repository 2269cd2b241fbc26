//! Reading Hugging Face model directories.
//!
//! [`Checkpoint::open`] reads the configuration, maps the weights and holds one against the other: when it
//! succeeds, every tensor that the configuration implies is there with the right shape in a float format, and
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
mod mapped;
mod rope;
mod shards;
mod tensor;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use paceline_kernels::{FloatFormat, Weights};
use safetensors::Dtype;

pub use self::config::{Family, ModelConfig};
pub use self::draft_vocabulary::DRAFT_VOCABULARY;
pub use self::error::CheckpointError;
pub use self::exits::{EXITS, ExitConfig, Exits, ExitsConfig, exit_tensors};
pub use self::gguf::{Gguf, Metadata, Value};
pub use self::layer_spec::{LayerSpec, LayerSpecs};
pub(crate) use self::layout::{EMBEDDING, OUTPUT, layer_name};
pub use self::layout::{FINAL_NORM, tensors_of};
use self::layout::{is_stored_buffer, layer_tensors, outer_tensors};
pub use self::mapped::MappedFiles;
pub use self::rope::{Rope, RopeScaling};
use self::shards::Shards;
pub use self::shards::WeightsFile;
pub use self::tensor::StoredTensor;
pub use self::windows::Windows;
pub use crate::files::of_model::FileError;
use crate::visible::shown;

/// A model directory whose configuration and weights fit each other.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: ModelConfig,
    files: Vec<WeightsFile>,
    tensors: HashMap<String, StoredTensor>,
    notes: Vec<String>,
    /// Made when it is asked for: exits and routers are held to it, and it reads all weights.
    fingerprint: OnceLock<u64>,
}

impl Checkpoint {
    /// Reads the configuration of the model in `dir`, maps its weights and checks both against each other.
    ///
    /// # Errors
    /// A sentence on the first thing that is wrong: a file that is missing or damaged, a model that is not
    /// supported, a tensor that is missing, surplus, of another shape, or stored in something other than F32,
    /// F16 or BF16.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        check_directory(dir)?;
        Self::with_weights(dir, ModelConfig::read(dir)?)
    }

    /// Maps the weights in `dir` as those of the model that `config` describes, whatever its `config.json` says.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the description contradicts itself.
    pub fn open_as(dir: &Path, config: ModelConfig) -> Result<Self, CheckpointError> {
        check_directory(dir)?;
        config.check(dir)?;
        Self::with_weights(dir, config)
    }

    fn with_weights(dir: &Path, mut config: ModelConfig) -> Result<Self, CheckpointError> {
        let mut matching = Matching { dir, shards: Shards::open(dir)?, taken: HashMap::new(), notes: Vec::new() };
        matching.take_all(&mut config)?;
        matching.check_rest()?;
        let Matching { shards: Shards { files, .. }, taken: tensors, notes, .. } = matching;
        Ok(Self { dir: dir.to_owned(), config, files, tensors, notes, fingerprint: OnceLock::new() })
    }

    /// The model's description.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Sentences on what the files say wrongly of themselves, without harm to what is computed.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The directory it was read from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tensor of a name as in Hugging Face files, such as `model.layers.0.self_attn.q_proj.weight`. With
    /// tied embeddings `model.embed_tokens.weight` and `lm_head.weight` are the same tensor, under whichever
    /// name the file has it.
    ///
    /// # Errors
    /// When the model has no such tensor; never for those that [`config`](Self::config) implies.
    pub fn tensor(&self, name: &str) -> Result<&StoredTensor, CheckpointError> {
        let name = if self.config.tied_embeddings && name == OUTPUT { EMBEDDING } else { name };
        let unknown = || CheckpointError::Unknown { dir: self.dir.clone(), tensor: name.to_owned() };
        self.tensors.get(name).ok_or_else(unknown)
    }

    /// All tensors of the model with their names, a tied matrix once.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The format in which the largest part of the matrices is stored, in elements.
    pub fn stored_format(&self) -> FloatFormat {
        let elements = |format: FloatFormat| {
            let stored = self.tensors.values().filter(|tensor| tensor.shape.len() == 2 && tensor.format == format);
            stored.map(|tensor| tensor.elements() as u128).sum::<u128>()
        };
        let formats = [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16];
        formats.into_iter().max_by_key(|&format| elements(format)).unwrap_or(FloatFormat::F32)
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

/// True if two matrices of one shape hold the same numbers, whatever their formats.
fn are_equal(left: &StoredTensor, right: &StoredTensor) -> bool {
    if left.format == right.format {
        return left.file.get(left.bytes.clone()) == right.file.get(right.bytes.clone());
    }
    let rows = left.shape.first().copied().unwrap_or(0);
    let matrix = |tensor: &StoredTensor| {
        let width = tensor.elements() / rows.max(1);
        Weights::in_place(Arc::clone(&tensor.file), tensor.bytes.clone(), tensor.format, rows, width)
    };
    let (Ok(left), Ok(right)) = (matrix(left), matrix(right)) else { return false };
    // Row by row, so that a large vocabulary takes no memory.
    let (mut of_left, mut of_right) = (vec![0.0; left.in_features()], vec![0.0; right.in_features()]);
    (0..rows).all(|row| {
        left.row_to_f32(row, &mut of_left);
        right.row_to_f32(row, &mut of_right);
        of_left == of_right
    })
}

/// The tensors of the files, moved one by one to those of the model.
struct Matching<'a> {
    dir: &'a Path,
    shards: Shards,
    taken: HashMap<String, StoredTensor>,
    notes: Vec<String>,
}

impl Matching<'_> {
    /// Takes every tensor that the configuration implies; what it says of tied matrices is set right.
    fn take_all(&mut self, config: &mut ModelConfig) -> Result<(), CheckpointError> {
        let matrix = vec![config.vocab_size, config.hidden_size];
        if config.tied_embeddings {
            let output = self.take(OUTPUT, &matrix)?;
            let embedding = self.take(EMBEDDING, &matrix)?;
            if let (Some(output), Some(embedding)) = (&output, &embedding)
                && !are_equal(output, embedding)
            {
                // As transformers does: a matrix that was learned apart, as in a merged adapter, is not thrown away.
                config.tied_embeddings = false;
                self.notes.push(format!(
                    "config.json says that \"{OUTPUT}\" is the embedding (tie_word_embeddings), but the weights hold another matrix of that name, which is used."
                ));
                self.taken.insert(OUTPUT.to_owned(), output.clone());
            }
            // Some files hold the tied matrix under the output's name.
            let tied = embedding.or(output).ok_or_else(|| self.missing(EMBEDDING))?;
            self.taken.insert(EMBEDDING.to_owned(), tied);
        } else {
            self.require(EMBEDDING.to_owned(), &matrix)?;
            self.require(OUTPUT.to_owned(), &matrix)?;
        }
        for (name, shape) in outer_tensors(config) {
            self.require(name.to_owned(), &shape)?;
        }
        // Ends at the first layer that is not in the files, however many the configuration claims.
        for layer in 0..config.layers {
            for (name, shape) in layer_tensors(config.layer(layer)) {
                self.require(layer_name(layer, name), &shape)?;
            }
        }
        Ok(())
    }

    fn missing(&self, name: &str) -> CheckpointError {
        if let Some(&number) = self.shards.stale.get(name) {
            return CheckpointError::NotInShard { path: self.path(number), tensor: name.to_owned() };
        }
        CheckpointError::Missing { tensor: name.to_owned(), config: self.dir.join("config.json") }
    }

    fn require(&mut self, name: String, shape: &[usize]) -> Result<(), CheckpointError> {
        let tensor = self.take(&name, shape)?.ok_or_else(|| self.missing(&name))?;
        self.taken.insert(name, tensor);
        Ok(())
    }

    /// The tensor `name`, no longer among those of the files; `None` if no file holds it.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<StoredTensor>, CheckpointError> {
        let Some((number, entry)) = self.shards.tensors.remove(name) else { return Ok(None) };
        let format = match entry.dtype {
            Dtype::F32 => FloatFormat::F32,
            Dtype::F16 => FloatFormat::F16,
            Dtype::BF16 => FloatFormat::Bf16,
            other => {
                let (path, dtype) = (self.path(number), other.to_string());
                return Err(CheckpointError::Format { path, tensor: name.to_owned(), dtype });
            }
        };
        if *entry.shape != *shape {
            return Err(CheckpointError::Shape {
                path: self.path(number),
                tensor: name.to_owned(),
                found: entry.shape.into(),
                expected: shape.to_owned(),
            });
        }
        let Some(file) = self.shards.maps.get(number).cloned() else { return Ok(None) };
        Ok(Some(StoredTensor { file, bytes: entry.bytes, format, shape: entry.shape.into() }))
    }

    /// Checks that the tensors left in the files are buffers that follow from the configuration.
    fn check_rest(&mut self) -> Result<(), CheckpointError> {
        if let Some(name) = self.shards.stale.keys().min() {
            let count = self.shards.stale.len();
            self.notes.push(format!(
                "The index lists {count} tensors that no file holds and the model does not need, such as \"{}\".",
                shown(name)
            ));
        }
        let surplus = self.shards.tensors.iter().filter(|(name, _)| !is_stored_buffer(name));
        match surplus.min_by_key(|(name, _)| name.as_str()) {
            None => Ok(()),
            Some((name, (number, _))) => Err(CheckpointError::Surplus {
                path: self.path(*number),
                tensor: name.clone(),
                reason: "no part of the configured model uses",
            }),
        }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.shards.files.get(number).map_or_else(|| self.dir.to_owned(), |file| file.path.clone())
    }
}

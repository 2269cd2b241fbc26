//! Trained exit heads: the file `exits.safetensors` beside a model's weights.
//!
//! A head of depth E makes logits of the hidden state h that leaves layer E - 1: the model's own output matrix after a norm
//! of `h + up (down h)`. `down` is `[rank, hidden]`, `up` `[hidden, rank]`, the norm's weight `[hidden]`. What does not fit
//! in tensors is JSON in the file's metadata: [`ExitsConfig`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use paceline_kernels::{MappedFile, RowOrder};
use serde::{Deserialize, Serialize};

use super::header::{Entry, read_header_with};
use super::mapped::MappedFiles;
use super::{Checkpoint, CheckpointError, ModelConfig, StoredTensor, side_file};
use crate::files::of_model::FileError;
use crate::files::{self, Object, ReadError};

/// The file's name in a model directory.
pub const EXITS: &str = "exits.safetensors";

/// Metadata of an exits file, under [`ExitsConfig::KEY`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitsConfig {
    /// [`Checkpoint::fingerprint`] of the model that the heads were trained for, in hexadecimal digits.
    pub model: String,
    /// Rows of `down` and columns of `up`.
    pub rank: usize,
    /// The heads, by rising depth.
    pub exits: Vec<ExitConfig>,
}

/// A trained head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitConfig {
    /// Layers that run before it, from 1 to one less than the model has.
    pub depth: usize,
    /// Temperature that its logits are divided by to make the greatest probability the calibrated rate at which its
    /// pick is the model's (Guo et al. 2017).
    pub temperature: f32,
    /// Rate at which its pick was the model's, on text it was not trained on.
    pub agreement: f64,
    /// The expected calibration error of that probability, on text that the temperature was not fitted on.
    pub calibration_error: f64,
}

impl ExitsConfig {
    /// The key of the metadata that has it as JSON.
    pub const KEY: &str = "paceline.exits";

    /// A fingerprint as it is written.
    pub fn model_of(fingerprint: u64) -> String {
        format!("{fingerprint:016x}")
    }

    /// The rest of a sentence where something in it cannot be, for a model of so many layers.
    fn check(&self, layers: usize) -> Result<(), String> {
        if self.rank == 0 {
            return Err("their rank is 0".to_owned());
        }
        let mut before = 0;
        for exit in &self.exits {
            if !(1..layers).contains(&exit.depth) {
                return Err(format!("one is of depth {}, and the model has {layers} layers", exit.depth));
            }
            if exit.depth <= before {
                return Err(format!("the depth {} does not come after {before}", exit.depth));
            }
            if !(exit.temperature.is_finite() && exit.temperature > 0.0) {
                return Err(format!("the temperature of depth {} is {}", exit.depth, exit.temperature));
            }
            before = exit.depth;
        }
        if before == 0 { Err("there are none in it".to_owned()) } else { Ok(()) }
    }
}

/// Names and shapes of a head's tensors, in the order norm, down, up.
pub fn exit_tensors(depth: usize, rank: usize, hidden: usize) -> [(String, Vec<usize>); 3] {
    let name = |part: &str| format!("exits.{depth}.{part}.weight");
    [(name("norm"), vec![hidden]), (name("down"), vec![rank, hidden]), (name("up"), vec![hidden, rank])]
}

/// The trained exit heads of a model, checked against it.
#[derive(Debug)]
pub struct Exits {
    path: PathBuf,
    config: ExitsConfig,
    tensors: HashMap<String, StoredTensor>,
    map: Arc<MappedFile>,
}

impl Exits {
    /// Metadata of the file.
    pub fn config(&self) -> &ExitsConfig {
        &self.config
    }

    /// All bytes of the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The mapped file, by which a change of it is noticed.
    pub(crate) fn mapped(&self) -> MappedFiles {
        MappedFiles::of(self.tensors.values())
    }

    /// The tensor of a name that [`exit_tensors`] gives.
    ///
    /// # Errors
    /// When there is no such tensor; never for those of the depths in [`Exits::config`].
    pub fn tensor(&self, name: &str) -> Result<&StoredTensor, CheckpointError> {
        let missing =
            || CheckpointError::Exits { path: self.path.clone(), reason: format!("the tensor \"{name}\" is missing") };
        self.tensors.get(name).ok_or_else(missing)
    }
}

impl Checkpoint {
    /// The trained exit heads beside the model; `None` if there is no such file.
    ///
    /// # Errors
    /// When the file is damaged, contradicts itself, or belongs to another model.
    pub fn exits(&self) -> Result<Option<Exits>, CheckpointError> {
        let path = side_file(self.path(), EXITS);
        let map = match files::map(&path) {
            Err(ReadError::Absent) => return Ok(None),
            Err(error) => return Err(FileError::of(&path, error).into()),
            Ok(map) => Arc::new(map),
        };
        let header = read_header_with(&path, &map, Some(ExitsConfig::KEY))?;
        let wrong = |reason: String| CheckpointError::Exits { path: path.clone(), reason };
        let text = header.text.ok_or_else(|| wrong(format!("the metadata lack `{}`", ExitsConfig::KEY)))?;
        let Object(config): Object<ExitsConfig> = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("`{}` in the metadata: {error}", ExitsConfig::KEY)))?;
        config.check(self.config().layers).map_err(wrong)?;
        let tensors = take(&config, self.config(), header.tensors, &map).map_err(wrong)?;
        if config.model != ExitsConfig::model_of(self.fingerprint()) {
            return Err(wrong("they were trained for another model than the one beside them".to_owned()));
        }
        Ok(Some(Exits { path, config, tensors, map }))
    }
}

/// The tensors that `config` implies, all that the file has.
fn take(
    config: &ExitsConfig,
    model: &ModelConfig,
    mut entries: HashMap<String, Entry>,
    map: &Arc<MappedFile>,
) -> Result<HashMap<String, StoredTensor>, String> {
    let mut tensors = HashMap::new();
    for exit in &config.exits {
        for (name, shape) in exit_tensors(exit.depth, config.rank, model.hidden_size) {
            let entry = entries.remove(&name).ok_or_else(|| format!("the tensor \"{name}\" is missing"))?;
            if *entry.shape != *shape {
                return Err(format!(
                    "the tensor \"{name}\" has the shape {:?}, and rank and model imply {shape:?}",
                    entry.shape
                ));
            }
            let format = entry.format();
            let format = format
                .map_err(|other| format!("the tensor \"{name}\" is stored as {other}, which is not a float format"))?;
            tensors.insert(
                name,
                StoredTensor { file: Arc::clone(map), bytes: entry.bytes, format, shape, order: RowOrder::Plain },
            );
        }
    }
    match entries.keys().min() {
        None => Ok(tensors),
        Some(name) => Err(format!("the tensor \"{name}\" belongs to no head")),
    }
}

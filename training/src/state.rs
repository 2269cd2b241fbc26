//! The state of a training on disk: one safetensors file, replaced whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use paceline::files::{self, ReadError, WriteError, write_file};
use paceline::model::Parameters;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::optimizer::{Moments, Optimizer};
use crate::packing::PackingState;

/// Why a state cannot be written or gone on from.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It could not be written; the one before is whole.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It has values that are not finite.
    #[error(
        "The weights are no longer finite after step {steps}: lower `learning_rate`, or `clip`; the checkpoint {} holds the last good ones.",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Steps done.
        steps: u64,
    },
    /// It could not be put into a file.
    #[error("The state of the training cannot be written: {0}; the one before is whole.")]
    Serialize(safetensors::SafeTensorError),
    /// It could not be read.
    #[error("The checkpoint {} cannot be read: {reason}; delete it to begin anew.", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is of another training.
    #[error(
        "The checkpoint {} was made by another recipe: it has {what}; name another folder with `--out`, or delete it to begin anew.",
        path.display()
    )]
    OtherRecipe {
        /// The file.
        path: PathBuf,
        /// Where the first difference is.
        what: String,
    },
}

/// The state that a training resumes from.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Steps done.
    pub steps: u64,
    /// Steps that the optimizer's means are of.
    pub optimizer_steps: u64,
    /// Where in the data it stands.
    pub packing: PackingState,
    /// The parameters.
    pub parameters: BTreeMap<String, Vec<f32>>,
    /// The optimizer's running means.
    pub moments: BTreeMap<String, Moments>,
}

/// Bytes of a state that are read at most.
const MOST_BYTES: u64 = 64 << 30;
const FIRST: &str = "first.";
const SECOND: &str = "second.";
const PARAMETER: &str = "parameter.";

impl State {
    /// Takes the state of a training that runs.
    pub fn of(steps: u64, parameters: &Parameters, optimizer: &Optimizer, packing: &PackingState) -> Self {
        Self {
            steps,
            optimizer_steps: optimizer.steps(),
            packing: packing.clone(),
            parameters: parameters.values(),
            moments: optimizer.moments().clone(),
        }
    }

    /// Writes it to `path`. `recipe` is what the training goes by, as text.
    ///
    /// # Errors
    /// If it cannot be written, or a parameter is not finite; the file is then as it was.
    pub fn save(&self, path: &Path, recipe: &str) -> Result<(), StateError> {
        if !self.parameters.values().flatten().all(|value| value.is_finite()) {
            return Err(StateError::NotFinite { path: path.to_owned(), steps: self.steps });
        }
        let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        for (name, values) in &self.parameters {
            tensors.push((format!("{PARAMETER}{name}"), bytes(values)));
        }
        for (name, moments) in &self.moments {
            tensors.push((format!("{FIRST}{name}"), bytes(&moments.first)));
            tensors.push((format!("{SECOND}{name}"), bytes(&moments.second)));
        }
        let mut views = Vec::with_capacity(tensors.len());
        for (name, bytes) in &tensors {
            let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(StateError::Serialize)?;
            views.push((name, view));
        }
        let packing = serde_json::to_string(&self.packing).unwrap_or_default();
        let metadata = [
            ("recipe", recipe.to_owned()),
            ("steps", self.steps.to_string()),
            ("optimizer_steps", self.optimizer_steps.to_string()),
            ("packing", packing),
        ];
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let file = safetensors::serialize(views, Some(metadata)).map_err(StateError::Serialize)?;
        Ok(write_file(path, &file)?)
    }

    /// Reads the state at `path`; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is of another training than that of `recipe`, which is told the steps that were done.
    pub fn load(path: &Path, recipe: impl FnOnce(u64) -> String) -> Result<Option<Self>, StateError> {
        let unreadable = |reason: String| StateError::Unreadable { path: path.to_owned(), reason };
        let bytes = match files::read(path, MOST_BYTES) {
            Err(ReadError::Absent) => return Ok(None),
            read => read.map_err(|error| unreadable(error.to_string()))?,
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| unreadable(error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let entry = |key: &str| metadata.get(key).ok_or_else(|| unreadable(format!("it lacks `{key}`")));
        let number = |key: &str| entry(key)?.parse::<u64>().map_err(|error| unreadable(format!("`{key}`: {error}")));
        let (made_by, recipe) = (entry("recipe")?, recipe(number("steps")?));
        if *made_by != recipe {
            return Err(StateError::OtherRecipe { path: path.to_owned(), what: first_difference(made_by, &recipe) });
        }
        let packing = serde_json::from_str(entry("packing")?).map_err(|error| unreadable(error.to_string()))?;
        let mut state = Self {
            steps: number("steps")?,
            optimizer_steps: number("optimizer_steps")?,
            packing,
            parameters: BTreeMap::new(),
            moments: BTreeMap::new(),
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| unreadable(error.to_string()))?;
        for (name, tensor) in tensors.tensors() {
            let values = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            if let Some(name) = name.strip_prefix(PARAMETER) {
                state.parameters.insert(name.to_owned(), values);
            } else if let Some(name) = name.strip_prefix(FIRST) {
                state.moments.entry(name.to_owned()).or_default().first = values;
            } else if let Some(name) = name.strip_prefix(SECOND) {
                state.moments.entry(name.to_owned()).or_default().second = values;
            }
        }
        Ok(Some(state))
    }

    /// Checks that it has the values of parameters of these names and lengths, and no others.
    ///
    /// # Errors
    /// The first name that it lacks, or has other values for.
    pub fn check(&self, path: &Path, expected: impl Iterator<Item = (String, usize)>) -> Result<(), StateError> {
        for (name, length) in expected {
            let found = self.parameters.get(&name).map_or(0, Vec::len);
            if found != length {
                let reason = format!("it has {found} values of `{name}`, which has {length}");
                return Err(StateError::Unreadable { path: path.to_owned(), reason });
            }
        }
        Ok(())
    }
}

/// The place of the first difference of two texts as `{:?}` makes them, with what each has there.
fn first_difference(before: &str, now: &str) -> String {
    let same = before.bytes().zip(now.bytes()).take_while(|(a, b)| a == b).count();
    // From the beginning of the field or the word that differs.
    let start = before[..before.floor_char_boundary(same)].rfind([',', '{', '[']).map_or(0, |at| at + 1);
    let part = |text: &str| -> String {
        let rest = text.get(start..).unwrap_or_default().trim_start();
        let part = rest.split(',').next().unwrap_or_default().trim_end_matches(['}', ']', ' ']);
        part.chars().take(80).collect()
    };
    format!("`{}` where this one has `{}`", part(before), part(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told_with_its_field() {
        let [before, now] = ["12", "8"].map(|sequences| {
            format!("seed 3 Recipe {{ steps: 5, sequences: {sequences}, optimizer: O {{ clip: 1.0 }} }}")
        });
        assert_eq!(first_difference(&before, &now), "`sequences: 12` where this one has `sequences: 8`");
        assert_eq!(first_difference("a", "a, b"), "`a` where this one has `a`");
        assert_eq!(first_difference("", "ä"), "`` where this one has `ä`");
    }
}

//! `[exits]`: the heads by which a model can be left early.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::optimizer::OptimizerSettings;
use super::schedule::Schedule;

/// The exits that a model gets, and their training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitsRecipe {
    /// Layers that run before each exit, rising, from 1 to one less than the model has.
    pub depths: Vec<usize>,
    /// The rank of each head's residual.
    #[serde(default = "default::rank")]
    pub rank: usize,
    /// The model, if it is not the recipe's own target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// Rows whose activations are kept to learn from; each takes four bytes for every value of every exit's state and of the
    /// last. A row is a token of an answer, or of plain text, that is to be predicted.
    #[serde(default = "default::rows")]
    pub rows: usize,
    /// The most rows of held-out text to measure on: half of them for the temperatures, half for the report.
    #[serde(default = "default::held_out")]
    pub held_out: usize,
    /// Sequences that the model computes together.
    #[serde(default = "default::sequences")]
    pub sequences: usize,
    /// Tokens of such a sequence.
    #[serde(default = "default::length")]
    pub length: usize,
    /// Steps of the optimizer.
    #[serde(default = "default::steps")]
    pub steps: u64,
    /// Rows of a step.
    #[serde(default = "default::batch")]
    pub batch: usize,
    /// The divisor of the logits of model and head where they are compared.
    #[serde(default = "default::temperature")]
    pub temperature: f32,
    /// The weight of `1 - cos` of a head's state and the model's last, beside the divergence of the distributions. (Between
    /// depths there are no weights: heads share no parameter.)
    #[serde(default = "default::alignment")]
    pub alignment: f32,
    /// The learning rate.
    #[serde(default)]
    pub schedule: Schedule,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: OptimizerSettings,
    /// Steps between two checkpoints, and between two measurements on held-out rows.
    #[serde(default = "default::save_every")]
    pub save_every: u64,
}

mod default {
    pub(super) fn rank() -> usize {
        32
    }
    pub(super) fn rows() -> usize {
        200_000
    }
    pub(super) fn held_out() -> usize {
        16_384
    }
    pub(super) fn sequences() -> usize {
        4
    }
    pub(super) fn length() -> usize {
        512
    }
    pub(super) fn steps() -> u64 {
        2000
    }
    pub(super) fn batch() -> usize {
        512
    }
    pub(super) fn temperature() -> f32 {
        1.0
    }
    pub(super) fn alignment() -> f32 {
        0.1
    }
    pub(super) fn save_every() -> u64 {
        200
    }
}

impl ExitsRecipe {
    /// Checks what serde cannot; depths only where the model's layers are known.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub fn check(&self, layers: Option<usize>) -> Result<(), String> {
        let rising = self.depths.windows(2).all(|pair| pair[0] < pair[1]);
        if self.depths.is_empty() || self.depths.first() == Some(&0) || !rising {
            return Err("`depths` of [exits] must be numbers of layers that rise, from 1 on".to_owned());
        }
        if let (Some(layers), Some(last)) = (layers, self.depths.last().filter(|last| Some(**last) >= layers)) {
            return Err(format!(
                "`depths` of [exits] has {last}, but the model has {layers} layers, and the deepest exit is after {}",
                layers - 1
            ));
        }
        let sizes = [
            ("rank", self.rank),
            ("sequences", self.sequences),
            ("length", self.length),
            ("batch", self.batch),
            ("rows", self.rows),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("`{key}` of [exits] must be above zero"));
        }
        self.schedule.check("exits")?;
        self.optimizer.check("exits")?;
        if self.optimizer.muon.is_some() {
            return Err("`optimizer.muon` is for matrices inside of layers; leave it out of [exits]".to_owned());
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err("`temperature` of [exits] must be a number above 0".to_owned());
        }
        if !(self.alignment.is_finite() && self.alignment >= 0.0) {
            return Err("`alignment` of [exits] must be a number from 0 on".to_owned());
        }
        if self.held_out < 2 { Err("`held_out` of [exits] must be at least 2".to_owned()) } else { Ok(()) }
    }
}

//! `[drafts.NAME]`: a draft model that is distilled from the target.

use serde::{Deserialize, Serialize};

use super::model::ModelRecipe;

/// A draft model: its shape, and the examples that the target teaches it with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftRecipe {
    /// Tasks among those to train on that the target answers for it.
    #[serde(default)]
    pub answers: usize,
    /// Texts of the recipe that the target goes on with for it.
    #[serde(default)]
    pub continuations: usize,
    /// The share of the continued texts in what is learned, from 0 to 1.
    #[serde(default = "a_tenth")]
    pub continuations_weight: f64,
    /// The share of the recipe's own data in what is learned, from 0 to 1: much more of it can be had than of answers, since
    /// the target only says its distributions over it.
    #[serde(default)]
    pub data_weight: f64,
    /// The most tokens that the target answers.
    #[serde(default = "longest_answer")]
    pub longest_answer: usize,
    /// Tasks among those held out that the target answers, to measure the agreement with it.
    #[serde(default = "held_out")]
    pub held_out: usize,
    /// The divisor of both models' logits, before their distributions are compared.
    #[serde(default = "one")]
    pub temperature: f32,
    /// The share of the loss that is that of the target's tokens, from 0 to 1; the rest is that of its distributions.
    #[serde(default)]
    pub hard_labels: f32,
    /// Its shape and its training.
    pub model: ModelRecipe,
}

fn a_tenth() -> f64 {
    0.1
}

fn longest_answer() -> usize {
    256
}

fn held_out() -> usize {
    200
}

fn one() -> f32 {
    1.0
}

impl DraftRecipe {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The rest of a sentence, for the section `name`. `tasks` and `texts` say what there is to train on.
    pub fn check(&self, name: &str, tasks: usize, texts: usize) -> Result<(), String> {
        if self.answers == 0 && self.continuations == 0 && self.data_weight == 0.0 {
            let hint = "give it `answers`, `continuations` of texts, or a `data_weight`";
            return Err(format!("[{name}] has nothing to learn from: {hint}"));
        }
        if self.answers > tasks {
            let (answers, hint) = (self.answers, "raise `train` of [data.tasks], or lower it");
            return Err(format!("`answers` of [{name}] is {answers}, and there are {tasks} tasks to train on; {hint}"));
        }
        if self.continuations > 0 && texts == 0 {
            return Err(format!("`continuations` of [{name}] needs texts: add [[data.text]], or leave it out"));
        }
        if !(0.0..=1.0).contains(&self.data_weight) {
            return Err(format!("`data_weight` of [{name}] must be a number from 0 to 1"));
        }
        if !(self.continuations_weight > 0.0 && self.continuations_weight < 1.0) {
            return Err(format!("`continuations_weight` of [{name}] must lie between 0 and 1"));
        }
        if self.longest_answer == 0 {
            return Err(format!("`longest_answer` of [{name}] must be above zero"));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!("`temperature` of [{name}] must be a number above 0"));
        }
        if !(0.0..=1.0).contains(&self.hard_labels) {
            return Err(format!("`hard_labels` of [{name}] must lie between 0 and 1"));
        }
        self.model.check(&format!("{name}.model"))
    }
}

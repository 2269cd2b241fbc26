//! The settings of the optimizer.

use serde::{Deserialize, Serialize};

/// The settings of AdamW and Muon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// The share of the running mean of gradients that a step keeps.
    pub beta_1: f32,
    /// The share of the running mean of their squares that a step keeps.
    pub beta_2: f32,
    /// The number that is added to the root of the latter.
    pub epsilon: f32,
    /// Decay of matrices per step, in units of the learning rate; vectors do not decay.
    pub weight_decay: f32,
    /// The largest norm of the whole gradient; a longer one is shortened to it.
    pub clip: f64,
    /// The momentum of Muon: where it is given, Muon moves matrices inside of layers, and AdamW the rest. Its products are
    /// in bf16, so what a training computes then depends on whether the processor has instructions for that.
    pub muon: Option<f32>,
}

impl OptimizerSettings {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The rest of a sentence, for the section `name`.
    pub fn check(&self, name: &str) -> Result<(), String> {
        let shares = [("beta_1", Some(self.beta_1)), ("beta_2", Some(self.beta_2)), ("muon", self.muon)];
        let is_share = |value: &f32| (0.0..1.0).contains(value);
        if let Some((key, _)) = shares.iter().find(|(_, value)| !value.as_ref().is_none_or(is_share)) {
            return Err(format!(
                "`optimizer.{key}` of [{name}] must be a number from 0 up to 1, which it does not reach"
            ));
        }
        let positive = [("epsilon", f64::from(self.epsilon)), ("clip", self.clip)];
        if let Some((key, _)) = positive.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            return Err(format!("`optimizer.{key}` of [{name}] must be a number above 0"));
        }
        match self.weight_decay.is_finite() && self.weight_decay >= 0.0 {
            true => Ok(()),
            false => Err(format!("`optimizer.weight_decay` of [{name}] must be a number from 0 on")),
        }
    }
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip: 1.0, muon: None }
    }
}

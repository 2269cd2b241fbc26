//! Training for early exits along with the rest of a model.

use serde::{Deserialize, Serialize};

/// LayerSkip's training (Elhoushi et al. 2024): upper layers are left out now and then, and the model's own output is
/// asked of lower layers too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyExits {
    /// The share of steps in which the last layer is left out; lower ones are less often, the first never.
    pub dropout: f64,
    /// The weight of an exit's loss, where the last layer's is 1. One exit takes part in a step, in turns.
    pub loss: f64,
    /// The layers whose output takes part; none stands for all but the last.
    #[serde(default)]
    pub depths: Vec<usize>,
}

impl EarlyExits {
    /// Checks what serde cannot, in a model of `layers`. An error is the rest of a sentence.
    pub(super) fn check(&self, section: &str, layers: usize) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.dropout) || self.loss.is_nan() || self.loss < 0.0 {
            return Err(format!("`early_exits` of [{section}] needs a `dropout` from 0 to 1 and a `loss` from 0 on"));
        }
        if let Some(depth) = self.depths.iter().find(|depth| !(1..layers).contains(*depth)) {
            return Err(format!(
                "`early_exits.depths` of [{section}] has {depth}, where only 1 to {} can be",
                layers - 1
            ));
        }
        Ok(())
    }
}

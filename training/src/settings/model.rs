//! A model in a recipe: its shape, with its training.

use paceline::checkpoint::{Family, LayerSpec, LayerSpecs, ModelConfig, Rope};
use serde::{Deserialize, Serialize};

use super::training::TrainingRecipe;

/// A model: its shape and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Inner width of the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; as many as query heads if nothing is said.
    pub kv_heads: Option<usize>,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// Its training.
    #[serde(default)]
    pub training: TrainingRecipe,
}

fn rope_theta() -> f64 {
    10_000.0
}

impl ModelRecipe {
    /// The config of a model of this shape with `vocab_size` tokens, none of them special, and a context of `context`.
    pub fn shape(&self, vocab_size: usize, context: usize) -> ModelConfig {
        let head_dim = self.hidden / self.heads;
        let kv_heads = self.kv_heads.unwrap_or(self.heads);
        let layer = LayerSpec::llama(self.hidden, self.intermediate, self.heads, kv_heads, head_dim);
        let rope = Rope::plain(self.rope_theta);
        let specs = LayerSpecs::alike(layer);
        ModelConfig {
            tied_embeddings: true,
            ..ModelConfig::new(Family::Llama, vocab_size, self.layers, specs, rope, context)
        }
    }

    /// The smallest model that has everything, for tests.
    #[cfg(test)]
    pub fn smallest(layers: usize) -> Self {
        Self {
            layers,
            hidden: 16,
            intermediate: 24,
            heads: 2,
            kv_heads: None,
            rope_theta: 100.0,
            training: TrainingRecipe::default(),
        }
    }

    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The rest of a sentence, for the section `name`.
    pub fn check(&self, name: &str) -> Result<(), String> {
        let sizes = [
            ("layers", self.layers),
            ("hidden", self.hidden),
            ("intermediate", self.intermediate),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads.unwrap_or(1)),
            ("training.sequences", self.training.sequences),
            ("training.length", self.training.length),
            ("training.accumulate", self.training.accumulate),
            ("training.steps", usize::try_from(self.training.steps).unwrap_or(usize::MAX)),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("`{key}` of [{name}] must be above zero"));
        }
        if !self.hidden.is_multiple_of(2 * self.heads) {
            let reason =
                format!("{} of [{name}] cannot be cut into {} heads of an even width", self.hidden, self.heads);
            return Err(format!("`hidden` = {reason}"));
        }
        if !self.heads.is_multiple_of(self.kv_heads.unwrap_or(self.heads)) {
            return Err(format!("`kv_heads` of [{name}] must divide its `heads`"));
        }
        self.training.check(name, self.layers)
    }
}

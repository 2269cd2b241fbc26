//! A hash by which a model is told from another.

use super::{Checkpoint, LayerSpec, ModelConfig};
use crate::checksum::Checksum;

impl Checkpoint {
    /// A hash of everything that decides what the model computes: its sizes and settings, and names, formats and values of
    /// all tensors, however they are spread over files. The first call reads
    /// all weights. It resists accidents, not attacks.
    pub fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| self.hash())
    }

    fn hash(&self) -> u64 {
        let mut hash = Checksum::default();
        let config = self.config();
        let sizes = [config.layers, config.heads, config.kv_heads, config.head_dim, config.vocab_size];
        hash.text(&format!("{} {sizes:?} {} {:?} {:?}", config.family, config.norm_eps, config.rope, config.windows));
        // Shipped routers, exits and certificates know their models by this line. Beyond it, only what it cannot say is added.
        if !is_told_by_sizes(config) {
            hash.text(&format!("{:?}", config.specs));
        }
        let mut tensors: Vec<_> = self.tensors().collect();
        tensors.sort_unstable_by_key(|(name, _)| *name);
        for (name, tensor) in tensors {
            hash.text(name);
            hash.text(&format!("{} {:?}", tensor.format, tensor.shape));
            // Within the file, as was checked when it was opened.
            hash.update(tensor.file.get(tensor.bytes.clone()).unwrap_or_default());
            tensor.file.release(tensor.bytes.clone());
        }
        hash.finish()
    }
}

/// True if the model's sizes, its windows as they are worded, and the names and shapes of its tensors say all of its layers.
pub(super) fn is_told_by_sizes(config: &ModelConfig) -> bool {
    let ModelConfig { heads, kv_heads, head_dim, norm_eps, .. } = *config;
    let score_factor = LayerSpec::usual_score_factor(head_dim);
    let told = LayerSpec { heads, kv_heads, head_dim, norm_eps, score_factor, ..config.layer(0).clone() };
    config.specs == config.windows.layers(&told)
}

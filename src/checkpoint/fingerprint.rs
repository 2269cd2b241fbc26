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
        let outer =
            [config.embedding_factor, config.logit_divisor, config.logit_cap.unwrap_or(0.0), config.norm_offset];
        if outer != [1.0, 1.0, 0.0, 0.0] {
            hash.text(&format!("{outer:?}"));
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
    let LayerSpec { hidden_size, intermediate_size, qkv_bias, output_bias, mlp_bias, qk_norm, post_norms, .. } =
        *config.layer(0);
    let told = LayerSpec {
        norm_eps,
        qkv_bias,
        output_bias,
        mlp_bias,
        qk_norm,
        post_norms,
        ..LayerSpec::llama(hidden_size, intermediate_size, heads, kv_heads, head_dim)
    };
    config.specs == config.windows.layers(&told)
}

//! Tensors that a configuration implies: their names as in Hugging Face files, and their shapes.

use super::config::ModelConfig;
use super::layer_spec::LayerSpec;

/// The embedding, `[vocab_size, hidden_size]`.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The output matrix, `[vocab_size, hidden_size]`; with tied embeddings it is the embedding.
pub(crate) const OUTPUT: &str = "lm_head.weight";

/// The norm after the last layer, `[hidden_size]`.
pub const FINAL_NORM: &str = "model.norm.weight";

/// Name and shape of the tensors outside of the layers, the embedding and the output matrix excepted.
pub(crate) fn outer_tensors(config: &ModelConfig) -> Vec<(&'static str, Vec<usize>)> {
    vec![(FINAL_NORM, vec![config.hidden_size])]
}

/// The norm between attention's residual sum and the MLP: with norms on the outputs of both, the one before has another name.
pub(crate) fn mlp_norm(spec: &LayerSpec) -> &'static str {
    if spec.post_norms { "pre_feedforward_layernorm" } else { "post_attention_layernorm" }
}

/// Name within its layer (after `model.layers.N.`) and shape of every tensor of a layer.
pub(crate) fn layer_tensors(spec: &LayerSpec) -> Vec<(&'static str, Vec<usize>)> {
    let (hidden, inner) = (spec.hidden_size, spec.intermediate_size);
    let (queries, keys) = (spec.query_width(), spec.key_width());
    let mut tensors = vec![
        ("input_layernorm.weight", vec![hidden]),
        ("self_attn.q_proj.weight", vec![queries, hidden]),
        ("self_attn.k_proj.weight", vec![keys, hidden]),
        ("self_attn.v_proj.weight", vec![keys, hidden]),
        ("self_attn.o_proj.weight", vec![hidden, queries]),
        ("post_attention_layernorm.weight", vec![hidden]),
        ("mlp.gate_proj.weight", vec![inner, hidden]),
        ("mlp.up_proj.weight", vec![inner, hidden]),
        ("mlp.down_proj.weight", vec![hidden, inner]),
    ];
    if spec.qkv_bias {
        tensors.push(("self_attn.q_proj.bias", vec![queries]));
        tensors.push(("self_attn.k_proj.bias", vec![keys]));
        tensors.push(("self_attn.v_proj.bias", vec![keys]));
    }
    if spec.output_bias {
        tensors.push(("self_attn.o_proj.bias", vec![hidden]));
    }
    if spec.mlp_bias {
        tensors.push(("mlp.gate_proj.bias", vec![inner]));
        tensors.push(("mlp.up_proj.bias", vec![inner]));
        tensors.push(("mlp.down_proj.bias", vec![hidden]));
    }
    if spec.qk_norm {
        tensors.push(("self_attn.q_norm.weight", vec![spec.head_dim]));
        tensors.push(("self_attn.k_norm.weight", vec![spec.head_dim]));
    }
    if spec.post_norms {
        tensors.push(("pre_feedforward_layernorm.weight", vec![hidden]));
        tensors.push(("post_feedforward_layernorm.weight", vec![hidden]));
    }
    tensors
}

/// A matrix that files of some families hold as one, with the matrices whose rows it has one after the other.
pub(crate) struct Fused {
    /// Its name within a layer.
    pub(crate) name: &'static str,
    /// Those of its parts.
    pub(crate) parts: &'static [&'static str],
}

/// The fused matrices of a layer.
pub(crate) const FUSED: [Fused; 2] = [
    Fused {
        name: "self_attn.qkv_proj.weight",
        parts: &["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"],
    },
    Fused { name: "mlp.gate_up_proj.weight", parts: &["mlp.gate_proj.weight", "mlp.up_proj.weight"] },
];

/// The full name of a layer's tensor.
pub(crate) fn layer_name(layer: usize, tensor: &str) -> String {
    format!("model.layers.{layer}.{tensor}")
}

/// Name and shape of every tensor of a model, a tied matrix once.
pub fn tensors_of(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let matrix = vec![config.vocab_size, config.hidden_size];
    let mut tensors = vec![(EMBEDDING.to_owned(), matrix.clone())];
    if !config.tied_embeddings {
        tensors.push((OUTPUT.to_owned(), matrix));
    }
    tensors.extend(outer_tensors(config).into_iter().map(|(name, shape)| (name.to_owned(), shape)));
    for layer in 0..config.layers {
        let of_layer = layer_tensors(config.layer(layer));
        tensors.extend(of_layer.into_iter().map(|(name, shape)| (layer_name(layer, name), shape)));
    }
    tensors
}

/// True if a tensor is a buffer that old versions of transformers stored although it follows from the configuration.
pub(crate) fn is_stored_buffer(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

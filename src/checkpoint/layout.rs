//! Which tensors a configuration implies, by the names of Hugging Face files, and with which shapes.

use super::config::ModelConfig;

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

/// Name within its layer (after `model.layers.N.`) and shape of every tensor of a layer.
pub(crate) fn layer_tensors(config: &ModelConfig) -> Vec<(&'static str, Vec<usize>)> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
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
    if config.qkv_bias {
        tensors.push(("self_attn.q_proj.bias", vec![queries]));
        tensors.push(("self_attn.k_proj.bias", vec![keys]));
        tensors.push(("self_attn.v_proj.bias", vec![keys]));
    }
    if config.output_bias {
        tensors.push(("self_attn.o_proj.bias", vec![hidden]));
    }
    if config.mlp_bias {
        tensors.push(("mlp.gate_proj.bias", vec![inner]));
        tensors.push(("mlp.up_proj.bias", vec![inner]));
        tensors.push(("mlp.down_proj.bias", vec![hidden]));
    }
    if config.qk_norm {
        tensors.push(("self_attn.q_norm.weight", vec![config.head_dim]));
        tensors.push(("self_attn.k_norm.weight", vec![config.head_dim]));
    }
    tensors
}

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
    let of_layer = layer_tensors(config);
    for layer in 0..config.layers {
        tensors.extend(of_layer.iter().map(|(name, shape)| (layer_name(layer, name), shape.clone())));
    }
    tensors
}

/// True if a tensor is a buffer that old versions of transformers stored although it follows from the configuration.
pub(crate) fn is_stored_buffer(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

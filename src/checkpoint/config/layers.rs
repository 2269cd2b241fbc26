//! The layers of `config.json`: one by the family's rules, then those that differ from it.

use paceline_kernels::Activation;

use super::family::Rules;
use super::windows::rotated_layers;
use crate::checkpoint::error::CheckpointError;
use crate::checkpoint::keys::Keys;
use crate::checkpoint::layer_spec::{LayerSpec, LayerSpecs};
use crate::checkpoint::rope::Rope;
use crate::visible::shown;

/// A layer by the rules of its family, but for its window and what is its own in its rotation.
pub(super) fn layer(keys: &Keys<'_>, rules: &Rules) -> Result<LayerSpec, CheckpointError> {
    let hidden_size = keys.required_size("hidden_size")?;
    let heads = keys.required_size("num_attention_heads")?;
    let head_dim = head_dim(keys, rules, hidden_size, heads)?;
    let kv_heads = kv_heads(keys, rules, heads)?;
    let attention_bias = rules.attention_bias && keys.flag("attention_bias")?.unwrap_or(false);
    let factor = |key: &str| if rules.has_multipliers { keys.positive(key) } else { Ok(None) };
    let score_factor = match rules.has_score_width {
        true => keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5) as f32,
        false if rules.has_multipliers => factor("attention_multiplier")?.unwrap_or(1.0) as f32,
        false => LayerSpec::usual_score_factor(head_dim),
    };
    Ok(LayerSpec {
        norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(rules.norm_eps) as f32,
        qkv_bias: attention_bias || rules.qkv_bias,
        output_bias: attention_bias,
        mlp_bias: rules.mlp_bias && keys.flag("mlp_bias")?.unwrap_or(false),
        qk_norm: rules.qk_norm,
        score_factor,
        score_cap: match rules.score_cap {
            Some(default) => cap(keys, "attn_logit_softcapping", Some(default))?,
            None => None,
        },
        activation: activation(keys, rules)?,
        post_norms: rules.post_norms,
        residual_factor: factor("residual_multiplier")?.unwrap_or(1.0) as f32,
        ..LayerSpec::llama(hidden_size, keys.required_size("intermediate_size")?, heads, kv_heads, head_dim)
    })
}

/// The layers with what the family says of each one's rotation: `near` is that of layers with a window.
pub(super) fn by_kind(
    keys: &Keys<'_>,
    rules: &Rules,
    specs: LayerSpecs,
    layers: usize,
    near: Option<Rope>,
) -> Result<LayerSpecs, CheckpointError> {
    if rules.skips_rotations {
        return Ok(specs.rotated_where(&rotated_layers(keys, layers)?));
    }
    Ok(match near {
        Some(near) => specs.with_near_rope(&near),
        None => specs,
    })
}

/// A cap that a key gives; null is none.
pub(super) fn cap(keys: &Keys<'_>, key: &str, default: Option<f64>) -> Result<Option<f32>, CheckpointError> {
    let cap = if keys.has(key) { keys.positive(key)? } else { default };
    Ok(cap.map(|cap| cap as f32))
}

fn activation(keys: &Keys<'_>, rules: &Rules) -> Result<Activation, CheckpointError> {
    let (key, default) = rules.activation;
    match keys.text(key)?.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        // One function, in two implementations.
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        other => {
            let other = shown(other);
            Err(keys.error(key, format!("is \"{other}\", which is not supported; silu and gelu_pytorch_tanh are")))
        }
    }
}

fn kv_heads(keys: &Keys<'_>, rules: &Rules, heads: usize) -> Result<usize, CheckpointError> {
    let kv_heads = match (keys.size("num_key_value_heads")?, rules.kv_heads) {
        (Some(kv_heads), _) => kv_heads,
        (None, Some(default)) if !keys.has("num_key_value_heads") => default,
        (None, _) => heads,
    };
    if !heads.is_multiple_of(kv_heads) {
        let reason = format!("is {kv_heads}, which does not divide the {heads} of num_attention_heads");
        return Err(keys.error("num_key_value_heads", reason));
    }
    Ok(kv_heads)
}

fn head_dim(keys: &Keys<'_>, rules: &Rules, hidden: usize, heads: usize) -> Result<usize, CheckpointError> {
    let head_dim = match (keys.size("head_dim")?, rules.head_dim) {
        (Some(head_dim), _) | (None, Some(head_dim)) => head_dim,
        (None, None) if !hidden.is_multiple_of(heads) => {
            let reason = format!("is {hidden}, which the {heads} of num_attention_heads do not divide");
            return Err(keys.error("hidden_size", reason));
        }
        (None, None) => hidden / heads,
    };
    if !head_dim.is_multiple_of(2) {
        return Err(keys.error("head_dim", format!("is {head_dim}, but rotation needs pairs: it must be even")));
    }
    Ok(head_dim)
}

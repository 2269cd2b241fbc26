//! Every key of `config.json` that transformers reads for a supported family, and what becomes of it here.
//!
//! Reading a configuration goes by this table: [`check`] refuses what it says is refused, a test holds that exactly the
//! honoured keys are read, and `docs/config-keys.md` is written from it. A key that is not in it is read by nobody, neither
//! here nor by transformers, and ignored.

use serde_json::Value;

use super::config::Family;
use super::error::CheckpointError;
use super::keys::Keys;
use crate::visible::shown;

/// A key of `config.json` for some families.
pub(super) struct ConfigKey {
    /// Its name, with `rope_parameters.` before those of that object (which old files call `rope_scaling`).
    pub(super) name: &'static str,
    pub(super) families: &'static [Family],
    pub(super) rule: Rule,
    /// Its consequence, for the page.
    pub(super) note: &'static str,
}

/// Treatment of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The model is computed as it says; null is as if it were absent.
    Honoured,
    /// As `Honoured`, and null is refused, as transformers refuses it.
    NeverNull,
    /// Compared with other keys: what does not contradict them is accepted, the rest refused.
    Checked,
    /// Refused, except for these values, which change nothing.
    Neutral(&'static [Plain], &'static str),
    /// Read by transformers, and without an effect on the tokens.
    Irrelevant,
}

/// A JSON value that changes nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Null,
    False,
    True,
    One,
    EmptyObject,
}

impl Plain {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::False => value == &Value::Bool(false),
            Self::True => value == &Value::Bool(true),
            Self::One => value.as_f64() == Some(1.0),
            Self::EmptyObject => value.as_object().is_some_and(serde_json::Map::is_empty),
        }
    }

    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::False => "false",
            Self::True => "true",
            Self::One => "1",
            Self::EmptyObject => "{}",
        }
    }
}

use Family::{Gemma2, Gemma3, Granite, Llama, Mistral, Phi3, Qwen2, Qwen3, SmolLm3};
use Plain::{EmptyObject, False, Null, One, True};
use Rule::{Checked, Honoured, Irrelevant, Neutral, NeverNull};

const ALL: &[Family] = &[Llama, Mistral, Qwen2, Qwen3, Gemma2, Gemma3, Phi3, SmolLm3, Granite];
const QWEN: &[Family] = &[Qwen2, Qwen3];
const GEMMA: &[Family] = &[Gemma2, Gemma3];
/// Those whose layers share one rotation.
const ONE_ROTATION: &[Family] = &[Llama, Mistral, Qwen2, Qwen3, Gemma2, Phi3, SmolLm3, Granite];
const NOT_GEMMA: &[Family] = &[Llama, Mistral, Qwen2, Qwen3, Phi3, SmolLm3, Granite];
const NOT_PHI: &[Family] = &[Llama, Mistral, Qwen2, Qwen3, Gemma2, Gemma3, SmolLm3, Granite];

const fn key(name: &'static str, families: &'static [Family], rule: Rule, note: &'static str) -> ConfigKey {
    ConfigKey { name, families, rule, note }
}

/// The keys, those that describe the model first.
pub(super) const KEYS: &[ConfigKey] = &[
    key("model_type", ALL, NeverNull, "the family"),
    key("architectures", ALL, Checked, "must name the family's causal language model, or nothing"),
    key("vocab_size", ALL, NeverNull, "rows of the embedding; needed"),
    key("hidden_size", ALL, NeverNull, "needed"),
    key("intermediate_size", ALL, NeverNull, "needed"),
    key("num_hidden_layers", ALL, NeverNull, "needed; at least 1"),
    key("num_attention_heads", ALL, NeverNull, "needed"),
    key("num_key_value_heads", &[Llama, Phi3, Granite], Honoured, "without it num_attention_heads"),
    key("num_key_value_heads", &[Mistral], NeverNull, "without it 8"),
    key("num_key_value_heads", QWEN, Honoured, "without it 32; null is num_attention_heads"),
    key("num_key_value_heads", &[SmolLm3], Honoured, "without it 4; null is num_attention_heads"),
    key("num_key_value_heads", GEMMA, NeverNull, "without it 4"),
    key("head_dim", &[Llama, Mistral], Honoured, "without it hidden_size / num_attention_heads; must be even"),
    key(
        "head_dim",
        &[Qwen2, Phi3, SmolLm3, Granite],
        NeverNull,
        "without it hidden_size / num_attention_heads; must be even",
    ),
    key("head_dim", &[Qwen3], NeverNull, "without it 128; must be even"),
    key("head_dim", GEMMA, NeverNull, "without it 256; must be even"),
    key(
        "hidden_act",
        NOT_GEMMA,
        NeverNull,
        "silu or swish, gelu_pytorch_tanh or gelu_new, two names each for one function; others are refused",
    ),
    key("hidden_act", GEMMA, Irrelevant, "not read for these families"),
    key("hidden_activation", GEMMA, NeverNull, "as hidden_act of the others; without it gelu_pytorch_tanh"),
    key("rms_norm_eps", NOT_PHI, NeverNull, "without it 1e-6; must be above zero"),
    key("rms_norm_eps", &[Phi3], NeverNull, "without it 1e-5; must be above zero"),
    key("max_position_embeddings", ALL, NeverNull, "the context; needed"),
    key(
        "tie_word_embeddings",
        &[Llama, Mistral, Qwen2, Qwen3, Phi3, Granite],
        NeverNull,
        "without it false; where the file holds another output matrix, that one is used",
    ),
    key(
        "tie_word_embeddings",
        &[Gemma2, Gemma3, SmolLm3],
        NeverNull,
        "without it true; where the file holds another output matrix, that one is used",
    ),
    key("attention_bias", &[Llama, Qwen3, Gemma2, Gemma3, SmolLm3, Granite], NeverNull, "without it false"),
    key("attention_bias", &[Mistral, Qwen2, Phi3], Irrelevant, "these families fix their biases"),
    key("mlp_bias", &[Llama, SmolLm3, Granite], NeverNull, "without it false"),
    key("mlp_bias", &[Mistral, Qwen2, Qwen3, Gemma2, Gemma3, Phi3], Irrelevant, "these families have none"),
    key("query_pre_attn_scalar", GEMMA, NeverNull, "scores are divided by its root; without it 256"),
    key("attn_logit_softcapping", &[Gemma2], Honoured, "the cap of scores; without it 50, null is none"),
    key("attn_logit_softcapping", &[Gemma3], Neutral(&[Null], "a cap of scores, for this family, is"), ""),
    key("final_logit_softcapping", &[Gemma2], Honoured, "the cap of logits; without it 30, null is none"),
    key("final_logit_softcapping", &[Gemma3], Honoured, "the cap of logits; without it none"),
    key("embedding_multiplier", &[Granite], NeverNull, "without it 1; must be above zero"),
    key("attention_multiplier", &[Granite], NeverNull, "the factor of scores; without it 1"),
    key("residual_multiplier", &[Granite], NeverNull, "without it 1; must be above zero"),
    key("logits_scaling", &[Granite], NeverNull, "the divisor of logits; without it 1"),
    key("no_rope_layers", &[SmolLm3], Honoured, "1 for layers that are rotated, 0 for the others"),
    key(
        "no_rope_layer_interval",
        &[SmolLm3],
        NeverNull,
        "without it 4; without no_rope_layers, the last of so many layers is not rotated",
    ),
    key(
        "rope_theta",
        &[Llama, Mistral, Qwen2, Qwen3, Gemma2, Phi3, Granite],
        Honoured,
        "without it 10000; the one of rope_parameters goes before it",
    ),
    key("rope_theta", &[SmolLm3], Honoured, "without it 2000000; the one of rope_parameters goes before it"),
    key(
        "rope_theta",
        &[Gemma3],
        Honoured,
        "of layers without a window; without it 1000000; the one of rope_parameters goes before it",
    ),
    key(
        "rope_local_base_freq",
        &[Gemma3],
        Honoured,
        "of layers with a window; without it 10000; the one of rope_parameters goes before it",
    ),
    key("rope_scaling", ONE_ROTATION, Honoured, "old name of rope_parameters; goes before it unless empty"),
    key("rope_scaling", &[Gemma3], Honoured, "old place of rope_parameters.full_attention; one of both may be there"),
    key("rope_parameters", ONE_ROTATION, Honoured, "the rotation; one for all layers"),
    key(
        "rope_parameters",
        &[Gemma3],
        Honoured,
        "full_attention and sliding_attention: a rotation for each kind of layer",
    ),
    key(
        "rope_parameters.rope_type",
        NOT_PHI,
        NeverNull,
        "default, linear, dynamic (the context is that without it), yarn, longrope (a text that outgrows the original context is read again, as transformers does for phi3; not for gemma3) or llama3; others are refused",
    ),
    key(
        "rope_parameters.rope_type",
        &[Phi3],
        NeverNull,
        "default or longrope (a text that outgrows the original context is read again; su and yarn are old names of it); others are refused",
    ),
    key("rope_parameters.type", ALL, NeverNull, "old name of rope_type, which goes before it"),
    key("rope_parameters.rope_theta", ALL, NeverNull, "base of the frequencies"),
    key("rope_parameters.factor", NOT_PHI, NeverNull, "needed for linear, dynamic, yarn and llama3"),
    key("rope_parameters.factor", &[Phi3], NeverNull, "for longrope; without it the context by the original one"),
    key("rope_parameters.low_freq_factor", NOT_PHI, NeverNull, "needed for llama3"),
    key("rope_parameters.high_freq_factor", NOT_PHI, NeverNull, "needed for llama3; above low_freq_factor"),
    key(
        "rope_parameters.original_max_position_embeddings",
        ALL,
        NeverNull,
        "for llama3, yarn and longrope; without it max_position_embeddings",
    ),
    key("rope_parameters.attention_factor", NOT_PHI, Honoured, "for yarn and longrope; without it by the factor"),
    key("rope_parameters.attention_factor", &[Phi3], Honoured, "for longrope; without it by the factor"),
    key("rope_parameters.beta_fast", NOT_PHI, Honoured, "for yarn; without it 32"),
    key("rope_parameters.beta_slow", NOT_PHI, Honoured, "for yarn; without it 1"),
    key(
        "rope_parameters.mscale",
        NOT_PHI,
        Honoured,
        "for yarn, with mscale_all_dim, where there is no attention_factor",
    ),
    key("rope_parameters.mscale_all_dim", NOT_PHI, Honoured, "for yarn, with mscale"),
    key("rope_parameters.truncate", NOT_PHI, NeverNull, "for yarn; without it true"),
    key("rope_parameters.short_factor", ONE_ROTATION, Honoured, "needed for longrope"),
    key(
        "rope_parameters.long_factor",
        ONE_ROTATION,
        Honoured,
        "needed for longrope, for texts beyond the original context",
    ),
    key("rope_parameters.partial_rotary_factor", NOT_PHI, Neutral(&[Null, One], "rotating a part of each head is"), ""),
    key(
        "rope_parameters.partial_rotary_factor",
        &[Phi3],
        Honoured,
        "the part of each head that is rotated; without it 1",
    ),
    key("rope_parameters.full_attention", ONE_ROTATION, Neutral(&[], "a rotation for one kind of layer alone is"), ""),
    key(
        "rope_parameters.sliding_attention",
        ONE_ROTATION,
        Neutral(&[], "a rotation for one kind of layer alone is"),
        "",
    ),
    key("rope_parameters.full_attention", &[Gemma3], Honoured, "of layers without a window"),
    key("rope_parameters.sliding_attention", &[Gemma3], Honoured, "of layers with a window"),
    key(
        "original_max_position_embeddings",
        NOT_PHI,
        Honoured,
        "for llama3, yarn and longrope; must be that of rope_parameters where both are there",
    ),
    key(
        "original_max_position_embeddings",
        &[Phi3],
        Honoured,
        "for longrope; without it 4096; must be that of rope_parameters where both are there",
    ),
    key("partial_rotary_factor", NOT_PHI, Neutral(&[Null, One], "rotating a part of each head is"), ""),
    key("partial_rotary_factor", &[Phi3], Honoured, "the part of each head that is rotated; without it 1"),
    key("sliding_window", &[Mistral], Honoured, "without it 4096; null is no window, 1 is refused"),
    key("sliding_window", QWEN, Honoured, "without it 4096; only with use_sliding_window; 1 is refused"),
    key("sliding_window", &[Phi3], Honoured, "without it none; of all layers; 1 is refused"),
    key("sliding_window", &[SmolLm3], Honoured, "without it none; only with use_sliding_window; 1 is refused"),
    key("sliding_window", GEMMA, NeverNull, "without it 4096; 1 is refused"),
    key(
        "sliding_window_pattern",
        &[Gemma3],
        NeverNull,
        "without it 6; without layer_types, the last of so many layers has no window",
    ),
    key(
        "sliding_window",
        &[Llama, Granite],
        Checked,
        "must not be below max_position_embeddings, unless layer_types has full_attention alone",
    ),
    key("layer_types", QWEN, Honoured, "full_attention or sliding_attention for every layer"),
    key("layer_types", &[Gemma2], Honoured, "as for qwen2; without it each second layer has no window"),
    key("layer_types", &[Gemma3], Honoured, "as for qwen2; without it by sliding_window_pattern"),
    key("layer_types", &[SmolLm3], Honoured, "as for qwen2; without it layers without rotation have the window"),
    key("layer_types", &[Phi3], Checked, "of one kind, as sliding_window says"),
    key("layer_types", &[Llama, Granite], Checked, "full_attention for every layer, which these families have"),
    key("layer_types", &[Mistral], Checked, "sliding_attention for every layer, with a sliding_window"),
    key("use_sliding_window", &[Qwen2, Qwen3, SmolLm3], NeverNull, "without it false"),
    key(
        "use_sliding_window",
        &[Llama, Mistral, Gemma2, Gemma3, Phi3, Granite],
        Irrelevant,
        "not read for these families",
    ),
    key("use_bidirectional_attention", GEMMA, Neutral(&[Null, False], "attention to later tokens is"), ""),
    key(
        "max_window_layers",
        QWEN,
        NeverNull,
        "without it 28; layers from here on have the window, unless layer_types lists them",
    ),
    key(
        "max_window_layers",
        &[Llama, Mistral, Gemma2, Gemma3, Phi3, SmolLm3, Granite],
        Irrelevant,
        "not read for these families",
    ),
    key("attention_chunk_size", &[Llama, Mistral, Phi3, Granite], Neutral(&[Null], "attention in chunks is"), ""),
    key("attention_chunk_size", &[Qwen2, Qwen3, Gemma2, Gemma3, SmolLm3], Irrelevant, "layer_types goes before it"),
    key("is_causal", ALL, Neutral(&[True], "attention to later tokens is"), ""),
    key("is_encoder_decoder", ALL, Neutral(&[False], "an encoder is"), ""),
    key("pretraining_tp", ALL, Irrelevant, "not read any more"),
    key("per_layer_config", ALL, Neutral(&[Null, EmptyObject], "layers of different shapes are"), ""),
    key("kv_sharing_modes", ALL, Neutral(&[Null], "layers that share keys and values are"), ""),
    key("quantization_config", ALL, Neutral(&[Null], "quantized weights are"), "take the unquantized checkpoint"),
    key("fusion_config", ALL, Neutral(&[Null], "fused weights are"), ""),
    key("transformers_weights", ALL, Neutral(&[Null], "weights in a file of another name are"), ""),
    key("attribute_map", ALL, Neutral(&[EmptyObject], "other names for keys are"), ""),
    key("text_config", ALL, Neutral(&[Null], "a model inside of another is"), ""),
    key("decoder", ALL, Neutral(&[Null], "a model inside of another is"), ""),
    key("generator", ALL, Neutral(&[Null], "a model inside of another is"), ""),
    key("auto_map", ALL, Irrelevant, "code of others, which neither transformers nor this runs for these families"),
    key(
        "eos_token_id",
        ALL,
        Honoured,
        "without it 2 for llama, mistral and granite, 1 for gemma2 and gemma3, 32000 for phi3, 128001 for smollm3; that of generation_config.json goes before it",
    ),
    key(
        "bos_token_id",
        ALL,
        Honoured,
        "without it 1 for llama, mistral, phi3 and granite, 2 for gemma2 and gemma3, 128000 for smollm3",
    ),
    key("pad_token_id", ALL, Checked, "must be below vocab_size; its row is an ordinary one"),
    key("dtype", ALL, Irrelevant, "weights are taken as stored, or as `--precision` says"),
    key("torch_dtype", ALL, Irrelevant, "old name of dtype"),
    key("use_cache", ALL, Irrelevant, "a matter of speed"),
    key("attn_implementation", ALL, Irrelevant, "a matter of speed"),
    key("experts_implementation", ALL, Irrelevant, "there are no experts"),
    key("attention_dropout", ALL, Irrelevant, "training"),
    key("resid_pdrop", &[Phi3], Irrelevant, "training"),
    key("embd_pdrop", &[Phi3], Irrelevant, "training"),
    key("initializer_range", ALL, Irrelevant, "training"),
    key("gradient_checkpointing", ALL, Irrelevant, "training"),
    key("distributed_config", ALL, Irrelevant, "training"),
    key("chunk_size_feed_forward", ALL, Irrelevant, "memory"),
    key("output_attentions", ALL, Irrelevant, "what a Python call returns"),
    key("output_hidden_states", ALL, Irrelevant, "what a Python call returns"),
    key("tie_last_hidden_states", ALL, Irrelevant, "what a Python call returns"),
    key("return_dict", ALL, Irrelevant, "what a Python call returns"),
    key("id2label", ALL, Irrelevant, "classifiers"),
    key("label2id", ALL, Irrelevant, "classifiers"),
    key("num_labels", ALL, Irrelevant, "classifiers"),
    key("problem_type", ALL, Irrelevant, "classifiers"),
    key("name_or_path", ALL, Irrelevant, "where it came from"),
    key("transformers_version", ALL, Irrelevant, "who wrote the file"),
];

/// The rows of a family.
pub(super) fn of(family: Family) -> impl Iterator<Item = &'static ConfigKey> {
    KEYS.iter().filter(move |key| key.families.contains(&family))
}

/// Refuses null where it means nothing, and values that are not neutral, of the keys with `prefix` before their names.
pub(super) fn check(keys: &Keys<'_>, family: Family, prefix: &str) -> Result<(), CheckpointError> {
    for key in of(family) {
        let Some(name) = key.name.strip_prefix(prefix).filter(|name| !name.contains('.')) else { continue };
        let Some(value) = keys.raw(name) else { continue };
        match key.rule {
            NeverNull if value.is_null() => {
                return Err(keys.error(name, "is null, which stands for nothing; give it a value"));
            }
            Neutral(neutral, meaning) if !neutral.iter().any(|plain| plain.is(value)) => {
                return Err(keys.error(name, refusal(neutral, meaning, key.note, value)));
            }
            _ => {}
        }
    }
    Ok(())
}

fn refusal(neutral: &[Plain], meaning: &str, advice: &str, value: &Value) -> String {
    let found = match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        plain => shown(&plain.to_string()),
    };
    let advice = if advice.is_empty() { "take another checkpoint" } else { advice };
    let only: Vec<&str> = neutral.iter().map(|plain| plain.shown()).collect();
    let only = if only.is_empty() { String::new() } else { format!(" (only {} is accepted)", only.join(" or ")) };
    format!("is {found}, and {meaning} not supported{only}; {advice}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
#[path = "key_table_tests.rs"]
mod tests;

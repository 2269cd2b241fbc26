//! The families that are read, with what each fixes and what stands for keys that a file leaves out: transformers'
//! configuration classes.

use std::fmt;

use serde::Serialize;

use crate::checkpoint::error::CheckpointError;
use crate::checkpoint::keys::Keys;
use crate::visible::shown;

/// The architectures that are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama 1 to 3.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Qwen 2 and 2.5: Llama with biases on the query, key and value projections.
    Qwen2,
    /// Qwen 3: queries and keys are normalized per head.
    Qwen3,
    /// Gemma 2: norms on both sides of each part, capped scores and logits, a window in each second layer.
    Gemma2,
    /// The text models of Gemma 3: as Gemma 2, with norms on queries and keys in place of caps, and two rotations.
    Gemma3,
    /// Phi 3, 3.5 and 4: matrices that are stored as one, a part of each head rotated.
    Phi3,
    /// SmolLM 3: Llama with layers that are not rotated.
    SmolLm3,
    /// Granite 3: Llama with factors on embeddings, scores, residuals and logits.
    Granite,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
            Self::SmolLm3 => "smollm3",
            Self::Granite => "granite",
        })
    }
}

/// A family's rules.
pub(in crate::checkpoint) struct Rules {
    pub(in crate::checkpoint) family: Family,
    /// Its name in `config.json`.
    pub(in crate::checkpoint) model_type: &'static str,
    /// Key and value heads where the file has no number; as many as query heads where there is none.
    pub(super) kv_heads: Option<usize>,
    /// Width of a head where the file has none; that of the model divided by its heads where there is none.
    pub(super) head_dim: Option<usize>,
    pub(super) norm_eps: f64,
    pub(super) tied_embeddings: bool,
    /// Base of the rotation's frequencies.
    pub(super) theta: f64,
    pub(super) end: Option<u32>,
    pub(super) beginning: Option<u32>,
    /// True if `attention_bias` gives the attention's projections biases.
    pub(super) attention_bias: bool,
    /// True if queries, keys and values have biases whatever the file says.
    pub(super) qkv_bias: bool,
    /// True if `mlp_bias` gives the MLP's projections biases.
    pub(super) mlp_bias: bool,
    pub(super) qk_norm: bool,
    pub(super) post_norms: bool,
    /// The key that names the activation, and what it is without it.
    pub(super) activation: (&'static str, &'static str),
    pub(super) norm_offset: f32,
    /// True if embeddings are multiplied by the square root of their width.
    pub(super) scales_embeddings: bool,
    /// True if the file gives the width that scores are divided by the root of.
    pub(super) has_score_width: bool,
    /// The cap of scores without a key, for families that cap them.
    pub(super) score_cap: Option<f64>,
    /// True if the file may have a cap of logits: then what it is without a key.
    pub(super) has_logit_cap: bool,
    pub(super) logit_cap: Option<f64>,
    /// True if the file has factors of embeddings, scores, residuals and logits.
    pub(super) has_multipliers: bool,
    pub(super) fused_matrices: bool,
    /// True if the file may have the part of each head that is rotated.
    pub(super) partial_rotation: bool,
    /// Positions in pretraining, where the family has a number for files without one.
    pub(super) original_context: Option<usize>,
    /// True if layers with a window have a rotation of their own.
    pub(super) rotates_by_kind: bool,
    /// True if the file may say which layers are not rotated.
    pub(super) skips_rotations: bool,
}

/// Llama, to which the others are compared.
const LLAMA: Rules = Rules {
    family: Family::Llama,
    model_type: "llama",
    kv_heads: None,
    head_dim: None,
    norm_eps: 1e-6,
    tied_embeddings: false,
    theta: 10_000.0,
    end: Some(2),
    beginning: Some(1),
    attention_bias: true,
    qkv_bias: false,
    mlp_bias: true,
    qk_norm: false,
    post_norms: false,
    activation: ("hidden_act", "silu"),
    norm_offset: 0.0,
    scales_embeddings: false,
    has_score_width: false,
    score_cap: None,
    has_logit_cap: false,
    logit_cap: None,
    has_multipliers: false,
    fused_matrices: false,
    partial_rotation: false,
    original_context: None,
    rotates_by_kind: false,
    skips_rotations: false,
};

const GEMMA2: Rules = Rules {
    family: Family::Gemma2,
    model_type: "gemma2",
    kv_heads: Some(4),
    head_dim: Some(256),
    tied_embeddings: true,
    end: Some(1),
    beginning: Some(2),
    mlp_bias: false,
    post_norms: true,
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    norm_offset: 1.0,
    scales_embeddings: true,
    has_score_width: true,
    score_cap: Some(50.0),
    has_logit_cap: true,
    logit_cap: Some(30.0),
    ..LLAMA
};

const QWEN2: Rules = Rules {
    family: Family::Qwen2,
    model_type: "qwen2",
    kv_heads: Some(32),
    end: None,
    beginning: None,
    attention_bias: false,
    qkv_bias: true,
    mlp_bias: false,
    ..LLAMA
};

const RULES: [Rules; 9] = [
    LLAMA,
    Rules {
        family: Family::Mistral,
        model_type: "mistral",
        kv_heads: Some(8),
        attention_bias: false,
        mlp_bias: false,
        ..LLAMA
    },
    QWEN2,
    Rules {
        family: Family::Qwen3,
        model_type: "qwen3",
        // It is not derived from the other sizes.
        head_dim: Some(128),
        attention_bias: true,
        qkv_bias: false,
        qk_norm: true,
        ..QWEN2
    },
    GEMMA2,
    Rules {
        family: Family::Gemma3,
        model_type: "gemma3_text",
        theta: 1_000_000.0,
        qk_norm: true,
        score_cap: None,
        logit_cap: None,
        rotates_by_kind: true,
        ..GEMMA2
    },
    Rules {
        family: Family::Phi3,
        model_type: "phi3",
        norm_eps: 1e-5,
        end: Some(32_000),
        attention_bias: false,
        mlp_bias: false,
        fused_matrices: true,
        partial_rotation: true,
        original_context: Some(4096),
        ..LLAMA
    },
    Rules {
        family: Family::SmolLm3,
        model_type: "smollm3",
        kv_heads: Some(4),
        tied_embeddings: true,
        theta: 2_000_000.0,
        end: Some(128_001),
        beginning: Some(128_000),
        skips_rotations: true,
        ..LLAMA
    },
    Rules { family: Family::Granite, model_type: "granite", has_multipliers: true, ..LLAMA },
];

/// The rules of the family that a file names.
pub(super) fn rules(keys: &Keys<'_>) -> Result<&'static Rules, CheckpointError> {
    let names: Vec<&str> = RULES.iter().map(|rules| rules.model_type).collect();
    let known = names.join(", ");
    let Some(name) = keys.text("model_type")? else {
        return Err(keys.error("model_type", format!("is missing; {known} are supported")));
    };
    RULES.iter().find(|rules| rules.model_type == name).ok_or_else(|| {
        let advice = match name {
            "gemma3" => {
                "; of this model with a part for pictures, the text model alone is read, as its GGUF file has it"
            }
            _ if name.contains("moe") || name == "mixtral" => ": it is a mixture of experts, which none of those is",
            _ => "",
        };
        keys.error("model_type", format!("is \"{}\", which is not supported; {known} are{advice}", shown(name)))
    })
}

impl Family {
    /// Its name in `config.json`.
    #[cfg(test)]
    pub(in crate::checkpoint) fn model_type(self) -> &'static str {
        RULES.iter().find(|rules| rules.family == self).map_or("", |rules| rules.model_type)
    }
}

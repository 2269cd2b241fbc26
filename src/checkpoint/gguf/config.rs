//! A model's description from the metadata of a GGUF file.
//!
//! What llama.cpp reads for a supported architecture is honoured, or refused by name where it would change the output. Keys
//! that are unknown are told in a note: neither llama.cpp nor anything here reads them.

use super::vocabulary::{self, TOKENS};
use super::{Metadata, Value};
use crate::checkpoint::config::{Family, ModelConfig};
use crate::checkpoint::layer_spec::{LayerSpec, LayerSpecs};
use crate::checkpoint::rope::{Rope, RopeScaling};
use crate::checkpoint::{CheckpointError, Windows};
use crate::visible::shown;

const ARCHITECTURE: &str = "general.architecture";

/// An architecture of GGUF that is supported.
pub(super) struct Architecture {
    name: &'static str,
    family: Family,
    /// True if the rotation turns neighbours, so that rows of queries and keys are stored in pairs.
    pub(super) in_pairs: bool,
    qk_norm: bool,
}

const ARCHITECTURES: [Architecture; 3] = [
    Architecture { name: "llama", family: Family::Llama, in_pairs: true, qk_norm: false },
    Architecture { name: "qwen2", family: Family::Qwen2, in_pairs: false, qk_norm: false },
    Architecture { name: "qwen3", family: Family::Qwen3, in_pairs: false, qk_norm: true },
];

/// Keys of an architecture that are read here.
const HONOURED: [&str; 16] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.original_context_length",
];

/// Keys of an architecture that change nothing: facts about training and conversion.
const IRRELEVANT: [&str; 3] = ["rope.scaling.finetuned", "tensor_data_layout", "pooling_type"];

/// Keys of an architecture that change the output unless they are neutral, with their neutral values and what they mean.
const NEUTRAL: [(&str, f64, &str); 17] = [
    ("expert_count", 0.0, "a mixture of experts"),
    ("expert_used_count", 0.0, "a mixture of experts"),
    ("expert_shared_count", 0.0, "a mixture of experts"),
    ("expert_group_count", 0.0, "a mixture of experts"),
    ("expert_group_used_count", 0.0, "a mixture of experts"),
    ("nextn_predict_layers", 0.0, "layers that predict further tokens"),
    ("rope.scaling.attn_factor", 1.0, "another scale of scores"),
    ("attention.causal", 1.0, "attention to later tokens"),
    ("attention.sliding_window", 0.0, "a sliding window for this architecture"),
    ("attention.scale", 0.0, "another scale of scores"),
    ("attention.clamp_kqv", 0.0, "clamped queries, keys and values"),
    ("attention.max_alibi_bias", 0.0, "ALiBi"),
    ("attn_logit_softcapping", 0.0, "capped scores"),
    ("final_logit_softcapping", 0.0, "capped logits"),
    ("logit_scale", 1.0, "scaled logits"),
    ("embedding_scale", 1.0, "scaled embeddings"),
    ("residual_scale", 1.0, "a scaled residual stream"),
];

/// What a file says of its model beyond the description.
pub(super) struct Described {
    pub(super) config: ModelConfig,
    pub(super) architecture: &'static Architecture,
    pub(super) notes: Vec<String>,
}

/// What the tensors say that the metadata do not.
pub(super) struct Tensors<'a> {
    /// Shape of the tensor of a GGUF name.
    pub(super) shape: &'a dyn Fn(&str) -> Option<Vec<usize>>,
    /// Factors of the rotation's frequencies, if the file has them.
    pub(super) rope_factors: Option<Vec<f32>>,
}

/// The keys of an architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn error(&self, key: &str, reason: impl Into<String>) -> CheckpointError {
        self.metadata.error(&self.name(key), reason)
    }

    /// A size above zero.
    fn size(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        let name = self.name(key);
        if self.metadata.length(&name).is_some() {
            return Err(self.error(key, "is a list, for layers of different sizes, which are not supported"));
        }
        match self.metadata.integer(&name)? {
            Some(0) => Err(self.error(key, "is 0, but must be above zero")),
            size => Ok(size),
        }
    }

    fn required(&self, key: &str) -> Result<usize, CheckpointError> {
        self.size(key)?.ok_or_else(|| self.error(key, "is missing; convert the model again with a current llama.cpp"))
    }

    /// A number above zero.
    fn positive(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        match self.metadata.number(&self.name(key))? {
            Some(value) if value <= 0.0 => Err(self.error(key, format!("is {value}, but must be above zero"))),
            value => Ok(value),
        }
    }
}

/// Reads the description.
pub(super) fn read(metadata: &Metadata, tensors: &Tensors<'_>) -> Result<Described, CheckpointError> {
    let architecture = architecture(metadata)?;
    let keys = Keys { metadata, architecture: architecture.name };
    let notes = check_keys(&keys)?;
    let embedding = (tensors.shape)("token_embd.weight").ok_or_else(|| CheckpointError::Damaged {
        path: metadata.path().to_owned(),
        reason: "it has no tensor \"token_embd.weight\"".to_owned(),
    })?;
    let vocab_size = vocab_size(&keys, &embedding)?;
    let layers = keys.required("block_count")?;
    let context = keys.required("context_length")?;
    let spec = layer(&keys, architecture, tensors)?;
    let rope = rope(&keys, spec.head_dim, tensors.rope_factors.clone())?;
    let token = |key: &str| vocabulary::id(metadata, &format!("tokenizer.ggml.{key}"), vocab_size);
    // A vocabulary that cannot be read is refused with the tokenizer, which says why.
    let stop_tokens =
        super::end_of_generation(metadata).or_else(|_| token("eos_token_id").map(|id| id.into_iter().collect()))?;
    let config = ModelConfig {
        windows: Windows::None,
        tied_embeddings: (tensors.shape)("output.weight").is_none(),
        stop_tokens,
        bos_token: token("bos_token_id")?,
        ..ModelConfig::new(architecture.family, vocab_size, layers, LayerSpecs::alike(spec), rope, context)
    };
    config.check(metadata.path())?;
    Ok(Described { config, architecture, notes })
}

fn architecture(metadata: &Metadata) -> Result<&'static Architecture, CheckpointError> {
    let known = || {
        let names: Vec<&str> = ARCHITECTURES.iter().map(|one| one.name).collect();
        names.join(", ")
    };
    let Some(name) = metadata.text(ARCHITECTURE)? else {
        return Err(metadata.error(ARCHITECTURE, format!("is missing; {} are supported", known())));
    };
    match metadata.text("general.type")? {
        None | Some("model") => (),
        Some(other) => {
            return Err(
                metadata.error("general.type", format!("is \"{}\": the file holds no model by itself", shown(other)))
            );
        }
    }
    let found = ARCHITECTURES.iter().find(|one| one.name == name);
    found.ok_or_else(|| {
        metadata.error(ARCHITECTURE, format!("is \"{}\", which is not supported; {} are", shown(name), known()))
    })
}

/// Refuses what would change the output; notes on keys that nobody knows.
fn check_keys(keys: &Keys<'_>) -> Result<Vec<String>, CheckpointError> {
    let prefix = keys.name("");
    let mut unknown = Vec::new();
    for (key, value) in keys.metadata.iter() {
        let Some(key) = key.strip_prefix(&prefix) else { continue };
        if let Some((_, neutral, meaning)) = NEUTRAL.iter().find(|(name, ..)| *name == key) {
            let found = match value {
                Ok(Value::Bool(value)) => Some(f64::from(u8::from(*value))),
                _ => keys.metadata.number(&keys.name(key))?,
            };
            if found != Some(*neutral) {
                let value = value.map_or_else(|count| format!("a list of {count}"), ToString::to_string);
                return Err(keys.error(key, format!("is {value}: {meaning} is not supported; take another model")));
            }
        } else if !HONOURED.contains(&key) && !IRRELEVANT.contains(&key) {
            unknown.push(shown(&keys.name(key)));
        }
    }
    let keys = unknown.join(", ");
    Ok(if unknown.is_empty() {
        Vec::new()
    } else {
        vec![format!("The file has keys that are not known and were ignored: {keys}.")]
    })
}

/// Rows of the embedding, which are the tokens.
fn vocab_size(keys: &Keys<'_>, embedding: &[usize]) -> Result<usize, CheckpointError> {
    let rows = embedding.first().copied().unwrap_or(0);
    let tokens = keys.metadata.length(TOKENS);
    if let Some(tokens) = tokens.filter(|tokens| *tokens != rows) {
        let reason = format!(
            "has {tokens} tokens, but the embedding has {rows} rows; the file is damaged, or was converted wrongly"
        );
        return Err(keys.metadata.error(TOKENS, reason));
    }
    match keys.size("vocab_size")? {
        Some(stated) if stated != rows && tokens.is_none() => {
            Err(keys.error("vocab_size", format!("is {stated}, but the embedding has {rows} rows")))
        }
        _ => Ok(rows),
    }
}

fn layer(keys: &Keys<'_>, architecture: &Architecture, tensors: &Tensors<'_>) -> Result<LayerSpec, CheckpointError> {
    let hidden_size = keys.required("embedding_length")?;
    let heads = keys.required("attention.head_count")?;
    let kv_heads = keys.size("attention.head_count_kv")?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.error(
            "attention.head_count_kv",
            format!("is {kv_heads}, which does not divide the {heads} of attention.head_count"),
        ));
    }
    let head_dim = match keys.size("attention.key_length")? {
        Some(size) => size,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(keys.error(
                "embedding_length",
                format!("is {hidden_size}, which the {heads} of attention.head_count do not divide"),
            ));
        }
    };
    if let Some(value) = keys.size("attention.value_length")?.filter(|value| *value != head_dim) {
        return Err(keys.error(
            "attention.value_length",
            format!("is {value}, but keys have {head_dim}; values of another width are not supported"),
        ));
    }
    if let Some(rotated) = keys.size("rope.dimension_count")?.filter(|rotated| *rotated != head_dim) {
        let reason = format!(
            "is {rotated}, but a head has {head_dim}: rotating a part of a head is not supported for this architecture"
        );
        return Err(keys.error("rope.dimension_count", reason));
    }
    let has = |part: &str| (tensors.shape)(&format!("blk.0.{part}.bias")).is_some();
    let epsilon = "attention.layer_norm_rms_epsilon";
    Ok(LayerSpec {
        hidden_size,
        intermediate_size: keys.required("feed_forward_length")?,
        heads,
        kv_heads,
        head_dim,
        norm_eps: keys.positive(epsilon)?.ok_or_else(|| keys.error(epsilon, "is missing"))? as f32,
        qkv_bias: architecture.family == Family::Qwen2 || has("attn_q"),
        output_bias: has("attn_output"),
        mlp_bias: has("ffn_gate"),
        qk_norm: architecture.qk_norm,
        window: None,
        score_factor: LayerSpec::usual_score_factor(head_dim),
    })
}

fn rope(keys: &Keys<'_>, head_dim: usize, factors: Option<Vec<f32>>) -> Result<Rope, CheckpointError> {
    let theta = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let scaling = scaling(keys)?;
    if let Some(factors) = factors {
        if scaling != RopeScaling::None {
            return Err(keys.error(
                "rope.scaling.type",
                "scales the rotation beside the factors of \"rope_freqs.weight\", which is not supported",
            ));
        }
        let are_factors =
            factors.len() == head_dim / 2 && factors.iter().all(|factor| factor.is_finite() && *factor > 0.0);
        if !are_factors {
            let reason = format!("its tensor \"rope_freqs.weight\" does not have {} factors above zero", head_dim / 2);
            return Err(CheckpointError::Damaged { path: keys.metadata.path().to_owned(), reason });
        }
        return Ok(Rope { theta, scaling: RopeScaling::Factors { factors } });
    }
    Ok(Rope { theta, scaling })
}

fn scaling(keys: &Keys<'_>) -> Result<RopeScaling, CheckpointError> {
    let kind = "rope.scaling.type";
    let old = keys.positive("rope.scale_linear")?.filter(|factor| *factor != 1.0);
    let factor = keys.positive("rope.scaling.factor")?.or(old);
    Ok(match (keys.metadata.text(&keys.name(kind))?, factor) {
        (Some("none"), _) | (None | Some("linear"), None | Some(1.0)) => RopeScaling::None,
        (None | Some("linear"), Some(factor)) => RopeScaling::Linear { factor },
        (Some(other), _) => {
            return Err(
                keys.error(kind, format!("is \"{}\", which is not supported; none and linear are", shown(other)))
            );
        }
    })
}

//! A model's description from the metadata of a GGUF file.
//!
//! What llama.cpp reads for a supported architecture is honoured, or refused by name where it would change the output. Keys
//! that are unknown are told in a note: neither llama.cpp nor anything here reads them.

use paceline_kernels::Activation;

use super::vocabulary::{self, TOKENS};
use super::{Dialect, Metadata, Value};
use crate::checkpoint::config::{Family, ModelConfig};
use crate::checkpoint::layer_spec::{LayerSpec, LayerSpecs, but_each_last};
use crate::checkpoint::rope::Rope;
use crate::checkpoint::{CheckpointError, Windows};
use crate::visible::shown;

mod rotation;

const ORIGINAL_CONTEXT: &str = "rope.scaling.original_context_length";
const ARCHITECTURE: &str = "general.architecture";

/// An architecture of GGUF that is supported.
pub(super) struct Architecture {
    name: &'static str,
    family: Family,
    /// True if the rotation turns neighbours, so that rows of queries and keys are stored in pairs.
    pub(super) in_pairs: bool,
    /// Names of its tensors.
    pub(super) dialect: Dialect,
    qk_norm: bool,
    /// Its own keys, beside [`HONOURED`].
    keys: &'static [&'static str],
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    family: Family::Llama,
    in_pairs: true,
    dialect: Dialect::Plain,
    qk_norm: false,
    keys: &[],
};
const QWEN2: Architecture = Architecture { name: "qwen2", family: Family::Qwen2, in_pairs: false, ..LLAMA };
const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    family: Family::Gemma2,
    in_pairs: false,
    dialect: Dialect::PostNorms,
    qk_norm: false,
    keys: &[WINDOW, WINDOW_PATTERN, SCORE_CAP, LOGIT_CAP, NEAR_THETA],
};

const ARCHITECTURES: [Architecture; 8] = [
    LLAMA,
    QWEN2,
    Architecture { name: "qwen3", family: Family::Qwen3, qk_norm: true, ..QWEN2 },
    GEMMA2,
    Architecture {
        name: "gemma3",
        family: Family::Gemma3,
        qk_norm: true,
        keys: &[WINDOW, WINDOW_PATTERN, LOGIT_CAP, NEAR_THETA],
        ..GEMMA2
    },
    Architecture {
        name: "phi3",
        family: Family::Phi3,
        in_pairs: false,
        dialect: Dialect::Fused,
        keys: &[WINDOW],
        ..LLAMA
    },
    Architecture { name: "smollm3", family: Family::SmolLm3, ..LLAMA },
    Architecture {
        name: "granite",
        family: Family::Granite,
        keys: &[SCORE_FACTOR, EMBEDDING_FACTOR, RESIDUAL_FACTOR, LOGIT_DIVISOR],
        ..LLAMA
    },
];

const WINDOW: &str = "attention.sliding_window";
const WINDOW_PATTERN: &str = "attention.sliding_window_pattern";
const SCORE_CAP: &str = "attn_logit_softcapping";
const LOGIT_CAP: &str = "final_logit_softcapping";
const NEAR_THETA: &str = "rope.freq_base_swa";
const SCORE_FACTOR: &str = "attention.scale";
const EMBEDDING_FACTOR: &str = "embedding_scale";
const RESIDUAL_FACTOR: &str = "residual_scale";
const LOGIT_DIVISOR: &str = "logit_scale";
/// False in files of Granite without a rotation; a remark in others.
const IS_ROTATED: &str = "rope.scaling.finetuned";

/// Keys of an architecture that are read here.
const HONOURED: [&str; 17] = [
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
    ORIGINAL_CONTEXT,
    "rope.scaling.attn_factor",
];

/// Keys of an architecture that change nothing: facts about training and conversion.
const IRRELEVANT: [&str; 3] = [IS_ROTATED, "tensor_data_layout", "pooling_type"];

/// Keys of an architecture that change the output unless they are neutral, with their neutral values and what they mean.
const NEUTRAL: [(&str, f64, &str); 21] = [
    ("expert_count", 0.0, "a mixture of experts"),
    ("expert_used_count", 0.0, "a mixture of experts"),
    ("expert_shared_count", 0.0, "a mixture of experts"),
    ("expert_group_count", 0.0, "a mixture of experts"),
    ("expert_group_used_count", 0.0, "a mixture of experts"),
    ("nextn_predict_layers", 0.0, "layers that predict further tokens"),
    ("rope.scaling.yarn_ext_factor", 1.0, "YaRN by another share"),
    ("rope.scaling.yarn_beta_fast", 32.0, "another ramp of YaRN"),
    ("rope.scaling.yarn_beta_slow", 1.0, "another ramp of YaRN"),
    ("rope.scaling.yarn_attn_factor", 1.0, "another scale of scores"),
    ("rope.scaling.yarn_log_multiplier", 0.0, "another scale of scores"),
    ("attention.causal", 1.0, "attention to later tokens"),
    (WINDOW, 0.0, "a sliding window for this architecture"),
    (SCORE_FACTOR, 0.0, "another scale of scores"),
    ("attention.clamp_kqv", 0.0, "clamped queries, keys and values"),
    ("attention.max_alibi_bias", 0.0, "ALiBi"),
    (SCORE_CAP, 0.0, "capped scores"),
    (LOGIT_CAP, 0.0, "capped logits"),
    (LOGIT_DIVISOR, 1.0, "scaled logits"),
    (EMBEDDING_FACTOR, 1.0, "scaled embeddings"),
    (RESIDUAL_FACTOR, 1.0, "a scaled residual stream"),
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
    pub(super) rope_factors: RopeFactors,
}

/// Factors of the rotation's frequencies, where the file has them.
#[derive(Clone)]
pub(super) struct RopeFactors {
    /// Of all texts.
    pub(super) all: Option<Vec<f32>>,
    /// Of texts within the context of pretraining.
    pub(super) short: Option<Vec<f32>>,
    /// Of longer ones.
    pub(super) long: Option<Vec<f32>>,
}

/// The keys of an architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static Architecture,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name)
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
            // The float32 in which it is used must be usable as well.
            Some(value) if !(value as f32 > 0.0 && (value as f32).is_finite()) => {
                Err(self.error(key, format!("is {value}, but must be above zero")))
            }
            value => Ok(value),
        }
    }

    /// A number above zero of a key that some architectures alone have.
    fn own(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        if self.architecture.keys.contains(&key) { self.positive(key) } else { Ok(None) }
    }

    /// A cap above zero that a key gives, for architectures that have it; 0 is none.
    fn cap(&self, key: &str, default: Option<f64>) -> Result<Option<f32>, CheckpointError> {
        if !self.architecture.keys.contains(&key) {
            return Ok(None);
        }
        let given = self.metadata.number(&self.name(key))?;
        if given.is_some_and(|cap| cap < 0.0) {
            return Err(self.error(key, "is below zero"));
        }
        Ok(given.or(default).filter(|cap| *cap != 0.0).map(|cap| cap as f32))
    }
}

/// Reads the description.
pub(super) fn read(metadata: &Metadata, tensors: &Tensors<'_>) -> Result<Described, CheckpointError> {
    let architecture = architecture(metadata)?;
    let keys = Keys { metadata, architecture };
    let notes = check_keys(&keys)?;
    let embedding = (tensors.shape)("token_embd.weight").ok_or_else(|| CheckpointError::Damaged {
        path: metadata.path().to_owned(),
        reason: "it has no tensor \"token_embd.weight\"".to_owned(),
    })?;
    let vocab_size = vocab_size(&keys, &embedding)?;
    let layers = keys.required("block_count")?;
    let context = keys.required("context_length")?;
    let spec = layer(&keys, architecture, tensors, layers)?;
    let rope = rotation::read(&keys, spec.rotated, &tensors.rope_factors, context)?;
    let windows = windows(&keys, architecture, layers)?;
    let specs = by_kind(&keys, architecture, windows.layers(&spec), layers, &rope)?;
    let is_gemma = architecture.dialect == Dialect::PostNorms;
    let embedding_factor = if is_gemma { Some((spec.hidden_size as f64).sqrt()) } else { keys.own(EMBEDDING_FACTOR)? };
    let token = |key: &str| vocabulary::id(metadata, &format!("tokenizer.ggml.{key}"), vocab_size);
    // A vocabulary that cannot be read is refused with the tokenizer, which says why.
    let stop_tokens =
        super::end_of_generation(metadata).or_else(|_| token("eos_token_id").map(|id| id.into_iter().collect()))?;
    let config = ModelConfig {
        windows,
        tied_embeddings: (tensors.shape)("output.weight").is_none(),
        embedding_factor: embedding_factor.unwrap_or(1.0) as f32,
        logit_divisor: keys.own(LOGIT_DIVISOR)?.unwrap_or(1.0) as f32,
        // What llama.cpp takes where Gemma 2's file has none.
        logit_cap: keys.cap(LOGIT_CAP, (architecture.family == Family::Gemma2).then_some(30.0))?,
        fused_matrices: architecture.dialect == Dialect::Fused,
        stop_tokens,
        bos_token: token("bos_token_id")?,
        ..ModelConfig::new(architecture.family, vocab_size, layers, specs, rope, context)
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
        let Some(key) = key.strip_prefix(&prefix).filter(|key| !keys.architecture.keys.contains(key)) else { continue };
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

fn layer(
    keys: &Keys<'_>,
    architecture: &Architecture,
    tensors: &Tensors<'_>,
    layers: usize,
) -> Result<LayerSpec, CheckpointError> {
    let hidden_size = keys.required("embedding_length")?;
    let heads = keys.required("attention.head_count")?;
    let kv_heads = keys.size("attention.head_count_kv")?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.error(
            "attention.head_count_kv",
            format!("is {kv_heads}, which does not divide the {heads} of attention.head_count"),
        ));
    }
    let head_dim = head_dim(keys, hidden_size, heads)?;
    let has = |part: &str| (tensors.shape)(&format!("blk.0.{part}.bias")).is_some();
    let usual = LayerSpec::usual_score_factor(head_dim);
    let score_factor = match (architecture.family, layers) {
        // The two largest models divide by another root, which llama.cpp too knows by their layers.
        (Family::Gemma2, 46) | (Family::Gemma3, 62) => LayerSpec::usual_score_factor(hidden_size / heads),
        _ => keys.own(SCORE_FACTOR)?.map_or(usual, |factor| factor as f32),
    };
    let epsilon = "attention.layer_norm_rms_epsilon";
    let is_gemma = architecture.dialect == Dialect::PostNorms;
    let plain = LayerSpec::llama(hidden_size, keys.required("feed_forward_length")?, heads, kv_heads, head_dim);
    Ok(LayerSpec {
        norm_eps: keys.positive(epsilon)?.ok_or_else(|| keys.error(epsilon, "is missing"))? as f32,
        qkv_bias: architecture.family == Family::Qwen2 || has("attn_q"),
        output_bias: has("attn_output"),
        mlp_bias: has("ffn_gate"),
        qk_norm: architecture.qk_norm,
        score_factor,
        score_cap: keys.cap(SCORE_CAP, Some(50.0))?,
        rotated: rotated(keys, architecture, head_dim)?,
        activation: if is_gemma { Activation::GeluTanh } else { Activation::Silu },
        post_norms: is_gemma,
        residual_factor: keys.own(RESIDUAL_FACTOR)?.unwrap_or(1.0) as f32,
        ..plain
    })
}

fn head_dim(keys: &Keys<'_>, hidden_size: usize, heads: usize) -> Result<usize, CheckpointError> {
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
    match keys.size("attention.value_length")?.filter(|value| *value != head_dim) {
        None => Ok(head_dim),
        Some(value) => Err(keys.error(
            "attention.value_length",
            format!("is {value}, but keys have {head_dim}; values of another width are not supported"),
        )),
    }
}

/// Values of each head that turn.
fn rotated(keys: &Keys<'_>, architecture: &Architecture, head_dim: usize) -> Result<usize, CheckpointError> {
    if architecture.family == Family::Granite && keys.metadata.bool(&keys.name(IS_ROTATED))? == Some(false) {
        return Ok(0);
    }
    let key = "rope.dimension_count";
    match keys.size(key)?.unwrap_or(head_dim) {
        rotated if rotated == head_dim => Ok(rotated),
        rotated if architecture.family == Family::Phi3 && rotated < head_dim && rotated.is_multiple_of(2) => {
            Ok(rotated)
        }
        rotated => Err(keys.error(
            key,
            format!(
                "is {rotated}, but a head has {head_dim}: rotating a part of a head is not supported for this architecture"
            ),
        )),
    }
}

/// The layers with a window: those of Gemma by llama.cpp's rules; all of Phi 3, as in transformers, where llama.cpp leaves the
/// window out because converters of old wrote it wrongly.
fn windows(keys: &Keys<'_>, architecture: &Architecture, layers: usize) -> Result<Windows, CheckpointError> {
    if !architecture.keys.contains(&WINDOW) {
        return Ok(Windows::None);
    }
    let default = (architecture.family == Family::Gemma2).then_some(4096);
    let window = match keys.metadata.integer(&keys.name(WINDOW))?.or(default) {
        None | Some(0) => return Ok(Windows::None),
        Some(1) => return Err(keys.error(WINDOW, "is 1, by which a token sees itself alone")),
        Some(window) => window,
    };
    let period = match architecture.family {
        Family::Gemma2 => 2,
        Family::Gemma3 => 6,
        _ => return Ok(Windows::All(window)),
    };
    if keys.metadata.length(&keys.name(WINDOW_PATTERN)).is_some() {
        return Err(keys.error(WINDOW_PATTERN, "is a list, which is not supported; a number is"));
    }
    let period = keys.size(WINDOW_PATTERN)?.unwrap_or(period);
    Ok(Windows::Listed { layers: every(keys, period, layers)?, window })
}

/// False for the last layer of every period, true for the others.
fn every(keys: &Keys<'_>, period: usize, layers: usize) -> Result<Vec<bool>, CheckpointError> {
    but_each_last(period, layers).map_err(|reason| keys.error("block_count", reason))
}

/// The layers with each one's rotation.
fn by_kind(
    keys: &Keys<'_>,
    architecture: &Architecture,
    specs: LayerSpecs,
    layers: usize,
    rope: &Rope,
) -> Result<LayerSpecs, CheckpointError> {
    match (architecture.family, keys.positive(NEAR_THETA)?) {
        (Family::Gemma3, theta) => Ok(specs.with_near_rope(&Rope::plain(theta.unwrap_or(10_000.0)))),
        (Family::Gemma2, Some(theta)) => Ok(specs.with_near_rope(&Rope { theta, ..rope.clone() })),
        // As llama.cpp has it, and all files there are.
        (Family::SmolLm3, _) => Ok(specs.rotated_where(&every(keys, 4, layers)?)),
        _ => Ok(specs),
    }
}

//! `config.json` resolved: what the file says in the spellings of many transformers versions becomes one
//! description of the model with every default filled in and every number checked.
//!
//! Whatever would change the model's output and is not supported is refused by name ([`key_table`](super::key_table)); keys
//! that transformers does not read either are ignored.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::directory;
use super::error::CheckpointError;
use super::key_table;
use super::keys::Keys;
use super::rope::{Rope, RopeScaling};
use crate::files::of_model::{FileError, read_json, read_json_if_there};
use crate::visible::shown;

/// Real configurations have a few kilobytes.
const LARGEST_CONFIG: u64 = 1 << 20;

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
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        })
    }
}

/// Which layers attend within a sliding window. A window of `w` lets position `p` see `p - w + 1 ..= p`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Windows {
    /// None: every position sees all before it.
    None,
    /// All, in positions.
    All(usize),
    /// Those from a layer on.
    From {
        /// The first layer with a window.
        first: usize,
        /// The window in positions.
        window: usize,
    },
    /// Those marked.
    Listed {
        /// For every layer, whether it has a window.
        layers: Vec<bool>,
        /// The window in positions.
        window: usize,
    },
}

/// A model's description. Every count is above zero, `heads` is a multiple of `kv_heads`, `head_dim` is even,
/// and the sizes of all matrices, their sum in bytes, and a cache of `context` positions fit `usize`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The architecture.
    pub family: Family,
    /// Rows of the embedding: token ids are below it.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head; `heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Added to the mean square by the RMS norms.
    pub norm_eps: f32,
    /// The position embedding.
    pub rope: Rope,
    /// The sliding windows.
    pub windows: Windows,
    /// Positions the model was made for (`max_position_embeddings`).
    pub context: usize,
    /// True if the output matrix is the embedding.
    pub tied_embeddings: bool,
    /// True if the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// True if the attention's output projection has a bias.
    pub output_bias: bool,
    /// True if the three projections of the MLP have biases.
    pub mlp_bias: bool,
    /// True if queries and keys are normalized per head.
    pub qk_norm: bool,
    /// Tokens that end a text: those of `generation_config.json`, or of `config.json` where that names none.
    pub stop_tokens: Vec<u32>,
    /// The token that begins a text.
    pub bos_token: Option<u32>,
}

impl ModelConfig {
    /// Reads `config.json`, and the stop tokens of `generation_config.json` if there is one.
    ///
    /// # Errors
    /// When a file cannot be read or understood, a value is impossible, or the model is of a kind that is not
    /// supported.
    pub fn read(dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join("config.json");
        let map: Map<String, Value> = read_json(&path, LARGEST_CONFIG).map_err(|error| match error {
            FileError::Absent { .. } => directory::without_config(dir),
            error => error.into(),
        })?;
        let mut config = Self::from_map(&path, &map)?;
        let path = dir.join("generation_config.json");
        if let Some(map) = read_json_if_there::<Map<String, Value>>(&path, LARGEST_CONFIG)? {
            // As transformers does: what this file names counts. It then lets an answer of a file that names none run on;
            // here those of config.json still end it.
            let named = Keys::new(&path, &map).token_ids("eos_token_id")?;
            if !named.is_empty() {
                config.stop_tokens = distinct(named);
            }
        }
        Ok(config)
    }

    /// Reads the configuration from `map`, the object in the file at `path`.
    pub(super) fn from_map(path: &Path, map: &Map<String, Value>) -> Result<Self, CheckpointError> {
        let config = Self::from_keys(Keys::new(path, map))?;
        config.check_sizes().ok_or_else(|| CheckpointError::Contradiction {
            path: path.to_owned(),
            reason: "describes a model that is larger than this machine can address; repair its sizes".to_owned(),
        })?;
        Ok(config)
    }

    /// The sliding window of a layer in positions, `None` if it sees everything (and for a layer that does not exist).
    pub fn window(&self, layer: usize) -> Option<usize> {
        match &self.windows {
            Windows::None => None,
            Windows::All(window) => Some(*window),
            Windows::From { first, window } => (layer >= *first).then_some(*window),
            Windows::Listed { layers, window } => layers.get(layer).copied().unwrap_or(false).then_some(*window),
        }
    }

    /// The widest of the layers' windows; `None` if a layer sees all.
    pub fn widest_window(&self) -> Option<usize> {
        let windows: Option<Vec<usize>> = (0..self.layers).map(|layer| self.window(layer)).collect();
        windows?.into_iter().max()
    }

    fn from_keys(keys: Keys<'_>) -> Result<Self, CheckpointError> {
        let family = family(&keys)?;
        key_table::check(&keys, family, "")?;
        refuse_contradictions(&keys, family)?;
        let hidden_size = keys.required_size("hidden_size")?;
        let heads = keys.required_size("num_attention_heads")?;
        let layers = keys.required_size("num_hidden_layers")?;
        let vocab_size = keys.required_size("vocab_size")?;
        let context = keys.required_size("max_position_embeddings")?;
        refuse_padding_beyond(&keys, vocab_size)?;
        let has_bias = matches!(family, Family::Llama | Family::Qwen3);
        let attention_bias = has_bias && keys.flag("attention_bias")?.unwrap_or(false);
        Ok(Self {
            family,
            vocab_size,
            hidden_size,
            intermediate_size: keys.required_size("intermediate_size")?,
            layers,
            heads,
            kv_heads: kv_heads(&keys, family, heads)?,
            head_dim: head_dim(&keys, family, hidden_size, heads)?,
            norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope: rope(&keys, family, context)?,
            windows: windows(&keys, family, layers, context)?,
            context,
            tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            qkv_bias: attention_bias || family == Family::Qwen2,
            output_bias: attention_bias,
            mlp_bias: family == Family::Llama && keys.flag("mlp_bias")?.unwrap_or(false),
            qk_norm: family == Family::Qwen3,
            stop_tokens: distinct(special_tokens(&keys, "eos_token_id", family, 2)?),
            bos_token: match *special_tokens(&keys, "bos_token_id", family, 1)?.as_slice() {
                [] => None,
                [id] => Some(id),
                _ => return Err(keys.error("bos_token_id", "must be one token id or null")),
            },
        })
    }

    /// `None` if the size in bytes of the weights as float32, or of a full cache, does not fit.
    fn check_sizes(&self) -> Option<()> {
        let queries = self.heads.checked_mul(self.head_dim)?;
        let keys = self.kv_heads.checked_mul(self.head_dim)?;
        let attention = queries.checked_add(keys)?.checked_mul(self.hidden_size)?.checked_mul(2)?;
        let mlp = self.intermediate_size.checked_mul(self.hidden_size)?.checked_mul(3)?;
        // Norms and biases: at most each of these widths a few times.
        let widths = queries.checked_add(keys)?.checked_add(self.intermediate_size)?.checked_add(self.hidden_size)?;
        let layer = attention.checked_add(mlp)?.checked_add(widths.checked_mul(4)?)?;
        let matrices = self.vocab_size.checked_add(1)?.checked_mul(self.hidden_size)?.checked_mul(2)?;
        let weights = layer.checked_mul(self.layers)?.checked_add(matrices)?.checked_mul(4)?;
        let cache = keys.checked_mul(self.layers)?.checked_mul(self.context)?.checked_mul(8)?;
        let largest = isize::MAX.unsigned_abs();
        (weights <= largest && cache <= largest).then_some(())
    }
}

fn family(keys: &Keys<'_>) -> Result<Family, CheckpointError> {
    match keys.text("model_type")? {
        Some("llama") => Ok(Family::Llama),
        Some("mistral") => Ok(Family::Mistral),
        Some("qwen2") => Ok(Family::Qwen2),
        Some("qwen3") => Ok(Family::Qwen3),
        Some(other) => {
            let other = shown(other);
            Err(keys.error(
                "model_type",
                format!("is \"{other}\", which is not supported; llama, mistral, qwen2 and qwen3 are"),
            ))
        }
        None => Err(keys.error("model_type", "is missing; llama, mistral, qwen2 and qwen3 are supported")),
    }
}

/// Refuses contradictions that a row of the table of keys cannot express: between the values of several keys.
fn refuse_contradictions(keys: &Keys<'_>, family: Family) -> Result<(), CheckpointError> {
    if let Some(activation) = keys.text("hidden_act")?.filter(|name| !matches!(*name, "silu" | "swish")) {
        let activation = shown(activation);
        return Err(keys.error("hidden_act", format!("is \"{activation}\", which is not supported; silu is")));
    }
    let wanted = format!("{family}ForCausalLM");
    let architectures = keys.list("architectures")?.unwrap_or_default();
    let is_ours = |name: &Value| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(&wanted));
    if let Some(other) = architectures.first().filter(|_| !architectures.iter().any(is_ours)) {
        let other = shown(&other.to_string());
        let reason = format!("names {other}, but the model_type \"{family}\" is computed as a causal language model");
        return Err(keys.error("architectures", format!("{reason}; take a checkpoint of that kind")));
    }
    if let Some(code) = keys.object("auto_map", "auto_map.")? {
        // A tokenizer's code is none of the model's.
        if let Some(part) = ["AutoConfig", "AutoModel", "AutoModelForCausalLM"].into_iter().find(|part| code.has(part))
        {
            let reason =
                format!("names code of its own for {part}, which is not run; take a checkpoint that needs none");
            return Err(keys.error("auto_map", reason));
        }
    }
    Ok(())
}

/// The embedding has a row for the padding, which an unpadded prompt never uses.
fn refuse_padding_beyond(keys: &Keys<'_>, vocab_size: usize) -> Result<(), CheckpointError> {
    // Some files have -1 for none.
    let padding = keys.get("pad_token_id").and_then(Value::as_u64);
    if let Some(id) = padding.filter(|id| usize::try_from(*id).is_ok_and(|id| id >= vocab_size)) {
        return Err(
            keys.error("pad_token_id", format!("is {id}, but the tokens of vocab_size end at {}", vocab_size - 1))
        );
    }
    Ok(())
}

/// The ids under `key`; where it is absent, what transformers' configuration of the family has.
fn special_tokens(keys: &Keys<'_>, key: &str, family: Family, default: u32) -> Result<Vec<u32>, CheckpointError> {
    if !keys.has(key) && matches!(family, Family::Llama | Family::Mistral) {
        return Ok(vec![default]);
    }
    keys.token_ids(key)
}

fn distinct(ids: Vec<u32>) -> Vec<u32> {
    let mut seen = Vec::new();
    for id in ids {
        if !seen.contains(&id) {
            seen.push(id);
        }
    }
    seen
}

fn kv_heads(keys: &Keys<'_>, family: Family, heads: usize) -> Result<usize, CheckpointError> {
    let kv_heads = match (keys.size("num_key_value_heads")?, family) {
        (Some(kv_heads), _) => kv_heads,
        (None, Family::Llama) => heads,
        (None, _) if keys.has("num_key_value_heads") => heads,
        (None, Family::Mistral) => 8,
        (None, Family::Qwen2 | Family::Qwen3) => 32,
    };
    if !heads.is_multiple_of(kv_heads) {
        let reason = format!("is {kv_heads}, which does not divide the {heads} of num_attention_heads");
        return Err(keys.error("num_key_value_heads", reason));
    }
    Ok(kv_heads)
}

fn head_dim(keys: &Keys<'_>, family: Family, hidden: usize, heads: usize) -> Result<usize, CheckpointError> {
    let head_dim = match keys.size("head_dim")? {
        Some(head_dim) => head_dim,
        // The default of transformers' Qwen3Config; it is not derived from the other sizes.
        None if family == Family::Qwen3 => 128,
        None if !hidden.is_multiple_of(heads) => {
            let reason = format!("is {hidden}, which the {heads} of num_attention_heads do not divide");
            return Err(keys.error("hidden_size", reason));
        }
        None => hidden / heads,
    };
    if !head_dim.is_multiple_of(2) {
        return Err(keys.error("head_dim", format!("is {head_dim}, but rotation needs pairs: it must be even")));
    }
    Ok(head_dim)
}

/// Old files have `rope_theta` and `rope_scaling` side by side; transformers 5 puts both into `rope_parameters`.
fn rope(keys: &Keys<'_>, family: Family, context: usize) -> Result<Rope, CheckpointError> {
    let scaling = keys.object("rope_scaling", "rope_scaling.")?.filter(|inner| !inner.is_empty());
    let inner = match scaling {
        Some(inner) => Some(inner),
        None => keys.object("rope_parameters", "rope_parameters.")?,
    };
    if let Some(inner) = &inner {
        key_table::check(inner, family, "rope_parameters.")?;
    }
    let theta = match inner.as_ref().map_or(Ok(None), |inner| inner.positive("rope_theta"))? {
        Some(theta) => theta,
        None => match keys.positive("rope_theta")? {
            None if keys.has("rope_theta") => {
                return Err(keys.error("rope_theta", "is null, which stands for nothing; give it a value"));
            }
            theta => theta.unwrap_or(10_000.0),
        },
    };
    let scaling = inner.map_or(Ok(RopeScaling::None), |inner| rope_scaling(keys, &inner, context))?;
    Ok(Rope { theta, scaling })
}

fn rope_scaling(keys: &Keys<'_>, inner: &Keys<'_>, context: usize) -> Result<RopeScaling, CheckpointError> {
    let (key, name) = match inner.text("rope_type")? {
        Some(name) => ("rope_type", name),
        None => ("type", inner.text("type")?.unwrap_or("default")),
    };
    let needed = |key: &str| {
        inner.positive(key)?.ok_or_else(|| inner.error(key, format!("is missing; the type \"{name}\" needs it")))
    };
    match name {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: needed("factor")? }),
        "llama3" => {
            let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
            if high <= low {
                return Err(inner.error("high_freq_factor", format!("is {high}, but must be above low_freq_factor")));
            }
            let original = "original_max_position_embeddings";
            let original_context = match (keys.size(original)?, inner.size(original)?) {
                // Versions of transformers disagree about which goes first.
                (Some(outer), Some(inner)) if outer != inner => {
                    return Err(keys.error(original, format!("is {outer}, but inside of the rotation it is {inner}")));
                }
                (outer, inner) => inner.or(outer).unwrap_or(context),
            };
            let factor = needed("factor")?;
            Ok(RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context })
        }
        other => {
            let other = shown(other);
            let reason = format!("is \"{other}\", which is not supported; default, linear and llama3 are");
            Err(inner.error(key, reason))
        }
    }
}

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

fn windows(keys: &Keys<'_>, family: Family, layers: usize, context: usize) -> Result<Windows, CheckpointError> {
    let types = layer_types(keys, layers)?;
    match family {
        Family::Llama => {
            let all_full = types.as_ref().is_some_and(|types| !types.contains(&true));
            if types.is_some() && !all_full {
                return Err(keys.error("layer_types", format!("has {SLIDING}, which llama does not have; {FULL} is")));
            }
            let window = keys.size("sliding_window")?;
            if let Some(window) = window.filter(|window| *window < context && !all_full) {
                let reason =
                    format!("is {window}, but llama has no window; leave it out, or take a mistral checkpoint");
                return Err(keys.error("sliding_window", reason));
            }
            Ok(Windows::None)
        }
        Family::Mistral => {
            let window = match window_size(keys)? {
                None if !keys.has("sliding_window") => Some(4096),
                window => window,
            };
            if types.is_some_and(|types| window.is_none() || types.contains(&false)) {
                let reason = format!("must be {SLIDING} for every layer, with a sliding_window; leave it out");
                return Err(keys.error("layer_types", reason));
            }
            Ok(window.map_or(Windows::None, Windows::All))
        }
        Family::Qwen2 | Family::Qwen3 => qwen_windows(keys, types),
    }
}

/// A window of more than the token itself: where it is alone, versions of transformers keep the whole cache.
fn window_size(keys: &Keys<'_>) -> Result<Option<usize>, CheckpointError> {
    match keys.size("sliding_window")? {
        Some(1) => {
            Err(keys.error("sliding_window", "is 1, by which a token sees itself alone; take 2 at least, or null"))
        }
        window => Ok(window),
    }
}

fn qwen_windows(keys: &Keys<'_>, types: Option<Vec<bool>>) -> Result<Windows, CheckpointError> {
    let used = keys.flag("use_sliding_window")?.unwrap_or(false);
    let first = keys.count("max_window_layers")?.unwrap_or(28);
    let window = match used.then(|| window_size(keys)).transpose()?.flatten() {
        None if used && !keys.has("sliding_window") => Some(4096),
        window => window,
    };
    match (window, types) {
        (None, Some(types)) if types.contains(&true) => {
            let reason = format!("has {SLIDING}, but use_sliding_window and sliding_window give no window");
            Err(keys.error("layer_types", reason))
        }
        (None, _) => Ok(Windows::None),
        (Some(window), Some(layers)) => Ok(Windows::Listed { layers, window }),
        (Some(window), None) => Ok(Windows::From { first, window }),
    }
}

/// For every layer whether it has a window, where the file lists them.
fn layer_types(keys: &Keys<'_>, layers: usize) -> Result<Option<Vec<bool>>, CheckpointError> {
    let Some(types) = keys.list("layer_types")? else { return Ok(None) };
    if types.len() != layers {
        let reason = format!("has {} entries for the {layers} of num_hidden_layers", types.len());
        return Err(keys.error("layer_types", reason));
    }
    let sliding = |kind: &Value| match kind.as_str() {
        Some(SLIDING) => Ok(true),
        Some(FULL) => Ok(false),
        _ => Err(keys.error("layer_types", format!("may hold {FULL} and {SLIDING} only"))),
    };
    types.iter().map(sliding).collect::<Result<_, _>>().map(Some)
}

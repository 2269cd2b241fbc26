//! `config.json` resolved: what the file says in the spellings of many transformers versions becomes one
//! description of the model with every default filled in and every number checked.
//!
//! Whatever would change the model's output and is not supported is refused by name; the rest of the file is ignored.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{CheckpointError, shown};
use super::file::{FileError, read_json, read_json_if_there};
use super::keys::Keys;
use super::rope::{Rope, RopeScaling};

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
    /// What the RMS norms add to the mean square.
    pub norm_eps: f32,
    /// The position embedding.
    pub rope: Rope,
    /// The sliding windows.
    pub windows: Windows,
    /// Positions the model was made for (`max_position_embeddings`).
    pub context: usize,
    /// Whether the output matrix is the embedding.
    pub tied_embeddings: bool,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether the three projections of the MLP have biases.
    pub mlp_bias: bool,
    /// Whether queries and keys are normalized per head.
    pub qk_norm: bool,
    /// Tokens that end a text, of `config.json` first, then those that `generation_config.json` adds.
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
            FileError::Absent { .. } => CheckpointError::NoConfig { dir: dir.to_owned() },
            error => error.into(),
        })?;
        let mut config = Self::from_keys(Keys::new(&path, &map))?;
        config.check_sizes().ok_or_else(|| CheckpointError::Contradiction {
            path: path.clone(),
            reason: "describes a model that is larger than this machine can address; repair its sizes".to_owned(),
        })?;
        let path = dir.join("generation_config.json");
        if let Some(map) = read_json_if_there::<Map<String, Value>>(&path, LARGEST_CONFIG)? {
            let more = Keys::new(&path, &map).token_ids("eos_token_id")?;
            config.add_stop_tokens(&more);
        }
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

    fn from_keys(keys: Keys<'_>) -> Result<Self, CheckpointError> {
        let family = family(&keys)?;
        refuse_unsupported(&keys)?;
        let hidden_size = keys.required_size("hidden_size")?;
        let heads = keys.required_size("num_attention_heads")?;
        let kv_heads = keys.size("num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("is {kv_heads}, which does not divide the {heads} of num_attention_heads");
            return Err(keys.error("num_key_value_heads", reason));
        }
        let layers = keys.required_size("num_hidden_layers")?;
        let attention_bias = match family {
            Family::Llama | Family::Qwen3 => keys.flag("attention_bias")?.unwrap_or(false),
            Family::Mistral | Family::Qwen2 => false,
        };
        let mut config = Self {
            family,
            vocab_size: keys.required_size("vocab_size")?,
            hidden_size,
            intermediate_size: keys.required_size("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head_dim: head_dim(&keys, family, hidden_size, heads)?,
            norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope: rope(&keys)?,
            windows: windows(&keys, family, layers)?,
            context: keys.required_size("max_position_embeddings")?,
            tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            qkv_bias: attention_bias || family == Family::Qwen2,
            output_bias: attention_bias,
            mlp_bias: family == Family::Llama && keys.flag("mlp_bias")?.unwrap_or(false),
            qk_norm: family == Family::Qwen3,
            stop_tokens: Vec::new(),
            bos_token: match *keys.token_ids("bos_token_id")?.as_slice() {
                [] => None,
                [id] => Some(id),
                _ => return Err(keys.error("bos_token_id", "must be one token id or null")),
            },
        };
        config.add_stop_tokens(&keys.token_ids("eos_token_id")?);
        Ok(config)
    }

    fn add_stop_tokens(&mut self, ids: &[u32]) {
        for id in ids {
            if !self.stop_tokens.contains(id) {
                self.stop_tokens.push(*id);
            }
        }
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

fn refuse_unsupported(keys: &Keys<'_>) -> Result<(), CheckpointError> {
    if let Some(activation) = keys.text("hidden_act")?.filter(|name| !matches!(*name, "silu" | "swish")) {
        let activation = shown(activation);
        return Err(keys.error("hidden_act", format!("is \"{activation}\", which is not supported; silu is")));
    }
    if keys.count("pretraining_tp")?.is_some_and(|parts| parts != 1) {
        let reason = "is not 1; split linear layers round differently and are not supported";
        return Err(keys.error("pretraining_tp", reason));
    }
    if keys.get("quantization_config").is_some() {
        let reason = "says that the weights are quantized, which is not supported; take the unquantized checkpoint";
        return Err(keys.error("quantization_config", reason));
    }
    whole_rotation(keys)
}

fn whole_rotation(keys: &Keys<'_>) -> Result<(), CheckpointError> {
    if keys.positive("partial_rotary_factor")?.is_some_and(|part| part != 1.0) {
        let reason = "is not 1; rotating a part of each head is not supported";
        return Err(keys.error("partial_rotary_factor", reason));
    }
    Ok(())
}

fn head_dim(keys: &Keys<'_>, family: Family, hidden: usize, heads: usize) -> Result<usize, CheckpointError> {
    let head_dim = match keys.size("head_dim")? {
        Some(head_dim) => head_dim,
        // The default of transformers' Qwen3Config; it is not derived from the other sizes.
        None if family == Family::Qwen3 && !keys.has("head_dim") => 128,
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
fn rope(keys: &Keys<'_>) -> Result<Rope, CheckpointError> {
    let scaling = keys.object("rope_scaling", "rope_scaling.")?;
    let inner = match scaling {
        Some(inner) => Some(inner),
        None => keys.object("rope_parameters", "rope_parameters.")?,
    };
    let outer_theta = keys.positive("rope_theta")?;
    let Some(inner) = inner else {
        return Ok(Rope { theta: outer_theta.unwrap_or(10_000.0), scaling: RopeScaling::None });
    };
    for kind in ["full_attention", "sliding_attention"] {
        if inner.has(kind) {
            return Err(inner.error(kind, "gives a kind of layer its own rotation, which is not supported"));
        }
    }
    whole_rotation(&inner)?;
    let theta = inner.positive("rope_theta")?.or(outer_theta).unwrap_or(10_000.0);
    let (key, name) = match inner.text("rope_type")? {
        Some(name) => ("rope_type", name),
        None => ("type", inner.text("type")?.unwrap_or("default")),
    };
    let needed = |key: &str| {
        inner.positive(key)?.ok_or_else(|| inner.error(key, format!("is missing; the type \"{name}\" needs it")))
    };
    let scaling = match name {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: needed("factor")? },
        "llama3" => {
            let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
            if high <= low {
                return Err(inner.error("high_freq_factor", format!("is {high}, but must be above low_freq_factor")));
            }
            RopeScaling::Llama3 {
                factor: needed("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context: match inner.size("original_max_position_embeddings")? {
                    Some(context) => context,
                    None => keys.required_size("original_max_position_embeddings")?,
                },
            }
        }
        other => {
            let other = shown(other);
            let reason = format!("is \"{other}\", which is not supported; default, linear and llama3 are");
            return Err(inner.error(key, reason));
        }
    };
    Ok(Rope { theta, scaling })
}

fn windows(keys: &Keys<'_>, family: Family, layers: usize) -> Result<Windows, CheckpointError> {
    match family {
        Family::Llama => Ok(Windows::None),
        Family::Mistral => Ok(match keys.size("sliding_window")? {
            Some(window) => Windows::All(window),
            None if keys.has("sliding_window") => Windows::None,
            // The default of transformers' MistralConfig.
            None => Windows::All(4096),
        }),
        Family::Qwen2 | Family::Qwen3 => {
            if !keys.flag("use_sliding_window")?.unwrap_or(false) {
                return Ok(Windows::None);
            }
            let window = match keys.size("sliding_window")? {
                Some(window) => window,
                None if keys.has("sliding_window") => return Ok(Windows::None),
                None => 4096,
            };
            let Some(types) = keys.list("layer_types")? else {
                return Ok(Windows::From { first: keys.count("max_window_layers")?.unwrap_or(28), window });
            };
            if types.len() != layers {
                let reason = format!("has {} entries for the {layers} of num_hidden_layers", types.len());
                return Err(keys.error("layer_types", reason));
            }
            let sliding = |kind: &Value| match kind.as_str() {
                Some("sliding_attention") => Ok(true),
                Some("full_attention") => Ok(false),
                _ => Err(keys.error("layer_types", "may hold full_attention and sliding_attention only")),
            };
            Ok(Windows::Listed { layers: types.iter().map(sliding).collect::<Result<_, _>>()?, window })
        }
    }
}

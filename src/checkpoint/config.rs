//! `config.json` resolved: what the file says in the spellings of many transformers versions becomes one
//! description of the model with every default filled in and every number checked.
//!
//! Whatever would change the model's output and is not supported is refused by name ([`key_table`](super::key_table)); keys
//! that transformers does not read either are ignored.

use std::fmt;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::directory;
use super::error::CheckpointError;
use super::key_table;
use super::keys::Keys;
use super::layer_spec::{LayerSpec, LayerSpecs};
use super::rope::{Rope, RopeScaling};
use super::windows::{Windows, windows};
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

/// A model's description. What its layers compute is said by [`layer`](Self::layer) alone; the sizes beside it that a layer has
/// too are for what is the same in all layers, for display and for fingerprints. Every count is above zero, and the sizes of
/// all matrices, their sum in bytes, and a cache of `context` positions fit `usize`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The architecture, for messages and fingerprints: nothing is computed by it.
    pub family: Family,
    /// Rows of the embedding: token ids are below it.
    pub vocab_size: usize,
    /// Width of the residual stream, in all layers.
    pub hidden_size: usize,
    /// Inner width of the first layer's MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Query heads of the first layer.
    pub heads: usize,
    /// Key and value heads of all layers: they share the pages of a pool.
    pub kv_heads: usize,
    /// Width of a head in all layers: they share pages and the angles of the rotation.
    pub head_dim: usize,
    /// Number added to the mean square by the norms behind the layers: the final one, and those of exit heads.
    pub norm_eps: f32,
    /// The position embedding.
    pub rope: Rope,
    /// The sliding windows as `config.json` words them, which fingerprints repeat.
    pub windows: Windows,
    /// Positions the model was made for (`max_position_embeddings`).
    pub context: usize,
    /// True if the output matrix is the embedding.
    pub tied_embeddings: bool,
    /// The layers.
    #[serde(flatten, serialize_with = "flags_of_layers")]
    pub specs: LayerSpecs,
    /// Tokens that end a text: those of `generation_config.json`, or of `config.json` where that names none.
    pub stop_tokens: Vec<u32>,
    /// The token that begins a text.
    pub bos_token: Option<u32>,
}

/// Biases and norms of the first layer, by the keys that `inspect --json` prints.
fn flags_of_layers<S: Serializer>(specs: &LayerSpecs, serializer: S) -> Result<S::Ok, S::Error> {
    let LayerSpec { qkv_bias, output_bias, mlp_bias, qk_norm, .. } = specs.get(0);
    let mut map = serializer.serialize_map(Some(4))?;
    map.serialize_entry("qkv_bias", qkv_bias)?;
    map.serialize_entry("output_bias", output_bias)?;
    map.serialize_entry("mlp_bias", mlp_bias)?;
    map.serialize_entry("qk_norm", qk_norm)?;
    map.end()
}

impl ModelConfig {
    /// A model of `layers` layers that are `specs`, with an output matrix of its own and no special tokens.
    pub fn new(
        family: Family,
        vocab_size: usize,
        layers: usize,
        specs: LayerSpecs,
        rope: Rope,
        context: usize,
    ) -> Self {
        let first = specs.get(0);
        Self {
            family,
            vocab_size,
            hidden_size: first.hidden_size,
            intermediate_size: first.intermediate_size,
            layers,
            heads: first.heads,
            kv_heads: first.kv_heads,
            head_dim: first.head_dim,
            norm_eps: first.norm_eps,
            rope,
            windows: Windows::None,
            context,
            tied_embeddings: false,
            specs,
            stop_tokens: Vec::new(),
            bos_token: None,
        }
    }

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
        config.check(path)?;
        Ok(config)
    }

    /// Checks what the type's description promises. It is the one place that holds layers to the sizes that they share.
    pub(super) fn check(&self, path: &Path) -> Result<(), CheckpointError> {
        let contradiction =
            |reason: &str| Err(CheckpointError::Contradiction { path: path.to_owned(), reason: reason.to_owned() });
        if self.check_sizes().is_none() {
            return contradiction("describes a model that is larger than this machine can address; repair its sizes");
        }
        let shared = (self.hidden_size, self.kv_heads, self.head_dim);
        let shares = |spec: &LayerSpec| (spec.hidden_size, spec.kv_heads, spec.head_dim) == shared;
        if self.layers == 0 || !self.specs.runs(self.layers).all(|(_, spec)| spec.is_possible() && shares(spec)) {
            return contradiction(
                "describes a layer that is impossible, or that differs from the others in its width or its key and value heads; repair its sizes",
            );
        }
        Ok(())
    }

    /// The layer of an index.
    pub fn layer(&self, index: usize) -> &LayerSpec {
        self.specs.get(index)
    }

    /// The sliding window of a layer in positions, `None` if it sees everything.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.layer(layer).window
    }

    /// The widest of the layers' windows; `None` if a layer sees all.
    pub fn widest_window(&self) -> Option<usize> {
        let windows: Option<Vec<usize>> = self.specs.runs(self.layers).map(|(_, spec)| spec.window).collect();
        windows?.into_iter().max()
    }

    /// Reads the model that a file describes: a family's rules become layers here, and nothing behind it knows families.
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
        let windows = windows(&keys, family, layers, context)?;
        let specs = windows.layers(&layer(&keys, family, hidden_size, heads)?);
        Ok(Self {
            windows,
            tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            stop_tokens: distinct(special_tokens(&keys, "eos_token_id", family, 2)?),
            bos_token: match *special_tokens(&keys, "bos_token_id", family, 1)?.as_slice() {
                [] => None,
                [id] => Some(id),
                _ => return Err(keys.error("bos_token_id", "must be one token id or null")),
            },
            ..Self::new(family, vocab_size, layers, specs, rope(&keys, family, context)?, context)
        })
    }

    /// `None` if the size in bytes of the weights as float32, or of a full cache, does not fit.
    fn check_sizes(&self) -> Option<()> {
        let (mut layers, mut keys) = (0_usize, 0_usize);
        for (range, spec) in self.specs.runs(self.layers) {
            layers = layers.checked_add(spec.most_values()?.checked_mul(range.len())?)?;
            keys = keys.checked_add(spec.key_width().checked_mul(range.len())?)?;
        }
        let matrices = self.vocab_size.checked_add(1)?.checked_mul(self.hidden_size)?.checked_mul(2)?;
        let weights = layers.checked_add(matrices)?.checked_mul(4)?;
        let cache = keys.checked_mul(self.context)?.checked_mul(8)?;
        let largest = isize::MAX.unsigned_abs();
        (weights <= largest && cache <= largest).then_some(())
    }
}

/// A layer by the rules of its family, but for its window.
fn layer(keys: &Keys<'_>, family: Family, hidden_size: usize, heads: usize) -> Result<LayerSpec, CheckpointError> {
    let head_dim = head_dim(keys, family, hidden_size, heads)?;
    let has_bias = matches!(family, Family::Llama | Family::Qwen3);
    let attention_bias = has_bias && keys.flag("attention_bias")?.unwrap_or(false);
    Ok(LayerSpec {
        hidden_size,
        intermediate_size: keys.required_size("intermediate_size")?,
        heads,
        kv_heads: kv_heads(keys, family, heads)?,
        head_dim,
        norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        qkv_bias: attention_bias || family == Family::Qwen2,
        output_bias: attention_bias,
        mlp_bias: family == Family::Llama && keys.flag("mlp_bias")?.unwrap_or(false),
        qk_norm: family == Family::Qwen3,
        window: None,
        score_factor: LayerSpec::usual_score_factor(head_dim),
    })
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

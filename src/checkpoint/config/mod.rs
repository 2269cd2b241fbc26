//! `config.json` resolved: what the file says in the spellings of many transformers versions becomes one
//! description of the model with every default filled in and every number checked.
//!
//! Whatever would change the model's output and is not supported is refused by name ([`key_table`](super::key_table)); keys
//! that transformers does not read either are ignored.

mod family;
mod layers;
mod rotation;
mod windows;

use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

pub use self::family::Family;
use self::family::Rules;
pub use self::windows::Windows;
use super::directory;
use super::error::CheckpointError;
use super::key_table;
use super::keys::Keys;
use super::layer_spec::{LayerSpec, LayerSpecs};
use super::rope::Rope;
use crate::files::of_model::{FileError, read_json, read_json_if_there};
use crate::visible::shown;

/// Real configurations have a few kilobytes.
const LARGEST_CONFIG: u64 = 1 << 20;

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
    /// The position embedding of layers that have none of their own.
    pub rope: Rope,
    /// The sliding windows as `config.json` words them, which fingerprints repeat.
    pub windows: Windows,
    /// Positions the model was made for (`max_position_embeddings`).
    pub context: usize,
    /// True if the output matrix is the embedding.
    pub tied_embeddings: bool,
    /// Factor that a token's embedding is multiplied by before the first layer.
    pub embedding_factor: f32,
    /// Divisor of the logits.
    pub logit_divisor: f32,
    /// Cap c of the logits that come of it: a logit x becomes `c * tanh(x / c)`.
    pub logit_cap: Option<f32>,
    /// Number added to the stored weights of all norms: 1 where files hold their difference from one.
    pub norm_offset: f32,
    /// True if files hold the matrices of queries, keys and values as one, and those of gate and up as one.
    pub fused_matrices: bool,
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
            embedding_factor: 1.0,
            logit_divisor: 1.0,
            logit_cap: None,
            norm_offset: 0.0,
            fused_matrices: false,
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
        let rotates = |spec: &LayerSpec| spec.rotated == 0 || self.rope_of(spec).fits(spec.rotated);
        let has_factors = |spec: &LayerSpec| spec.has_usable_factors() && rotates(spec);
        let fits = |spec: &LayerSpec| spec.is_possible() && shares(spec);
        let positive = |number: f32| number.is_finite() && number > 0.0;
        if !([self.embedding_factor, self.logit_divisor].into_iter().chain(self.logit_cap).all(positive)) {
            return contradiction("scales embeddings or logits by a number that is not above zero; repair it");
        }
        if !self.specs.runs(self.layers).all(|(_, spec)| has_factors(spec)) {
            return contradiction(
                "has numbers for its rotation, its scores or its residuals that nothing can be computed with; repair them",
            );
        }
        if self.layers == 0 || !self.specs.runs(self.layers).all(|(_, spec)| fits(spec)) {
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

    /// The position embedding of a layer.
    pub fn rope_of<'a>(&'a self, spec: &'a LayerSpec) -> &'a Rope {
        spec.rope.as_ref().unwrap_or(&self.rope)
    }

    /// Tokens of the longest text that turns by the same frequencies as all shorter ones, where a longer one within the context
    /// turns by others, from its first position on.
    pub fn longest_short_text(&self) -> Option<usize> {
        let layers = self.specs.runs(self.layers);
        let longest = layers.filter_map(|(_, spec)| self.rope_of(spec).longest_short_text()).min();
        longest.filter(|longest| *longest < self.context)
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
        let rules = family::rules(&keys)?;
        key_table::check(&keys, rules.family, "")?;
        refuse_contradictions(&keys, rules)?;
        let layers = keys.required_size("num_hidden_layers")?;
        let vocab_size = keys.required_size("vocab_size")?;
        let stated_context = keys.required_size("max_position_embeddings")?;
        refuse_padding_beyond(&keys, vocab_size)?;
        let windows = windows::windows(&keys, rules.family, layers, stated_context)?;
        let spec = layers::layer(&keys, rules)?;
        let rotation = rotation::read(&keys, rules, &spec, stated_context)?;
        let spec = LayerSpec { rotated: rotation.rotated, ..spec };
        let specs = layers::by_kind(&keys, rules, windows.layers(&spec), layers, rotation.near)?;
        let embedding_factor = match rules.scales_embeddings {
            true => (spec.hidden_size as f64).sqrt(),
            false if rules.has_multipliers => keys.positive("embedding_multiplier")?.unwrap_or(1.0),
            false => 1.0,
        };
        let logit_divisor = if rules.has_multipliers { keys.positive("logits_scaling")? } else { None };
        Ok(Self {
            windows,
            tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(rules.tied_embeddings),
            embedding_factor: embedding_factor as f32,
            logit_divisor: logit_divisor.unwrap_or(1.0) as f32,
            logit_cap: match rules.has_logit_cap {
                true => layers::cap(&keys, "final_logit_softcapping", rules.logit_cap)?,
                false => None,
            },
            norm_offset: rules.norm_offset,
            fused_matrices: rules.fused_matrices,
            stop_tokens: distinct(special_tokens(&keys, "eos_token_id", rules.end)?),
            bos_token: match *special_tokens(&keys, "bos_token_id", rules.beginning)?.as_slice() {
                [] => None,
                [id] => Some(id),
                _ => return Err(keys.error("bos_token_id", "must be one token id or null")),
            },
            ..Self::new(rules.family, vocab_size, layers, specs, rotation.rope, stated_context)
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

/// Refuses contradictions that a row of the table of keys cannot express: between the values of several keys.
fn refuse_contradictions(keys: &Keys<'_>, rules: &Rules) -> Result<(), CheckpointError> {
    let (family, wanted) = (rules.model_type, format!("{}ForCausalLM", rules.family));
    let architectures = keys.list("architectures")?.unwrap_or_default();
    let is_ours = |name: &Value| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(&wanted));
    if let Some(other) = architectures.first().filter(|_| !architectures.iter().any(is_ours)) {
        let other = shown(&other.to_string());
        let reason = format!("names {other}, but the model_type \"{family}\" is computed as a causal language model");
        return Err(keys.error("architectures", format!("{reason}; take a checkpoint of that kind")));
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
fn special_tokens(keys: &Keys<'_>, key: &str, default: Option<u32>) -> Result<Vec<u32>, CheckpointError> {
    if keys.has(key) { keys.token_ids(key) } else { Ok(default.into_iter().collect()) }
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

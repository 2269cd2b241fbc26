//! Settings: what to load ([`EngineConfig`]) and how to answer ([`GenerationConfig`]).
//!
//! Their fields, in kebab-case, are the keys of a config file and the flags of the command line.

use std::path::PathBuf;

use paceline_kernels::{CacheFormat, FloatFormat, PAGE_POSITIONS, QuantizedFormat};
use paceline_router::{Objective, Profile};
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::drafters::DrafterChoice;
use crate::meters::EnergyConfig;
use crate::model::{DeviceName, LayerChoice, MatrixFormat, SkipPlan};
use crate::routing::RequestHints;
use crate::sampling::{SamplingConfig, SamplingError};
use crate::speculation::DraftLength;

/// Answers that may be made at once: as many as may wait besides.
const MOST_PARALLEL: usize = 64;

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// One cannot be what it is: a sentence about it.
    #[error("The configuration cannot be used: {0}")]
    Setting(String),
    /// Those of sampling.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

/// Models to load and the device to run them on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EngineConfig {
    /// Directory of the target model.
    pub model: Option<PathBuf>,
    /// Directories of draft models, each known by its last part as `model:NAME`.
    #[serde(deserialize_with = "one_or_many")]
    pub draft: Vec<PathBuf>,
    /// The device that computes.
    pub device: DeviceName,
    /// Processor threads; 0 takes as many as the process may use.
    pub threads: usize,
    /// Bind threads to processors. For machines with nothing else to do: elsewhere a bound thread waits for its
    /// processor while others are free.
    pub pin_threads: bool,
    /// The target's precision. What is named here defines the target.
    pub precision: Precision,
    /// The draft models' precision.
    pub draft_precision: Precision,
    /// The precision of keys and values in the caches of target and draft models. It defines the target like its own.
    pub kv_cache: CachePrecision,
    /// Tokens whose keys and values are held at once, of all answers together; 0 for as many as there is memory for. An answer
    /// that may need more is refused; where answers together do, the youngest waits and goes on later with the same tokens.
    pub kv_pool: usize,
    /// Answers that are made at once, at most, sharing steps; 0 takes 8. Others wait their turn.
    pub parallel: usize,
    /// Lower precisions that the target is loaded in as well, to draft for itself (`self:int4`).
    #[serde(deserialize_with = "one_or_many")]
    pub self_draft: Vec<SelfDraft>,
    /// Sublayers without which the target may draft for itself when `auto` chooses.
    pub skip_plan: Option<SkipPlan>,
    /// Leave the router that lies beside the target out: `auto` then goes by measurements alone.
    pub no_router: bool,
    /// A file for what is learned while serving: how acceptance differs from what the router expects, and what work takes here.
    /// Read at the start, written every few seconds and at the end. Without one all of that ends with the engine.
    pub online_state: Option<PathBuf>,
    /// Learn nothing of that while serving: the router's expectations stay as they are.
    pub frozen: bool,
    /// Certificates for answers in quality `bounded`; where none is named, those in the folder `certificates` beside the target
    /// are found by themselves. The lower precisions that they name must be loaded too ([`crate::certificate::needed_precisions`]).
    #[serde(deserialize_with = "one_or_many")]
    pub certificate: Vec<PathBuf>,
    /// A text like those that the model is for, by which [`GenerationConfig::skip_layers`] measures what layers matter; without
    /// it the model writes one itself.
    pub importance_text: Option<PathBuf>,
    /// A folder, made if it is not there, that keeps the weights of models in a precision that was named, for a faster next start: a
    /// file for each, as large as the weights then are in memory. They serve the model whose weights files they were made of. Any of them may be removed.
    pub materialization_root: Option<PathBuf>,
    /// Source of the energy that answers take.
    #[serde(flatten)]
    pub energy: EnergyConfig,
    /// A file that a digest of each answer is added to, without prompts and texts ([`crate::journal`]). Without one none is kept.
    pub journal: Option<PathBuf>,
    /// Keep no journal, even where one is named.
    pub no_journal: bool,
}

impl EngineConfig {
    /// A config for the model in `directory`, everything else at its default.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { model: Some(directory.into()), ..Self::default() }
    }

    /// Checks every field against its range; what must be there is found when an engine is loaded.
    ///
    /// # Errors
    /// A sentence that names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.energy.validate().map_err(ConfigError::Setting)?;
        if self.parallel > MOST_PARALLEL {
            return Err(ConfigError::Setting(format!(
                "`parallel` is {}, and at most {MOST_PARALLEL} answers are made at once: write a smaller number, or 0 for the default.",
                self.parallel
            )));
        }
        if (1..2 * PAGE_POSITIONS).contains(&self.kv_pool) {
            return Err(ConfigError::Setting(format!(
                "`kv-pool` is {}, which holds hardly any answer: write {} or more tokens, or 0 for as many as there is memory for.",
                self.kv_pool,
                2 * PAGE_POSITIONS
            )));
        }
        Ok(())
    }

    /// Answers that are made at once, after resolving 0.
    pub fn resolved_parallel(&self) -> usize {
        if self.parallel == 0 { 8 } else { self.parallel }
    }

    /// Pages that a pool may have.
    pub(crate) fn pool_pages(&self) -> usize {
        // A page that is begun counts as a whole one.
        if self.kv_pool == 0 { usize::MAX } else { self.kv_pool / PAGE_POSITIONS }
    }

    /// The number of threads after resolving 0.
    pub fn resolved_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        }
    }
}

/// In which precision matrices are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As stored in the checkpoint.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floats.
    F16,
    /// 8-bit integers in groups with a scale each.
    Int8,
    /// 4-bit integers in groups with a scale and a minimum each; keys' and values' projections as with `Int8`.
    Int4,
}

impl Precision {
    /// The format to convert matrices to; `None` leaves them as stored.
    pub fn format(self) -> Option<MatrixFormat> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(MatrixFormat::Float(FloatFormat::F32)),
            Self::Bf16 => Some(MatrixFormat::Float(FloatFormat::Bf16)),
            Self::F16 => Some(MatrixFormat::Float(FloatFormat::F16)),
            Self::Int8 => Some(MatrixFormat::Quantized(QuantizedFormat::Int8)),
            Self::Int4 => Some(MatrixFormat::Quantized(QuantizedFormat::Int4)),
        }
    }

    /// The precisions below this one that a target may be loaded in as well, the highest first.
    pub fn lower(self) -> &'static [SelfDraft] {
        match self {
            Self::Int4 => &[],
            Self::Int8 => &[SelfDraft::Int4],
            // Of a file that stores integers, those below its own.
            Self::Auto | Self::F32 | Self::Bf16 | Self::F16 => &[SelfDraft::Int8, SelfDraft::Int4],
        }
    }
}

/// In which precision keys and values are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CachePrecision {
    /// 32-bit floats, as they are computed.
    #[default]
    F32,
    /// 16-bit floats: half the memory, and half of what attention reads. On the processor alone.
    F16,
}

impl CachePrecision {
    /// The format of the cache.
    pub fn format(self) -> CacheFormat {
        match self {
            Self::F32 => CacheFormat::F32,
            Self::F16 => CacheFormat::F16,
        }
    }
}

/// A precision in which a target drafts for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelfDraft {
    /// 8-bit integers in groups with a scale each.
    Int8,
    /// 4-bit integers in groups with a scale and a minimum each.
    Int4,
}

impl SelfDraft {
    /// The format of the matrices.
    pub fn format(self) -> QuantizedFormat {
        match self {
            Self::Int8 => QuantizedFormat::Int8,
            Self::Int4 => QuantizedFormat::Int4,
        }
    }
}

impl From<QuantizedFormat> for SelfDraft {
    fn from(format: QuantizedFormat) -> Self {
        match format {
            QuantizedFormat::Int8 => Self::Int8,
            QuantizedFormat::Int4 => Self::Int4,
        }
    }
}

/// Settings of the answer to one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct GenerationConfig {
    /// Tokens to generate at most, at least 1.
    pub max_new_tokens: usize,
    /// Settings of how tokens are picked.
    #[serde(flatten)]
    pub sampling: SamplingConfig,
    /// Texts that end the answer; they are not part of it. A special token among them, as in `<|im_end|>`, ends it where the
    /// token comes ([`crate::text::stream`]).
    #[serde(deserialize_with = "one_or_many")]
    pub stop: Vec<String>,
    /// Values given to the chat template beside the messages ([`crate::text::ChatTemplate::render_with`]): `tools`,
    /// `documents`, `enable_thinking`. Prompts that are not messages have no use for it.
    pub template_args: serde_json::Map<String, serde_json::Value>,
    /// Go on after the model's own stop tokens.
    pub ignore_eos: bool,
    /// The drafter.
    pub drafter: DrafterChoice,
    /// Tokens to draft ahead.
    pub draft_len: DraftLength,
    /// Quality that may be given up for speed.
    pub quality: Quality,
    /// Priority: time, energy, both, or memory.
    pub profile: Profile,
    /// The same in weights of one's own, instead of the profile.
    #[serde(deserialize_with = "objective")]
    pub weights: Option<Objective>,
    /// Hints that the request gives the router about itself.
    #[serde(deserialize_with = "hints")]
    pub hints: RequestHints,
    /// The quality that `bounded` keeps at least, as a share of the target's, from 0 to 1. At 1 the target answers in full, and
    /// needs no certificate.
    pub quality_floor: Option<f64>,
    /// With `best_effort`: a token comes out without verification where an exit of the target is sure of it, by a calibrated
    /// probability of at least this, from 0.5 to 1, at which none does. `drafter` may name the exit.
    pub exit_threshold: Option<f64>,
    /// With `best_effort`: the target does without these layers, in the prompt and in every step.
    pub skip_layers: Option<LayerChoice>,
    /// With `best_effort`: the target answers in this lower precision, of those it was loaded in ([`EngineConfig::self_draft`]).
    pub lower_precision: Option<SelfDraft>,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 256,
            sampling: SamplingConfig::default(),
            stop: Vec::new(),
            template_args: serde_json::Map::new(),
            ignore_eos: false,
            drafter: DrafterChoice::Auto,
            draft_len: DraftLength::Auto,
            quality: Quality::Exact,
            profile: Profile::Latency,
            weights: None,
            hints: RequestHints::default(),
            quality_floor: None,
            exit_threshold: None,
            skip_layers: None,
            lower_precision: None,
        }
    }
}

/// A list, or its only entry.
fn one_or_many<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let many = match Value::deserialize(deserializer)? {
        text @ Value::String(_) => Value::Array(vec![text]),
        other => other,
    };
    serde_json::from_value(many).map_err(D::Error::custom)
}

/// Hints as the flag has them, or as a table.
fn hints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RequestHints, D::Error> {
    RequestHints::from_json(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Weights as the flag has them, or as a table.
fn objective<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Objective>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(D::Error::custom),
        Some(table @ Value::Object(_)) => serde_json::from_value(table).map(Some).map_err(D::Error::custom),
        Some(_) => Err(D::Error::custom("write a text like \"time=1,energy=0.5\", or a table like { time = 1 }")),
    }
}

/// Quality that may be given up for speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Nothing: the tokens are those of plain decoding.
    #[default]
    Exact,
    /// As much as leaves a quality floor, by a statistical certificate.
    Bounded,
    /// Whatever is asked for, without a promise; where nothing is, what the router expects to change hardly an answer, of the
    /// precisions that were loaded.
    #[serde(alias = "best-effort")]
    BestEffort,
}

impl GenerationConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// A sentence that names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.max_new_tokens == 0 {
            return Err(ConfigError::Setting(
                "`max-new-tokens` is 0, so nothing would be generated; ask for at least 1.".into(),
            ));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(ConfigError::Setting(
                "a `stop` text is empty, which would stop every answer at once; leave it out.".into(),
            ));
        }
        let told = |(name, result): (&str, Result<(), String>)| {
            result.map_err(|reason| {
                ConfigError::Setting(format!("`{name}` cannot be used: {reason}.").replace("..", "."))
            })
        };
        let weights = self.weights.map_or(Ok(()), |weights| weights.check());
        [("hints", self.hints.check()), ("weights", weights)].into_iter().try_for_each(told)?;
        self.validate_quality().map_err(ConfigError::Setting)?;
        Ok(self.sampling.validate()?)
    }

    /// The priorities, in weights.
    pub fn objective(&self) -> Objective {
        self.weights.unwrap_or_else(|| self.profile.objective())
    }

    /// Checks what may be given up, and what of it is asked for; the error ends the sentence.
    fn validate_quality(&self) -> Result<(), String> {
        let asked = [
            ("exit-threshold", self.exit_threshold.is_some()),
            ("skip-layers", self.skip_layers.is_some()),
            ("lower-precision", self.lower_precision.is_some()),
        ];
        let asked: Vec<&str> = asked.iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| *name).collect();
        if let Some(threshold) = self.exit_threshold.filter(|threshold| !(0.5..=1.0).contains(threshold)) {
            return Err(format!("`exit-threshold` is {threshold}, but it must be a probability from 0.5 to 1."));
        }
        if let Some(floor) = self.quality_floor.filter(|floor| !(0.0..=1.0).contains(floor)) {
            return Err(format!("`quality-floor` is {floor}, but it must be a share from 0 to 1."));
        }
        match (self.quality, &*asked, self.quality_floor) {
            (Quality::Exact, [name, ..], _) => {
                return Err(format!(
                    "`{name}` changes what comes out, which quality `exact` never does: add `--quality best-effort` (in a file `quality = \"best_effort\"`), or leave it out."
                ));
            }
            (Quality::Bounded, _, None) => {
                return Err(
                    "quality `bounded` needs to know what to keep: add `--quality-floor Q`, as in 0.98.".to_owned()
                );
            }
            (Quality::BestEffort, _, Some(_)) => {
                return Err(
                    "quality `best-effort` keeps no `quality-floor`: leave the floor out, or choose `bounded`."
                        .to_owned(),
                );
            }
            (Quality::Bounded, [name, ..], _) => {
                return Err(format!(
                    "`{name}` names what to give up, and with quality `bounded` the certificate does: leave it out, or choose `best-effort`."
                ));
            }
            (_, [first, second, ..], _) => {
                return Err(format!(
                    "`{first}` and `{second}` are two ways to give up quality, and an answer takes one: leave one out."
                ));
            }
            _ => {}
        }
        if self.quality == Quality::Bounded && !self.sampling.is_greedy() {
            return Err(
                "certificates are of greedy answers, so quality `bounded` takes no `temperature` and no penalties: leave them out, or choose `exact`."
                    .to_owned(),
            );
        }
        if self.quality == Quality::Bounded && (self.ignore_eos || !self.stop.is_empty()) {
            return Err(
                "certificates are of answers that end where the model ends them, so quality `bounded` takes no `ignore-eos` and no `stop`: leave them out, or choose `exact`."
                    .to_owned(),
            );
        }
        let is_exit = matches!(self.drafter, DrafterChoice::Auto | DrafterChoice::Exit(_));
        if self.exit_threshold.is_some() && !is_exit {
            return Err(format!(
                "`exit-threshold` has tokens come from an exit, and the drafter `{}` is none: choose `auto` or `exit:E`.",
                self.drafter
            ));
        }
        Ok(())
    }
}

//! Facts about the models that an engine has loaded, as plain data.

use std::path::PathBuf;

use paceline_kernels::{CacheFormat, QuantizedFormat};

use crate::checkpoint::ModelConfig;
use crate::drafters::DrafterChoice;
use crate::meters::Meter;
use crate::model::MatrixFormat;

/// Facts about the models that an engine has loaded.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    /// Where the target came from.
    pub directory: PathBuf,
    /// Harmless errors in what the files of target and draft models say about themselves; answers' warnings repeat
    /// them.
    pub notes: Vec<String>,
    /// The target's shape and settings.
    pub target: ModelConfig,
    /// The precision of its matrices.
    pub format: MatrixFormat,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// Format of keys and values in its cache and the draft models'.
    pub cache_format: CacheFormat,
    /// Bytes that a token takes in the target's cache.
    pub cache_bytes_per_token: u64,
    /// The names of the draft models.
    pub drafts: Vec<String>,
    /// Every drafter there is. Skip plans beyond the one that was set can be asked for as well.
    pub drafters: Vec<DrafterChoice>,
    /// Depths of the target's trained exits, rising.
    pub exits: Vec<usize>,
    /// Lower precisions that the target was loaded in as well.
    pub lower_precisions: Vec<QuantizedFormat>,
    /// The instruction set of the kernels' floats, or `burn` on devices without them.
    pub instruction_set: String,
    /// Processor threads in use.
    pub threads: usize,
    /// True if the promise of identical bits holds on this device.
    pub exact: bool,
    /// State of the router that judges prompts.
    pub router: RouterState,
    /// Meter of the energy that answers take, which may be asked by others too.
    pub meter: Meter,
    /// The file that a digest of each answer is added to, if one is kept.
    pub journal: Option<PathBuf>,
}

/// State of the router that judges prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterState {
    /// The one beside the target does.
    Used,
    /// There is none, or it was to be left out.
    Absent,
    /// The one beside the target cannot be used, and `auto` goes by measurements alone: why, in a sentence.
    Refused(String),
}

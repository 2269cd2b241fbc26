//! Sliding windows: the keys of `config.json` that say which layers have one, and the layers that follow.

use serde::Serialize;
use serde_json::Value;

use super::Family;
use crate::checkpoint::error::CheckpointError;
use crate::checkpoint::keys::Keys;
use crate::checkpoint::layer_spec::{LayerSpec, LayerSpecs, but_each_last};

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

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

impl Windows {
    /// Layers that are all `spec`, but for the windows.
    pub(in crate::checkpoint) fn layers(&self, spec: &LayerSpec) -> LayerSpecs {
        let windowed = |window| LayerSpec { window: Some(window), ..spec.clone() };
        let full = LayerSpec { window: None, ..spec.clone() };
        match self {
            Self::None => LayerSpecs::alike(full),
            Self::All(window) => LayerSpecs::alike(windowed(*window)),
            Self::From { first, window } => LayerSpecs::alike(full).from_layer(*first, windowed(*window)),
            Self::Listed { layers, window } => {
                let kind = |has_window: &bool| if *has_window { windowed(*window) } else { full.clone() };
                let kinds = layers.iter().map(kind).enumerate();
                kinds.fold(LayerSpecs::alike(full.clone()), |specs, (index, spec)| specs.from_layer(index, spec))
            }
        }
    }
}

/// The windows of a model of `layers` layers, by its family's rules.
pub(super) fn windows(
    keys: &Keys<'_>,
    family: Family,
    layers: usize,
    context: usize,
) -> Result<Windows, CheckpointError> {
    let types = layer_types(keys, layers)?;
    match family {
        Family::Llama | Family::Granite => {
            let all_full = types.as_ref().is_some_and(|types| !types.contains(&true));
            if types.is_some() && !all_full {
                return Err(
                    keys.error("layer_types", format!("has {SLIDING}, which {family} does not have; {FULL} is"))
                );
            }
            let window = keys.size("sliding_window")?;
            if let Some(window) = window.filter(|window| *window < context && !all_full) {
                let reason =
                    format!("is {window}, but {family} has no window; leave it out, or take a mistral checkpoint");
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
        Family::Gemma2 | Family::Gemma3 => gemma_windows(keys, family, types, layers),
        Family::Phi3 => {
            let window = window_size(keys)?;
            if types.is_some_and(|types| types.contains(&window.is_none())) {
                let wanted = if window.is_some() { SLIDING } else { FULL };
                return Err(keys.error("layer_types", format!("must be {wanted} for every layer; leave it out")));
            }
            Ok(window.map_or(Windows::None, Windows::All))
        }
        Family::SmolLm3 => smollm3_windows(keys, types, layers),
    }
}

/// All layers but each second one, or sixth one, by the family.
fn gemma_windows(
    keys: &Keys<'_>,
    family: Family,
    types: Option<Vec<bool>>,
    layers: usize,
) -> Result<Windows, CheckpointError> {
    let window = window_size(keys)?.unwrap_or(4096);
    let period = match family {
        Family::Gemma3 => keys.size("sliding_window_pattern")?.unwrap_or(6),
        _ => 2,
    };
    let layers = types.map_or_else(|| every(keys, period, layers), Ok)?;
    Ok(if layers.contains(&true) { Windows::Listed { layers, window } } else { Windows::None })
}

/// False for the last layer of every period, true for the others.
fn every(keys: &Keys<'_>, period: usize, layers: usize) -> Result<Vec<bool>, CheckpointError> {
    but_each_last(period, layers).map_err(|reason| keys.error("num_hidden_layers", reason))
}

/// With a window, by default the layers that are not rotated.
fn smollm3_windows(keys: &Keys<'_>, types: Option<Vec<bool>>, layers: usize) -> Result<Windows, CheckpointError> {
    let used = keys.flag("use_sliding_window")?.unwrap_or(false);
    let window = window_size(keys)?.filter(|_| used);
    used_windows(keys, window, types, |window| {
        let layers = rotated_layers(keys, layers)?.into_iter().map(|is_rotated| !is_rotated).collect();
        Ok(Windows::Listed { layers, window })
    })
}

/// The windows of the layers that a file lists, if windows are used at all; else those that are so `by_default`.
fn used_windows(
    keys: &Keys<'_>,
    window: Option<usize>,
    types: Option<Vec<bool>>,
    by_default: impl FnOnce(usize) -> Result<Windows, CheckpointError>,
) -> Result<Windows, CheckpointError> {
    match (window, types) {
        (None, Some(types)) if types.contains(&true) => {
            let reason = format!("has {SLIDING}, but use_sliding_window and sliding_window give no window");
            Err(keys.error("layer_types", reason))
        }
        (None, _) => Ok(Windows::None),
        (Some(window), Some(layers)) => Ok(Windows::Listed { layers, window }),
        (Some(window), None) => by_default(window),
    }
}

/// For every layer of SmolLM 3 whether it is rotated.
pub(super) fn rotated_layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<bool>, CheckpointError> {
    let key = "no_rope_layers";
    let period = keys.size("no_rope_layer_interval")?.unwrap_or(4);
    let Some(listed) = keys.list(key)? else { return every(keys, period, layers) };
    if listed.len() < layers {
        let reason = format!("has {} entries for the {layers} of num_hidden_layers", listed.len());
        return Err(keys.error(key, reason));
    }
    // 1, against its name, is a layer that is rotated.
    let is_rotated = |entry: &Value| match entry.as_u64() {
        Some(number @ (0 | 1)) => Ok(number == 1),
        _ => Err(keys.error(key, "may hold 1 for layers that are rotated and 0 for the others only")),
    };
    listed.iter().take(layers).map(is_rotated).collect()
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
    used_windows(keys, window, types, |window| Ok(Windows::From { first, window }))
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

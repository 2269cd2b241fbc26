//! The position embedding of `config.json`, in the spellings of many versions of transformers.

use super::family::Rules;
use crate::checkpoint::error::CheckpointError;
use crate::checkpoint::key_table;
use crate::checkpoint::keys::Keys;
use crate::checkpoint::layer_spec::LayerSpec;
use crate::checkpoint::rope::{Rope, RopeScaling};
use crate::visible::shown;

const ORIGINAL: &str = "original_max_position_embeddings";
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// What a file says of rotations.
pub(super) struct Rotation {
    pub(super) rope: Rope,
    /// That of layers with a window, where the family has one for them.
    pub(super) near: Option<Rope>,
    /// Values of each head that turn.
    pub(super) rotated: usize,
}

/// A reader of one rotation.
struct Reader<'a> {
    keys: &'a Keys<'a>,
    rules: &'a Rules,
    head_dim: usize,
    context: usize,
}

/// Reads the rotations of a model whose layers are `spec`, but for them. Old files have `rope_theta` and `rope_scaling` side by
/// side; transformers 5 puts both into `rope_parameters`.
pub(super) fn read(
    keys: &Keys<'_>,
    rules: &Rules,
    spec: &LayerSpec,
    context: usize,
) -> Result<Rotation, CheckpointError> {
    let reader = Reader { keys, rules, head_dim: spec.head_dim, context };
    let scaling = keys.object("rope_scaling", "rope_scaling.")?.filter(|inner| !inner.is_empty());
    let parameters = keys.object("rope_parameters", "rope_parameters.")?;
    if rules.rotates_by_kind {
        return reader.by_kind(scaling, parameters);
    }
    let inner = scaling.or(parameters);
    if let Some(inner) = &inner {
        key_table::check(inner, rules.family, "rope_parameters.")?;
    }
    let theta = reader.theta(inner.as_ref(), "rope_theta", rules.theta)?;
    let rotated = reader.rotated(inner.as_ref())?;
    let scaling = inner.map_or(Ok(RopeScaling::None), |inner| reader.scaling(&inner, rotated))?;
    Ok(Rotation { rope: Rope { theta, scaling }, near: None, rotated })
}

impl Reader<'_> {
    /// Two rotations: `rope_parameters` holds one object for each kind of layer; `rope_scaling` is of those that see everything.
    fn by_kind(&self, scaling: Option<Keys<'_>>, parameters: Option<Keys<'_>>) -> Result<Rotation, CheckpointError> {
        let of_kind = |kind: &str, prefix: &'static str| match &parameters {
            Some(parameters) => parameters.object(kind, prefix),
            None => Ok(None),
        };
        let far = of_kind(FULL, "rope_parameters.full_attention.")?;
        let near = of_kind(SLIDING, "rope_parameters.sliding_attention.")?;
        if let Some(parameters) = &parameters
            && let Some(other) = parameters.names().find(|name| ![FULL, SLIDING].contains(name))
        {
            let reason = format!("is not beside {FULL} and {SLIDING}, of which each has its own; move it there");
            return Err(parameters.error(other, reason));
        }
        if scaling.is_some() && far.is_some() {
            let reason = format!("is there beside rope_parameters.{FULL}; leave one of them out");
            return Err(self.keys.error("rope_scaling", reason));
        }
        let far = scaling.or(far);
        for inner in far.iter().chain(&near) {
            key_table::check(inner, self.rules.family, "rope_parameters.")?;
        }
        let rope = |inner: Option<Keys<'_>>, key: &str, default: f64| {
            let theta = self.theta(inner.as_ref(), key, default)?;
            let scaling = inner.map_or(Ok(RopeScaling::None), |inner| self.scaling(&inner, self.head_dim))?;
            Ok::<_, CheckpointError>(Rope { theta, scaling })
        };
        let near = rope(near, "rope_local_base_freq", 10_000.0)?;
        let rope = rope(far, "rope_theta", self.rules.theta)?;
        Ok(Rotation { rope, near: Some(near), rotated: self.head_dim })
    }

    /// The base of the frequencies, beside the rotation under `key`.
    fn theta(&self, inner: Option<&Keys<'_>>, key: &str, default: f64) -> Result<f64, CheckpointError> {
        if let Some(theta) = inner.map_or(Ok(None), |inner| inner.positive("rope_theta"))? {
            return Ok(theta);
        }
        match self.keys.positive(key)? {
            None if self.keys.has(key) => {
                Err(self.keys.error(key, "is null, which stands for nothing; give it a value"))
            }
            theta => Ok(theta.unwrap_or(default)),
        }
    }

    /// Values of a head that turn.
    fn rotated(&self, inner: Option<&Keys<'_>>) -> Result<usize, CheckpointError> {
        if !self.rules.partial_rotation {
            return Ok(self.head_dim);
        }
        let key = "partial_rotary_factor";
        let of_inner = inner.map_or(Ok(None), |inner| inner.positive(key))?;
        let factor = match of_inner {
            Some(factor) => factor,
            None => self.keys.positive(key)?.unwrap_or(1.0),
        };
        let rotated = (self.head_dim as f64 * factor) as usize;
        if factor > 1.0 || rotated == 0 || !rotated.is_multiple_of(2) {
            let reason = format!(
                "is {factor}, by which {rotated} of a head's {} values turn; it must be above 0, at most 1, and give an even number",
                self.head_dim
            );
            return Err(self.keys.error(key, reason));
        }
        Ok(rotated)
    }

    /// Positions in pretraining. Versions of transformers disagree about which of two numbers goes first.
    fn original_context(&self, inner: &Keys<'_>) -> Result<usize, CheckpointError> {
        let outer = self.keys.size(ORIGINAL)?.or(self.rules.original_context);
        match (outer, inner.size(ORIGINAL)?) {
            (Some(outer), Some(inner)) if outer != inner => {
                Err(self.keys.error(ORIGINAL, format!("is {outer}, but inside of the rotation it is {inner}")))
            }
            (outer, inner) => Ok(inner.or(outer).unwrap_or(self.context)),
        }
    }

    fn scaling(&self, inner: &Keys<'_>, rotated: usize) -> Result<RopeScaling, CheckpointError> {
        let by_kind = self.rules.rotates_by_kind;
        if by_kind && inner.has("type") && !inner.has("rope_type") {
            // transformers takes no notice of it beside the type that it has put there itself.
            return Err(inner.error("type", "is not read for this family; write rope_type"));
        }
        let (key, name) = match inner.text("rope_type")? {
            Some(name) => ("rope_type", name),
            None => ("type", inner.text("type")?.unwrap_or("default")),
        };
        let needed = |key: &str| {
            inner.positive(key)?.ok_or_else(|| inner.error(key, format!("is missing; the type \"{name}\" needs it")))
        };
        // Names of LongRoPE in the first files of Phi 3, whose family has no other scaling.
        let is_phi = self.rules.partial_rotation;
        match name {
            "default" => Ok(RopeScaling::None),
            "longrope" if !by_kind => self.long_rope(inner, rotated),
            "su" | "yarn" if is_phi => self.long_rope(inner, rotated),
            _ if is_phi => {
                let reason = format!("is \"{}\", which is not supported; default and longrope are", shown(name));
                Err(inner.error(key, reason))
            }
            "linear" => Ok(RopeScaling::Linear { factor: needed("factor")? }),
            "dynamic" => Ok(RopeScaling::Dynamic { factor: needed("factor")? }),
            "yarn" => self.yarn(inner, needed("factor")?),
            "llama3" => {
                let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
                if high <= low {
                    return Err(
                        inner.error("high_freq_factor", format!("is {high}, but must be above low_freq_factor"))
                    );
                }
                let original_context = self.original_context(inner)?;
                let factor = needed("factor")?;
                Ok(RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context })
            }
            other => {
                let long = if by_kind { "" } else { ", longrope" };
                let reason = format!(
                    "is \"{}\", which is not supported; default, linear, dynamic, yarn{long} and llama3 are",
                    shown(other)
                );
                Err(inner.error(key, reason))
            }
        }
    }

    fn yarn(&self, inner: &Keys<'_>, factor: f64) -> Result<RopeScaling, CheckpointError> {
        let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let magnitude =
            match (inner.positive("attention_factor")?, inner.number("mscale")?, inner.number("mscale_all_dim")?) {
                (Some(given), ..) => given,
                (None, Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => scale(mscale) / scale(all),
                (None, ..) => scale(1.0),
            };
        let (fast, slow) = (inner.positive("beta_fast")?.unwrap_or(32.0), inner.positive("beta_slow")?.unwrap_or(1.0));
        if fast < slow {
            return Err(inner.error("beta_fast", format!("is {fast}, but must not be below the {slow} of beta_slow")));
        }
        let truncate = inner.flag("truncate")?.unwrap_or(true);
        if !truncate && self.rules.rotates_by_kind {
            return Err(inner
                .error("truncate", "is false, of which transformers takes no notice for this family; leave it out"));
        }
        Ok(RopeScaling::Yarn {
            factor,
            beta_fast: fast,
            beta_slow: slow,
            original_context: self.original_context(inner)?,
            truncate,
            magnitude,
        })
    }

    fn long_rope(&self, inner: &Keys<'_>, rotated: usize) -> Result<RopeScaling, CheckpointError> {
        let original = self.original_context(inner)?;
        let factor = match inner.positive("factor")? {
            Some(factor) => factor,
            None => self.context as f64 / original as f64,
        };
        let magnitude = match inner.positive("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None if original < 2 => {
                return Err(inner.error(ORIGINAL, format!("is {original}, by which no scale of scores follows")));
            }
            None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        let factors = |key: &str| {
            let listed =
                inner.list(key)?.ok_or_else(|| inner.error(key, "is missing; the type \"longrope\" needs it"))?;
            let usable = |value: &f64| value.is_finite() && *value as f32 > 0.0;
            let values: Option<Vec<f32>> =
                listed.iter().map(|value| value.as_f64().filter(usable).map(|value| value as f32)).collect();
            values.filter(|values| values.len() == rotated / 2).ok_or_else(|| {
                let reason =
                    format!("must have {} numbers above zero, one for each pair of values that turns", rotated / 2);
                inner.error(key, reason)
            })
        };
        let (long_factors, short_factors) = (factors("long_factor")?, factors("short_factor")?);
        Ok(RopeScaling::LongRope { short_factors, long_factors, magnitude, original_context: original })
    }
}

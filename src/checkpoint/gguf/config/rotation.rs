//! The position embedding of a GGUF file, by llama.cpp's rules.

use super::{Keys, ORIGINAL_CONTEXT, RopeFactors};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::rope::{Rope, RopeScaling};
use crate::visible::shown;

const KIND: &str = "rope.scaling.type";
/// What cosines and sines are multiplied by.
const MAGNITUDE: &str = "rope.scaling.attn_factor";

/// Reads the rotation of `rotated` values of a head, for a model of `context` positions.
pub(super) fn read(
    keys: &Keys<'_>,
    rotated: usize,
    factors: &RopeFactors,
    context: usize,
) -> Result<Rope, CheckpointError> {
    let theta = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let (magnitude, kind) = (keys.positive(MAGNITUDE)?, keys.metadata.text(&keys.name(KIND))?);
    let short = match (&factors.short, &factors.long) {
        (Some(short), Some(long)) => {
            let long = checked(keys, long, "rope_factors_long.weight", rotated)?;
            Some((checked(keys, short, "rope_factors_short.weight", rotated)?, long))
        }
        (None, None) => None,
        _ => {
            let reason = "has one of \"rope_factors_short.weight\" and \"rope_factors_long.weight\" without the other";
            return Err(CheckpointError::Damaged { path: keys.metadata.path().to_owned(), reason: reason.to_owned() });
        }
    };
    let scaling = match (short, &factors.all, kind) {
        (Some(_), None, Some("longrope") | None)
            if keys.positive("rope.scaling.factor")?.is_some_and(|factor| factor != 1.0) =>
        {
            return Err(keys.error(
                "rope.scaling.factor",
                "scales a rotation that has factors of its own, which is not supported",
            ));
        }
        (Some((short_factors, long_factors)), None, None | Some("none" | "longrope")) => {
            let original_context = keys.size(ORIGINAL_CONTEXT)?.unwrap_or(context);
            RopeScaling::LongRope { short_factors, long_factors, magnitude: magnitude.unwrap_or(1.0), original_context }
        }
        (None, Some(factors), _) if scaling(keys, kind, context)? == RopeScaling::None => {
            RopeScaling::Factors { factors: checked(keys, factors, "rope_freqs.weight", rotated)? }
        }
        (None, None, kind) => scaling(keys, kind, context)?,
        _ => {
            return Err(keys.error(
                KIND,
                "scales the rotation beside factors of its frequencies, which the file has as tensors; this is not supported",
            ));
        }
    };
    let has_magnitude = matches!(scaling, RopeScaling::LongRope { .. } | RopeScaling::Yarn { .. });
    if let Some(other) = magnitude.filter(|magnitude| *magnitude != 1.0 && !has_magnitude) {
        return Err(keys.error(MAGNITUDE, format!("is {other}: another scale of scores is not supported")));
    }
    Ok(Rope { theta, scaling })
}

/// The factors that a tensor holds, if they are as many as there are pairs, and above zero.
fn checked(keys: &Keys<'_>, factors: &[f32], name: &str, rotated: usize) -> Result<Vec<f32>, CheckpointError> {
    if factors.len() == rotated / 2 && factors.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
        return Ok(factors.to_vec());
    }
    let reason = format!("its tensor \"{name}\" does not have {} factors above zero", rotated / 2);
    Err(CheckpointError::Damaged { path: keys.metadata.path().to_owned(), reason })
}

fn scaling(keys: &Keys<'_>, kind: Option<&str>, context: usize) -> Result<RopeScaling, CheckpointError> {
    let old = keys.positive("rope.scale_linear")?.filter(|factor| *factor != 1.0);
    let factor = keys.positive("rope.scaling.factor")?.or(old);
    Ok(match (kind, factor) {
        (Some("none"), _) | (None | Some("linear"), None | Some(1.0)) => RopeScaling::None,
        (None | Some("linear"), Some(factor)) => RopeScaling::Linear { factor },
        (Some("yarn"), Some(factor)) => RopeScaling::Yarn {
            factor,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_context: keys.size(ORIGINAL_CONTEXT)?.unwrap_or(context),
            truncate: true,
            magnitude: keys.positive(MAGNITUDE)?.unwrap_or(1.0) * (0.1 * factor.max(1.0).ln() + 1.0),
        },
        (Some("yarn"), None) => return Err(keys.error("rope.scaling.factor", "is missing; the type \"yarn\" needs it")),
        (Some("longrope"), _) => {
            return Err(keys.error(KIND, "is \"longrope\", but the file has no factors of frequencies"));
        }
        (Some(other), _) => {
            return Err(keys.error(
                KIND,
                format!("is \"{}\", which is not supported; none, linear, yarn and longrope are", shown(other)),
            ));
        }
    })
}

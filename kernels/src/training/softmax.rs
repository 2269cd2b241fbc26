//! Shared parts of losses over a softmax.

use crate::math::exp;
use crate::simd::{LANES, Simd};

/// The greatest value.
#[inline(always)]
pub(super) fn greatest<S: Simd>(s: S, row: &[f32]) -> f32 {
    let (full, tail) = row.as_chunks::<LANES>();
    let mut greatest = s.splat(f32::NEG_INFINITY);
    for values in full {
        greatest = s.max(s.load(values), greatest);
    }
    let greatest = s.max_lane(greatest);
    tail.iter().fold(greatest, |greatest, value| if *value > greatest { *value } else { greatest })
}

/// `row = e^(row - greatest)`; the sum.
#[inline(always)]
pub(super) fn exponentiate<S: Simd>(s: S, row: &mut [f32], greatest: f32) -> f32 {
    let greatest = s.splat(greatest);
    let (full, tail) = row.as_chunks_mut::<LANES>();
    let mut sum = s.splat(0.0);
    for values in full {
        let power = exp(s, s.sub(s.load(values), greatest));
        s.store(power, values);
        sum = s.add(sum, power);
    }
    let mut sum = s.sum(sum);
    if !tail.is_empty() {
        s.store_tail(exp(s, s.sub(s.load_tail(tail), greatest)), tail);
        for power in tail {
            sum += *power;
        }
    }
    sum
}

/// `row *= factor`.
#[inline(always)]
pub(super) fn scale<S: Simd>(s: S, row: &mut [f32], factor: f32) {
    let vector = s.splat(factor);
    let (full, tail) = row.as_chunks_mut::<LANES>();
    for values in full {
        s.store(s.mul(s.load(values), vector), values);
    }
    for value in tail {
        *value *= factor;
    }
}

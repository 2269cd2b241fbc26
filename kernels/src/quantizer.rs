//! Rounding a group of values to integers with a common scale.
//!
//! A weight's scale is rounded to bf16 before the integers are chosen, so that costs next to nothing in
//! accuracy, and no range: bf16 reaches as far as f32. An integer times such a scale is exact in f32.

use half::bf16;

use crate::simd::{LANES, Simd};

/// Values of a group. Products of random matrices have errors, relative to what is exact, of
///
/// | group | normal, 8 bits | 4 bits | Student's t with 4 degrees of freedom, 8 bits | 4 bits |
/// |---|---|---|---|---|
/// | 32 | 0.72 % | 7.8 % | 1.0 % | 10.7 % |
/// | 64 | 0.84 % | 9.1 % | 1.2 % | 13.5 % |
///
/// 64 takes 3 to 6 % less memory and half the work of scaling, and divides the usual widths: 64, 576, 1536.
pub(crate) const GROUP: usize = 64;

/// Adding and taking off 1.5 * 2^23 rounds a float of magnitude below 2^22 to the nearest integer, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// The nearest integer to `value`, of magnitude below 2^22.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    (value + ROUNDER).to_bits().cast_signed() - ROUNDER.to_bits().cast_signed()
}

/// The largest magnitude, as bits; those of an infinity or more where a value is not finite.
fn magnitude_bits(group: &[f32; GROUP]) -> u32 {
    group.iter().fold(0, |most, value| most.max(value.to_bits() & 0x7FFF_FFFF))
}

/// A group of activations, rounded to -127 to 127.
pub(crate) struct Rounded {
    pub(crate) integers: [u8; GROUP],
    pub(crate) sum: i32,
    /// NaN where a value is not finite and 0 where all are too small for a normal scale; the integers are then 0.
    pub(crate) scale: f32,
}

/// Rounds activations to the nearest integers, ties to even.
#[inline(always)]
pub(crate) fn round_activations<S: Simd>(s: S, group: &[f32; GROUP]) -> Rounded {
    let zero = s.splat(0.0);
    let (vectors, _) = group.as_chunks::<LANES>();
    let (mut most, mut zeros) = (zero, zero);
    for vector in vectors {
        let vector = s.load(vector);
        most = s.max(s.max(vector, s.sub(zero, vector)), most);
        zeros = s.fma(vector, zero, zeros); // NaN from what is not finite
    }
    let mut rounded = Rounded { integers: [0; GROUP], sum: 0, scale: 0.0 };
    let scale = s.max_lane(most) / 127.0;
    if s.sum(zeros).is_nan() {
        rounded.scale = f32::NAN;
    } else if scale >= f32::MIN_POSITIVE {
        rounded.scale = scale;
        let (inverse, rounder) = (s.splat(scale.recip()), s.splat(ROUNDER));
        let mut sums = zero; // integers, and exact
        for (vector, bytes) in vectors.iter().zip(rounded.integers.as_chunks_mut().0) {
            let shifted = s.add(s.mul(s.load(vector), inverse), rounder);
            sums = s.add(sums, s.sub(shifted, rounder));
            *bytes = s.low_bytes(shifted); // the rounder's is 0
        }
        rounded.sum = s.sum(sums) as i32;
    }
    rounded
}

/// The nearest scale that can be stored with which `levels` levels stay finite; 0 for one too small.
fn storable(scale: f32, levels: f32) -> bf16 {
    let rounded = bf16::from_f32(scale);
    if rounded.to_f32().abs() < f32::MIN_POSITIVE {
        bf16::ZERO
    } else if (rounded.to_f32() * levels).is_finite() {
        rounded
    } else {
        bf16::from_bits(rounded.to_bits() - 1) // the next towards 0
    }
}

/// Rounds `group` to `least..=most` with a scale given.
fn round_to(group: &[f32; GROUP], scale: bf16, least: i32, most: i32, out: &mut [i8; GROUP]) {
    let scale = scale.to_f32();
    let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
    for (out, value) in out.iter_mut().zip(group) {
        *out = nearest((value * inverse).clamp(least as f32, most as f32)) as i8;
    }
}

/// The group's largest value by magnitude, or what to store where there is nothing to round: zeros with a
/// scale of 0, or of NaN where a value is not finite.
fn largest(group: &[f32; GROUP], out: &mut [i8; GROUP]) -> Result<f32, bf16> {
    let bits = magnitude_bits(group);
    out.fill(0);
    if bits == 0 {
        return Err(bf16::ZERO);
    }
    if !f32::from_bits(bits).is_finite() {
        return Err(bf16::NAN);
    }
    let found = group.iter().find(|value| value.to_bits() & 0x7FFF_FFFF == bits);
    Ok(found.copied().unwrap_or_default())
}

/// Rounds weights to -127 to 127; returns their scale.
pub(crate) fn quantize8(group: &[f32; GROUP], out: &mut [i8; GROUP]) -> bf16 {
    match largest(group, out) {
        Ok(largest) => {
            let scale = storable(largest.abs() / 127.0, 127.0);
            round_to(group, scale, -127, 127, out);
            scale
        }
        Err(scale) => scale,
    }
}

/// Into how many steps the search cuts a group's largest magnitude.
const STEPS4: [f32; 8] = [6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 10.0];

/// Rounds weights to -8 to 7; returns their scale. Of scales of both signs (the largest value may be the one
/// that takes the eighth step), the one with the least squared error is taken, then the best scale for its integers.
pub(crate) fn quantize4(group: &[f32; GROUP], out: &mut [i8; GROUP]) -> bf16 {
    let largest = match largest(group, out) {
        Ok(largest) => largest,
        Err(scale) => return scale,
    };
    // Errors in units of the largest value: squares of others might leave f32's range.
    let unit: [f32; GROUP] = group.map(|value| value / largest);
    let mut best = (f32::INFINITY, bf16::ZERO);
    let mut consider = |scale: bf16, out: &mut [i8; GROUP]| {
        round_to(group, scale, -8, 7, out);
        let unit_scale = scale.to_f32() / largest;
        let error = unit.iter().zip(&*out).map(|(value, q)| (value - f32::from(*q) * unit_scale).powi(2)).sum::<f32>();
        if error < best.0 {
            best = (error, scale);
        }
        best.1
    };
    let mut scale = bf16::ZERO;
    for steps in STEPS4 {
        for steps in [steps, -steps] {
            scale = consider(storable(largest / steps, 8.0), out);
        }
    }
    round_to(group, scale, -8, 7, out);
    let (mut products, mut squares) = (0.0, 0.0);
    for (value, q) in unit.iter().zip(&*out) {
        products += value * f32::from(*q);
        squares += f32::from(*q).powi(2);
    }
    if squares > 0.0 {
        scale = consider(storable(products / squares * largest, 8.0), out);
    }
    round_to(group, scale, -8, 7, out);
    scale
}

//! Rounding a group of values to 8-bit integers with a common scale. See [`crate::affine`] for 4 bits.
//!
//! A weight's scale is rounded to bf16 before the integers are chosen, so that costs next to nothing in
//! accuracy, and no range: bf16 reaches as far as f32. An integer times such a scale is exact in f32.

use half::bf16;

use crate::dot::{MINIMUM4, OFFSET8};
use crate::simd::{LANES, Simd};

/// Values of a group: of activations, and of weights with 8 bits, whose products then have errors of 0.8 %
/// relative to what is exact (normal values); 32 would have 0.7 %, for 3 % more memory and twice the work of scaling.
/// 64 divides the usual widths: 64, 576, 1536.
pub(crate) const GROUP: usize = 64;

/// Words before a row's group of rounded activations, see [`Rounded::header`].
pub(crate) const HEADER: usize = 4;
/// As [`HEADER`], for products with stored blocks; see [`RoundedSixteens::header`].
pub(crate) const SIXTEENS_HEADER: usize = 10;

/// Adding and taking off 1.5 * 2^23 rounds a float of magnitude below 2^22 to the nearest integer, ties to even.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// The nearest integer to `value`, of magnitude below 2^22.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    (value + ROUNDER).to_bits().cast_signed() - ROUNDER.to_bits().cast_signed()
}

/// The largest magnitude, as bits; those of an infinity or more where a value is not finite.
fn magnitude_bits(group: &[f32; GROUP]) -> u32 {
    group.iter().fold(0, |most, value| most.max(value.to_bits() & 0x7FFF_FFFF))
}

/// A group of activations, rounded.
#[derive(Clone, Copy)]
pub(crate) struct Rounded<V> {
    /// Of -127 to 127 in the lowest bytes, sixteen in a vector.
    pub(crate) integers: [V; GROUP / LANES],
    /// NaN where a value is not finite, and the integers may be anything then; 0 where all are too small for a normal scale,
    /// and they are 0 then.
    scale: f32,
    /// The integers' sums by sixteens.
    sums: [f32; GROUP / LANES],
}

impl<V> Rounded<V> {
    /// The scale's bits, what [`crate::dot::Dot::start8`] takes, and the two words that `start4` takes.
    #[inline(always)]
    pub(crate) fn header(&self) -> [u32; HEADER] {
        let [a, b, c, d] = self.sums.map(|sum| (-nearest(sum)).cast_unsigned()); // exact
        let all = a.wrapping_add(b).wrapping_add(c).wrapping_add(d);
        // At most 16 * 127 * 16 by magnitude each, which fits 16 bits.
        let pair = |low: u32, high: u32| (low << MINIMUM4.ilog2()) & 0xFFFF | high << (16 + MINIMUM4.ilog2());
        [self.scale.to_bits(), all << OFFSET8.ilog2(), pair(a, c), pair(b, d)]
    }
}

/// A group of activations whose sixteens were rounded each with a scale of its own, for products with stored blocks. A value that
/// is far larger than the others spoils fewer of them than in a group of 64: on a real model the perplexity rises by 0.15 % of
/// what floats have, where halves of a group make it 0.29 % and whole groups 0.45 %.
#[derive(Clone, Copy)]
pub(crate) struct RoundedSixteens<V> {
    /// As those of [`Rounded`].
    pub(crate) integers: [V; GROUP / LANES],
    /// As that of [`Rounded`], of each sixteen.
    scales: [f32; GROUP / LANES],
    /// As those of [`Rounded`].
    sums: [f32; GROUP / LANES],
}

impl<V> RoundedSixteens<V> {
    /// The bits of the scales, of the integers' sums, and of what the halves of the group sum up to, scales included.
    #[inline(always)]
    pub(crate) fn header(&self) -> [u32; SIXTEENS_HEADER] {
        let ([w, x, y, z], [a, b, c, d]) = (self.scales, self.sums);
        [w, x, y, z, a, b, c, d, a * w + b * x, c * y + d * z].map(f32::to_bits)
    }
}

/// Groups that are rounded together: what has to wait for a sum or maximum across lanes then waits once for all.
pub(crate) const TOGETHER: usize = 4;

/// Rounds activations to the nearest integers, ties to even.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices unroll
pub(crate) fn round_activations<S: Simd>(s: S, groups: &[[f32; GROUP]; TOGETHER]) -> [Rounded<S::V>; TOGETHER] {
    let mut most = [s.splat(0.0); TOGETHER];
    let mut zeros = most;
    for g in 0..TOGETHER {
        (most[g], zeros[g]) = look(s, &groups[g]);
    }
    let (scales, inverses) = scales(s.max4(most), s.sum4(zeros));
    let nothing = Rounded { integers: [s.splat(0.0); GROUP / LANES], scale: 0.0, sums: [0.0; GROUP / LANES] };
    let mut rounded = [nothing; TOGETHER];
    for g in 0..TOGETHER {
        let inverse = s.splat(inverses[g]);
        let (integers, sums) = integers(s, &groups[g], [inverse; GROUP / LANES]);
        rounded[g] = Rounded { integers, scale: scales[g], sums };
    }
    rounded
}

/// As [`round_activations`], with a scale for each sixteen of a group.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices unroll
pub(crate) fn round_sixteens<S: Simd>(s: S, groups: &[[f32; GROUP]; TOGETHER]) -> [RoundedSixteens<S::V>; TOGETHER] {
    let zero = s.splat(0.0);
    let nothing = RoundedSixteens { integers: [zero; GROUP / LANES], scales: [0.0; 4], sums: [0.0; 4] };
    let mut rounded = [nothing; TOGETHER];
    for g in 0..TOGETHER {
        let (mut most, mut zeros) = ([zero; GROUP / LANES], [zero; GROUP / LANES]);
        for (i, sixteen) in groups[g].as_chunks::<LANES>().0.iter().enumerate() {
            (most[i], zeros[i]) = look(s, sixteen);
        }
        let (scales, inverses) = scales(s.max4(most), s.sum4(zeros));
        let mut by = [zero; GROUP / LANES];
        for i in 0..GROUP / LANES {
            by[i] = s.splat(inverses[i]);
        }
        let (integers, sums) = integers(s, &groups[g], by);
        rounded[g] = RoundedSixteens { integers, scales, sums };
    }
    rounded
}

/// The largest magnitudes of some values by lanes, and NaN where one is not finite, else zeros.
#[inline(always)]
fn look<S: Simd>(s: S, values: &[f32]) -> (S::V, S::V) {
    let zero = s.splat(0.0);
    let (mut most, mut zeros) = (zero, zero);
    for vector in values.as_chunks::<LANES>().0 {
        let vector = s.load(vector);
        most = s.max(s.max(vector, s.sub(zero, vector)), most);
        zeros = s.fma(vector, zero, zeros); // NaN from what is not finite
    }
    (most, zeros)
}

/// Scales and their inverses, given largest magnitudes and what is NaN where a value is not finite.
#[inline(always)]
fn scales(most: [f32; TOGETHER], zeros: [f32; TOGETHER]) -> ([f32; TOGETHER], [f32; TOGETHER]) {
    let (mut scales, mut inverses) = ([0.0; TOGETHER], [0.0; TOGETHER]);
    for g in 0..TOGETHER {
        let scale = most[g] / 127.0;
        let is_normal = scale >= f32::MIN_POSITIVE;
        scales[g] = if is_normal { scale } else { 0.0 };
        inverses[g] = if is_normal { 1.0 / scale } else { 0.0 };
        if zeros[g].is_nan() {
            (scales[g], inverses[g]) = (f32::NAN, 0.0);
        }
    }
    (scales, inverses)
}

/// A group's integers in the lowest bytes, given the inverse of each vector's scale, and their sums by sixteens.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices unroll
fn integers<S: Simd>(
    s: S,
    group: &[f32; GROUP],
    inverses: [S::V; GROUP / LANES],
) -> ([S::V; GROUP / LANES], [f32; GROUP / LANES]) {
    let rounder = s.splat(ROUNDER);
    let mut shifted = [rounder; GROUP / LANES];
    let mut integers = shifted;
    for (i, vector) in group.as_chunks::<LANES>().0.iter().enumerate() {
        shifted[i] = s.add(s.mul(s.load(vector), inverses[i]), rounder); // the rounder's lowest byte is 0
        integers[i] = s.sub(shifted[i], rounder);
    }
    (shifted, s.sum4(integers))
}

/// The nearest scale that can be stored with which 127 levels stay finite; 0 for one too small.
fn storable(scale: f32) -> bf16 {
    let rounded = bf16::from_f32(scale);
    if rounded.to_f32() < f32::MIN_POSITIVE {
        bf16::ZERO
    } else if (rounded.to_f32() * 127.0).is_finite() {
        rounded
    } else {
        bf16::from_bits(rounded.to_bits() - 1) // the next towards 0
    }
}

/// Rounds weights to -127 to 127; returns their scale. Zeros with a scale of 0, or of NaN where a value is not
/// finite, where there is nothing to round.
pub(crate) fn quantize8(group: &[f32; GROUP], out: &mut [i8; GROUP]) -> bf16 {
    let largest = f32::from_bits(magnitude_bits(group));
    if !largest.is_finite() {
        out.fill(0);
        return bf16::NAN;
    }
    let scale = storable(largest / 127.0);
    let inverse = if scale == bf16::ZERO { 0.0 } else { scale.to_f32().recip() };
    for (out, value) in out.iter_mut().zip(group) {
        *out = nearest((value * inverse).clamp(-127.0, 127.0)) as i8;
    }
    scale
}

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
/// As [`HEADER`], for products with stored blocks; see [`Rounded::sixteens_header`].
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

/// Groups that are rounded together: as many as there are lanes for their scales.
pub(crate) const TOGETHER: usize = LANES;

/// Scales of some values each, and the inverses of these.
#[derive(Clone, Copy)]
pub(crate) struct Scales<const N: usize> {
    /// NaN where a value is not finite, and what is rounded with it may be anything then; 0 where all values are too small for a
    /// normal scale, and they become 0 then.
    scales: [[f32; LANES]; N],
    inverses: [[f32; LANES]; N],
}

impl<const N: usize> Scales<N> {
    /// Scales for the largest magnitudes, by the order of [`Simd::larger`], that 127 levels reach.
    #[inline(always)]
    fn of(most: &[[f32; LANES]; N]) -> Self {
        let (mut scales, mut inverses) = ([[0.0; LANES]; N], [[0.0; LANES]; N]);
        for n in 0..N {
            for i in 0..LANES {
                let scale = most[n][i] / 127.0;
                let (is_normal, is_finite) = (scale >= f32::MIN_POSITIVE, most[n][i] < f32::INFINITY);
                let scale = if is_normal { scale } else { 0.0 };
                let inverse = if is_normal { 1.0 / scale } else { 0.0 };
                scales[n][i] = if is_finite { scale } else { f32::NAN };
                inverses[n][i] = if is_finite { inverse } else { 0.0 };
            }
        }
        Self { scales, inverses }
    }
}

/// The scales of at most sixteen groups.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices unroll
pub(crate) fn group_scales<S: Simd>(s: S, groups: &[[f32; GROUP]; TOGETHER], count: usize) -> Scales<1> {
    let mut most = [0.0; LANES];
    for first in (0..count).step_by(4) {
        let mut vectors = [s.splat(0.0); 4];
        for i in 0..4 {
            for vector in groups[first + i].as_chunks::<LANES>().0 {
                vectors[i] = s.larger(vectors[i], s.load(vector));
            }
        }
        most[first..first + 4].copy_from_slice(&s.largest4(vectors));
    }
    Scales::of(&[most])
}

/// The scales of each sixteen of at most sixteen groups. A value that is far larger than the others spoils fewer of them than
/// in a group of 64: on a real model the perplexity rises by 0.15 % of what floats have, where halves of a group make it 0.29 %
/// and whole groups 0.45 %.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices unroll
pub(crate) fn sixteenth_scales<S: Simd>(s: S, groups: &[[f32; GROUP]; TOGETHER], count: usize) -> Scales<4> {
    let mut most = [0.0; TOGETHER * GROUP / LANES];
    for (most, group) in most.as_chunks_mut::<4>().0.iter_mut().zip(&groups[..count]) {
        let mut vectors = [s.splat(0.0); 4];
        for i in 0..4 {
            vectors[i] = s.load(&group.as_chunks::<LANES>().0[i]);
        }
        *most = s.largest4(vectors);
    }
    let mut by_lanes = [[0.0; LANES]; 4];
    by_lanes.copy_from_slice(most.as_chunks::<LANES>().0);
    Scales::of(&by_lanes)
}

/// A group of activations, rounded to the nearest integers, ties to even.
#[derive(Clone, Copy)]
pub(crate) struct Rounded<V> {
    /// Of -127 to 127 in the lowest bytes, sixteen in a vector.
    pub(crate) integers: [V; GROUP / LANES],
    /// Of each sixteen.
    scales: [f32; GROUP / LANES],
    /// The integers' sums by sixteens.
    sums: [f32; GROUP / LANES],
}

impl<V: Copy> Rounded<V> {
    /// Group `index` of those with scales by groups.
    #[inline(always)]
    pub(crate) fn of_group<S: Simd<V = V>>(s: S, group: &[f32; GROUP], scales: &Scales<1>, index: usize) -> Self {
        let inverse = s.splat(scales.inverses[0][index]);
        let (integers, sums) = integers(s, group, [inverse; GROUP / LANES]);
        Self { integers, scales: [scales.scales[0][index]; GROUP / LANES], sums }
    }

    /// Group `index` of those with scales by sixteens.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices unroll
    pub(crate) fn of_sixteens<S: Simd<V = V>>(s: S, group: &[f32; GROUP], scales: &Scales<4>, index: usize) -> Self {
        let mut own = [0.0; GROUP / LANES];
        own.copy_from_slice(&scales.scales.as_flattened()[4 * index..4 * index + 4]);
        let mut inverses = [s.splat(0.0); GROUP / LANES];
        for i in 0..GROUP / LANES {
            inverses[i] = s.splat(scales.inverses.as_flattened()[4 * index + i]);
        }
        let (integers, sums) = integers(s, group, inverses);
        Self { integers, scales: own, sums }
    }

    /// The scale's bits, what [`crate::dot::Dot::start8`] takes, and the two words that `start4` takes.
    #[inline(always)]
    pub(crate) fn header(&self) -> [u32; HEADER] {
        let [a, b, c, d] = self.sums.map(|sum| (-nearest(sum)).cast_unsigned()); // exact
        let all = a.wrapping_add(b).wrapping_add(c).wrapping_add(d);
        // At most 16 * 127 * 16 by magnitude each, which fits 16 bits.
        let pair = |low: u32, high: u32| (low << MINIMUM4.ilog2()) & 0xFFFF | high << (16 + MINIMUM4.ilog2());
        [self.scales[0].to_bits(), all << OFFSET8.ilog2(), pair(a, c), pair(b, d)]
    }

    /// The bits of the scales, of the integers' sums, and of what the halves of the group sum up to, scales included.
    #[inline(always)]
    pub(crate) fn sixteens_header(&self) -> [u32; SIXTEENS_HEADER] {
        let ([w, x, y, z], [a, b, c, d]) = (self.scales, self.sums);
        [w, x, y, z, a, b, c, d, a * w + b * x, c * y + d * z].map(f32::to_bits)
    }
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

//! Integer dot products: what the products with quantized weights are written in.
//!
//! A line is 64 bytes of weights, four values of k for each of sixteen outputs (twice as many with 4 bits), so
//! that a product with four activations needs no sum across lanes. Weights are stored unsigned, as some instruction
//! sets want them; all sums are exact, so instruction sets cannot differ.
//!
//! With 4 bits, the sums are `scale * (q . x) - 16 * minimum * sum(x)` over the four sub-groups of a group. The
//! product `q . x` of a sub-group is at most 16 * 15 * 127 by magnitude and fits 16 bits, so that multiplying it by
//! its scale of 8 bits takes one instruction for sixteen outputs. All four together stay below 6.5e7.

use crate::packed::LINE;
use crate::simd::{LANES, Scalar, Simd};

/// Added to an 8-bit weight, of -127 to 127, in storage; a power of two.
pub(crate) const OFFSET8: i32 = 128;
/// Unit of a 4-bit sub-group's minimum, in units of the scales. Times the sum of sixteen activations, it still fits
/// 16 bits.
pub(crate) const MINIMUM4: i32 = 16;

/// As [`crate::simd::Op`], for work that needs integer dot products.
pub(crate) trait DotOp {
    type Output;
    /// Must be `#[inline(always)]`, and so must everything it calls that touches vectors.
    fn run<D: Dot>(self, d: D) -> Self::Output;
}

/// A token for an instruction set, with sixteen sums as i32. Activations come as four i8 of -127 to 127 in
/// the bytes of an i32, the first in the lowest.
pub(crate) trait Dot: Copy {
    type F: Simd;
    type Sums: Copy;
    /// A line of 8-bit weights in registers.
    type Line8: Copy;
    /// Half a line of 4-bit weights in registers, each in a byte of its own.
    type Line4: Copy;
    /// The scales of a sub-group in registers.
    type Scales4: Copy;
    /// The minima of a group in registers.
    type Minima4: Copy;
    /// Four activations, repeated for each of the sixteen sums.
    type Four: Copy;

    /// True if [`Dot::dot8`] leaves the weights' offset in the sums, unless [`Dot::start8`] took it off.
    const KEEPS_OFFSET8: bool;

    /// Runs `op` as a function that is compiled on its own, on this instruction set.
    fn apart<O: DotOp>(self, op: O) -> O::Output;
    fn floats(self) -> Self::F;
    fn zero(self) -> Self::Sums;
    fn four(self, x: i32) -> Self::Four;
    /// The sixteen sums, each rounded to the nearest float.
    fn to_floats(self, sums: Self::Sums) -> <Self::F as Simd>::V;

    /// The sums to begin with, given what the offset adds to them, negated: minus [`OFFSET8`] times the sum of the
    /// activations to come.
    fn start8(self, negated: i32) -> Self::Sums;
    fn load8(self, from: &[u8; LINE]) -> Self::Line8;
    fn dot8(self, sums: Self::Sums, weights: Self::Line8, x: Self::Four) -> Self::Sums;

    /// A field of each byte of a line: shifted to the right, or by a negative `shift` to the left, and masked.
    fn field(self, from: &[u8; LINE], shift: i32, mask: u8) -> Self::Line4;
    fn or(self, a: Self::Line4, b: Self::Line4) -> Self::Line4;
    /// Adds the products of four lines of unsigned steps of at most 6 bits, of 5 where `is_tiny`.
    fn dot_small(self, sums: Self::Sums, weights: [Self::Line4; 4], x: [Self::Four; 4], is_tiny: bool) -> Self::Sums;

    /// A group's minima, four bytes for each output.
    fn minima4(self, from: &[u8; LINE]) -> Self::Minima4;
    /// The sums to begin with: the minima's part, given minus [`MINIMUM4`] times the sums of the activations of each
    /// sub-group, two i16 in an i32: of the first and the third, and of the second and the fourth.
    fn start4(self, minima: Self::Minima4, negated: [i32; 2]) -> Self::Sums;
    fn scales4(self, from: &[u8; LANES]) -> Self::Scales4;
    /// The weights from the low and from the high halves of the bytes.
    fn load4(self, from: &[u8; LINE]) -> [Self::Line4; 2];
    /// Adds a sub-group: the products of its weights and activations, times the scales.
    fn dot4(self, sums: Self::Sums, weights: [Self::Line4; 4], x: [Self::Four; 4], scales: Self::Scales4)
    -> Self::Sums;
}

/// `sums` and the products of one line, whose bytes are weights plus `offset`.
#[inline(always)]
fn plain(sums: [i32; LANES], line: [u8; LINE], x: [i32; 4], offset: i32) -> [i32; LANES] {
    std::array::from_fn(|i| (0..4).fold(sums[i], |sum, j| sum + (i32::from(line[4 * i + j]) - offset) * x[j]))
}

impl Dot for Scalar {
    type F = Self;
    type Sums = [i32; LANES];
    type Line8 = [u8; LINE];
    type Line4 = [u8; LINE];
    type Scales4 = [i32; LANES];
    type Minima4 = [u8; LINE];
    type Four = [i32; 4];
    const KEEPS_OFFSET8: bool = false;

    #[inline(never)]
    fn apart<O: DotOp>(self, op: O) -> O::Output {
        op.run(self)
    }
    #[inline(always)]
    fn floats(self) -> Self {
        self
    }
    #[inline(always)]
    fn zero(self) -> Self::Sums {
        [0; LANES]
    }
    #[inline(always)]
    fn four(self, x: i32) -> Self::Four {
        x.to_le_bytes().map(|value| i32::from(value.cast_signed()))
    }
    #[inline(always)]
    fn to_floats(self, sums: Self::Sums) -> [f32; LANES] {
        sums.map(|sum| sum as f32)
    }
    #[inline(always)]
    fn start8(self, _: i32) -> Self::Sums {
        [0; LANES]
    }
    #[inline(always)]
    fn load8(self, from: &[u8; LINE]) -> Self::Line8 {
        *from
    }
    #[inline(always)]
    fn dot8(self, sums: Self::Sums, weights: Self::Line8, x: Self::Four) -> Self::Sums {
        plain(sums, weights, x, OFFSET8)
    }
    #[inline(always)]
    fn field(self, from: &[u8; LINE], shift: i32, mask: u8) -> Self::Line4 {
        from.map(|byte| (if shift < 0 { byte << -shift } else { byte >> shift }) & mask)
    }
    #[inline(always)]
    fn or(self, a: Self::Line4, b: Self::Line4) -> Self::Line4 {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn dot_small(self, sums: Self::Sums, weights: [Self::Line4; 4], x: [Self::Four; 4], _: bool) -> Self::Sums {
        (0..4).fold(sums, |sums, i| plain(sums, weights[i], x[i], 0))
    }
    #[inline(always)]
    fn minima4(self, from: &[u8; LINE]) -> Self::Minima4 {
        *from
    }
    #[inline(always)]
    fn start4(self, minima: Self::Minima4, [even, odd]: [i32; 2]) -> Self::Sums {
        let low = |pair: i32| i32::from(pair as i16);
        let negated = [low(even), low(odd), even >> 16, odd >> 16];
        plain([0; LANES], minima, negated, 0)
    }
    #[inline(always)]
    fn scales4(self, from: &[u8; LANES]) -> Self::Scales4 {
        from.map(i32::from)
    }
    #[inline(always)]
    fn load4(self, from: &[u8; LINE]) -> [Self::Line4; 2] {
        [from.map(|byte| byte & 15), from.map(|byte| byte >> 4)]
    }
    #[inline(always)]
    fn dot4(
        self,
        sums: Self::Sums,
        weights: [Self::Line4; 4],
        x: [Self::Four; 4],
        scales: Self::Scales4,
    ) -> Self::Sums {
        let products = (0..4).fold([0; LANES], |sums, i| plain(sums, weights[i], x[i], 0));
        std::array::from_fn(|i| sums[i] + products[i] * scales[i])
    }
}

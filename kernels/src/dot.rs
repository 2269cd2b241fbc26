//! Integer dot products: what the products with quantized weights are written in.
//!
//! A line is 64 bytes of weights, four values of k for each of sixteen outputs, so that a product with four
//! activations needs no sum across lanes. Weights are stored with an offset that makes them unsigned, as some
//! instruction sets want them; all sums are exact, so instruction sets cannot differ.

use crate::packed::LINE;
use crate::simd::{LANES, Scalar, Simd};

/// What is added to an 8-bit weight, of -127 to 127, in storage; a power of two.
pub(crate) const OFFSET8: i32 = 128;
/// What is added to a 4-bit weight, of -8 to 7, in storage; a power of two.
pub(crate) const OFFSET4: i32 = 8;

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
    /// A line of 4-bit weights in registers, each in a byte of its own.
    type Line4: Copy;
    /// Four activations, repeated for each of the sixteen sums.
    type Four: Copy;
    /// Rows of the largest tile.
    const ROWS: usize;

    fn floats(self) -> Self::F;
    fn four(self, x: i32) -> Self::Four;
    /// The sixteen sums, each rounded to the nearest float.
    fn to_floats(self, sums: Self::Sums) -> <Self::F as Simd>::V;

    /// The sums to begin with, given minus the sum of all activations to come.
    fn start8(self, negated: i32) -> Self::Sums;
    fn load8(self, from: &[u8; LINE]) -> Self::Line8;
    fn dot8(self, sums: Self::Sums, weights: Self::Line8, x: Self::Four) -> Self::Sums;

    /// As [`Dot::start8`], for 4-bit weights.
    fn start4(self, negated: i32) -> Self::Sums;
    /// Two lines from the low and from the high halves of the bytes.
    fn load4(self, from: &[u8; LINE]) -> [Self::Line4; 2];
    fn dot4(self, sums: Self::Sums, weights: Self::Line4, x: Self::Four) -> Self::Sums;
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
    type Four = [i32; 4];
    const ROWS: usize = 4;

    #[inline(always)]
    fn floats(self) -> Self {
        self
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
    fn start4(self, _: i32) -> Self::Sums {
        [0; LANES]
    }
    #[inline(always)]
    fn load4(self, from: &[u8; LINE]) -> [Self::Line4; 2] {
        [from.map(|byte| byte & 15), from.map(|byte| byte >> 4)]
    }
    #[inline(always)]
    fn dot4(self, sums: Self::Sums, weights: Self::Line4, x: Self::Four) -> Self::Sums {
        plain(sums, weights, x, OFFSET4)
    }
}

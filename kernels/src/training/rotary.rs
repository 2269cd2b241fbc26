//! Rotary embedding by half rotation, and its gradient, which is the rotation back.

use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::elementwise::rotate;
use crate::simd::{Op, Simd};

/// Which way [`Kernels::rotary`] turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotaryDirection {
    /// By the angles: the embedding.
    Forward,
    /// By the negative angles: the embedding's gradient.
    Backward,
}

impl Kernels {
    /// Turns the first `rotated` values of the heads of x `[rows, heads, head_dim]` in place, as [`Kernels::append_rotated`] does:
    /// with their halves x1 and x2, `x1' = x1 cos - x2 sin` and `x2' = x2 cos + x1 sin`, or with `-sin` backward.
    ///
    /// `cos` and `sin` are tables `[positions, rotated / 2]`; row r takes their row `positions[r]`, so there are as
    /// many rows as `positions` is long.
    ///
    /// # Panics
    /// Where `rotated` is odd, 0 or above `head_dim`, a slice does not have its shape's length, or a position is not in the tables.
    #[allow(clippy::too_many_arguments)] // the operation has this many
    pub fn rotary(
        &self,
        x: &mut [f32],
        head_dim: usize,
        rotated: usize,
        cos: &[f32],
        sin: &[f32],
        positions: &[u32],
        direction: RotaryDirection,
    ) {
        let half = rotated / 2;
        assert!(half > 0 && rotated.is_multiple_of(2) && rotated <= head_dim, "two halves of a head's values turn");
        assert_eq!(cos.len(), sin.len(), "sin has the shape of cos");
        assert!(cos.len().is_multiple_of(half), "cos is [positions, rotated / 2]");
        let known = cos.len() / half;
        assert!(positions.iter().all(|position| (*position as usize) < known), "positions are in the tables");
        let rows = positions.len();
        if rows == 0 {
            assert!(x.is_empty(), "x is [rows, heads, head_dim]");
            return;
        }
        assert!(x.len().is_multiple_of(rows * head_dim), "x is [rows, heads, head_dim]");
        let width = x.len() / rows;
        let work = x.len();
        let x = SharedOutput::new(x);
        self.split(rows, 1, work, &|range| {
            // SAFETY: ranges do not overlap.
            let x = unsafe { x.slice(range.start * width, range.len() * width) };
            self.isa.enter(Rotary { x, width, head_dim, half, cos, sin, positions: &positions[range], direction });
        });
    }
}

struct Rotary<'a> {
    x: &'a mut [f32],
    /// Values in a row.
    width: usize,
    head_dim: usize,
    half: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    positions: &'a [u32],
    direction: RotaryDirection,
}

impl Op for Rotary<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.width == 0 {
            return;
        }
        let half = self.half;
        for (row, position) in self.x.chunks_exact_mut(self.width).zip(self.positions) {
            let angles = *position as usize * half..(*position as usize + 1) * half;
            let (cos, sin) = (&self.cos[angles.clone()], &self.sin[angles]);
            for head in row.chunks_exact_mut(self.head_dim) {
                let (first, second) = head[..2 * half].split_at_mut(half);
                match self.direction {
                    RotaryDirection::Forward => rotate(s, first, second, cos, sin),
                    // Seen from the other half, an angle has the other sign.
                    RotaryDirection::Backward => rotate(s, second, first, cos, sin),
                }
            }
        }
    }
}

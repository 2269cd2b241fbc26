//! Sums in a fixed order: of pieces, of gradients, of squares.

use std::ops::Range;

use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::elementwise::{Residual, add};
use crate::simd::{LANES, Op, Simd};

/// Values whose squares are summed by themselves. Part of the definition of the result.
const PIECE: usize = 1 << 14;

impl Kernels {
    /// `a += b`, element by element.
    ///
    /// # Panics
    /// Where the lengths differ.
    pub fn add_into(&self, a: &mut [f32], b: &[f32]) {
        assert_eq!(a.len(), b.len(), "a and b have one shape");
        let a = SharedOutput::new(a);
        self.split(b.len(), LANES, 2 * b.len(), &|range| {
            // SAFETY: ranges do not overlap.
            let a = unsafe { a.slice(range.start, range.len()) };
            self.isa.enter(Add { a, b: &b[range] });
        });
    }

    /// The sum of the squares of all values of all slices, in f64: the square of a gradient's global norm.
    ///
    /// Not a number or infinite where a value is.
    #[must_use]
    pub fn global_norm_squared(&self, slices: &[&[f32]]) -> f64 {
        let pieces: Vec<&[f32]> = slices.iter().flat_map(|slice| slice.chunks(PIECE)).collect();
        let mut sums = vec![0.0_f64; pieces.len()];
        let shared = SharedOutput::new(&mut sums);
        self.split(pieces.len(), 1, pieces.iter().map(|piece| piece.len()).sum(), &|range| {
            // SAFETY: ranges do not overlap.
            let sums = unsafe { shared.slice(range.start, range.len()) };
            self.isa.enter(Squares { pieces: &pieces[range], sums });
        });
        sums.iter().sum()
    }
}

/// `to = sum of the pieces`, which are as long as it, in their order.
pub(super) fn add_pieces(kernels: &Kernels, pieces: &[f32], to: &mut [f32]) {
    let width = to.len();
    let to = SharedOutput::new(to);
    kernels.split(width, LANES, pieces.len(), &|range| {
        // SAFETY: ranges do not overlap.
        let to = unsafe { to.slice(range.start, range.len()) };
        kernels.isa.enter(AddPieces { pieces, width, columns: range, to });
    });
}

struct Add<'a> {
    a: &'a mut [f32],
    b: &'a [f32],
}

impl Op for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        add(s, self.a, self.b, Residual::PLAIN);
    }
}

struct AddPieces<'a> {
    pieces: &'a [f32],
    width: usize,
    columns: Range<usize>,
    to: &'a mut [f32],
}

impl Op for AddPieces<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.to.fill(0.0);
        for piece in self.pieces.chunks_exact(self.width) {
            add(s, self.to, &piece[self.columns.clone()], Residual::PLAIN);
        }
    }
}

struct Squares<'a> {
    pieces: &'a [&'a [f32]],
    sums: &'a mut [f64],
}

impl Op for Squares<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (piece, sum) in self.pieces.iter().zip(self.sums) {
            // Squares of f32 are exact in f64, so it does not matter whether the compiler fuses.
            let mut lanes = [0.0_f64; LANES];
            let (full, tail) = piece.as_chunks::<LANES>();
            for values in full {
                for i in 0..LANES {
                    lanes[i] += f64::from(values[i]) * f64::from(values[i]);
                }
            }
            for (lane, value) in lanes.iter_mut().zip(tail) {
                *lane += f64::from(*value) * f64::from(*value);
            }
            *sum = lanes.iter().sum();
        }
    }
}

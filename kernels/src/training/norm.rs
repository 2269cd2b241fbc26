//! The gradient of the root-mean-square norm.

use std::ops::Range;

use super::scratch::Scratch;
use super::sums::add_pieces;
use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::elementwise::inverse_root_mean_square;
use crate::simd::{LANES, Op, Simd};

/// Rows whose part of the weight's gradient is summed by itself. Part of the definition of the result.
const PIECE: usize = 64;

impl Kernels {
    /// The gradient of [`Kernels::rms_norm`]: from `x` and the gradient `d_out` of its result, both `[rows, width]`,
    /// `d_x` and `d_weight`, `[width]`, which are overwritten.
    ///
    /// Norms of heads are the same, with as many rows as there are heads. The inverse root mean square is computed again
    /// from `x`, which has to be read anyway.
    ///
    /// # Panics
    /// Where `x` is not whole rows, `weight` is empty, or a gradient has another length than its value.
    pub fn rms_norm_backward(
        &self,
        x: &[f32],
        weight: &[f32],
        eps: f32,
        d_out: &[f32],
        d_x: &mut [f32],
        d_weight: &mut [f32],
    ) {
        let width = weight.len();
        assert!(width > 0, "a norm needs a weight");
        assert!(x.len().is_multiple_of(width), "x is rows of the weight's length");
        assert_eq!(d_out.len(), x.len(), "d_out has the shape of x");
        assert_eq!(d_x.len(), x.len(), "d_x has the shape of x");
        assert_eq!(d_weight.len(), width, "d_weight has the shape of weight");
        let rows = x.len() / width;
        let pieces = rows.div_ceil(PIECE);
        let mut sums = Scratch::new(pieces * width);
        let (d_x, shared) = (SharedOutput::new(d_x), SharedOutput::new(&mut sums));
        self.split(pieces, 1, 3 * x.len(), &|range| {
            self.isa.enter(Backward { x, weight, eps, d_out, pieces: range, d_x: &d_x, sums: &shared });
        });
        add_pieces(self, &sums, d_weight);
    }
}

/// The gradient for some pieces of the rows.
struct Backward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    d_out: &'a [f32],
    pieces: Range<usize>,
    d_x: &'a SharedOutput<'a>,
    /// Gradients of the weight, one for each piece.
    sums: &'a SharedOutput<'a>,
}

impl Op for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        for piece in self.pieces.clone() {
            let at = piece * PIECE * width;
            let len = (self.x.len() - at).min(PIECE * width);
            // SAFETY: pieces do not overlap, here and below.
            let d_x = unsafe { self.d_x.slice(at, len) };
            // SAFETY: as above.
            let d_weight = unsafe { self.sums.slice(piece * width, width) };
            d_weight.fill(0.0);
            let rows = self.x[at..at + len].chunks_exact(width).zip(self.d_out[at..at + len].chunks_exact(width));
            for ((x, d_out), d_x) in rows.zip(d_x.chunks_exact_mut(width)) {
                row(s, x, self.weight, self.eps, d_out, d_x, d_weight);
            }
        }
    }
}

/// One row. With `i` the inverse root mean square and `g = d_out * weight`: `d_x = i g - x i^3 mean(g x)`, and
/// `d_weight += d_out x i`.
#[inline(always)]
fn row<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, d_out: &[f32], d_x: &mut [f32], d_weight: &mut [f32]) {
    let inverse = inverse_root_mean_square(s, x, eps);
    let ((xs, x_tail), (weights, weight_tail)) = (x.as_chunks::<LANES>(), weight.as_chunks::<LANES>());
    let (d_outs, d_out_tail) = d_out.as_chunks::<LANES>();
    let mut dots = s.splat(0.0);
    for ((x, weight), d_out) in xs.iter().zip(weights).zip(d_outs) {
        dots = s.fma(s.mul(s.load(d_out), s.load(weight)), s.load(x), dots);
    }
    if !x_tail.is_empty() {
        dots = s.fma(s.mul(s.load_tail(d_out_tail), s.load_tail(weight_tail)), s.load_tail(x_tail), dots);
    }
    let along = s.splat(-(s.sum(dots) / x.len() as f32) * inverse * inverse * inverse);
    let inverse = s.splat(inverse);
    let (d_xs, d_x_tail) = d_x.as_chunks_mut::<LANES>();
    let (d_weights, d_weight_tail) = d_weight.as_chunks_mut::<LANES>();
    for ((((x, weight), d_out), d_x), d_weight) in xs.iter().zip(weights).zip(d_outs).zip(d_xs).zip(d_weights) {
        let (x, d_out) = (s.load(x), s.load(d_out));
        s.store(s.fma(s.mul(d_out, s.load(weight)), inverse, s.mul(x, along)), d_x);
        s.store(s.fma(s.mul(d_out, x), inverse, s.load(d_weight)), d_weight);
    }
    if !x_tail.is_empty() {
        let (x, d_out) = (s.load_tail(x_tail), s.load_tail(d_out_tail));
        s.store_tail(s.fma(s.mul(d_out, s.load_tail(weight_tail)), inverse, s.mul(x, along)), d_x_tail);
        s.store_tail(s.fma(s.mul(d_out, x), inverse, s.load_tail(d_weight_tail)), d_weight_tail);
    }
}

//! Everything between the products: norms, rotary embedding, the gated activation.

use crate::math::exp;
use crate::simd::{LANES, Op, Simd};

/// Root-mean-square norm of each group of `weight.len()` values.
pub(crate) struct RmsNorm<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
    pub(crate) out: &'a mut [f32],
}

impl Op for RmsNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let (full, tail) = x.as_chunks::<LANES>();
            let mut squares = s.splat(0.0);
            for x in full {
                let x = s.load(x);
                squares = s.fma(x, x, squares);
            }
            let x = s.load_tail(tail);
            squares = s.fma(x, x, squares);
            let inverse = s.splat(1.0 / (s.sum(squares) / width as f32 + self.eps).sqrt());
            let (full_out, tail_out) = out.as_chunks_mut::<LANES>();
            let (full_weight, tail_weight) = self.weight.as_chunks::<LANES>();
            for ((x, weight), out) in full.iter().zip(full_weight).zip(full_out) {
                s.store(s.mul(s.mul(s.load(x), inverse), s.load(weight)), out);
            }
            s.store_tail(s.mul(s.mul(s.load_tail(tail), inverse), s.load_tail(tail_weight)), tail_out);
        }
    }
}

/// Half-rotation rotary embedding of rows of `heads` heads.
pub(crate) struct Rotate<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) heads: usize,
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    /// Half a head.
    pub(crate) half: usize,
}

impl Op for Rotate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.x.chunks_exact_mut(self.heads * 2 * self.half);
        for ((row, cos), sin) in rows.zip(self.cos.chunks_exact(self.half)).zip(self.sin.chunks_exact(self.half)) {
            let ((cos, cos_tail), (sin, sin_tail)) = (cos.as_chunks::<LANES>(), sin.as_chunks::<LANES>());
            for head in row.chunks_exact_mut(2 * self.half) {
                let (first, second) = head.split_at_mut(self.half);
                let ((first, first_tail), (second, second_tail)) =
                    (first.as_chunks_mut::<LANES>(), second.as_chunks_mut::<LANES>());
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    let (x, y) = turn(s, s.load(a), s.load(b), s.load(cos), s.load(sin));
                    s.store(x, a);
                    s.store(y, b);
                }
                if !cos_tail.is_empty() {
                    let (a, b) = (s.load_tail(first_tail), s.load_tail(second_tail));
                    let (x, y) = turn(s, a, b, s.load_tail(cos_tail), s.load_tail(sin_tail));
                    s.store_tail(x, first_tail);
                    s.store_tail(y, second_tail);
                }
            }
        }
    }
}

#[inline(always)]
fn turn<S: Simd>(s: S, a: S::V, b: S::V, cos: S::V, sin: S::V) -> (S::V, S::V) {
    (s.sub(s.mul(a, cos), s.mul(b, sin)), s.add(s.mul(b, cos), s.mul(a, sin)))
}

/// `silu(gate) * up`, with `silu(x) = x / (1 + e^-x)`.
pub(crate) struct GatedSilu<'a> {
    pub(crate) gate: &'a [f32],
    pub(crate) up: &'a [f32],
    pub(crate) out: &'a mut [f32],
}

impl Op for GatedSilu<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (gate, gate_tail) = self.gate.as_chunks::<LANES>();
        let (up, up_tail) = self.up.as_chunks::<LANES>();
        let (out, out_tail) = self.out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gate.iter().zip(up).zip(out) {
            s.store(gated(s, s.load(gate), s.load(up)), out);
        }
        if !out_tail.is_empty() {
            s.store_tail(gated(s, s.load_tail(gate_tail), s.load_tail(up_tail)), out_tail);
        }
    }
}

#[inline(always)]
fn gated<S: Simd>(s: S, gate: S::V, up: S::V) -> S::V {
    let decay = exp(s, s.sub(s.splat(0.0), gate));
    s.mul(s.div(gate, s.add(s.splat(1.0), decay)), up)
}

//! Everything between the products: norms, rotary embedding, the gated activation.

use std::ops::Range;

use crate::buffer::SharedOutput;
use crate::math::{exp, tanh};
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
            let inverse = inverse_root_mean_square(s, x, self.eps);
            weigh(s, x, inverse, self.weight, out);
        }
    }
}

/// `x += delta`, then [`RmsNorm`] of the sum: the end of one part of a layer and the beginning of the next.
pub(crate) struct AddRmsNorm<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) delta: &'a [f32],
    pub(crate) residual: Residual<'a>,
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
    pub(crate) out: &'a mut [f32],
}

impl Op for AddRmsNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        let rows = self.x.chunks_exact_mut(width).zip(self.delta.chunks_exact(width));
        for ((x, delta), out) in rows.zip(self.out.chunks_exact_mut(width)) {
            add(s, x, delta, self.residual);
            let inverse = inverse_root_mean_square(s, x, self.eps);
            weigh(s, x, inverse, self.weight, out);
        }
    }
}

/// What becomes of the output of a part of a layer before it is added to the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// Its own norm, where it has one: the weight `[width]`, and what is added to the mean square.
    pub norm: Option<(&'a [f32], f32)>,
    /// What it is multiplied by, after the norm.
    pub factor: f32,
}

impl Residual<'_> {
    /// The output as it is.
    pub const PLAIN: Self = Self { norm: None, factor: 1.0 };
}

/// `x += delta` of some rows, by a [`Residual`].
pub(crate) struct AddResidual<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) delta: &'a [f32],
    pub(crate) residual: Residual<'a>,
    pub(crate) width: usize,
}

impl Op for AddResidual<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, delta) in self.x.chunks_exact_mut(self.width).zip(self.delta.chunks_exact(self.width)) {
            add(s, x, delta, self.residual);
        }
    }
}

/// `x += delta` for a row.
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, x: &mut [f32], delta: &[f32], residual: Residual<'_>) {
    let factor = s.splat(residual.factor);
    match residual.norm {
        None => {
            let (full, tail) = x.as_chunks_mut::<LANES>();
            let (full_delta, tail_delta) = delta.as_chunks::<LANES>();
            for (x, delta) in full.iter_mut().zip(full_delta) {
                // A factor of one changes no bit.
                s.store(s.add(s.load(x), s.mul(s.load(delta), factor)), x);
            }
            for (x, delta) in tail.iter_mut().zip(tail_delta) {
                *x += delta * residual.factor;
            }
        }
        Some((weight, eps)) => {
            let inverse = inverse_root_mean_square(s, delta, eps);
            let (full, tail) = x.as_chunks_mut::<LANES>();
            let (full_delta, tail_delta) = delta.as_chunks::<LANES>();
            let (full_weight, tail_weight) = weight.as_chunks::<LANES>();
            for ((x, delta), weight) in full.iter_mut().zip(full_delta).zip(full_weight) {
                let normed = s.mul(s.mul(s.load(delta), s.splat(inverse)), s.load(weight));
                s.store(s.add(s.load(x), s.mul(normed, factor)), x);
            }
            for ((x, delta), weight) in tail.iter_mut().zip(tail_delta).zip(tail_weight) {
                *x += delta * inverse * weight * residual.factor;
            }
        }
    }
}

/// `1 / sqrt(mean(x^2) + eps)`.
#[inline(always)]
pub(crate) fn inverse_root_mean_square<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    let (full, tail) = x.as_chunks::<LANES>();
    let mut squares = s.splat(0.0);
    for x in full {
        let x = s.load(x);
        squares = s.fma(x, x, squares);
    }
    if !tail.is_empty() {
        let x = s.load_tail(tail);
        squares = s.fma(x, x, squares);
    }
    1.0 / (s.sum(squares) / x.len() as f32 + eps).sqrt()
}

/// `out = x * inverse * weight`.
#[inline(always)]
pub(crate) fn weigh<S: Simd>(s: S, x: &[f32], inverse: f32, weight: &[f32], out: &mut [f32]) {
    let factor = s.splat(inverse);
    let (full, tail) = x.as_chunks::<LANES>();
    let (full_out, tail_out) = out.as_chunks_mut::<LANES>();
    let (full_weight, tail_weight) = weight.as_chunks::<LANES>();
    for ((x, weight), out) in full.iter().zip(full_weight).zip(full_out) {
        s.store(s.mul(s.mul(s.load(x), factor), s.load(weight)), out);
    }
    for ((x, weight), out) in tail.iter().zip(tail_weight).zip(tail_out) {
        *out = x * inverse * weight;
    }
}

/// Transform of the heads of queries and keys before their products: a norm, where the model has one, then the rotary
/// embedding by half rotation of a head's first values. With their halves x1 and x2, `x1' = x1 cos - x2 sin` and `x2' = x2
/// cos + x1 sin`.
#[derive(Clone, Copy, Debug)]
pub struct HeadTransform<'a> {
    /// The norms of a model that has them.
    pub norms: Option<HeadNorms<'a>>,
    /// Cosines of the rows' angles, `[rows, rotated / 2]`, where `rotated` values of a head turn: all, some or none.
    pub cos: &'a [f32],
    /// Their sines.
    pub sin: &'a [f32],
}

/// Norms of every head of queries and keys.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorms<'a> {
    /// The weight for queries, `[head_dim]`.
    pub query: &'a [f32],
    /// The weight for keys, `[head_dim]`.
    pub key: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// A [`HeadTransform`] of some heads of `rows` rows, in place.
pub(crate) struct Heads<'a> {
    /// `[rows, heads, head_dim]`; nobody else may have these heads of it meanwhile.
    pub(crate) x: &'a SharedOutput<'a>,
    pub(crate) heads: usize,
    pub(crate) of: Range<usize>,
    pub(crate) rows: usize,
    pub(crate) dim: usize,
    /// A norm's weight, and what it adds to the mean square.
    pub(crate) norm: Option<(&'a [f32], f32)>,
    /// As in [`HeadTransform`].
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
}

impl Op for Heads<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let half = self.cos.len() / self.rows;
        for row in 0..self.rows {
            let (cos, sin) = (&self.cos[row * half..][..half], &self.sin[row * half..][..half]);
            // SAFETY: these heads are ours, as the field says.
            let x = unsafe { self.x.slice((row * self.heads + self.of.start) * self.dim, self.of.len() * self.dim) };
            for head in x.chunks_exact_mut(self.dim) {
                if let Some((weight, eps)) = self.norm {
                    norm_in_place(s, head, weight, eps);
                }
                let (first, second) = head[..2 * half].split_at_mut(half);
                rotate(s, first, second, cos, sin);
            }
        }
    }
}

/// [`RmsNorm`] of one group, in place.
#[inline(always)]
fn norm_in_place<S: Simd>(s: S, x: &mut [f32], weight: &[f32], eps: f32) {
    let inverse = inverse_root_mean_square(s, x, eps);
    let factor = s.splat(inverse);
    let (full, tail) = x.as_chunks_mut::<LANES>();
    let (full_weight, tail_weight) = weight.as_chunks::<LANES>();
    for (x, weight) in full.iter_mut().zip(full_weight) {
        s.store(s.mul(s.mul(s.load(x), factor), s.load(weight)), x);
    }
    for (x, weight) in tail.iter_mut().zip(tail_weight) {
        *x = *x * inverse * weight;
    }
}

/// Turns the halves of a head against each other.
#[inline(always)]
pub(crate) fn rotate<S: Simd>(s: S, first: &mut [f32], second: &mut [f32], cos: &[f32], sin: &[f32]) {
    let ((first, first_tail), (second, second_tail)) =
        (first.as_chunks_mut::<LANES>(), second.as_chunks_mut::<LANES>());
    let ((cos, cos_tail), (sin, sin_tail)) = (cos.as_chunks::<LANES>(), sin.as_chunks::<LANES>());
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

#[inline(always)]
fn turn<S: Simd>(s: S, a: S::V, b: S::V, cos: S::V, sin: S::V) -> (S::V, S::V) {
    (s.sub(s.mul(a, cos), s.mul(b, sin)), s.add(s.mul(b, cos), s.mul(a, sin)))
}

/// Function by which one product of an MLP gates another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)` (SwiGLU, Shazeer 2020).
    Silu,
    /// The Gaussian error linear unit by its approximation with a hyperbolic tangent (Hendrycks and Gimpel 2016), which is `x /
    /// (1 + e^-2u)` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
    GeluTanh,
}

/// `gate = f(gate) * up` with an activation f.
pub(crate) struct Gated<'a> {
    pub(crate) gate: &'a mut [f32],
    pub(crate) up: &'a [f32],
    pub(crate) activation: Activation,
}

impl Op for Gated<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (gate, gate_tail) = self.gate.as_chunks_mut::<LANES>();
        let (up, up_tail) = self.up.as_chunks::<LANES>();
        for (gate, up) in gate.iter_mut().zip(up) {
            s.store(gated(s, self.activation, s.load(gate), s.load(up)), gate);
        }
        if !gate_tail.is_empty() {
            s.store_tail(gated(s, self.activation, s.load_tail(gate_tail), s.load_tail(up_tail)), gate_tail);
        }
    }
}

/// `out = f(gate) * up`, as [`Gated`].
#[inline(always)]
pub(crate) fn gate_values<S: Simd>(s: S, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let (gate, gate_tail) = gate.as_chunks::<LANES>();
    let (up, up_tail) = up.as_chunks::<LANES>();
    let (out, out_tail) = out.as_chunks_mut::<LANES>();
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        s.store(gated(s, activation, s.load(gate), s.load(up)), out);
    }
    if !gate_tail.is_empty() {
        s.store_tail(gated(s, activation, s.load_tail(gate_tail), s.load_tail(up_tail)), out_tail);
    }
}

#[inline(always)]
pub(crate) fn gated<S: Simd>(s: S, activation: Activation, gate: S::V, up: S::V) -> S::V {
    let minus = match activation {
        Activation::Silu => s.sub(s.splat(0.0), gate),
        Activation::GeluTanh => {
            let cube = s.mul(s.mul(gate, gate), gate);
            s.mul(s.fma(s.splat(0.044_715), cube, gate), s.splat(-2.0 * ROOT_OF_TWO_OVER_PI))
        }
    };
    s.mul(s.div(gate, s.add(s.splat(1.0), exp(s, minus))), up)
}

/// `sqrt(2 / pi)`.
const ROOT_OF_TWO_OVER_PI: f32 = 0.797_884_6;

/// `cap * tanh(x / cap)`: close to x where it is small, and never beyond the cap (soft-capping, Gemma 2).
#[inline(always)]
pub(crate) fn capped<S: Simd>(s: S, x: S::V, cap: f32) -> S::V {
    s.mul(tanh(s, s.div(x, s.splat(cap))), s.splat(cap))
}

/// [`capped`], in place.
pub(crate) struct SoftCap<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) cap: f32,
}

impl Op for SoftCap<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (full, tail) = self.x.as_chunks_mut::<LANES>();
        for x in full {
            s.store(capped(s, s.load(x), self.cap), x);
        }
        if !tail.is_empty() {
            s.store_tail(capped(s, s.load_tail(tail), self.cap), tail);
        }
    }
}

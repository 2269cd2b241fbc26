//! The gradient of attention.
//!
//! With probabilities `p = e^(score - lse)`, `dp = d_out.v` and `delta = d_out.out`, the scores have the gradient `ds =
//! p (dp - delta)`; then `d_v += p d_out`, `d_k += ds scale q` and `d_q = scale ds k`.

use std::ops::Range;

use super::CausalAttention;
use super::block::{Block, Head, padded, take};
use super::forward::pack_block;
use super::small::{add_plain, add_transposed, load, multiply, store};
use crate::buffer::SharedOutput;
use crate::math::exp;
use crate::simd::{LANES, Op, Simd};
use crate::training::scratch::Scratch;
use crate::training::tile::{ROWS, WIDE_ROWS};

/// Keys that are taken together: their probabilities and gradients, 12 KiB each, stay in the nearest cache. A multiple
/// of every panel's width.
const KEYS: usize = 96;

/// Some units, as in the forward pass.
pub(super) struct Backward<'a> {
    pub(super) attention: &'a CausalAttention<'a>,
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) lse: &'a [f32],
    pub(super) d_out: &'a [f32],
    pub(super) units: Range<usize>,
    pub(super) d_q: &'a SharedOutput<'a>,
    pub(super) d_k: &'a SharedOutput<'a>,
    pub(super) d_v: &'a SharedOutput<'a>,
}

impl Op for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if S::WIDE { self.units::<S, WIDE_ROWS, 2>(s) } else { self.units::<S, ROWS, 1>(s) }
    }
}

/// A kv head: all keys and values, and their gradients. `wide` is the head's size in whole vectors.
struct Shared<'a> {
    wide: usize,
    /// Panels of keys, `[dim][R]` each, and the keys themselves, `[all][wide]`.
    key_panels: &'a mut [f32],
    keys: &'a mut [f32],
    value_panels: &'a mut [f32],
    d_keys: &'a mut [f32],
    d_values: &'a mut [f32],
}

/// A block of queries of one head.
struct Queries<'a> {
    /// Scaled queries and gradients of the output, `[dim][C vectors]` and `[16 C][wide]` both.
    q_lanes: &'a mut [f32],
    q: &'a mut [f32],
    d_out_lanes: &'a mut [f32],
    d_out: &'a mut [f32],
    /// Probabilities and gradients of scores of some keys, `[KEYS][C vectors]`.
    probabilities: &'a mut [f32],
    d_scores: &'a mut [f32],
    /// The gradient of the queries over the scale, `[wide][C vectors]`.
    d_q: &'a mut [f32],
}

impl Backward<'_> {
    #[inline(always)]
    fn units<S: Simd, const R: usize, const C: usize>(&self, s: S) {
        let CausalAttention { heads, kv_heads, head_dim: dim, length, first, .. } = *self.attention;
        let (wide, group) = (dim.next_multiple_of(LANES), heads / kv_heads);
        let (all, lanes) = (length.next_multiple_of(R), C * LANES);
        let of_keys = [all * dim + LANES, all * wide, all * dim + LANES, all * wide, all * wide];
        let of_queries = [dim, wide, dim, wide, KEYS, KEYS, wide].map(|rows| rows * lanes);
        let mut scratch = Scratch::new(of_keys.into_iter().chain(of_queries).map(padded).sum());
        let mut rest = &mut scratch[..];
        let [key_panels, keys, value_panels, d_keys, d_values] = of_keys.map(|size| take(&mut rest, size));
        let mut shared = Shared { wide, key_panels, keys, value_panels, d_keys, d_values };
        let [q_lanes, q, d_out_lanes, d_out, probabilities, d_scores, d_q] =
            of_queries.map(|size| take(&mut rest, size));
        let mut queries = Queries { q_lanes, q, d_out_lanes, d_out, probabilities, d_scores, d_q };
        for unit in self.units.clone() {
            let (sequence, kv_head) = (unit / kv_heads, unit % kv_heads);
            let place = Head::new(self.attention, sequence, kv_head, kv_heads);
            place.pack::<S, R>(s, self.k, shared.key_panels);
            place.pack::<S, R>(s, self.v, shared.value_panels);
            place.copy(self.k, 0, wide, &mut shared.keys[..all * wide]);
            shared.d_keys.fill(0.0);
            shared.d_values.fill(0.0);
            let first = &first[place.row..][..length];
            for head in kv_head * group..(kv_head + 1) * group {
                let own = Head::new(self.attention, sequence, head, heads);
                for from in (0..length).step_by(lanes) {
                    let block = Block::<S, C>::new(s, from, first, R);
                    let (delta, lse) = self.load_block::<S, C>(s, &own, head, from, wide, &mut queries);
                    queries.d_q.fill(0.0);
                    for start in block.keys.clone().step_by(KEYS) {
                        let keys = start..block.keys.end.min(start + KEYS);
                        score_gradients::<S, R, C>(s, &block, dim, &keys, &delta, &lse, &shared, &mut queries);
                        add_gradients::<S, R, C>(s, dim, &keys, &mut shared, &mut queries);
                    }
                    scale(s, queries.d_q, self.attention.scale);
                    own.write_lanes::<S, C>(s, queries.d_q, from, self.d_q);
                }
            }
            for row in 0..length {
                let (range, at) = (place.range(row), row * wide);
                // SAFETY: the rows of a kv head belong to one unit, and a unit to one part.
                let (d_k, d_v) = unsafe { (self.d_k.slice(range.start, dim), self.d_v.slice(range.start, dim)) };
                d_k.copy_from_slice(&shared.d_keys[at..at + dim]);
                d_v.copy_from_slice(&shared.d_values[at..at + dim]);
            }
        }
    }

    /// Loads a block's queries and gradients; each lane's delta and lse.
    #[inline(always)]
    fn load_block<S: Simd, const C: usize>(
        &self,
        s: S,
        own: &Head,
        head: usize,
        from: usize,
        wide: usize,
        to: &mut Queries<'_>,
    ) -> ([S::V; C], [S::V; C]) {
        let rows = C * LANES;
        pack_block::<S, C>(s, own, self.q, from, to.q_lanes);
        scale(s, to.q_lanes, self.attention.scale);
        own.copy(self.q, from, wide, &mut to.q[..rows * wide]);
        scale(s, to.q, self.attention.scale);
        pack_block::<S, C>(s, own, self.d_out, from, to.d_out_lanes);
        own.copy(self.d_out, from, wide, &mut to.d_out[..rows * wide]);
        let (mut deltas, mut lses) = ([[0.0; LANES]; C], [[0.0; LANES]; C]);
        for row in from..own.length.min(from + rows) {
            let (c, lane) = ((row - from) / LANES, (row - from) % LANES);
            deltas[c][lane] = dot(s, &self.d_out[own.range(row)], &self.out[own.range(row)]);
            lses[c][lane] = self.lse[(own.row + row) * self.attention.heads + head];
        }
        let (mut delta, mut lse) = ([s.splat(0.0); C], [s.splat(0.0); C]);
        for c in 0..C {
            (delta[c], lse[c]) = (s.load(&deltas[c]), s.load(&lses[c]));
        }
        (delta, lse)
    }
}

/// The probabilities of `keys` and the gradients of their scores.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // one step, apart for reading
fn score_gradients<S: Simd, const R: usize, const C: usize>(
    s: S,
    block: &Block<S, C>,
    dim: usize,
    keys: &Range<usize>,
    delta: &[S::V; C],
    lse: &[S::V; C],
    shared: &Shared<'_>,
    queries: &mut Queries<'_>,
) {
    let lanes = C * LANES;
    for from in keys.clone().step_by(R) {
        let at = (from - keys.start) * lanes;
        let mut tile = [[s.splat(0.0); C]; R];
        multiply(s, dim, &shared.key_panels[from * dim..], (R, 1), queries.q_lanes, lanes, &mut tile);
        for (r, row) in tile.iter_mut().enumerate() {
            block.hide(s, from + r, row);
            for c in 0..C {
                row[c] = exp(s, s.sub(row[c], lse[c]));
            }
        }
        store(s, &tile, &mut queries.probabilities[at..], lanes);
        let mut tile = [[s.splat(0.0); C]; R];
        multiply(s, dim, &shared.value_panels[from * dim..], (R, 1), queries.d_out_lanes, lanes, &mut tile);
        let probabilities = load::<S, R, C>(s, &queries.probabilities[at..], lanes);
        for (row, probabilities) in tile.iter_mut().zip(&probabilities) {
            for c in 0..C {
                row[c] = s.mul(probabilities[c], s.sub(row[c], delta[c]));
            }
        }
        store(s, &tile, &mut queries.d_scores[at..], lanes);
    }
}

/// Adds what `keys` and the block's queries give each other.
#[inline(always)]
fn add_gradients<S: Simd, const R: usize, const C: usize>(
    s: S,
    dim: usize,
    keys: &Range<usize>,
    shared: &mut Shared<'_>,
    queries: &mut Queries<'_>,
) {
    let (lanes, wide) = (C * LANES, shared.wide);
    for from in keys.clone().step_by(R) {
        let at = (from - keys.start) * lanes;
        let (probabilities, d_scores) = (&queries.probabilities[at..], &queries.d_scores[at..]);
        add_plain::<S, R, C>(s, lanes, probabilities, queries.d_out, wide, &mut shared.d_values[from * wide..]);
        add_plain::<S, R, C>(s, lanes, d_scores, queries.q, wide, &mut shared.d_keys[from * wide..]);
    }
    let values = &shared.keys[keys.start * wide..];
    add_transposed::<S, R, C>(s, keys.len(), values, wide, queries.d_scores, dim.next_multiple_of(4), queries.d_q);
}

/// `values *= factor`, for whole vectors.
#[inline(always)]
fn scale<S: Simd>(s: S, values: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for values in values.as_chunks_mut::<LANES>().0 {
        s.store(s.mul(s.load(values), factor), values);
    }
}

#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sum = s.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = s.fma(s.load(a), s.load(b), sum);
    }
    if !a_tail.is_empty() {
        sum = s.fma(s.load_tail(a_tail), s.load_tail(b_tail), sum);
    }
    s.sum(sum)
}

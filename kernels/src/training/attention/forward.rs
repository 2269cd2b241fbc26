//! Attention itself.

use std::ops::Range;

use super::CausalAttention;
use super::block::{Block, Head, padded, take};
use super::small::{add_transposed, multiply, store};
use crate::buffer::SharedOutput;
use crate::math::exp;
use crate::simd::{LANES, Op, Simd};
use crate::training::arithmetic::Exact;
use crate::training::scratch::Scratch;
use crate::training::tile::{ROWS, WIDE_ROWS};

/// Some units, each a kv head of a sequence with all query heads that share it.
pub(super) struct Forward<'a> {
    pub(super) attention: &'a CausalAttention<'a>,
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) units: Range<usize>,
    pub(super) out: &'a SharedOutput<'a>,
    pub(super) lse: &'a SharedOutput<'a>,
}

impl Op for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if S::WIDE { self.units::<S, WIDE_ROWS, 2>(s) } else { self.units::<S, ROWS, 1>(s) }
    }
}

impl Forward<'_> {
    /// With panels of `R` keys and blocks of `C` vectors of queries.
    #[inline(always)]
    fn units<S: Simd, const R: usize, const C: usize>(&self, s: S) {
        let CausalAttention { heads, kv_heads, head_dim: dim, length, first, .. } = *self.attention;
        let (wide, group) = (dim.next_multiple_of(LANES), heads / kv_heads);
        let (all, lanes) = (length.next_multiple_of(R), C * LANES);
        let sizes = [all * dim + LANES, all * wide, dim * lanes, all * lanes, wide * lanes];
        let mut scratch = Scratch::new(sizes.into_iter().map(padded).sum());
        let mut rest = &mut scratch[..];
        let [keys, values, queries, scores, sums] = sizes.map(|size| take(&mut rest, size));
        for unit in self.units.clone() {
            let (sequence, kv_head) = (unit / kv_heads, unit % kv_heads);
            let shared = Head::new(self.attention, sequence, kv_head, kv_heads);
            shared.pack::<S, R>(s, self.k, keys);
            shared.copy(self.v, 0, wide, &mut values[..all * wide]);
            let first = &first[shared.row..][..length];
            for head in kv_head * group..(kv_head + 1) * group {
                let own = Head::new(self.attention, sequence, head, heads);
                for from in (0..length).step_by(lanes) {
                    let block = Block::<S, C>::new(s, from, first, R);
                    self.pack_queries::<S, C>(s, &own, from, queries);
                    let (highest, sum) = probabilities::<S, R, C>(s, &block, dim, keys, queries, scores);
                    sums.fill(0.0);
                    let count = block.keys.len();
                    let values = &values[block.keys.start * wide..];
                    add_transposed::<S, R, C>(s, count, values, wide, scores, dim.next_multiple_of(4), sums);
                    divide(s, sums, &sum);
                    own.write_lanes::<S, C>(s, sums, from, self.out);
                    self.write_lse::<S, C>(s, &own, head, from, &highest, &sum);
                }
            }
        }
    }

    /// The scaled queries, `[dim][C vectors]`.
    #[inline(always)]
    fn pack_queries<S: Simd, const C: usize>(&self, s: S, head: &Head, from: usize, to: &mut [f32]) {
        pack_block::<S, C>(s, head, self.q, from, to);
        let scale = s.splat(self.attention.scale);
        for values in to.as_chunks_mut::<LANES>().0 {
            s.store(s.mul(s.load(values), scale), values);
        }
    }

    #[inline(always)]
    fn write_lse<S: Simd, const C: usize>(
        &self,
        s: S,
        own: &Head,
        head: usize,
        from: usize,
        highest: &[S::V; C],
        sum: &[S::V; C],
    ) {
        for c in 0..C {
            let (mut highests, mut sums) = ([0.0; LANES], [0.0; LANES]);
            s.store(highest[c], &mut highests);
            s.store(sum[c], &mut sums);
            for lane in 0..LANES {
                let row = from + c * LANES + lane;
                if row < own.length {
                    // SAFETY: a head's rows belong to one unit, and a unit to one part.
                    let to = unsafe { self.lse.slice((own.row + row) * self.attention.heads + head, 1) };
                    to[0] = (f64::from(highests[lane]) + f64::from(sums[lane]).ln()) as f32;
                }
            }
        }
    }
}

/// The rows of a block, `[dim][C vectors]`.
#[inline(always)]
pub(super) fn pack_block<S: Simd, const C: usize>(s: S, head: &Head, values: &[f32], from: usize, to: &mut [f32]) {
    let lines = head.lines(values);
    // The width of a panel is a constant.
    match C {
        1 => lines.pack_lines::<_, LANES>(Exact(s), from, 0, head.dim, to),
        _ => lines.pack_lines::<_, { 2 * LANES }>(Exact(s), from, 0, head.dim, to),
    }
}

/// `scores = e^(score - highest)` for the block's keys, `[keys][C vectors]`; the highest scores and the sums.
#[inline(always)]
fn probabilities<S: Simd, const R: usize, const C: usize>(
    s: S,
    block: &Block<S, C>,
    dim: usize,
    keys: &[f32],
    queries: &[f32],
    scores: &mut [f32],
) -> ([S::V; C], [S::V; C]) {
    let lanes = C * LANES;
    let mut highest = [s.splat(f32::NEG_INFINITY); C];
    for from in block.keys.clone().step_by(R) {
        let mut tile = [[s.splat(0.0); C]; R];
        multiply(s, dim, &keys[from * dim..], (R, 1), queries, lanes, &mut tile);
        for (r, row) in tile.iter_mut().enumerate() {
            block.hide(s, from + r, row);
            for c in 0..C {
                highest[c] = s.max(row[c], highest[c]);
            }
        }
        store(s, &tile, &mut scores[(from - block.keys.start) * lanes..], lanes);
    }
    let mut sum = [s.splat(0.0); C];
    for row in scores.as_chunks_mut::<LANES>().0.as_chunks_mut::<C>().0.iter_mut().take(block.keys.len()) {
        for c in 0..C {
            let power = exp(s, s.sub(s.load(&row[c]), highest[c]));
            s.store(power, &mut row[c]);
            sum[c] = s.add(sum[c], power);
        }
    }
    (highest, sum)
}

/// Divides the rows of `values`, `[..][C vectors]`, by `by`.
#[inline(always)]
fn divide<S: Simd, const C: usize>(s: S, values: &mut [f32], by: &[S::V; C]) {
    let mut factors = *by;
    for factor in &mut factors {
        *factor = s.div(s.splat(1.0), *factor);
    }
    for row in values.as_chunks_mut::<LANES>().0.as_chunks_mut::<C>().0 {
        for c in 0..C {
            s.store(s.mul(s.load(&row[c]), factors[c]), &mut row[c]);
        }
    }
}

//! A block of queries, one in each lane, and how rows get into lanes and out of them.

use std::ops::Range;

use super::CausalAttention;
use crate::buffer::SharedOutput;
use crate::simd::{LANES, Simd};
use crate::training::arithmetic::Exact;
use crate::training::panel::Operand;

/// Subtracted from a key's score for every position that the key is too far away: far beyond all scores, and such that
/// the lowest score is still finite.
const HIDDEN: f32 = 1e30;

/// Properties shared by a unit's heads: where the rows of its sequence and the values of a head begin.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// The first row of the sequence.
    pub(super) row: usize,
    /// Rows of the sequence.
    pub(super) length: usize,
    /// Values in a row, of all heads.
    pub(super) width: usize,
    /// The head's first value in a row.
    pub(super) at: usize,
    pub(super) dim: usize,
}

impl Head {
    /// Head `head` of `heads` of sequence `sequence`.
    pub(super) fn new(attention: &CausalAttention<'_>, sequence: usize, head: usize, heads: usize) -> Self {
        let CausalAttention { head_dim: dim, length, .. } = *attention;
        Self { row: sequence * length, length, width: heads * dim, at: head * dim, dim }
    }

    /// The head's values of row `row` of the sequence.
    pub(super) fn range(&self, row: usize) -> Range<usize> {
        let at = (self.row + row) * self.width + self.at;
        at..at + self.dim
    }

    /// The head of `values` as lines of a product.
    pub(super) fn lines<'a>(&self, values: &'a [f32]) -> Operand<'a> {
        let values = &values[self.row * self.width + self.at..];
        Operand { values, lines: self.length, k: self.width, by_line: true }
    }

    /// Panels `[dim][W]` of all of the head's rows.
    #[inline(always)]
    pub(super) fn pack<S: Simd, const W: usize>(&self, s: S, values: &[f32], to: &mut [f32]) {
        let lines = self.lines(values);
        for (panel, row) in (0..self.length).step_by(W).enumerate() {
            lines.pack_lines::<_, W>(Exact(s), row, 0, self.dim, &mut to[panel * W * self.dim..]);
        }
    }

    /// The head's rows from `first` on, each padded with zeros to `wide` values; rows that there are not are zeros.
    #[inline(always)]
    pub(super) fn copy(&self, values: &[f32], first: usize, wide: usize, to: &mut [f32]) {
        for (row, to) in (first..).zip(to.chunks_exact_mut(wide)) {
            if row < self.length {
                to[..self.dim].copy_from_slice(&values[self.range(row)]);
                to[self.dim..].fill(0.0);
            } else {
                to.fill(0.0);
            }
        }
    }

    /// Writes the head's rows from `first` on: `from` holds them as `[dim][C vectors]`, a row in a lane.
    #[inline(always)]
    pub(super) fn write_lanes<S: Simd, const C: usize>(&self, s: S, from: &[f32], first: usize, to: &SharedOutput<'_>) {
        for c in 0..C {
            for column in (0..self.dim).step_by(LANES) {
                let mut vectors = [s.splat(0.0); LANES];
                for (i, vector) in vectors.iter_mut().enumerate().take(self.dim - column) {
                    *vector = s.load(&from[((column + i) * C + c) * LANES..].as_chunks().0[0]);
                }
                let vectors = s.transpose(vectors);
                for (i, vector) in vectors.iter().enumerate() {
                    let row = first + c * LANES + i;
                    if row < self.length {
                        let range = self.range(row);
                        let len = (self.dim - column).min(LANES);
                        // SAFETY: the rows of a head belong to one unit, and a unit to one part.
                        let to = unsafe { to.slice(range.start + column, len) };
                        match to.first_chunk_mut() {
                            Some(to) => s.store(*vector, to),
                            None => s.store_tail(*vector, to),
                        }
                    }
                }
            }
        }
    }
}

/// Visible keys of 16 C queries, one query in each lane.
pub(super) struct Block<S: Simd, const C: usize> {
    /// Each lane's position; -1, which sees nothing, where there is no query.
    own: [S::V; C],
    /// The first position that each lane sees.
    first: [S::V; C],
    /// Keys in this range are seen by all lanes.
    open: Range<usize>,
    /// Keys outside of this range are seen by none. It begins at a multiple of what was asked for; its end is that of
    /// the last query.
    pub(super) keys: Range<usize>,
}

impl<S: Simd, const C: usize> Block<S, C> {
    /// The block from `from` on of the sequence whose rows see from `first` on, with keys from a multiple of `grain`.
    #[inline(always)]
    pub(super) fn new(s: S, from: usize, first: &[u32], grain: usize) -> Self {
        let mut lanes = [[-1.0; LANES]; C];
        let mut firsts = [[0.0; LANES]; C];
        let end = first.len().min(from + C * LANES);
        let (mut lowest, mut highest) = (from, 0);
        for (lane, first) in first[from..end].iter().enumerate() {
            lanes[lane / LANES][lane % LANES] = (from + lane) as f32;
            firsts[lane / LANES][lane % LANES] = *first as f32;
            lowest = lowest.min(*first as usize);
            highest = highest.max(*first as usize);
        }
        let (mut own, mut seen) = ([s.splat(0.0); C], [s.splat(0.0); C]);
        for c in 0..C {
            (own[c], seen[c]) = (s.load(&lanes[c]), s.load(&firsts[c]));
        }
        let is_full = end == from + C * LANES;
        let open = if is_full { highest..from + 1 } else { 0..0 };
        Self { own, first: seen, open, keys: lowest / grain * grain..end }
    }

    /// The scores of key `key`, so low where a lane does not see it that their exponential is 0.
    #[inline(always)]
    pub(super) fn hide(&self, s: S, key: usize, scores: &mut [S::V; C]) {
        if self.open.contains(&key) {
            return;
        }
        let key = s.splat(key as f32);
        for (c, score) in scores.iter_mut().enumerate() {
            // Positions that are lacking on one side or the other, below 0 where hidden.
            let lacking = s.min(s.min(s.sub(self.own[c], key), s.sub(key, self.first[c])), s.splat(0.0));
            *score = s.fma(lacking, s.splat(HIDDEN), *score);
        }
    }
}

/// The next `len` values of `rest`, and up to a cache line's end.
pub(super) fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (taken, left) = std::mem::take(rest).split_at_mut(padded(len));
    *rest = left;
    taken
}

/// Number of values that [`take`] takes.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(LANES)
}

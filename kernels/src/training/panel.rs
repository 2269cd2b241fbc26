//! Panels: what a tile reads, in the order in which it reads it.
//!
//! A matrix is seen as lines (rows of the left operand, columns of the right one) of k values each. A panel holds `W`
//! lines side by side in words of one or two values of k, `[words][W]`; what is missing at the matrix's end is zero.

use super::arithmetic::Arithmetic;
use crate::simd::{LANES, Simd};

/// Rows that are asked for before they are packed: they lie far apart, which no prefetcher foresees.
const AHEAD: usize = 16;

/// One operand of a product.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) values: &'a [f32],
    pub(super) lines: usize,
    /// Values of k, or where lines lie by line, how far apart they begin.
    pub(super) k: usize,
    /// True if a line's values lie next to each other, `[lines, k]`; otherwise the layout is `[k, lines]`.
    pub(super) by_line: bool,
}

impl Operand<'_> {
    /// A panel of lines that lie in one piece: of the lines from `first` on, for `ks` values of k from `from_k` on. A
    /// vector is stored where fewer lines follow, so `to` must have [`LANES`] values more than the panel.
    #[inline(always)]
    pub(super) fn pack_lines<A: Arithmetic, const W: usize>(
        &self,
        a: A,
        first: usize,
        from_k: usize,
        ks: usize,
        to: &mut [f32],
    ) {
        debug_assert!(self.by_line);
        let s = a.floats();
        let words = ks.div_ceil(A::VALUES);
        for part in (0..W).step_by(LANES) {
            let first = first + part;
            let lines = (self.lines.saturating_sub(first)).min(LANES).min(W - part);
            for done in (0..words).step_by(LANES) {
                let mut vectors = [s.splat(0.0); LANES];
                for (line, vector) in vectors.iter_mut().enumerate().take(lines) {
                    let at = (first + line) * self.k + from_k;
                    let values = &self.values[at..at + ks];
                    let mut pieces = [s.splat(0.0); 2];
                    for (i, piece) in pieces.iter_mut().enumerate().take(A::VALUES) {
                        *piece = load(s, values, done * A::VALUES + i * LANES);
                    }
                    *vector = a.along(pieces);
                }
                let count = (words - done).min(LANES);
                // A vector that is longer than the panel is wide is overwritten from its end on by the next.
                for (i, vector) in s.transpose(vectors).into_iter().enumerate().take(count) {
                    if let Some(to) = to[(done + i) * W + part..].first_chunk_mut::<LANES>() {
                        s.store(vector, to);
                    }
                }
            }
        }
    }

    /// A row of a panel `W` wide, where k goes from row to row: one or two values of k from `from_k` on, below `end`. As
    /// a vector is stored where fewer lines follow, rows are packed in their order, and `to` has [`LANES`] values more
    /// than a narrower row.
    #[inline(always)]
    pub(super) fn pack_row<A: Arithmetic, const W: usize>(
        &self,
        a: A,
        first: usize,
        from_k: usize,
        end: usize,
        to: &mut [f32],
    ) {
        debug_assert!(!self.by_line);
        let s = a.floats();
        for part in (0..W).step_by(LANES) {
            let mut rows = [s.splat(0.0); 2];
            for (i, row) in rows.iter_mut().enumerate().take(A::VALUES.min(end - from_k)) {
                let values = &self.values[(from_k + i) * self.lines..][..self.lines];
                *row = load(s, values, first + part);
            }
            let words = a.across(rows);
            if let Some(to) = to[part..].first_chunk_mut::<LANES>() {
                s.store(words, to);
            }
        }
    }

    /// Asks for `lines` values from `first` on of a row to come, where k goes from row to row.
    #[inline(always)]
    pub(super) fn expect_row<S: Simd>(&self, s: S, first: usize, k: usize, lines: usize) {
        let row = self.values.as_ptr().wrapping_add((k + AHEAD) * self.lines + first);
        for at in (0..lines).step_by(LANES) {
            s.prefetch(row.wrapping_add(at).cast());
        }
    }
}

/// The sixteen values from `at` on, zeros where there are none.
#[inline(always)]
fn load<S: Simd>(s: S, values: &[f32], at: usize) -> S::V {
    let rest = values.get(at..).unwrap_or_default();
    match rest.first_chunk::<LANES>() {
        Some(values) => s.load(values),
        None => s.load_tail(rest),
    }
}

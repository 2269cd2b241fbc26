//! Panels: what a tile reads, in the order in which it reads it.
//!
//! A matrix is seen as lines (rows of the left operand, columns of the right one) of k values each. A panel holds `W`
//! lines side by side, `[k][W]`; lines that are missing at the matrix's end are zeros.

use crate::simd::{LANES, Simd};

/// One operand of a product.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) values: &'a [f32],
    pub(super) lines: usize,
    pub(super) k: usize,
    /// Whether a line's values lie next to each other, `[lines, k]`; otherwise it is `[k, lines]`.
    pub(super) by_line: bool,
}

impl Operand<'_> {
    /// Panels of lines that lie in one piece: of the lines from `first` on, for `ks` values of k from `from_k` on. A
    /// vector is stored where fewer lines follow, so `to` must have [`LANES`] values more than the panel.
    #[inline(always)]
    pub(super) fn pack_lines<S: Simd, const W: usize>(
        &self,
        s: S,
        first: usize,
        from_k: usize,
        ks: usize,
        to: &mut [f32],
    ) {
        debug_assert!(self.by_line);
        for part in (0..W).step_by(LANES) {
            let first = first + part;
            let lines = (self.lines.saturating_sub(first)).min(LANES).min(W - part);
            let mut done = 0;
            while done < ks {
                let count = (ks - done).min(LANES);
                let mut vectors = [s.splat(0.0); LANES];
                for (line, vector) in vectors.iter_mut().enumerate().take(lines) {
                    let at = (first + line) * self.k + from_k + done;
                    let values = &self.values[at..at + count];
                    *vector = match values.first_chunk::<LANES>() {
                        Some(values) => s.load(values),
                        None => s.load_tail(values),
                    };
                }
                // A vector that is longer than the panel is wide is overwritten from its end on by the next.
                for (i, vector) in s.transpose(vectors).into_iter().enumerate().take(count) {
                    let at = (done + i) * W + part;
                    if let Some(to) = to[at..].first_chunk_mut::<LANES>() {
                        s.store(vector, to);
                    }
                }
                done += LANES;
            }
        }
    }

    /// Row `from_k` of a panel `W` wide, where k goes from row to row.
    #[inline(always)]
    pub(super) fn pack_row<const W: usize>(&self, first: usize, from_k: usize, to: &mut [f32; W]) {
        debug_assert!(!self.by_line);
        let row = &self.values[from_k * self.lines..][..self.lines];
        match row.get(first..).and_then(|rest| rest.first_chunk::<W>()) {
            Some(values) => *to = *values,
            None => {
                let rest = row.get(first..).unwrap_or_default();
                to.fill(0.0);
                to[..rest.len()].copy_from_slice(rest);
            }
        }
    }
}

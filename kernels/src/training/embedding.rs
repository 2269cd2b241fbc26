//! The gradient of an embedding.

use std::ops::Range;

use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::elementwise::{Residual, add};
use crate::simd::{Op, Simd};

/// Columns are split in multiples of this, four cache lines.
const GRAIN: usize = 64;

impl Kernels {
    /// `d_matrix[tokens[r]] += d_rows[r]` for every row, in order of the rows: d_rows `[rows, width]`, d_matrix
    /// `[vocabulary, width]`.
    ///
    /// It is added, so that an output matrix that shares the embedding can have put its gradient there before.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length, or a token is not in the matrix.
    pub fn embedding_gradient(&self, d_rows: &[f32], tokens: &[u32], width: usize, d_matrix: &mut [f32]) {
        assert_eq!(d_rows.len(), tokens.len() * width, "d_rows is [rows, width]");
        if width == 0 {
            return;
        }
        assert!(d_matrix.len().is_multiple_of(width), "d_matrix is [vocabulary, width]");
        let vocabulary = d_matrix.len() / width;
        assert!(tokens.iter().all(|token| (*token as usize) < vocabulary), "tokens are in the vocabulary");
        let d_matrix = SharedOutput::new(d_matrix);
        // Split by columns: tokens repeat, and their rows must be added in order.
        self.split(width, GRAIN, 2 * d_rows.len(), &|columns| {
            self.isa.enter(Scatter { d_rows, tokens, width, columns, d_matrix: &d_matrix });
        });
    }
}

struct Scatter<'a> {
    d_rows: &'a [f32],
    tokens: &'a [u32],
    width: usize,
    columns: Range<usize>,
    d_matrix: &'a SharedOutput<'a>,
}

impl Op for Scatter<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (d_row, token) in self.d_rows.chunks_exact(self.width).zip(self.tokens) {
            let at = *token as usize * self.width + self.columns.start;
            // SAFETY: columns do not overlap.
            let to = unsafe { self.d_matrix.slice(at, self.columns.len()) };
            add(s, to, &d_row[self.columns.clone()], Residual::PLAIN);
        }
    }
}

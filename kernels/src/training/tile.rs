//! The innermost part of a product: a tile of the output that stays in registers while k goes by.

use super::arithmetic::Arithmetic;
use crate::buffer::SharedOutput;
use crate::simd::{LANES, Simd};

/// Rows of the tile on machines with 32 registers: with two vectors a row, 24 sums, enough to hide the latency of two
/// multiply-adds a cycle twice over.
pub(super) const WIDE_ROWS: usize = 12;
/// Rows of the tile elsewhere, with one vector a row.
pub(super) const ROWS: usize = 4;

/// Where a tile lies in the output, and how it gets there.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) column: usize,
    /// Rows of the tile that are inside the output; `columns` likewise.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Values in a row of the output.
    pub(super) width: usize,
    /// True if the tile is added to what is there.
    pub(super) add: bool,
}

/// The products of a panel of `R` rows and one of `C` vectors of columns, each `[words]` of that, summed in order of k.
#[inline(always)]
pub(super) fn tile<A: Arithmetic, const R: usize, const C: usize>(
    arithmetic: A,
    a: &[[f32; R]],
    b: &[[[f32; LANES]; C]],
    place: Place,
    out: &SharedOutput<'_>,
) {
    let s = arithmetic.floats();
    let mut sums = [[s.splat(0.0); C]; R];
    for (a, b) in a.iter().zip(b) {
        let mut columns = [s.splat(0.0); C];
        for c in 0..C {
            columns[c] = s.load(&b[c]);
        }
        for r in 0..R {
            let a = s.splat(a[r]);
            for c in 0..C {
                sums[r][c] = arithmetic.add_products(a, columns[c], sums[r][c]);
            }
        }
    }
    put(s, &sums, place, out);
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices into arrays of constant length unroll
fn put<S: Simd, const R: usize, const C: usize>(s: S, sums: &[[S::V; C]; R], place: Place, out: &SharedOutput<'_>) {
    for r in 0..R {
        if r < place.rows {
            // SAFETY: the part of the job that has these rows is the only one to write them, one tile after the other.
            let out = unsafe { out.slice((place.row + r) * place.width + place.column, place.columns) };
            let (vectors, tail) = out.as_chunks_mut::<LANES>();
            for c in 0..C {
                if c < vectors.len() {
                    let sum = if place.add { s.add(s.load(&vectors[c]), sums[r][c]) } else { sums[r][c] };
                    s.store(sum, &mut vectors[c]);
                } else if c == vectors.len() && !tail.is_empty() {
                    let sum = if place.add { s.add(s.load_tail(tail), sums[r][c]) } else { sums[r][c] };
                    s.store_tail(sum, tail);
                }
            }
        }
    }
}

//! Products of large matrices that nobody packed before: forward, gradient of the input, gradient of the weights.
//!
//! The classic scheme (Goto and van de Geijn 2008): the right operand is packed into panels that a tile reads from the
//! nearest cache, blocks of the left one into panels that stay in the next; a tile of the output stays in registers.
//! k is cut into blocks of [`K_BLOCK`], the only cut that the results know of.

use std::ops::Range;

use super::panel::Operand;
use super::scratch::Scratch;
use super::tile::{Place, ROWS, WIDE_ROWS, tile};
use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::simd::{LANES, Op, Simd};

/// Values of k that are summed in registers. Part of the definition of the result: changing it changes bits.
const K_BLOCK: usize = 256;
/// Rows of the left operand that are packed at once: 192 KiB, a fraction of the second cache.
const ROW_BLOCK: usize = 192;
/// Values of the right operand that are packed at once: 8 MiB.
const PACKED: usize = 2 << 20;
/// Rows are split over threads in multiples of this, which all tiles divide.
const ROW_GRAIN: usize = 12;

/// How an operand of [`Kernels::gemm`] lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatrixLayout {
    /// Row by row, as the product is written.
    Plain,
    /// The transposed matrix, row by row.
    Transposed,
}

impl Kernels {
    /// `out = a b`, or `out += a b` where `accumulate`: a `[m, k]`, b `[k, n]`, out `[m, n]`, row by row.
    ///
    /// An operand whose layout is [`MatrixLayout::Transposed`] is stored as `[k, m]` or `[n, k]`. So with weights
    /// `[out, in]` and rows of activations, the three products of training are
    ///
    /// - `y = x w^T`: `gemm(x, Plain, w, Transposed, rows, out, in, false, y)`,
    /// - `dx = dy w`: `gemm(dy, Plain, w, Plain, rows, in, out, false, dx)`,
    /// - `dw += dy^T x`: `gemm(dy, Transposed, x, Plain, out, in, rows, true, dw)`.
    ///
    /// Every value is summed by fused multiply-adds in order of k in blocks of 256, and the blocks in order (to what
    /// was there first), so it has the same bits on every instruction set, number of threads, and whatever the other
    /// rows and columns are.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length.
    #[allow(clippy::too_many_arguments)] // as many as the operation has everywhere
    pub fn gemm(
        &self,
        a: &[f32],
        a_layout: MatrixLayout,
        b: &[f32],
        b_layout: MatrixLayout,
        m: usize,
        n: usize,
        k: usize,
        accumulate: bool,
        out: &mut [f32],
    ) {
        assert_eq!(a.len(), m * k, "a is [m, k]");
        assert_eq!(b.len(), k * n, "b is [k, n]");
        assert_eq!(out.len(), m * n, "out is [m, n]");
        if k == 0 && !accumulate {
            out.fill(0.0);
        }
        if m == 0 || n == 0 || k == 0 {
            return;
        }
        let left = Operand { values: a, lines: m, k, by_line: a_layout == MatrixLayout::Plain };
        let right = Operand { values: b, lines: n, k, by_line: b_layout == MatrixLayout::Transposed };
        let out = SharedOutput::new(out);
        let columns_at_once = PACKED / K_BLOCK;
        for from in (0..n).step_by(columns_at_once) {
            let columns = from..n.min(from + columns_at_once);
            let padded = columns.len().next_multiple_of(2 * LANES);
            let ks_at_once = PACKED / padded / K_BLOCK * K_BLOCK;
            let mut packed = Scratch::new(padded * ks_at_once.min(k));
            for from_k in (0..k).step_by(ks_at_once) {
                let ks = from_k..k.min(from_k + ks_at_once);
                let job = Job { left, right, columns: columns.clone(), ks, accumulate };
                self.pack_right(&job, &mut packed);
                let work = m * columns.len() * job.ks.len() / LANES;
                self.split(m, ROW_GRAIN, work, &|rows| {
                    self.isa.enter(Rows { job: &job, packed: &packed, rows, out: &out });
                });
            }
        }
    }

    /// Packs the right operand of `job`: for every block of k, its panels.
    fn pack_right(&self, job: &Job<'_>, packed: &mut [f32]) {
        let (columns, ks) = (job.columns.len(), job.ks.len());
        let packed = SharedOutput::new(packed);
        if job.right.by_line {
            self.split(columns, 2 * LANES, columns * ks, &|range| {
                self.isa.enter(RightLines { job, columns: range, packed: &packed });
            });
        } else {
            self.split(ks, 1, columns * ks, &|range| {
                self.isa.enter(RightRows { job, ks: range, packed: &packed });
            });
        }
    }
}

/// A product of all rows with some columns over some of k.
struct Job<'a> {
    left: Operand<'a>,
    right: Operand<'a>,
    columns: Range<usize>,
    ks: Range<usize>,
    accumulate: bool,
}

impl Job<'_> {
    /// The blocks of k: where each begins and ends within `ks`.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let len = self.ks.len();
        (0..len).step_by(K_BLOCK).map(move |from| from..len.min(from + K_BLOCK))
    }

    /// Where a panel `width` wide that begins with the job's column `column` is packed, for a block of k.
    fn panel(&self, block: &Range<usize>, column: usize, width: usize) -> Range<usize> {
        let padded = self.columns.len().next_multiple_of(width);
        let at = block.start * padded + column * block.len();
        at..at + width * block.len()
    }
}

/// Columns of a tile on an instruction set.
const fn tile_columns(wide: bool) -> usize {
    if wide { 2 * LANES } else { LANES }
}

/// Packs columns that lie in one piece each.
struct RightLines<'a> {
    job: &'a Job<'a>,
    columns: Range<usize>,
    packed: &'a SharedOutput<'a>,
}

impl Op for RightLines<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let job = self.job;
        let width = tile_columns(S::WIDE);
        for block in job.blocks() {
            for column in self.columns.clone().step_by(width) {
                let place = job.panel(&block, column, width);
                // SAFETY: panels do not overlap, and each belongs to one part: parts begin at multiples of its width.
                let to = unsafe { self.packed.slice(place.start, place.len()) };
                let (first, from_k) = (job.columns.start + column, job.ks.start + block.start);
                if S::WIDE {
                    job.right.pack_lines::<S, { 2 * LANES }>(s, first, from_k, block.len(), to);
                } else {
                    job.right.pack_lines::<S, LANES>(s, first, from_k, block.len(), to);
                }
            }
        }
    }
}

/// Packs columns that lie row by row, the rows `ks` of them.
struct RightRows<'a> {
    job: &'a Job<'a>,
    ks: Range<usize>,
    packed: &'a SharedOutput<'a>,
}

impl Op for RightRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        if S::WIDE { self.pack::<{ 2 * LANES }>() } else { self.pack::<LANES>() }
    }
}

impl RightRows<'_> {
    #[inline(always)]
    fn pack<const W: usize>(&self) {
        let job = self.job;
        for k in self.ks.clone() {
            let start = k / K_BLOCK * K_BLOCK;
            let block = start..job.ks.len().min(start + K_BLOCK);
            for column in (0..job.columns.len()).step_by(W) {
                let at = job.panel(&block, column, W).start + (k - start) * W;
                // SAFETY: each row of a panel belongs to the part that has its k.
                let to = unsafe { self.packed.slice(at, W) };
                if let Some(to) = to.first_chunk_mut::<W>() {
                    job.right.pack_row(job.columns.start + column, job.ks.start + k, to);
                }
            }
        }
    }
}

/// The product of some rows with all packed columns.
struct Rows<'a> {
    job: &'a Job<'a>,
    packed: &'a [f32],
    rows: Range<usize>,
    out: &'a SharedOutput<'a>,
}

impl Op for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if S::WIDE { self.multiply::<S, WIDE_ROWS, 2>(s) } else { self.multiply::<S, ROWS, 1>(s) }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn multiply<S: Simd, const R: usize, const C: usize>(&self, s: S) {
        // Blocks of about one size, in whole tiles.
        let blocks = self.rows.len().div_ceil(ROW_BLOCK);
        let at_once = self.rows.len().div_ceil(blocks).next_multiple_of(R);
        let mut left = Scratch::new(at_once * K_BLOCK + LANES);
        for from in self.rows.clone().step_by(at_once) {
            let rows = from..self.rows.end.min(from + at_once);
            for block in self.job.blocks() {
                self.pack_left::<S, R>(s, &rows, &block, &mut left);
                self.tiles::<S, R, C>(s, &rows, &block, &left);
            }
        }
    }

    /// Packs a block of the left operand: panels of `R` rows, and a last one of as many as there are left, rounded up to
    /// a multiple of 4.
    #[inline(always)]
    fn pack_left<S: Simd, const R: usize>(&self, s: S, rows: &Range<usize>, block: &Range<usize>, to: &mut [f32]) {
        let (left, from_k, ks) = (self.job.left, self.job.ks.start + block.start, block.len());
        if left.by_line {
            for (panel, row) in rows.clone().step_by(R).enumerate() {
                let to = &mut to[panel * R * ks..];
                match panel_rows(rows.end - row, R) {
                    4 => left.pack_lines::<S, 4>(s, row, from_k, ks, to),
                    8 => left.pack_lines::<S, 8>(s, row, from_k, ks, to),
                    _ => left.pack_lines::<S, R>(s, row, from_k, ks, to),
                }
            }
        } else {
            for k in 0..ks {
                for (panel, row) in rows.clone().step_by(R).enumerate() {
                    let to = &mut to[panel * R * ks..];
                    match panel_rows(rows.end - row, R) {
                        4 => pack_row::<4>(left, row, from_k + k, &mut to[k * 4..]),
                        8 => pack_row::<8>(left, row, from_k + k, &mut to[k * 8..]),
                        _ => pack_row::<R>(left, row, from_k + k, &mut to[k * R..]),
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const C: usize>(
        &self,
        s: S,
        rows: &Range<usize>,
        block: &Range<usize>,
        left: &[f32],
    ) {
        let (job, ks) = (self.job, block.len());
        let add = job.accumulate || job.ks.start + block.start > 0;
        for column in (0..job.columns.len()).step_by(C * LANES) {
            let right = &self.packed[job.panel(block, column, C * LANES)];
            let (right, _) = right.as_chunks::<LANES>().0.as_chunks::<C>();
            for (panel, row) in rows.clone().step_by(R).enumerate() {
                let place = Place {
                    row,
                    column: job.columns.start + column,
                    rows: (rows.end - row).min(R),
                    columns: (job.columns.len() - column).min(C * LANES),
                    width: job.right.lines,
                    add,
                };
                let left = &left[panel * R * ks..];
                match panel_rows(rows.end - row, R) {
                    4 => tile::<S, 4, C>(s, &left.as_chunks().0[..ks], right, place, self.out),
                    8 => tile::<S, 8, C>(s, &left.as_chunks().0[..ks], right, place, self.out),
                    _ => tile::<S, R, C>(s, &left.as_chunks().0[..ks], right, place, self.out),
                }
            }
        }
    }
}

/// Rows of a panel where `left` are left, of `most` at most.
#[inline(always)]
fn panel_rows(left: usize, most: usize) -> usize {
    left.next_multiple_of(4).min(most)
}

#[inline(always)]
fn pack_row<const W: usize>(operand: Operand<'_>, first: usize, k: usize, to: &mut [f32]) {
    if let Some(to) = to.first_chunk_mut::<W>() {
        operand.pack_row(first, k, to);
    }
}

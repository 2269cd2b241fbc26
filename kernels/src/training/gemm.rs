//! Products of large matrices that nobody packed before: forward, gradient of the input, gradient of the weights.
//!
//! The classic scheme (Goto and van de Geijn 2008): the right operand is packed into panels that a tile reads from the
//! nearest cache, blocks of the left one into panels that stay in the next; a tile of the output stays in registers.
//! k is cut into blocks, the only cut that the results know of.

use std::ops::Range;

use super::arithmetic::{Arithmetic, ProductOp, TrainingPrecision, enter};
use super::panel::Operand;
use super::scratch::Scratch;
use super::tile::{Place, ROWS, WIDE_ROWS, tile};
use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::simd::{LANES, Simd};

/// Rows of the left operand that are packed at once: 192 KiB, a fraction of the second cache.
const ROW_BLOCK: usize = 192;
/// Words of the right operand that are packed at once: 8 MiB.
const PACKED: usize = 2 << 20;
/// Words of k in a block: panels 32 wide are 32 KiB.
const K_WORDS: usize = 256;
/// Rows that are worth a part of their own: fewer read the packed operand too often.
const PART_ROWS: usize = 48;
/// Parts for each thread at most.
const PARTS_PER_THREAD: usize = 4;

/// Values of k that are summed in registers. Part of the definition of the result: changing it changes bits.
const fn k_block(precision: TrainingPrecision) -> usize {
    match precision {
        TrainingPrecision::F32 => K_WORDS,
        TrainingPrecision::Bf16 => 2 * K_WORDS,
    }
}

/// Memory layout of an operand of [`Kernels::gemm`].
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
    /// - `y = x w^T`: `gemm(precision, x, Plain, w, Transposed, rows, out, in, false, y)`,
    /// - `dx = dy w`: `gemm(precision, dy, Plain, w, Plain, rows, in, out, false, dx)`,
    /// - `dw += dy^T x`: `gemm(precision, dy, Transposed, x, Plain, out, in, rows, true, dw)`.
    ///
    /// In f32 every value is summed by fused multiply-adds in order of k in blocks of 256, and the blocks in order (to
    /// what was there first), so it has the same bits on every instruction set, number of threads, and whatever the other
    /// rows and columns are.
    ///
    /// With [`TrainingPrecision::Bf16`] a and b are rounded to bf16 (8 bits of precision) first and the blocks of k are
    /// of 512. On a machine with AVX-512 BF16 pairs of products are added by its instruction, which takes subnormal
    /// numbers for 0; elsewhere the same is computed in f32, no faster, with other roundings of the sums. So the bits
    /// are the same for every number of threads and whatever the other rows and columns are, but not on all instruction
    /// sets. Magnitudes above 2^111 may become NaN.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length.
    #[allow(clippy::too_many_arguments)] // as many as the operation has everywhere
    pub fn gemm(
        &self,
        precision: TrainingPrecision,
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
        let k_block = k_block(precision);
        let columns_at_once = PACKED / k_block;
        for from in (0..n).step_by(columns_at_once) {
            let columns = from..n.min(from + columns_at_once);
            let padded = columns.len().next_multiple_of(2 * LANES);
            let ks_at_once = PACKED / padded / k_block * k_block;
            let mut packed = Scratch::new(padded * ks_at_once.min(k));
            for from_k in (0..k).step_by(ks_at_once) {
                let ks = from_k..k.min(from_k + ks_at_once);
                let job = Job { left, right, columns: columns.clone(), ks, k_block, accumulate };
                self.pack_right(precision, &job, &mut packed);
                let work = m * columns.len() * job.ks.len() / LANES;
                self.split(m, part_rows(m, self.threads()), work, &|rows| {
                    enter(self.isa, precision, Rows { job: &job, packed: &packed, rows, out: &out });
                });
            }
        }
    }

    /// Packs the right operand of `job`: for every block of k, its panels.
    fn pack_right(&self, precision: TrainingPrecision, job: &Job<'_>, packed: &mut [f32]) {
        let (columns, ks) = (job.columns.len(), job.ks.len());
        let packed = SharedOutput::new(packed);
        if job.right.by_line {
            self.split(columns, 2 * LANES, columns * ks, &|range| {
                enter(self.isa, precision, RightLines { job, columns: range, packed: &packed });
            });
        } else {
            // A multiple of the values in a word.
            self.split(ks, 2, columns * ks, &|range| {
                enter(self.isa, precision, RightRows { job, ks: range, packed: &packed });
            });
        }
    }
}

/// Rows of a part, for parts of about one size that `threads` threads share evenly.
fn part_rows(rows: usize, threads: usize) -> usize {
    let parts = (rows / PART_ROWS / threads).clamp(1, PARTS_PER_THREAD) * threads;
    rows.div_ceil(parts).next_multiple_of(4)
}

/// A product of all rows with some columns over some of k.
struct Job<'a> {
    left: Operand<'a>,
    right: Operand<'a>,
    columns: Range<usize>,
    ks: Range<usize>,
    /// Values of k in a block.
    k_block: usize,
    accumulate: bool,
}

impl Job<'_> {
    /// The blocks of k: where each begins and ends within `ks`.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (len, k_block) = (self.ks.len(), self.k_block);
        (0..len).step_by(k_block).map(move |from| from..len.min(from + k_block))
    }

    /// Where a panel `width` wide that begins with the job's column `column` is packed, for a block of k.
    fn panel<A: Arithmetic>(&self, block: &Range<usize>, column: usize, width: usize) -> Range<usize> {
        let padded = self.columns.len().next_multiple_of(width);
        let words = block.len().div_ceil(A::VALUES);
        let at = block.start / A::VALUES * padded + column * words;
        at..at + width * words
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

impl ProductOp for RightLines<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self, a: A) {
        let job = self.job;
        let width = tile_columns(A::F::WIDE);
        for block in job.blocks() {
            for column in self.columns.clone().step_by(width) {
                let place = job.panel::<A>(&block, column, width);
                // SAFETY: panels do not overlap, and each belongs to one part: parts begin at multiples of its width.
                let to = unsafe { self.packed.slice(place.start, place.len()) };
                let (first, from_k) = (job.columns.start + column, job.ks.start + block.start);
                if A::F::WIDE {
                    job.right.pack_lines::<A, { 2 * LANES }>(a, first, from_k, block.len(), to);
                } else {
                    job.right.pack_lines::<A, LANES>(a, first, from_k, block.len(), to);
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

impl ProductOp for RightRows<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self, a: A) {
        if A::F::WIDE { self.pack::<A, { 2 * LANES }>(a) } else { self.pack::<A, LANES>(a) }
    }
}

impl RightRows<'_> {
    #[inline(always)]
    fn pack<A: Arithmetic, const W: usize>(&self, a: A) {
        let job = self.job;
        for k in self.ks.clone().step_by(A::VALUES) {
            let start = k / job.k_block * job.k_block;
            let block = start..job.ks.len().min(start + job.k_block);
            for column in (0..job.columns.len()).step_by(W) {
                let at = job.panel::<A>(&block, column, W).start + (k - start) / A::VALUES * W;
                // SAFETY: each row of a panel belongs to the part that has its k.
                let to = unsafe { self.packed.slice(at, W) };
                job.right.pack_row::<A, W>(a, job.columns.start + column, job.ks.start + k, job.ks.end, to);
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

impl ProductOp for Rows<'_> {
    #[inline(always)]
    fn run<A: Arithmetic>(self, a: A) {
        if A::F::WIDE { self.multiply::<A, WIDE_ROWS, 2>(a) } else { self.multiply::<A, ROWS, 1>(a) }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn multiply<A: Arithmetic, const R: usize, const C: usize>(&self, a: A) {
        // Blocks of about one size, in whole tiles.
        let blocks = self.rows.len().div_ceil(ROW_BLOCK);
        let at_once = self.rows.len().div_ceil(blocks).next_multiple_of(R);
        let mut left = Scratch::new(at_once / R * panel_size::<A, R>(self.job.k_block));
        for from in self.rows.clone().step_by(at_once) {
            let rows = from..self.rows.end.min(from + at_once);
            for block in self.job.blocks() {
                self.pack_left::<A, R>(a, &rows, &block, &mut left);
                self.tiles::<A, R, C>(a, &rows, &block, &left);
            }
        }
    }

    /// Packs a block of the left operand: panels of `R` rows, and a last one of as many as there are left, rounded up to
    /// a multiple of 4.
    #[inline(always)]
    fn pack_left<A: Arithmetic, const R: usize>(
        &self,
        a: A,
        rows: &Range<usize>,
        block: &Range<usize>,
        to: &mut [f32],
    ) {
        let (left, from_k, ks) = (self.job.left, self.job.ks.start + block.start, block.len());
        let words = ks.div_ceil(A::VALUES);
        if left.by_line {
            for (panel, row) in rows.clone().step_by(R).enumerate() {
                let to = &mut to[panel * panel_size::<A, R>(ks)..];
                match panel_rows(rows.end - row, R) {
                    4 => left.pack_lines::<A, 4>(a, row, from_k, ks, to),
                    8 => left.pack_lines::<A, 8>(a, row, from_k, ks, to),
                    _ => left.pack_lines::<A, R>(a, row, from_k, ks, to),
                }
            }
        } else {
            for word in 0..words {
                let k = from_k + word * A::VALUES..from_k + ks;
                for k in k.start..k.start + A::VALUES {
                    left.expect_row(a.floats(), rows.start, k, rows.len());
                }
                for (panel, row) in rows.clone().step_by(R).enumerate() {
                    let to = &mut to[panel * panel_size::<A, R>(ks)..];
                    match panel_rows(rows.end - row, R) {
                        4 => left.pack_row::<A, 4>(a, row, k.start, k.end, &mut to[word * 4..]),
                        8 => left.pack_row::<A, 8>(a, row, k.start, k.end, &mut to[word * 8..]),
                        _ => left.pack_row::<A, R>(a, row, k.start, k.end, &mut to[word * R..]),
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn tiles<A: Arithmetic, const R: usize, const C: usize>(
        &self,
        a: A,
        rows: &Range<usize>,
        block: &Range<usize>,
        left: &[f32],
    ) {
        let (job, words) = (self.job, block.len().div_ceil(A::VALUES));
        let add = job.accumulate || job.ks.start + block.start > 0;
        for column in (0..job.columns.len()).step_by(C * LANES) {
            let right = &self.packed[job.panel::<A>(block, column, C * LANES)];
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
                let left = &left[panel * panel_size::<A, R>(block.len())..];
                match panel_rows(rows.end - row, R) {
                    4 => tile::<A, 4, C>(a, &left.as_chunks().0[..words], right, place, self.out),
                    8 => tile::<A, 8, C>(a, &left.as_chunks().0[..words], right, place, self.out),
                    _ => tile::<A, R, C>(a, &left.as_chunks().0[..words], right, place, self.out),
                }
            }
        }
    }
}

/// Words of a panel of `R` rows for `ks` values of k, with room for a vector at its end.
#[inline(always)]
fn panel_size<A: Arithmetic, const R: usize>(ks: usize) -> usize {
    R * ks.div_ceil(A::VALUES) + LANES
}

/// Rows of a panel where `left` are left, of `most` at most.
#[inline(always)]
fn panel_rows(left: usize, most: usize) -> usize {
    left.next_multiple_of(4).min(most)
}

//! Products with a weight matrix.
//!
//! A part of the job owns a range of output columns and serves every row for a few columns before it goes on
//! to the next few, so weights stream from memory once. With one or few rows the stream is the bottleneck:
//! weights are widened in registers and prefetched. With many rows arithmetic is: the activations are copied
//! to cache lines' starts, and each few columns widened once, padded likewise.

use std::cell::Cell;
use std::ops::Range;
use std::thread::LocalKey;

use crate::buffer::{AlignedBuffer, SharedOutput};
use crate::simd::{LANES, Op, Simd};
use crate::tile::{Stored, StoredBf16, StoredF16, StoredF32, Sums, accumulate, add_up, tile};
use crate::weights::{FloatFormat, Weights};

/// Whether copying activations and widened weights pays. Widening in registers costs next to nothing where a
/// vector is one register; f32 weights need no widening, but where they lie splits their vectors over two
/// cache lines.
pub(crate) fn are_many(rows: usize, format: FloatFormat, wide: bool) -> bool {
    match (wide, format) {
        (true, FloatFormat::F16 | FloatFormat::Bf16) => rows > 32,
        (true, FloatFormat::F32) => rows > 8,
        (false, _) => rows > 4,
    }
}

/// Columns that are widened at once; a multiple of every tile's.
const PANEL: usize = 8;
/// Values of a column that are widened at once: a panel of them takes half of a first-level cache.
const DEPTH: usize = 768;
/// Activations that are worked on at once: half of a second-level cache.
const BLOCK: usize = 1 << 17;
/// Rows of the tile for many rows.
const TILE_ROWS: usize = 3;

thread_local! {
    static PACKED_ROWS: Cell<Option<AlignedBuffer>> = const { Cell::new(None) };
    static PACKED_COLUMNS: Cell<Option<AlignedBuffer>> = const { Cell::new(None) };
}

/// Takes the thread's buffer, grown to at least `len` values, whose content is whatever was left there. To be
/// set again after use.
fn take_buffer(place: &'static LocalKey<Cell<Option<AlignedBuffer>>>, len: usize) -> AlignedBuffer {
    place.take().filter(|buffer| buffer.as_slice().len() >= len).unwrap_or_else(|| AlignedBuffer::new(len))
}

/// A product whose sizes have been checked: x `[rows, in]`, out `[rows, out]`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) weights: &'a Weights,
    pub(crate) bias: Option<&'a [f32]>,
    /// What [`are_many`] said.
    pub(crate) many: bool,
}

impl Product<'_> {
    /// Calls `f` with the activations as the inner loop wants them: `(x, values from one row to the next)`.
    pub(crate) fn with_activations(&self, f: impl FnOnce(&[f32], usize)) {
        let k = self.weights.in_features();
        if !self.many {
            return f(self.x, k);
        }
        let stride = k.next_multiple_of(LANES);
        let mut buffer = take_buffer(&PACKED_ROWS, self.rows * stride);
        let packed = &mut buffer.as_mut_slice()[..self.rows * stride];
        for (to, from) in packed.chunks_exact_mut(stride).zip(self.x.chunks_exact(k)) {
            to[..k].copy_from_slice(from);
            to[k..].fill(0.0);
        }
        f(packed, stride);
        PACKED_ROWS.set(Some(buffer));
    }
}

/// The columns of a product that one part computes.
pub(crate) struct Columns<'a> {
    pub(crate) product: Product<'a>,
    /// What [`Product::with_activations`] gave.
    pub(crate) x: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) range: Range<usize>,
    pub(crate) out: &'a SharedOutput<'a>,
}

impl Op for Columns<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let many = self.product.many;
        match self.product.weights.format() {
            FloatFormat::F32 if many => self.panels::<S, StoredF32>(s),
            FloatFormat::F16 if many => self.panels::<S, StoredF16>(s),
            FloatFormat::Bf16 if many => self.panels::<S, StoredBf16>(s),
            FloatFormat::F32 => self.stream::<S, StoredF32>(s),
            FloatFormat::F16 => self.stream::<S, StoredF16>(s),
            FloatFormat::Bf16 => self.stream::<S, StoredBf16>(s),
        }
    }
}

/// A few columns in a row: their weights lie `bytes` apart.
#[derive(Clone, Copy)]
struct Group {
    weights: *const u8,
    bytes: usize,
    column: usize,
    count: usize,
}

impl Group {
    /// Pointers to the columns' weights; those past the last are the last once more, so a tile that sticks
    /// out computes that again.
    ///
    /// # Safety
    /// The group's `count` columns must exist, one at least.
    #[inline(always)]
    unsafe fn pointers<const COLUMNS: usize>(&self) -> [*const u8; COLUMNS] {
        let mut w = [self.weights; COLUMNS];
        for (c, w) in w.iter_mut().enumerate() {
            // SAFETY: one of the `count` columns.
            *w = unsafe { self.weights.add(c.min(self.count - 1) * self.bytes) };
        }
        w
    }
}

impl Columns<'_> {
    /// Few rows: straight from the stored weights.
    #[inline(always)]
    fn stream<S: Simd, W: Stored>(&self, s: S) {
        let bytes = self.product.weights.in_features() * W::BYTES;
        let data = &self.product.weights.data()[self.range.start * bytes..self.range.end * bytes];
        let rows = self.product.rows;
        let width = match (S::WIDE, rows) {
            (true, _) => 8,
            (false, 1) => 4,
            (false, _) => 2,
        };
        let mut column = self.range.start;
        for weights in data.chunks(width * bytes) {
            let group = Group { weights: weights.as_ptr(), bytes, column, count: weights.len() / bytes };
            let mut row = 0;
            while row < rows {
                // The columns after these, while the first rows are served.
                let ahead = if row == 0 { weights.len() } else { 0 };
                // SAFETY: `group` is `count` rows of stored weights, and the tiles have no more rows than are left.
                row += unsafe {
                    match (width, rows - row) {
                        (8, 1) => self.one_tile::<S, W, 1, 8>(s, row, group, ahead),
                        (8, 2 | 4) => self.one_tile::<S, W, 2, 8>(s, row, group, ahead),
                        (8, _) => self.one_tile::<S, W, 3, 8>(s, row, group, ahead),
                        (4, _) => self.one_tile::<S, W, 1, 4>(s, row, group, ahead),
                        (_, 1) => self.one_tile::<S, W, 1, 2>(s, row, group, ahead),
                        (_, 2 | 4) => self.one_tile::<S, W, 2, 2>(s, row, group, ahead),
                        (_, _) => self.one_tile::<S, W, 3, 2>(s, row, group, ahead),
                    }
                };
            }
            column += group.count;
        }
    }

    /// One tile from the stored weights; returns its rows.
    ///
    /// # Safety
    /// The group must hold whole rows of weights stored as `W`, and there must be `ROWS` rows from `row` on.
    #[inline(always)]
    unsafe fn one_tile<S: Simd, W: Stored, const ROWS: usize, const COLUMNS: usize>(
        &self,
        s: S,
        row: usize,
        group: Group,
        ahead: usize,
    ) -> usize {
        let k = self.product.weights.in_features();
        // SAFETY: rows of `k` values on both sides, by the caller.
        let sums = unsafe { tile::<S, W, ROWS, COLUMNS>(s, self.rows(row, 0), group.pointers(), k, ahead) };
        self.write(row, group.column, group.count, &sums);
        ROWS
    }

    /// Many rows: a panel of weights is widened, then serves a block of rows.
    #[inline(always)]
    fn panels<S: Simd, W: Stored>(&self, s: S) {
        if S::WIDE { self.panels_by::<S, W, 8>(s) } else { self.panels_by::<S, W, 2>(s) }
    }

    #[inline(always)]
    fn panels_by<S: Simd, W: Stored, const COLUMNS: usize>(&self, s: S) {
        let k = self.product.weights.in_features();
        let bytes = k * W::BYTES;
        let data = &self.product.weights.data()[self.range.start * bytes..self.range.end * bytes];
        let rows = self.product.rows;
        let block = (BLOCK / self.stride).max(8 * TILE_ROWS).next_multiple_of(TILE_ROWS);
        let mut buffer = take_buffer(&PACKED_COLUMNS, PANEL * DEPTH);
        // The accumulators of a block's tiles, for the columns longer than a panel is deep.
        let mut kept: Vec<Sums<S, TILE_ROWS, COLUMNS>> = Vec::new();
        if self.stride > DEPTH {
            kept.resize(block / TILE_ROWS * (PANEL / COLUMNS), [[s.splat(0.0); COLUMNS]; TILE_ROWS]);
        }
        let mut first_row = 0;
        while first_row < rows {
            let block_rows = first_row..rows.min(first_row + block);
            let mut column = self.range.start;
            for weights in data.chunks(PANEL * bytes) {
                let columns = weights.len() / bytes;
                let mut from = 0;
                while from < self.stride {
                    let depth = DEPTH.min(self.stride - from);
                    let panel = &mut buffer.as_mut_slice()[..PANEL * depth];
                    let stored = from * W::BYTES..k.min(from + depth) * W::BYTES;
                    for (to, weights) in panel.chunks_exact_mut(depth).zip(weights.chunks_exact(bytes)) {
                        widen::<S, W>(s, &weights[stored.clone()], to, PANEL * bytes);
                    }
                    let mut kept = kept.iter_mut();
                    let mut done = 0;
                    while done < columns {
                        let group = Group {
                            weights: panel[done * depth..].as_ptr().cast(),
                            bytes: depth * size_of::<f32>(),
                            column: column + done,
                            count: COLUMNS.min(columns - done),
                        };
                        let mut row = block_rows.start;
                        while row < block_rows.end {
                            let kept = kept.next();
                            // SAFETY: the group is `count` rows of the panel, of `depth` values, which each
                            // row of activations has from `from` on; and the tiles have no more rows than are
                            // left.
                            row += unsafe {
                                match block_rows.end - row {
                                    1 => self.panel_tile::<S, 1, COLUMNS>(s, row, group, from, depth, kept),
                                    2 | 4 => self.panel_tile::<S, 2, COLUMNS>(s, row, group, from, depth, kept),
                                    _ => self.panel_tile::<S, TILE_ROWS, COLUMNS>(s, row, group, from, depth, kept),
                                }
                            };
                        }
                        done += group.count;
                    }
                    from += depth;
                }
                column += columns;
            }
            first_row = block_rows.end;
        }
        PACKED_COLUMNS.set(Some(buffer));
    }

    /// One tile's sums over `depth` values from `from` on; returns its rows.
    ///
    /// # Safety
    /// The group must be of f32 values, `depth` in each column, and the activations have as many from `from`
    /// on; there must be `ROWS` rows from `row` on.
    #[inline(always)]
    unsafe fn panel_tile<S: Simd, const ROWS: usize, const COLUMNS: usize>(
        &self,
        s: S,
        row: usize,
        group: Group,
        from: usize,
        depth: usize,
        kept: Option<&mut Sums<S, TILE_ROWS, COLUMNS>>,
    ) -> usize {
        let mut sums = [[s.splat(0.0); COLUMNS]; ROWS];
        if let (Some(kept), true) = (&kept, from > 0) {
            sums.copy_from_slice(&kept[..ROWS]);
        }
        // SAFETY: `depth` values on both sides, by the caller.
        unsafe {
            let (x, w) = (self.rows(row, from), group.pointers());
            accumulate::<S, StoredF32, ROWS, COLUMNS>(s, x, w, depth, 0, &mut sums);
        }
        if from + depth == self.stride {
            self.write(row, group.column, group.count, &add_up::<S, ROWS, COLUMNS>(s, &sums));
        } else if let Some(kept) = kept {
            kept[..ROWS].copy_from_slice(&sums);
        }
        ROWS
    }

    /// Pointers to the activations of the rows from `row` on, from their value `from` on.
    #[inline(always)]
    fn rows<const ROWS: usize>(&self, row: usize, from: usize) -> [*const f32; ROWS] {
        let mut x = [self.x.as_ptr(); ROWS];
        for (r, x) in x.iter_mut().enumerate() {
            *x = self.x[(row + r) * self.stride + from..].as_ptr();
        }
        x
    }

    /// Writes the `count` first columns of each row's results, with the bias.
    #[inline(always)]
    fn write<const ROWS: usize, const COLUMNS: usize>(
        &self,
        row: usize,
        column: usize,
        count: usize,
        results: &[[f32; COLUMNS]; ROWS],
    ) {
        for (r, results) in results.iter().enumerate() {
            let at = (row + r) * self.product.weights.out_features() + column;
            // SAFETY: the columns are in this part's range, which no other part has.
            let out = unsafe { self.out.slice(at, count) };
            match self.product.bias {
                Some(bias) => {
                    for ((out, sum), bias) in out.iter_mut().zip(results).zip(&bias[column..]) {
                        *out = sum + bias;
                    }
                }
                None => out.copy_from_slice(&results[..count]),
            }
        }
    }
}

/// Widens (a part of) a row of weights and pads it with zeros; `ahead` bytes past it is prefetched.
#[inline(always)]
fn widen<S: Simd, W: Stored>(s: S, from: &[u8], to: &mut [f32], ahead: usize) {
    let whole = from.len() / (LANES * W::BYTES) * LANES;
    let (full, tail) = to.split_at_mut(whole);
    for (i, to) in full.as_chunks_mut().0.iter_mut().enumerate() {
        // SAFETY: sixteen values from `16 * i` on are inside `from`, as they are inside `full`.
        let from = unsafe { from.as_ptr().add(i * LANES * W::BYTES) };
        s.prefetch(from.wrapping_add(ahead));
        // SAFETY: as above.
        s.store(unsafe { W::load(s, from) }, to);
    }
    if !tail.is_empty() {
        let mut padded = [0_u8; 4 * LANES];
        let rest = &from[whole * W::BYTES..];
        padded[..rest.len()].copy_from_slice(rest);
        // SAFETY: the array holds sixteen of the widest values.
        s.store_tail(unsafe { W::load(s, padded.as_ptr()) }, tail);
    }
}

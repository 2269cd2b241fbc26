//! Products with a quantized weight matrix.
//!
//! Activations are rounded to 8 bits once, then each part of the job owns a range of blocks of sixteen outputs
//! and serves every row from a block before it goes on to the next, so weights stream from memory once. For a
//! group of k the products are summed in i32, which is exact; then `sum * (weight scale * activation scale)`
//! is added, by a fused multiply-add, to the one f32 sum of that row and output, in order of the groups.

use std::cell::Cell;
use std::ops::Range;

use crate::buffer::SharedOutput;
use crate::dot::{Dot, DotOp, LINE};
use crate::quantized::{BLOCK, SCALES};
use crate::quantizer::{GROUP, round_activations};
use crate::simd::{LANES, Op, Simd};
use crate::{QuantizedFormat, QuantizedWeights};

/// Fours of activations in a group, as [`Dot`] takes them.
const QUADS: usize = GROUP / 4;
/// How far ahead of its use a line is asked for, where one tile of one block takes all rows.
const AHEAD: usize = 6 << 10;
/// The same for two blocks, at least.
const AHEAD_OF_TWO: usize = 12 << 10;

/// A group of a row's activations, rounded.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    quads: [i32; QUADS],
    /// Minus the sum of the integers.
    negated: i32,
    scale: f32,
}

thread_local! {
    static GROUPS: Cell<Vec<Group>> = Cell::default();
}

/// Calls `f` with room for so many groups, of whatever content.
pub(crate) fn with_groups(len: usize, f: impl FnOnce(&mut [Group])) {
    let mut groups = GROUPS.take();
    groups.resize(len, Group { quads: [0; QUADS], negated: 0, scale: 0.0 });
    f(&mut groups);
    GROUPS.set(groups);
}

/// Rounds rows of `k` values.
pub(crate) struct Round<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) k: usize,
    pub(crate) groups: &'a mut [Group],
}

impl Op for Round<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut groups = self.groups.iter_mut();
        for row in self.x.chunks_exact(self.k) {
            for values in row.chunks(GROUP) {
                let Some(group) = groups.next() else { return };
                let rounded = if let Ok(values) = values.try_into() {
                    round_activations(s, values)
                } else {
                    let mut padded = [0.0; GROUP];
                    padded[..values.len()].copy_from_slice(values);
                    round_activations(s, &padded)
                };
                (group.negated, group.scale) = (-rounded.sum, rounded.scale);
                for (quad, four) in group.quads.iter_mut().zip(rounded.integers.as_chunks().0) {
                    *quad = i32::from_le_bytes(*four);
                }
            }
        }
    }
}

/// The blocks of a product that one part computes. Sizes have been checked: out is `[rows, out_features]`.
pub(crate) struct Blocks<'a> {
    /// `[rows, groups of the weights]`.
    pub(crate) activations: &'a [Group],
    pub(crate) rows: usize,
    pub(crate) weights: &'a QuantizedWeights,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) range: Range<usize>,
    pub(crate) out: &'a SharedOutput<'a>,
}

impl DotOp for Blocks<'_> {
    type Output = ();
    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        match self.weights.format() {
            QuantizedFormat::Int8 => self.stream::<D, Int8>(d),
            QuantizedFormat::Int4 => self.stream::<D, Int4>(d),
        }
    }
}

/// The inner loop for one format: a line of weights with the activations it belongs to.
trait Lines {
    /// Lines of a group.
    const COUNT: usize;
    fn start<D: Dot>(d: D, negated: i32) -> D::Sums;
    /// Adds line number `line` of a group of some blocks to the sums of some rows.
    fn add<D: Dot, const ROWS: usize, const BLOCKS: usize>(
        d: D,
        sums: &mut [[D::Sums; BLOCKS]; ROWS],
        from: [&[u8; LINE]; BLOCKS],
        line: usize,
        x: &[&Group; ROWS],
    );
}

struct Int8;
struct Int4;

impl Lines for Int8 {
    const COUNT: usize = QUADS;
    #[inline(always)]
    fn start<D: Dot>(d: D, negated: i32) -> D::Sums {
        d.start8(negated)
    }
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // as for `tile`
    fn add<D: Dot, const ROWS: usize, const BLOCKS: usize>(
        d: D,
        sums: &mut [[D::Sums; BLOCKS]; ROWS],
        from: [&[u8; LINE]; BLOCKS],
        line: usize,
        x: &[&Group; ROWS],
    ) {
        let mut weights = [d.load8(from[0]); BLOCKS];
        for b in 1..BLOCKS {
            weights[b] = d.load8(from[b]);
        }
        for r in 0..ROWS {
            let four = d.four(x[r].quads[line]);
            for b in 0..BLOCKS {
                sums[r][b] = d.dot8(sums[r][b], weights[b], four);
            }
        }
    }
}

impl Lines for Int4 {
    const COUNT: usize = QUADS / 2;
    #[inline(always)]
    fn start<D: Dot>(d: D, negated: i32) -> D::Sums {
        d.start4(negated)
    }
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // as for `tile`
    fn add<D: Dot, const ROWS: usize, const BLOCKS: usize>(
        d: D,
        sums: &mut [[D::Sums; BLOCKS]; ROWS],
        from: [&[u8; LINE]; BLOCKS],
        line: usize,
        x: &[&Group; ROWS],
    ) {
        let mut weights = [d.load4(from[0]); BLOCKS];
        for b in 1..BLOCKS {
            weights[b] = d.load4(from[b]);
        }
        for half in 0..2 {
            for r in 0..ROWS {
                let four = d.four(x[r].quads[2 * line + half]);
                for b in 0..BLOCKS {
                    sums[r][b] = d.dot4(sums[r][b], weights[b][half], four);
                }
            }
        }
    }
}

/// Where a tile stands.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    block: usize,
    /// The groups of which lines are asked for while the tile is computed, this many bytes ahead.
    fetching: (usize, usize),
    ahead: usize,
}

impl Blocks<'_> {
    #[inline(always)]
    fn stream<D: Dot, L: Lines>(&self, d: D) {
        let mut block = self.range.start;
        while block < self.range.end {
            if D::PAIRS && block + 2 <= self.range.end {
                self.all_rows::<D, L, 2>(d, block);
                block += 2;
            } else {
                self.all_rows::<D, L, 1>(d, block);
                block += 1;
            }
        }
    }

    /// Every row with a few blocks.
    #[inline(always)]
    fn all_rows<D: Dot, L: Lines, const BLOCKS: usize>(&self, d: D, block: usize) {
        let (rows, groups) = (self.rows, self.weights.groups());
        let tiles = rows.div_ceil(D::ROWS);
        // Two blocks at once are read from two places, so there it is whole pairs further on that are asked for;
        // and with several tiles each asks for its share of the next.
        let bytes = BLOCKS * self.weights.block_bytes();
        let ahead = match (BLOCKS, tiles) {
            (1, 1) => AHEAD,
            (_, 1) => AHEAD_OF_TWO.next_multiple_of(bytes),
            _ => bytes,
        };
        let mut row = 0;
        for tile in 0..tiles {
            let fetching = (groups * tile / tiles, groups * (tile + 1) / tiles);
            let place = Place { row, block, fetching, ahead };
            let next = rows * (tile + 1) / tiles;
            match next - row {
                1 => self.tile::<D, L, 1, BLOCKS>(d, place),
                2 => self.tile::<D, L, 2, BLOCKS>(d, place),
                3 => self.tile::<D, L, 3, BLOCKS>(d, place),
                4 => self.tile::<D, L, 4, BLOCKS>(d, place),
                5 => self.tile::<D, L, 5, BLOCKS>(d, place),
                6 => self.tile::<D, L, 6, BLOCKS>(d, place),
                7 => self.tile::<D, L, 7, BLOCKS>(d, place),
                _ => self.tile::<D, L, 8, BLOCKS>(d, place),
            }
            row = next;
        }
    }

    /// `ROWS` rows with `BLOCKS` blocks.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices into arrays of constant length unroll, and the compiler then keeps them in registers
    fn tile<D: Dot, L: Lines, const ROWS: usize, const BLOCKS: usize>(&self, d: D, place: Place) {
        if ROWS > D::ROWS {
            return; // never asked for, and not worth code
        }
        let (s, groups) = (d.floats(), self.weights.groups());
        let (bytes, scales_bytes) = (self.weights.block_bytes(), self.weights.scales_bytes());
        let weights = &self.weights.data()[place.block * bytes..(place.block + BLOCKS) * bytes];
        // This and what the assertion says is what the unchecked accesses below rely on.
        let activations = &self.activations[place.row * groups..(place.row + ROWS) * groups];
        assert!(scales_bytes >= groups * SCALES && bytes >= scales_bytes + groups * L::COUNT * LINE);
        let mut totals = [[s.splat(0.0); BLOCKS]; ROWS];
        for group in 0..groups {
            let mut x = [&activations[0]; ROWS];
            let mut sums = [[L::start(d, 0); BLOCKS]; ROWS];
            for r in 0..ROWS {
                // SAFETY: there are `groups` for each of `ROWS` rows.
                x[r] = unsafe { activations.get_unchecked(r * groups + group) };
                sums[r] = [L::start(d, x[r].negated); BLOCKS];
            }
            let fetch = (place.fetching.0..place.fetching.1).contains(&group);
            for line in 0..L::COUNT {
                // SAFETY: each of the `BLOCKS` blocks has `groups * COUNT` lines after its scales, as asserted.
                let from = unsafe { weights.as_ptr().add(scales_bytes + (group * L::COUNT + line) * LINE) };
                if fetch {
                    for b in 0..BLOCKS {
                        s.prefetch(from.wrapping_add(b * bytes + place.ahead));
                    }
                }
                // SAFETY: as above; a byte array has no alignment.
                let mut lines: [&[u8; LINE]; BLOCKS] = [unsafe { &*from.cast() }; BLOCKS];
                for b in 1..BLOCKS {
                    // SAFETY: as above.
                    lines[b] = unsafe { &*from.add(b * bytes).cast() };
                }
                L::add::<D, ROWS, BLOCKS>(d, &mut sums, lines, line, &x);
            }
            for b in 0..BLOCKS {
                // SAFETY: each block begins with the scales of `groups` groups, as asserted.
                let scales = s.load_bf16(unsafe { &*weights.as_ptr().add(b * bytes + group * SCALES).cast() });
                for r in 0..ROWS {
                    let scale = s.mul(scales, s.splat(x[r].scale));
                    totals[r][b] = s.fma(d.to_floats(sums[r][b]), scale, totals[r][b]);
                }
            }
        }
        for (r, totals) in totals.iter().enumerate() {
            for (b, totals) in totals.iter().enumerate() {
                self.write(s, place.row + r, place.block + b, *totals);
            }
        }
    }

    /// Writes what the matrix has of a row's and a block's outputs, with the bias.
    #[inline(always)]
    fn write<S: Simd>(&self, s: S, row: usize, block: usize, totals: S::V) {
        let (column, columns) = (block * BLOCK, self.weights.out_features());
        let count = BLOCK.min(columns - column);
        let mut results = [0.0; LANES];
        s.store(totals, &mut results);
        // SAFETY: the columns are of this part's blocks, which no other part has.
        let out = unsafe { self.out.slice(row * columns + column, count) };
        match self.bias {
            Some(bias) => {
                for ((out, total), bias) in out.iter_mut().zip(results).zip(&bias[column..]) {
                    *out = total + bias;
                }
            }
            None => out.copy_from_slice(&results[..count]),
        }
    }
}

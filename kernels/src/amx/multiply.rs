//! Products of some rows with some blocks of a matrix of int8, by tiles.
//!
//! Tiles and vectors take turns: while a group's sums are being made, those of the one before are added to the totals.

use std::cell::Cell;

use super::unit::{Amx, TILE_LINES, Tiles};
use crate::dot::Dot;
use crate::form::{group_words, header_words};
use crate::packed::{LINE, SCALES};
use crate::product::Tile;
use crate::quantizer::HEADER;
use crate::simd::{LANES, Simd};

/// Rows of the smallest step that is computed by tiles: with fewer, dot products are as fast.
pub(crate) const FROM_ROWS: usize = 3;
/// Most rows that are computed together: their totals stay in the nearest cache.
pub(crate) const MOST_ROWS: usize = 64;
/// Blocks that are multiplied with the same tile of activations.
pub(crate) const PAIR: usize = 2;
/// Lines of a group.
const GROUP_LINES: usize = 16;
/// Distance, in groups, that weights are asked for ahead of their use.
const AHEAD: usize = 6;

/// What a thread writes and soon reads again.
#[repr(C, align(64))]
struct Room {
    /// Of one tile of rows, for each block: those that are being made, and those that are added up meanwhile.
    sums: [[[[i32; LANES]; TILE_LINES]; PAIR]; 2],
    /// Of all rows, for each block.
    totals: [[[f32; LANES]; MOST_ROWS]; PAIR],
    /// Groups that are cut short, filled up: where weights are missing, activations are 0.
    rest: [[[u8; LINE]; GROUP_LINES]; PAIR],
}

impl Room {
    fn new() -> Self {
        Self {
            sums: [[[[0; LANES]; TILE_LINES]; PAIR]; 2],
            totals: [[[0.0; LANES]; MOST_ROWS]; PAIR],
            rest: [[[0; LINE]; GROUP_LINES]; PAIR],
        }
    }
}

/// A group of weights of one or two blocks, with their activations.
#[derive(Clone, Copy)]
struct Group<const BLOCKS: usize> {
    scales: [*const u8; BLOCKS],
    lines: [*const u8; BLOCKS],
    headers: *const u32,
    values: *const u8,
}

/// Sums that wait to be added to the totals of some rows.
#[derive(Clone, Copy)]
struct Sums<const BLOCKS: usize> {
    group: Group<BLOCKS>,
    /// Where they are in the room.
    place: usize,
    /// The row of the first of them.
    first: usize,
    /// The rows that are still to have them: tiles may overlap.
    from: usize,
}

thread_local! {
    static ROOM: Cell<Option<Box<Room>>> = const { Cell::new(None) };
}

/// A thread's use of the unit.
pub(crate) struct Session {
    amx: Amx,
    /// The thread's, as it was left; there until the end.
    room: Option<Box<Room>>,
    tiles: Option<Tiles>,
}

impl Drop for Session {
    fn drop(&mut self) {
        ROOM.set(self.room.take());
    }
}

impl Session {
    pub(crate) fn new(amx: Amx) -> Self {
        Self { amx, room: ROOM.take(), tiles: None }
    }

    /// Computes a tile of a job with int8.
    pub(crate) fn compute(&mut self, tile: &Tile<'_, '_>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        #[inline(never)]
        fn inner(session: &mut Session, tile: &Tile<'_, '_>) {
            session.multiply(tile);
        }
        // SAFETY: the token proves that the machine has the features.
        unsafe { inner(self, tile) }
    }

    #[inline(always)]
    fn multiply(&mut self, tile: &Tile<'_, '_>) {
        let Self { amx, room, tiles } = self;
        let room = &mut **room.get_or_insert_with(|| Box::new(Room::new()));
        let (s, rows) = (amx.dots().floats(), tile.rows.len());
        assert!((1..=MOST_ROWS).contains(&rows), "a tile has as many rows as `Isa::form` says");
        let layout = tile.target.weights.layout();
        // What the unchecked accesses below rely on.
        assert!(layout.lines().div_ceil(GROUP_LINES) == tile.job.groups, "activations are as long as rows of weights");
        assert!(layout.scales_bytes() >= tile.job.groups * SCALES, "each group has scales");
        let height = Tiles::height_for(rows);
        if tiles.as_ref().is_none_or(|tiles| tiles.height() != height) {
            // The former ones are let go before, as that clears whatever is configured.
            *tiles = None;
        }
        let tiles = &*tiles.get_or_insert_with(|| Tiles::new(*amx, height));
        for first in tile.blocks.clone().step_by(PAIR) {
            let count = PAIR.min(tile.blocks.end - first);
            for totals in &mut room.totals[..count] {
                totals[..rows].fill([0.0; LANES]);
            }
            match count {
                1 => amx.add_blocks::<1>(tiles, room, tile, first),
                _ => amx.add_blocks::<PAIR>(tiles, room, tile, first),
            }
            for (block, totals) in (first..first + count).zip(&room.totals) {
                for (r, totals) in totals[..rows].iter().enumerate() {
                    tile.target.write(s, tile.rows.start + r, block, s.load(totals));
                }
            }
        }
    }
}

impl Amx {
    /// Adds the products with blocks, from `first` on, to the totals.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices unroll
    fn add_blocks<const BLOCKS: usize>(self, tiles: &Tiles, room: &mut Room, tile: &Tile<'_, '_>, first: usize) {
        let (s, rows, groups) = (self.dots().floats(), tile.rows.len(), tile.job.groups);
        let (layout, group_words) = (tile.target.weights.layout(), group_words(rows, HEADER, LINE / 4));
        let (scales_bytes, block_bytes) = (layout.scales_bytes(), layout.block_bytes());
        let data = &tile.target.weights.data()[first * block_bytes..][..BLOCKS * block_bytes];
        let mut waiting: Option<Sums<BLOCKS>> = None;
        for (index, words) in tile.words(groups * group_words).chunks_exact(group_words).enumerate() {
            let headers = words.as_ptr();
            let values = words[header_words(rows, HEADER)..].as_ptr().cast();
            let none = [std::ptr::null(); BLOCKS];
            let mut group = Group { scales: none, lines: none, headers, values };
            // What is asked for: in these blocks, or in those after them.
            let (blocks_on, later) = ((index + AHEAD) / groups * BLOCKS, (index + AHEAD) % groups);
            let later = blocks_on * block_bytes + scales_bytes + later * GROUP_LINES * LINE;
            for i in 0..BLOCKS {
                let block = &data[i * block_bytes..][..block_bytes];
                for line in 0..GROUP_LINES {
                    s.prefetch(block.as_ptr().wrapping_add(later + line * LINE));
                }
                let from = &block[scales_bytes + index * GROUP_LINES * LINE..];
                group.scales[i] = block[index * SCALES..].as_ptr();
                group.lines[i] = from.as_ptr();
                if from.len() < GROUP_LINES * LINE {
                    room.rest[i].as_flattened_mut()[..from.len()].copy_from_slice(from);
                    group.lines[i] = room.rest[i].as_flattened().as_ptr();
                }
            }
            // SAFETY: all lines and scales of the group are there, and activations of as many rows as the tiles are for.
            unsafe { self.add_group(tiles, room, group, rows, &mut waiting) };
        }
        if let Some(sums) = waiting {
            // SAFETY: as above.
            unsafe { self.add(tiles, room, sums) };
        }
    }

    /// Makes a group's sums, a tile of rows after the other, and meanwhile adds those before to the totals: the last wait.
    ///
    /// # Safety
    /// There must be sixteen lines and scales of each block, and activations of as many `rows` as `tiles` are for.
    #[inline(always)]
    unsafe fn add_group<const BLOCKS: usize>(
        self,
        tiles: &Tiles,
        room: &mut Room,
        group: Group<BLOCKS>,
        rows: usize,
        waiting: &mut Option<Sums<BLOCKS>>,
    ) {
        let mut from = 0;
        while from < rows {
            let first = from.min(rows - tiles.height());
            let place = waiting.map_or(0, |waiting| 1 - waiting.place);
            let sums: *mut i32 = room.sums[place].as_flattened_mut().as_flattened_mut().as_mut_ptr();
            // SAFETY: by the caller; there is room for the sums of a tile of each block.
            unsafe {
                let x = group.values.add(first * LINE);
                match BLOCKS {
                    1 => tiles.multiply(group.lines[0], x, sums),
                    _ => tiles.multiply_two([group.lines[0], group.lines[BLOCKS - 1]], x, sums),
                }
            }
            if let Some(sums) = waiting.replace(Sums { group, place, first, from }) {
                // SAFETY: by the caller, of this group or the one before.
                unsafe { self.add(tiles, room, sums) };
            }
            from = first + tiles.height();
        }
    }

    /// Adds sums to totals.
    ///
    /// # Safety
    /// The group's scales and headers must be there.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices unroll
    unsafe fn add<const BLOCKS: usize>(self, tiles: &Tiles, room: &mut Room, sums: Sums<BLOCKS>) {
        let (d, s) = (self.dots(), self.dots().floats());
        let Sums { group, place, first, from } = sums;
        // SAFETY: sixteen scales, by the caller.
        let scales = group.scales.map(|scales| s.load_bf16(unsafe { &*scales.cast() }));
        for row in from..first + tiles.height() {
            // SAFETY: a header for each row, by the caller.
            let (scale, negated) = unsafe { (*group.headers.add(row * HEADER), *group.headers.add(row * HEADER + 1)) };
            let (scale, negated) = (s.splat(f32::from_bits(scale)), d.start8(negated.cast_signed()));
            for i in 0..BLOCKS {
                // SAFETY: a tile has at most sixteen rows, and there are at most as many rows as totals.
                let (sums, total) = unsafe {
                    let sums = room.sums.get_unchecked(place).get_unchecked(i).get_unchecked(row - first);
                    (sums, room.totals.get_unchecked_mut(i).get_unchecked_mut(row))
                };
                let sums = d.to_floats(d.plus(negated, sums));
                s.store(s.fma(sums, s.mul(scales[i], scale), s.load(total)), total);
            }
        }
    }
}

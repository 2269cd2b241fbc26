//! Where activations lie once they are laid out for products.
//!
//! Rows lie in tiles, as many as a product takes at once. In a tile there is group of k after group; in a group first the rows'
//! headers, filled up to a line, then row after row: so a row's values begin at a line, and a thread that has a row writes whole
//! lines.

use std::cell::Cell;
use std::ops::Range;

use crate::quantizer::{GROUP, HEADER, SIXTEENS_HEADER};
use crate::{MatrixFormat, QuantizedFormat};

/// Words of a cache line.
const LINE_WORDS: usize = 16;

/// The division of rows into tiles.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    pub(crate) rows: usize,
    pub(crate) count: usize,
}

impl Tiles {
    /// Tiles of at most `most` rows, or of `usual` where there are several.
    pub(crate) fn new(rows: usize, most: usize, usual: usize) -> Self {
        let count = if rows <= most { 1 } else { rows.div_ceil(usual) };
        Self { rows, count }
    }

    pub(crate) fn rows(&self, tile: usize) -> Range<usize> {
        self.rows * tile / self.count..self.rows * (tile + 1) / self.count
    }

    /// The tile that has `row`.
    fn around(&self, row: usize) -> usize {
        ((row + 1) * self.count - 1) / self.rows
    }

    fn longest(&self) -> usize {
        self.rows.div_ceil(self.count)
    }
}

/// The arithmetic that activations are laid out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Floats,
    /// Integers, for int8.
    Int8,
    /// Integers, for int4.
    Int4,
    /// Integers with a scale for each sixteen, for stored blocks.
    Blocks,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Floats, Self::Int8, Self::Int4, Self::Blocks];

    pub(crate) fn of(format: MatrixFormat) -> Self {
        match format {
            MatrixFormat::Float(_) => Self::Floats,
            MatrixFormat::Quantized(QuantizedFormat::Int8) => Self::Int8,
            MatrixFormat::Quantized(QuantizedFormat::Int4) => Self::Int4,
            MatrixFormat::Blocks(_) => Self::Blocks,
        }
    }
}

/// How activations of a kind are laid out.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) kind: Kind,
    pub(crate) tiles: Tiles,
}

impl Form {
    /// Words of a row's group before its values.
    pub(crate) fn header(&self) -> usize {
        match self.kind {
            Kind::Floats => 0,
            Kind::Int8 | Kind::Int4 => HEADER,
            Kind::Blocks => SIXTEENS_HEADER,
        }
    }

    /// Words of a row's group's values: with integers four to a word.
    pub(crate) fn values(&self) -> usize {
        match self.kind {
            Kind::Floats => GROUP,
            _ => LINE_WORDS,
        }
    }

    /// Words of a tile of `groups` groups.
    pub(crate) fn tile_words(&self, groups: usize) -> usize {
        groups * group_words(self.tiles.longest(), self.header(), self.values())
    }

    /// Words of all tiles, of `groups` groups.
    pub(crate) fn words(&self, groups: usize) -> usize {
        self.tiles.count * self.tile_words(groups)
    }

    /// Where a row's groups lie, if it has `groups`.
    #[inline(always)]
    pub(crate) fn place(&self, row: usize, groups: usize) -> Place {
        let tile = self.tiles.around(row);
        let rows = self.tiles.rows(tile);
        let (header, values, inside) = (self.header(), self.values(), row - rows.start);
        let start = tile * self.tile_words(groups);
        Place {
            header: start + inside * header,
            values: start + header_words(rows.len(), header) + inside * values,
            step: group_words(rows.len(), header, values),
        }
    }
}

/// Where the groups of a row lie, in words.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The first group's header.
    pub(crate) header: usize,
    /// The first group's values.
    pub(crate) values: usize,
    /// From one group to the next.
    pub(crate) step: usize,
}

/// Words of a group's headers, of `header` words a row.
pub(crate) const fn header_words(rows: usize, header: usize) -> usize {
    (rows * header).next_multiple_of(LINE_WORDS)
}

/// Words of a group, of rows with so many words.
pub(crate) const fn group_words(rows: usize, header: usize, values: usize) -> usize {
    header_words(rows, header) + rows * values
}

/// A cache line of words.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u32; LINE_WORDS]);

thread_local! {
    static LINES: Cell<Vec<Line>> = Cell::default();
}

/// Calls `f` with room for so many words, of whatever content, which begins at a line.
pub(crate) fn with_words(len: usize, f: impl FnOnce(&mut [u32])) {
    let mut lines = LINES.take();
    let needed = len.div_ceil(LINE_WORDS);
    if lines.len() < needed {
        lines.resize(needed, Line::default());
    }
    // SAFETY: a line is sixteen words without anything between.
    let words = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), needed * LINE_WORDS) };
    f(&mut words[..len]);
    LINES.set(lines);
}

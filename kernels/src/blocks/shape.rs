//! Where the parts of a block format lie in a packed matrix.
//!
//! Sixteen outputs make a block, as in every format (see [`crate::packed`]). Its lines come in groups of 64 values of k, first
//! the scales, then the steps:
//!
//! | scales of a group | lines |
//! |---|---|
//! | halves | those of the first 32 values for sixteen outputs, then of the second 32; a line of minima alike |
//! | integers for each 32 | sixteen scales of the first 32, of the second, and sixteen minima of each |
//! | integers for each 16 | sixteen scales of each of the four; a line of minima alike |
//!
//! | bits of a step | lines |
//! |---|---|
//! | 8 | sixteen: fours of bytes, as int8 has them |
//! | 4, the low ones of 5 and 6 | eight: those of k in the low halves of bytes, those of `k + 32` in the high ones |
//! | the upper two of 6, the lower two of 3, those of 2 | four: see [`crumb`] |
//! | the upper one of 5 and 3 | two: see [`bit`] |
//!
//! The halves of superblocks stand before a block's lines: for each 256 values sixteen scales, and sixteen scales of minima.

use half::f16;

use super::BlockFormat;
use crate::packed::{BLOCK, LINE};
use crate::quantizer::GROUP;

/// Values of a superblock.
pub(super) const SUPERBLOCK: usize = 256;

/// The parts of a format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bits of a step.
    pub(crate) bits: usize,
    /// Values of k that share a scale: 16 or 32.
    pub(super) shared: usize,
    /// True if there are minima.
    pub(super) minima: bool,
    /// True if scales are integers that count a superblock's halves.
    pub(super) superblocks: bool,
    /// True if those integers have signs.
    pub(super) signed: bool,
    /// Taken off a step.
    pub(super) offset: i32,
}

impl Shape {
    /// Scales that are halves, for each 32 values.
    const fn halves(bits: usize, minima: bool, offset: i32) -> Self {
        Self { bits, shared: 32, minima, superblocks: false, signed: false, offset }
    }

    /// Scales that are integers, with signs where there are no minima.
    const fn integers(bits: usize, shared: usize, minima: bool, offset: i32) -> Self {
        Self { bits, shared, minima, superblocks: true, signed: !minima, offset }
    }

    pub(crate) const fn of(format: BlockFormat) -> Self {
        match format {
            BlockFormat::Q8_0 => Self::halves(8, false, 128),
            BlockFormat::Q4_0 => Self::halves(4, false, 8),
            BlockFormat::Q4_1 => Self::halves(4, true, 0),
            BlockFormat::Q5_0 => Self::halves(5, false, 16),
            BlockFormat::Q5_1 => Self::halves(5, true, 0),
            BlockFormat::Q2K => Self::integers(2, 16, true, 0),
            BlockFormat::Q3K => Self::integers(3, 16, false, 4),
            BlockFormat::Q4K => Self::integers(4, 32, true, 0),
            BlockFormat::Q5K => Self::integers(5, 32, true, 0),
            BlockFormat::Q6K => Self::integers(6, 16, false, 32),
        }
    }

    /// Lines of a group before its steps.
    pub(super) const fn head_lines(self) -> usize {
        match (self.minima, self.superblocks, self.shared) {
            (false, ..) | (true, true, 32) => 1,
            _ => 2,
        }
    }

    /// Lines of a group's nibbles, or of its bytes.
    pub(super) const fn base_lines(self) -> usize {
        match self.bits {
            8 => 16,
            4..=6 => 8,
            _ => 0,
        }
    }

    /// Lines of a group's pairs of bits.
    pub(super) const fn crumb_lines(self) -> usize {
        match self.bits {
            2 | 3 | 6 => 4,
            _ => 0,
        }
    }

    /// Lines of a group's single bits.
    pub(super) const fn bit_lines(self) -> usize {
        match self.bits {
            3 | 5 => 2,
            _ => 0,
        }
    }

    /// Lines of a group.
    pub(crate) const fn group_lines(self) -> usize {
        self.head_lines() + self.base_lines() + self.crumb_lines() + self.bit_lines()
    }

    /// Bytes of a superblock's halves for sixteen outputs.
    pub(super) const fn superblock_bytes(self) -> usize {
        let halves = match (self.superblocks, self.minima) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => 2,
        };
        halves * BLOCK * size_of::<f16>()
    }

    /// Bytes of the superblocks' halves of `groups` groups, whole lines.
    pub(crate) const fn scales_bytes(self, groups: usize) -> usize {
        (groups.div_ceil(SUPERBLOCK / GROUP) * self.superblock_bytes()).next_multiple_of(LINE)
    }
}

/// The line, among those of pairs of bits, and the shift of the steps of sixteen values of k, the `sixteen`th of a group: of
/// the four fours of values, one after the other, `line` is that of the first, and the others follow it.
pub(super) const fn crumb(sixteen: usize) -> usize {
    4 * (sixteen % 2) + 2 * (sixteen / 2)
}

/// The line, among those of single bits, of sixteen values of k, and the shift of their `four`th four.
pub(super) const fn bit(sixteen: usize, four: usize) -> (usize, usize) {
    (sixteen % 2, 2 * four + sixteen / 2)
}

/// What a packed block, whose superblocks' halves are `scales` and whose lines are `lines`, holds for an output and value of k.
pub(crate) fn value(format: BlockFormat, scales: &[u8], lines: &[u8], lane: usize, k: usize) -> f32 {
    let shape = Shape::of(format);
    let (group, inside) = (k / GROUP, k % GROUP);
    let lines = &lines[group * shape.group_lines() * LINE..][..shape.group_lines() * LINE];
    let step = step(shape, &lines[shape.head_lines() * LINE..], lane, inside);
    let (scale, minimum) = scale_and_minimum(shape, scales, lines, lane, k);
    (step - shape.offset) as f32 * scale + minimum
}

/// The step of value `k` of a group.
fn step(shape: Shape, lines: &[u8], lane: usize, k: usize) -> i32 {
    let (sixteen, four, byte) = (k / 16, k / 4 % 4, k % 4);
    let at = |line: usize| i32::from(lines[line * LINE + 4 * lane + byte]);
    let (base, crumbs) = (shape.base_lines(), shape.crumb_lines());
    match shape.bits {
        8 => return at(k / 4),
        4..=6 => (),
        _ => {
            let low = at(four) >> crumb(sixteen) & 3;
            let (line, shift) = bit(sixteen, four);
            return if shape.bits == 3 { low | (at(crumbs + line) >> shift & 1) << 2 } else { low };
        }
    }
    let low = at(4 * (sixteen % 2) + four) >> (4 * (sixteen / 2)) & 15;
    match shape.bits {
        5 => {
            let (line, shift) = bit(sixteen, four);
            low | (at(base + line) >> shift & 1) << 4
        }
        6 => low | (at(base + four) >> crumb(sixteen) & 3) << 4,
        _ => low,
    }
}

fn scale_and_minimum(shape: Shape, scales: &[u8], head: &[u8], lane: usize, k: usize) -> (f32, f32) {
    let half = |bytes: &[u8], at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32();
    let shared = k % GROUP / shape.shared;
    if !shape.superblocks {
        let at = shared * BLOCK * 2 + 2 * lane;
        return (half(head, at), if shape.minima { half(head, LINE + at) } else { 0.0 });
    }
    let at = k / SUPERBLOCK * shape.superblock_bytes() + 2 * lane;
    let byte = head[shared * BLOCK + lane];
    let integer = if shape.signed { f32::from(byte.cast_signed()) } else { f32::from(byte) };
    let minimum = if shape.minima {
        let minima = if shape.shared == 32 { 2 * BLOCK } else { LINE };
        -half(scales, at + 2 * BLOCK) * f32::from(head[minima + shared * BLOCK + lane])
    } else {
        0.0
    };
    (half(scales, at) * integer, minimum)
}

//! Moving the bits of stored blocks into the lines of a packed matrix, sixteen outputs at a time.
//!
//! Steps are moved as words of four bytes, a word of each output in a lane, so that the compiler makes vectors of it: a matrix
//! is packed about as fast as it is read.

use super::BlockFormat;
use super::shape::{SUPERBLOCK, Shape};
use super::stored::{halves, scale_and_minimum, signed_scale};
use crate::packed::{BLOCK, LINE};
use crate::quantizer::GROUP;

/// A word of each of sixteen outputs.
type Words = [u32; BLOCK];

const NIBBLES: u32 = 0x0F0F_0F0F;
const CRUMBS: u32 = 0x0303_0303;
const BITS: u32 = 0x0101_0101;

#[inline(always)]
fn words(f: impl Fn(usize) -> u32) -> Words {
    std::array::from_fn(f)
}

/// The stored blocks of sixteen outputs that have a group of 64 values of k.
struct Source<'a> {
    /// Of each output; shorter than expected where a row ends inside of the group.
    rows: [&'a [u8]; BLOCK],
}

impl Source<'_> {
    /// `N` words from a byte on; zeros where there are none.
    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> [Words; N] {
        let mut all = [[0; BLOCK]; N];
        for (lane, row) in self.rows.iter().enumerate() {
            if let Some(bytes) = row.get(at..at + 4 * N) {
                for (words, bytes) in all.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    words[lane] = u32::from_le_bytes(*bytes);
                }
            }
        }
        all
    }

    /// A byte range of each output; zeros where there is none.
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> [[u8; N]; BLOCK] {
        self.rows.map(|row| {
            let found = row.get(at..at + N).and_then(|bytes| <[u8; N]>::try_from(bytes).ok());
            found.unwrap_or([0; N])
        })
    }
}

/// Writes a word of each output as a line.
#[inline(always)]
fn put(line: &mut [u8; LINE], words: Words) {
    for (bytes, word) in line.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
}

/// Packs sixteen outputs, whose stored rows are `rows`, into a block: its superblocks' halves and its lines.
#[inline(always)]
pub(crate) fn pack_block(format: BlockFormat, rows: [&[u8]; BLOCK], scales: &mut [u8], lines: &mut [u8]) {
    let shape = Shape::of(format);
    let block_bytes = format.block_bytes();
    for (group, lines) in lines.as_chunks_mut::<LINE>().0.chunks_exact_mut(shape.group_lines()).enumerate() {
        let first = group * GROUP / format.block_values() * block_bytes;
        // The blocks that have the group: a superblock has four groups, a group two small blocks.
        let source = Source { rows: rows.map(|row| &row[first.min(row.len())..]) };
        let (head, steps) = lines.split_at_mut(shape.head_lines());
        if shape.superblocks {
            let part = group % (SUPERBLOCK / GROUP);
            if part == 0 {
                let at = group * GROUP / SUPERBLOCK * shape.superblock_bytes();
                put_superblock(format, &source, &mut scales[at..at + shape.superblock_bytes()]);
            }
            put_integers(format, &source, part, head);
            put_superblock_steps(format, &source, part, steps);
        } else {
            put_halves(format, &source, head);
            put_block_steps(format, &source, steps);
        }
    }
}

/// The halves of a superblock: sixteen scales, then sixteen of minima.
#[inline(always)]
fn put_superblock(format: BlockFormat, source: &Source<'_>, to: &mut [u8]) {
    let (scale, minimum) = halves(format);
    for (at, to) in [Some(scale), minimum].into_iter().flatten().zip(to.chunks_exact_mut(2 * BLOCK)) {
        to.copy_from_slice(source.bytes::<2>(at).as_flattened());
    }
}

/// The halves of two small blocks: a line of scales, and one of minima.
#[inline(always)]
fn put_halves(format: BlockFormat, source: &Source<'_>, head: &mut [[u8; LINE]]) {
    let (scale, minimum) = halves(format);
    for (at, line) in [Some(scale), minimum].into_iter().flatten().zip(head) {
        let (first, second) = line.split_at_mut(2 * BLOCK);
        first.copy_from_slice(source.bytes::<2>(at).as_flattened());
        second.copy_from_slice(source.bytes::<2>(format.block_bytes() + at).as_flattened());
    }
}

/// The integers of a superblock's group `part`.
#[inline(always)]
fn put_integers(format: BlockFormat, source: &Source<'_>, part: usize, head: &mut [[u8; LINE]]) {
    match format {
        BlockFormat::Q2K => {
            for (lane, both) in source.bytes::<4>(4 * part).into_iter().enumerate() {
                for (sixteen, both) in both.into_iter().enumerate() {
                    head[0][sixteen * BLOCK + lane] = both & 15;
                    head[1][sixteen * BLOCK + lane] = both >> 4;
                }
            }
        }
        BlockFormat::Q3K => {
            for (lane, packed) in source.bytes::<12>(96).into_iter().enumerate() {
                for sixteen in 0..4 {
                    head[0][sixteen * BLOCK + lane] = signed_scale(&packed, 4 * part + sixteen).cast_unsigned();
                }
            }
        }
        BlockFormat::Q6K => {
            for (lane, scales) in source.bytes::<4>(192 + 4 * part).into_iter().enumerate() {
                for (sixteen, scale) in scales.into_iter().enumerate() {
                    head[0][sixteen * BLOCK + lane] = scale;
                }
            }
        }
        _ => {
            for (lane, packed) in source.bytes::<12>(4).into_iter().enumerate() {
                for half in 0..2 {
                    let (scale, minimum) = scale_and_minimum(&packed, 2 * part + half);
                    head[0][half * BLOCK + lane] = scale;
                    head[0][(2 + half) * BLOCK + lane] = minimum;
                }
            }
        }
    }
}

/// The steps of two small blocks.
#[inline(always)]
fn put_block_steps(format: BlockFormat, source: &Source<'_>, lines: &mut [[u8; LINE]]) {
    let second = format.block_bytes();
    if format == BlockFormat::Q8_0 {
        let (low, high) = lines.split_at_mut(8);
        for (lines, at) in [(low, 2), (high, second + 2)] {
            for (line, signed) in lines.iter_mut().zip(source.words::<8>(at)) {
                put(line, words(|i| signed[i] ^ 0x8080_8080)); // 128 added
            }
        }
        return;
    }
    let (bits, at) = match format {
        BlockFormat::Q5_0 => (Some(2), 6),
        BlockFormat::Q5_1 => (Some(4), 8),
        BlockFormat::Q4_1 => (None, 4),
        _ => (None, 2),
    };
    let (first, other) = (source.words::<4>(at), source.words::<4>(second + at));
    for four in 0..4 {
        let (a, b) = (first[four], other[four]);
        put(&mut lines[four], words(|i| a[i] & NIBBLES | (b[i] & NIBBLES) << 4));
        put(&mut lines[4 + four], words(|i| (a[i] >> 4) & NIBBLES | b[i] & !NIBBLES));
    }
    if let Some(at) = bits {
        let ([first], [other]) = (source.words::<1>(at), source.words::<1>(second + at));
        // Four bits, one to a byte.
        let spread = |bits: u32| (bits & 15).wrapping_mul(0x0020_4081) & BITS;
        for line in 0..2 {
            let four = |i: usize, four: usize| {
                let shift = 16 * line + 4 * four;
                (spread(first[i] >> shift) | spread(other[i] >> shift) << 1) << (2 * four)
            };
            put(&mut lines[8 + line], words(|i| four(i, 0) | four(i, 1) | four(i, 2) | four(i, 3)));
        }
    }
}

/// The steps of a superblock's group `part`.
#[inline(always)]
fn put_superblock_steps(format: BlockFormat, source: &Source<'_>, part: usize, lines: &mut [[u8; LINE]]) {
    let (half, in_half) = (part / 2, part % 2);
    match format {
        BlockFormat::Q4K => put_nibbles(source.words(16 + 32 * part), lines),
        BlockFormat::Q5K => {
            put_nibbles(source.words(48 + 32 * part), lines);
            put_bits(source.words(16), part, &mut lines[8..]);
        }
        BlockFormat::Q6K => {
            let [low, other] = [source.words::<8>(64 * half), source.words::<8>(64 * half + 32)];
            let shift = 4 * in_half;
            for line in 0..8 {
                let (a, b) = (low[line], other[line]);
                put(&mut lines[line], words(|i| a[i] >> shift & NIBBLES | (b[i] >> shift & NIBBLES) << 4));
            }
            put_crumbs(source.words(128 + 32 * half), in_half, &mut lines[8..]);
        }
        BlockFormat::Q3K => {
            put_crumbs(source.words(32 + 32 * half), in_half, lines);
            put_bits(source.words(0), part, &mut lines[4..]);
        }
        _ => put_crumbs(source.words(16 + 32 * half), in_half, lines),
    }
}

/// Nibbles that lie as they should: those of k low, those of `k + 32` high.
#[inline(always)]
fn put_nibbles(from: [Words; 8], lines: &mut [[u8; LINE]]) {
    for (line, words) in lines.iter_mut().zip(from) {
        put(line, words);
    }
}

/// Pairs of bits, of which the stored bytes have those of `k`, `k + 32`, `k + 64` and `k + 96`; the latter two where `second`
/// is 1.
#[inline(always)]
fn put_crumbs(from: [Words; 8], second: usize, lines: &mut [[u8; LINE]]) {
    let shift = 4 * second;
    for line in 0..4 {
        let (a, b) = (from[line], from[line + 4]);
        put(&mut lines[line], words(|i| a[i] >> shift & NIBBLES | (b[i] >> shift & NIBBLES) << 4));
    }
}

/// Single bits, of which a stored byte has those of k and seven values that are 32 apart.
#[inline(always)]
fn put_bits(from: [Words; 8], part: usize, lines: &mut [[u8; LINE]]) {
    for line in 0..2 {
        let four = |i: usize, four: usize| (from[4 * line + four][i] >> (2 * part) & CRUMBS) << (2 * four);
        put(&mut lines[line], words(|i| four(i, 0) | four(i, 1) | four(i, 2) | four(i, 3)));
    }
}

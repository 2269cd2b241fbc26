//! Blocks as they lie in a file: what they stand for, as ggml's reference code (`ggml-quants.c`) has it.

use half::f16;

use super::BlockFormat;

/// The half at a byte of a block.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Bit `index` of some bytes.
fn bit(bytes: &[u8], index: usize) -> i32 {
    i32::from(bytes[index / 8] >> (index % 8) & 1)
}

/// Scale and minimum `index` of the eight in twelve bytes, 6 bits each.
pub(super) fn scale_and_minimum(packed: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        let low = packed[index + 4];
        (low & 15 | (packed[index - 4] >> 6) << 4, low >> 4 | (packed[index] >> 6) << 4)
    }
}

/// Scale `index` of the sixteen in twelve bytes, 6 bits each, without its offset.
pub(super) fn signed_scale(packed: &[u8], index: usize) -> i8 {
    let low = packed[index % 8] >> (4 * (index / 8)) & 15;
    let high = packed[8 + index % 4] >> (2 * (index / 4)) & 3;
    (low | high << 4).cast_signed() - 32
}

/// Where the halves of a block lie: its scale, and its minimum or the scale of its minima.
pub(super) fn halves(format: BlockFormat) -> (usize, Option<usize>) {
    match format {
        BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q5_0 => (0, None),
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => (0, Some(2)),
        BlockFormat::Q2K => (80, Some(82)),
        BlockFormat::Q3K => (108, None),
        BlockFormat::Q6K => (208, None),
    }
}

/// Writes a row of blocks, widened, to `out`.
pub(crate) fn row_to_f32(format: BlockFormat, row: &[u8], out: &mut [f32]) {
    let blocks = row.chunks_exact(format.block_bytes());
    for (block, out) in blocks.zip(out.chunks_exact_mut(format.block_values())) {
        let (scale, minimum) = halves(format);
        let (scale, minimum) = (half(block, scale), minimum.map_or(0.0, |at| half(block, at)));
        match format {
            BlockFormat::Q8_0 => {
                for (out, byte) in out.iter_mut().zip(&block[2..]) {
                    *out = f32::from(byte.cast_signed()) * scale;
                }
            }
            BlockFormat::Q4_0 => nibbles(&block[2..], out, |_, low| (low - 8) as f32 * scale),
            BlockFormat::Q4_1 => nibbles(&block[4..], out, |_, low| low as f32 * scale + minimum),
            BlockFormat::Q5_0 => {
                nibbles(&block[6..], out, |k, low| (low + 16 * bit(&block[2..], k) - 16) as f32 * scale)
            }
            BlockFormat::Q5_1 => {
                nibbles(&block[8..], out, |k, low| (low + 16 * bit(&block[4..], k)) as f32 * scale + minimum);
            }
            BlockFormat::Q2K | BlockFormat::Q3K => crumbs(format, block, scale, minimum, out),
            BlockFormat::Q4K | BlockFormat::Q5K => eighths(format, block, scale, minimum, out),
            BlockFormat::Q6K => sixteenths(block, scale, out),
        }
    }
}

/// Thirty-two values whose low four bits are in sixteen bytes.
fn nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(usize, i32) -> f32) {
    for (k, out) in out.iter_mut().enumerate() {
        *out = value(k, i32::from(bytes[k % 16] >> (4 * (k / 16)) & 15));
    }
}

/// Superblocks of Q4_K and Q5_K.
fn eighths(format: BlockFormat, block: &[u8], scale: f32, minimum: f32, out: &mut [f32]) {
    let is_q5 = format == BlockFormat::Q5K;
    let (high, low) = block[16..].split_at(if is_q5 { 32 } else { 0 });
    for (k, out) in out.iter_mut().enumerate() {
        let eighth = k / 32;
        let (integer, of_minimum) = scale_and_minimum(&block[4..16], eighth);
        let nibble = i32::from(low[k / 64 * 32 + k % 32] >> (4 * (eighth % 2)) & 15);
        let step = if is_q5 { nibble + 16 * i32::from(high[k % 32] >> eighth & 1) } else { nibble };
        *out = step as f32 * (scale * f32::from(integer)) - minimum * f32::from(of_minimum);
    }
}

/// Superblocks of Q6_K.
fn sixteenths(block: &[u8], scale: f32, out: &mut [f32]) {
    let (low, high) = (&block[..128], &block[128..192]);
    for (k, out) in out.iter_mut().enumerate() {
        let (half, quarter, l) = (k / 128, k % 128 / 32, k % 32);
        let nibble = low[half * 64 + quarter % 2 * 32 + l] >> (4 * (quarter / 2)) & 15;
        let crumb = high[half * 32 + l] >> (2 * quarter) & 3;
        let step = i32::from(nibble | crumb << 4) - 32;
        *out = step as f32 * (scale * f32::from(block[192 + k / 16].cast_signed()));
    }
}

/// Superblocks of Q2_K and Q3_K.
fn crumbs(format: BlockFormat, block: &[u8], scale: f32, minimum: f32, out: &mut [f32]) {
    let steps = if format == BlockFormat::Q2K { &block[16..80] } else { &block[32..96] };
    for (k, out) in out.iter_mut().enumerate() {
        let low = i32::from(steps[k / 128 * 32 + k % 32] >> (2 * (k % 128 / 32)) & 3);
        *out = if format == BlockFormat::Q2K {
            let both = block[k / 16];
            low as f32 * (scale * f32::from(both & 15)) - minimum * f32::from(both >> 4)
        } else {
            let step = low + 4 * i32::from(block[k % 32] >> (k / 32) & 1) - 4;
            step as f32 * (scale * f32::from(signed_scale(&block[96..108], k / 16)))
        };
    }
}

/// The first value of a row of blocks that is not finite: all others are, as halves times small integers.
pub(crate) fn first_not_finite(format: BlockFormat, row: &[u8]) -> Option<usize> {
    let (scale, minimum) = halves(format);
    let is_finite = |block: &[u8], at: usize| f16::from_le_bytes([block[at], block[at + 1]]).is_finite();
    let mut blocks = row.chunks_exact(format.block_bytes());
    let bad = blocks.position(|block| !is_finite(block, scale) || minimum.is_some_and(|at| !is_finite(block, at)));
    bad.map(|block| block * format.block_values())
}

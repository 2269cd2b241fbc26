//! The products of a group of stored blocks with activations: one kernel for all formats.
//!
//! The steps of 16 values of k are multiplied with the activations' integers and summed in i32, which is exact. The sum times the
//! weights' and the activations' scales, and the minimum times the activations' own sum, are added to the total in f32, in order
//! of k.

use crate::dot::{Dot, DotOp};
use crate::form::header_words;
use crate::multiply::{Multiply, prefetch};
use crate::packed::{BLOCK, LINE};
use crate::product::Tile;
use crate::quantizer::{GROUP, SIXTEENS_HEADER};
use crate::simd::Simd;

use super::BlockFormat;
use super::shape::{SUPERBLOCK, Shape, bit, crumb};

/// A format as a type, so that the compiler makes code for each.
pub(crate) trait Blocks: Copy {
    const SHAPE: Shape;
}

macro_rules! formats {
    ($($name:ident)*) => {
        $(
            #[derive(Clone, Copy)]
            pub(crate) struct $name;
            impl Blocks for $name {
                const SHAPE: Shape = Shape::of(BlockFormat::$name);
            }
        )*
    };
}

#[allow(non_camel_case_types, reason = "the names of GGUF's tools")]
mod formats {
    use super::{BlockFormat, Blocks, Shape};
    formats!(Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2K Q3K Q4K Q5K Q6K);
}
pub(crate) use formats::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

/// Products with a block format.
#[derive(Clone, Copy)]
pub(crate) struct BlockProduct<D, B>(pub(crate) D, pub(crate) B);

/// Most rows of a tile: a row needs three registers, for its sum, its product and its total.
pub(crate) const BLOCK_ROWS: usize = 8;

/// A tile as work of its own.
struct TileOp<'a, 'b, M, const ROWS: usize> {
    product: M,
    tile: Tile<'a, 'b>,
}

impl<M: Multiply, const ROWS: usize> DotOp for TileOp<'_, '_, M, ROWS> {
    type Output = ();
    #[inline(always)]
    fn run<D: Dot>(self, _: D) {
        self.tile.compute::<M, ROWS>(self.product);
    }
}

/// Scales and minima of a group: of its halves, or of its sixteens.
struct Scales<V> {
    scales: [V; 4],
    minima: [V; 4],
}

/// Bytes at a place.
///
/// # Safety
/// There must be as many.
#[inline(always)]
unsafe fn bytes<'a, const N: usize>(from: *const u8) -> &'a [u8; N] {
    // SAFETY: by the caller; a byte array has no alignment.
    unsafe { &*from.cast() }
}

// No closures here: the compiler does not always inline them, and what is not inlined is compiled for another machine.
impl<D: Dot, B: Blocks> BlockProduct<D, B> {
    /// The scales of a group whose head begins at `head`.
    ///
    /// # Safety
    /// There must be as many lines as the shape says, and `halves` must be those of a superblock where there are any.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices unroll
    unsafe fn scales(self, head: *const u8, halves: *const u8) -> Scales<<D::F as Simd>::V> {
        let (s, shape) = (self.0.floats(), B::SHAPE);
        let zero = s.splat(0.0);
        let mut found = Scales { scales: [zero; 4], minima: [zero; 4] };
        let count = GROUP / shape.shared;
        // SAFETY: lines and halves by the caller.
        unsafe {
            if !shape.superblocks {
                for i in 0..count {
                    found.scales[i] = s.load_f16(bytes(head.add(i * 2 * BLOCK)));
                    if shape.minima {
                        found.minima[i] = s.load_f16(bytes(head.add(LINE + i * 2 * BLOCK)));
                    }
                }
                return found;
            }
            let unit = s.load_f16(bytes(halves));
            for i in 0..count {
                let integers = bytes(head.add(i * BLOCK));
                let integers = if shape.signed { s.load_i8(integers) } else { s.load_u8(integers) };
                found.scales[i] = s.mul(integers, unit);
            }
            if shape.minima {
                let first = if shape.shared == 32 { 2 * BLOCK } else { LINE };
                let unit = s.sub(zero, s.load_f16(bytes(halves.add(2 * BLOCK))));
                for i in 0..count {
                    found.minima[i] = s.mul(s.load_u8(bytes(head.add(first + i * BLOCK))), unit);
                }
            }
        }
        found
    }

    /// The steps of the `four`th four of the `SIXTEEN`th sixteen values of k, of fewer than 8 bits.
    ///
    /// # Safety
    /// `lines` must be the group's after its head.
    #[inline(always)]
    unsafe fn steps<const SIXTEEN: usize>(self, lines: *const u8, four: usize) -> D::Line4 {
        let (d, shape) = (self.0, B::SHAPE);
        let (base, crumbs) = (shape.base_lines(), shape.crumb_lines());
        let (bit_line, bit) = bit(SIXTEEN, four);
        let (bit, crumb, nibble) = (bit as i32, crumb(SIXTEEN) as i32, 4 * (SIXTEEN / 2) as i32);
        // SAFETY: as many lines as the shape says, by the caller.
        unsafe {
            match shape.bits {
                2 => d.field(bytes(lines.add(four * LINE)), crumb, 3),
                3 => d.or(
                    d.field(bytes(lines.add(four * LINE)), crumb, 3),
                    d.field(bytes(lines.add((crumbs + bit_line) * LINE)), bit - 2, 4),
                ),
                _ => {
                    let low = d.field(bytes(lines.add((4 * (SIXTEEN % 2) + four) * LINE)), nibble, 15);
                    match shape.bits {
                        5 => d.or(low, d.field(bytes(lines.add((base + bit_line) * LINE)), bit - 4, 16)),
                        6 => d.or(low, d.field(bytes(lines.add((base + four) * LINE)), crumb - 4, 48)),
                        _ => low,
                    }
                }
            }
        }
    }

    /// A word of activations, four integers.
    ///
    /// # Safety
    /// `words` must be the activations of a group of `ROWS` rows, of which `row` is one.
    #[inline(always)]
    unsafe fn word<const ROWS: usize>(self, words: *const u32, index: usize, row: usize) -> D::Four {
        // SAFETY: by the caller.
        self.0
            .four(unsafe { *words.add(header_words(ROWS, SIXTEENS_HEADER) + row * (GROUP / 4) + index) }.cast_signed())
    }

    /// A float of the header of a row's activations.
    ///
    /// # Safety
    /// `words` must be a group's activations, of which `row` is one.
    #[inline(always)]
    unsafe fn header(self, words: *const u32, index: usize, row: usize) -> <D::F as Simd>::V {
        // SAFETY: by the caller.
        self.0.floats().splat(f32::from_bits(unsafe { *words.add(row * SIXTEENS_HEADER + index) }))
    }

    /// Adds the products of the `SIXTEEN`th sixteen values of k to the rows' sums.
    ///
    /// # Safety
    /// As for [`Multiply::group`]; `lines` are those after the head.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices unroll
    unsafe fn add_sixteen<const ROWS: usize, const SIXTEEN: usize>(
        self,
        sums: &mut [D::Sums; ROWS],
        lines: *const u8,
        words: *const u32,
    ) {
        let d = self.0;
        // SAFETY: by the caller.
        unsafe {
            if B::SHAPE.bits == 8 {
                for four in 0..4 {
                    let weights = d.load8(bytes(lines.add((4 * SIXTEEN + four) * LINE)));
                    for r in 0..ROWS {
                        sums[r] = d.dot8(sums[r], weights, self.word::<ROWS>(words, 4 * SIXTEEN + four, r));
                    }
                }
                return;
            }
            let weights = [
                self.steps::<SIXTEEN>(lines, 0),
                self.steps::<SIXTEEN>(lines, 1),
                self.steps::<SIXTEEN>(lines, 2),
                self.steps::<SIXTEEN>(lines, 3),
            ];
            let at = 4 * SIXTEEN;
            // In one loop, seventeen rows are too many for the compiler to unroll.
            for rows in [0..ROWS / 2, ROWS / 2..ROWS] {
                for r in rows {
                    let x = [
                        self.word::<ROWS>(words, at, r),
                        self.word::<ROWS>(words, at + 1, r),
                        self.word::<ROWS>(words, at + 2, r),
                        self.word::<ROWS>(words, at + 3, r),
                    ];
                    sums[r] = d.dot_small(sums[r], weights, x, B::SHAPE.bits <= 5);
                }
            }
        }
    }

    /// Adds what the rows' sums over the `SIXTEEN`th sixteen values of k come to, to the totals; the sums begin anew.
    ///
    /// Where 32 values share a scale, a sixteen's sum has the activations' scale at once, and the weights' together with the
    /// second sixteen.
    ///
    /// # Safety
    /// `words` must be the group's activations.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices unroll
    unsafe fn scale_sums<const ROWS: usize, const SIXTEEN: usize>(
        self,
        totals: &mut [<D::F as Simd>::V; ROWS],
        products: &mut [<D::F as Simd>::V; ROWS],
        sums: &mut [D::Sums; ROWS],
        scales: &Scales<<D::F as Simd>::V>,
        words: *const u32,
    ) {
        let (d, s, shape) = (self.0, self.0.floats(), B::SHAPE);
        let offset = s.splat(-(shape.offset as f32));
        for r in 0..ROWS {
            // SAFETY: by the caller.
            let [x_scale, x_sum, x_half] = unsafe {
                [
                    self.header(words, SIXTEEN, r),
                    self.header(words, 4 + SIXTEEN, r),
                    self.header(words, 8 + SIXTEEN / 2, r),
                ]
            };
            let mut sum = d.to_floats(sums[r]);
            sums[r] = d.zero();
            if shape.bits == 8 && D::KEEPS_OFFSET8 || shape.bits < 8 && shape.shared == 16 && shape.offset != 0 {
                // Both are integers below 2^24, and so is what is left.
                sum = s.fma(x_sum, offset, sum);
            }
            if shape.shared == 16 {
                let mut product = s.mul(sum, scales.scales[SIXTEEN]);
                if shape.minima {
                    product = s.fma(x_sum, scales.minima[SIXTEEN], product);
                }
                totals[r] = s.fma(product, x_scale, totals[r]);
            } else if SIXTEEN.is_multiple_of(2) {
                products[r] = s.mul(sum, x_scale);
            } else {
                let mut product = s.fma(sum, x_scale, products[r]);
                if shape.bits < 8 && shape.offset != 0 {
                    product = s.fma(x_half, offset, product);
                }
                totals[r] = s.fma(product, scales.scales[SIXTEEN / 2], totals[r]);
                if shape.minima {
                    totals[r] = s.fma(x_half, scales.minima[SIXTEEN / 2], totals[r]);
                }
            }
        }
    }
}

impl<D: Dot, B: Blocks> Multiply for BlockProduct<D, B> {
    type F = D::F;
    const ROWS: usize = if D::F::ROWS < BLOCK_ROWS { D::F::ROWS } else { BLOCK_ROWS };
    const LINES: usize = B::SHAPE.group_lines();
    const HEADER: usize = SIXTEENS_HEADER;
    const VALUES: usize = GROUP / 4;
    const SIDE_BY_SIDE: bool = false;
    // A group that is cut short is filled up with zeros.
    const HAS_REST: bool = false;

    #[inline(always)]
    fn floats(self) -> D::F {
        self.0.floats()
    }
    fn scales_bytes(groups: usize) -> usize {
        B::SHAPE.scales_bytes(groups)
    }
    fn is_rest(lines: usize) -> bool {
        lines == 0
    }
    // A function for each: all formats and rows in one would keep the compiler busy for minutes.
    #[inline(always)]
    fn tile<const ROWS: usize>(self, tile: Tile<'_, '_>) {
        if ROWS > Self::ROWS {
            unreachable!("tiles have as many rows as `Isa::tile_rows` says");
        }
        self.0.apart(TileOp::<Self, ROWS> { product: self, tile });
    }
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices into arrays of constant length unroll, and the compiler then keeps them in registers
    unsafe fn group<const ROWS: usize>(
        self,
        totals: &mut [<D::F as Simd>::V; ROWS],
        scales: *const u8,
        group: usize,
        lines: *const u8,
        _: usize,
        words: *const u32,
    ) {
        let (d, s, shape) = (self.0, self.0.floats(), B::SHAPE);
        // SAFETY: lines and words by the caller, here and below; superblocks without halves are never looked at.
        let scales =
            unsafe { self.scales(lines, scales.wrapping_add(group / (SUPERBLOCK / GROUP) * shape.superblock_bytes())) };
        // SAFETY: as above.
        let steps = unsafe { lines.add(shape.head_lines() * LINE) };
        let mut sums = [d.zero(); ROWS];
        let mut products = [s.splat(0.0); ROWS];
        macro_rules! sixteens {
            ($($sixteen:literal)*) => {
                $(
                    // A few at a time: asked for all at once, they wait for each other.
                    for index in Self::LINES * $sixteen / 4..Self::LINES * ($sixteen + 1) / 4 {
                        prefetch(s, lines.wrapping_add(index * LINE));
                    }
                    // SAFETY: as above.
                    unsafe {
                        self.add_sixteen::<ROWS, $sixteen>(&mut sums, steps, words);
                        self.scale_sums::<ROWS, $sixteen>(totals, &mut products, &mut sums, &scales, words);
                    }
                )*
            };
        }
        sixteens!(0 1 2 3);
    }
}

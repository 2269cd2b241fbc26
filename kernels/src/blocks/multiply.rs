//! The products of a group of stored blocks with activations: one kernel for all formats.
//!
//! The steps of 16 or 32 values of k that share a scale are multiplied with the activations' integers and summed in i32, which
//! is exact, less the offset; the sum times the scale, and the minimum times the activations' own sum, are added up in f32 for
//! the group, in order of k, and the group times the activations' scale is added to the total.

use crate::dot::{Dot, DotOp};
use crate::multiply::{Multiply, prefetch};
use crate::packed::{BLOCK, LINE};
use crate::product::Tile;
use crate::quantizer::{GROUP, SUMS_HEADER};
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
        // SAFETY: lines and halves by the caller, here and below; a byte array has no alignment.
        let half = |from: *const u8| s.load_f16(unsafe { &*from.cast() });
        let bytes = |from: *const u8| unsafe { &*from.cast::<[u8; BLOCK]>() };
        let count = GROUP / shape.shared;
        if !shape.superblocks {
            for i in 0..count {
                // SAFETY: as above.
                unsafe {
                    found.scales[i] = half(head.add(i * 2 * BLOCK));
                    if shape.minima {
                        found.minima[i] = half(head.add(LINE + i * 2 * BLOCK));
                    }
                }
            }
            return found;
        }
        let unit = half(halves);
        for i in 0..count {
            // SAFETY: as above.
            let integers = bytes(unsafe { head.add(i * BLOCK) });
            let integers = if shape.signed { s.load_i8(integers) } else { s.load_u8(integers) };
            found.scales[i] = s.mul(integers, unit);
        }
        if shape.minima {
            let first = if shape.shared == 32 { 2 * BLOCK } else { LINE };
            // SAFETY: as above.
            let unit = s.sub(zero, half(unsafe { halves.add(2 * BLOCK) }));
            for i in 0..count {
                // SAFETY: as above.
                found.minima[i] = s.mul(s.load_u8(bytes(unsafe { head.add(first + i * BLOCK) })), unit);
            }
        }
        found
    }

    /// The steps of the `sixteen`th sixteen values of k, of fewer than 8 bits, in four fours.
    #[inline(always)]
    fn steps<'a>(self, line: impl Fn(usize) -> &'a [u8; LINE], sixteen: usize) -> [D::Line4; 4] {
        let (d, shape) = (self.0, B::SHAPE);
        let (base, crumbs) = (shape.base_lines(), shape.crumb_lines());
        let field = |index: usize, from: usize, to: i32, mask: u8| {
            let shift = i32::try_from(from).unwrap_or(0) - to;
            d.field(line(index), shift, mask)
        };
        std::array::from_fn(|four| {
            let (bit_line, bit) = bit(sixteen, four);
            let low = || field(4 * (sixteen % 2) + four, 4 * (sixteen / 2), 0, 15);
            match shape.bits {
                2 => field(four, crumb(sixteen), 0, 3),
                3 => d.or(field(four, crumb(sixteen), 0, 3), field(crumbs + bit_line, bit, 2, 4)),
                4 => low(),
                5 => d.or(low(), field(base + bit_line, bit, 4, 16)),
                _ => d.or(low(), field(base + four, crumb(sixteen), 4, 48)),
            }
        })
    }
}

impl<D: Dot, B: Blocks> Multiply for BlockProduct<D, B> {
    type F = D::F;
    const ROWS: usize = D::F::ROWS;
    const LINES: usize = B::SHAPE.group_lines();
    const WORDS: usize = SUMS_HEADER + GROUP / 4;
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
        if ROWS <= Self::ROWS {
            self.0.apart(TileOp::<Self, ROWS> { product: self, tile });
        }
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
        // SAFETY: lines and words by the caller, here and below; a byte array has no alignment.
        let line = |index: usize| -> &[u8; LINE] { unsafe { &*lines.add((shape.head_lines() + index) * LINE).cast() } };
        // SAFETY: as above.
        let header = |index: usize, row: usize| f32::from_bits(unsafe { *words.add(row * SUMS_HEADER + index) });
        let word = |index: usize, row: usize| {
            // SAFETY: as above.
            d.four(unsafe { *words.add(ROWS * SUMS_HEADER + row * (GROUP / 4) + index) }.cast_signed())
        };
        for index in 0..Self::LINES {
            prefetch(s, lines.wrapping_add(index * LINE));
        }
        // SAFETY: as above; superblocks without halves are never looked at.
        let Scales { scales, minima } =
            unsafe { self.scales(lines, scales.wrapping_add(group / (SUPERBLOCK / GROUP) * shape.superblock_bytes())) };
        let mut sums = [d.zero(); ROWS];
        let mut products = [s.splat(0.0); ROWS];
        for sixteen in 0..4 {
            // In one loop, seventeen rows are too many for the compiler to unroll.
            let halves = [0..ROWS / 2, ROWS / 2..ROWS];
            if shape.bits == 8 {
                for four in 0..4 {
                    let weights = d.load8(line(4 * sixteen + four));
                    for rows in halves.clone() {
                        for r in rows {
                            sums[r] = d.dot8(sums[r], weights, word(4 * sixteen + four, r));
                        }
                    }
                }
            } else {
                let weights = self.steps(line, sixteen);
                for rows in halves {
                    for r in rows {
                        let x = std::array::from_fn(|four| word(4 * sixteen + four, r));
                        sums[r] = d.dot_small(sums[r], weights, x, shape.bits <= 5);
                    }
                }
            }
            let is_last = shape.shared == 16 || sixteen % 2 == 1;
            if is_last {
                let (index, at) =
                    if shape.shared == 16 { (sixteen, 3 + sixteen) } else { (sixteen / 2, 1 + sixteen / 2) };
                for r in 0..ROWS {
                    let x = s.splat(header(at, r));
                    let mut sum = d.to_floats(sums[r]);
                    // Both are integers below 2^24, and so is what is left.
                    if shape.offset != 0 && (shape.bits < 8 || D::KEEPS_OFFSET8) {
                        sum = s.fma(x, s.splat(-(shape.offset as f32)), sum);
                    }
                    products[r] =
                        if index == 0 { s.mul(sum, scales[0]) } else { s.fma(sum, scales[index], products[r]) };
                    if shape.minima {
                        products[r] = s.fma(x, minima[index], products[r]);
                    }
                    sums[r] = d.zero();
                }
            }
        }
        for r in 0..ROWS {
            totals[r] = s.fma(products[r], s.splat(header(0, r)), totals[r]);
        }
    }
}

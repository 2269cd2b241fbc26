//! What a line of weights adds to the sums of some rows, format by format.
//!
//! A group of 64 values of k has sums of its own, exact integers or floats in order of k, which are then added
//! to the totals. So all formats share one loop ([`crate::product`]), and all that the sums depend on is the row.

use crate::dot::Dot;
use crate::packed::{LINE, SCALES};
use crate::quantizer::GROUP;
use crate::simd::Simd;

/// A format on an instruction set.
pub(crate) trait Multiply: Copy {
    /// The floats of the instruction set.
    type F: Simd;
    /// Sums of a group, sixteen of them.
    type Sums: Copy;
    /// Words of activations that belong to a line of weights.
    const WORDS: usize;
    /// Lines of a whole group.
    const LINES: usize;
    /// Rows of the largest tile.
    const ROWS: usize;
    /// Bytes of a group's scales.
    const SCALES: usize;
    /// Words before a group's activations, for each row: its scale and minus the sum of its integers, or none.
    const HEADER: usize;

    fn floats(self) -> Self::F;

    /// The sums to begin with.
    ///
    /// # Safety
    /// `header` must be that of a group of `rows` rows, of which `row` is one.
    unsafe fn start(self, header: *const u32, row: usize, rows: usize) -> Self::Sums;

    /// Adds a line to the sums.
    ///
    /// # Safety
    /// `x` must have the words of `ROWS` rows for the line.
    unsafe fn add<const ROWS: usize>(self, sums: &mut [Self::Sums; ROWS], line: &[u8; LINE], x: *const u32);

    /// Adds a group's sums to the totals.
    ///
    /// # Safety
    /// `scales` must be those of the group, `header` as for [`Multiply::start`].
    unsafe fn finish(
        self,
        total: <Self::F as Simd>::V,
        sums: Self::Sums,
        scales: *const u8,
        header: *const u32,
        row: usize,
    ) -> <Self::F as Simd>::V;
}

/// 8-bit integers.
#[derive(Clone, Copy)]
pub(crate) struct Int8<D>(pub(crate) D);
/// 4-bit integers.
#[derive(Clone, Copy)]
pub(crate) struct Int4<D>(pub(crate) D);

/// What the integer formats have in common.
macro_rules! integers {
    ($lines:expr, $start:ident) => {
        type F = D::F;
        type Sums = D::Sums;
        const WORDS: usize = GROUP / 4 / $lines;
        const LINES: usize = $lines;
        const ROWS: usize = D::ROWS;
        const SCALES: usize = SCALES;
        const HEADER: usize = 2;

        #[inline(always)]
        fn floats(self) -> D::F {
            self.0.floats()
        }
        #[inline(always)]
        unsafe fn start(self, header: *const u32, row: usize, rows: usize) -> D::Sums {
            // SAFETY: the negated sums follow the scales, by the caller.
            self.0.$start(unsafe { *header.add(rows + row) }.cast_signed())
        }
        #[inline(always)]
        unsafe fn finish(
            self,
            total: <D::F as Simd>::V,
            sums: D::Sums,
            scales: *const u8,
            header: *const u32,
            row: usize,
        ) -> <D::F as Simd>::V {
            let s = self.0.floats();
            // SAFETY: sixteen scales, and a row's scale, by the caller.
            let (scales, scale) = unsafe { (s.load_bf16(&*scales.cast()), f32::from_bits(*header.add(row))) };
            s.fma(self.0.to_floats(sums), s.mul(scales, s.splat(scale)), total)
        }
    };
}

impl<D: Dot> Multiply for Int8<D> {
    integers!(GROUP / 4, start8);

    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // as for `Product::tile`
    unsafe fn add<const ROWS: usize>(self, sums: &mut [D::Sums; ROWS], line: &[u8; LINE], x: *const u32) {
        let d = self.0;
        let weights = d.load8(line);
        for r in 0..ROWS {
            // SAFETY: a word for each row, by the caller.
            let four = d.four(unsafe { *x.add(r) }.cast_signed());
            sums[r] = d.dot8(sums[r], weights, four);
        }
    }
}

impl<D: Dot> Multiply for Int4<D> {
    integers!(GROUP / 8, start4);

    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // as for `Product::tile`
    unsafe fn add<const ROWS: usize>(self, sums: &mut [D::Sums; ROWS], line: &[u8; LINE], x: *const u32) {
        let d = self.0;
        let weights = d.load4(line);
        for half in 0..2 {
            for r in 0..ROWS {
                // SAFETY: two words for each row, by the caller.
                let four = d.four(unsafe { *x.add(half * ROWS + r) }.cast_signed());
                sums[r] = d.dot4(sums[r], weights[half], four);
            }
        }
    }
}

/// Floats in one of the stored formats.
#[derive(Clone, Copy)]
pub(crate) struct F32<S>(pub(crate) S);
/// As [`F32`].
#[derive(Clone, Copy)]
pub(crate) struct F16<S>(pub(crate) S);
/// As [`F32`].
#[derive(Clone, Copy)]
pub(crate) struct Bf16<S>(pub(crate) S);

/// What the float formats have in common; `$load` is an expression of the values of k in a line, each sixteen floats.
macro_rules! floats {
    ($format:ident, $per_line:expr, |$s:ident, $line:ident| $load:expr) => {
        impl<S: Simd> Multiply for $format<S> {
            type F = S;
            type Sums = S::V;
            const WORDS: usize = $per_line;
            const LINES: usize = GROUP / $per_line;
            const ROWS: usize = S::ROWS;
            const SCALES: usize = 0;
            const HEADER: usize = 0;

            #[inline(always)]
            fn floats(self) -> S {
                self.0
            }
            #[inline(always)]
            unsafe fn start(self, _: *const u32, _: usize, _: usize) -> S::V {
                self.0.splat(0.0)
            }
            #[inline(always)]
            #[allow(clippy::needless_range_loop)] // as for `Product::tile`
            unsafe fn add<const ROWS: usize>(self, sums: &mut [S::V; ROWS], $line: &[u8; LINE], x: *const u32) {
                let $s = self.0;
                let weights: [S::V; $per_line] = $load;
                for i in 0..$per_line {
                    for r in 0..ROWS {
                        // SAFETY: as many words for each row, by the caller.
                        let x = f32::from_bits(unsafe { *x.add(i * ROWS + r) });
                        sums[r] = $s.fma($s.splat(x), weights[i], sums[r]);
                    }
                }
            }
            #[inline(always)]
            unsafe fn finish(self, total: S::V, sums: S::V, _: *const u8, _: *const u32, _: usize) -> S::V {
                self.0.add(total, sums)
            }
        }
    };
}

floats!(F32, 1, |s, line| [s.load_f32(line)]);
floats!(F16, 2, |s, line| {
    let (halves, _) = line.as_chunks();
    [s.load_f16(&halves[0]), s.load_f16(&halves[1])]
});
floats!(Bf16, 2, |s, line| s.load_bf16_pairs(line));

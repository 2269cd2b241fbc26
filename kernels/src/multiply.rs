//! Contributions of a group of weights to the totals of some rows, format by format.
//!
//! A group of 64 values of k has sums of its own, exact integers or floats in order of k, which are then added
//! to the totals. So all formats share one loop ([`crate::product`]), and all that the sums depend on is the row.

use crate::dot::Dot;
use crate::form::{group_words, header_words};
use crate::packed::{AFFINE_HEAD, LINE, SCALES};
use crate::product::Tile;
use crate::quantizer::{GROUP, HEADER};
use crate::simd::{LANES, Simd};

/// Distance, in bytes, that a line is prefetched ahead of its use.
const AHEAD: usize = 8 << 10;

/// Asks for a line that comes later in the matrix.
#[inline(always)]
pub(crate) fn prefetch<S: Simd>(s: S, line: *const u8) {
    s.prefetch(line.wrapping_add(AHEAD));
}

/// A format on an instruction set.
pub(crate) trait Multiply: Copy {
    /// The floats of the instruction set.
    type F: Simd;
    /// Rows of the largest tile.
    const ROWS: usize;
    /// Lines of a whole group.
    const LINES: usize;
    /// Words of a row's header in a group of activations.
    const HEADER: usize;
    /// Words of a row's values in a group of activations.
    const VALUES: usize;

    fn floats(self) -> Self::F;

    /// Bytes before a block's lines that `groups` groups take for scales.
    fn scales_bytes(groups: usize) -> usize;

    /// True if a last group may have fewer lines.
    const HAS_REST: bool = true;

    /// True if a last group may have `lines` lines, fewer than [`Multiply::LINES`]; 0 where there is none.
    fn is_rest(lines: usize) -> bool {
        let _ = lines;
        true
    }

    /// Computes a tile of `ROWS` rows.
    #[inline(always)]
    fn tile<const ROWS: usize>(self, tile: Tile<'_, '_>) {
        tile.compute::<Self, ROWS>(self);
    }

    /// True if [`Multiply::groups`] makes sums side by side.
    const SIDE_BY_SIDE: bool;

    /// Adds the products of `N` groups from `first` on, which have all their lines, to the totals, in order. Their sums may be
    /// made side by side: a sum is a chain, and where rows are few, there are fewer chains than the processor can work on.
    ///
    /// # Safety
    /// As for [`Multiply::group`], of each.
    #[inline(always)]
    unsafe fn groups<const ROWS: usize, const N: usize>(
        self,
        totals: &mut [<Self::F as Simd>::V; ROWS],
        scales: *const u8,
        first: usize,
        lines: *const u8,
        words: *const u32,
    ) {
        for n in 0..N {
            // SAFETY: by the caller.
            unsafe {
                let (lines, words) =
                    (lines.add(n * Self::LINES * LINE), words.add(n * group_words(ROWS, Self::HEADER, Self::VALUES)));
                self.group::<ROWS>(totals, scales, first + n, lines, Self::LINES, words);
            }
        }
    }

    /// Adds the products of group `group` with `count` lines to the totals.
    ///
    /// # Safety
    /// `scales` must be a block's with that group, `lines` the group's `count` lines, which [`Multiply::LINES`] or
    /// [`Multiply::is_rest`] allow, and `words` its activations of `ROWS` rows.
    unsafe fn group<const ROWS: usize>(
        self,
        totals: &mut [<Self::F as Simd>::V; ROWS],
        scales: *const u8,
        group: usize,
        lines: *const u8,
        count: usize,
        words: *const u32,
    );

    /// The results of totals.
    ///
    /// # Safety
    /// `scales` must be a block's, as many bytes as [`Multiply::scales_bytes`] says.
    #[inline(always)]
    unsafe fn end<const ROWS: usize>(self, totals: &mut [<Self::F as Simd>::V; ROWS], scales: *const u8) {
        let _ = (totals, scales);
    }
}

/// A format whose groups are lines that all count alike.
pub(crate) trait ByLine: Copy {
    /// As in [`Multiply`].
    type F: Simd;
    /// Sums of a group, sixteen of them.
    type Sums: Copy;
    /// Rows of the largest tile.
    const ROWS: usize;
    /// Lines of a whole group.
    const LINES: usize;
    /// Words of a row's activations that belong to a line of weights.
    const PER_LINE: usize;
    /// Words of a row's activations of a group, without its header.
    const PER_GROUP: usize = Self::LINES * Self::PER_LINE;
    /// Words before a group's activations, for each row.
    const HEADER: usize;
    /// Bytes of a group's scales.
    const SCALES: usize;
    /// As in [`Multiply`].
    const SIDE_BY_SIDE: bool;

    fn floats(self) -> Self::F;

    /// The sums to begin with.
    ///
    /// # Safety
    /// `header` must be the headers of a group's rows, of which `row` is one.
    unsafe fn start(self, header: *const u32, row: usize) -> Self::Sums;

    /// Adds a line to the sums.
    ///
    /// # Safety
    /// `x` must be the first row's words for the line, and the other rows' follow at [`ByLine::PER_GROUP`] words each.
    unsafe fn add<const ROWS: usize>(self, sums: &mut [Self::Sums; ROWS], line: &[u8; LINE], x: *const u32);

    /// Adds a group's sums to the totals.
    ///
    /// # Safety
    /// `scales` must be those of the group, `header` as for [`ByLine::start`].
    unsafe fn finish(
        self,
        total: <Self::F as Simd>::V,
        sums: Self::Sums,
        scales: *const u8,
        header: *const u32,
        row: usize,
    ) -> <Self::F as Simd>::V;
}

impl<L: ByLine> Multiply for L {
    type F = L::F;
    const ROWS: usize = L::ROWS;
    const LINES: usize = L::LINES;
    const HEADER: usize = L::HEADER;
    const VALUES: usize = L::PER_GROUP;
    const SIDE_BY_SIDE: bool = L::SIDE_BY_SIDE;

    #[inline(always)]
    fn floats(self) -> L::F {
        ByLine::floats(self)
    }
    fn scales_bytes(groups: usize) -> usize {
        groups * L::SCALES
    }
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices into arrays of constant length unroll, and the compiler then keeps them in registers
    unsafe fn group<const ROWS: usize>(
        self,
        totals: &mut [<L::F as Simd>::V; ROWS],
        scales: *const u8,
        group: usize,
        lines: *const u8,
        count: usize,
        words: *const u32,
    ) {
        // SAFETY: by the caller, here and below.
        let mut sums = [unsafe { self.start(words, 0) }; ROWS];
        for r in 1..ROWS {
            // SAFETY: as above.
            sums[r] = unsafe { self.start(words, r) };
        }
        for line in 0..count {
            // SAFETY: as above; a byte array has no alignment.
            unsafe {
                let from = lines.add(line * LINE);
                prefetch(ByLine::floats(self), from);
                self.add::<ROWS>(
                    &mut sums,
                    &*from.cast(),
                    words.add(header_words(ROWS, L::HEADER) + line * L::PER_LINE),
                );
            }
        }
        for r in 0..ROWS {
            // SAFETY: as above.
            totals[r] = unsafe { self.finish(totals[r], sums[r], scales.add(group * L::SCALES), words, r) };
        }
    }
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // as for `Multiply::group`
    unsafe fn groups<const ROWS: usize, const N: usize>(
        self,
        totals: &mut [<L::F as Simd>::V; ROWS],
        scales: *const u8,
        first: usize,
        lines: *const u8,
        words: *const u32,
    ) {
        // SAFETY: by the caller, here and below.
        let words: [*const u32; N] =
            std::array::from_fn(|n| unsafe { words.add(n * group_words(ROWS, L::HEADER, L::PER_GROUP)) });
        // SAFETY: as above.
        let mut sums = [[unsafe { self.start(words[0], 0) }; ROWS]; N];
        for n in 0..N {
            for r in 0..ROWS {
                // SAFETY: as above.
                sums[n][r] = unsafe { self.start(words[n], r) };
            }
        }
        for line in 0..<L as ByLine>::LINES {
            for n in 0..N {
                // SAFETY: as above; a byte array has no alignment.
                unsafe {
                    // Asked for in order.
                    prefetch(ByLine::floats(self), lines.add((N * line + n) * LINE));
                    let from = lines.add((n * <L as ByLine>::LINES + line) * LINE);
                    self.add::<ROWS>(
                        &mut sums[n],
                        &*from.cast(),
                        words[n].add(header_words(ROWS, L::HEADER) + line * L::PER_LINE),
                    );
                }
            }
        }
        for n in 0..N {
            for r in 0..ROWS {
                // SAFETY: as above.
                totals[r] =
                    unsafe { self.finish(totals[r], sums[n][r], scales.add((first + n) * L::SCALES), words[n], r) };
            }
        }
    }
}

/// 8-bit integers.
#[derive(Clone, Copy)]
pub(crate) struct Int8<D>(pub(crate) D);
/// 4-bit integers.
#[derive(Clone, Copy)]
pub(crate) struct Int4<D>(pub(crate) D);

impl<D: Dot> ByLine for Int8<D> {
    type F = D::F;
    type Sums = D::Sums;
    const ROWS: usize = D::F::ROWS;
    const LINES: usize = GROUP / 4;
    const PER_LINE: usize = 1;
    const HEADER: usize = HEADER;
    const SCALES: usize = SCALES;
    // Its chains are a quarter as long, and nothing was gained.
    const SIDE_BY_SIDE: bool = false;

    #[inline(always)]
    fn floats(self) -> D::F {
        self.0.floats()
    }
    #[inline(always)]
    unsafe fn start(self, header: *const u32, row: usize) -> D::Sums {
        // SAFETY: the header's second word, by the caller.
        self.0.start8(unsafe { *header.add(row * HEADER + 1) }.cast_signed())
    }
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // as for `Multiply::group`
    unsafe fn add<const ROWS: usize>(self, sums: &mut [D::Sums; ROWS], line: &[u8; LINE], x: *const u32) {
        let d = self.0;
        let weights = d.load8(line);
        for r in 0..ROWS {
            // SAFETY: a word for each row, by the caller.
            let four = d.four(unsafe { *x.add(r * Self::PER_GROUP) }.cast_signed());
            sums[r] = d.dot8(sums[r], weights, four);
        }
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
        let (scales, scale) = unsafe { (s.load_bf16(&*scales.cast()), f32::from_bits(*header.add(row * HEADER))) };
        s.fma(self.0.to_floats(sums), s.mul(scales, s.splat(scale)), total)
    }
}

impl<D: Dot> Multiply for Int4<D> {
    type F = D::F;
    const ROWS: usize = D::F::ROWS;
    const LINES: usize = AFFINE_HEAD + GROUP / 8;
    const HEADER: usize = HEADER;
    const VALUES: usize = GROUP / 4;
    const SIDE_BY_SIDE: bool = false;

    #[inline(always)]
    fn floats(self) -> D::F {
        self.0.floats()
    }
    fn scales_bytes(_: usize) -> usize {
        LINE // a float for each output
    }
    fn is_rest(lines: usize) -> bool {
        lines == 0 || lines > AFFINE_HEAD && (lines - AFFINE_HEAD).is_multiple_of(2)
    }
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices into arrays of constant length unroll, and the compiler then keeps them in registers
    unsafe fn group<const ROWS: usize>(
        self,
        totals: &mut [<D::F as Simd>::V; ROWS],
        _: *const u8,
        _: usize,
        lines: *const u8,
        count: usize,
        words: *const u32,
    ) {
        let (d, s) = (self.0, self.0.floats());
        // SAFETY: lines and words by the caller, here and below; a byte array has no alignment.
        let line = |index: usize| -> &[u8; LINE] { unsafe { &*lines.add(index * LINE).cast() } };
        // SAFETY: as above.
        let header = |index: usize, row: usize| unsafe { *words.add(row * HEADER + index) }.cast_signed();
        let word = |index: usize, row: usize| {
            // SAFETY: as above.
            unsafe { *words.add(header_words(ROWS, HEADER) + row * (GROUP / 4) + index) }.cast_signed()
        };
        prefetch(s, line(0).as_ptr());
        prefetch(s, line(1).as_ptr());
        let (scales, minima) = (line(0).as_chunks::<LANES>().0, d.minima4(line(1)));
        let mut sums = [d.start4(minima, [header(2, 0), header(3, 0)]); ROWS];
        for r in 1..ROWS {
            sums[r] = d.start4(minima, [header(2, r), header(3, r)]);
        }
        for sub in 0..(count - AFFINE_HEAD) / 2 {
            let (low, high) = (line(AFFINE_HEAD + 2 * sub), line(AFFINE_HEAD + 2 * sub + 1));
            prefetch(s, low.as_ptr());
            prefetch(s, high.as_ptr());
            let ([a, b], [c, e]) = (d.load4(low), d.load4(high));
            let scales = d.scales4(&scales[sub]);
            let at = 4 * sub;
            // In one loop, seventeen rows are too many for the compiler to unroll.
            for rows in [0..ROWS / 2, ROWS / 2..ROWS] {
                for r in rows {
                    let x = [word(at, r), word(at + 1, r), word(at + 2, r), word(at + 3, r)];
                    let x = [d.four(x[0]), d.four(x[1]), d.four(x[2]), d.four(x[3])];
                    sums[r] = d.dot4(sums[r], [a, b, c, e], x, scales);
                }
            }
        }
        for r in 0..ROWS {
            let scale = f32::from_bits(header(0, r).cast_unsigned());
            totals[r] = s.fma(d.to_floats(sums[r]), s.splat(scale), totals[r]);
        }
    }
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // as for `Multiply::group`
    unsafe fn end<const ROWS: usize>(self, totals: &mut [<D::F as Simd>::V; ROWS], scales: *const u8) {
        let s = self.0.floats();
        // SAFETY: sixteen floats, by the caller.
        let scales = s.load_f32(unsafe { &*scales.cast() });
        for r in 0..ROWS {
            totals[r] = s.mul(totals[r], scales);
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

/// Shared implementation of the float formats; `$load` is an expression of the values of k in a line, each sixteen
/// floats.
macro_rules! floats {
    ($format:ident, $per_line:expr, |$s:ident, $line:ident| $load:expr) => {
        impl<S: Simd> ByLine for $format<S> {
            type F = S;
            type Sums = S::V;
            const ROWS: usize = S::ROWS;
            const LINES: usize = GROUP / $per_line;
            const PER_LINE: usize = $per_line;
            const HEADER: usize = 0;
            const SCALES: usize = 0;
            const SIDE_BY_SIDE: bool = true;

            #[inline(always)]
            fn floats(self) -> S {
                self.0
            }
            #[inline(always)]
            unsafe fn start(self, _: *const u32, _: usize) -> S::V {
                self.0.splat(0.0)
            }
            #[inline(always)]
            #[allow(clippy::needless_range_loop)] // as for `Multiply::group`
            unsafe fn add<const ROWS: usize>(self, sums: &mut [S::V; ROWS], $line: &[u8; LINE], x: *const u32) {
                let $s = self.0;
                let weights: [S::V; $per_line] = $load;
                for i in 0..$per_line {
                    for r in 0..ROWS {
                        // SAFETY: as many words for each row, by the caller.
                        let x = f32::from_bits(unsafe { *x.add(r * Self::PER_GROUP + i) });
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

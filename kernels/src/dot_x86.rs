//! [`Dot`] for x86-64: AVX2, and AVX-512 with VNNI.

use std::arch::x86_64::*;

use crate::dot::{Dot, DotOp, OFFSET8};
use crate::packed::LINE;
use crate::simd::LANES;
use crate::simd_x86::{Avx2, Avx512, proven};

/// Proof that the machine has AVX-512 VNNI besides what [`Avx512`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Vnni(Avx512);

impl Vnni {
    pub(crate) fn detect(proof: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512vnni").then_some(Self(proof))
    }

    pub(crate) fn enter<O: DotOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        #[inline(never)]
        fn inner<O: DotOp>(d: Vnni, op: O) -> O::Output {
            op.run(d)
        }
        // SAFETY: the token proves that the machine has the features.
        unsafe { inner(self, op) }
    }
}

impl Avx2 {
    pub(crate) fn enter_dots<O: DotOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        #[inline(never)]
        fn inner<O: DotOp>(d: Avx2, op: O) -> O::Output {
            op.run(d)
        }
        // SAFETY: the token proves that the machine has the features.
        unsafe { inner(self, op) }
    }
}

/// A vector shifted to the right by a number that the compiler knows once all is inlined, or to the left by a negative one.
macro_rules! shifted {
    ($vector:expr, $shift:expr, $right:ident, $left:ident) => {
        match $shift {
            -4 => $left::<4>($vector),
            -3 => $left::<3>($vector),
            -2 => $left::<2>($vector),
            -1 => $left::<1>($vector),
            1 => $right::<1>($vector),
            2 => $right::<2>($vector),
            3 => $right::<3>($vector),
            4 => $right::<4>($vector),
            5 => $right::<5>($vector),
            6 => $right::<6>($vector),
            7 => $right::<7>($vector),
            _ => $vector,
        }
    };
}

impl Vnni {
    /// Integers that are added to sums.
    #[inline(always)]
    pub(crate) fn plus(self, sums: __m512i, more: &[i32; LANES]) -> __m512i {
        proven!(_mm512_add_epi32(sums, _mm512_loadu_si512(more.as_ptr().cast())))
    }
}

impl Dot for Vnni {
    type F = Avx512;
    type Sums = __m512i;
    type Line8 = __m512i;
    type Line4 = __m512i;
    type Scales4 = __m512i;
    /// In 16 bits each: of the first and third sub-groups, and of the second and fourth.
    type Minima4 = [__m512i; 2];
    type Four = __m512i;
    const KEEPS_OFFSET8: bool = true;

    #[inline(always)]
    fn apart<O: DotOp>(self, op: O) -> O::Output {
        self.enter(op)
    }
    #[inline(always)]
    fn floats(self) -> Avx512 {
        self.0
    }
    #[inline(always)]
    fn zero(self) -> Self::Sums {
        proven!(_mm512_setzero_si512())
    }
    #[inline(always)]
    fn four(self, x: i32) -> Self::Four {
        proven!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn to_floats(self, sums: Self::Sums) -> __m512 {
        proven!(_mm512_cvtepi32_ps(sums))
    }
    // The instruction multiplies unsigned by signed: weights stay as stored, and what their offset adds to
    // the sum is taken off beforehand.
    #[inline(always)]
    fn start8(self, negated: i32) -> Self::Sums {
        proven!(_mm512_set1_epi32(negated))
    }
    #[inline(always)]
    fn load8(self, from: &[u8; LINE]) -> Self::Line8 {
        proven!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn dot8(self, sums: Self::Sums, weights: Self::Line8, x: Self::Four) -> Self::Sums {
        proven!(_mm512_dpbusd_epi32(sums, weights, x))
    }
    #[inline(always)]
    fn field(self, from: &[u8; LINE], shift: i32, mask: u8) -> Self::Line4 {
        proven!({
            let line = _mm512_loadu_si512(from.as_ptr().cast());
            _mm512_and_si512(
                shifted!(line, shift, _mm512_srli_epi16, _mm512_slli_epi16),
                _mm512_set1_epi8(mask.cast_signed()),
            )
        })
    }
    #[inline(always)]
    fn or(self, a: Self::Line4, b: Self::Line4) -> Self::Line4 {
        proven!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn dot_small(self, sums: Self::Sums, weights: [Self::Line4; 4], x: [Self::Four; 4], _: bool) -> Self::Sums {
        proven!({
            let sums = _mm512_dpbusd_epi32(sums, weights[0], x[0]);
            let sums = _mm512_dpbusd_epi32(sums, weights[1], x[1]);
            let sums = _mm512_dpbusd_epi32(sums, weights[2], x[2]);
            _mm512_dpbusd_epi32(sums, weights[3], x[3])
        })
    }
    #[inline(always)]
    fn minima4(self, from: &[u8; LINE]) -> Self::Minima4 {
        proven!({
            let all = _mm512_loadu_si512(from.as_ptr().cast());
            [_mm512_and_si512(all, _mm512_set1_epi16(0xFF)), _mm512_srli_epi16::<8>(all)]
        })
    }
    #[inline(always)]
    fn start4(self, [even, odd]: Self::Minima4, negated: [i32; 2]) -> Self::Sums {
        proven!({
            let half = _mm512_madd_epi16(even, _mm512_set1_epi32(negated[0]));
            _mm512_dpwssd_epi32(half, odd, _mm512_set1_epi32(negated[1]))
        })
    }
    #[inline(always)]
    fn scales4(self, from: &[u8; LANES]) -> Self::Scales4 {
        proven!(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn load4(self, from: &[u8; LINE]) -> [Self::Line4; 2] {
        proven!({
            let both = _mm512_loadu_si512(from.as_ptr().cast());
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low)]
        })
    }
    // A product's low 16 bits are its value, and the high ones, which are its sign, meet zeros in the scales.
    #[inline(always)]
    fn dot4(
        self,
        sums: Self::Sums,
        weights: [Self::Line4; 4],
        x: [Self::Four; 4],
        scales: Self::Scales4,
    ) -> Self::Sums {
        proven!({
            let products = _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights[0], x[0]);
            let products = _mm512_dpbusd_epi32(products, weights[1], x[1]);
            let products = _mm512_dpbusd_epi32(products, weights[2], x[2]);
            let products = _mm512_dpbusd_epi32(products, weights[3], x[3]);
            _mm512_dpwssd_epi32(sums, products, scales)
        })
    }
}

impl Dot for Avx2 {
    type F = Self;
    type Sums = (__m256i, __m256i);
    /// Weights without their offset, and their magnitudes.
    type Line8 = [(__m256i, __m256i); 2];
    type Line4 = (__m256i, __m256i);
    /// Each twice, in the halves of 32 bits.
    type Scales4 = (__m256i, __m256i);
    /// In 16 bits each: of the first and third sub-groups, and of the second and fourth.
    type Minima4 = [(__m256i, __m256i); 2];
    type Four = __m256i;
    const KEEPS_OFFSET8: bool = false;

    #[inline(always)]
    fn apart<O: DotOp>(self, op: O) -> O::Output {
        self.enter_dots(op)
    }
    #[inline(always)]
    fn floats(self) -> Self {
        self
    }
    #[inline(always)]
    fn zero(self) -> Self::Sums {
        proven!((_mm256_setzero_si256(), _mm256_setzero_si256()))
    }
    #[inline(always)]
    fn four(self, x: i32) -> Self::Four {
        proven!(_mm256_set1_epi32(x))
    }
    #[inline(always)]
    fn to_floats(self, sums: Self::Sums) -> (__m256, __m256) {
        proven!((_mm256_cvtepi32_ps(sums.0), _mm256_cvtepi32_ps(sums.1)))
    }
    #[inline(always)]
    fn start8(self, _: i32) -> Self::Sums {
        proven!((_mm256_setzero_si256(), _mm256_setzero_si256()))
    }
    #[inline(always)]
    fn load8(self, from: &[u8; LINE]) -> Self::Line8 {
        let from = from.as_ptr().cast::<__m256i>();
        proven!({
            let offset = _mm256_set1_epi8(OFFSET8 as i8);
            let low = _mm256_xor_si256(_mm256_loadu_si256(from), offset);
            let high = _mm256_xor_si256(_mm256_loadu_si256(from.add(1)), offset);
            [(low, _mm256_abs_epi8(low)), (high, _mm256_abs_epi8(high))]
        })
    }
    // The sum of two products saturates at 32767. So the signs of weights go to the activations: twice 127 *
    // 127 is less, where twice 255 * 127 would not be.
    #[inline(always)]
    fn dot8(self, sums: Self::Sums, [low, high]: Self::Line8, x: Self::Four) -> Self::Sums {
        proven!({
            let ones = _mm256_set1_epi16(1);
            let first = _mm256_madd_epi16(_mm256_maddubs_epi16(low.1, _mm256_sign_epi8(x, low.0)), ones);
            let second = _mm256_madd_epi16(_mm256_maddubs_epi16(high.1, _mm256_sign_epi8(x, high.0)), ones);
            (_mm256_add_epi32(sums.0, first), _mm256_add_epi32(sums.1, second))
        })
    }
    #[inline(always)]
    fn field(self, from: &[u8; LINE], shift: i32, mask: u8) -> Self::Line4 {
        let from = from.as_ptr().cast::<__m256i>();
        proven!({
            let (first, second) = (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)));
            let mask = _mm256_set1_epi8(mask.cast_signed());
            (
                _mm256_and_si256(shifted!(first, shift, _mm256_srli_epi16, _mm256_slli_epi16), mask),
                _mm256_and_si256(shifted!(second, shift, _mm256_srli_epi16, _mm256_slli_epi16), mask),
            )
        })
    }
    #[inline(always)]
    fn or(self, a: Self::Line4, b: Self::Line4) -> Self::Line4 {
        proven!((_mm256_or_si256(a.0, b.0), _mm256_or_si256(a.1, b.1)))
    }
    // Nothing saturates: the sum of eight products of 5 bits is at most 8 * 31 * 127, of four products of 6 bits 4 * 63 * 127.
    #[inline(always)]
    fn dot_small(self, sums: Self::Sums, weights: [Self::Line4; 4], x: [Self::Four; 4], is_tiny: bool) -> Self::Sums {
        proven!({
            let ones = _mm256_set1_epi16(1);
            let pair = |i: usize, j: usize| {
                (
                    _mm256_add_epi16(
                        _mm256_maddubs_epi16(weights[i].0, x[i]),
                        _mm256_maddubs_epi16(weights[j].0, x[j]),
                    ),
                    _mm256_add_epi16(
                        _mm256_maddubs_epi16(weights[i].1, x[i]),
                        _mm256_maddubs_epi16(weights[j].1, x[j]),
                    ),
                )
            };
            let (a, b) = (pair(0, 1), pair(2, 3));
            if is_tiny {
                (
                    _mm256_add_epi32(sums.0, _mm256_madd_epi16(_mm256_add_epi16(a.0, b.0), ones)),
                    _mm256_add_epi32(sums.1, _mm256_madd_epi16(_mm256_add_epi16(a.1, b.1), ones)),
                )
            } else {
                let first = _mm256_add_epi32(_mm256_madd_epi16(a.0, ones), _mm256_madd_epi16(b.0, ones));
                let second = _mm256_add_epi32(_mm256_madd_epi16(a.1, ones), _mm256_madd_epi16(b.1, ones));
                (_mm256_add_epi32(sums.0, first), _mm256_add_epi32(sums.1, second))
            }
        })
    }
    #[inline(always)]
    fn minima4(self, from: &[u8; LINE]) -> Self::Minima4 {
        let from = from.as_ptr().cast::<__m256i>();
        proven!({
            let (first, second) = (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)));
            let low = _mm256_set1_epi16(0xFF);
            [
                (_mm256_and_si256(first, low), _mm256_and_si256(second, low)),
                (_mm256_srli_epi16::<8>(first), _mm256_srli_epi16::<8>(second)),
            ]
        })
    }
    #[inline(always)]
    fn start4(self, [even, odd]: Self::Minima4, negated: [i32; 2]) -> Self::Sums {
        proven!({
            let (x, y) = (_mm256_set1_epi32(negated[0]), _mm256_set1_epi32(negated[1]));
            let first = _mm256_add_epi32(_mm256_madd_epi16(even.0, x), _mm256_madd_epi16(odd.0, y));
            let second = _mm256_add_epi32(_mm256_madd_epi16(even.1, x), _mm256_madd_epi16(odd.1, y));
            (first, second)
        })
    }
    #[inline(always)]
    fn scales4(self, from: &[u8; LANES]) -> Self::Scales4 {
        let from = from.as_ptr().cast::<__m128i>();
        proven!({
            let bytes = _mm_loadu_si128(from);
            let first = _mm256_cvtepu8_epi32(bytes);
            let second = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes));
            (
                _mm256_or_si256(first, _mm256_slli_epi32::<16>(first)),
                _mm256_or_si256(second, _mm256_slli_epi32::<16>(second)),
            )
        })
    }
    #[inline(always)]
    fn load4(self, from: &[u8; LINE]) -> [Self::Line4; 2] {
        let from = from.as_ptr().cast::<__m256i>();
        proven!({
            let (first, second) = (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)));
            let low = _mm256_set1_epi8(15);
            let shifted = (_mm256_srli_epi16::<4>(first), _mm256_srli_epi16::<4>(second));
            [
                (_mm256_and_si256(first, low), _mm256_and_si256(second, low)),
                (_mm256_and_si256(shifted.0, low), _mm256_and_si256(shifted.1, low)),
            ]
        })
    }
    // Nothing saturates: the sum of two products is at most 2 * 15 * 127, and of eight, four times as much.
    #[inline(always)]
    fn dot4(
        self,
        sums: Self::Sums,
        weights: [Self::Line4; 4],
        x: [Self::Four; 4],
        scales: Self::Scales4,
    ) -> Self::Sums {
        proven!({
            let mut first = _mm256_maddubs_epi16(weights[0].0, x[0]);
            let mut second = _mm256_maddubs_epi16(weights[0].1, x[0]);
            first = _mm256_add_epi16(first, _mm256_maddubs_epi16(weights[1].0, x[1]));
            second = _mm256_add_epi16(second, _mm256_maddubs_epi16(weights[1].1, x[1]));
            first = _mm256_add_epi16(first, _mm256_maddubs_epi16(weights[2].0, x[2]));
            second = _mm256_add_epi16(second, _mm256_maddubs_epi16(weights[2].1, x[2]));
            first = _mm256_add_epi16(first, _mm256_maddubs_epi16(weights[3].0, x[3]));
            second = _mm256_add_epi16(second, _mm256_maddubs_epi16(weights[3].1, x[3]));
            (
                _mm256_add_epi32(sums.0, _mm256_madd_epi16(first, scales.0)),
                _mm256_add_epi32(sums.1, _mm256_madd_epi16(second, scales.1)),
            )
        })
    }
}

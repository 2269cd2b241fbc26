//! [`Dot`] for x86-64: AVX2, and AVX-512 with VNNI.

use std::arch::x86_64::*;

use crate::dot::{Dot, DotOp, OFFSET4, OFFSET8};
use crate::packed::LINE;
use crate::simd_x86::{Avx2, Avx512};

/// Proof that the machine has AVX-512 VNNI besides what [`Avx512`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Vnni(Avx512);

impl Vnni {
    pub(crate) fn detect(proof: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512vnni").then_some(Self(proof))
    }

    pub(crate) fn enter<O: DotOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
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
        fn inner<O: DotOp>(d: Avx2, op: O) -> O::Output {
            op.run(d)
        }
        // SAFETY: the token proves that the machine has the features.
        unsafe { inner(self, op) }
    }
}

/// An intrinsic in a method of a token.
macro_rules! proven {
    ($intrinsics:expr) => {{
        // SAFETY: the token `self` proves that the machine has the instructions; pointers come from
        // references to arrays of the size read, and only unaligned loads are used.
        unsafe { $intrinsics }
    }};
}

impl Dot for Vnni {
    type F = Avx512;
    type Sums = __m512i;
    type Line8 = __m512i;
    type Line4 = __m512i;
    type Four = __m512i;
    const ROWS: usize = 17;

    #[inline(always)]
    fn floats(self) -> Avx512 {
        self.0
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
        proven!(_mm512_slli_epi32::<{ OFFSET8.ilog2() }>(_mm512_set1_epi32(negated)))
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
    fn start4(self, negated: i32) -> Self::Sums {
        proven!(_mm512_slli_epi32::<{ OFFSET4.ilog2() }>(_mm512_set1_epi32(negated)))
    }
    #[inline(always)]
    fn load4(self, from: &[u8; LINE]) -> [Self::Line4; 2] {
        proven!({
            let both = _mm512_loadu_si512(from.as_ptr().cast());
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low)]
        })
    }
    #[inline(always)]
    fn dot4(self, sums: Self::Sums, weights: Self::Line4, x: Self::Four) -> Self::Sums {
        proven!(_mm512_dpbusd_epi32(sums, weights, x))
    }
}

impl Dot for Avx2 {
    type F = Self;
    type Sums = (__m256i, __m256i);
    /// Weights without their offset, and their magnitudes.
    type Line8 = [(__m256i, __m256i); 2];
    type Line4 = (__m256i, __m256i);
    type Four = __m256i;
    const ROWS: usize = 4;

    #[inline(always)]
    fn floats(self) -> Self {
        self
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
    fn start4(self, negated: i32) -> Self::Sums {
        proven!({
            let start = _mm256_slli_epi32::<{ OFFSET4.ilog2() as i32 }>(_mm256_set1_epi32(negated));
            (start, start)
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
    // Here the weights are 15 at most as they are stored, and nothing saturates.
    #[inline(always)]
    fn dot4(self, sums: Self::Sums, weights: Self::Line4, x: Self::Four) -> Self::Sums {
        proven!({
            let ones = _mm256_set1_epi16(1);
            let first = _mm256_madd_epi16(_mm256_maddubs_epi16(weights.0, x), ones);
            let second = _mm256_madd_epi16(_mm256_maddubs_epi16(weights.1, x), ones);
            (_mm256_add_epi32(sums.0, first), _mm256_add_epi32(sums.1, second))
        })
    }
}

//! [`Dot`] for x86-64 with VNNI in vectors of 256 bits: processors without AVX-512.

use std::arch::x86_64::*;

use crate::dot::{Dot, DotOp};
use crate::packed::LINE;
use crate::simd::LANES;
use crate::simd_x86::{Avx2, proven};

/// Proof that the machine has AVX-VNNI besides what [`Avx2`] proves.
#[derive(Clone, Copy)]
pub(crate) struct AvxVnni(Avx2);

type Pair = (__m256i, __m256i);

impl AvxVnni {
    pub(crate) fn detect() -> Option<Self> {
        let proof = Avx2::detect()?;
        is_x86_feature_detected!("avxvnni").then_some(Self(proof))
    }

    /// Every machine with these instructions has those of AVX2.
    pub(crate) fn avx2(self) -> Avx2 {
        self.0
    }

    pub(crate) fn enter<O: DotOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
        #[inline(never)]
        fn inner<O: DotOp>(d: AvxVnni, op: O) -> O::Output {
            op.run(d)
        }
        // SAFETY: the token proves that the machine has the features.
        unsafe { inner(self, op) }
    }

    /// Adds the products of unsigned weights and signed activations.
    #[inline(always)]
    fn add(self, sums: Pair, weights: Pair, x: __m256i) -> Pair {
        proven!((_mm256_dpbusd_avx_epi32(sums.0, weights.0, x), _mm256_dpbusd_avx_epi32(sums.1, weights.1, x)))
    }
}

impl Dot for AvxVnni {
    type F = Avx2;
    type Sums = Pair;
    type Line8 = Pair;
    type Line4 = Pair;
    /// In the low halves of 32 bits.
    type Scales4 = Pair;
    type Minima4 = <Avx2 as Dot>::Minima4;
    type Four = __m256i;
    const KEEPS_OFFSET8: bool = true;

    #[inline(always)]
    fn apart<O: DotOp>(self, op: O) -> O::Output {
        self.enter(op)
    }
    #[inline(always)]
    fn floats(self) -> Avx2 {
        self.0
    }
    #[inline(always)]
    fn zero(self) -> Self::Sums {
        self.0.zero()
    }
    #[inline(always)]
    fn four(self, x: i32) -> Self::Four {
        self.0.four(x)
    }
    #[inline(always)]
    fn to_floats(self, sums: Self::Sums) -> (__m256, __m256) {
        self.0.to_floats(sums)
    }
    // The instruction multiplies unsigned by signed: weights stay as stored, and what their offset adds to
    // the sum is taken off beforehand.
    #[inline(always)]
    fn start8(self, negated: i32) -> Self::Sums {
        proven!((_mm256_set1_epi32(negated), _mm256_set1_epi32(negated)))
    }
    #[inline(always)]
    fn load8(self, from: &[u8; LINE]) -> Self::Line8 {
        let from = from.as_ptr().cast::<__m256i>();
        proven!((_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))))
    }
    #[inline(always)]
    fn dot8(self, sums: Self::Sums, weights: Self::Line8, x: Self::Four) -> Self::Sums {
        self.add(sums, weights, x)
    }
    #[inline(always)]
    fn field(self, from: &[u8; LINE], shift: i32, mask: u8) -> Self::Line4 {
        self.0.field(from, shift, mask)
    }
    #[inline(always)]
    fn or(self, a: Self::Line4, b: Self::Line4) -> Self::Line4 {
        self.0.or(a, b)
    }
    #[inline(always)]
    fn dot_small(self, sums: Self::Sums, weights: [Self::Line4; 4], x: [Self::Four; 4], _: bool) -> Self::Sums {
        let sums = self.add(sums, weights[0], x[0]);
        let sums = self.add(sums, weights[1], x[1]);
        let sums = self.add(sums, weights[2], x[2]);
        self.add(sums, weights[3], x[3])
    }
    #[inline(always)]
    fn minima4(self, from: &[u8; LINE]) -> Self::Minima4 {
        self.0.minima4(from)
    }
    #[inline(always)]
    fn start4(self, minima: Self::Minima4, negated: [i32; 2]) -> Self::Sums {
        self.0.start4(minima, negated)
    }
    #[inline(always)]
    fn scales4(self, from: &[u8; LANES]) -> Self::Scales4 {
        proven!({
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            (_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes)))
        })
    }
    #[inline(always)]
    fn load4(self, from: &[u8; LINE]) -> [Self::Line4; 2] {
        self.0.load4(from)
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
        let products = self.dot_small(self.zero(), weights, x, true);
        proven!((
            _mm256_dpwssd_avx_epi32(sums.0, products.0, scales.0),
            _mm256_dpwssd_avx_epi32(sums.1, products.1, scales.1)
        ))
    }
}

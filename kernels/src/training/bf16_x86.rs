//! [`Arithmetic`] for AVX-512 with products of bf16: a word is a pair, and an instruction adds two products to a sum.
//!
//! The instruction rounds after each product, takes subnormal inputs for 0 and gives 0 for subnormal results.

use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, ProductOp};
use crate::simd_x86::Avx512;

/// Proof that the machine has AVX-512 BF16 besides what [`Avx512`] proves.
#[derive(Clone, Copy)]
pub(super) struct Bf16Pairs(Avx512);

impl Bf16Pairs {
    pub(super) fn detect(proof: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512bf16").then_some(Self(proof))
    }

    pub(super) fn enter<O: ProductOp>(self, op: O) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
        fn inner<O: ProductOp>(pairs: Bf16Pairs, op: O) {
            op.run(pairs);
        }
        // SAFETY: the token proves that the machine has the features.
        unsafe { inner(self, op) }
    }
}

impl Arithmetic for Bf16Pairs {
    type F = Avx512;
    const VALUES: usize = 2;

    #[inline(always)]
    fn floats(self) -> Avx512 {
        self.0
    }
    #[inline(always)]
    fn along(self, [first, second]: [__m512; 2]) -> __m512 {
        // SAFETY: the token proves that the machine has the instructions; the types are of one size.
        unsafe { std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(second, first)) }
    }
    #[inline(always)]
    fn across(self, [even, odd]: [__m512; 2]) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let even = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(even));
            let odd = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(odd));
            let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
            _mm512_castsi512_ps(_mm512_or_si512(_mm512_cvtepu16_epi32(even), odd))
        }
    }
    #[inline(always)]
    fn add_products(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let (a, b) = (std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b));
            _mm512_dpbf16_ps(sum, a, b)
        }
    }
}

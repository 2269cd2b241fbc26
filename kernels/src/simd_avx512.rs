//! [`Simd`] for AVX-512: a register to a vector. Where its trees go below eight lanes, they are those of AVX2.

use std::arch::x86_64::*;

use crate::simd::{LANES, Simd};
use crate::simd_x86::{
    Avx512, larger_bits, largest4_halved, magnitudes, max_half, max4_halved, proven, sum_half, sum4_halved,
};

impl Simd for Avx512 {
    type V = __m512;
    const WIDE: bool = true;
    const ROWS: usize = 17;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        proven!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        proven!(_mm512_loadu_ps(from.as_ptr()))
    }
    #[inline(always)]
    fn load_f32(self, from: &[u8; 4 * LANES]) -> Self::V {
        proven!(_mm512_loadu_ps(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::V {
        proven!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> Self::V {
        proven!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    fn load_bf16_pairs(self, from: &[u8; 4 * LANES]) -> [Self::V; 2] {
        proven!({
            let pairs = _mm512_loadu_si512(from.as_ptr().cast());
            let mask = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(_mm512_and_si512(pairs, mask))]
        })
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::V {
        proven!(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast()))))
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> Self::V {
        proven!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))))
    }
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        proven!(_mm512_storeu_ps(to.as_mut_ptr(), v));
    }
    #[inline(always)]
    fn store_f16(self, v: Self::V, to: &mut [u8; 2 * LANES]) {
        proven!(_mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)));
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, v: Self::V) -> Self::V {
        proven!(_mm512_sqrt_ps(v))
    }
    #[inline(always)]
    fn transpose(self, v: [Self::V; LANES]) -> [Self::V; LANES] {
        // Quarters of four lanes are transposed among four vectors, then the quarters themselves.
        let (mut quads, mut to) = (v, v);
        for i in (0..LANES).step_by(4) {
            proven!({
                let low = [_mm512_unpacklo_ps(v[i], v[i + 1]), _mm512_unpacklo_ps(v[i + 2], v[i + 3])];
                let high = [_mm512_unpackhi_ps(v[i], v[i + 1]), _mm512_unpackhi_ps(v[i + 2], v[i + 3])];
                quads[i] = _mm512_shuffle_ps::<0b01_00_01_00>(low[0], low[1]);
                quads[i + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(low[0], low[1]);
                quads[i + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(high[0], high[1]);
                quads[i + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(high[0], high[1]);
            });
        }
        for i in 0..4 {
            let [a, b, c, d] = [quads[i], quads[i + 4], quads[i + 8], quads[i + 12]];
            proven!({
                let (even_low, even_high) =
                    (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d));
                let (odd_low, odd_high) =
                    (_mm512_shuffle_f32x4::<0b11_01_11_01>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d));
                to[i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even_low, even_high);
                to[i + 4] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd_low, odd_high);
                to[i + 8] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even_low, even_high);
                to[i + 12] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd_low, odd_high);
            });
        }
        to
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        proven!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn scale(self, p: Self::V, shifted: Self::V, anchor: f32) -> Self::V {
        proven!({
            let bias = _mm512_set1_epi32(127);
            let n = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(anchor.to_bits() as i32));
            let half = _mm512_srai_epi32::<1>(n);
            let low = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(half, bias)));
            let rest = _mm512_sub_epi32(n, half);
            let high = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(rest, bias)));
            _mm512_mul_ps(_mm512_mul_ps(p, low), high)
        })
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let halved = proven!(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)));
        sum_half(self.avx2(), halved)
    }
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        let halved = proven!(_mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)));
        max_half(self.avx2(), halved)
    }
    #[inline(always)]
    fn larger(self, most: Self::V, v: Self::V) -> Self::V {
        proven!({
            let magnitudes = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7FFF_FFFF));
            _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(most), magnitudes))
        })
    }
    #[inline(always)]
    fn largest4(self, [a, b, c, d]: [Self::V; 4]) -> [f32; 4] {
        let halved = proven!([
            larger_bits(magnitudes(_mm512_castps512_ps256(a)), magnitudes(_mm512_extractf32x8_ps::<1>(a))),
            larger_bits(magnitudes(_mm512_castps512_ps256(b)), magnitudes(_mm512_extractf32x8_ps::<1>(b))),
            larger_bits(magnitudes(_mm512_castps512_ps256(c)), magnitudes(_mm512_extractf32x8_ps::<1>(c))),
            larger_bits(magnitudes(_mm512_castps512_ps256(d)), magnitudes(_mm512_extractf32x8_ps::<1>(d)))
        ]);
        largest4_halved(self.avx2(), halved)
    }
    #[inline(always)]
    fn max4(self, v: [Self::V; 4]) -> [f32; 4] {
        let [a, b, c, d] = v;
        let halved = proven!([
            _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)),
            _mm256_max_ps(_mm512_castps512_ps256(b), _mm512_extractf32x8_ps::<1>(b)),
            _mm256_max_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps::<1>(c)),
            _mm256_max_ps(_mm512_castps512_ps256(d), _mm512_extractf32x8_ps::<1>(d))
        ]);
        max4_halved(self.avx2(), halved)
    }
    #[inline(always)]
    fn sum4(self, v: [Self::V; 4]) -> [f32; 4] {
        let [a, b, c, d] = v;
        let halved = proven!([
            _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)),
            _mm256_add_ps(_mm512_castps512_ps256(b), _mm512_extractf32x8_ps::<1>(b)),
            _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps::<1>(c)),
            _mm256_add_ps(_mm512_castps512_ps256(d), _mm512_extractf32x8_ps::<1>(d))
        ]);
        sum4_halved(self.avx2(), halved)
    }
    #[inline(always)]
    fn low_bytes(self, v: Self::V) -> [u8; LANES] {
        proven!({
            let mut to = [0; LANES];
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(v)));
            to
        })
    }
    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        proven!(_mm_prefetch::<_MM_HINT_T0>(address.cast()));
    }
}

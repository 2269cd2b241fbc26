//! [`Simd`] for x86-64: AVX2 with FMA and F16C (two registers to a vector) and AVX-512 (one).
//!
//! The effect of each instruction on NaN and on signed zeros is the contract of `Simd` (`max` and `min` give
//! their second operand where neither is greater), which is why the operands are never swapped here.

use std::arch::x86_64::*;

use crate::simd::{LANES, Op, Simd};

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Proof that the machine has AVX-512 F, BW, DQ and VL besides what [`Avx2`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"))
            .then_some(Self(()))
    }

    pub(crate) fn enter<O: Op>(self, op: O) -> O::Output {
        // The only function that carries the features: everything generic is inlined into it.
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<O: Op>(s: Avx2, op: O) -> O::Output {
            op.run(s)
        }
        // SAFETY: the token proves that the machine has the features.
        unsafe { inner(self, op) }
    }
}

impl Avx512 {
    /// Every machine with these instructions has those of AVX2.
    pub(crate) fn avx2(self) -> Avx2 {
        Avx2(())
    }

    pub(crate) fn detect() -> Option<Self> {
        Avx2::detect()?;
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl"))
        .then_some(Self(()))
    }

    pub(crate) fn enter<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn inner<O: Op>(s: Avx512, op: O) -> O::Output {
            op.run(s)
        }
        // SAFETY: the token proves that the machine has the features.
        unsafe { inner(self, op) }
    }
}

/// An intrinsic in a method of a token.
macro_rules! proven {
    ($intrinsics:expr) => {{
        // SAFETY: the token at hand (`self` or `proof`) proves that the machine has the instructions;
        // pointers come from references to arrays of at least the size read or written, and only unaligned
        // loads and stores are used.
        unsafe { $intrinsics }
    }};
}
pub(crate) use proven;

/// [`Simd::scale`] for one of AVX2's two registers. A function and not a closure: a closure of its own may
/// not be inlined into code with the features, and each intrinsic in it then becomes a call.
#[inline(always)]
pub(crate) fn scale_half(proof: Avx2, p: __m256, shifted: __m256, anchor: f32) -> __m256 {
    let _ = proof;
    proven!({
        let bias = _mm256_set1_epi32(127);
        let n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(anchor.to_bits() as i32));
        let half = _mm256_srai_epi32::<1>(n);
        let low = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
        let rest = _mm256_sub_epi32(n, half);
        let high = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
        _mm256_mul_ps(_mm256_mul_ps(p, low), high)
    })
}

/// The last three levels of the tree for four vectors whose halves have been joined: i with i+4, i+2, i+1.
macro_rules! join4_halved {
    ($name:ident, $join:ident, $join_half:ident) => {
        #[inline(always)]
        pub(crate) fn $name(proof: Avx2, [a, b, c, d]: [__m256; 4]) -> [f32; 4] {
            let _ = proof;
            proven!({
                let ab = $join(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
                let cd = $join(_mm256_permute2f128_ps::<0x20>(c, d), _mm256_permute2f128_ps::<0x31>(c, d));
                // Low half: a0+a2 a1+a3 c0+c2 c1+c3; high half: the same of b and d.
                let pairs =
                    $join(_mm256_shuffle_ps::<0b01_00_01_00>(ab, cd), _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd));
                let (low, high) = (_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
                let acbd =
                    $join_half(_mm_shuffle_ps::<0b10_00_10_00>(low, high), _mm_shuffle_ps::<0b11_01_11_01>(low, high));
                let mut joined = [0.0; 4];
                _mm_storeu_ps(joined.as_mut_ptr(), _mm_permute_ps::<0b11_01_10_00>(acbd));
                joined
            })
        }
    };
}

join4_halved!(sum4_halved, _mm256_add_ps, _mm_add_ps);
join4_halved!(max4_halved, _mm256_max_ps, _mm_max_ps);
join4_halved!(largest4_halved, larger_bits, larger_bits_half);

/// The larger of two vectors of floats without signs, by their bits.
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
pub(crate) unsafe fn larger_bits(a: __m256, b: __m256) -> __m256 {
    // SAFETY: by the caller.
    unsafe { _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b))) }
}

/// As [`larger_bits`].
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
unsafe fn larger_bits_half(a: __m128, b: __m128) -> __m128 {
    // SAFETY: by the caller.
    unsafe { _mm_castsi128_ps(_mm_max_epi32(_mm_castps_si128(a), _mm_castps_si128(b))) }
}

/// The magnitudes.
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
pub(crate) unsafe fn magnitudes(v: __m256) -> __m256 {
    // SAFETY: by the caller.
    unsafe { _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFF_FFFF))) }
}

/// The tree of [`Simd::sum`] below eight lanes.
#[inline(always)]
pub(crate) fn sum_half(proof: Avx2, v: __m256) -> f32 {
    let _ = proof;
    proven!({
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    })
}

/// As [`sum_half`], for [`Simd::max_lane`].
#[inline(always)]
pub(crate) fn max_half(proof: Avx2, v: __m256) -> f32 {
    let _ = proof;
    proven!({
        let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
    })
}

/// Lane j of register i becomes lane i of register j.
#[inline(always)]
pub(crate) fn transpose8(proof: Avx2, v: [__m256; 8]) -> [__m256; 8] {
    let _ = proof;
    let (mut quads, mut to) = (v, v);
    for i in [0, 4] {
        proven!({
            let low = [_mm256_unpacklo_ps(v[i], v[i + 1]), _mm256_unpacklo_ps(v[i + 2], v[i + 3])];
            let high = [_mm256_unpackhi_ps(v[i], v[i + 1]), _mm256_unpackhi_ps(v[i + 2], v[i + 3])];
            quads[i] = _mm256_shuffle_ps::<0b01_00_01_00>(low[0], low[1]);
            quads[i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(low[0], low[1]);
            quads[i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(high[0], high[1]);
            quads[i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(high[0], high[1]);
        });
    }
    for i in 0..4 {
        proven!({
            to[i] = _mm256_permute2f128_ps::<0x20>(quads[i], quads[i + 4]);
            to[i + 4] = _mm256_permute2f128_ps::<0x31>(quads[i], quads[i + 4]);
        });
    }
    to
}

impl Simd for Avx2 {
    type V = (__m256, __m256);
    const WIDE: bool = false;
    const ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        proven!((_mm256_set1_ps(value), _mm256_set1_ps(value)))
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        proven!((_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))))
    }
    #[inline(always)]
    fn load_f32(self, from: &[u8; 4 * LANES]) -> Self::V {
        let from = from.as_ptr().cast::<f32>();
        proven!((_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))))
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::V {
        let from = from.as_ptr().cast::<__m128i>();
        proven!((_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1)))))
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> Self::V {
        let from = from.as_ptr().cast::<__m128i>();
        proven!((
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from)))),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(1)))))
        ))
    }
    #[inline(always)]
    fn load_bf16_pairs(self, from: &[u8; 4 * LANES]) -> [Self::V; 2] {
        let from = from.as_ptr().cast::<__m256i>();
        proven!({
            let (low, high) = (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)));
            let mask = _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed());
            [
                (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high))),
                (_mm256_castsi256_ps(_mm256_and_si256(low, mask)), _mm256_castsi256_ps(_mm256_and_si256(high, mask))),
            ]
        })
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::V {
        proven!({
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            let second = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes));
            (_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), _mm256_cvtepi32_ps(second))
        })
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> Self::V {
        proven!({
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            let second = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes));
            (_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), _mm256_cvtepi32_ps(second))
        })
    }
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        proven!({
            _mm256_storeu_ps(to.as_mut_ptr(), v.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v.1);
        });
    }
    #[inline(always)]
    fn store_f16(self, v: Self::V, to: &mut [u8; 2 * LANES]) {
        let to = to.as_mut_ptr().cast::<__m128i>();
        proven!({
            _mm_storeu_si128(to, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.0));
            _mm_storeu_si128(to.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.1));
        });
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        proven!((_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        proven!((_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)))
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        proven!((_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)))
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        proven!((_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)))
    }
    #[inline(always)]
    fn sqrt(self, v: Self::V) -> Self::V {
        proven!((_mm256_sqrt_ps(v.0), _mm256_sqrt_ps(v.1)))
    }
    #[inline(always)]
    fn transpose(self, v: [Self::V; LANES]) -> [Self::V; LANES] {
        let top_left = transpose8(self, [v[0].0, v[1].0, v[2].0, v[3].0, v[4].0, v[5].0, v[6].0, v[7].0]);
        let top_right = transpose8(self, [v[0].1, v[1].1, v[2].1, v[3].1, v[4].1, v[5].1, v[6].1, v[7].1]);
        let low_left = transpose8(self, [v[8].0, v[9].0, v[10].0, v[11].0, v[12].0, v[13].0, v[14].0, v[15].0]);
        let low_right = transpose8(self, [v[8].1, v[9].1, v[10].1, v[11].1, v[12].1, v[13].1, v[14].1, v[15].1]);
        let mut to = v;
        for i in 0..LANES / 2 {
            to[i] = (top_left[i], low_left[i]);
            to[i + LANES / 2] = (top_right[i], low_right[i]);
        }
        to
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        proven!((_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        proven!((_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)))
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        proven!((_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)))
    }
    #[inline(always)]
    fn scale(self, p: Self::V, shifted: Self::V, anchor: f32) -> Self::V {
        (scale_half(self, p.0, shifted.0, anchor), scale_half(self, p.1, shifted.1, anchor))
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        sum_half(self, proven!(_mm256_add_ps(v.0, v.1)))
    }
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        max_half(self, proven!(_mm256_max_ps(v.0, v.1)))
    }
    #[inline(always)]
    fn larger(self, most: Self::V, v: Self::V) -> Self::V {
        proven!((larger_bits(most.0, magnitudes(v.0)), larger_bits(most.1, magnitudes(v.1))))
    }
    #[inline(always)]
    fn largest4(self, v: [Self::V; 4]) -> [f32; 4] {
        let [a, b, c, d] = v;
        let halved = proven!([
            larger_bits(magnitudes(a.0), magnitudes(a.1)),
            larger_bits(magnitudes(b.0), magnitudes(b.1)),
            larger_bits(magnitudes(c.0), magnitudes(c.1)),
            larger_bits(magnitudes(d.0), magnitudes(d.1))
        ]);
        largest4_halved(self, halved)
    }
    #[inline(always)]
    fn max4(self, v: [Self::V; 4]) -> [f32; 4] {
        let [a, b, c, d] = v;
        let halved = proven!([
            _mm256_max_ps(a.0, a.1),
            _mm256_max_ps(b.0, b.1),
            _mm256_max_ps(c.0, c.1),
            _mm256_max_ps(d.0, d.1)
        ]);
        max4_halved(self, halved)
    }
    #[inline(always)]
    fn sum4(self, v: [Self::V; 4]) -> [f32; 4] {
        let [a, b, c, d] = v;
        let halved = proven!([
            _mm256_add_ps(a.0, a.1),
            _mm256_add_ps(b.0, b.1),
            _mm256_add_ps(c.0, c.1),
            _mm256_add_ps(d.0, d.1)
        ]);
        sum4_halved(self, halved)
    }
    #[inline(always)]
    fn low_bytes(self, v: Self::V) -> [u8; LANES] {
        proven!({
            let low = _mm256_set1_epi32(255);
            let first = _mm256_and_si256(_mm256_castps_si256(v.0), low);
            let second = _mm256_and_si256(_mm256_castps_si256(v.1), low);
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(first, second));
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let mut to = [0; LANES];
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
            to
        })
    }
    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        proven!(_mm_prefetch::<_MM_HINT_T0>(address.cast()));
    }
}

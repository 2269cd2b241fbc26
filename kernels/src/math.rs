//! The exponential and the hyperbolic tangent, in operations that round the same everywhere.
//!
//! Range reduction `x = n ln 2 + r` with `ln 2` in two parts (Cody and Waite), the polynomial of Cephes'
//! `expf` in `r`, then `2^n`. The error is below 1.5 units in the last place over the whole range, subnormal
//! results included.

use crate::simd::Simd;

/// `1.5 * 2^23`: adding it rounds to an integer, to even at ties, and leaves that integer in the low bits.
const ANCHOR: f32 = 12_582_912.0;
/// Below this the result rounds to 0, and `2^n` is still the product of two normal powers.
const LOWEST: f32 = -104.0;
/// Above this the result is infinite.
const HIGHEST: f32 = 89.0;
/// From here on the tangent rounds to 1.
const ONE_FROM: f32 = 10.0;
/// `ln 2` with its last nine bits zero, so that `n * LN2_HIGH` is exact, and the rest.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Coefficients (rounded to f32) of `(e^r - 1 - r) / r^2` over |r| <= ln 2 / 2, the highest power first.
const POLYNOMIAL: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// `e^x` in every lane: 0 from -104 down, infinity from 89 up, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // The operands' order lets NaN through.
    let x = s.min(s.splat(HIGHEST), s.max(s.splat(LOWEST), x));
    let (p, shifted) = reduced(s, x);
    s.scale(s.add(p, s.splat(1.0)), shifted, ANCHOR)
}

/// `e^r - 1` and n, shifted by the anchor, of `x = n ln 2 + r`.
#[inline(always)]
fn reduced<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ANCHOR));
    let n = s.sub(shifted, s.splat(ANCHOR));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(POLYNOMIAL[0]);
    let mut i = 1;
    while i < POLYNOMIAL.len() {
        p = s.fma(p, r, s.splat(POLYNOMIAL[i]));
        i += 1;
    }
    (s.fma(p, s.mul(r, r), r), shifted)
}

/// The hyperbolic tangent in every lane, NaN for NaN: `m / (m + 2)` with `m = e^2x - 1`, which keeps its digits where x is
/// small. The error is below 3 units in the last place.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // Beyond, the result is one. The operands' order lets NaN through.
    let x = s.min(s.splat(ONE_FROM), s.max(s.splat(-ONE_FROM), x));
    let (p, shifted) = reduced(s, s.add(x, x));
    let power = s.scale(s.splat(1.0), shifted, ANCHOR);
    let m = s.fma(power, p, s.sub(power, s.splat(1.0)));
    s.div(m, s.add(m, s.splat(2.0)))
}

/// [`exp`] of one value, by the same instructions.
#[inline(always)]
pub(crate) fn exp_one<S: Simd>(s: S, x: f32) -> f32 {
    let mut lanes = [0.0; crate::simd::LANES];
    s.store(exp(s, s.splat(x)), &mut lanes);
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstructionSet;
    use crate::isa::Isa;
    use crate::simd::{LANES, Op};

    struct Exp([f32; LANES]);
    impl Op for Exp {
        type Output = [f32; LANES];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; LANES] {
            let mut y = [0.0; LANES];
            s.store(exp(s, s.load(&self.0)), &mut y);
            y
        }
    }

    struct Tanh([f32; LANES]);
    impl Op for Tanh {
        type Output = [f32; LANES];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; LANES] {
            let mut y = [0.0; LANES];
            s.store(tanh(s, s.load(&self.0)), &mut y);
            y
        }
    }

    #[test]
    fn tanh_is_within_three_units_of_the_last_place_and_has_the_same_bits_everywhere() {
        let mut worst = 0.0_f64;
        // Magnitudes from the smallest normal number to where the result has long been one.
        for step in -126 * 64..=7 * 64 {
            let x: [f32; LANES] = std::array::from_fn(|i| {
                let magnitude = ((f64::from(step) + (i as f64 * 0.618).fract()) / 64.0).exp2() as f32;
                if i % 2 == 0 { magnitude } else { -magnitude }
            });
            let reference = Isa::of(InstructionSet::Scalar).expect("scalar is everywhere").enter(Tanh(x));
            for set in sets() {
                assert_eq!(set.enter(Tanh(x)).map(f32::to_bits), reference.map(f32::to_bits), "{}", set.name());
            }
            for (x, y) in x.into_iter().zip(reference) {
                let exact = f64::from(x).tanh();
                let unit = (exact.abs().log2().floor() - 23.0).max(-149.0).exp2();
                worst = worst.max((f64::from(y) - exact).abs() / unit);
                assert!(y.abs() <= 1.0, "tanh({x}) = {y}");
            }
        }
        assert!(worst < 3.0, "{worst} units in the last place");
    }

    #[test]
    fn tanh_at_the_ends() {
        let mut x = [0.0; LANES];
        x[..5].copy_from_slice(&[f32::NEG_INFINITY, -1e30, 1e30, f32::INFINITY, f32::NAN]);
        for set in sets() {
            let y = set.enter(Tanh(x));
            assert_eq!(y[..4], [-1.0, -1.0, 1.0, 1.0], "{}", set.name());
            assert!(y[4].is_nan(), "{}", set.name());
            assert_eq!(y[5..], [0.0; 11], "{}", set.name());
        }
    }

    fn sets() -> Vec<Isa> {
        InstructionSet::available().into_iter().filter_map(Isa::of).collect()
    }

    #[test]
    fn exp_is_within_two_units_of_the_last_place_and_has_the_same_bits_everywhere() {
        let mut worst = 0.0_f64;
        // A step of 1/4096 and an irrational offset per lane: from below the smallest subnormal to above the
        // largest float.
        for step in -110 * 256..=90 * 256 {
            let x: [f32; LANES] =
                std::array::from_fn(|i| (f64::from(step) / 256.0 + (i as f64 * 0.618).fract() / 256.0) as f32);
            let reference = Isa::of(InstructionSet::Scalar).expect("scalar is everywhere").enter(Exp(x));
            for set in sets() {
                assert_eq!(set.enter(Exp(x)).map(f32::to_bits), reference.map(f32::to_bits), "{}", set.name());
            }
            for (x, y) in x.into_iter().zip(reference) {
                let exact = f64::from(x).exp();
                if exact > f64::from(f32::MAX) {
                    assert!(y.is_infinite() || y == f32::MAX, "exp({x}) = {y}");
                    continue;
                }
                let unit = (exact.log2().floor() - 23.0).max(-149.0).exp2();
                worst = worst.max((f64::from(y) - exact).abs() / unit);
            }
        }
        assert!(worst < 1.5, "{worst} units in the last place");
    }

    #[test]
    fn exp_at_the_ends() {
        let mut x = [0.0; LANES];
        x[..8].copy_from_slice(&[f32::NEG_INFINITY, -1e30, -150.0, f32::INFINITY, 1e30, 100.0, f32::NAN, -0.0]);
        for set in sets() {
            let y = set.enter(Exp(x));
            assert_eq!(y[..3].iter().map(|y| y.to_bits()).collect::<Vec<_>>(), [0; 3], "{}", set.name());
            assert_eq!(y[3..6], [f32::INFINITY; 3], "{}", set.name());
            assert!(y[6].is_nan(), "{}", set.name());
            assert_eq!(y[7..], [1.0; 9], "{}", set.name());
        }
    }
}

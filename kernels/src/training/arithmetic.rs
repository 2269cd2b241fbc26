//! In what products are computed: f32, or inputs rounded to bf16.

use crate::isa::Isa;
use crate::simd::{Op, Simd};

/// Precision that the inputs of [`crate::Kernels::gemm`] are rounded to. Sums are f32 in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrainingPrecision {
    /// As they are.
    F32,
    /// To the nearest bf16.
    Bf16,
}

/// A way to multiply, and what panels hold for it: words of 32 bits, each one or two values that follow each other in k.
pub(super) trait Arithmetic: Copy {
    type F: Simd;
    /// Values of k in a word.
    const VALUES: usize;

    fn floats(self) -> Self::F;
    /// Sixteen words of one line, from its next vectors of k, `VALUES` of them.
    fn along(self, values: [<Self::F as Simd>::V; 2]) -> <Self::F as Simd>::V;
    /// A word for each of sixteen lines, from their next values of k, `VALUES` of them.
    fn across(self, values: [<Self::F as Simd>::V; 2]) -> <Self::F as Simd>::V;
    /// `sum` and the products of the words of `a` and `b`.
    fn add_products(
        self,
        a: <Self::F as Simd>::V,
        b: <Self::F as Simd>::V,
        sum: <Self::F as Simd>::V,
    ) -> <Self::F as Simd>::V;
}

/// Work on an [`Arithmetic`], as [`Op`] is on a [`Simd`].
pub(super) trait ProductOp {
    /// Must be `#[inline(always)]`, see [`Op::run`].
    fn run<A: Arithmetic>(self, a: A);
}

/// f32.
#[derive(Clone, Copy)]
pub(super) struct Exact<S>(pub(super) S);

impl<S: Simd> Arithmetic for Exact<S> {
    type F = S;
    const VALUES: usize = 1;

    #[inline(always)]
    fn floats(self) -> S {
        self.0
    }
    #[inline(always)]
    fn along(self, [values, _]: [S::V; 2]) -> S::V {
        values
    }
    #[inline(always)]
    fn across(self, [values, _]: [S::V; 2]) -> S::V {
        values
    }
    #[inline(always)]
    fn add_products(self, a: S::V, b: S::V, sum: S::V) -> S::V {
        self.0.fma(a, b, sum)
    }
}

/// bf16 where there are no instructions for it: f32 that are rounded to it. Their products are exact in f32.
#[derive(Clone, Copy)]
pub(super) struct Rounded<S>(S);

impl<S: Simd> Rounded<S> {
    /// `v` in the eight bits that a bf16 has (Veltkamp's splitting); NaN above 2^111.
    #[inline(always)]
    fn round(self, v: S::V) -> S::V {
        let s = self.0;
        let shifted = s.mul(v, s.splat(65537.0));
        s.sub(shifted, s.sub(shifted, v))
    }
}

impl<S: Simd> Arithmetic for Rounded<S> {
    type F = S;
    const VALUES: usize = 1;

    #[inline(always)]
    fn floats(self) -> S {
        self.0
    }
    #[inline(always)]
    fn along(self, [values, _]: [S::V; 2]) -> S::V {
        self.round(values)
    }
    #[inline(always)]
    fn across(self, [values, _]: [S::V; 2]) -> S::V {
        self.round(values)
    }
    #[inline(always)]
    fn add_products(self, a: S::V, b: S::V, sum: S::V) -> S::V {
        self.0.fma(a, b, sum)
    }
}

struct InF32<O>(O);
impl<O: ProductOp> Op for InF32<O> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.run(Exact(s));
    }
}

struct InBf16<O>(O);
impl<O: ProductOp> Op for InBf16<O> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.run(Rounded(s));
    }
}

/// Runs `op` in `precision` in code generated for the instruction set, with its products of bf16 where it has them.
pub(super) fn enter<O: ProductOp>(isa: Isa, precision: TrainingPrecision, op: O) {
    match precision {
        TrainingPrecision::F32 => isa.enter(InF32(op)),
        TrainingPrecision::Bf16 => {
            #[cfg(target_arch = "x86_64")]
            if let Isa::Avx512(proof) = isa
                && let Some(pairs) = super::bf16_x86::Bf16Pairs::detect(proof)
            {
                return pairs.enter(op);
            }
            isa.enter(InBf16(op));
        }
    }
}

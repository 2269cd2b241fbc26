//! Which instruction set the kernels run on: what the machine has, and the way into code generated for it.

use std::fmt;

use crate::activations::Kind;
use crate::blocks::BLOCK_ROWS;
use crate::dot::DotOp;
#[cfg(target_arch = "x86_64")]
use crate::dot_x86::Vnni;
use crate::simd::{Op, Scalar, Simd};
#[cfg(target_arch = "x86_64")]
use crate::simd_x86::{Avx2, Avx512};

/// An instruction set the kernels can run on. The choice changes their speed and never their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// Plain Rust; on every machine.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL; with VNNI also for products of integers, which otherwise take the code for AVX2.
    Avx512,
}

impl InstructionSet {
    /// The best this machine has.
    #[must_use]
    pub fn detect() -> Self {
        Isa::best().name()
    }

    /// All that this machine has, the best last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512].into_iter().filter(|set| Isa::of(*set).is_some()).collect()
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

/// An [`InstructionSet`] that this machine was found to have.
#[derive(Clone, Copy)]
pub(crate) enum Isa {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Isa {
    pub(crate) fn of(set: InstructionSet) -> Option<Self> {
        match set {
            InstructionSet::Scalar => Some(Self::Scalar(Scalar)),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => Avx512::detect().map(Self::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    pub(crate) fn best() -> Self {
        [InstructionSet::Avx512, InstructionSet::Avx2].into_iter().find_map(Self::of).unwrap_or(Self::Scalar(Scalar))
    }

    pub(crate) fn name(self) -> InstructionSet {
        match self {
            Self::Scalar(_) => InstructionSet::Scalar,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => InstructionSet::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => InstructionSet::Avx512,
        }
    }

    /// Rows of the largest tile of a product.
    pub(crate) fn tile_rows(self, kind: Kind) -> usize {
        let integers = kind != Kind::Floats;
        let most = if kind == Kind::Blocks { BLOCK_ROWS } else { usize::MAX };
        let rows = match self {
            Self::Scalar(_) => <Scalar as Simd>::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => <Avx2 as Simd>::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(s) if integers && Vnni::detect(s).is_none() => <Avx2 as Simd>::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Avx512::ROWS,
        };
        rows.min(most)
    }

    /// Runs `op` in code generated for this instruction set.
    pub(crate) fn enter<O: Op>(self, op: O) -> O::Output {
        match self {
            Self::Scalar(s) => op.run(s),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(s) => s.enter(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(s) => s.enter(op),
        }
    }

    /// Runs `op`, which needs integer dot products, in code generated for this instruction set, or for AVX2
    /// where the AVX-512 at hand has no such products.
    pub(crate) fn enter_dots<O: DotOp>(self, op: O) -> O::Output {
        match self {
            Self::Scalar(s) => op.run(s),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(s) => s.enter_dots(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(s) => match Vnni::detect(s) {
                Some(vnni) => vnni.enter(op),
                None => s.avx2().enter_dots(op),
            },
        }
    }
}

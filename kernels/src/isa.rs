//! Which instruction set the kernels run on: what the machine has, and the way into code generated for it.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use crate::amx::{self, Amx};
use crate::blocks::BLOCK_ROWS;
use crate::dot::DotOp;
#[cfg(target_arch = "x86_64")]
use crate::dot_avxvnni::AvxVnni;
#[cfg(target_arch = "x86_64")]
use crate::dot_x86::Vnni;
use crate::form::{Form, Kind, Tiles};
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
    /// AVX2, with AVX-VNNI for products of integers.
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL; with VNNI also for products of integers, which otherwise take the code for AVX2.
    Avx512,
    /// AVX-512 with VNNI, and AMX for products of 8-bit integers with many rows.
    Amx,
}

impl InstructionSet {
    /// All of them, the best last.
    const ALL: [Self; 5] = [Self::Scalar, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Amx];

    /// The best this machine has.
    #[must_use]
    pub fn detect() -> Self {
        Isa::best().name()
    }

    /// The set that its floats are computed with: its own without the units that are for integers alone.
    #[must_use]
    pub fn of_floats(self) -> Self {
        match self {
            Self::AvxVnni => Self::Avx2,
            Self::Amx => Self::Avx512,
            set => set,
        }
    }

    /// All that this machine has, the best last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|set| Isa::of(*set).is_some()).collect()
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
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
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Amx(Avx512, Amx),
}

impl Isa {
    pub(crate) fn of(set: InstructionSet) -> Option<Self> {
        match set {
            InstructionSet::Scalar => Some(Self::Scalar(Scalar)),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::AvxVnni => AvxVnni::detect().map(Self::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => Avx512::detect().map(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx => {
                let s = Avx512::detect()?;
                Some(Self::Amx(s, Amx::detect(Vnni::detect(s)?)?))
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    pub(crate) fn best() -> Self {
        InstructionSet::ALL.into_iter().rev().find_map(Self::of).unwrap_or(Self::Scalar(Scalar))
    }

    pub(crate) fn name(self) -> InstructionSet {
        match self {
            Self::Scalar(_) => InstructionSet::Scalar,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => InstructionSet::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => InstructionSet::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => InstructionSet::Avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Amx(..) => InstructionSet::Amx,
        }
    }

    /// The unit that products of a kind with `rows` rows are made on, where there is one and it pays.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn amx(self, kind: Kind, rows: usize) -> Option<Amx> {
        match self {
            Self::Amx(_, amx) if kind == Kind::Int8 && rows >= amx::FROM_ROWS => Some(amx),
            _ => None,
        }
    }

    /// How activations of `rows` rows are laid out for products of a kind.
    pub(crate) fn form(self, kind: Kind, rows: usize) -> Form {
        /// Rows of a tile where there are several, at most.
        const USUAL: usize = 16;
        #[cfg(target_arch = "x86_64")]
        if self.amx(kind, rows).is_some() {
            return Form { kind, tiles: Tiles::new(rows, amx::MOST_ROWS, amx::MOST_ROWS) };
        }
        let most = self.tile_rows(kind);
        Form { kind, tiles: Tiles::new(rows, most, most.min(USUAL)) }
    }

    /// Rows of the largest tile of a product in registers.
    fn tile_rows(self, kind: Kind) -> usize {
        let integers = kind != Kind::Floats;
        let most = if kind == Kind::Blocks { BLOCK_ROWS } else { usize::MAX };
        let rows = match self {
            Self::Scalar(_) => <Scalar as Simd>::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) | Self::AvxVnni(_) => <Avx2 as Simd>::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(s) if integers && Vnni::detect(s).is_none() => <Avx2 as Simd>::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) | Self::Amx(..) => Avx512::ROWS,
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
            Self::AvxVnni(d) => d.avx2().enter(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(s) | Self::Amx(s, _) => s.enter(op),
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
            Self::AvxVnni(d) => d.enter(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(s) | Self::Amx(s, _) => match Vnni::detect(s) {
                Some(vnni) => vnni.enter(op),
                None => s.avx2().enter_dots(op),
            },
        }
    }
}

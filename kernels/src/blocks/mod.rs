//! Weights as GGUF files store them: blocks of small integers with scales, held without changing a value.
//!
//! A value is `scale * (step - offset)`, or `scale * step + minimum`. Steps have 2 to 8 bits. Scales and minima are halves for
//! each 32 values of k, or integers for each 16 or 32 that count the halves of a superblock of 256. Either way a scale is exact
//! in f32, and so is a scale times a step.
//!
//! [`stored`] reads blocks as they lie in a file, [`pack`] moves their bits into the lines that products stream, [`shape`] says
//! where they lie there, and [`multiply`] is the one kernel of all formats.

mod multiply;
mod pack;
mod shape;
mod stored;

use std::fmt;

pub(crate) use multiply::{BLOCK_ROWS, BlockProduct, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
pub(crate) use pack::pack_block;
pub(crate) use shape::{Shape, value};
pub(crate) use stored::{first_not_finite, row_to_f32};

/// The types of tensors in GGUF files that are held as stored. Names and layouts are ggml's (`ggml-common.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockFormat {
    /// 8 bits and a scale for each 32: 8.5 bits a weight.
    Q8_0,
    /// 4 bits and a scale for each 32: 4.5 bits a weight.
    Q4_0,
    /// 4 bits, a scale and a minimum for each 32: 5 bits a weight.
    Q4_1,
    /// 5 bits and a scale for each 32: 5.5 bits a weight.
    Q5_0,
    /// 5 bits, a scale and a minimum for each 32: 6 bits a weight.
    Q5_1,
    /// 2 bits, a scale and a minimum of 4 bits for each 16: 2.625 bits a weight.
    Q2K,
    /// 3 bits and a scale of 6 bits for each 16: 3.4375 bits a weight.
    Q3K,
    /// 4 bits, a scale and a minimum of 6 bits for each 32: 4.5 bits a weight.
    Q4K,
    /// 5 bits, a scale and a minimum of 6 bits for each 32: 5.5 bits a weight.
    Q5K,
    /// 6 bits and a scale of 8 bits for each 16: 6.5625 bits a weight.
    Q6K,
}

impl BlockFormat {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The name that GGUF's tools print.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values of a block, which follow each other in a row.
    #[must_use]
    pub fn block_values(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bits of a step, scales apart.
    #[must_use]
    pub fn bits(self) -> usize {
        Shape::of(self).bits
    }

    /// Bytes of a row of `values` values as it is stored; `None` where that is not whole blocks or does not fit.
    #[must_use]
    pub fn row_bytes(self, values: usize) -> Option<usize> {
        let blocks = values.is_multiple_of(self.block_values()).then_some(values / self.block_values());
        blocks?.checked_mul(self.block_bytes())
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

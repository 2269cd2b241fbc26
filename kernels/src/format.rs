//! In which number formats matrices are packed.

use std::fmt;

use crate::blocks::BlockFormat;
use crate::packed::Layout;
use crate::weights::{FloatFormat, StoredFormat};

/// The number format of quantized weights: integers with scales for each output and group of values of k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuantizedFormat {
    /// Integers of -127 to 127 in groups of 64 with a bf16 scale: 8.25 bits a weight.
    Int8,
    /// Integers of 0 to 15 in groups of 16 with a scale and a minimum of 8 bits, which count an f32 unit of the
    /// output: 5 bits a weight and 32 an output.
    Int4,
}

impl QuantizedFormat {
    /// True if it has fewer bits than the format of a target.
    #[must_use]
    pub fn is_below(self, target: MatrixFormat) -> bool {
        MatrixFormat::Quantized(self).bits() < target.bits()
    }
}

impl fmt::Display for QuantizedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        })
    }
}

/// The number format of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatrixFormat {
    /// Floats, multiplied with activations in f32.
    Float(FloatFormat),
    /// Integers with scales, multiplied with activations rounded to 8 bits.
    Quantized(QuantizedFormat),
    /// Blocks of integers as a GGUF file stores them, multiplied with activations rounded to 8 bits.
    Blocks(BlockFormat),
}

impl From<StoredFormat> for MatrixFormat {
    fn from(format: StoredFormat) -> Self {
        match format {
            StoredFormat::Float(format) => Self::Float(format),
            StoredFormat::Blocks(format) => Self::Blocks(format),
        }
    }
}

impl MatrixFormat {
    /// Bits of a weight, scales apart.
    #[must_use]
    pub fn bits(self) -> usize {
        match self {
            Self::Float(format) => 8 * format.bytes(),
            Self::Quantized(QuantizedFormat::Int8) => 8,
            Self::Quantized(QuantizedFormat::Int4) => 4,
            Self::Blocks(format) => format.bits(),
        }
    }

    /// Bytes that a matrix takes when it is packed in this format.
    #[must_use]
    pub fn matrix_bytes(self, out_features: usize, in_features: usize) -> u64 {
        Layout::new(self, out_features, in_features).bytes() as u64
    }
}

impl fmt::Display for MatrixFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(format) => format.fmt(f),
            Self::Quantized(format) => format.fmt(f),
            Self::Blocks(format) => format.fmt(f),
        }
    }
}

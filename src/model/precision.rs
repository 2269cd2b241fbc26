//! In which precision matrices are held.

use std::fmt;

use paceline_kernels::{FloatFormat, QuantizedFormat};

/// The format of a model's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixFormat {
    /// Floats.
    Float(FloatFormat),
    /// Integers in groups with a scale each. The embedding stays as it is stored, the output matrix is int8.
    Quantized(QuantizedFormat),
}

impl fmt::Display for MatrixFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(format) => format.fmt(f),
            Self::Quantized(format) => format.fmt(f),
        }
    }
}

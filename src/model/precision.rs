//! In which precision matrices are held.

use std::fmt;

use paceline_kernels::{FloatFormat, QuantizedFormat};

use crate::checkpoint::Checkpoint;

/// The format of a model's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixFormat {
    /// Floats.
    Float(FloatFormat),
    /// Integers in groups with a scale each. The embedding stays as it is stored, the output matrix is int8.
    Quantized(QuantizedFormat),
}

impl MatrixFormat {
    /// Bytes that a checkpoint's weights take when its matrices are held in this format.
    pub fn weight_bytes(self, checkpoint: &Checkpoint) -> u64 {
        let tied = checkpoint.config().tied_embeddings;
        let held = |(name, tensor): (&str, &crate::checkpoint::StoredTensor)| match (self, &tensor.shape[..]) {
            (Self::Float(format), &[rows, columns]) => (rows * columns * format.bytes()) as u64,
            (Self::Quantized(format), &[rows, columns]) => match name {
                "model.embed_tokens.weight" => {
                    let output = if tied { QuantizedFormat::Int8.matrix_bytes(rows, columns) } else { 0 };
                    tensor.bytes.len() as u64 + output
                }
                "lm_head.weight" => QuantizedFormat::Int8.matrix_bytes(rows, columns),
                _ => format.matrix_bytes(rows, columns),
            },
            // Norms and biases are kept in f32.
            (_, shape) => 4 * shape.iter().product::<usize>() as u64,
        };
        checkpoint.tensors().map(held).sum()
    }
}

impl fmt::Display for MatrixFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(format) => format.fmt(f),
            Self::Quantized(format) => format.fmt(f),
        }
    }
}

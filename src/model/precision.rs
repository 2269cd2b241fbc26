//! How much memory a checkpoint's weights take by precision.

use paceline_kernels::{MatrixFormat, QuantizedFormat};

use crate::checkpoint::{Checkpoint, StoredTensor};

/// The format of a model's output matrix where the others are in `format`: it decides between tokens, and four bits
/// are too few for that.
pub fn output_format(format: MatrixFormat) -> MatrixFormat {
    match format {
        MatrixFormat::Quantized(_) => MatrixFormat::Quantized(QuantizedFormat::Int8),
        float => float,
    }
}

/// Bytes that a checkpoint's weights take when its matrices are held in `format`.
pub fn weight_bytes(format: MatrixFormat, checkpoint: &Checkpoint) -> u64 {
    let tied = checkpoint.config().tied_embeddings;
    let held = |(name, tensor): (&str, &StoredTensor)| match (name, &tensor.shape[..]) {
        ("model.embed_tokens.weight", &[rows, columns]) if tied => {
            let output = output_format(format).matrix_bytes(rows, columns);
            // A packed float matrix serves look-ups too.
            let table = if matches!(format, MatrixFormat::Float(_)) { 0 } else { tensor.bytes.len() as u64 };
            table + output
        }
        ("model.embed_tokens.weight", _) => tensor.bytes.len() as u64,
        ("lm_head.weight", &[rows, columns]) => output_format(format).matrix_bytes(rows, columns),
        (_, &[rows, columns]) => format.matrix_bytes(rows, columns),
        // Norms and biases are kept in f32.
        (_, shape) => 4 * shape.iter().product::<usize>() as u64,
    };
    checkpoint.tensors().map(held).sum()
}

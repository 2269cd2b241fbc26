//! Which format each matrix is held in, and how much memory a checkpoint's weights take.

use paceline_kernels::{MatrixFormat, QuantizedFormat};

use crate::checkpoint::{Checkpoint, StoredTensor};

/// The format in which the matrix `name` is held where the model is to be in `format`. At int4, keys' and values'
/// projections are int8: they are small, and as every later token looks at what they yield, four bits there cost
/// more than anywhere else.
pub fn matrix_format(name: &str, format: MatrixFormat) -> MatrixFormat {
    let for_the_cache = name.ends_with(".k_proj.weight") || name.ends_with(".v_proj.weight");
    match format {
        MatrixFormat::Quantized(QuantizedFormat::Int4) if for_the_cache => {
            MatrixFormat::Quantized(QuantizedFormat::Int8)
        }
        other => other,
    }
}

/// Bytes that a checkpoint's weights take when its matrices are held in `format`.
pub fn weight_bytes(format: MatrixFormat, checkpoint: &Checkpoint) -> u64 {
    let tied = checkpoint.config().tied_embeddings;
    let matrix = |name: &str, rows, columns| matrix_format(name, format).matrix_bytes(rows, columns);
    let held = |(name, tensor): (&str, &StoredTensor)| match (name, &tensor.shape[..]) {
        ("model.embed_tokens.weight", &[rows, columns]) if tied => {
            // A packed float matrix serves look-ups too.
            let table = if matches!(format, MatrixFormat::Float(_)) { 0 } else { tensor.bytes.len() as u64 };
            table + matrix("lm_head.weight", rows, columns)
        }
        ("model.embed_tokens.weight", _) => tensor.bytes.len() as u64,
        (name, &[rows, columns]) => matrix(name, rows, columns),
        // Norms and biases are kept in f32.
        (_, shape) => 4 * shape.iter().product::<usize>() as u64,
    };
    checkpoint.tensors().map(held).sum()
}

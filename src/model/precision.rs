//! Which format each matrix is held in, and how much memory a checkpoint's weights take.

use paceline_kernels::{MatrixFormat, QuantizedFormat};

use crate::checkpoint::{Checkpoint, EMBEDDING, OUTPUT, StoredTensor};

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

/// True if the rows of an output matrix in `format` are what a token's embedding should be: they are as stored, or rounded
/// floats.
pub(super) fn serves_look_ups(format: MatrixFormat) -> bool {
    !matches!(format, MatrixFormat::Quantized(_))
}

/// Bytes that a checkpoint's weights take when its matrices are held in `format`, `None` for each as it is stored.
pub fn weight_bytes(format: Option<MatrixFormat>, checkpoint: &Checkpoint) -> u64 {
    let tied = checkpoint.config().tied_embeddings;
    let held = |(name, tensor): (&str, &StoredTensor)| {
        let &[rows, columns] = &tensor.shape[..] else {
            // Norms and biases are kept in f32.
            return 4 * tensor.elements() as u64;
        };
        let is_embedding = name == EMBEDDING;
        let name = if is_embedding { OUTPUT } else { name };
        let format = format.map_or(tensor.format.into(), |format| matrix_format(name, format));
        let packed = format.matrix_bytes(rows, columns);
        match (is_embedding, tied) {
            (false, _) => packed,
            // A packed matrix serves look-ups too.
            (true, true) if serves_look_ups(format) => packed,
            (true, true) => packed + tensor.bytes.len() as u64,
            (true, false) => tensor.bytes.len() as u64,
        }
    };
    checkpoint.tensors().map(held).sum()
}

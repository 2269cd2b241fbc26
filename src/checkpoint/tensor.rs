//! One tensor of a checkpoint: where its bytes lie in a mapped file, and the way from them to float32.

use std::ops::Range;
use std::sync::Arc;

use paceline_kernels::{MappedFile, RowOrder, StoredFormat, Weights, WeightsError};

/// A tensor as it is stored, row-major. Its bytes lie within the file, and there are as many as shape and format need.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// The file that holds it.
    pub file: Arc<MappedFile>,
    /// Where its bytes are in the file; they need not be aligned.
    pub bytes: Range<usize>,
    /// The format of its elements.
    pub format: StoredFormat,
    /// Its dimensions, outermost first: a matrix is `[outputs, inputs]`.
    pub shape: Vec<usize>,
    /// The order of its rows, or of the values of a vector.
    pub order: RowOrder,
}

impl StoredTensor {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The matrix where it lies in the file.
    ///
    /// # Errors
    /// If it is no matrix, or an empty one.
    pub fn matrix(&self) -> Result<Weights, WeightsError> {
        match self.shape[..] {
            [rows, columns] => self.as_matrix(rows, columns),
            _ => self.as_matrix(0, 0),
        }
    }

    fn as_matrix(&self, rows: usize, columns: usize) -> Result<Weights, WeightsError> {
        let matrix = Weights::in_place(Arc::clone(&self.file), self.bytes.clone(), self.format, rows, columns)?;
        Ok(matrix.with_row_order(self.order))
    }

    /// The values in row-major order; every stored value is exact in float32, but for minima of blocks, which are rounded
    /// once.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.shape[..] {
            [rows, columns] => self.as_matrix(rows, columns).map_or_else(|_| Vec::new(), |matrix| all_values(&matrix)),
            // One row: blocks lie along a vector.
            _ => {
                let stored = Self { order: RowOrder::Plain, ..self.clone() };
                let row = stored.as_matrix(1, self.elements()).map_or_else(|_| Vec::new(), |row| all_values(&row));
                (0..row.len()).filter_map(|index| row.get(self.order.stored(index)).copied()).collect()
            }
        }
    }
}

/// A matrix's values, row by row.
fn all_values(matrix: &Weights) -> Vec<f32> {
    let mut values = vec![0.0; matrix.out_features() * matrix.in_features()];
    for (row, values) in values.chunks_exact_mut(matrix.in_features()).enumerate() {
        matrix.row_to_f32(row, values);
    }
    values
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use paceline_kernels::FloatFormat;

    use super::*;

    #[test]
    fn every_half_is_converted_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("halves");
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(crate::files::map(&path).unwrap());
        let tensor = StoredTensor {
            file,
            bytes: 0..bytes.len(),
            format: FloatFormat::F16.into(),
            shape: vec![1 << 16],
            order: RowOrder::Plain,
        };
        let values = tensor.to_f32();
        assert_eq!(values.len(), 1 << 16);
        for (bits, found) in (0..=u16::MAX).zip(values) {
            let expected = half::f16::from_bits(bits).to_f32();
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn bytes_at_odd_offsets_are_read() {
        let path = tempfile::tempdir().unwrap();
        let path = path.path().join("bytes");
        let mut bytes = vec![0xaa];
        bytes.extend((-1.5f32).to_le_bytes());
        bytes.extend([0x80, 0x3f, 0x00, 0xc0]); // bf16: 1, -2
        bytes.extend([0x00, 0x3c, 0x01, 0x00]); // f16: 1, 2^-24
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(crate::files::map(&path).unwrap());
        let tensor = |bytes: Range<usize>, format: FloatFormat, n| StoredTensor {
            file: file.clone(),
            bytes,
            format: format.into(),
            shape: vec![n],
            order: RowOrder::Plain,
        };
        assert_eq!(tensor(1..5, FloatFormat::F32, 1).to_f32(), [-1.5]);
        assert_eq!(tensor(5..9, FloatFormat::Bf16, 2).to_f32(), [1.0, -2.0]);
        assert_eq!(tensor(9..13, FloatFormat::F16, 2).to_f32(), [1.0, 2f32.powi(-24)]);
        assert_eq!(tensor(9..13, FloatFormat::F16, 2).elements(), 2);
        for empty in [0..0, 13..13] {
            assert!(tensor(empty, FloatFormat::F16, 0).to_f32().is_empty());
        }
    }
}

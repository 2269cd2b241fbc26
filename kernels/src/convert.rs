//! Matrices in another float format.

use half::{bf16, f16};

use crate::weights::Storage;
use crate::{FloatFormat, Weights};

impl Weights {
    /// A copy of the matrix in another format, every value rounded to the nearest (ties to even).
    #[must_use]
    pub fn converted(&self, format: FloatFormat) -> Self {
        let (rows, columns) = (self.out_features(), self.in_features());
        let storage = if format == FloatFormat::F32 {
            let mut values = vec![0.0; rows * columns];
            for (index, out) in values.chunks_exact_mut(columns).enumerate() {
                self.row_to_f32(index, out);
            }
            Storage::Floats(values)
        } else {
            let mut row = vec![0.0; columns];
            let mut bytes = Vec::with_capacity(rows * columns * format.bytes());
            for index in 0..rows {
                self.row_to_f32(index, &mut row);
                for &value in &row {
                    let bits = if format == FloatFormat::F16 {
                        f16::from_f32(value).to_bits()
                    } else {
                        bf16::from_f32(value).to_bits()
                    };
                    bytes.extend_from_slice(&bits.to_le_bytes());
                }
            }
            Storage::Bytes(bytes)
        };
        self.with_storage(storage, format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_is_exact_and_narrowing_rounds_to_even() {
        // Between two neighbours of each format: 1 + 2^-8 ties to 1 in bf16, 1 + 3 * 2^-8 to 1 + 2^-6; 1 +
        // 2^-11 ties to 1 in f16.
        let values = vec![1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0 + 1.0 / 2048.0, -2.5, 0.0];
        let matrix = Weights::from_f32(values, 2, 3).expect("six values");
        for (format, expected) in [
            (FloatFormat::Bf16, [1.0, 1.0, 1.0 + 1.0 / 64.0, 1.0, -2.5, 0.0]),
            (FloatFormat::F16, [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0, -2.5, 0.0]),
        ] {
            let narrow = matrix.converted(format);
            let wide = narrow.converted(FloatFormat::F32);
            assert_eq!((narrow.format(), narrow.bytes()), (format, 12));
            let mut found = [0.0; 6];
            wide.row_to_f32(0, &mut found[..3]);
            wide.row_to_f32(1, &mut found[3..]);
            assert_eq!(found, expected, "{format}");
        }
    }
}

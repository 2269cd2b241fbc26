//! One tensor of a checkpoint: where its bytes lie in a mapped file, and the way from them to float32.

use std::ops::Range;
use std::sync::Arc;

use paceline_kernels::{FloatFormat, MappedFile};

/// A tensor as it is stored, row-major. Its bytes lie within the file, and there are as many as shape and format need.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// The file that holds it.
    pub file: Arc<MappedFile>,
    /// Where its bytes are in the file; they need not be aligned.
    pub bytes: Range<usize>,
    /// The format of its elements, little-endian.
    pub format: FloatFormat,
    /// Its dimensions, outermost first: a matrix is `[outputs, inputs]`.
    pub shape: Vec<usize>,
}

impl StoredTensor {
    /// The bytes as they are in the file.
    pub fn data(&self) -> &[u8] {
        self.file.get(self.bytes.clone()).unwrap_or_default()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.bytes.len() / self.format.bytes()
    }

    /// The values in row-major order; every stored value is exact in float32.
    pub fn to_f32(&self) -> Vec<f32> {
        let data = self.data();
        match self.format {
            FloatFormat::F32 => data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            FloatFormat::F16 => {
                data.as_chunks().0.iter().map(|&bytes| half_to_f32(u16::from_le_bytes(bytes))).collect()
            }
            FloatFormat::Bf16 => {
                let widened = |&bytes: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
                data.as_chunks().0.iter().map(widened).collect()
            }
        }
    }
}

/// IEEE 754 binary16 to binary32, exactly.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        // Zero and subnormals are multiples of 2^-24.
        0 => (fraction as f32 * (1.0 / 16_777_216.0)).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_converted_exactly() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (half_to_f32(bits), half::f16::from_bits(bits).to_f32());
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
        let file = Arc::new(MappedFile::open(&path).unwrap());
        let tensor =
            |bytes: Range<usize>, format, n| StoredTensor { file: file.clone(), bytes, format, shape: vec![n] };
        assert_eq!(tensor(1..5, FloatFormat::F32, 1).to_f32(), [-1.5]);
        assert_eq!(tensor(5..9, FloatFormat::Bf16, 2).to_f32(), [1.0, -2.0]);
        assert_eq!(tensor(9..13, FloatFormat::F16, 2).to_f32(), [1.0, 2f32.powi(-24)]);
        assert_eq!(tensor(9..13, FloatFormat::F16, 2).elements(), 2);
    }
}

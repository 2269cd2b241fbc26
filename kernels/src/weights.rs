//! Weight matrices as they are stored: read in place from a mapped file, or owned.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::MappedFile;

/// The number format of stored weights, little-endian. All widen to f32 exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatFormat {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl FloatFormat {
    /// Bytes of one value.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for FloatFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// Why bytes are not a weight matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// A matrix without rows or columns, or too large to address.
    #[error("A weight matrix of {out_features} x {in_features} is empty or too large to address.")]
    Shape {
        /// Rows of the matrix.
        out_features: usize,
        /// Columns of the matrix.
        in_features: usize,
    },
    /// Another number of bytes than the shape needs.
    #[error(
        "A {format} weight matrix of {out_features} x {in_features} takes {expected} bytes, but there are {found}."
    )]
    Length {
        /// Storage format of a value.
        format: FloatFormat,
        /// Rows of the matrix.
        out_features: usize,
        /// Columns of the matrix.
        in_features: usize,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A range that runs backwards or past the file's end.
    #[error("The weights' byte range {start}..{end} does not lie in the file of {file} bytes.")]
    Range {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
        /// Bytes of the file.
        file: usize,
    },
}

enum Storage {
    Mapped(Arc<MappedFile>, Range<usize>),
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

/// A row-major matrix of `[out_features, in_features]`, the layout in which `nn.Linear` stores its weight.
pub struct Weights {
    storage: Storage,
    format: FloatFormat,
    out_features: usize,
    in_features: usize,
}

impl Weights {
    /// The matrix in `bytes` of `file`, read where it lies, at any alignment.
    ///
    /// # Errors
    /// [`WeightsError`] where the range is not in the file or has another length than the shape needs, or the
    /// shape is empty.
    pub fn in_place(
        file: Arc<MappedFile>,
        bytes: Range<usize>,
        format: FloatFormat,
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, WeightsError> {
        let found = file.get(bytes.clone()).map(<[u8]>::len).ok_or(WeightsError::Range {
            start: bytes.start,
            end: bytes.end,
            file: file.len(),
        })?;
        Self::checked(Storage::Mapped(file, bytes), found, format, out_features, in_features)
    }

    /// An owned matrix of little-endian values.
    ///
    /// # Errors
    /// [`WeightsError`] where the length is not what the shape needs or the shape is empty.
    pub fn from_bytes(
        bytes: Vec<u8>,
        format: FloatFormat,
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, WeightsError> {
        let found = bytes.len();
        Self::checked(Storage::Bytes(bytes), found, format, out_features, in_features)
    }

    /// An owned matrix of f32.
    ///
    /// # Errors
    /// [`WeightsError`] where the length is not what the shape needs or the shape is empty.
    pub fn from_f32(values: Vec<f32>, out_features: usize, in_features: usize) -> Result<Self, WeightsError> {
        let found = size_of_val(values.as_slice());
        Self::checked(Storage::Floats(values), found, FloatFormat::F32, out_features, in_features)
    }

    fn checked(
        storage: Storage,
        found: usize,
        format: FloatFormat,
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, WeightsError> {
        let expected = out_features
            .checked_mul(in_features)
            .and_then(|values| values.checked_mul(format.bytes()))
            .filter(|bytes| *bytes > 0)
            .ok_or(WeightsError::Shape { out_features, in_features })?;
        if found != expected {
            return Err(WeightsError::Length { format, out_features, in_features, expected, found });
        }
        Ok(Self { storage, format, out_features, in_features })
    }

    /// Rows of the matrix: values that a product with it yields.
    #[must_use]
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Columns of the matrix: values that a product with it takes.
    #[must_use]
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Storage format of the values.
    #[must_use]
    pub fn format(&self) -> FloatFormat {
        self.format
    }

    /// Bytes that the matrix takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data().len()
    }

    fn data(&self) -> &[u8] {
        match &self.storage {
            Storage::Mapped(file, range) => &file[range.clone()],
            Storage::Bytes(bytes) => bytes,
            Storage::Floats(values) => {
                // SAFETY: the slice's memory, all of it initialized, seen as bytes for as long as it is borrowed.
                unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values.as_slice())) }
            }
        }
    }

    /// Copies a row, widened exactly, into `out` of `in_features` values: the look-up of an embedding.
    ///
    /// # Panics
    /// Where there is no such row, or `out` has another length.
    pub fn row_to_f32(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.out_features, "row {row} of a matrix of {} rows", self.out_features);
        assert_eq!(out.len(), self.in_features, "a row of the matrix and its destination differ in length");
        let bytes = self.in_features * self.format.bytes();
        let data = &self.data()[row * bytes..][..bytes];
        match self.format {
            FloatFormat::F32 => {
                for (out, value) in out.iter_mut().zip(data.as_chunks().0) {
                    *out = f32::from_le_bytes(*value);
                }
            }
            FloatFormat::F16 => {
                for (out, value) in out.iter_mut().zip(data.as_chunks().0) {
                    *out = half::f16::from_le_bytes(*value).to_f32();
                }
            }
            FloatFormat::Bf16 => {
                for (out, value) in out.iter_mut().zip(data.as_chunks().0) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(*value)) << 16);
                }
            }
        }
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storage = match &self.storage {
            Storage::Mapped(..) => "in place",
            Storage::Bytes(_) | Storage::Floats(_) => "owned",
        };
        write!(f, "Weights({} x {} {}, {storage})", self.out_features, self.in_features, self.format)
    }
}

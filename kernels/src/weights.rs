//! Weight matrices as they are stored: read in place from a mapped file, or owned.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::blocks::{self, BlockFormat};
use crate::{MappedFile, MatrixFormat};

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

/// The number format of weights in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredFormat {
    /// Floats, one by one.
    Float(FloatFormat),
    /// Blocks of integers with scales, as in GGUF files.
    Blocks(BlockFormat),
}

impl StoredFormat {
    /// Bytes of a row of `values` values; `None` where they are not whole blocks, or do not fit.
    #[must_use]
    pub fn row_bytes(self, values: usize) -> Option<usize> {
        match self {
            Self::Float(format) => values.checked_mul(format.bytes()),
            Self::Blocks(format) => format.row_bytes(values),
        }
    }
}

impl From<FloatFormat> for StoredFormat {
    fn from(format: FloatFormat) -> Self {
        Self::Float(format)
    }
}

impl From<BlockFormat> for StoredFormat {
    fn from(format: BlockFormat) -> Self {
        Self::Blocks(format)
    }
}

impl fmt::Display for StoredFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MatrixFormat::from(*self).fmt(f)
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
        /// Storage format of the values.
        format: StoredFormat,
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

/// Order in which a matrix's rows are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowOrder {
    /// One after the other.
    #[default]
    Plain,
    /// The rows of each head of `head_dim` in pairs: row `i` of its first half, then row `i` of its second. So GGUF files
    /// store the queries and keys of models whose rotation turns neighbours; rows are numbered as for a rotation of halves.
    Pairs {
        /// Rows of a head, even.
        head_dim: usize,
    },
}

impl RowOrder {
    /// The stored row that is row `row`.
    #[must_use]
    pub fn stored(self, row: usize) -> usize {
        match self {
            Self::Plain => row,
            Self::Pairs { head_dim } => {
                let (inside, half) = (row % head_dim, head_dim / 2);
                row - inside + 2 * (inside % half) + inside / half
            }
        }
    }
}

/// A row-major matrix of `[out_features, in_features]`, the layout in which `nn.Linear` stores its weight.
pub struct Weights {
    storage: Storage,
    order: RowOrder,
    format: StoredFormat,
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
        format: impl Into<StoredFormat>,
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, WeightsError> {
        let found = file.get(bytes.clone()).map(<[u8]>::len).ok_or(WeightsError::Range {
            start: bytes.start,
            end: bytes.end,
            file: file.len(),
        })?;
        Self::checked(Storage::Mapped(file, bytes), found, format.into(), out_features, in_features)
    }

    /// An owned matrix of little-endian values.
    ///
    /// # Errors
    /// [`WeightsError`] where the length is not what the shape needs or the shape is empty.
    pub fn from_bytes(
        bytes: Vec<u8>,
        format: impl Into<StoredFormat>,
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, WeightsError> {
        let found = bytes.len();
        Self::checked(Storage::Bytes(bytes), found, format.into(), out_features, in_features)
    }

    /// An owned matrix of f32.
    ///
    /// # Errors
    /// [`WeightsError`] where the length is not what the shape needs or the shape is empty.
    pub fn from_f32(values: Vec<f32>, out_features: usize, in_features: usize) -> Result<Self, WeightsError> {
        let found = size_of_val(values.as_slice());
        Self::checked(Storage::Floats(values), found, FloatFormat::F32.into(), out_features, in_features)
    }

    fn checked(
        storage: Storage,
        found: usize,
        format: StoredFormat,
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, WeightsError> {
        let expected = format
            .row_bytes(in_features)
            .and_then(|bytes| bytes.checked_mul(out_features))
            .filter(|bytes| *bytes > 0)
            .ok_or(WeightsError::Shape { out_features, in_features })?;
        if found != expected {
            return Err(WeightsError::Length { format, out_features, in_features, expected, found });
        }
        Ok(Self { storage, order: RowOrder::Plain, format, out_features, in_features })
    }

    /// The same matrix, whose rows are stored in `order`.
    ///
    /// # Panics
    /// Where the rows are not whole heads of an even size.
    #[must_use]
    pub fn with_row_order(self, order: RowOrder) -> Self {
        if let RowOrder::Pairs { head_dim } = order {
            let is_even = head_dim > 0 && head_dim.is_multiple_of(2);
            assert!(is_even && self.out_features.is_multiple_of(head_dim), "rows in pairs are whole heads");
        }
        Self { order, ..self }
    }

    /// A copy of some rows, in the order of `rows`.
    ///
    /// # Errors
    /// [`WeightsError`] where there are none.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn of_rows(&self, rows: &[usize]) -> Result<Self, WeightsError> {
        let bytes = rows.iter().flat_map(|row| self.row(*row)).copied().collect();
        Self::from_bytes(bytes, self.format, rows.len(), self.in_features)
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
    pub fn format(&self) -> StoredFormat {
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

    /// The bytes of a row.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        // Whole blocks, as was checked.
        let bytes = self.data().len() / self.out_features;
        &self.data()[self.order.stored(row) * bytes..][..bytes]
    }

    /// Copies a row, widened exactly, into `out` of `in_features` values: the look-up of an embedding.
    ///
    /// # Panics
    /// Where there is no such row, or `out` has another length.
    pub fn row_to_f32(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.out_features, "row {row} of a matrix of {} rows", self.out_features);
        assert_eq!(out.len(), self.in_features, "a row of the matrix and its destination differ in length");
        let data = self.row(row);
        let format = match self.format {
            StoredFormat::Float(format) => format,
            StoredFormat::Blocks(format) => return blocks::row_to_f32(format, data, out),
        };
        match format {
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

//! Quantized weight matrices and their layout, which is what the products stream.
//!
//! Sixteen outputs make a block, stored in one piece: first their scales (bf16, sixteen for each group of k,
//! up to a line's end), then group after group lines of four values of k for each of the sixteen. Two such
//! lines of 4-bit weights share one, the first in the low halves of the bytes. Missing outputs have scales of 0,
//! and the last group's missing values are 0.

use std::fmt;

use half::bf16;

use crate::Weights;
use crate::buffer::AlignedBuffer;
use crate::dot::{LINE, OFFSET4, OFFSET8};
use crate::quantizer::{GROUP, quantize4, quantize8};

/// Outputs of a block.
pub(crate) const BLOCK: usize = 16;
/// Bytes of the scales of a block's group.
pub(crate) const SCALES: usize = BLOCK * size_of::<bf16>();

/// The number format of quantized weights: integers with a scale for each output and group of 64 values of k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuantizedFormat {
    /// Integers of -127 to 127: 8.25 bits a weight.
    Int8,
    /// Integers of -8 to 7: 4.25 bits a weight.
    Int4,
}

impl QuantizedFormat {
    /// Bytes that a matrix takes in this format.
    #[must_use]
    pub fn matrix_bytes(self, out_features: usize, in_features: usize) -> u64 {
        let groups = in_features.div_ceil(GROUP);
        let block = (groups * SCALES).next_multiple_of(LINE) + groups * self.group_bytes();
        out_features.div_ceil(BLOCK) as u64 * block as u64
    }

    /// Bytes of a block's group, without the scales.
    fn group_bytes(self) -> usize {
        match self {
            Self::Int8 => BLOCK * GROUP,
            Self::Int4 => BLOCK * GROUP / 2,
        }
    }
}

impl fmt::Display for QuantizedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        })
    }
}

/// A matrix of `[out_features, in_features]`, rounded to integers and laid out for products with few rows.
pub struct QuantizedWeights {
    data: AlignedBuffer,
    format: QuantizedFormat,
    out_features: usize,
    in_features: usize,
}

impl QuantizedWeights {
    /// Rounds a matrix, to the nearest integers: each group of 64 values of a row gets a scale that fits its largest
    /// magnitude, and with 4 bits the one of several about that with the least squared error.
    ///
    /// A group with a value that is not finite becomes NaN, and one of values too small to matter (below about
    /// 1e-36) zeros.
    #[must_use]
    pub fn quantize(source: &Weights, format: QuantizedFormat) -> Self {
        let (out_features, in_features) = (source.out_features(), source.in_features());
        let mut matrix = Self { data: AlignedBuffer::new(0), format, out_features, in_features };
        let bytes = matrix.block_bytes() * out_features.div_ceil(BLOCK);
        matrix.data = AlignedBuffer::new(bytes / size_of::<f32>());
        let mut row = vec![0.0; in_features.next_multiple_of(GROUP)];
        let mut integers = [0; GROUP];
        for output in 0..out_features {
            source.row_to_f32(output, &mut row[..in_features]);
            for (group, values) in row.as_chunks().0.iter().enumerate() {
                let scale = match format {
                    QuantizedFormat::Int8 => quantize8(values, &mut integers),
                    QuantizedFormat::Int4 => quantize4(values, &mut integers),
                };
                matrix.put(output, group, scale, &integers);
            }
        }
        matrix
    }

    fn put(&mut self, output: usize, group: usize, scale: bf16, integers: &[i8; GROUP]) {
        let (at, lines) = self.place(output, group);
        let format = self.format;
        let data = self.data.as_mut_bytes();
        data[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        for (i, integer) in integers.iter().enumerate() {
            let (byte, shift) = place_in_group(format, output, i);
            let stored = match format {
                QuantizedFormat::Int8 => (i32::from(*integer) + OFFSET8) as u8,
                QuantizedFormat::Int4 => (i32::from(*integer) + OFFSET4) as u8,
            };
            data[lines + byte] |= stored << shift;
        }
    }

    /// Where the scale and the group's lines begin.
    fn place(&self, output: usize, group: usize) -> (usize, usize) {
        let block = output / BLOCK * self.block_bytes();
        let scale = block + group * SCALES + output % BLOCK * size_of::<bf16>();
        (scale, block + self.scales_bytes() + group * self.format.group_bytes())
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.in_features.div_ceil(GROUP)
    }

    /// Bytes of a block's scales, whole lines.
    pub(crate) fn scales_bytes(&self) -> usize {
        (self.groups() * SCALES).next_multiple_of(LINE)
    }

    /// Bytes of a block, whole lines.
    pub(crate) fn block_bytes(&self) -> usize {
        self.scales_bytes() + self.groups() * self.format.group_bytes()
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.data.as_bytes()
    }

    /// How the values are stored.
    #[must_use]
    pub fn format(&self) -> QuantizedFormat {
        self.format
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

    /// Bytes that the matrix takes, and that a product with it reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data().len()
    }

    /// Writes a row, integers times scales, to `out` of `in_features` values: the look-up of an embedding, and
    /// what products compute with.
    ///
    /// # Panics
    /// Where there is no such row, or `out` has another length.
    pub fn row_to_f32(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.out_features, "row {row} of a matrix of {} rows", self.out_features);
        assert_eq!(out.len(), self.in_features, "a row of the matrix and its destination differ in length");
        let data = self.data();
        for (group, out) in out.chunks_mut(GROUP).enumerate() {
            let (at, lines) = self.place(row, group);
            let scale = bf16::from_le_bytes([data[at], data[at + 1]]).to_f32();
            for (i, out) in out.iter_mut().enumerate() {
                let (byte, shift) = place_in_group(self.format, row, i);
                let stored = i32::from(data[lines + byte] >> shift);
                let integer = match self.format {
                    QuantizedFormat::Int8 => stored - OFFSET8,
                    QuantizedFormat::Int4 => (stored & 15) - OFFSET4,
                };
                *out = integer as f32 * scale;
            }
        }
    }
}

/// The byte of a group's lines in which value `i` of an output lies, and by how many bits it is shifted there.
fn place_in_group(format: QuantizedFormat, output: usize, i: usize) -> (usize, u32) {
    let (line, in_line) = (i / 4, output % BLOCK * 4 + i % 4);
    match format {
        QuantizedFormat::Int8 => (line * LINE + in_line, 0),
        QuantizedFormat::Int4 => (line / 2 * LINE + in_line, if line.is_multiple_of(2) { 0 } else { 4 }),
    }
}

impl fmt::Debug for QuantizedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuantizedWeights({} x {} {})", self.out_features, self.in_features, self.format)
    }
}

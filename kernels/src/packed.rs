//! Weight matrices in the layout that the products stream.
//!
//! Sixteen outputs make a block, stored in one piece: lines of 64 bytes, each with the next few values of k for
//! all sixteen, so that sixteen lanes accumulate sixteen outputs and no sum across lanes is needed.
//!
//! | format | values of k in a line | how they lie |
//! |---|---|---|
//! | f32 | 1 | sixteen floats |
//! | f16 | 2 | sixteen halves of the first k, then sixteen of the second |
//! | bf16 | 2 | sixteen pairs: a pair's halves are widened by a shift and by a mask |
//! | int8 | 4 | sixteen fours of bytes, 128 added |
//! | int4 | 8 | sixteen fours of bytes, with four values in the low halves and the next four in the high ones |
//!
//! int8 has bf16 scales, sixteen for each group of 64 values of k, before the block's lines and filled up to
//! a line's end. int4 has sixteen f32 units there, and two lines before each group of 64: the scales of the group's
//! four sixteens, sixteen each, and the minima, of the four sixteens for each output (see [`crate::affine`]); its lines
//! come in pairs, for whole sixteens. Missing
//! values of k are 0 in floats and anything in integers, since activations are laid out as 0 there; what missing outputs
//! come to is written nowhere.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};

use crate::affine::{Affine, Lanes, SUBGROUP, quantize4, units};
use crate::arena::{Part, WeightArena};
use crate::blocks::{self, Shape};
use crate::buffer::SharedOutput;
use crate::dot::{MINIMUM4, OFFSET8};
use crate::quantizer::{GROUP, quantize8};
use crate::simd::{LANES, Op, Simd};
use crate::{BlockFormat, FloatFormat, MatrixFormat, QuantizedFormat, Weights};

/// Version of the layouts below, of which bytes that were kept are: whoever changes one of them adds one.
pub const PACKED_LAYOUT: u32 = 1;

/// Bytes of a line of weights: a cache line, and the widest vector.
pub(crate) const LINE: usize = 64;
/// Outputs of a block.
pub(crate) const BLOCK: usize = 16;
/// Bytes of the scales of a block's group of int8.
pub(crate) const SCALES: usize = BLOCK * size_of::<bf16>();
/// Lines of a group of int4 before its weights: scales and minima.
pub(crate) const AFFINE_HEAD: usize = 2;
/// Lines of a group of int4.
const AFFINE_LINES: usize = AFFINE_HEAD + GROUP / 8;

const INT8: MatrixFormat = MatrixFormat::Quantized(QuantizedFormat::Int8);
const INT4: MatrixFormat = MatrixFormat::Quantized(QuantizedFormat::Int4);

/// Where things lie in a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) format: MatrixFormat,
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
}

impl Layout {
    pub(crate) fn new(format: MatrixFormat, out_features: usize, in_features: usize) -> Self {
        Self { format, out_features, in_features }
    }

    /// Values of k in a line.
    fn per_line(&self) -> usize {
        match self.format {
            MatrixFormat::Float(FloatFormat::F32) => 1,
            MatrixFormat::Float(_) => 2,
            INT8 => 4,
            INT4 => 8,
            MatrixFormat::Blocks(_) => unreachable!("blocks have lines of several kinds"),
        }
    }

    pub(crate) fn blocks(&self) -> usize {
        self.out_features.div_ceil(BLOCK)
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.in_features.div_ceil(GROUP)
    }

    /// Lines of a block.
    pub(crate) fn lines(&self) -> usize {
        match self.format {
            INT4 => self.groups() * AFFINE_HEAD + self.in_features.next_multiple_of(SUBGROUP) / self.per_line(),
            MatrixFormat::Blocks(format) => self.groups() * Shape::of(format).group_lines(),
            _ => self.in_features.div_ceil(self.per_line()),
        }
    }

    /// Bytes of a block before its lines, whole lines too: the scales of int8, the units of int4, superblocks' halves.
    pub(crate) fn scales_bytes(&self) -> usize {
        match self.format {
            MatrixFormat::Float(_) => 0,
            INT8 => (self.groups() * SCALES).next_multiple_of(LINE),
            INT4 => BLOCK * size_of::<f32>(),
            MatrixFormat::Blocks(format) => Shape::of(format).scales_bytes(self.groups()),
        }
    }

    /// Where the lines of a group of int4 begin in a block.
    fn affine_group(&self, group: usize) -> usize {
        self.scales_bytes() + group * AFFINE_LINES * LINE
    }

    /// Bytes of a block, whole lines.
    pub(crate) fn block_bytes(&self) -> usize {
        self.scales_bytes() + self.lines() * LINE
    }

    pub(crate) fn bytes(&self) -> usize {
        self.blocks() * self.block_bytes()
    }

    /// Where value `k` of an output lies in its block: the byte, and by how many bits it is shifted there.
    fn place(&self, output: usize, k: usize) -> (usize, u32) {
        let (line, lane, rest) = (k / self.per_line(), output % BLOCK, k % self.per_line());
        let (in_line, shift) = match self.format {
            MatrixFormat::Float(FloatFormat::F32) => (4 * lane, 0),
            MatrixFormat::Float(FloatFormat::F16) => (2 * (rest * BLOCK + lane), 0),
            MatrixFormat::Float(FloatFormat::Bf16) => (2 * (2 * lane + rest), 0),
            INT8 => (4 * lane + rest, 0),
            INT4 => {
                let heads = (k / GROUP + 1) * AFFINE_HEAD * LINE;
                (heads + 4 * lane + rest % 4, if rest < 4 { 0 } else { 4 })
            }
            MatrixFormat::Blocks(_) => unreachable!("a value of a block lies in several places"),
        };
        (self.scales_bytes() + line * LINE + in_line, shift)
    }
}

/// A matrix of `[out_features, in_features]`, laid out for products with few rows.
pub struct PackedWeights {
    data: Part,
    layout: Layout,
    /// Bytes of all matrices that are packed now, this one's among them as long as it lives.
    all: Arc<AtomicUsize>,
}

impl Drop for PackedWeights {
    fn drop(&mut self) {
        self.all.fetch_sub(self.layout.bytes(), Ordering::Relaxed);
    }
}

/// Packs some blocks of a matrix; `out` is all of the matrix, zeroed.
pub(crate) struct Pack<'a> {
    pub(crate) source: &'a Weights,
    pub(crate) layout: Layout,
    pub(crate) range: Range<usize>,
    pub(crate) out: &'a SharedOutput<'a, u8>,
}

impl Op for Pack<'_> {
    type Output = ();
    // Only for the code that the compiler generates: no operation here depends on the instruction set.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Layout { out_features, in_features, format } = self.layout;
        if let MatrixFormat::Blocks(format) = format {
            return self.put_blocks(format);
        }
        let mut row = vec![0.0; in_features.next_multiple_of(GROUP)];
        let mut columns = vec![[0.0; LANES]; if format == INT4 { in_features } else { 0 }];
        for block in self.range.clone() {
            let bytes = self.layout.block_bytes();
            // SAFETY: blocks belong to one part each.
            let data = unsafe { self.out.slice(block * bytes, bytes) };
            let outputs = block * BLOCK..out_features.min((block + 1) * BLOCK);
            if outputs.len() < BLOCK {
                columns.fill([0.0; LANES]);
            }
            for output in outputs {
                self.source.row_to_f32(output, &mut row[..in_features]);
                match format {
                    MatrixFormat::Float(format) => self.put_floats(data, output, format, &row[..in_features]),
                    INT8 => self.put_int8(data, output, &row),
                    INT4 => {
                        for (column, value) in columns.iter_mut().zip(&row) {
                            column[output % BLOCK] = *value;
                        }
                    }
                    MatrixFormat::Blocks(_) => unreachable!("blocks are packed apart"),
                }
            }
            if format == INT4 {
                self.put_int4(data, &columns);
            }
        }
    }
}

/// The first value of some rows that is not finite once it is held in a format.
pub(crate) struct FindNotFinite<'a> {
    pub(crate) source: &'a Weights,
    pub(crate) format: MatrixFormat,
    pub(crate) range: Range<usize>,
}

impl Op for FindNotFinite<'_> {
    /// Row and column.
    type Output = Option<(usize, usize)>;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Self::Output {
        let largest = match self.format {
            MatrixFormat::Float(FloatFormat::F16) => F16_LIMIT,
            MatrixFormat::Float(FloatFormat::Bf16) => BF16_LIMIT,
            MatrixFormat::Float(FloatFormat::F32) | MatrixFormat::Quantized(_) => f32::MAX,
            MatrixFormat::Blocks(format) => {
                return self.range.clone().find_map(|index| {
                    blocks::first_not_finite(format, self.source.row(index)).map(|column| (index, column))
                });
            }
        };
        let mut row = vec![0.0_f32; self.source.in_features()];
        self.range.clone().find_map(|index| {
            self.source.row_to_f32(index, &mut row);
            // Over the whole row first, which the compiler does in vectors. A NaN is not less than anything either.
            let fine = row.iter().fold(true, |fine, value| fine & (value.abs() <= largest));
            if fine { None } else { row.iter().position(|value| value.is_nan() || value.abs() > largest) }
                .map(|column| (index, column))
        })
    }
}

/// The largest values that do not round to infinity.
const F16_LIMIT: f32 = 65520_f32.next_down();
const BF16_LIMIT: f32 = f32::from_bits(0x7F7F_7FFF);

impl Pack<'_> {
    /// Blocks as they are stored, which the source has in the same format.
    #[inline(always)]
    fn put_blocks(&self, format: BlockFormat) {
        let Layout { out_features, .. } = self.layout;
        let (bytes, scales) = (self.layout.block_bytes(), self.layout.scales_bytes());
        for block in self.range.clone() {
            // SAFETY: blocks belong to one part each.
            let data = unsafe { self.out.slice(block * bytes, bytes) };
            let (scales, lines) = data.split_at_mut(scales);
            let row = |lane: usize| {
                let output = block * BLOCK + lane;
                if output < out_features { self.source.row(output) } else { &[] }
            };
            blocks::pack_block(format, std::array::from_fn(row), scales, lines);
        }
    }

    /// Every value is rounded to the nearest, ties to even.
    #[inline(always)]
    fn put_floats(&self, data: &mut [u8], output: usize, format: FloatFormat, row: &[f32]) {
        for (k, value) in row.iter().enumerate() {
            let (at, _) = self.layout.place(output, k);
            match format {
                FloatFormat::F32 => data[at..at + 4].copy_from_slice(&value.to_le_bytes()),
                FloatFormat::F16 => data[at..at + 2].copy_from_slice(&f16::from_f32(*value).to_le_bytes()),
                FloatFormat::Bf16 => data[at..at + 2].copy_from_slice(&bf16::from_f32(*value).to_le_bytes()),
            }
        }
    }

    /// `row` is whole groups.
    #[inline(always)]
    fn put_int8(&self, data: &mut [u8], output: usize, row: &[f32]) {
        let mut integers = [0; GROUP];
        for (group, values) in row.as_chunks().0.iter().enumerate() {
            let scale = quantize8(values, &mut integers);
            let at = group * SCALES + output % BLOCK * size_of::<bf16>();
            data[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            let first = group * GROUP;
            let count = GROUP.min(self.layout.in_features - first);
            for (i, integer) in integers[..count].iter().enumerate() {
                let (at, _) = self.layout.place(output, first + i);
                data[at] = (i32::from(*integer) + OFFSET8) as u8;
            }
        }
    }

    /// All outputs of a block at once: `columns` has sixteen values for each of k.
    #[inline(always)]
    fn put_int4(&self, data: &mut [u8], columns: &[Lanes]) {
        let units = units(columns);
        for (to, unit) in data.as_chunks_mut().0.iter_mut().zip(units) {
            *to = unit.to_le_bytes();
        }
        let inverse_units = units.map(|unit| if unit > 0.0 { 1.0 / unit } else { 0.0 });
        for (group, columns) in columns.chunks(GROUP).enumerate() {
            let lines = data[self.layout.affine_group(group)..].as_chunks_mut().0;
            for (sub, columns) in columns.chunks(SUBGROUP).enumerate() {
                put_affine(lines, sub, &quantize4(columns, &inverse_units));
            }
        }
    }
}

/// Writes sub-group `sub` of the group with `lines`.
#[inline(always)]
fn put_affine(lines: &mut [[u8; LINE]], sub: usize, affine: &Affine) {
    lines[0][sub * BLOCK..][..BLOCK].copy_from_slice(&affine.scales);
    for (minima, minimum) in lines[1].as_chunks_mut::<4>().0.iter_mut().zip(affine.minima) {
        minima[sub] = minimum;
    }
    let lines = &mut lines[AFFINE_HEAD + 2 * sub..][..2];
    for (line, steps) in lines.iter_mut().zip(affine.steps.as_chunks::<8>().0) {
        for (output, bytes) in line.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *bytes = std::array::from_fn(|i| steps[i][output] | steps[4 + i][output] << 4);
        }
    }
}

impl PackedWeights {
    /// A matrix of `layout` whose bytes are still zeros, and count among `all`.
    pub(crate) fn zeroed(layout: Layout, arena: &mut WeightArena, all: &Arc<AtomicUsize>) -> io::Result<Self> {
        let data = arena.take(layout.bytes())?;
        all.fetch_add(layout.bytes(), Ordering::Relaxed);
        Ok(Self { data, layout, all: Arc::clone(all) })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.data.as_bytes()
    }

    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        self.data.as_mut_bytes()
    }

    /// The matrix as it lies in memory, for [`crate::Kernels::packed_before`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.data()
    }

    /// Storage format of the values.
    #[must_use]
    pub fn format(&self) -> MatrixFormat {
        self.layout.format
    }

    /// Rows of the matrix: values that a product with it yields.
    #[must_use]
    pub fn out_features(&self) -> usize {
        self.layout.out_features
    }

    /// Columns of the matrix: values that a product with it takes.
    #[must_use]
    pub fn in_features(&self) -> usize {
        self.layout.in_features
    }

    /// Bytes that the matrix takes, and that a product with it reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data().len()
    }

    /// Writes a row, as products compute with it (what integers stand for), to `out` of `in_features` values.
    ///
    /// # Panics
    /// Where there is no such row, or `out` has another length.
    pub fn row_to_f32(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.out_features(), "row {row} of a matrix of {} rows", self.out_features());
        assert_eq!(out.len(), self.in_features(), "a row of the matrix and its destination differ in length");
        let bytes = self.layout.block_bytes();
        let block = &self.data()[row / BLOCK * bytes..][..bytes];
        let two = |at: usize| [block[at], block[at + 1]];
        let four = |at: usize| [block[at], block[at + 1], block[at + 2], block[at + 3]];
        let lane = row % BLOCK;
        if let MatrixFormat::Blocks(format) = self.format() {
            let (scales, lines) = block.split_at(self.layout.scales_bytes());
            for (k, out) in out.iter_mut().enumerate() {
                *out = blocks::value(format, scales, lines, lane, k);
            }
            return;
        }
        for (k, out) in out.iter_mut().enumerate() {
            let (at, shift) = self.layout.place(row, k);
            *out = match self.format() {
                MatrixFormat::Float(FloatFormat::F32) => f32::from_le_bytes(four(at)),
                MatrixFormat::Float(FloatFormat::F16) => f16::from_le_bytes(two(at)).to_f32(),
                MatrixFormat::Float(FloatFormat::Bf16) => bf16::from_le_bytes(two(at)).to_f32(),
                INT8 => {
                    let scale = bf16::from_le_bytes(two(k / GROUP * SCALES + lane * size_of::<bf16>()));
                    (i32::from(block[at]) - OFFSET8) as f32 * scale.to_f32()
                }
                INT4 => {
                    let unit = f32::from_le_bytes(four(lane * size_of::<f32>()));
                    let (head, sub) = (self.layout.affine_group(k / GROUP), k % GROUP / SUBGROUP);
                    let scale = i32::from(block[head + sub * BLOCK + lane]);
                    let minimum = i32::from(block[head + LINE + 4 * lane + sub]);
                    (scale * i32::from(block[at] >> shift & 15) - MINIMUM4 * minimum) as f32 * unit
                }
                MatrixFormat::Blocks(_) => unreachable!("blocks are read apart"),
            };
        }
    }
}

impl fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedWeights({} x {} {})", self.out_features(), self.in_features(), self.format())
    }
}

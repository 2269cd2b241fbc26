//! Products with packed weight matrices.
//!
//! Activations are laid out once ([`crate::activations`]), tile by tile: a tile is as many rows as the registers hold
//! sums for, seventeen on AVX-512, so that a whole verification streams the weights once. Then each part of the job owns a
//! range of blocks of sixteen outputs of every matrix and serves every row from a block before it goes on to the next.
//!
//! For integers, activations are rounded to 8 bits per row and group of k; a group's products are summed in i32,
//! which is exact, and `sum * (weight scale * activation scale)` is added to the one f32 total of that row and
//! output by a fused multiply-add, in order of the groups. With 4 bits the sum has the scales of 16 values of k in
//! it already, as integers; what they count is the output's unit, by which the total is multiplied in the end. For
//! floats, a group's products are summed in f32 by fused multiply-adds in order of k, and the groups' sums in order
//! of the groups.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::activations::{self, Input, Lay};
#[cfg(target_arch = "x86_64")]
use crate::amx::{Amx, PAIR, Session};
use crate::arena::WeightArena;
use crate::blocks::{self, BlockProduct};
use crate::buffer::SharedOutput;
use crate::dot::{Dot, DotOp};
use crate::form::{Form, Kind, Tiles, group_words, with_words};
use crate::kernels::{Kernels, Shares};
use crate::multiply::{Bf16, F16, F32, Int4, Int8, Multiply};
use crate::packed::{BLOCK, FindNotFinite, LINE, Layout, Pack};
use crate::quantizer::GROUP;
use crate::simd::{LANES, Op, Simd};
#[cfg(target_arch = "x86_64")]
use crate::simd_x86::Avx512;
use crate::{BlockFormat, FloatFormat, MatrixFormat, PackedWeights, QuantizedFormat, StoredFormat, Weights};

/// One of several products with the same activations.
pub struct Product<'a> {
    /// `[out_features, in_features]`.
    pub weights: &'a PackedWeights,
    /// `[out_features]`.
    pub bias: Option<&'a [f32]>,
    /// `[rows, out_features]`.
    pub out: &'a mut [f32],
}

/// As many rows as cost about the same as one, where weights come from memory.
fn rows_for_free(kind: Kind) -> usize {
    match kind {
        Kind::Floats => 4,
        Kind::Int8 | Kind::Int4 | Kind::Blocks => 8,
    }
}

/// Rows of the largest tile whose sums are made for two groups of k side by side: of more rows there are chains enough.
const SIDE_BY_SIDE: usize = 6;
/// Rows up to which that costs more than it brings where weights come from memory: nothing is waited for there but them, and
/// they come best in order.
const IN_ORDER: usize = 2;

impl Kernels {
    /// Lays a matrix out for products, in `format`: floats rounded to the nearest, ties to even; integers of 8 bits
    /// to the nearest, each group of 64 values of a row with a scale that fits its largest magnitude; those of 4
    /// bits in groups of 16 with a scale and a minimum, the pair of several that has the least squared error.
    ///
    /// With integers, a value that is not finite makes its group NaN, or with 4 bits its row, and values too small
    /// to matter (where a group's or row's largest is below about 1e-36, or 1e-34) become zeros.
    ///
    /// # Errors
    /// The system's error if it has no more memory.
    ///
    /// # Panics
    /// Where `format` is one of stored blocks, and `source` is stored in another one.
    pub fn pack(&self, source: &Weights, format: MatrixFormat, arena: &mut WeightArena) -> io::Result<PackedWeights> {
        if let MatrixFormat::Blocks(format) = format {
            assert_eq!(source.format(), StoredFormat::Blocks(format), "blocks are packed as they are stored");
        }
        let layout = Layout::new(format, source.out_features(), source.in_features());
        let mut packed = PackedWeights::zeroed(layout, arena, &self.packed)?;
        let out = SharedOutput::new(packed.data_mut());
        self.split(layout.blocks(), 1, 16 * layout.bytes(), &|range| {
            self.isa.enter(Pack { source, layout, range, out: &out });
        });
        Ok(packed)
    }

    /// A matrix that was packed before, of the bytes that it had ([`PackedWeights::as_bytes`]): of `(out_features, in_features)`, in
    /// `format`, by the same version of the layout ([`PACKED_LAYOUT`](crate::PACKED_LAYOUT)). Other bytes give another matrix, and
    /// nothing worse.
    ///
    /// # Errors
    /// The system's error if it has no more memory.
    ///
    /// # Panics
    /// If there are more or fewer bytes than such a matrix has.
    pub fn packed_before(
        &self,
        bytes: &[u8],
        format: MatrixFormat,
        (out_features, in_features): (usize, usize),
        arena: &mut WeightArena,
    ) -> io::Result<PackedWeights> {
        let layout = Layout::new(format, out_features, in_features);
        assert_eq!(bytes.len(), layout.bytes(), "the bytes are those of such a matrix");
        let mut packed = PackedWeights::zeroed(layout, arena, &self.packed)?;
        let out = SharedOutput::new(packed.data_mut());
        self.split(layout.blocks(), 1, layout.bytes(), &|range| {
            let range = range.start * layout.block_bytes()..range.end * layout.block_bytes();
            // SAFETY: blocks belong to one part each.
            unsafe { out.slice(range.start, range.len()) }.copy_from_slice(&bytes[range]);
        });
        Ok(packed)
    }

    /// The first value of a matrix, row and column, that is infinite or NaN once it is held in `format`.
    #[must_use]
    pub fn find_not_finite(&self, source: &Weights, format: MatrixFormat) -> Option<(usize, usize)> {
        let first = Mutex::new(None);
        self.split(source.out_features(), 1, source.out_features() * source.in_features(), &|range| {
            if let Some(found) = self.isa.enter(FindNotFinite { source, format, range }) {
                // A panic while the lock is held leaves nothing half done.
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                *first = Some(first.map_or(found, |before: (usize, usize)| before.min(found)));
            }
        });
        first.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// `out = x * w^T + bias` for each of `products`, with x `[rows, in_features]`.
    ///
    /// With float weights, products are of f32 values (weights are widened exactly) and summed in f32 with
    /// fused multiply-adds. With quantized ones, every row's activations are rounded to 8 bits with a scale per group
    /// of k, as the weights were; a row with a value that is not finite yields NaN, and a group of values below about
    /// 1e-36 counts as zeros. The bias is added last.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length.
    pub fn matmul(&self, x: &[f32], rows: usize, products: &mut [Product<'_>]) {
        self.matmul_of(Input::Rows(x), rows, products);
    }

    /// As [`Kernels::matmul`] of what comes out of `input`, with the same bits as if that had been computed before.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length. Without products nothing is done, sums of `input` included.
    pub fn matmul_of(&self, input: Input<'_>, rows: usize, products: &mut [Product<'_>]) {
        let Some(k) = products.first().map(|product| product.weights.in_features()) else { return };
        for product in products.iter() {
            let columns = product.weights.out_features();
            assert_eq!(product.weights.in_features(), k, "products of the same rows are with as many columns");
            assert_eq!(product.out.len(), rows * columns, "out is [rows, out_features]");
            assert!(product.bias.is_none_or(|bias| bias.len() == columns), "the bias is [out_features]");
        }
        let source = input.checked(rows, k);
        if rows == 0 {
            return;
        }
        let kind = |product: &Product<'_>| Kind::of(product.weights.format());
        let groups = k.div_ceil(GROUP);
        let forms = Kind::ALL.map(|kind| self.isa.form(kind, rows));
        let lengths = forms.map(|form| {
            let is_wanted = products.iter().any(|product| kind(product) == form.kind);
            if is_wanted { form.words(groups) } else { 0 }
        });
        with_words(lengths.iter().sum(), |words| {
            let mut rest = &mut *words;
            let laid = forms.map(|form| {
                let words;
                (words, rest) = std::mem::take(&mut rest).split_at_mut(lengths[form.kind as usize]);
                let is_wanted = !words.is_empty();
                is_wanted.then(|| activations::Target { form, words: SharedOutput::new(words) })
            });
            let targets = &laid;
            let work = source.work(rows * k);
            if source.needs_whole_rows() {
                self.split(rows, 1, work, &|rows| {
                    self.isa.enter(Lay { source: &source, k, rows, groups: 0..groups, targets });
                });
            } else {
                // As the outputs are shared out that these activations were.
                self.split(groups, 1, work, &|groups| {
                    self.isa.enter(Lay { source: &source, k, rows: 0..rows, groups, targets });
                });
            }
            for products in products.chunk_by_mut(|a, b| kind(a) == kind(b)) {
                let kind = kind(&products[0]) as usize;
                let start: usize = lengths[..kind].iter().sum();
                self.multiply(&words[start..][..lengths[kind]], forms[kind], products);
            }
        });
    }

    /// Products of one kind with what was laid out for it.
    fn multiply(&self, words: &[u32], form: Form, products: &mut [Product<'_>]) {
        let groups = products[0].weights.in_features().div_ceil(GROUP);
        let Form { kind, tiles, .. } = form;
        let targets: Vec<Target<'_>> = products
            .iter_mut()
            .map(|product| {
                let Product { weights, bias, out } = product;
                Target { weights, bias: *bias, out: SharedOutput::new(out) }
            })
            .collect();
        let bytes: usize = targets.iter().map(|target| target.weights.bytes()).sum();
        let shares = self.shares(bytes / 4 * tiles.rows.div_ceil(rows_for_free(kind)));
        let cached = self.weights_fit_a_cache();
        self.run(shares, &|part| {
            let job = Blocks {
                words,
                tile_words: form.tile_words(groups),
                tiles,
                groups,
                targets: &targets,
                cached,
                shares,
                part,
            };
            match kind {
                Kind::Floats => self.isa.enter(job),
                #[cfg(target_arch = "x86_64")]
                _ if let Some(amx) = self.isa.amx(kind, tiles.rows).filter(|_| job.is_worth_tiles()) => {
                    job.by_tiles(amx)
                }
                Kind::Int8 | Kind::Int4 | Kind::Blocks => self.isa.enter_dots(job),
            }
        });
    }
}

/// One of the products of a job.
pub(crate) struct Target<'a> {
    pub(crate) weights: &'a PackedWeights,
    bias: Option<&'a [f32]>,
    out: SharedOutput<'a>,
}

/// The blocks that one part computes: of every product the same share, so that a thread has the same outputs of all,
/// and what comes next finds them in its cache. Sizes have been checked.
pub(crate) struct Blocks<'a> {
    /// Output of [`Lay`]: `tile_words` a tile, of `groups` groups.
    words: &'a [u32],
    tile_words: usize,
    tiles: Tiles,
    pub(crate) groups: usize,
    targets: &'a [Target<'a>],
    /// True if weights are expected in a cache.
    cached: bool,
    shares: Shares,
    part: usize,
}

impl Op for Blocks<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (target, blocks) in self.targets_in_part() {
            match target.weights.format() {
                MatrixFormat::Float(FloatFormat::F32) => self.blocks(F32(s), target, blocks),
                MatrixFormat::Float(FloatFormat::F16) => self.blocks(F16(s), target, blocks),
                MatrixFormat::Float(FloatFormat::Bf16) => self.blocks(Bf16(s), target, blocks),
                MatrixFormat::Quantized(_) | MatrixFormat::Blocks(_) => {}
            }
        }
    }
}

impl DotOp for Blocks<'_> {
    type Output = ();
    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        for (target, blocks) in self.targets_in_part() {
            match target.weights.format() {
                MatrixFormat::Quantized(QuantizedFormat::Int8) => self.blocks(Int8(d), target, blocks),
                MatrixFormat::Quantized(QuantizedFormat::Int4) => self.blocks(Int4(d), target, blocks),
                MatrixFormat::Blocks(format) => self.stored_blocks(d, format, target, blocks),
                MatrixFormat::Float(_) => {}
            }
        }
    }
}

impl<'a> Blocks<'a> {
    /// The products, with this part's blocks of each.
    #[inline(always)]
    fn targets_in_part(&self) -> impl Iterator<Item = (&'a Target<'a>, Range<usize>)> + use<'a> {
        let (shares, part) = (self.shares, self.part);
        self.targets.iter().map(move |target| (target, shares.range(part, target.weights.layout().blocks())))
    }

    /// Of a format of stored blocks.
    #[inline(always)]
    fn stored_blocks<D: Dot>(&self, d: D, format: BlockFormat, target: &Target<'a>, range: Range<usize>) {
        match format {
            BlockFormat::Q8_0 => self.blocks(BlockProduct(d, blocks::Q8_0), target, range),
            BlockFormat::Q4_0 => self.blocks(BlockProduct(d, blocks::Q4_0), target, range),
            BlockFormat::Q4_1 => self.blocks(BlockProduct(d, blocks::Q4_1), target, range),
            BlockFormat::Q5_0 => self.blocks(BlockProduct(d, blocks::Q5_0), target, range),
            BlockFormat::Q5_1 => self.blocks(BlockProduct(d, blocks::Q5_1), target, range),
            BlockFormat::Q2K => self.blocks(BlockProduct(d, blocks::Q2K), target, range),
            BlockFormat::Q3K => self.blocks(BlockProduct(d, blocks::Q3K), target, range),
            BlockFormat::Q4K => self.blocks(BlockProduct(d, blocks::Q4K), target, range),
            BlockFormat::Q5K => self.blocks(BlockProduct(d, blocks::Q5K), target, range),
            BlockFormat::Q6K => self.blocks(BlockProduct(d, blocks::Q6K), target, range),
        }
    }

    /// True if the work of this part is worth setting up a unit for matrices, which takes about half a microsecond, or activations
    /// are laid out for it alone.
    #[cfg(target_arch = "x86_64")]
    fn is_worth_tiles(&self) -> bool {
        /// Groups of weights times rows.
        const WORTH: usize = 1 << 10;
        let blocks: usize = self.targets_in_part().map(|(_, blocks)| blocks.len()).sum();
        self.tiles.rows > Avx512::ROWS || self.tiles.rows * blocks * self.groups >= WORTH
    }

    /// All products, on a unit for matrices.
    #[cfg(target_arch = "x86_64")]
    fn by_tiles(&self, amx: Amx) {
        let mut session = Session::new(amx);
        for (target, blocks) in self.targets_in_part() {
            for (blocks, index) in self.passes(blocks, PAIR) {
                let rows = self.tiles.rows(index);
                session.compute(&Tile { job: self, target, blocks, index, rows });
            }
        }
    }

    /// Blocks and the number of a tile, in the order in which they are computed: `few` blocks stay in the cache while all tiles
    /// pass over them; one tile can as well stay with all blocks.
    #[inline(always)]
    fn passes(&self, blocks: Range<usize>, few: usize) -> impl Iterator<Item = (Range<usize>, usize)> + use<> {
        let (tiles, end) = (self.tiles.count, blocks.end);
        let at_once = if tiles == 1 { blocks.len().max(1) } else { few };
        blocks
            .step_by(at_once)
            .flat_map(move |first| (0..tiles).map(move |tile| (first..end.min(first + at_once), tile)))
    }

    #[inline(always)]
    fn blocks<M: Multiply>(&self, m: M, target: &Target<'a>, blocks: Range<usize>) {
        for (blocks, index) in self.passes(blocks, 1) {
            let rows = self.tiles.rows(index);
            macro_rules! tiles {
                ($($rows:literal)*) => {
                    match rows.len() {
                        $($rows => m.tile::<$rows>(Tile { job: self, target, blocks, index, rows }),)*
                        rows => unreachable!("a tile of {rows} rows"),
                    }
                };
            }
            tiles!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17);
        }
    }
}

/// A tile of rows, with some blocks of a product.
pub(crate) struct Tile<'a, 'b> {
    pub(crate) job: &'a Blocks<'b>,
    pub(crate) target: &'a Target<'b>,
    pub(crate) blocks: Range<usize>,
    /// Its number.
    index: usize,
    pub(crate) rows: Range<usize>,
}

impl<'b> Tile<'_, 'b> {
    /// The activations of its rows, group by group, of so many words in all.
    #[inline(always)]
    pub(crate) fn words(&self, len: usize) -> &'b [u32] {
        &self.job.words[self.index * self.job.tile_words..][..len]
    }

    /// Computes it; `rows` are `ROWS`.
    #[inline(always)]
    pub(crate) fn compute<M: Multiply, const ROWS: usize>(self, m: M) {
        if ROWS > M::ROWS {
            unreachable!("tiles have as many rows as `Isa::tile_rows` says");
        }
        let s = m.floats();
        let group_words = const { group_words(ROWS, M::HEADER, M::VALUES) };
        let words = self.words(self.job.groups * group_words);
        let Self { job, target, blocks, rows, .. } = self;
        let layout = target.weights.layout();
        let (lines, scales_bytes) = (layout.lines(), layout.scales_bytes());
        let block_bytes = scales_bytes + lines * LINE;
        let weights = &target.weights.data()[blocks.start * block_bytes..blocks.end * block_bytes];
        // What the unchecked accesses below rely on.
        assert!(rows.len() == ROWS && lines.div_ceil(M::LINES) == job.groups);
        assert!(scales_bytes >= M::scales_bytes(job.groups) && M::is_rest(lines % M::LINES));
        let whole = lines / M::LINES;
        for (block, weights) in blocks.zip(weights.chunks_exact(block_bytes)) {
            let scales = weights.as_ptr();
            let mut totals = [s.splat(0.0); ROWS];
            let mut first = 0;
            let side_by_side = M::SIDE_BY_SIDE && ROWS <= SIDE_BY_SIDE && (ROWS > IN_ORDER || job.cached);
            while side_by_side && first + 2 <= whole {
                // SAFETY: `whole` groups have all their lines, as asserted.
                unsafe {
                    let lines = scales.add(scales_bytes + first * M::LINES * LINE);
                    let words = words.as_ptr().add(first * group_words);
                    m.groups::<ROWS, 2>(&mut totals, scales, first, lines, words);
                }
                first += 2;
            }
            for group in first..whole {
                // SAFETY: as above.
                unsafe {
                    let lines = scales.add(scales_bytes + group * M::LINES * LINE);
                    let words = words.as_ptr().add(group * group_words);
                    m.group::<ROWS>(&mut totals, scales, group, lines, M::LINES, words);
                }
            }
            if M::HAS_REST && whole < job.groups {
                // SAFETY: as above, with the lines that are left.
                unsafe {
                    let first = scales.add(scales_bytes + whole * M::LINES * LINE);
                    let words = words.as_ptr().add(whole * group_words);
                    m.group::<ROWS>(&mut totals, scales, whole, first, lines - whole * M::LINES, words);
                }
            }
            // SAFETY: the block has scales, as asserted.
            unsafe { m.end::<ROWS>(&mut totals, scales) };
            for (r, totals) in totals.iter().enumerate() {
                target.write(s, rows.start + r, block, *totals);
            }
        }
    }
}

impl Target<'_> {
    /// Writes what the matrix has of a row's and a block's outputs, with the bias.
    #[inline(always)]
    pub(crate) fn write<S: Simd>(&self, s: S, row: usize, block: usize, totals: S::V) {
        let (column, columns) = (block * BLOCK, self.weights.out_features());
        let count = BLOCK.min(columns - column);
        let mut results = [0.0; LANES];
        s.store(totals, &mut results);
        // SAFETY: the columns are of this part's blocks, which no other part has.
        let out = unsafe { self.out.slice(row * columns + column, count) };
        match self.bias {
            Some(bias) => {
                for ((out, total), bias) in out.iter_mut().zip(results).zip(&bias[column..]) {
                    *out = total + bias;
                }
            }
            // With a length that the compiler knows, a copy is a store and not a call.
            None if count == LANES => out.copy_from_slice(&results),
            None => out.copy_from_slice(&results[..count]),
        }
    }
}

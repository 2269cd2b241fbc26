//! What the tests share: numbers that look random and are the same in every run, and kernels in every configuration.
#![allow(dead_code)] // each test binary uses a part

use half::{bf16, f16};
use paceline_kernels::{
    CacheFormat, FloatFormat, InstructionSet, Kernels, LayerPages, MatrixFormat, PAGE_POSITIONS, PackedWeights,
    Product, Run, WeightArena, Weights,
};

pub(crate) const FORMATS: [FloatFormat; 3] = [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16];

/// `len` values of magnitude up to about `scale`, from splitmix64.
pub(crate) fn values(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
        })
        .collect()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// One thread, plain Rust: what all others are compared with.
pub(crate) fn reference() -> Kernels {
    Kernels::with_instruction_set(1, InstructionSet::Scalar).expect("scalar is everywhere")
}

/// Every instruction set of this machine with 1, 2 and 3 threads.
pub(crate) fn all_kernels() -> Vec<Kernels> {
    let sets = InstructionSet::available();
    sets.into_iter()
        .flat_map(|set| (1..=3).map(move |threads| Kernels::with_instruction_set(threads, set).expect("available")))
        .collect()
}

/// Checks that every one of `all` gives the bits that `reference` gives; `what` is computed.
pub(crate) fn all_give_its_bits(
    reference: &Kernels,
    all: &[Kernels],
    run: impl Fn(&Kernels) -> Vec<f32>,
    what: impl Fn() -> String,
) {
    let expected = bits(&run(reference));
    for kernels in all {
        assert!(bits(&run(kernels)) == expected, "{kernels:?}, {}", what());
    }
}

/// `values` as stored in `format`.
pub(crate) fn stored(values: &[f32], format: FloatFormat) -> Vec<u8> {
    match format {
        FloatFormat::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        FloatFormat::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        FloatFormat::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

pub(crate) fn weights(seed: u64, format: FloatFormat, out_features: usize, in_features: usize) -> Weights {
    let bytes = stored(&values(seed, out_features * in_features, 1.0), format);
    Weights::from_bytes(bytes, format, out_features, in_features).expect("the length is right")
}

/// The matrix's values.
pub(crate) fn widened(w: &Weights) -> Vec<f32> {
    all_rows(w.out_features(), w.in_features(), |row, out| w.row_to_f32(row, out))
}

/// A matrix that is given row by row.
fn all_rows(rows: usize, columns: usize, row_to_f32: impl Fn(usize, &mut [f32])) -> Vec<f32> {
    let mut all = vec![0.0; rows * columns];
    for (row, out) in all.chunks_exact_mut(columns).enumerate() {
        row_to_f32(row, out);
    }
    all
}

/// The matrix packed as it is stored.
pub(crate) fn packed(w: &Weights) -> PackedWeights {
    packed_as(w, w.format().into())
}

pub(crate) fn packed_as(w: &Weights, format: MatrixFormat) -> PackedWeights {
    reference().pack(w, format, &mut WeightArena::default()).expect("there is memory")
}

/// The matrix's values, as products compute with them.
pub(crate) fn unpacked(w: &PackedWeights) -> Vec<f32> {
    all_rows(w.out_features(), w.in_features(), |row, out| w.row_to_f32(row, out))
}

pub(crate) fn product(kernels: &Kernels, x: &[f32], w: &PackedWeights, bias: Option<&[f32]>) -> Vec<f32> {
    let rows = x.len() / w.in_features();
    let mut out = vec![f32::NEG_INFINITY; rows * w.out_features()];
    kernels.matmul(x, rows, &mut [Product { weights: w, bias, out: &mut out }]);
    out
}

/// Activations as products with integers round them, `group` values of k with a scale.
pub(crate) fn rounded(x: &[f32], k: usize, group: usize) -> Vec<f64> {
    let round = |group: &[f32]| {
        let scale = group.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
        let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
        let integers = group.iter().map(|value| (value * inverse).round_ties_even());
        integers.map(|q| f64::from(q) * f64::from(scale)).collect::<Vec<_>>()
    };
    x.chunks_exact(k).flat_map(|row| row.chunks(group).flat_map(round).collect::<Vec<_>>()).collect()
}

/// Products in f64, and the sums of their terms' magnitudes.
pub(crate) fn naive(x: &[f64], w: &[f32], k: usize) -> Vec<(f64, f64)> {
    let dot = |row: &[f64], column: &[f32]| {
        let terms = row.iter().zip(column).map(|(x, w)| x * f64::from(*w));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    };
    x.chunks_exact(k).flat_map(|row| w.chunks_exact(k).map(move |column| dot(row, column))).collect()
}

/// A text's layer whose pages lie in disorder.
pub(crate) struct Cache {
    pub(crate) layer: LayerPages,
    pub(crate) pages: Vec<u32>,
    pub(crate) len: usize,
}

impl Cache {
    pub(crate) fn new(kv_heads: usize, dim: usize, capacity: usize, format: CacheFormat) -> Self {
        let mut layer = LayerPages::new(kv_heads, dim, format);
        let count = capacity.div_ceil(PAGE_POSITIONS);
        layer.grow(2 * count).expect("there is memory");
        // The last first, and every other one.
        Self { layer, pages: (0..count as u32).rev().map(|page| 2 * page + 1).collect(), len: 0 }
    }

    /// `rows` rows from `start` on.
    pub(crate) fn rows_at(&self, start: usize, rows: usize) -> Run<'_> {
        Run { pages: &self.pages, start, rows }
    }

    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32], rows: usize) {
        self.layer.append(keys, values, &[Run { pages: &self.pages, start: self.len, rows }]);
        self.len += rows;
    }
}

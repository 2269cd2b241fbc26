//! Products with quantized weights: the same bits however they are cut, and what the definition says.

mod common;

use common::{
    FORMATS, all_give_its_bits, all_kernels, bits, naive, packed_as, product, reference, rounded, stored, unpacked,
    values, weights, widened,
};
use paceline_kernels::{FloatFormat, Kernels, MatrixFormat, PackedWeights, QuantizedFormat, WeightArena, Weights};
use proptest::prelude::*;

const QUANTIZED: [QuantizedFormat; 2] = [QuantizedFormat::Int8, QuantizedFormat::Int4];
const GROUP: usize = 64;

fn quantized(values: Vec<f32>, rows: usize, columns: usize, format: QuantizedFormat) -> PackedWeights {
    let source = Weights::from_f32(values, rows, columns).expect("the length is right");
    packed_as(&source, MatrixFormat::Quantized(format))
}

/// About normal values: sums of twelve uniform ones.
fn normal(seed: u64, len: usize) -> Vec<f32> {
    values(seed, len * 12, 0.5).chunks_exact(12).map(|twelve| twelve.iter().sum()).collect()
}

fn relative_error(found: &[f32], expected: &[(f64, f64)]) -> f64 {
    let squares = found.iter().zip(expected).map(|(found, (expected, _))| (f64::from(*found) - expected).powi(2));
    (squares.sum::<f64>() / expected.iter().map(|(expected, _)| expected.powi(2)).sum::<f64>()).sqrt()
}

#[test]
fn all_configurations_give_the_scalar_bits() {
    let (reference, all) = (reference(), all_kernels());
    for (seed, k) in [1, 7, 31, 32, 33, 64, 172, 352, 576].into_iter().enumerate() {
        for n in [1, 5, 15, 16, 17, 100, 600] {
            for format in QUANTIZED {
                let w = quantized(normal(seed as u64, n * k), n, k, format);
                let bias = values(99, n, 1.0);
                for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 31, 40, 64, 65, 130] {
                    let x = values(1000 + rows as u64, rows * k, 2.0);
                    let what = || format!("{rows} rows of {k} with {w:?}");
                    all_give_its_bits(&reference, &all, |kernels| product(kernels, &x, &w, Some(&bias)), what);
                }
            }
        }
    }
}

/// Rows whose every group of 16 has the largest scale and minimum that occur together with the largest steps: the
/// integers' sums then reach the bounds that instructions have to hold.
#[test]
fn the_largest_integers_do_not_saturate() {
    let (n, k) = (17, 128);
    let sixteen = |low: f32, high: f32| move |i: usize| if i.is_multiple_of(16) { low } else { high };
    let shapes: [&dyn Fn(usize) -> f32; 6] =
        [&|_| 1.0, &|_| -1.0, &sixteen(-1.0, 1.0), &sixteen(1.0, -1.0), &sixteen(-1.0, 0.0), &|i| {
            if i % 2 == 0 { 1.0 } else { -1.0 }
        }];
    for format in QUANTIZED {
        for (shape, weight) in shapes.iter().enumerate() {
            let w = quantized((0..n * k).map(|i| weight(i % k)).collect(), n, k, format);
            let first = &unpacked(&w)[..k];
            let activations: [&dyn Fn(usize) -> f32; 3] = [&|_| 1.0, &|_| -1.0, &|i| first[i].signum()];
            for activation in activations {
                let x = (0..3 * k).map(|i| activation(i % k)).collect::<Vec<_>>();
                let expected: f64 = first.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                for kernels in all_kernels() {
                    for out in product(&kernels, &x, &w, None) {
                        let close = (f64::from(out) - expected).abs() <= 2e-4;
                        assert!(close, "{kernels:?} {w:?} of shape {shape}: {out} for {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn quantizing_normal_weights_keeps_products_close() {
    let (k, n, rows) = (576, 200, 8);
    let kernels = Kernels::new(2).expect("threads start");
    let x = normal(1, rows * k);
    let exact: Vec<f64> = x.iter().map(|value| f64::from(*value)).collect();
    for source in FORMATS {
        let w = Weights::from_bytes(stored(&normal(2, n * k), source), source, n, k).expect("the length is right");
        let expected = naive(&exact, &widened(&w), k);
        for (format, bound) in [(QuantizedFormat::Int8, 0.01), (QuantizedFormat::Int4, 0.08)] {
            let found = product(&kernels, &x, &packed_as(&w, MatrixFormat::Quantized(format)), None);
            let error = relative_error(&found, &expected);
            assert!(error < bound, "{format} from {source}: {error}");
        }
    }
}

/// Squared errors of each group of 16 of `k` values a row.
fn squared_errors(from: &[f32], to: &[f32], k: usize) -> Vec<f64> {
    let squared = |(from, to): (&[f32], &[f32])| {
        from.iter().zip(to).map(|(from, to)| (f64::from(*from) - f64::from(*to)).powi(2)).sum::<f64>()
    };
    let rows = from.chunks_exact(k).zip(to.chunks_exact(k));
    rows.flat_map(|(from, to)| from.chunks(16).zip(to.chunks(16)).map(squared)).collect()
}

/// Rows of `k` values by the definition of int4, with each group's scale and minimum rounded from its range.
fn rounded_by_range(source: &[f32], k: usize) -> Vec<f32> {
    let ends = |group: &[f32]| {
        let fold = |f: fn(f32, f32) -> f32| f64::from(group.iter().copied().fold(0.0, f));
        (fold(f32::min), fold(f32::max))
    };
    let row = |row: &[f32]| {
        let ranges = row.chunks(16).map(|group| ends(group).1 - ends(group).0);
        let unit = f64::from((ranges.fold(0.0, f64::max) / (15.0 * 255.0)) as f32);
        let group = |group: &[f32]| {
            let (low, high) = ends(group);
            let scale = ((high - low) / unit / 15.0).round().min(255.0);
            let minimum = (-low / unit / 16.0).round();
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let one = |value: &f32| {
                let q = ((f64::from(*value) / unit + 16.0 * minimum) * inverse).round().clamp(0.0, 15.0);
                (unit * (scale * q - 16.0 * minimum)) as f32
            };
            group.iter().map(one).collect::<Vec<_>>()
        };
        row.chunks(16).flat_map(group).collect::<Vec<_>>()
    };
    source.chunks_exact(k).flat_map(row).collect()
}

#[test]
fn the_search_is_never_worse_than_rounding_by_range_and_mostly_better() {
    let n = 50;
    for k in [1, 7, 64, 172, 640] {
        let heavy = |seed| normal(seed, n * k).into_iter().map(|value| value.powi(3)).collect::<Vec<_>>();
        let shifted = |seed| normal(seed, n * k).into_iter().map(|value| value + 2.0).collect::<Vec<_>>();
        // The bounds lie below what the search reaches without its least squares.
        let sources =
            [("normal", normal(3, n * k), 0.82), ("heavy-tailed", heavy(4), 0.68), ("shifted", shifted(5), 0.86)];
        for (name, source, bound) in sources {
            let of = |found: &[f32]| squared_errors(&source, found, k);
            let plain = of(&rounded_by_range(&source, k));
            let searched = of(&unpacked(&quantized(source.clone(), n, k, QuantizedFormat::Int4)));
            let largest = source.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            // Units and errors are floats: they round, by parts of the largest step.
            let slack = f64::from(largest / 15.0).powi(2) * 1e-3;
            for (group, (searched, plain)) in searched.iter().zip(&plain).enumerate() {
                assert!(*searched <= plain + slack, "{name} {k}, group {group}: {searched} against {plain}");
            }
            let gain = searched.iter().sum::<f64>() / plain.iter().sum::<f64>();
            assert!(k < 64 || gain < bound, "{name} {k}: {gain}");
        }
    }
}

#[test]
fn integers_are_the_nearest() {
    let source = values(5, 9 * 172, 3.0);
    for format in QUANTIZED {
        let w = quantized(source.clone(), 9, 172, format);
        let size = if format == QuantizedFormat::Int8 { GROUP } else { 16 };
        for (from, to) in source.chunks(172).zip(unpacked(&w).chunks(172)) {
            for (from, to) in from.chunks(size).zip(to.chunks(size)) {
                let largest = from.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let range = from.iter().fold(0.0_f32, |most, value| most.max(*value))
                    - from.iter().fold(0.0_f32, |least, value| least.min(*value));
                // Half a step, and a little for a scale in bf16; the search may cut a tenth of a range off, and the
                // line of least squares a little more.
                let bound = if format == QuantizedFormat::Int8 { largest / 127.0 * 0.502 } else { range * 0.15 };
                for (from, to) in from.iter().zip(to) {
                    assert!((from - to).abs() <= bound, "{format}: {from} became {to}");
                }
            }
        }
    }
}

#[test]
fn integers_times_a_scale_survive() {
    let integers = (0..3 * 70).map(|i| (i % 255 - 127) as f32 * 0.5).collect::<Vec<_>>();
    let w = quantized(integers.clone(), 3, 70, QuantizedFormat::Int8);
    // Groups whose largest integer is not 127 have another scale.
    for (found, integer) in unpacked(&w).iter().zip(&integers) {
        assert!((found - integer).abs() < 0.26, "{integer} became {found}");
    }
}

/// Scales, minima and steps at random: values that the format holds exactly are held exactly.
#[test]
fn what_four_bits_can_hold_survives() {
    for k in [16, 64, 172, 576] {
        let n = 40;
        let random = values(k as u64, n * k * 2, 0.5);
        let mut random = random.iter().map(|value| f64::from(*value) + 0.5);
        let mut below = |most: f64| (random.next().expect("there are enough") * (most + 1.0)).min(most).floor();
        let mut source = vec![0.0_f32; n * k];
        for (row, values) in source.chunks_exact_mut(k).enumerate() {
            let unit = 2.0_f32.powi(row as i32 - 20);
            for (group, values) in values.chunks_mut(16).enumerate() {
                // The first group has the row's largest range, and each its first and last step: so they can be found.
                let scale = if group == 0 { 255.0 } else { below(255.0) };
                let minimum = below((15.0 * scale / 16.0).floor());
                for (i, value) in values.iter_mut().enumerate() {
                    let q = [0.0, 15.0].get(i).copied().unwrap_or_else(|| below(15.0));
                    *value = (scale * q - 16.0 * minimum) as f32 * unit;
                }
            }
        }
        assert_eq!(unpacked(&quantized(source.clone(), n, k, QuantizedFormat::Int4)), source, "{k}");
    }
}

#[test]
fn zeros_and_extremes() {
    for format in QUANTIZED {
        let k = 3 * GROUP;
        let one_row = |value: f32| [vec![value; GROUP], vec![0.0; GROUP], vec![-value; GROUP]].concat();
        for value in [0.0, 1e-45, 1e-39, 1e-36, 1e-30, 1.0, 1e30, f32::MAX] {
            let w = quantized(one_row(value), 1, k, format);
            for (found, exact) in unpacked(&w).iter().zip(one_row(value)) {
                let smallest = if format == QuantizedFormat::Int8 { 2e-36 } else { 1e-34 };
                assert!((found - exact).abs() <= 0.005 * value.abs() + smallest, "{format}: {exact} became {found}");
            }
            for kernels in all_kernels() {
                let zeros = product(&kernels, &vec![0.0; 2 * k], &w, None);
                assert_eq!(bits(&zeros), [0, 0], "{format}, {value}");
                let found = product(&kernels, &[vec![1.0; GROUP], vec![0.0; 2 * GROUP]].concat(), &w, None)[0];
                let exact = f64::from(value) * GROUP as f64;
                let close = (f64::from(found) - exact).abs() <= 0.01 * exact + 1e-32;
                assert!(close || exact > f64::from(f32::MAX) && found == f32::INFINITY, "{format}, {value}: {found}");
            }
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut source = vec![1.0; 20 * k];
            source[18 * k + GROUP + 5] = bad;
            let w = quantized(source, 20, k, format);
            let mut row = vec![0.0; k];
            w.row_to_f32(18, &mut row);
            assert!(row[GROUP..2 * GROUP].iter().all(|value| value.is_nan()));
            w.row_to_f32(17, &mut row);
            assert!(row.iter().all(|value| (value - 1.0).abs() < 0.005), "{row:?}");
            for kernels in all_kernels() {
                let found = product(&kernels, &vec![1.0; 3 * k], &w, None);
                assert!(found.iter().enumerate().all(|(i, value)| value.is_nan() == (i % 20 == 18)), "{found:?}");
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_yields_nan_and_harms_no_other() {
    // Enough outputs for every unit to find it worth its while.
    let (k, n) = (172, 700);
    for format in QUANTIZED {
        let w = quantized(normal(6, n * k), n, k, format);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 100, 171] {
                let good = values(7, 5 * k, 1.0);
                let mut x = good.clone();
                x[2 * k + at] = bad;
                for kernels in all_kernels() {
                    let expected = product(&kernels, &good, &w, None);
                    let found = product(&kernels, &x, &w, None);
                    for (row, (found, expected)) in found.chunks(n).zip(expected.chunks(n)).enumerate() {
                        let right =
                            if row == 2 { found.iter().all(|v| v.is_nan()) } else { bits(found) == bits(expected) };
                        assert!(right, "{kernels:?} {format}, row {row} with {bad} in row 2: {found:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn sizes_and_names() {
    let w = quantized(normal(8, 1536 * 576), 1536, 576, QuantizedFormat::Int8);
    assert_eq!(
        (w.out_features(), w.in_features(), w.format()),
        (1536, 576, MatrixFormat::Quantized(QuantizedFormat::Int8))
    );
    assert!((w.bytes() as f64) < 1536.0 * 576.0 * 8.4 / 8.0);
    assert_eq!(format!("{w:?}"), "PackedWeights(1536 x 576 int8)");
    let w = quantized(normal(8, 1536 * 576), 1536, 576, QuantizedFormat::Int4);
    assert!((w.bytes() as f64) < 1536.0 * 576.0 * 5.1 / 8.0);
    assert_eq!(w.format().to_string(), "int4");
}

#[test]
fn sources_that_hold_the_same_values_give_the_same_integers() {
    let bf16 = weights(9, FloatFormat::Bf16, 30, 100);
    let f32s = Weights::from_f32(widened(&bf16), 30, 100).expect("the length is right");
    for format in QUANTIZED {
        let of = |w: &Weights| bits(&unpacked(&packed_as(w, MatrixFormat::Quantized(format))));
        assert_eq!(of(&bf16), of(&f32s));
    }
}

#[test]
fn packing_gives_the_same_bits_on_every_machine() {
    for (seed, k) in [1, 7, 16, 64, 172, 576].into_iter().enumerate() {
        for format in QUANTIZED {
            let mut source = normal(seed as u64, 37 * k);
            source[3 * k..4 * k].fill(0.0);
            source[20 * k] = 1e30;
            let source = Weights::from_f32(source, 37, k).expect("the length is right");
            let expected = bits(&unpacked(&packed_as(&source, MatrixFormat::Quantized(format))));
            for kernels in all_kernels() {
                let packed = kernels.pack(&source, MatrixFormat::Quantized(format), &mut WeightArena::default());
                assert_eq!(bits(&unpacked(&packed.expect("there is memory"))), expected, "{kernels:?} {format} {k}");
            }
        }
    }
}

fn widths() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1_usize), Just(31), Just(64), Just(172), Just(352), Just(576), 1..300_usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_row_alone_has_the_bits_it_has_in_a_batch(
        k in widths(),
        n in 1..70_usize,
        rows in 1..=70_usize,
        format in 0..2_usize,
        with_bias: bool,
        seed: u64,
    ) {
        let w = quantized(normal(seed, n * k), n, k, QUANTIZED[format]);
        let x = values(seed ^ 1, rows * k, 3.0);
        let bias = values(seed ^ 2, n, 1.0);
        let bias = with_bias.then_some(bias.as_slice());
        for kernels in all_kernels().iter().filter(|kernels| kernels.threads() != 3) {
            let batch = product(kernels, &x, &w, bias);
            for (row, expected) in x.chunks_exact(k).zip(batch.chunks_exact(n)) {
                prop_assert_eq!(bits(&product(kernels, row, &w, bias)), bits(expected));
            }
        }
    }

    #[test]
    fn a_batch_may_be_cut_anywhere(rows in 2..=70_usize, cut in 0.0..1.0_f64, k in 1..400_usize, seed: u64) {
        let kernels = Kernels::new(2).expect("threads start");
        let x = values(seed ^ 1, rows * k, 3.0);
        let (first, second) = x.split_at((rows as f64 * cut) as usize * k);
        for format in QUANTIZED {
            let w = quantized(normal(seed, 50 * k), 50, k, format);
            let parts = [product(&kernels, first, &w, None), product(&kernels, second, &w, None)].concat();
            prop_assert_eq!(bits(&parts), bits(&product(&kernels, &x, &w, None)));
        }
    }

    #[test]
    fn products_are_of_rounded_values(
        k in widths(),
        n in 1..50_usize,
        rows in 1..6_usize,
        magnitude in -30..30_i32,
        format in 0..2_usize,
        seed: u64,
    ) {
        let w = quantized(normal(seed, n * k), n, k, QUANTIZED[format]);
        let x = values(seed ^ 1, rows * k, 10.0_f32.powi(magnitude));
        let expected = naive(&rounded(&x, k, GROUP), &unpacked(&w), k);
        for kernels in all_kernels().iter().filter(|kernels| kernels.threads() == 1) {
            for (found, (expected, size)) in product(kernels, &x, &w, None).into_iter().zip(&expected) {
                // Three roundings of each group's term, one of its scale, and one for each sum.
                let bound = (k.div_ceil(GROUP) + 4) as f64 * f64::from(f32::EPSILON) * size;
                prop_assert!((f64::from(found) - expected).abs() <= bound, "{} for {}", found, expected);
            }
        }
    }
}

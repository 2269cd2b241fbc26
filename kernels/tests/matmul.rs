//! Products: the same bits however they are cut, and close to what f64 gives.

mod common;

use std::io::Write;
use std::sync::Arc;

use common::{
    FORMATS, all_give_its_bits, all_kernels, bits, packed, packed_as, product, reference, stored, unpacked, values,
    weights, widened,
};
use paceline_kernels::{
    Activation, FloatFormat, Input, Kernels, MappedFile, MatrixFormat, Product, QuantizedFormat, Residual, WeightArena,
    Weights, WeightsError,
};
use proptest::prelude::*;

fn map(path: &std::path::Path) -> MappedFile {
    let file = std::fs::File::open(path).expect("it was written");
    MappedFile::new(file, path).expect("it can be mapped")
}

#[test]
fn all_configurations_give_the_scalar_bits() {
    let (reference, all) = (reference(), all_kernels());
    // Rows that make tiles of every size, on every instruction set.
    let all_rows = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 40];
    let shapes =
        [(1, 1), (7, 3), (16, 5), (17, 9), (64, 31), (172, 33), (352, 65), (576, 192), (1500, 23), (576, 1030)];
    for (seed, (k, n)) in shapes.into_iter().enumerate() {
        for format in FORMATS {
            let w = packed(&weights(seed as u64, format, n, k));
            let bias = values(99, n, 1.0);
            for rows in all_rows {
                let x = values(1000 + rows as u64, rows * k, 2.0);
                let what = || format!("{rows} rows of {k} with {w:?}");
                all_give_its_bits(&reference, &all, |kernels| product(kernels, &x, &w, Some(&bias)), what);
            }
        }
    }
}

#[test]
fn products_made_together_have_the_bits_they_have_alone() {
    let (k, rows) = (172, 5);
    let x = values(1, rows * k, 2.0);
    let matrices = [(0, 33), (1, 16), (2, 70)].map(|(seed, n)| weights(seed, FloatFormat::Bf16, n, k));
    let int8 = packed_as(&matrices[2], MatrixFormat::Quantized(QuantizedFormat::Int8));
    let int4 = packed_as(&matrices[0], MatrixFormat::Quantized(QuantizedFormat::Int4));
    let [first, second, third] = matrices.each_ref().map(packed);
    let f32s = packed_as(&matrices[1], MatrixFormat::Float(FloatFormat::F32));
    let bias = values(2, 16, 1.0);
    for kernels in all_kernels() {
        // Formats follow each other in every way: of one kind, of the other, and back.
        for jobs in [vec![&first, &second, &third], vec![&int8, &int4], vec![&first, &f32s, &int8, &int4, &second]] {
            let with_bias = |w: &paceline_kernels::PackedWeights| (w.out_features() == 16).then_some(&bias[..]);
            let mut outs: Vec<Vec<f32>> = jobs.iter().map(|w| vec![f32::NAN; rows * w.out_features()]).collect();
            let mut products: Vec<Product<'_>> =
                jobs.iter().zip(&mut outs).map(|(w, out)| Product { weights: w, bias: with_bias(w), out }).collect();
            kernels.matmul(&x, rows, &mut products);
            for (w, out) in jobs.iter().zip(&outs) {
                assert_eq!(bits(out), bits(&product(&kernels, &x, w, with_bias(w))), "{kernels:?} {w:?}");
            }
        }
        kernels.matmul(&x, rows, &mut []);
    }
}

#[test]
fn each_format_is_close_to_f64() {
    let kernels = Kernels::new(2).expect("threads start");
    for format in FORMATS {
        for (k, n, rows) in [(1, 4, 3), (7, 5, 2), (352, 40, 11), (2000, 17, 1)] {
            let w = weights(5, format, n, k);
            let (x, bias, all, w) = (values(6, rows * k, 1.0), values(7, n, 1.0), widened(&w), packed(&w));
            let out = product(&kernels, &x, &w, Some(&bias));
            for (i, out) in out.into_iter().enumerate() {
                let (row, column) = (i / n, i % n);
                let terms = (0..k).map(|j| f64::from(x[row * k + j]) * f64::from(all[column * k + j]));
                let (exact, size) =
                    terms.fold((f64::from(bias[column]), 1.0), |(sum, size), t| (sum + t, size + t.abs()));
                // Each of at most 64 additions in a group's row, and of the groups', may lose half a unit of what has
                // been summed.
                let bound = size * (k.min(64) as f64 + k as f64 / 64.0 + 2.0) / 2.0 * f64::from(f32::EPSILON);
                assert!((f64::from(out) - exact).abs() <= bound, "{format} k={k}: {out} instead of {exact}");
            }
        }
    }
}

#[test]
fn formats_that_hold_the_same_values_give_the_same_bits() {
    let kernels = Kernels::new(1).expect("threads start");
    let w = weights(3, FloatFormat::Bf16, 21, 75);
    let wide = Weights::from_f32(widened(&w), 21, 75).expect("the length is right");
    let x = values(4, 12 * 75, 1.0);
    assert_eq!(bits(&product(&kernels, &x, &packed(&w), None)), bits(&product(&kernels, &x, &packed(&wide), None)));
}

#[test]
fn packing_widens_exactly_and_rounds_to_even() {
    // Between two neighbours of each format: 1 + 2^-8 ties to 1 in bf16, 1 + 3 * 2^-8 to 1 + 2^-6; 1 + 2^-11 ties
    // to 1 in f16.
    let values = vec![1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0 + 1.0 / 2048.0, -2.5, 0.0];
    let matrix = Weights::from_f32(values.clone(), 2, 3).expect("six values");
    for (format, expected) in [
        (FloatFormat::Bf16, [1.0, 1.0, 1.0 + 1.0 / 64.0, 1.0, -2.5, 0.0]),
        (FloatFormat::F16, [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0, -2.5, 0.0]),
    ] {
        assert_eq!(unpacked(&packed_as(&matrix, MatrixFormat::Float(format))), expected, "{format}");
    }
    for format in FORMATS {
        let stored = weights(1, format, 37, 75);
        for wider in [format, FloatFormat::F32] {
            let packed = packed_as(&stored, MatrixFormat::Float(wider));
            assert_eq!(bits(&unpacked(&packed)), bits(&widened(&stored)), "{format} as {wider}");
            assert_eq!(packed.bytes() as u64, packed.format().matrix_bytes(37, 75));
        }
    }
}

#[test]
fn all_threads_pack_the_same() {
    let source = weights(1, FloatFormat::Bf16, 600, 172);
    for format in FORMATS
        .map(MatrixFormat::Float)
        .into_iter()
        .chain([QuantizedFormat::Int8, QuantizedFormat::Int4].map(MatrixFormat::Quantized))
    {
        let expected = bits(&unpacked(&packed_as(&source, format)));
        let mut arena = WeightArena::default();
        for kernels in all_kernels() {
            let packed = kernels.pack(&source, format, &mut arena).expect("there is memory");
            assert_eq!(bits(&unpacked(&packed)), expected, "{kernels:?} {format}");
        }
    }
}

#[test]
fn subnormal_and_infinite_weights_are_widened_exactly() {
    let f16s: [u16; 6] = [0x0001, 0x83ff, 0x7c00, 0xfc00, 0x8000, 0x7bff];
    let bytes = f16s.iter().flat_map(|v| v.to_le_bytes()).collect();
    let w = Weights::from_bytes(bytes, FloatFormat::F16, 6, 1).expect("the length is right");
    let expected = [2.0_f32.powi(-24), -1023.0 * 2.0_f32.powi(-24), f32::INFINITY, f32::NEG_INFINITY, -0.0, 65504.0];
    assert_eq!(bits(&widened(&w)), bits(&expected));
    for kernels in all_kernels() {
        // -0.0 becomes 0.0 as it is added to the accumulator's 0.0.
        assert_eq!(product(&kernels, &[1.0], &packed(&w), None), expected);
    }
}

#[test]
fn the_first_value_that_is_not_finite_is_found_for_every_format() {
    let formats = FORMATS.map(MatrixFormat::Float);
    let formats =
        formats.into_iter().chain([QuantizedFormat::Int8, QuantizedFormat::Int4].map(MatrixFormat::Quantized));
    let (rows, columns) = (300, 172);
    for format in formats {
        let limit = match format {
            MatrixFormat::Float(FloatFormat::F16) => 65520.0,
            MatrixFormat::Float(FloatFormat::Bf16) => f32::from_bits(0x7F7F_8000),
            _ => f32::INFINITY,
        };
        let fine = limit.next_down().min(f32::MAX);
        for kernels in all_kernels() {
            let mut source = values(3, rows * columns, 1.0);
            let find = |source: &[f32]| {
                let w = Weights::from_f32(source.to_vec(), rows, columns).expect("the length is right");
                kernels.find_not_finite(&w, format)
            };
            source[5] = fine;
            source[columns] = -fine;
            assert_eq!(find(&source), None, "{format}");
            for (at, bad) in [(299 * columns + 171, f32::NAN), (170 * columns, limit), (2 * columns + 9, -limit)] {
                source[at] = bad;
                assert_eq!(find(&source), Some((at / columns, at % columns)), "{kernels:?}, {format}, {bad}");
            }
        }
    }
    // The limits are where rounding is to infinity.
    assert!(half::f16::from_f32(65520.0).is_infinite() && half::f16::from_f32(65520_f32.next_down()).is_finite());
    let limit = f32::from_bits(0x7F7F_8000);
    assert!(half::bf16::from_f32(limit).is_infinite() && half::bf16::from_f32(limit.next_down()).is_finite());
}

#[test]
fn weights_in_a_file_equal_owned_ones_at_any_offset() {
    let kernels = Kernels::new(2).expect("threads start");
    let x = values(8, 10 * 37, 1.0);
    for format in FORMATS {
        let bytes = stored(&values(9, 19 * 37, 1.0), format);
        let owned = Weights::from_bytes(bytes.clone(), format, 19, 37).expect("the length is right");
        for offset in [0, 1, 2, 3, 63] {
            let path = std::env::temp_dir().join(format!("paceline-kernels-{}-{format}-{offset}", std::process::id()));
            let mut file = std::fs::File::create(&path).expect("the temporary folder can be written");
            // Nothing follows the weights: reading past them would be reading past the file.
            file.write_all(&[vec![0xff; offset], bytes.clone()].concat()).expect("it can be written");
            let map = Arc::new(map(&path));
            std::fs::remove_file(&path).expect("it was written");
            let range = offset..offset + bytes.len();
            let mapped = Weights::in_place(map, range, format, 19, 37).expect("the range is right");
            assert_eq!(mapped.bytes(), bytes.len());
            for rows in [1, 10] {
                let of = |w: &Weights| bits(&product(&kernels, &x[..rows * 37], &packed(w), None));
                assert_eq!(of(&mapped), of(&owned));
            }
            assert_eq!(bits(&widened(&mapped)), bits(&widened(&owned)));
        }
    }
}

#[test]
fn wrong_shapes_and_ranges_are_refused() {
    let error = Weights::from_bytes(vec![0; 11], FloatFormat::Bf16, 2, 3).expect_err("12 bytes are needed");
    assert_eq!(error.to_string(), "A bf16 weight matrix of 2 x 3 takes 12 bytes, but there are 11.");
    for (rows, columns) in [(0, 3), (3, 0), (usize::MAX, 2), (usize::MAX / 2, 1)] {
        let error = Weights::from_f32(vec![], rows, columns).expect_err("there is no such matrix");
        assert!(matches!(error, WeightsError::Shape { .. }), "{error}");
    }
    let path = std::env::temp_dir().join(format!("paceline-kernels-{}-short", std::process::id()));
    std::fs::write(&path, [0; 8]).expect("the temporary folder can be written");
    let map = Arc::new(map(&path));
    std::fs::remove_file(&path).expect("it was written");
    #[allow(clippy::reversed_empty_ranges)] // a file's header may say anything
    for range in [0..9, 9..10, 8..0, usize::MAX - 1..usize::MAX] {
        let error = Weights::in_place(Arc::clone(&map), range, FloatFormat::F32, 1, 2).expect_err("not in the file");
        assert!(matches!(error, WeightsError::Range { .. }), "{error}");
    }
    let error = Weights::in_place(map, 0..4, FloatFormat::F32, 1, 2).expect_err("8 bytes are needed");
    assert!(matches!(error, WeightsError::Length { expected: 8, found: 4, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_row_alone_has_the_bits_it_has_in_a_batch(
        k in prop_oneof![Just(1_usize), Just(7), Just(8), Just(64), Just(172), Just(352), 1..200_usize, 1020..1060_usize],
        n in 1..70_usize,
        rows in 1..=40_usize,
        format in 0..3_usize,
        with_bias: bool,
        seed: u64,
    ) {
        let w = packed(&weights(seed, FORMATS[format], n, k));
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
    fn a_batch_may_be_cut_anywhere(rows in 2..=40_usize, cut in 0.0..1.0_f64, k in 1..400_usize, seed: u64) {
        let kernels = Kernels::new(2).expect("threads start");
        let w = packed(&weights(seed, FloatFormat::Bf16, 50, k));
        let x = values(seed ^ 1, rows * k, 3.0);
        let (first, second) = x.split_at((rows as f64 * cut) as usize * k);
        let parts = [product(&kernels, first, &w, None), product(&kernels, second, &w, None)].concat();
        prop_assert_eq!(bits(&parts), bits(&product(&kernels, &x, &w, None)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a product's rows go through on the way into it is what the operation of that name does before it.
    #[test]
    fn inputs_that_are_prepared_on_the_way_are_those_prepared_before(
        k in 1..400_usize, rows in 1..40_usize, gelu: bool, has_norm: bool, factor in prop_oneof![Just(1.0_f32), 0.1..2.0_f32],
        seed: u64,
    ) {
        let reference = reference();
        let matrices = FORMATS.map(|format| packed(&weights(seed ^ 1, format, 40, k)));
        let int8 = packed_as(&weights(seed ^ 1, FloatFormat::F32, 40, k), MatrixFormat::Quantized(QuantizedFormat::Int8));
        let matrices: Vec<_> = matrices.iter().chain([&int8]).collect();
        let (x, y, weight) = (values(seed, rows * k, 3.0), values(seed ^ 2, rows * k, 2.0), values(seed ^ 3, k, 1.0));
        let eps = 1e-5;

        let mut sum = x.clone();
        let [mut normed, mut normed_sum, mut gated] = [vec![0.0; x.len()], vec![0.0; x.len()], x.clone()];
        reference.rms_norm(&x, &weight, eps, &mut normed);
        let of_delta = values(seed ^ 4, k, 1.0);
        let residual = Residual { norm: has_norm.then_some((of_delta.as_slice(), eps)), factor };
        let activation = if gelu { Activation::GeluTanh } else { Activation::Silu };
        reference.add_rms_norm(&mut sum, &y, residual, &weight, eps, &mut normed_sum);
        reference.gated(activation, &mut gated, &y);
        let of = |kernels: &Kernels, input: Input<'_>| {
            let mut outs = vec![vec![f32::NAN; rows * 40]; matrices.len()];
            let of_one = |(w, out)| Product { weights: w, bias: None, out };
            let mut products: Vec<_> = matrices.iter().copied().zip(outs.iter_mut().map(Vec::as_mut_slice)).map(of_one).collect();
            kernels.matmul_of(input, rows, &mut products);
            bits(&outs.concat())
        };
        let [plain, normed, normed_sum, gated] =
            [&x, &normed, &normed_sum, &gated].map(|x| of(&reference, Input::Rows(x)));
        for kernels in all_kernels() {
            let mut added = x.clone();
            let input = Input::AddNorm { x: &mut added, delta: &y, residual, weight: &weight, eps };
            prop_assert_eq!(&of(&kernels, input), &normed_sum);
            prop_assert_eq!(bits(&added), bits(&sum));
            prop_assert_eq!(&of(&kernels, Input::Rows(&x)), &plain);
            prop_assert_eq!(&of(&kernels, Input::Norm { x: &x, weight: &weight, eps }), &normed);
            prop_assert_eq!(&of(&kernels, Input::Gated { gate: &x, up: &y, activation }), &gated);
        }
    }
}

//! Products with blocks as GGUF files store them: values unchanged, the same bits however they are cut, and what the
//! definition says.

mod common;

use common::{
    all_give_its_bits, all_kernels, naive, packed_as, product, reference, rounded, unpacked, values, widened,
};
use half::f16;
use paceline_kernels::{BlockFormat, Kernels, MatrixFormat, StoredFormat, Weights, WeightsError};

/// Where the halves of a block lie.
fn halves(format: BlockFormat) -> &'static [usize] {
    match format {
        BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q5_0 => &[0],
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        BlockFormat::Q2K => &[80, 82],
        BlockFormat::Q3K => &[108],
        BlockFormat::Q6K => &[208],
    }
}

/// Blocks of any bits, `byte` of each place, with halves that `half` makes of a place.
fn matrix(
    format: BlockFormat,
    rows: usize,
    columns: usize,
    byte: impl Fn(usize) -> u8,
    half: impl Fn(usize) -> f32,
) -> Weights {
    let len = rows * format.row_bytes(columns).expect("whole blocks");
    let mut bytes: Vec<u8> = (0..len).map(byte).collect();
    for (index, block) in bytes.chunks_exact_mut(format.block_bytes()).enumerate() {
        for (i, at) in halves(format).iter().enumerate() {
            block[*at..at + 2].copy_from_slice(&f16::from_f32(half(2 * index + i)).to_le_bytes());
        }
    }
    Weights::from_bytes(bytes, format, rows, columns).expect("the length is right")
}

/// As [`matrix`], of bits that look random.
fn random(seed: u64, format: BlockFormat, rows: usize, columns: usize) -> Weights {
    let len = rows * format.row_bytes(columns).expect("whole blocks");
    let bytes: Vec<u8> = values(seed, len, 128.0).into_iter().map(|value| value as i32 as u8).collect();
    let scales = values(seed + 1, 2 * len, 0.01);
    matrix(format, rows, columns, |at| bytes[at], |at| scales[at])
}

fn widths(format: BlockFormat) -> &'static [usize] {
    if format.block_values() == 32 { &[32, 64, 96, 576, 864] } else { &[256, 768] }
}

#[test]
fn packing_changes_no_value() {
    for format in BlockFormat::ALL {
        for &columns in widths(format) {
            for rows in [1, 15, 16, 17, 50] {
                let stored = random(7, format, rows, columns);
                let packed = packed_as(&stored, MatrixFormat::Blocks(format));
                let (expected, found) = (widened(&stored), unpacked(&packed));
                let differs = expected.iter().zip(&found).position(|(a, b)| a != b);
                assert_eq!(
                    differs,
                    None,
                    "{format} {rows} x {columns}: {:?}",
                    differs.map(|at| (expected[at], found[at]))
                );
            }
        }
    }
}

#[test]
fn packed_blocks_take_about_what_stored_ones_take() {
    for format in BlockFormat::ALL {
        let stored = random(7, format, 64, 1024);
        let packed = packed_as(&stored, MatrixFormat::Blocks(format));
        let ratio = packed.bytes() as f64 / stored.bytes() as f64;
        // Integers that share a byte in the file have one each.
        let most = match format {
            BlockFormat::Q2K => 1.25,
            BlockFormat::Q3K => 1.05,
            _ => 1.03,
        };
        assert!(ratio <= most, "{format}: {ratio}");
    }
}

#[test]
fn all_configurations_give_the_scalar_bits() {
    let (reference, all) = (reference(), all_kernels());
    for format in BlockFormat::ALL {
        for &k in widths(format) {
            for n in [1, 15, 17, 200] {
                let w = packed_as(&random(3, format, n, k), MatrixFormat::Blocks(format));
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

/// A row's product is the same whatever rows are beside it.
#[test]
fn rows_do_not_depend_on_each_other() {
    for format in BlockFormat::ALL {
        let (n, k) = (33, 512);
        let w = packed_as(&random(5, format, n, k), MatrixFormat::Blocks(format));
        for kernels in all_kernels() {
            let x = values(8, 17 * k, 1.0);
            let together = product(&kernels, &x, &w, None);
            for (x, expected) in x.chunks_exact(k).zip(together.chunks_exact(n)) {
                assert!(product(&kernels, x, &w, None) == expected, "{format} {kernels:?}");
            }
        }
    }
}

/// Activations that share a scale.
const SHARED: usize = 16;

fn assert_near_the_definition(kernels: &Kernels, stored: &Weights, x: &[f32], format: BlockFormat, what: &str) {
    let k = stored.in_features();
    let w = packed_as(stored, MatrixFormat::Blocks(format));
    let found = product(kernels, x, &w, None);
    let expected = naive(&rounded(x, k, SHARED), &widened(stored), k);
    for (at, (found, (sum, size))) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(*found) - sum).abs();
        assert!(off <= 2e-6 * size + 1e-30, "{kernels:?} {format} {what} at {at}: {found} for {sum} of size {size}");
    }
}

#[test]
fn products_are_those_of_the_stored_values_and_rounded_activations() {
    for kernels in all_kernels() {
        for format in BlockFormat::ALL {
            for &k in widths(format) {
                let x = values(21, 5 * k, 3.0);
                assert_near_the_definition(&kernels, &random(9, format, 21, k), &x, format, "random");
            }
        }
    }
}

/// The largest steps and scales with the largest activations of either sign: sums then reach the bounds that instructions
/// have to hold.
#[test]
fn the_largest_integers_do_not_saturate() {
    let k = 256;
    for kernels in all_kernels() {
        for format in BlockFormat::ALL {
            // Ones everywhere, zeros everywhere, the least 8-bit integer everywhere, and both alternating.
            let bytes: [&dyn Fn(usize) -> u8; 5] =
                [&|_| 0xFF, &|_| 0, &|_| 0x80, &|_| 0x7F, &|at| if at.is_multiple_of(2) { 0x7F } else { 0x80 }];
            for (shape, byte) in bytes.into_iter().enumerate() {
                let stored = matrix(format, 17, k, byte, |at| if at % 3 == 0 { 1.0 } else { -0.5 });
                for sign in [[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]] {
                    let x: Vec<f32> = (0..3 * k).map(|i| sign[i % 2]).collect();
                    assert_near_the_definition(&kernels, &stored, &x, format, &format!("of shape {shape}"));
                }
            }
        }
    }
}

#[test]
fn a_scale_that_is_not_finite_is_found() {
    for format in BlockFormat::ALL {
        let kernels = Kernels::new(2).expect("threads start");
        let columns = 3 * format.block_values();
        assert_eq!(kernels.find_not_finite(&random(2, format, 5, columns), MatrixFormat::Blocks(format)), None);
        for (i, _) in halves(format).iter().enumerate() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                // The second block of row 3.
                let bad = matrix(format, 5, columns, |at| at as u8, |at| if at == 2 * 10 + i { bad } else { 1.0 });
                let found = kernels.find_not_finite(&bad, MatrixFormat::Blocks(format));
                assert_eq!(found, Some((3, format.block_values())), "{format}");
            }
        }
    }
}

#[test]
fn rows_are_whole_blocks() {
    for format in BlockFormat::ALL {
        let columns = format.block_values() + format.block_values() / 2;
        let error =
            Weights::from_bytes(vec![0; format.block_bytes() * 2], format, 1, columns).expect_err("half a block");
        assert!(matches!(error, WeightsError::Shape { .. }), "{error}");
        let error = Weights::from_bytes(vec![0; 3], format, 1, format.block_values()).expect_err("cut short");
        assert!(matches!(error, WeightsError::Length { format: StoredFormat::Blocks(_), .. }), "{error}");
    }
}

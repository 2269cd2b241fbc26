//! Norms, rotary embedding and gated activation: the same bits however they are cut, and close to what f64 gives.

mod common;

use common::{all_kernels, bits, reference, values};
use paceline_kernels::Kernels;
use proptest::prelude::*;

fn norm(kernels: &Kernels, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len()];
    kernels.rms_norm(x, weight, 1e-5, &mut out);
    out
}

fn gated(kernels: &Kernels, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; gate.len()];
    kernels.gated_silu(gate, up, &mut out);
    out
}

fn rotated(kernels: &Kernels, x: &[f32], heads: usize, dim: usize, cos: &[f32], sin: &[f32]) -> Vec<f32> {
    let mut x = x.to_vec();
    kernels.rotate(&mut x, cos.len() / (dim / 2), heads, dim, cos, sin);
    x
}

fn close(found: f32, exact: f64, units: f64) -> bool {
    (f64::from(found) - exact).abs() <= exact.abs() * units * f64::from(f32::EPSILON) + 1e-36
}

#[test]
fn norm_is_close_to_f64() {
    let kernels = Kernels::new(1).expect("threads start");
    for width in [1, 5, 16, 64, 576, 1000] {
        let (x, weight) = (values(1, 3 * width, 4.0), values(2, width, 2.0));
        let out = norm(&kernels, &x, &weight);
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            for ((x, weight), out) in x.iter().zip(&weight).zip(out) {
                let exact = f64::from(*x) / (mean + f64::from(1e-5_f32)).sqrt() * f64::from(*weight);
                assert!(close(*out, exact, 4.0 + width as f64 / 32.0), "{out} instead of {exact}");
            }
        }
    }
}

#[test]
fn gated_silu_is_close_to_f64_over_its_whole_range() {
    let kernels = Kernels::new(1).expect("threads start");
    let gate: Vec<f32> = (-9000..9000).map(|i| i as f32 / 100.0 + 0.003).collect();
    let up = values(3, gate.len(), 2.0);
    for ((gate, up), out) in gate.iter().zip(&up).zip(gated(&kernels, &gate, &up)) {
        let exact = f64::from(*gate) / (1.0 + (-f64::from(*gate)).exp()) * f64::from(*up);
        // Where e^-gate overflows the result is 0 instead of something up to 1e-36.
        assert!(close(out, exact, 4.0), "silu({gate}) * {up}: {out} instead of {exact}");
    }
    let ends = gated(&kernels, &[-1e30, 1e30, f32::INFINITY, f32::NAN], &[1.0; 4]);
    assert_eq!(ends[..3], [0.0, 1e30, f32::INFINITY]);
    assert!(ends[3].is_nan());
}

#[test]
fn rotation_is_by_halves() {
    let kernels = Kernels::new(1).expect("threads start");
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let (cos, sin) = ([0.0, 0.5], [1.0, 0.25]);
    // Two heads of [x1 x1 x2 x2] in one row.
    let expected = [-3.0, 2.0 * 0.5 - 4.0 * 0.25, 1.0, 4.0 * 0.5 + 2.0 * 0.25];
    let found = rotated(&kernels, &x, 2, 4, &cos, &sin);
    assert_eq!(found[..4], expected);
    assert_eq!(found[4..], [-7.0, 6.0 * 0.5 - 8.0 * 0.25, 5.0, 8.0 * 0.5 + 6.0 * 0.25]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_configurations_give_the_scalar_bits(width in 1..700_usize, rows in 1..60_usize, seed: u64) {
        let reference = reference();
        let (x, y, weight) = (values(seed, rows * width, 9.0), values(seed ^ 1, rows * width, 2.0), values(seed ^ 2, width, 1.0));
        let (normed, activated) = (norm(&reference, &x, &weight), gated(&reference, &x, &y));
        for kernels in all_kernels() {
            prop_assert_eq!(bits(&norm(&kernels, &x, &weight)), bits(&normed));
            prop_assert_eq!(bits(&gated(&kernels, &x, &y)), bits(&activated));
        }
        for row in 0..rows {
            let at = row * width..(row + 1) * width;
            prop_assert_eq!(bits(&norm(&reference, &x[at.clone()], &weight)), bits(&normed[at.clone()]));
            prop_assert_eq!(bits(&gated(&reference, &x[at.clone()], &y[at.clone()])), bits(&activated[at]));
        }
    }

    #[test]
    fn rotation_of_a_row_does_not_depend_on_the_others(
        half in 1..70_usize, heads in 1..10_usize, rows in 1..50_usize, seed: u64,
    ) {
        let dim = 2 * half;
        let x = values(seed, rows * heads * dim, 3.0);
        let angles = values(seed ^ 1, rows * half, 4.0);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        let expected = rotated(&reference(), &x, heads, dim, &cos, &sin);
        for kernels in all_kernels() {
            prop_assert_eq!(bits(&rotated(&kernels, &x, heads, dim, &cos, &sin)), bits(&expected));
        }
        for row in 0..rows {
            let (values, angles) = (row * heads * dim..(row + 1) * heads * dim, row * half..(row + 1) * half);
            let alone = rotated(&reference(), &x[values.clone()], heads, dim, &cos[angles.clone()], &sin[angles]);
            prop_assert_eq!(bits(&alone), bits(&expected[values]));
        }
    }
}

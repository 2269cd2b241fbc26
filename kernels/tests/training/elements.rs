//! Norm, rotary embedding, gated activation and the other operations on rows.

use paceline_kernels::{Activation, Kernels, RotaryDirection};
use proptest::prelude::*;

use crate::common::{all_give_its_bits, all_kernels, reference, values};
use crate::{assert_close, differences, dot, wide};

const EPS: f32 = 1e-5;

/// The gradients one after the other.
fn norm_backward(kernels: &Kernels, x: &[f32], weight: &[f32], d_out: &[f32]) -> Vec<f32> {
    let (mut d_x, mut d_weight) = (vec![f32::NAN; x.len()], vec![f32::NAN; weight.len()]);
    kernels.rms_norm_backward(x, weight, EPS, d_out, &mut d_x, &mut d_weight);
    [d_x, d_weight].concat()
}

fn naive_norm(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let rows = x.chunks_exact(weight.len()).flat_map(|x| {
        let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(EPS)).sqrt();
        x.iter().zip(weight).map(move |(x, weight)| x * scale * weight)
    });
    rows.collect()
}

#[test]
fn gradients_of_many_norms() {
    let (reference, all) = (reference(), all_kernels());
    // Enough rows for several pieces, and for several threads.
    for (rows, width) in [(1, 7), (64, 16), (65, 33), (700, 32), (200, 250)] {
        let (x, weight, d_out) = (values(1, rows * width, 2.0), values(2, width, 1.0), values(3, rows * width, 1.0));
        let what = format!("{rows} rows of {width}");
        all_give_its_bits(&reference, &all, |kernels| norm_backward(kernels, &x, &weight, &d_out), || what.clone());
        let mut exact_weight = vec![0.0; width];
        let mut exact_x = Vec::new();
        let (x_wide, weight_wide, d_out_wide) = (wide(&x), wide(&weight), wide(&d_out));
        for (x, d_out) in x_wide.chunks_exact(width).zip(d_out_wide.chunks_exact(width)) {
            let inverse = 1.0 / (dot(x, x) / width as f64 + f64::from(EPS)).sqrt();
            let along: f64 = (0..width).map(|i| d_out[i] * weight_wide[i] * x[i]).sum::<f64>() / width as f64;
            for i in 0..width {
                exact_x.push(inverse * d_out[i] * weight_wide[i] - x[i] * inverse.powi(3) * along);
                exact_weight[i] += d_out[i] * x[i] * inverse;
            }
        }
        let found = norm_backward(&all[all.len() - 1], &x, &weight, &d_out);
        assert_close(&found[..rows * width], &exact_x, 2e-6, &what);
        assert_close(&found[rows * width..], &exact_weight, 2e-6, &what);
    }
}

/// Rows of heads of `dim` values, of which `rotated` turn.
fn rotate(
    kernels: &Kernels,
    x: &[f32],
    [dim, rotated]: [usize; 2],
    positions: &[u32],
    direction: RotaryDirection,
) -> Vec<f32> {
    let (cos, sin) = tables(rotated, 50);
    let mut x = x.to_vec();
    kernels.rotary(&mut x, dim, rotated, &cos, &sin, positions, direction);
    x
}

fn tables(dim: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
    let angles = |f: fn(f64) -> f64| {
        (0..positions * dim / 2)
            .map(|i| f((i / (dim / 2)) as f64 * 100.0_f64.powf(-((i % (dim / 2)) as f64) / dim as f64)) as f32)
            .collect()
    };
    (angles(f64::cos), angles(f64::sin))
}

fn naive_rotary(x: &[f64], [dim, rotated]: [usize; 2], positions: &[u32]) -> Vec<f64> {
    let (cos, sin) = tables(rotated, 50);
    let (half, width) = (rotated / 2, x.len() / positions.len());
    let value = |i: usize| {
        if i % dim >= rotated {
            return x[i];
        }
        let angle = positions[i / width] as usize * half + i % dim % half;
        let (cos, sin) = (f64::from(cos[angle]), f64::from(sin[angle]));
        if i % dim < half { x[i] * cos - x[i + half] * sin } else { x[i] * cos + x[i - half] * sin }
    };
    (0..x.len()).map(value).collect()
}

#[test]
fn rotations_of_many_rows() {
    let (reference, all) = (reference(), all_kernels());
    let positions: Vec<u32> = (0..300).map(|row| row * 7 % 50).collect();
    for (dim, rotated, heads) in [(32, 32, 8), (6, 6, 3), (64, 64, 1), (80, 80, 2), (96, 72, 2), (7, 4, 3)] {
        let x = values(4, positions.len() * dim * heads, 2.0);
        for direction in [RotaryDirection::Forward, RotaryDirection::Backward] {
            let run = |kernels: &Kernels| rotate(kernels, &x, [dim, rotated], &positions, direction);
            all_give_its_bits(&reference, &all, run, || format!("{heads} heads of {dim}"));
        }
    }
}

/// The gradients one after the other.
fn gated_backward(kernels: &Kernels, gate: &[f32], up: &[f32], d_out: &[f32]) -> Vec<f32> {
    let (mut d_gate, mut d_up) = (vec![f32::NAN; gate.len()], vec![f32::NAN; up.len()]);
    kernels.gated_silu_backward(gate, up, d_out, &mut d_gate, &mut d_up);
    [d_gate, d_up].concat()
}

fn gated_forward(kernels: &Kernels, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; gate.len()];
    kernels.gated_silu_forward(gate, up, &mut out);
    out
}

fn naive_gated(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
}

#[test]
fn the_gated_activation_of_many_values() {
    let (reference, all) = (reference(), all_kernels());
    for len in [1, 31, 70_001] {
        let (gate, up, d_out) = (values(5, len, 9.0), values(6, len, 2.0), values(7, len, 1.0));
        all_give_its_bits(&reference, &all, |k| gated_forward(k, &gate, &up), || format!("{len} values"));
        all_give_its_bits(&reference, &all, |k| gated_backward(k, &gate, &up, &d_out), || format!("{len} gradients"));
        let mut in_place = gate.clone();
        reference.gated(Activation::Silu, &mut in_place, &up);
        assert_eq!(gated_forward(&reference, &gate, &up), in_place);
    }
    // Far out the slope is 0 or 1, not a number that is none.
    let found = gated_backward(&reference, &[-1e30, -100.0, 100.0, 1e30], &[1.0; 4], &[1.0; 4]);
    assert_eq!(found, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 100.0, 1e30]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_norms_gradient_is_that_of_its_differences(rows in 1_usize..4, width in 1_usize..40, seed: u64) {
        let (x, weight) = (values(seed, rows * width, 2.0), values(seed ^ 1, width, 1.0));
        let d_out = values(seed ^ 2, rows * width, 1.0);
        let found = norm_backward(&Kernels::new(2).expect("threads start"), &x, &weight, &d_out);
        let inputs = [wide(&x), wide(&weight)].concat();
        let exact = differences(&inputs, |inputs| {
            let (x, weight) = inputs.split_at(rows * width);
            dot(&naive_norm(x, weight), &wide(&d_out))
        });
        assert_close(&found, &exact, 1e-5, "norm");
    }

    #[test]
    fn rotary_and_its_gradient(
        half in 1_usize..40, rest in prop_oneof![Just(0_usize), 1_usize..30], heads in 1_usize..4, rows in 1_usize..5, seed: u64,
    ) {
        let (dim, kernels) = (2 * half + rest, Kernels::new(2).expect("threads start"));
        let sizes = [dim, 2 * half];
        let (x, d_out) = (values(seed, rows * heads * dim, 2.0), values(seed ^ 1, rows * heads * dim, 1.0));
        let positions: Vec<u32> = (0..rows).map(|row| (seed >> (8 * row)) as u32 % 50).collect();
        let forward = rotate(&kernels, &x, sizes, &positions, RotaryDirection::Forward);
        assert_close(&forward, &naive_rotary(&wide(&x), sizes, &positions), 1e-6, "forward");
        let backward = rotate(&kernels, &d_out, sizes, &positions, RotaryDirection::Backward);
        let exact = differences(&wide(&x), |x| dot(&naive_rotary(x, sizes, &positions), &wide(&d_out)));
        assert_close(&backward, &exact, 1e-6, "backward");
    }

    #[test]
    fn the_gated_activation_and_its_gradient(len in 1_usize..50, seed: u64) {
        let kernels = Kernels::new(2).expect("threads start");
        let (gate, up, d_out) = (values(seed, len, 9.0), values(seed ^ 1, len, 2.0), values(seed ^ 2, len, 1.0));
        assert_close(&gated_forward(&kernels, &gate, &up), &naive_gated(&wide(&gate), &wide(&up)), 1e-6, "forward");
        let exact = differences(&[wide(&gate), wide(&up)].concat(), |inputs| {
            let (gate, up) = inputs.split_at(len);
            dot(&naive_gated(gate, up), &wide(&d_out))
        });
        assert_close(&gated_backward(&kernels, &gate, &up, &d_out), &exact, 1e-6, "backward");
    }
}

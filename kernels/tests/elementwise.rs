//! Norms, rotary embedding and gated activation: the same bits however they are cut, and close to what f64 gives.

mod common;

use common::{Cache, all_kernels, bits, reference, values};
use paceline_kernels::{Activation, CacheFormat, HeadNorms, HeadTransform, Kernels, Residual, Run};
use proptest::prelude::*;

fn norm(kernels: &Kernels, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len()];
    kernels.rms_norm(x, weight, 1e-5, &mut out);
    out
}

/// The sum of `x` and `delta`, and its norm.
fn add_norm(
    kernels: &Kernels,
    x: &[f32],
    delta: &[f32],
    residual: Residual<'_>,
    weight: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (mut sum, mut out) = (x.to_vec(), vec![f32::NAN; x.len()]);
    kernels.add_rms_norm(&mut sum, delta, residual, weight, 1e-5, &mut out);
    (sum, out)
}

fn added(kernels: &Kernels, x: &[f32], delta: &[f32], residual: Residual<'_>, width: usize) -> Vec<f32> {
    let mut sum = x.to_vec();
    kernels.add_residual(&mut sum, delta, residual, width);
    sum
}

fn gated(kernels: &Kernels, activation: Activation, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = gate.to_vec();
    kernels.gated(activation, &mut out, up);
    out
}

fn capped(kernels: &Kernels, x: &[f32], cap: f32) -> Vec<f32> {
    let mut out = x.to_vec();
    kernels.soft_cap(&mut out, cap);
    out
}

/// Queries and keys of `[heads, dim]` a row: both as they come out.
struct Heads {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    /// Norm weights of queries and keys.
    norms: Option<(Vec<f32>, Vec<f32>)>,
    /// Angles of a row: half as many as values of a head turn.
    angles: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Heads {
    /// The rows of `range`.
    fn transformed(&self, kernels: &Kernels, range: std::ops::Range<usize>) -> (Vec<f32>, Vec<f32>) {
        let rows = |width: usize| range.start * width..range.end * width;
        let (mut q, mut k) =
            (self.q[rows(self.heads * self.dim)].to_vec(), self.k[rows(self.kv_heads * self.dim)].to_vec());
        let transform = HeadTransform {
            norms: self.norms.as_ref().map(|(query, key)| HeadNorms { query, key, eps: 1e-5 }),
            cos: &self.cos[rows(self.angles)],
            sin: &self.sin[rows(self.angles)],
        };
        let mut cache = Cache::new(self.kv_heads, self.dim, range.len(), CacheFormat::F32);
        let (v, runs) = (k.clone(), [Run { pages: &cache.pages, start: 0, rows: range.len() }]);
        kernels.append_rotated(&mut q, &mut k, &v, &runs, transform, &mut cache.layer);
        (q, k)
    }
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
fn activations_are_close_to_f64_over_their_whole_range() {
    let kernels = Kernels::new(1).expect("threads start");
    let gate: Vec<f32> = (-9000..9000).map(|i| i as f32 / 100.0 + 0.003).collect();
    let up = values(3, gate.len(), 2.0);
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let gelu = |x: f64| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        x / (1.0 + (-2.0 * inner).exp())
    };
    let cases: [(Activation, &dyn Fn(f64) -> f64); 2] = [(Activation::Silu, &silu), (Activation::GeluTanh, &gelu)];
    for (activation, exact) in cases {
        for ((gate, up), out) in gate.iter().zip(&up).zip(gated(&kernels, activation, &gate, &up)) {
            let exact = exact(f64::from(*gate)) * f64::from(*up);
            // The exponential's argument is rounded, by more where it is larger; where it overflows the result is 0 instead of
            // something up to 1e-36.
            let argument = if activation == Activation::GeluTanh { gate.abs().powi(3) / 10.0 } else { 0.0 };
            let units = 5.0 + f64::from(argument.min(90.0));
            assert!(close(out, exact, units), "{activation:?} of {gate}, times {up}: {out} instead of {exact}");
        }
        let ends = gated(&kernels, activation, &[-1e30, 1e30, f32::INFINITY, f32::NAN], &[1.0; 4]);
        assert_eq!(ends[..3], [0.0, 1e30, f32::INFINITY]);
        assert!(ends[3].is_nan());
    }
}

/// The definition that checkpoints were trained with, in which a large negative number is 1 plus nearly -1.
#[test]
fn the_gaussian_unit_is_the_one_with_a_tangent() {
    for x in [-3.0_f64, -1.0, -0.1, 0.0, 0.2, 1.5, 4.0] {
        let tangent = ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh();
        let found = gated(&reference(), Activation::GeluTanh, &[x as f32], &[1.0])[0];
        assert!((f64::from(found) - 0.5 * x * (1.0 + tangent)).abs() < 1e-6, "{x}: {found}");
    }
}

#[test]
fn caps_are_close_to_f64() {
    for cap in [0.5, 30.0, 50.0] {
        let x: Vec<f32> = (-4000..4000).map(|i| i as f32 / 20.0 + 0.003).collect();
        for (x, out) in x.iter().zip(capped(&reference(), &x, cap)) {
            let exact = f64::from(cap) * (f64::from(*x) / f64::from(cap)).tanh();
            assert!(close(out, exact, 5.0) && out.abs() <= cap, "{x} under {cap}: {out} instead of {exact}");
        }
    }
}

#[test]
fn residuals_are_close_to_f64() {
    let kernels = Kernels::new(1).expect("threads start");
    for width in [1, 5, 16, 64, 1000] {
        let (x, delta, weight) = (values(1, 3 * width, 4.0), values(2, 3 * width, 2.0), values(3, width, 2.0));
        for (normed, factor) in [(false, 1.0), (false, 0.22), (true, 1.0), (true, 0.22)] {
            let residual = Residual { norm: normed.then_some((weight.as_slice(), 1e-5)), factor };
            let sum = added(&kernels, &x, &delta, residual, width);
            let rows = x.chunks_exact(width).zip(delta.chunks_exact(width)).zip(sum.chunks_exact(width));
            for ((x, delta), sum) in rows {
                let mean = delta.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
                let root = (mean + f64::from(1e-5_f32)).sqrt();
                for i in 0..width {
                    let weighed =
                        if normed { f64::from(delta[i]) / root * f64::from(weight[i]) } else { f64::from(delta[i]) };
                    let exact = f64::from(x[i]) + weighed * f64::from(factor);
                    let size = exact.abs() + weighed.abs();
                    let apart = (f64::from(sum[i]) - exact).abs();
                    assert!(apart <= size * 2e-6, "{} instead of {exact}, width {width}, {residual:?}", sum[i]);
                }
            }
        }
    }
}

#[test]
fn rotation_is_by_halves() {
    // Two heads of [x1 x1 x2 x2] in one row of queries, one of keys.
    let q = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let (cos, sin) = (vec![0.0, 0.5], vec![1.0, 0.25]);
    let heads = Heads { heads: 2, kv_heads: 1, dim: 4, k: q[..4].to_vec(), q, norms: None, angles: 2, cos, sin };
    let (q, k) = heads.transformed(&Kernels::new(1).expect("threads start"), 0..1);
    let expected = [-3.0, 2.0 * 0.5 - 4.0 * 0.25, 1.0, 4.0 * 0.5 + 2.0 * 0.25];
    assert_eq!(q[..4], expected);
    assert_eq!(q[4..], [-7.0, 6.0 * 0.5 - 8.0 * 0.25, 5.0, 8.0 * 0.5 + 6.0 * 0.25]);
    assert_eq!(k, expected);
}

/// Of a head of six, the first four turn as a head of four does.
#[test]
fn a_part_of_a_head_or_none_of_it_can_turn() {
    let q: Vec<f32> = (1..=6).map(|value| value as f32).collect();
    let (cos, sin) = (vec![0.0, 0.5], vec![1.0, 0.25]);
    let heads = Heads { heads: 1, kv_heads: 1, dim: 6, k: q.clone(), q: q.clone(), norms: None, angles: 2, cos, sin };
    let expected = [-3.0, 0.0, 1.0, 2.5, 5.0, 6.0];
    for kernels in all_kernels() {
        let (turned, keys) = heads.transformed(&kernels, 0..1);
        assert_eq!((&turned[..], &keys[..]), (&expected[..], &expected[..]));
    }
    let still = Heads { angles: 0, cos: Vec::new(), sin: Vec::new(), ..heads };
    assert_eq!(still.transformed(&reference(), 0..1), (q.clone(), q));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_configurations_give_the_scalar_bits(
        width in 1..700_usize, rows in 1..60_usize, gelu: bool, has_norm: bool, factor in prop_oneof![Just(1.0_f32), 0.1..2.0_f32],
        seed: u64,
    ) {
        let reference = reference();
        let (x, y, weight) = (values(seed, rows * width, 9.0), values(seed ^ 1, rows * width, 2.0), values(seed ^ 2, width, 1.0));
        let activation = if gelu { Activation::GeluTanh } else { Activation::Silu };
        let (normed, activated) = (norm(&reference, &x, &weight), gated(&reference, activation, &x, &y));
        let of_delta = values(seed ^ 3, width, 1.0);
        let residual = Residual { norm: has_norm.then_some((of_delta.as_slice(), 1e-5)), factor };
        // A norm and a factor are what they are before the sum.
        let delta = if has_norm { norm(&reference, &y, &of_delta) } else { y.clone() };
        let sum: Vec<f32> = x.iter().zip(&delta).map(|(x, delta)| x + delta * factor).collect();
        let capped_reference = capped(&reference, &x, 3.0);
        let normed_sum = norm(&reference, &sum, &weight);
        for kernels in all_kernels() {
            let (found_sum, found) = add_norm(&kernels, &x, &y, residual, &weight);
            prop_assert_eq!((bits(&found_sum), bits(&found)), (bits(&sum), bits(&normed_sum)));
            prop_assert_eq!(bits(&norm(&kernels, &x, &weight)), bits(&normed));
            prop_assert_eq!(bits(&gated(&kernels, activation, &x, &y)), bits(&activated));
            prop_assert_eq!(bits(&added(&kernels, &x, &y, residual, width)), bits(&sum));
            prop_assert_eq!(bits(&capped(&kernels, &x, 3.0)), bits(&capped_reference));
        }
        for row in 0..rows {
            let at = row * width..(row + 1) * width;
            prop_assert_eq!(bits(&norm(&reference, &x[at.clone()], &weight)), bits(&normed[at.clone()]));
            prop_assert_eq!(bits(&gated(&reference, activation, &x[at.clone()], &y[at.clone()])), bits(&activated[at]));
        }
    }

    /// A head's norm is a row's, and neither it nor the rotation knows of other rows.
    #[test]
    fn heads_of_a_row_do_not_depend_on_the_others(
        angles in 0..70_usize, rest in prop_oneof![Just(0_usize), 1..40_usize], kv_heads in 1..4_usize, group in 1..4_usize,
        rows in 1..50_usize, normed: bool, seed: u64,
    ) {
        let (dim, heads) = ((2 * angles + rest).max(1), group * kv_heads);
        let at_angles = values(seed ^ 1, rows * angles, 4.0);
        let (cos, sin): (Vec<f32>, Vec<f32>) = at_angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        let weights = (values(seed ^ 2, dim, 1.0), values(seed ^ 3, dim, 1.0));
        let (q, k) = (values(seed, rows * heads * dim, 3.0), values(seed ^ 4, rows * kv_heads * dim, 3.0));
        let norms = normed.then(|| weights.clone());
        let given = Heads { heads, kv_heads, dim, q, k, norms, angles, cos, sin };
        let expected = given.transformed(&reference(), 0..rows);
        for kernels in all_kernels() {
            let found = given.transformed(&kernels, 0..rows);
            prop_assert_eq!((bits(&found.0), bits(&found.1)), (bits(&expected.0), bits(&expected.1)));
        }
        for row in 0..rows {
            let (q, k) = given.transformed(&reference(), row..row + 1);
            prop_assert_eq!(bits(&q), bits(&expected.0[row * heads * dim..(row + 1) * heads * dim]));
            prop_assert_eq!(bits(&k), bits(&expected.1[row * kv_heads * dim..(row + 1) * kv_heads * dim]));
        }
        if normed {
            let (q, k) = (norm(&reference(), &given.q, &weights.0), norm(&reference(), &given.k, &weights.1));
            let separately = Heads { q, k, norms: None, ..given }.transformed(&reference(), 0..rows);
            prop_assert_eq!((bits(&separately.0), bits(&separately.1)), (bits(&expected.0), bits(&expected.1)));
        }
    }
}

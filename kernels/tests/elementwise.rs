//! Norms, rotary embedding and gated activation: the same bits however they are cut, and close to what f64 gives.

mod common;

use common::{Cache, all_kernels, bits, reference, values};
use paceline_kernels::{CacheFormat, HeadNorms, HeadTransform, Kernels, Run};
use proptest::prelude::*;

fn norm(kernels: &Kernels, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len()];
    kernels.rms_norm(x, weight, 1e-5, &mut out);
    out
}

/// The sum of `x` and `delta`, and its norm.
fn add_norm(kernels: &Kernels, x: &[f32], delta: &[f32], weight: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut sum, mut out) = (x.to_vec(), vec![f32::NAN; x.len()]);
    kernels.add_rms_norm(&mut sum, delta, weight, 1e-5, &mut out);
    (sum, out)
}

fn gated(kernels: &Kernels, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = gate.to_vec();
    kernels.gated_silu(&mut out, up);
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
            cos: &self.cos[rows(self.dim / 2)],
            sin: &self.sin[rows(self.dim / 2)],
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
    // Two heads of [x1 x1 x2 x2] in one row of queries, one of keys.
    let q = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let (cos, sin) = (vec![0.0, 0.5], vec![1.0, 0.25]);
    let heads = Heads { heads: 2, kv_heads: 1, dim: 4, k: q[..4].to_vec(), q, norms: None, cos, sin };
    let (q, k) = heads.transformed(&Kernels::new(1).expect("threads start"), 0..1);
    let expected = [-3.0, 2.0 * 0.5 - 4.0 * 0.25, 1.0, 4.0 * 0.5 + 2.0 * 0.25];
    assert_eq!(q[..4], expected);
    assert_eq!(q[4..], [-7.0, 6.0 * 0.5 - 8.0 * 0.25, 5.0, 8.0 * 0.5 + 6.0 * 0.25]);
    assert_eq!(k, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_configurations_give_the_scalar_bits(width in 1..700_usize, rows in 1..60_usize, seed: u64) {
        let reference = reference();
        let (x, y, weight) = (values(seed, rows * width, 9.0), values(seed ^ 1, rows * width, 2.0), values(seed ^ 2, width, 1.0));
        let (normed, activated) = (norm(&reference, &x, &weight), gated(&reference, &x, &y));
        let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        let normed_sum = norm(&reference, &sum, &weight);
        for kernels in all_kernels() {
            let (found_sum, found) = add_norm(&kernels, &x, &y, &weight);
            prop_assert_eq!((bits(&found_sum), bits(&found)), (bits(&sum), bits(&normed_sum)));
            prop_assert_eq!(bits(&norm(&kernels, &x, &weight)), bits(&normed));
            prop_assert_eq!(bits(&gated(&kernels, &x, &y)), bits(&activated));
        }
        for row in 0..rows {
            let at = row * width..(row + 1) * width;
            prop_assert_eq!(bits(&norm(&reference, &x[at.clone()], &weight)), bits(&normed[at.clone()]));
            prop_assert_eq!(bits(&gated(&reference, &x[at.clone()], &y[at.clone()])), bits(&activated[at]));
        }
    }

    /// A head's norm is a row's, and neither it nor the rotation knows of other rows.
    #[test]
    fn heads_of_a_row_do_not_depend_on_the_others(
        half in 1..70_usize, kv_heads in 1..4_usize, group in 1..4_usize, rows in 1..50_usize, normed: bool, seed: u64,
    ) {
        let (dim, heads) = (2 * half, group * kv_heads);
        let angles = values(seed ^ 1, rows * half, 4.0);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        let weights = (values(seed ^ 2, dim, 1.0), values(seed ^ 3, dim, 1.0));
        let (q, k) = (values(seed, rows * heads * dim, 3.0), values(seed ^ 4, rows * kv_heads * dim, 3.0));
        let norms = normed.then(|| weights.clone());
        let given = Heads { heads, kv_heads, dim, q, k, norms, cos, sin };
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

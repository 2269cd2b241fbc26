//! The kernels for training: close to naive f64, gradients close to the differences of a naive f64 forward pass, and the
//! same bits for every number of threads and instruction set.

mod attention;
#[path = "../common/mod.rs"]
mod common;
mod elements;
mod losses;
mod optimizer;
mod products;

/// The values in f64.
fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// The gradient of `loss` at `at`, by central differences.
fn differences(at: &[f64], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut at = at.to_vec();
    (0..at.len())
        .map(|i| {
            let (value, step) = (at[i], 1e-5);
            at[i] = value + step;
            let above = loss(&at);
            at[i] = value - step;
            let below = loss(&at);
            at[i] = value;
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// Checks that `found` is `exact` up to `tolerance` of the greatest magnitude, or of 1.
fn assert_close(found: &[f32], exact: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), exact.len(), "{what}");
    let size = exact.iter().fold(1.0_f64, |size, value| size.max(value.abs()));
    for (i, (found, exact)) in found.iter().zip(exact).enumerate() {
        let error = (f64::from(*found) - exact).abs();
        assert!(error <= tolerance * size, "{what}: value {i} is {found} instead of {exact}");
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

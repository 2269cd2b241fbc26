//! The nearest matrix whose singular values are all about one.

use paceline_kernels::{Kernels, MatrixLayout, TrainingPrecision};

/// Steps of the iteration; after five the singular values lie between 0.7 and 1.2 (Jordan et al. 2024).
const STEPS: usize = 5;

/// Coefficients of `a x + b x^3 + c x^5`, which moves singular values towards one the fastest from far below it.
const A: f32 = 3.4445;
const B: f32 = -4.7750;
const C: f32 = 2.0315;

/// `matrix` `[rows, columns]`, row-major, with its singular values moved to about one: a quintic Newton-Schulz iteration
/// in bf16 products (Jordan et al. 2024, "Muon"). A matrix of zeros stays one.
pub(super) fn orthogonalized(kernels: &Kernels, matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    use MatrixLayout::{Plain, Transposed};
    let norm = kernels.global_norm_squared(&[matrix]).sqrt() as f32;
    let mut x: Vec<f32> = matrix.iter().map(|value| value / (norm + 1e-7)).collect();
    let mut next = vec![0.0; x.len()];
    let side = rows.min(columns);
    let mut square = vec![0.0; side * side];
    let mut fourth = vec![0.0; side * side];
    let product = |a: &[f32], a_layout, b: &[f32], b_layout, [m, n, k]: [usize; 3], out: &mut [f32]| {
        kernels.gemm(TrainingPrecision::Bf16, a, a_layout, b, b_layout, m, n, k, false, out);
    };
    for _ in 0..STEPS {
        // With S = x x^T (or x^T x, whichever is smaller) the polynomial is (A + B S + C S^2) x.
        match rows <= columns {
            true => product(&x, Plain, &x, Transposed, [rows, rows, columns], &mut square),
            false => product(&x, Transposed, &x, Plain, [columns, columns, rows], &mut square),
        }
        product(&square, Plain, &square, Plain, [side; 3], &mut fourth);
        for (fourth, square) in fourth.iter_mut().zip(&square) {
            *fourth = B * square + C * *fourth;
        }
        fourth.iter_mut().step_by(side + 1).for_each(|diagonal| *diagonal += A);
        match rows <= columns {
            true => product(&fourth, Plain, &x, Plain, [rows, columns, rows], &mut next),
            false => product(&x, Plain, &fourth, Plain, [rows, columns, columns], &mut next),
        }
        std::mem::swap(&mut x, &mut next);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Singular directions are kept, and the values along them become about one: of a matrix `u diag(s) v^T` comes about
    /// `u v^T`. Householder reflections are the u and v.
    #[test]
    fn singular_values_become_about_one_and_directions_stay() {
        let kernels = Kernels::new(2).expect("threads start");
        for (rows, columns) in [(24, 24), (16, 40), (40, 16)] {
            let side = rows.min(columns);
            let u = |i: usize, j: usize| reflection(rows, i, j);
            let v = |i: usize, j: usize| reflection(columns, i, j);
            let compose = |s: &dyn Fn(usize) -> f32| -> Vec<f32> {
                let value = |i: usize, j: usize| (0..side).map(|k| u(i, k) * s(k) * v(j, k)).sum();
                (0..rows * columns).map(|at| value(at / columns, at % columns)).collect()
            };
            let matrix = compose(&|k| 3.0 * 0.9f32.powi(k as i32));
            let found = orthogonalized(&kernels, &matrix, rows, columns);
            for k in 0..side {
                let along: f32 =
                    (0..rows * columns).map(|at| u(at / columns, k) * found[at] * v(at % columns, k)).sum();
                assert!((0.6..1.3).contains(&along), "{rows} x {columns}, direction {k}: {along}");
            }
            let length: f32 = found.iter().map(|value| value * value).sum();
            assert!(length < 1.3f32.powi(2) * side as f32, "{length}");
        }
        assert_eq!(orthogonalized(&kernels, &[0.0; 12], 3, 4), [0.0; 12]);
    }

    /// An entry of the reflection at a vector of this length.
    fn reflection(n: usize, i: usize, j: usize) -> f32 {
        let w = |i: usize| 1.0 + (i * 7 % 5) as f32;
        let norm: f32 = (0..n).map(|i| w(i) * w(i)).sum();
        f32::from(u8::from(i == j)) - 2.0 * w(i) * w(j) / norm
    }
}

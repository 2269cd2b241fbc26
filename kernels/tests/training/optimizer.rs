//! Sums of gradients, their norm, and the optimizer's step.

use paceline_kernels::{AdamWSettings, Kernels};
use proptest::prelude::*;

use crate::common::{all_give_its_bits, all_kernels, reference, values};
use crate::{assert_close, wide};

const SETTINGS: AdamWSettings = AdamWSettings {
    learning_rate: 0.03,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-6,
    weight_decay: 0.1,
    gradient_scale: 0.5,
};

/// The parameter and both means after three steps.
fn three_steps(kernels: &Kernels, len: usize) -> Vec<f32> {
    let mut parameter = values(1, len, 1.0);
    let (mut first, mut second) = (vec![0.0; len], vec![0.0; len]);
    for step in 1..=3 {
        kernels.adamw_step(&mut parameter, &values(step + 7, len, 1.0), &mut first, &mut second, &SETTINGS, step);
    }
    [parameter, first, second].concat()
}

fn naive_steps(len: usize) -> Vec<f64> {
    let mut parameter = wide(&values(1, len, 1.0));
    let (mut first, mut second) = (vec![0.0; len], vec![0.0; len]);
    let [rate, beta1, beta2, epsilon, decay] =
        [SETTINGS.learning_rate, SETTINGS.beta1, SETTINGS.beta2, SETTINGS.epsilon, SETTINGS.weight_decay]
            .map(f64::from);
    for step in 1..=3_u64 {
        for (i, gradient) in wide(&values(step + 7, len, 1.0)).into_iter().enumerate() {
            let gradient = 0.5 * gradient;
            parameter[i] -= rate * decay * parameter[i];
            first[i] = beta1 * first[i] + (1.0 - beta1) * gradient;
            second[i] = beta2 * second[i] + (1.0 - beta2) * gradient * gradient;
            let mean = first[i] / (1.0 - beta1.powi(step as i32));
            let size = (second[i] / (1.0 - beta2.powi(step as i32))).sqrt() + epsilon;
            parameter[i] -= rate * mean / size;
        }
    }
    [parameter, first, second].concat()
}

#[test]
fn steps_of_the_optimizer() {
    let (reference, all) = (reference(), all_kernels());
    for len in [1, 16, 40_003] {
        all_give_its_bits(&reference, &all, |kernels| three_steps(kernels, len), || format!("{len} parameters"));
        assert_close(&three_steps(&reference, len), &naive_steps(len), 1e-6, "steps");
    }
}

#[test]
fn norms_of_many_gradients() {
    let (reference, all) = (reference(), all_kernels());
    let gradients = [values(1, 100_001, 2.0), values(2, 5, 3.0), Vec::new(), values(3, 1 << 14, 1e-3)];
    let slices = gradients.each_ref().map(Vec::as_slice);
    let exact: f64 = gradients.iter().flatten().map(|value| f64::from(*value).powi(2)).sum();
    let found = reference.global_norm_squared(&slices);
    assert!((found / exact - 1.0).abs() < 1e-12, "{found} instead of {exact}");
    for kernels in &all {
        assert_eq!(kernels.global_norm_squared(&slices).to_bits(), found.to_bits(), "{kernels:?}");
    }
    // Where the squares leave the range of f32.
    assert!((reference.global_norm_squared(&[&[3e30, 4e30]]).sqrt() / 5e30 - 1.0).abs() < 1e-6);
    assert!(reference.global_norm_squared(&[&[f32::NAN]]).is_nan());
    assert_eq!(reference.global_norm_squared(&[]), 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sums_of_two(len in 0_usize..50_000, seed: u64) {
        let (a, b) = (values(seed, len, 1.0), values(seed ^ 1, len, 1.0));
        let exact: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        for kernels in all_kernels() {
            let mut a = a.clone();
            kernels.add_into(&mut a, &b);
            prop_assert_eq!(&a, &exact);
        }
    }

    #[test]
    fn gradients_of_embeddings(rows in 0_usize..300, width in 1_usize..200, vocabulary in 1_u32..40, seed: u64) {
        let d_rows = values(seed, rows * width, 1.0);
        let tokens: Vec<u32> =
            values(seed ^ 1, rows, 1.0).iter().map(|value| value.to_bits() % vocabulary).collect();
        let before = values(seed ^ 2, vocabulary as usize * width, 1.0);
        let mut exact = before.clone();
        for (row, token) in tokens.iter().enumerate() {
            for column in 0..width {
                exact[*token as usize * width + column] += d_rows[row * width + column];
            }
        }
        for kernels in all_kernels() {
            let mut matrix = before.clone();
            kernels.embedding_gradient(&d_rows, &tokens, width, &mut matrix);
            prop_assert_eq!(&matrix, &exact);
        }
    }
}

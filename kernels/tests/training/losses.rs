//! Losses over logits against a naive pass in f64, with their gradients.

use paceline_kernels::Kernels;
use proptest::prelude::*;

use crate::common::{all_give_its_bits, all_kernels, reference, values};
use crate::{assert_close, differences, wide};

/// A batch with targets of every kind.
struct Batch {
    vocabulary: usize,
    logits: Vec<f32>,
    weights: Vec<f32>,
    targets: Vec<u32>,
    /// Probabilities of all tokens.
    all: Vec<f32>,
    temperature: f32,
}

impl Batch {
    fn new(seed: u64, rows: usize, vocabulary: usize, temperature: f32) -> Self {
        let random = values(seed ^ 9, rows * vocabulary, 0.5);
        let mut all = Vec::new();
        for row in random.chunks_exact(vocabulary) {
            let total: f32 = row.iter().map(|value| value + 0.5).sum();
            all.extend(row.iter().map(|value| (value + 0.5) / total.max(1e-6)));
        }
        let mut weights: Vec<f32> = values(seed ^ 1, rows, 0.5).iter().map(|weight| weight + 0.6).collect();
        weights[rows / 2] = 0.0;
        let targets = values(seed ^ 2, rows, 0.5).into_iter().map(|value| ((value + 0.5) * vocabulary as f32) as u32);
        let targets = targets.map(|token| token.min(vocabulary as u32 - 1)).collect();
        let logits = values(seed, rows * vocabulary, 8.0);
        Self { vocabulary, logits, weights, targets, all, temperature }
    }

    /// The gradient by the logits, or for soft targets by the logits over the temperature, and the losses.
    fn run(&self, kernels: &Kernels, kind: Kind) -> Vec<f32> {
        let (mut logits, mut losses) = (self.logits.clone(), vec![f32::NAN; self.weights.len()]);
        let sum = match kind {
            Kind::Hard => kernels.softmax_cross_entropy(&mut logits, &self.targets, &self.weights, &mut losses),
            Kind::Soft => {
                kernels.soft_cross_entropy(&mut logits, self.temperature, &self.all, &self.weights, &mut losses)
            }
        };
        assert_eq!(sum, losses.iter().map(|loss| f64::from(*loss)).sum::<f64>());
        [logits, losses].concat()
    }

    /// The losses of the rows for other logits.
    fn naive(&self, logits: &[f64], kind: Kind) -> Vec<f64> {
        let rows = logits.chunks_exact(self.vocabulary).enumerate();
        let losses = rows.map(|(row, logits)| {
            let temperature = if kind == Kind::Soft { f64::from(self.temperature) } else { 1.0 };
            let power = |logit: f64| (logit / temperature).exp();
            let sum: f64 = logits.iter().map(|logit| power(*logit)).sum();
            let chance = |token: usize| power(logits[token]) / sum;
            let loss = match kind {
                Kind::Hard => -chance(self.targets[row] as usize).ln(),
                Kind::Soft => {
                    let targets = &self.all[row * self.vocabulary..][..self.vocabulary];
                    targets.iter().enumerate().map(|(token, q)| -f64::from(*q) * chance(token).ln()).sum()
                }
            };
            f64::from(self.weights[row]) * loss
        });
        losses.collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Hard,
    Soft,
}
const KINDS: [Kind; 2] = [Kind::Hard, Kind::Soft];

#[test]
fn losses_of_many_rows() {
    let (reference, all) = (reference(), all_kernels());
    for (rows, vocabulary, temperature) in [(40, 1000, 1.0), (300, 37, 2.5), (2, 16, 0.5)] {
        let batch = Batch::new(5, rows, vocabulary, temperature);
        for kind in KINDS {
            let what = || format!("{kind:?}, {rows} rows of {vocabulary}");
            all_give_its_bits(&reference, &all, |kernels| batch.run(kernels, kind), what);
            let losses = &batch.run(&reference, kind)[rows * vocabulary..];
            assert_close(losses, &batch.naive(&wide(&batch.logits), kind), 1e-6, &what());
        }
    }
}

/// Softmax and entropies, one after the other.
fn softened(kernels: &Kernels, logits: &[f32], rows: usize, temperature: f32) -> Vec<f32> {
    let (mut powers, mut entropies) = (logits.to_vec(), vec![f32::NAN; rows]);
    kernels.softmax_with_entropy(&mut powers, temperature, &mut entropies);
    [powers, entropies].concat()
}

#[test]
fn a_softmax_and_its_entropy() {
    let (reference, all) = (reference(), all_kernels());
    for (rows, vocabulary, temperature) in [(40, 1000, 1.0), (300, 37, 2.5), (2, 16, 0.5), (3, 1, 1.0)] {
        let logits = values(rows as u64, rows * vocabulary, 8.0);
        let what = || format!("{rows} rows of {vocabulary} at {temperature}");
        all_give_its_bits(&reference, &all, |kernels| softened(kernels, &logits, rows, temperature), what);
        let (mut powers, mut entropies) = (Vec::new(), Vec::new());
        for row in wide(&logits).chunks_exact(vocabulary) {
            let row: Vec<f64> = row.iter().map(|logit| (logit / f64::from(temperature)).exp()).collect();
            let sum: f64 = row.iter().sum();
            entropies.push(-row.iter().map(|power| power / sum * (power / sum).ln()).sum::<f64>());
            powers.extend(row.iter().map(|power| power / sum));
        }
        let found = softened(&reference, &logits, rows, temperature);
        assert_close(&found[..powers.len()], &powers, 1e-6, &what());
        assert_close(&found[powers.len()..], &entropies, 1e-5, &what());
    }
    reference.softmax_with_entropy(&mut [], 1.0, &mut []);
}

#[test]
fn losses_far_out() {
    let kernels = reference();
    let mut losses = [0.0; 1];
    // A token has all of the probability and hardly any chance.
    let mut logits = [-200.0, 0.0, 0.0];
    kernels.soft_cross_entropy(&mut logits, 1.0, &[1.0, 0.0, 0.0], &[1.0], &mut losses);
    assert!((losses[0] - 200.7).abs() < 0.1, "{losses:?}");
    assert!(logits.iter().all(|gradient| gradient.abs() <= 1.0 + 1e-6), "{logits:?}");
    let mut logits = [0.0, f32::NAN, 0.0];
    assert!(kernels.softmax_cross_entropy(&mut logits, &[0], &[1.0], &mut losses).is_nan());
    // A row that does not count may hold anything.
    let mut logits = [0.0, f32::NAN, 0.0];
    assert_eq!(kernels.softmax_cross_entropy(&mut logits, &[u32::MAX], &[0.0], &mut losses), 0.0);
    assert_eq!(logits, [0.0; 3]);
    assert_eq!(kernels.soft_cross_entropy(&mut [], 1.0, &[], &[], &mut []), 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn gradients_are_those_of_the_differences(
        rows in 1_usize..4,
        vocabulary in 2_usize..50,
        temperature in prop_oneof![Just(1.0_f32), 0.5..3.0_f32],
        seed: u64,
    ) {
        let batch = Batch::new(seed, rows, vocabulary, temperature);
        let kernels = Kernels::new(2).expect("threads start");
        for kind in KINDS {
            let exact = differences(&wide(&batch.logits), |logits| batch.naive(logits, kind).iter().sum());
            let by = if kind == Kind::Soft { temperature } else { 1.0 };
            let found: Vec<f32> = batch.run(&kernels, kind)[..rows * vocabulary].iter().map(|d| d / by).collect();
            assert_close(&found, &exact, 2e-6, &format!("{kind:?}"));
        }
    }
}

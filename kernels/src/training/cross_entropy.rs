//! Cross-entropy of a softmax with one right token a row, and its gradient.

use super::softmax::{exponentiate, greatest, scale};
use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::simd::{Op, Simd};

impl Kernels {
    /// Cross-entropy of the softmax of `logits`, `[rows, vocabulary]`, with the token `targets[r]` in row r: the row's
    /// loss, times `weights[r]`, goes to `losses[r]`, and their sum in f64, in order, is returned. The gradient of that
    /// sum takes the place of the logits: `weight (softmax - onehot)`.
    ///
    /// A row of weight 0 costs nothing, whatever its logits and its target are. A loss is not a number where a logit is
    /// none, and infinite where the target's is negative infinity.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length, there are rows of no logits, or a target that counts is not in
    /// the vocabulary.
    pub fn softmax_cross_entropy(
        &self,
        logits: &mut [f32],
        targets: &[u32],
        weights: &[f32],
        losses: &mut [f32],
    ) -> f64 {
        let vocabulary = check_rows(logits, targets.len(), weights, losses);
        let rows = targets.iter().zip(weights);
        assert!(
            rows.into_iter().all(|(target, weight)| *weight == 0.0 || (*target as usize) < vocabulary),
            "targets are in the vocabulary"
        );
        let (work, shared) = (4 * logits.len(), SharedOutput::new(logits));
        let shared_losses = SharedOutput::new(losses);
        self.split(targets.len(), 1, work, &|range| {
            // SAFETY: ranges do not overlap, here and below.
            let logits = unsafe { shared.slice(range.start * vocabulary, range.len() * vocabulary) };
            // SAFETY: as above.
            let losses = unsafe { shared_losses.slice(range.start, range.len()) };
            let (targets, weights) = (&targets[range.clone()], &weights[range]);
            self.isa.enter(Rows { logits, vocabulary, targets, weights, losses });
        });
        sum(losses)
    }
}

/// The vocabulary of `rows` rows of logits; 1 where there is no row.
pub(super) fn check_rows(logits: &[f32], rows: usize, weights: &[f32], losses: &[f32]) -> usize {
    assert_eq!(weights.len(), rows, "there is a weight for every row");
    assert_eq!(losses.len(), rows, "there is a loss for every row");
    if rows == 0 {
        assert!(logits.is_empty(), "logits are [rows, vocabulary]");
        return 1;
    }
    assert!(logits.len() >= rows && logits.len().is_multiple_of(rows), "logits are [rows, vocabulary]");
    logits.len() / rows
}

/// The sum in order.
pub(super) fn sum(losses: &[f32]) -> f64 {
    losses.iter().map(|loss| f64::from(*loss)).sum()
}

struct Rows<'a> {
    logits: &'a mut [f32],
    vocabulary: usize,
    targets: &'a [u32],
    weights: &'a [f32],
    losses: &'a mut [f32],
}

impl Op for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.logits.chunks_exact_mut(self.vocabulary).zip(self.targets);
        for ((row, target), (weight, loss)) in rows.zip(self.weights.iter().zip(self.losses)) {
            if *weight == 0.0 {
                row.fill(0.0);
                *loss = 0.0;
                continue;
            }
            let target = *target as usize;
            let highest = greatest(s, row);
            let margin = highest - row[target];
            let sum = exponentiate(s, row, highest);
            *loss = (f64::from(*weight) * (f64::from(sum).ln() + f64::from(margin))) as f32;
            scale(s, row, weight / sum);
            row[target] -= weight;
        }
    }
}

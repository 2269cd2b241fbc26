//! The worth of exit heads: how often they pick what the model picks, and whether they know.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use paceline::model::{Parameters, Trainable};

use super::Activations;
use super::heads::CHUNK;
use crate::objective::greatest;
use crate::optimizer::into_values;

/// Measurements of an exit, on rows that neither its head nor its temperature was fitted on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Layers before it.
    pub depth: usize,
    /// Share of rows in which the model's own norm and output matrix pick there what they pick after the last layer.
    pub untrained: f64,
    /// Share of rows in which the head does.
    pub agreement: f64,
    /// The expected calibration error of the head's greatest probability as the chance of that.
    pub raw_error: f64,
    /// The same with logits divided by the temperature.
    pub calibration_error: f64,
    /// The temperature, fitted on other rows.
    pub temperature: f32,
    /// Rows measured on.
    pub rows: usize,
}

/// Bins of confidence, as is usual (Guo et al. 2017).
const BINS: usize = 15;
/// Logits that are kept to fit a temperature on, at most: 256 MB.
const LOGITS: usize = 64 << 20;
/// Between which temperatures' reciprocals one is looked for.
const SHARPNESS: Range<f64> = 0.05..20.0;

/// Measures heads on `rows`: their first half is for the temperatures, the second for everything else.
pub fn measure(trunk: &Trainable, heads: &Parameters, depths: &[usize], rows: &Activations) -> Vec<Measured> {
    let model = trunk.model(true);
    let heads = &heads.frozen();
    let held = Held { heads, rows };
    let last = rows.last();
    let picks = held.map(0..rows.rows(), last, |hidden| model.logits(hidden), |_, logits| greatest(logits));
    let half = rows.rows() / 2;
    let of_depth = |(state, depth): (usize, &usize)| {
        let head = |hidden| model.exit(heads, *depth, hidden).1;
        // The search for the temperature passes over these logits again and again, so they stay in memory.
        let fitted = half.min(LOGITS / trunk.config().vocab_size).max(1);
        let logits = held.map(0..fitted, state, head, |_, logits| logits.to_vec());
        let sharpness = root(|sharpness| {
            let slopes = logits.iter().zip(&picks).map(|(logits, pick)| slope(logits, *pick, sharpness));
            slopes.fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1))
        });
        let report = half..rows.rows();
        let untrained = |row: usize, logits: &[f32]| greatest(logits) == picks[row];
        let untrained = held.map(report.clone(), state, |hidden| model.logits(hidden), untrained);
        let trained = held.map(report, state, head, |row, logits| {
            let pick = greatest(logits);
            (pick == picks[row], [1.0, sharpness].map(|sharpness| confidence(logits, pick, sharpness)))
        });
        let share = |hits: usize| hits as f64 / trained.len() as f64;
        let calibration = |which: usize| calibration_error(trained.iter().map(|row| (row.1[which], row.0)));
        Measured {
            depth: *depth,
            untrained: share(untrained.iter().filter(|agrees| **agrees).count()),
            agreement: share(trained.iter().filter(|row| row.0).count()),
            raw_error: calibration(0),
            calibration_error: calibration(1),
            temperature: (1.0 / sharpness) as f32,
            rows: trained.len(),
        }
    };
    depths.iter().enumerate().map(of_depth).collect()
}

/// Held-out rows, and heads on the device where their logits are computed.
struct Held<'a> {
    heads: &'a Parameters,
    rows: &'a Activations,
}

impl Held<'_> {
    /// The results of `f` on the logits that `logits` makes of a state of some rows; never more than a few rows at
    /// once.
    fn map<T>(
        &self,
        range: Range<usize>,
        state: usize,
        logits: impl Fn(Tensor<2>) -> Tensor<2>,
        f: impl Fn(usize, &[f32]) -> T,
    ) -> Vec<T> {
        let mut results = Vec::with_capacity(range.len());
        for start in range.clone().step_by(CHUNK) {
            let rows = start..range.end.min(start + CHUNK);
            let hidden = TensorData::new(self.rows.gather(state, rows.clone()), [rows.len(), self.rows.width()]);
            let values = into_values(logits(Tensor::from_data(hidden, self.heads.device())).inner());
            let vocabulary = values.len() / rows.len();
            results.extend(rows.zip(values.chunks_exact(vocabulary)).map(|(row, logits)| f(row, logits)));
        }
        results
    }
}

/// The probability of `pick`, which has the greatest logit, after all were multiplied by `sharpness`.
fn confidence(logits: &[f32], pick: usize, sharpness: f64) -> f64 {
    let highest = f64::from(logits[pick]);
    1.0 / logits.iter().map(|logit| (sharpness * (f64::from(*logit) - highest)).exp()).sum::<f64>()
}

/// First and second derivative of `-ln p(pick)` with respect to the sharpness.
fn slope(logits: &[f32], pick: usize, sharpness: f64) -> (f64, f64) {
    let highest = f64::from(logits[greatest(logits)]);
    let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
    for logit in logits {
        let below = f64::from(*logit) - highest;
        let power = (sharpness * below).exp();
        sum += power;
        first += power * below;
        second += power * below * below;
    }
    let mean = first / sum;
    (mean - (f64::from(logits[pick]) - highest), (second / sum - mean * mean).max(0.0))
}

/// Where a rising function of the sharpness, given with its derivative, is zero, or the nearest end of [`SHARPNESS`].
fn root(f: impl Fn(f64) -> (f64, f64)) -> f64 {
    let (mut low, mut high) = (SHARPNESS.start, SHARPNESS.end);
    let mut at = 1.0;
    for _ in 0..24 {
        let (value, derivative) = f(at);
        if value > 0.0 {
            high = at;
        } else {
            low = at;
        }
        let newton = at - value / derivative;
        // Newton's step where it stays between the bounds; their geometric mean where it does not.
        let next = if newton > low && newton < high { newton } else { (low * high).sqrt() };
        if (next - at).abs() < 1e-4 * at {
            return next;
        }
        at = next;
    }
    at
}

/// The expected calibration error (Naeini et al. 2015) of confidences in what came true or not: the mean distance of
/// confidence and share in equal bins, by their sizes.
fn calibration_error(rows: impl Iterator<Item = (f64, bool)>) -> f64 {
    let mut bins = [(0.0, 0.0); BINS];
    let mut all = 0.0;
    for (confidence, hit) in rows {
        let (sure, true_) = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        *sure += confidence;
        *true_ += f64::from(u8::from(hit));
        all += 1.0;
    }
    bins.iter().map(|(sure, hits): &(f64, f64)| (sure - hits).abs()).sum::<f64>() / f64::max(all, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calibration_error_is_that_of_the_bins() {
        // Three at 0.95 of which one hits, and one at 0.05 that misses: |2.85 - 1| + 0.05 over 4.
        let rows = [(0.95, true), (0.95, false), (0.95, false), (0.05, false)];
        assert!((calibration_error(rows.into_iter()) - (1.85 + 0.05) / 4.0).abs() < 1e-12);
        assert_eq!(calibration_error([(1.0, true)].into_iter()), 0.0);
    }

    /// Picks drawn from softmax(logits / 2): the temperature that explains them is 2.
    #[test]
    fn the_temperature_is_found_again() {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let rows: Vec<(Vec<f32>, usize)> = (0..20_000)
            .map(|_| {
                let logits: Vec<f32> = (0..6).map(|_| (8.0 * uniform()) as f32).collect();
                let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit / 2.0).exp()).collect();
                let mut point = uniform() * powers.iter().sum::<f64>();
                let drawn = powers.iter().position(|power| {
                    point -= power;
                    point < 0.0
                });
                (logits, drawn.unwrap_or(0))
            })
            .collect();
        let sharpness = root(|sharpness| {
            rows.iter()
                .map(|(logits, pick)| slope(logits, *pick, sharpness))
                .fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1))
        });
        assert!((1.0 / sharpness - 2.0).abs() < 0.06, "{}", 1.0 / sharpness);
        // A pick that is always the greatest has no best temperature: the search ends at its bound.
        let sure = root(|sharpness| slope(&[3.0, 1.0], 0, sharpness));
        assert!(sure > 0.5 * SHARPNESS.end, "{sure}");
    }
}

//! Cross-entropy of a softmax with a distribution a row, such as another model's, and its gradient.

use super::cross_entropy::{check_rows, sum};
use super::softmax::{greatest, scale};
use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::math::{exp, exp_one};
use crate::simd::{LANES, Op, Simd};

impl Kernels {
    /// Cross-entropy `-sum(q ln p)` of the softmax p of `logits / temperature`, `[rows, vocabulary]`, with the distributions q in
    /// `probabilities`, of the same shape, weighted and returned as by [`Kernels::softmax_cross_entropy`]. Its gradient by
    /// `logits / temperature`, `p sum(q) - q`, takes the place of the logits.
    ///
    /// The loss differs from the divergence KL(q, p) by the entropy of q, which has no gradient. No logit may be
    /// negative infinity.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length, or there are rows of no logits.
    pub fn soft_cross_entropy(
        &self,
        logits: &mut [f32],
        temperature: f32,
        probabilities: &[f32],
        weights: &[f32],
        losses: &mut [f32],
    ) -> f64 {
        let rows = weights.len();
        let vocabulary = check_rows(logits, rows, weights, losses);
        assert_eq!(probabilities.len(), logits.len(), "probabilities have the shape of logits");
        if rows == 0 {
            return 0.0;
        }
        let (work, shared) = (5 * logits.len(), SharedOutput::new(logits));
        let shared_losses = SharedOutput::new(losses);
        self.split(rows, 1, work, &|range| {
            let values = range.start * vocabulary..range.end * vocabulary;
            // SAFETY: ranges do not overlap, here and below.
            let logits = unsafe { shared.slice(values.start, values.len()) };
            // SAFETY: as above.
            let losses = unsafe { shared_losses.slice(range.start, range.len()) };
            let (factor, probabilities) = (1.0 / temperature, &probabilities[values]);
            self.isa.enter(Rows { logits, vocabulary, factor, probabilities, weights: &weights[range], losses });
        });
        sum(losses)
    }

    /// Puts the softmax of `logits / temperature` in the place of `logits`, `[rows, vocabulary]`, and the entropy of every row,
    /// in nats, into `entropies`. No logit may be negative infinity.
    ///
    /// # Panics
    /// Where `logits` are not as many rows as `entropies`, or there are rows of no logits.
    pub fn softmax_with_entropy(&self, logits: &mut [f32], temperature: f32, entropies: &mut [f32]) {
        let rows = entropies.len();
        if rows == 0 {
            return;
        }
        assert!(!logits.is_empty() && logits.len().is_multiple_of(rows), "logits are [rows, vocabulary]");
        let (vocabulary, work) = (logits.len() / rows, 4 * logits.len());
        let (shared, shared_entropies) = (SharedOutput::new(logits), SharedOutput::new(entropies));
        self.split(rows, 1, work, &|range| {
            // SAFETY: ranges do not overlap, here and below.
            let logits = unsafe { shared.slice(range.start * vocabulary, range.len() * vocabulary) };
            // SAFETY: as above.
            let entropies = unsafe { shared_entropies.slice(range.start, range.len()) };
            self.isa.enter(Softmax { logits, vocabulary, factor: 1.0 / temperature, entropies });
        });
    }
}

struct Softmax<'a> {
    logits: &'a mut [f32],
    vocabulary: usize,
    /// Factor that logits are multiplied by.
    factor: f32,
    entropies: &'a mut [f32],
}

impl Op for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, entropy) in self.logits.chunks_exact_mut(self.vocabulary).zip(self.entropies) {
            scale(s, row, self.factor);
            let highest = greatest(s, row);
            let shift = s.splat(highest);
            let (full, tail) = row.as_chunks_mut::<LANES>();
            let (mut powers, mut dots) = (s.splat(0.0), s.splat(0.0));
            for logits in full {
                let below = s.sub(s.load(logits), shift);
                let power = exp(s, below);
                s.store(power, logits);
                powers = s.add(powers, power);
                dots = s.fma(power, below, dots);
            }
            let (mut sum, mut dot) = (s.sum(powers), s.sum(dots));
            for logit in tail {
                let below = *logit - highest;
                *logit = exp_one(s, below);
                sum += *logit;
                dot += *logit * below;
            }
            scale(s, row, 1.0 / sum);
            *entropy = (f64::from(sum).ln() - f64::from(dot) / f64::from(sum)) as f32;
        }
    }
}

struct Rows<'a> {
    logits: &'a mut [f32],
    vocabulary: usize,
    /// Factor that logits are multiplied by.
    factor: f32,
    probabilities: &'a [f32],
    weights: &'a [f32],
    losses: &'a mut [f32],
}

impl Op for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.logits.chunks_exact_mut(self.vocabulary).zip(self.probabilities.chunks_exact(self.vocabulary));
        for (((row, probabilities), weight), loss) in rows.zip(self.weights).zip(self.losses) {
            if *weight == 0.0 {
                row.fill(0.0);
                *loss = 0.0;
                continue;
            }
            scale(s, row, self.factor);
            *loss = (f64::from(*weight) * loss_of_row(s, row, probabilities, *weight)) as f32;
        }
    }
}

/// The loss of a row, with its gradient times `weight` in place of the logits.
#[inline(always)]
fn loss_of_row<S: Simd>(s: S, row: &mut [f32], targets: &[f32], weight: f32) -> f64 {
    let highest = greatest(s, row);
    let shift = s.splat(highest);
    let (full, tail) = row.as_chunks_mut::<LANES>();
    let (full_targets, tail_targets) = targets.as_chunks::<LANES>();
    let (mut powers, mut dots, mut masses) = (s.splat(0.0), s.splat(0.0), s.splat(0.0));
    for (logits, target) in full.iter_mut().zip(full_targets) {
        let (below, target) = (s.sub(s.load(logits), shift), s.load(target));
        let power = exp(s, below);
        s.store(power, logits);
        powers = s.add(powers, power);
        dots = s.fma(target, below, dots);
        masses = s.add(masses, target);
    }
    let (mut sum, mut dot, mut mass) = (s.sum(powers), s.sum(dots), s.sum(masses));
    if !tail.is_empty() {
        for (logit, target) in tail.iter().zip(tail_targets) {
            dot += target * (logit - highest);
            mass += target;
        }
        s.store_tail(exp(s, s.sub(s.load_tail(tail), shift)), tail);
        for power in tail.iter() {
            sum += *power;
        }
    }
    let factor = s.splat(weight * mass / sum);
    let negative = s.splat(-weight);
    for (powers, target) in full.iter_mut().zip(full_targets) {
        s.store(s.fma(s.load(powers), factor, s.mul(s.load(target), negative)), powers);
    }
    if !tail.is_empty() {
        let gradient = s.fma(s.load_tail(tail), factor, s.mul(s.load_tail(tail_targets), negative));
        s.store_tail(gradient, tail);
    }
    f64::from(mass) * f64::from(sum).ln() - f64::from(dot)
}

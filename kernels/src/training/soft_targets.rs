//! Cross-entropy of a softmax with a distribution a row, such as another model's, and its gradient.

use super::cross_entropy::{check_rows, sum};
use super::scratch::Scratch;
use super::softmax::{exponentiate, greatest, scale};
use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::math::{exp, exp_one};
use crate::simd::{LANES, Op, Simd};

/// The distributions that [`Kernels::soft_cross_entropy`] is given.
#[derive(Clone, Copy, Debug)]
pub enum SoftTargets<'a> {
    /// The probability of every token, `[rows, vocabulary]`.
    All(&'a [f32]),
    /// The probabilities of some tokens only, `[rows, k]` both; what they lack of 1 is the probability of all others
    /// together.
    Some {
        /// The tokens, all different within a row.
        tokens: &'a [u32],
        /// Their probabilities.
        probabilities: &'a [f32],
    },
}

impl Kernels {
    /// Cross-entropy of the softmax p of `logits`, `[rows, vocabulary]`, with the distributions q of `targets`, weighted
    /// and returned as by [`Kernels::softmax_cross_entropy`]; its gradient takes the place of the logits.
    ///
    /// For [`SoftTargets::All`] a row's loss is `-sum(q ln p)` and the gradient `p sum(q) - q`. For
    /// [`SoftTargets::Some`] all other tokens count as one, with the remainder `r` of q (0 at least, and 0 where no other
    /// is left) and the sum `s` of their p: the loss is `-sum(q ln p) - r ln s`, and the gradient `p (sum(q) + r) - q` for
    /// the given tokens and `p (sum(q) + r - r / s)` for the others. A sum of powers that is too small for a normal
    /// number counts as the smallest, so s is never 0.
    ///
    /// The loss differs from the divergence KL(q, p) by the entropy of q, which has no gradient. No logit may be
    /// negative infinity.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length, there are rows of no logits, or a token of a row that counts is
    /// not in the vocabulary.
    pub fn soft_cross_entropy(
        &self,
        logits: &mut [f32],
        targets: SoftTargets<'_>,
        weights: &[f32],
        losses: &mut [f32],
    ) -> f64 {
        let rows = weights.len();
        let vocabulary = check_rows(logits, rows, weights, losses);
        if rows == 0 {
            return 0.0;
        }
        let width = match targets {
            SoftTargets::All(probabilities) => {
                assert_eq!(probabilities.len(), logits.len(), "probabilities have the shape of logits");
                vocabulary
            }
            SoftTargets::Some { tokens, probabilities } => {
                assert_eq!(tokens.len(), probabilities.len(), "there is a probability for every token");
                assert!(tokens.len().is_multiple_of(rows), "tokens are [rows, k]");
                tokens.len() / rows
            }
        };
        let (work, shared) = (5 * logits.len(), SharedOutput::new(logits));
        let shared_losses = SharedOutput::new(losses);
        self.split(rows, 1, work, &|range| {
            // SAFETY: ranges do not overlap, here and below.
            let logits = unsafe { shared.slice(range.start * vocabulary, range.len() * vocabulary) };
            // SAFETY: as above.
            let losses = unsafe { shared_losses.slice(range.start, range.len()) };
            let part = range.start * width..range.end * width;
            let targets = match targets {
                SoftTargets::All(probabilities) => SoftTargets::All(&probabilities[part]),
                SoftTargets::Some { tokens, probabilities } => {
                    SoftTargets::Some { tokens: &tokens[part.clone()], probabilities: &probabilities[part] }
                }
            };
            self.isa.enter(Rows { logits, vocabulary, targets, width, weights: &weights[range], losses });
        });
        sum(losses)
    }
}

impl Kernels {
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
    /// What logits are multiplied with.
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
    targets: SoftTargets<'a>,
    /// Probabilities in a row.
    width: usize,
    weights: &'a [f32],
    losses: &'a mut [f32],
}

impl Op for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut powers = Scratch::new(self.width);
        let rows = self.logits.chunks_exact_mut(self.vocabulary).zip(self.weights).zip(self.losses);
        for (index, ((row, weight), loss)) in rows.enumerate() {
            let part = index * self.width..(index + 1) * self.width;
            if *weight == 0.0 {
                row.fill(0.0);
                *loss = 0.0;
                continue;
            }
            let of_row = match self.targets {
                SoftTargets::All(probabilities) => all(s, row, &probabilities[part], *weight),
                SoftTargets::Some { tokens, probabilities } => {
                    some(s, row, &tokens[part.clone()], &probabilities[part], *weight, &mut powers)
                }
            };
            *loss = (f64::from(*weight) * of_row) as f32;
        }
    }
}

/// The loss of a row, with its gradient times `weight` in place of the logits.
#[inline(always)]
fn all<S: Simd>(s: S, row: &mut [f32], targets: &[f32], weight: f32) -> f64 {
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

/// As [`all`], where only some tokens' probabilities are given. `powers` has room for one value for each.
#[inline(always)]
fn some<S: Simd>(s: S, row: &mut [f32], tokens: &[u32], targets: &[f32], weight: f32, powers: &mut [f32]) -> f64 {
    let highest = greatest(s, row);
    // The given tokens are taken out, so that what the others have is not a small difference of large sums.
    let (mut dot, mut mass, mut sum) = (0.0_f64, 0.0_f64, 0.0_f32);
    for ((token, target), power) in tokens.iter().zip(targets).zip(powers.iter_mut()) {
        let logit = &mut row[*token as usize];
        let below = *logit - highest;
        *logit = f32::NEG_INFINITY;
        *power = exp_one(s, below);
        dot += f64::from(*target) * f64::from(below);
        mass += f64::from(*target);
        sum += *power;
    }
    let others = exponentiate(s, row, highest);
    let others = if others < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { others };
    let sum = f64::from(sum) + f64::from(others);
    // Where there are no others, what the probabilities lack of 1 is rounding.
    let remainder = if tokens.len() == row.len() { 0.0 } else { (1.0 - mass).max(0.0) };
    let factor = (mass + remainder) / sum;
    scale(s, row, (f64::from(weight) * (factor - remainder / f64::from(others))) as f32);
    for ((token, target), power) in tokens.iter().zip(targets).zip(powers) {
        row[*token as usize] = (f64::from(weight) * (f64::from(*power) * factor - f64::from(*target))) as f32;
    }
    (mass + remainder) * sum.ln() - dot - remainder * f64::from(others).ln()
}

//! The decode loop of answers that may leave the target early: a token that an exit is sure of comes out without
//! verification (CALM, Schuster et al. 2022).
//!
//! Tokens are still drawn by the answer's [`Sampler`], from the exit's own logits over the whole vocabulary in place of the
//! target's. How sure the exit is is the greatest probability after its logits were divided by the fitted temperature, which
//! makes it the chance that its likeliest token is the model's. Tokens are drawn from the logits as they are: it is those that
//! learned the model's distribution.
//!
//! The upper layers never run for a token that left early. What they should have in their caches is made of its state at the exit
//! ([`Sequence::propagate`]), for many tokens at once: when the next token goes through all layers.

use std::time::Instant;

use super::MAX_DRAFT;
use super::decode::{Flow, Listener};
use super::planner::Round;
use crate::model::Sequence;
use crate::sampling::{Sampler, SamplingError};

/// Tokens that may leave early one after the other; the next one goes through all layers, sure or not. Copies drift, and a token
/// that the whole model made now and then costs little and keeps right answers.
pub const MOST_IN_A_ROW: usize = MAX_DRAFT;

/// When a token leaves the target early.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyExit {
    /// Layers that run, from 1 to one less than the target has.
    pub depth: usize,
    /// Divisor of the exit's logits, fitted so that their greatest probability says how often its pick is the model's.
    pub temperature: f32,
    /// The probability from which on a token comes out; at 1 none does.
    pub threshold: f64,
}

impl EarlyExit {
    /// True if an exit with these logits is sure enough. False if their confidence is NaN.
    fn is_sure(&self, logits: &[f32]) -> bool {
        // A probability of 1 is only ever rounding.
        self.threshold < 1.0 && confidence(logits, self.temperature) >= self.threshold
    }
}

/// The greatest probability of logits that are divided by `temperature` first; NaN if a logit is NaN or +inf, or all
/// are -inf.
fn confidence(logits: &[f32], temperature: f32) -> f64 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    1.0 / logits.iter().map(|logit| (f64::from(logit - highest) / f64::from(temperature)).exp()).sum::<f64>()
}

/// One answer in the making.
pub struct DecodeEarly<'a> {
    /// The target, which holds all of `tokens` but the last.
    pub target: &'a mut Sequence,
    /// When tokens leave it.
    pub exit: EarlyExit,
    /// Picks tokens.
    pub sampler: &'a mut Sampler,
    /// Prompt and answer so far.
    pub tokens: &'a mut Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that `tokens` may grow to.
    pub limit: usize,
}

impl DecodeEarly<'_> {
    /// Decodes until the listener says stop, the limit is reached or the answer is cancelled.
    ///
    /// # Errors
    /// If logits that a token has to be drawn from are not numbers.
    pub fn run(mut self, listener: &mut dyn Listener) -> Result<(), SamplingError> {
        let mut flow = Flow::Continue;
        while flow == Flow::Continue && self.tokens.len() < self.limit && !listener.is_cancelled() {
            let started = Instant::now();
            let newest = self.tokens.len() - 1;
            let waiting = newest - self.target.len();
            let early =
                (waiting < MOST_IN_A_ROW).then(|| self.target.leave_early(self.tokens[newest], self.exit.depth));
            if let Some(logits) = early.flatten().filter(|logits| self.exit.is_sure(logits)) {
                flow = self.take(&logits, listener)?;
                listener.unverified(1, started.elapsed().as_secs_f64());
                continue;
            }
            let draft_seconds = started.elapsed().as_secs_f64();

            // This one goes through all layers, on top of those that wait.
            let started = Instant::now();
            self.target.propagate(waiting);
            let logits = self.target.next_logits(&self.tokens[newest..]);
            flow = self.take(&logits, listener)?;
            listener.round(&Round {
                candidate: None,
                drafted: 0,
                evaluated: 0,
                accepted: 0,
                tokens: 1,
                backlog: 0,
                draft_seconds,
                asking_seconds: 0.0,
                verify_seconds: started.elapsed().as_secs_f64(),
            });
        }
        Ok(())
    }

    /// Draws the next token.
    fn take(&mut self, logits: &[f32], listener: &mut dyn Listener) -> Result<Flow, SamplingError> {
        let index = (self.tokens.len() - self.prompt) as u64;
        let token = self.sampler.pick(logits, self.tokens, index)?;
        self.tokens.push(token);
        Ok(listener.token(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_the_greatest_probability_at_the_fitted_temperature() {
        let logits = [3.0_f32, 1.0, f32::NEG_INFINITY, 0.0];
        for temperature in [0.5_f32, 1.0, 2.0] {
            let weights = logits.map(|logit| f64::from(logit / temperature).exp());
            let expected = weights[0] / weights.iter().sum::<f64>();
            assert!((confidence(&logits, temperature) - expected).abs() < 1e-12, "{temperature}");
        }
        let sure = |threshold, logits: &[f32]| EarlyExit { depth: 1, temperature: 1.0, threshold }.is_sure(logits);
        assert!(sure(0.8, &logits) && !sure(0.9, &logits));
        // However large a lead is, it is not certain, and a confidence of NaN is not sure.
        assert!(sure(0.999_999, &[1e4, 0.0]) && !sure(1.0, &[1e4, 0.0]));
        assert!(!sure(0.5, &[f32::NAN, 0.0]) && !sure(0.5, &[f32::INFINITY, 0.0]) && !sure(0.5, &[f32::NEG_INFINITY]));
    }
}

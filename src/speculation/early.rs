//! Leaving early: an acceptance rule by which tokens that an exit is sure of come out without verification (CALM, Schuster et
//! al. 2022).
//!
//! Tokens are still drawn by the answer's sampler, from the exit's own logits over the whole vocabulary in place of the
//! target's. How sure the exit is is the greatest probability after its logits were divided by the fitted temperature, which
//! makes it the chance that its likeliest token is the model's. Tokens are drawn from the logits as they are: it is those that
//! learned the model's distribution.
//!
//! The upper layers never run for a token that left early. What they should have in their caches is made of its state at the exit
//! ([`Track::propagate`](crate::model::Track::propagate)), for many tokens at once: when the next token goes through all layers.

use super::MAX_DRAFT;

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
    pub fn is_sure(&self, logits: &[f32]) -> bool {
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

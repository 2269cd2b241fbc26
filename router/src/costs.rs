//! Costs of work on a machine: measured there, never learned.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Seconds of a drafter's rounds.
#[derive(Clone, Copy, Debug)]
pub struct Prices<'a> {
    /// A target step by its rows: `steps[r - 1]` for `r` rows.
    pub steps: &'a [f64],
    /// The share of such a step that verifying its drafts takes: below 1 for an exit, whose layers are not run again.
    pub share: f64,
    /// A drafted token.
    pub token: f64,
}

impl Prices<'_> {
    /// A round that drafts and verifies `length` tokens.
    pub fn round(&self, length: usize) -> f64 {
        self.token * length as f64 + self.share * self.steps[length]
    }

    /// Tokens and seconds of the best round there could be if a token is accepted with such a probability whatever came before
    /// it: `1 + sum_{i <= k} a^i` tokens in `k c + v(k + 1)`, for the best `k` above 0 (Leviathan, Kalman and Matias 2023).
    pub fn best_round(&self, acceptance: f64) -> (f64, f64) {
        let (mut survival, mut tokens, mut best) = (1.0, 1.0, (1.0, f64::INFINITY));
        for length in 1..self.steps.len() {
            survival *= acceptance;
            tokens += survival;
            let seconds = self.round(length);
            if tokens * best.1 > best.0 * seconds {
                best = (tokens, seconds);
            }
        }
        best
    }

    /// Seconds a token of that round.
    pub fn seconds_per_token(&self, acceptance: f64) -> f64 {
        let (tokens, seconds) = self.best_round(acceptance);
        seconds / tokens
    }

    /// The *effective acceptance* of rounds that took so many seconds a token: with what acceptance, the same for every token,
    /// the best round would take as long. What a drafter gains by stopping where it is unsure is in it, so it says how good a
    /// drafter is in one number, and what it is worth at other prices. Between 0 and 1, also for what no acceptance explains.
    pub fn effective_acceptance(&self, seconds_per_token: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if self.seconds_per_token(middle) > seconds_per_token { low = middle } else { high = middle }
        }
        0.5 * (low + high)
    }
}

/// Costs of one drafter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrafterCost {
    /// Seconds of a drafted token.
    pub token: f64,
    /// The share of a target step that verifying its drafts takes.
    #[serde(default = "whole")]
    pub share: f64,
    /// Seconds for every token of the prompt before the first draft.
    pub reading: f64,
    /// Bytes that drafting needs beside the target: weights of its own, and its cache for a token times the tokens.
    pub bytes: u64,
}

fn whole() -> f64 {
    1.0
}

impl Default for DrafterCost {
    fn default() -> Self {
        Self { token: 0.0, share: whole(), reading: 0.0, bytes: 0 }
    }
}

/// Measured costs of work on a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CostTable {
    /// The machine and how it was used, in words.
    pub machine: String,
    /// Seconds of a target step by its rows, from 1 on; 0 where none is known.
    pub steps: Vec<f64>,
    /// By the drafters' names.
    pub drafters: BTreeMap<String, DrafterCost>,
}

impl CostTable {
    /// The prices of a drafter's rounds, if it is known.
    pub fn prices(&self, drafter: &str) -> Option<Prices<'_>> {
        self.drafters.get(drafter).map(|cost| Prices { steps: &self.steps, share: cost.share, token: cost.token })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A row costs a quarter of a step.
    fn steps() -> Vec<f64> {
        (0..17).map(|row| 1.0 + 0.25 * f64::from(row)).collect()
    }

    #[test]
    fn the_best_round_is_the_best_of_all_lengths() {
        let (tokens, seconds) = Prices { steps: &steps(), share: 1.0, token: 0.1 }.best_round(0.8);
        // 1 + 0.8 + 0.64 + 0.512 in 1.75 + 0.3 is better than one token less or more.
        assert!((tokens - 2.952).abs() < 1e-9 && (seconds - 2.05).abs() < 1e-9, "{tokens} in {seconds}");
    }

    proptest! {
        #[test]
        fn effective_acceptance_undoes_the_best_round(acceptance in 0.0..1.0_f64, token in 0.0..0.5_f64) {
            let steps = steps();
            let prices = Prices { steps: &steps, share: 1.0, token };
            let found = prices.effective_acceptance(prices.seconds_per_token(acceptance));
            prop_assert!((found - acceptance).abs() < 1e-9, "{found}");
        }

        #[test]
        fn what_no_acceptance_explains_is_at_an_end(seconds in 5.0..100.0_f64) {
            let steps = steps();
            let prices = Prices { steps: &steps, share: 1.0, token: 0.1 };
            prop_assert!(prices.effective_acceptance(seconds) < 1e-9);
            prop_assert!(prices.effective_acceptance(1.0 / seconds) > 1.0 - 1e-9);
        }
    }
}

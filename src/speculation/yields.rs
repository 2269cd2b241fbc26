//! What a drafter's rounds bring: tokens, against the time they take.
//!
//! How long drafts get is decided token by token ([`super::stopping`]), so the lengths are counted as they come, and what a
//! round of each length takes is asked of the tables of this machine's costs: those move with the machine, the counts
//! with the text.

use super::MAX_DRAFT;
use super::costs::MAX_ROWS;

/// The acceptance of a newcomer's tokens: high, so that it gets its chance.
const PRIOR: f64 = 0.8;
/// How many rounds its promise weighs, first for a newcomer and then for a drafter that has been tried out: few, so that a
/// chance not taken costs little.
const NEWCOMER_ROUNDS: f64 = 4.0;
const SETTLED_ROUNDS: f64 = 1.0;
/// After this many rounds a round counts half.
const HALF_LIFE: f64 = 64.0;
/// How many tokens the prior weighs beside those that were looked at.
const PRIOR_TOKENS: f64 = 8.0;

/// What time things take, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Prices {
    /// A target step by its rows, `1..=MAX_ROWS`.
    pub steps: [f64; MAX_ROWS],
    /// A drafted token.
    pub token: f64,
}

impl Prices {
    /// A round that drafts and verifies `length` tokens.
    fn round(&self, length: usize) -> f64 {
        self.token * length as f64 + self.steps[length]
    }

    /// Tokens and seconds of the best round there could be if a token is accepted with such a probability whatever came before it:
    /// `1 + sum_{i <= k} a^i` tokens in `k c + v(k + 1)`, for the best `k` (Leviathan, Kalman and Matias 2023).
    pub fn best_round(&self, acceptance: f64) -> (f64, f64) {
        let (mut survival, mut tokens, mut best) = (1.0, 1.0, (1.0, f64::INFINITY));
        for length in 1..=MAX_DRAFT {
            survival *= acceptance;
            tokens += survival;
            let seconds = self.round(length);
            if tokens * best.1 > best.0 * seconds {
                best = (tokens, seconds);
            }
        }
        best
    }
}

/// Counts of a drafter's rounds, old ones fading.
#[derive(Clone, Debug)]
pub struct Yield {
    /// Rounds by the length of their verified draft.
    lengths: [f64; MAX_DRAFT + 1],
    /// Tokens that were drafted and not verified.
    declined: f64,
    /// Tokens that came out.
    tokens: f64,
    /// Seconds of reading what came before the draft.
    reading: f64,
    accepted: f64,
    evaluated: f64,
    /// What the prior still weighs, in rounds.
    prior: f64,
}

impl Default for Yield {
    fn default() -> Self {
        Self {
            lengths: [0.0; MAX_DRAFT + 1],
            declined: 0.0,
            tokens: 0.0,
            reading: 0.0,
            accepted: 0.0,
            evaluated: 0.0,
            prior: NEWCOMER_ROUNDS,
        }
    }
}

impl Yield {
    /// Learns from a round: `length` tokens were verified, `declined` ones drafted besides, the first `accepted` of them
    /// kept and `evaluated` looked at; before it, so many seconds went into reading.
    pub fn observe(&mut self, length: usize, declined: usize, evaluated: usize, accepted: usize, reading: f64) {
        let fade = 0.5_f64.powf(1.0 / HALF_LIFE);
        let Self { lengths, declined: all_declined, tokens, reading: all_reading, .. } = self;
        let counts = [all_declined, tokens, all_reading, &mut self.accepted, &mut self.evaluated, &mut self.prior];
        lengths.iter_mut().chain(counts).for_each(|count| *count *= fade);
        self.lengths[length.min(MAX_DRAFT)] += 1.0;
        self.declined += declined as f64;
        self.tokens += (accepted + 1) as f64;
        self.reading += reading;
        self.accepted += accepted as f64;
        self.evaluated += evaluated as f64;
    }

    /// From now on the rounds speak nearly alone.
    pub fn settle(&mut self) {
        self.prior = self.prior.min(SETTLED_ROUNDS);
    }

    /// Seconds a token, at such prices. `must_read` adds what was spent on reading: a drafter that has read the text already
    /// does not do it again.
    pub fn seconds_per_token(&self, prices: &Prices, must_read: bool) -> f64 {
        let (tokens, seconds) = prices.best_round(PRIOR);
        let rounds: f64 = self.lengths.iter().enumerate().map(|(length, count)| count * prices.round(length)).sum();
        let reading = if must_read { self.reading } else { 0.0 };
        let spent = self.prior * seconds + rounds + self.declined * prices.token + reading;
        spent / (self.prior * tokens + self.tokens)
    }

    /// The probability that a drafted token is accepted, before anything is known of it but that those before it are.
    pub fn acceptance(&self) -> f64 {
        (self.accepted + PRIOR_TOKENS * PRIOR) / (self.evaluated + PRIOR_TOKENS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row costs a quarter of a step, a drafted token a tenth.
    fn prices() -> Prices {
        Prices { steps: std::array::from_fn(|row| 1.0 + 0.25 * row as f64), token: 0.1 }
    }

    #[test]
    fn without_rounds_a_drafter_promises_what_the_prior_does() {
        let (tokens, seconds) = prices().best_round(PRIOR);
        // 1 + 0.8 + 0.64 + 0.512 in 1.75 + 0.3 is better than one token less or more.
        assert!((tokens - 2.952).abs() < 1e-9 && (seconds - 2.05).abs() < 1e-9, "{tokens} in {seconds}");
        assert!((Yield::default().seconds_per_token(&prices(), true) - seconds / tokens).abs() < 1e-12);
        assert_eq!(Yield::default().acceptance(), PRIOR);
    }

    #[test]
    fn rounds_speak_for_themselves_and_fade() {
        let mut counts = Yield::default();
        // Six tokens drafted, five verified and kept.
        (0..2000).for_each(|_| counts.observe(5, 1, 5, 5, 0.0));
        assert!((counts.seconds_per_token(&prices(), true) - (2.25 + 0.6) / 6.0).abs() < 1e-6);
        assert!(counts.acceptance() > 0.97);
        (0..2000).for_each(|_| counts.observe(1, 0, 1, 0, 0.0));
        assert!((counts.seconds_per_token(&prices(), true) - 1.35).abs() < 1e-6);
        assert!(counts.acceptance() < 0.15);
    }

    #[test]
    fn reading_counts_for_those_who_have_it_before_them() {
        let mut counts = Yield::default();
        (0..2000).for_each(|_| counts.observe(1, 0, 1, 1, 0.5));
        let apart = counts.seconds_per_token(&prices(), true) - counts.seconds_per_token(&prices(), false);
        assert!((apart - 0.25).abs() < 1e-6, "{apart}");
    }
}

//! Statistics of a drafter: what its rounds brought, and what its odds are worth.
//!
//! Draft lengths are decided token by token ([`super::stopping`]), so they are counted as they come, and the time of a
//! round of each length is asked of the tables of this machine's costs: those move with the machine, the counts with
//! the text.

use paceline_router::costs;

use super::MAX_DRAFT;
use super::calibration::Calibration;
use super::costs::MAX_ROWS;
use crate::drafters::DrafterChoice;

/// The acceptance of a newcomer's tokens: high, so that it gets its chance.
pub const PRIOR: f64 = 0.8;
/// Weight of the prior promise, in rounds, first for a newcomer and then for a drafter that has been tried out: few, so
/// that a chance not taken costs little.
const NEWCOMER_ROUNDS: f64 = 4.0;
const SETTLED_ROUNDS: f64 = 1.0;
/// After this many rounds a round counts half.
const HALF_LIFE: f64 = 64.0;
/// Weight of the prior, in tokens, beside those that were looked at.
pub const PRIOR_TOKENS: f64 = 8.0;

/// Time costs, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Prices {
    /// A target step by its rows, `1..=MAX_ROWS`.
    pub steps: [f64; MAX_ROWS],
    /// The share of such a step that verifying a draft takes ([`costs::Prices::share`]).
    pub share: f64,
    /// A drafted token.
    pub token: f64,
}

impl Prices {
    /// As the router's costs know them.
    pub fn costs(&self) -> costs::Prices<'_> {
        costs::Prices { steps: &self.steps, share: self.share, token: self.token }
    }

    /// Verifying a draft of `length` tokens.
    pub fn verification(&self, length: usize) -> f64 {
        self.share * self.steps[length]
    }

    /// A round that drafts and verifies `length` tokens.
    fn round(&self, length: usize) -> f64 {
        self.costs().round(length)
    }

    /// As [`costs::Prices::best_round`].
    pub fn best_round(&self, acceptance: f64) -> (f64, f64) {
        self.costs().best_round(acceptance)
    }
}

/// Rounds after which a drafter is no newcomer any more.
pub(super) const INTRODUCTION: u32 = 4;

/// Statistics of a drafter on recent text, of all answers together.
#[derive(Clone, Debug)]
pub struct DrafterStats {
    /// Its name.
    pub name: DrafterChoice,
    /// Counts of its rounds.
    pub(super) counts: RoundCounts,
    /// Calibration of its odds.
    pub(super) calibration: Calibration,
    /// Rounds in which it worked on a draft.
    pub(super) rounds: u32,
    /// Rounds for which it was tried out.
    pub(super) tries: u32,
    /// Rounds since it was last asked.
    pub(super) idle: u32,
    /// Answers in the making that know it.
    pub(super) answers: usize,
}

impl DrafterStats {
    /// A drafter about which nothing is known.
    pub fn new(name: DrafterChoice) -> Self {
        let (counts, calibration) = (RoundCounts::default(), Calibration::default());
        Self { name, counts, calibration, rounds: 0, tries: 0, idle: 0, answers: 0 }
    }

    /// True if its work is part of the verification's.
    pub fn shares_layers(&self) -> bool {
        matches!(self.name, DrafterChoice::Exit(_))
    }

    /// True if it has not drafted often enough to be known.
    pub(super) fn is_untried(&self) -> bool {
        self.rounds < INTRODUCTION
    }
}

/// Counts of a drafter's rounds, old ones fading.
#[derive(Clone, Debug)]
pub struct RoundCounts {
    /// Rounds by the length of their verified draft.
    lengths: [f64; MAX_DRAFT + 1],
    /// Tokens that were drafted and not verified.
    declined: f64,
    /// Tokens that came out.
    tokens: f64,
    /// Times that it had to read before it drafted, the tokens it read, and the seconds that took.
    readings: f64,
    read: f64,
    reading_seconds: f64,
    accepted: f64,
    evaluated: f64,
    /// The acceptance that is expected as long as nothing is known, and what that still weighs, in rounds.
    expected: f64,
    prior: f64,
}

impl Default for RoundCounts {
    fn default() -> Self {
        Self::expecting(PRIOR, NEWCOMER_ROUNDS)
    }
}

impl RoundCounts {
    /// Nothing known but that such an acceptance is expected, which weighs as much as so many rounds.
    pub fn expecting(acceptance: f64, rounds: f64) -> Self {
        Self {
            lengths: [0.0; MAX_DRAFT + 1],
            declined: 0.0,
            tokens: 0.0,
            readings: 0.0,
            read: 0.0,
            reading_seconds: 0.0,
            accepted: 0.0,
            evaluated: 0.0,
            expected: acceptance,
            prior: rounds,
        }
    }

    /// From now on another acceptance is expected as far as nothing is known.
    pub fn expect(&mut self, acceptance: f64) {
        self.expected = acceptance;
    }

    /// Learns from a round: `length` tokens were verified, `evaluated` of them looked at, the first `accepted` kept, and `tokens`
    /// came out.
    pub fn observe(&mut self, length: usize, evaluated: usize, accepted: usize, tokens: usize) {
        let fade = 0.5_f64.powf(1.0 / HALF_LIFE);
        let Self { lengths, declined, tokens: all_tokens, readings, read, reading_seconds, .. } = self;
        let counts = [declined, all_tokens, readings, read, reading_seconds];
        let counts = counts.into_iter().chain([&mut self.accepted, &mut self.evaluated, &mut self.prior]);
        lengths.iter_mut().chain(counts).for_each(|count| *count *= fade);
        self.lengths[length.min(MAX_DRAFT)] += 1.0;
        self.tokens += tokens as f64;
        self.accepted += accepted as f64;
        self.evaluated += evaluated as f64;
    }

    /// Learns that in the round a token was drafted besides that was not worth verifying. Where all before it were accepted, it
    /// was the next token, and would have been right with such a probability: leaving out the doubtful ones would make the next
    /// token look surer than it is.
    pub fn observe_declined(&mut self, probability_if_next: Option<f64>) {
        self.declined += 1.0;
        if let Some(probability) = probability_if_next {
            self.accepted += probability;
            self.evaluated += 1.0;
        }
    }

    /// Learns that before the round so many tokens were read, in so many seconds.
    pub fn observe_reading(&mut self, tokens: usize, seconds: f64) {
        self.readings += 1.0;
        self.read += tokens as f64;
        self.reading_seconds += seconds;
    }

    /// From now on the rounds speak nearly alone.
    pub fn settle(&mut self) {
        self.prior = self.prior.min(SETTLED_ROUNDS);
    }

    /// Seconds a token, at such prices, of a drafter that has `unread` tokens before it: as many tokens come after them as did
    /// so far after what it had to read.
    pub fn seconds_per_token(&self, prices: &Prices, unread: usize) -> f64 {
        let (tokens, seconds) = prices.best_round(self.expected);
        let rounds: f64 = self.lengths.iter().enumerate().map(|(length, count)| count * prices.round(length)).sum();
        let reading =
            if self.read > 0.0 { self.reading_seconds * self.readings * unread as f64 / self.read } else { 0.0 };
        let spent = self.prior * seconds + rounds + self.declined * prices.token + reading;
        spent / (self.prior * tokens + self.tokens)
    }

    /// The probability that a drafted token is accepted, before anything is known of it but that those before it are.
    pub fn acceptance(&self) -> f64 {
        (self.accepted + PRIOR_TOKENS * self.expected) / (self.evaluated + PRIOR_TOKENS)
    }

    /// The effective acceptance that explains what its rounds brought, and the tokens that were drafted in them; `None` if there
    /// were none. What was expected is not in it.
    pub fn effective_acceptance(&self, prices: &Prices) -> Option<(f64, f64)> {
        let drafted: f64 = self.lengths.iter().zip(0_u32..).map(|(count, length)| count * f64::from(length)).sum();
        let rounds: f64 = self.lengths.iter().enumerate().map(|(length, count)| count * prices.round(length)).sum();
        let spent = rounds + self.declined * prices.token;
        let drafted = drafted + self.declined;
        (drafted > 0.0 && self.tokens > 0.0)
            .then(|| (prices.costs().effective_acceptance(spent / self.tokens), drafted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row costs a quarter of a step, a drafted token a tenth.
    fn prices() -> Prices {
        Prices { steps: std::array::from_fn(|row| 1.0 + 0.25 * row as f64), share: 1.0, token: 0.1 }
    }

    #[test]
    fn without_rounds_a_drafter_promises_what_the_prior_does() {
        let (tokens, seconds) = prices().best_round(PRIOR);
        // 1 + 0.8 + 0.64 + 0.512 in 1.75 + 0.3 is better than one token less or more.
        assert!((tokens - 2.952).abs() < 1e-9 && (seconds - 2.05).abs() < 1e-9, "{tokens} in {seconds}");
        assert!((RoundCounts::default().seconds_per_token(&prices(), 0) - seconds / tokens).abs() < 1e-12);
        assert_eq!(RoundCounts::default().acceptance(), PRIOR);
    }

    #[test]
    fn rounds_speak_for_themselves_and_fade() {
        let mut counts = RoundCounts::default();
        // Six tokens drafted, five verified and kept.
        (0..2000).for_each(|_| {
            counts.observe(5, 5, 5, 6);
            counts.observe_declined(None);
        });
        assert!((counts.seconds_per_token(&prices(), 0) - (2.25 + 0.6) / 6.0).abs() < 1e-6);
        assert!(counts.acceptance() > 0.97);
        (0..2000).for_each(|_| counts.observe(1, 1, 0, 1));
        assert!((counts.seconds_per_token(&prices(), 0) - 1.35).abs() < 1e-6);
        assert!(counts.acceptance() < 0.15);
    }

    #[test]
    fn what_was_declined_counts_for_what_the_next_token_is_expected_to_be() {
        let mut counts = RoundCounts::default();
        (0..2000).for_each(|_| {
            counts.observe(3, 3, 3, 4);
            counts.observe_declined(Some(0.2));
        });
        assert!((counts.acceptance() - 3.2 / 4.0).abs() < 1e-3, "{}", counts.acceptance());
    }

    #[test]
    fn reading_counts_for_those_who_have_it_before_them_by_its_length() {
        let mut counts = RoundCounts::default();
        // Answers of ten rounds of two tokens, each after a prompt of 100 tokens.
        for round in 0..2000 {
            counts.observe(1, 1, 1, 2);
            if round % 10 == 9 {
                counts.observe_reading(100, 0.5);
            }
        }
        let apart = |unread| counts.seconds_per_token(&prices(), unread) - counts.seconds_per_token(&prices(), 0);
        assert!((apart(100) / (0.5 / 20.0) - 1.0).abs() < 0.1, "{}", apart(100));
        assert!((apart(200) - 2.0 * apart(100)).abs() < 1e-9);
    }
}

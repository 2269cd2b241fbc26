//! When a draft stops.
//!
//! A further token costs its drafting and a row of the verification; it brings a token's time if it and all before it are
//! accepted. A round should go on for as long as that pays against `t`, the seconds that a token takes on average: this is the
//! rule that makes tokens per second largest (renewal reward; Dinkelbach 1967).
//! A drafter gives the chance of a token (the lead of its pick), and experience corrects it ([`Calibration`]).

use super::calibration::Calibration;
use super::costs::MAX_ROWS;
use super::drafter_stats::Prices;
use crate::drafters::StopRule;

/// A length that was asked for: it is kept, whatever it costs.
pub struct FixedLength {
    left: usize,
}

impl FixedLength {
    /// A draft of `length` tokens.
    pub fn new(length: usize) -> Self {
        Self { left: length }
    }
}

impl StopRule for FixedLength {
    fn wants_another(&self) -> bool {
        self.left > 0
    }

    fn takes(&mut self, _: f32) -> bool {
        self.left = self.left.saturating_sub(1);
        true
    }
}

/// A draft for as long as it pays.
pub struct WhileItPays {
    calibration: Calibration,
    acceptance: f64,
    prices: Prices,
    token_seconds: f64,
    least: usize,
    most: usize,
    /// Tokens drafted so far, and the probability that all of them are accepted.
    length: usize,
    survival: f64,
}

impl WhileItPays {
    /// A draft of at most `most` tokens, of which `least` are drafted and verified in any case. `calibration` says what the drafter's odds are
    /// worth and `acceptance` the probability that a token is accepted of which no odds are known yet; `token_seconds` is what a
    /// token takes that no draft brings.
    pub fn new(
        calibration: Calibration,
        acceptance: f64,
        prices: Prices,
        token_seconds: f64,
        (least, most): (usize, usize),
    ) -> Self {
        let most = most.min(MAX_ROWS - 1);
        Self { calibration, acceptance, prices, token_seconds, least: least.min(most), most, length: 0, survival: 1.0 }
    }
}

impl WhileItPays {
    /// True if one of the lengths ahead pays, if all tokens up to the next one are accepted with a probability of
    /// `survival`. A first row may be dear and those behind it cheap, so looking one token ahead is not enough.
    fn pays(&self, mut survival: f64, mut gained: f64) -> bool {
        (self.length + 1..=self.most).any(|length| {
            gained += survival * self.token_seconds - self.prices.token;
            survival *= self.acceptance;
            gained > self.prices.verification(length) - self.prices.verification(self.length)
        })
    }
}

impl StopRule for WhileItPays {
    fn wants_another(&self) -> bool {
        // Who was asked drafts one token in any case: without its odds nothing would be learned of it, and an answer whose first
        // rounds went badly would be decoded plainly to its end, at the price of a pace that it no longer has.
        self.length < self.least.max(1) || self.pays(self.survival * self.acceptance, 0.0)
    }

    fn takes(&mut self, log_odds: f32) -> bool {
        let survival = self.survival * self.calibration.probability(log_odds);
        // The token is drafted: what that took is spent in either case.
        let takes = self.length < self.least || self.pays(survival, self.prices.token);
        if takes {
            (self.length, self.survival) = (self.length + 1, survival);
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SURE: f32 = 12.0;

    /// The length of a draft whose every token gets such odds.
    fn length(
        steps: impl Fn(usize) -> f64,
        token: f64,
        token_seconds: f64,
        log_odds: f32,
        bounds: (usize, usize),
    ) -> usize {
        let calibration = Calibration::default();
        let prices = Prices { steps: std::array::from_fn(|row| steps(row + 1)), share: 1.0, token };
        let mut rule = WhileItPays::new(calibration, 0.8, prices, token_seconds, bounds);
        (0..100).take_while(|_| rule.wants_another() && rule.takes(log_odds)).count()
    }

    fn line(rows: usize) -> f64 {
        1.0 + 0.2 * (rows - 1) as f64
    }

    #[test]
    fn sure_tokens_go_far_and_doubtful_ones_nowhere() {
        assert_eq!(length(line, 0.05, 0.6, SURE, (0, 16)), 16);
        assert_eq!(length(line, 0.05, 0.6, SURE, (0, 7)), 7);
        // 0.25 x 0.6 is less than a row.
        assert_eq!(length(line, 0.05, 0.6, -1.0, (0, 16)), 0);
        // 0.78, then 0.61, 0.47 and 0.37 of 0.6 s; 0.29 would be less than a row.
        assert_eq!(length(line, 0.0, 0.6, 1.25, (0, 16)), 4);
    }

    #[test]
    fn nothing_is_drafted_where_it_never_pays_but_what_is_wanted_in_any_case() {
        // A first token is drafted, and then only worth its row.
        assert_eq!(length(line, 0.7, 0.1, SURE, (0, 16)), 0);
        assert_eq!(length(line, 0.7, 0.6, SURE, (0, 16)), 1);
        assert_eq!(length(line, 0.7, 0.6, SURE, (2, 16)), 2);
        assert_eq!(length(line, 0.7, 0.6, -1.0, (2, 1)), 1);
    }

    #[test]
    fn a_dear_first_row_is_no_reason_to_stop_before_cheap_ones() {
        let step = |rows: usize| if rows == 1 { 1.0 } else { 1.7 };
        assert_eq!(length(step, 0.01, 0.5, SURE, (0, 16)), 16);
        assert_eq!(length(step, 0.01, 0.5, SURE, (0, 1)), 0);
    }

    #[test]
    fn a_first_token_is_drafted_whatever_is_expected_of_it_and_verified_only_if_it_pays() {
        let calibration = Calibration::default();
        let prices = Prices { steps: std::array::from_fn(|row| line(row + 1)), share: 1.0, token: 0.1 };
        for (odds, pays) in [(SURE, true), (-3.0, false)] {
            let mut rule = WhileItPays::new(calibration.clone(), 0.1, prices, 0.6, (0, 16));
            assert!(rule.wants_another());
            assert_eq!(rule.takes(odds), pays);
            // The next one is a matter of what is expected.
            assert!(!pays || !rule.wants_another());
        }
    }

    #[test]
    fn a_length_that_was_asked_for_is_kept() {
        let mut rule = FixedLength::new(3);
        assert_eq!((0..10).take_while(|_| rule.wants_another() && rule.takes(-9.0)).count(), 3);
    }
}

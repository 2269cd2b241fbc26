//! Rounds of a drafter, replayed on what teacher forcing says, with the rule by which drafts stop in serving.

use paceline::drafters::StopRule;
use paceline::drafters::lookup::LookupDrafter;
use paceline::speculation::calibration::Calibration;
use paceline::speculation::costs::MAX_ROWS;
use paceline::speculation::drafter_stats::Prices;
use paceline::speculation::stopping::WhileItPays;

use super::forced::Column;

/// The tokens that a drafter would draft from a place of the answer.
pub trait Drafts {
    /// True if the token at distance `ahead` from a draft's beginning at `start` is right given that those before it
    /// are, and its odds; `None` where nothing is drafted.
    fn token(&self, start: usize, ahead: usize) -> Option<(bool, f32)>;
}

impl Drafts for Column {
    fn token(&self, start: usize, ahead: usize) -> Option<(bool, f32)> {
        Some((*self.matches.get(start + ahead)?, self.leads[start + ahead]))
    }
}

/// Results of a lookup in prompt and answer, from every place of the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lookups {
    /// Length of the text that agreed before the draft, plus one; 0 where nothing was found.
    pub agreed: Vec<u8>,
    /// Number of the drafted tokens that are right.
    pub right: Vec<u8>,
}

impl Drafts for Lookups {
    fn token(&self, start: usize, ahead: usize) -> Option<(bool, f32)> {
        let agreed = *self.agreed.get(start)?;
        let agreed = usize::from(agreed).checked_sub(1)?;
        Some((ahead < usize::from(self.right[start]), LookupDrafter::log_odds(agreed + ahead)))
    }
}

/// Result of a replay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// Rounds.
    pub rounds: usize,
    /// Tokens drafted.
    pub drafted: usize,
    /// Of them verified.
    pub verified: usize,
    /// Number of drafts that had their first, second, .. token accepted.
    pub accepted: Vec<usize>,
    /// Seconds, drafting and verifying.
    pub seconds: f64,
}

/// Stop rule of a drafter.
pub struct Rule<'a> {
    /// Calibration of its odds.
    pub calibration: &'a Calibration,
    /// The probability that a token is accepted of which nothing is known.
    pub acceptance: f64,
    /// Costs of its rounds.
    pub prices: Prices,
    /// Seconds of a token on average.
    pub token_seconds: f64,
}

impl Rule<'_> {
    /// Replays the rounds of an answer of so many tokens.
    pub fn replay(&self, drafts: &dyn Drafts, tokens: usize) -> Replayed {
        let mut all = Replayed { accepted: vec![0; MAX_ROWS - 1], ..Replayed::default() };
        let mut place = 0;
        while place < tokens {
            let most = (tokens - place).min(MAX_ROWS - 1);
            let mut judge =
                WhileItPays::new(self.calibration.clone(), self.acceptance, self.prices, self.token_seconds, (0, most));
            let (mut verified, mut accepted, mut drafted, mut right) = (0, 0, 0, true);
            while judge.wants_another() {
                let Some((matches, odds)) = drafts.token(place, verified) else { break };
                drafted += 1;
                if !judge.takes(odds) {
                    break;
                }
                verified += 1;
                right &= matches;
                accepted += usize::from(right);
            }
            all.rounds += 1;
            all.drafted += drafted;
            all.verified += verified;
            all.accepted.iter_mut().take(accepted).for_each(|count| *count += 1);
            // Where nothing was drafted no layer ran ahead either.
            let verification = if drafted > 0 { self.prices.verification(verified) } else { self.prices.steps[0] };
            all.seconds += self.prices.token * drafted as f64 + verification;
            place += accepted + 1;
        }
        all
    }
}

/// Results of lookups from every place of an answer.
pub fn lookups(prompt: &[u32], answer: &[u32]) -> Lookups {
    let text = [prompt, answer].concat();
    let (mut drafter, mut found) = (LookupDrafter::new(), Lookups::default());
    for place in prompt.len()..text.len() {
        let (agreed, right) = drafter.look_up(&text[..place]).map_or((0, 0), |(follow, agreed)| {
            // As long as the draft is right, what it reads on in is the text itself.
            let pairs = text[follow..].iter().zip(&text[place..]);
            (agreed + 1, pairs.take(MAX_ROWS - 1).take_while(|(draft, now)| draft == now).count())
        });
        found.agreed.push(agreed as u8);
        found.right.push(right as u8);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Always right and sure of it, or never asked for anything.
    struct Sure(bool);

    impl Drafts for Sure {
        fn token(&self, _: usize, _: usize) -> Option<(bool, f32)> {
            self.0.then_some((true, 12.0))
        }
    }

    #[test]
    fn a_round_costs_what_its_prices_say() {
        let steps: [f64; MAX_ROWS] = std::array::from_fn(|row| 1.0 + 0.25 * row as f64);
        let calibration = Calibration::default();
        let seconds = |share: f64, drafts: bool| {
            let prices = Prices { steps, share, token: 0.05 };
            let rule = Rule { calibration: &calibration, acceptance: 0.9, prices, token_seconds: 1.0 };
            let replayed = rule.replay(&Sure(drafts), MAX_ROWS);
            (replayed.rounds, replayed.verified, replayed.seconds)
        };
        // One round of sixteen drafted tokens and the target's own, of which an exit has run a part already.
        let length = MAX_ROWS - 1;
        for share in [1.0, 0.5] {
            let expected = Prices { steps, share, token: 0.05 }.costs().round(length);
            let (rounds, verified, seconds) = seconds(share, true);
            assert_eq!((rounds, verified), (1, length));
            assert!((seconds - expected).abs() < 1e-9, "{seconds} for {expected}");
        }
        // Without a draft a step is whole.
        let (rounds, verified, seconds) = seconds(0.5, false);
        assert_eq!((rounds, verified), (MAX_ROWS, 0));
        assert!((seconds - MAX_ROWS as f64).abs() < 1e-9, "{seconds}");
    }
}

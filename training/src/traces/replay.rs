//! Rounds of a drafter, replayed on what teacher forcing says, with the rule by which drafts stop in serving.

use paceline::drafters::DraftJudge;
use paceline::drafters::lookup::LookupDrafter;
use paceline::speculation::calibration::Calibration;
use paceline::speculation::costs::MAX_ROWS;
use paceline::speculation::stopping::WhileItPays;
use paceline::speculation::yields::Prices;

use super::forced::Column;

/// What a drafter would draft from a place of the answer.
pub trait Drafts {
    /// Whether the token at distance `ahead` from a draft's beginning at `start` is right if those before it are, and its odds;
    /// `None` where nothing is drafted.
    fn token(&self, start: usize, ahead: usize) -> Option<(bool, f32)>;
}

impl Drafts for Column {
    fn token(&self, start: usize, ahead: usize) -> Option<(bool, f32)> {
        Some((*self.matches.get(start + ahead)?, self.leads[start + ahead]))
    }
}

/// What a lookup in prompt and answer finds, from every place of the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lookups {
    /// How much of the text agreed before the draft, plus one; 0 where nothing was found.
    pub agreed: Vec<u8>,
    /// How many of the drafted tokens are right.
    pub right: Vec<u8>,
}

impl Drafts for Lookups {
    fn token(&self, start: usize, ahead: usize) -> Option<(bool, f32)> {
        let agreed = *self.agreed.get(start)?;
        let agreed = usize::from(agreed).checked_sub(1)?;
        Some((ahead < usize::from(self.right[start]), LookupDrafter::log_odds(agreed + ahead)))
    }
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// Rounds.
    pub rounds: usize,
    /// Tokens drafted.
    pub drafted: usize,
    /// Of them verified.
    pub verified: usize,
    /// How many drafts had their first, second, .. token accepted.
    pub accepted: Vec<usize>,
    /// Seconds, drafting and verifying.
    pub seconds: f64,
}

/// How a drafter stops.
pub struct Rule<'a> {
    /// What its odds are worth.
    pub calibration: &'a Calibration,
    /// The probability that a token is accepted of which nothing is known.
    pub acceptance: f64,
    /// What its rounds take.
    pub prices: Prices,
    /// What a token takes on average.
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
                WhileItPays::new(self.calibration, self.acceptance, self.prices, self.token_seconds, (0, most));
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
            all.seconds += self.prices.token * drafted as f64 + self.prices.steps[verified];
            place += accepted + 1;
        }
        all
    }
}

/// What lookups find from every place of an answer.
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

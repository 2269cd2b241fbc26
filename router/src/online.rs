//! What answers showed while serving: how acceptance differs from what was predicted, and what work takes.
//!
//! For every drafter and class of difficulty a beta distribution, whose prior is the prediction: its mean against the mean of
//! what was predicted says by how much the log-odds of further predictions are to be shifted. Old answers fade, so a change of
//! the workload is followed within a few. The state has a fixed size for a set of drafters, and can be saved, read back and
//! frozen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::costs::CostTable;
use crate::network::LEVELS;
use crate::router::log_odds;

/// How many drafted tokens the prediction weighs.
const PRIOR: f64 = 24.0;
/// After so many drafted tokens of a class one counts half.
const HALF_LIFE: f64 = 256.0;
/// The most drafters that are kept: those of skip plans are named by users.
const MOST_DRAFTERS: usize = 64;
/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

/// Why a saved state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    /// It is damaged.
    #[error("The learned state {} is damaged ({reason})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It belongs to other models.
    #[error("The learned state {} is of other models or another router", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("The learned state {} cannot be read ({source})", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Drafted tokens of one drafter and one class of difficulty, old ones fading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cell {
    /// Tokens.
    evaluated: f64,
    /// Of them accepted.
    accepted: f64,
    /// Of them expected to be.
    expected: f64,
}

impl Cell {
    fn observe(&mut self, tokens: f64, acceptance: f64, expected: f64) {
        let fade = 0.5_f64.powf(tokens / HALF_LIFE);
        self.evaluated = self.evaluated * fade + tokens;
        self.accepted = self.accepted * fade + tokens * acceptance;
        self.expected = self.expected * fade + tokens * expected;
    }

    /// By how much log-odds are to be raised.
    fn shift(&self) -> f64 {
        if self.evaluated <= 0.0 {
            return 0.0;
        }
        let expected = self.expected / self.evaluated;
        log_odds((self.accepted + PRIOR * expected) / (self.evaluated + PRIOR)) - log_odds(expected)
    }

    fn is_possible(&self) -> bool {
        let Self { evaluated, accepted, expected } = *self;
        // Sums that fade round a little differently.
        let most = evaluated * (1.0 + 1e-9) + 1e-9;
        evaluated.is_finite()
            && evaluated >= 0.0
            && (0.0..=most).contains(&accepted)
            && (0.0..=most).contains(&expected)
    }
}

/// What was learned while serving.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Online {
    /// A hash of everything that predictions come from.
    of: String,
    /// By drafter.
    cells: BTreeMap<String, [Cell; LEVELS.len()]>,
    /// What work took, as it was known last.
    costs: CostTable,
    /// Answers that were learned from.
    answers: u64,
}

impl Online {
    /// Nothing learned yet, by predictions that `of` is a hash of.
    pub fn new(of: impl Into<String>) -> Self {
        Self { of: of.into(), ..Self::default() }
    }

    /// Answers that were learned from.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// What work took, as it was known last.
    pub fn costs(&self) -> &CostTable {
        &self.costs
    }

    /// Learns what an answer's rounds of a drafter were worth: so many drafted tokens, and the effective acceptance that explains
    /// what they brought, beside the one that was expected.
    pub fn observe(&mut self, drafter: &str, level: usize, tokens: f64, acceptance: f64, expected: f64) {
        let sane = tokens.is_finite()
            && tokens > 0.0
            && [acceptance, expected].iter().all(|share| (0.0..=1.0).contains(share));
        if !sane || level >= LEVELS.len() || (!self.cells.contains_key(drafter) && self.cells.len() >= MOST_DRAFTERS) {
            return;
        }
        self.cells.entry(drafter.to_owned()).or_default()[level].observe(tokens, acceptance, expected);
    }

    /// An answer is over, and this is what work took in it.
    pub fn end_answer(&mut self, costs: CostTable) {
        self.answers += 1;
        self.costs = costs;
    }

    /// By how much the log-odds of a drafter's predicted acceptance are to be raised for prompts of these probabilities of
    /// difficulty.
    pub fn shift(&self, drafter: &str, difficulty: &[f64; LEVELS.len()]) -> f64 {
        let cells = self.cells.get(drafter);
        cells.map_or(0.0, |cells| cells.iter().zip(difficulty).map(|(cell, share)| share * cell.shift()).sum())
    }

    /// Its file.
    ///
    /// # Errors
    /// Never: it is JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Reads a state that was learned with predictions that `of` is a hash of; `None` if there is no such file.
    ///
    /// # Errors
    /// If it is damaged, or of other predictions.
    pub fn open(path: &Path, of: &str) -> Result<Option<Self>, OnlineError> {
        let unreadable = |source| OnlineError::Unreadable { path: path.to_owned(), source };
        let damaged = |reason: String| OnlineError::Damaged { path: path.to_owned(), reason };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
            Ok(metadata) if metadata.len() > LARGEST => return Err(damaged(format!("{} bytes", metadata.len()))),
            Ok(_) => {}
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let state: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if state.of != of {
            return Err(OnlineError::Other { path: path.to_owned() });
        }
        if state.cells.len() > MOST_DRAFTERS || !state.cells.values().flatten().all(Cell::is_possible) {
            return Err(damaged("counts that cannot be".to_owned()));
        }
        let costs = &state.costs;
        let drafters = costs.drafters.values().flat_map(|cost| [cost.token, cost.reading]);
        let shares = costs.drafters.values().all(|cost| cost.share > 0.0 && cost.share <= 1.0);
        if !shares
            || costs.steps.iter().copied().chain(drafters).any(|seconds| !(seconds.is_finite() && seconds >= 0.0))
        {
            return Err(damaged("costs that cannot be".to_owned()));
        }
        Ok(Some(state))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::router::sigmoid;

    const SIMPLE: [f64; 3] = [1.0, 0.0, 0.0];

    #[test]
    fn predictions_move_to_what_is_seen_and_other_classes_stay() {
        let mut state = Online::new("a");
        assert_eq!(state.shift("exit:2", &SIMPLE), 0.0);
        for _ in 0..40 {
            state.observe("exit:2", 0, 30.0, 0.6, 0.9);
        }
        let corrected = sigmoid(log_odds(0.9) + state.shift("exit:2", &SIMPLE));
        assert!((corrected - 0.6).abs() < 0.03, "{corrected}");
        assert_eq!(state.shift("exit:2", &[0.0, 0.0, 1.0]), 0.0);
        assert_eq!(state.shift("model:tiny", &SIMPLE), 0.0);
    }

    #[test]
    fn a_changed_workload_is_followed_within_a_few_answers() {
        let mut state = Online::new("a");
        (0..1000).for_each(|_| state.observe("lookup", 0, 30.0, 0.9, 0.9));
        // Half of the way after 256 tokens, whatever came before.
        (0..9).for_each(|_| state.observe("lookup", 0, 30.0, 0.1, 0.9));
        let corrected = sigmoid(log_odds(0.9) + state.shift("lookup", &SIMPLE));
        assert!((0.35..0.55).contains(&corrected), "{corrected}");
    }

    #[test]
    fn it_is_bounded_whatever_is_seen() {
        let mut state = Online::new("a");
        for number in 0..1000 {
            state.observe(&format!("skip:{number}"), number % 5, 1e9, 1.0, 1.0);
        }
        state.observe("x", 0, f64::NAN, 0.5, 0.5);
        state.observe("x", 0, 1.0, 2.0, 0.5);
        assert!(state.cells.len() <= MOST_DRAFTERS && !state.cells.contains_key("x"));
        assert!(state.to_json().unwrap().len() < LARGEST as usize);
    }

    proptest! {
        #[test]
        fn what_is_saved_is_read_back(seen in prop::collection::vec((0_usize..3, 0.1..100.0_f64, 0.0..=1.0_f64, 0.0..=1.0_f64), 0..20)) {
            let mut state = Online::new("a");
            seen.iter().for_each(|&(level, tokens, acceptance, expected)| state.observe("lookup", level, tokens, acceptance, expected));
            state.end_answer(CostTable { steps: vec![1.0, 1.5], ..CostTable::default() });
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.json");
            std::fs::write(&path, state.to_json().unwrap()).unwrap();
            let read = Online::open(&path, "a").unwrap().unwrap();
            prop_assert_eq!((read.answers, &read.costs), (1, &state.costs));
            for level in 0..3 {
                let sure: [f64; 3] = std::array::from_fn(|class| f64::from(u8::from(class == level)));
                // Decimals may be off by the last bit.
                prop_assert!((read.shift("lookup", &sure) - state.shift("lookup", &sure)).abs() < 1e-9);
            }
            let is_refused = matches!(Online::open(&path, "b"), Err(OnlineError::Other { .. }));
            prop_assert!(is_refused);
        }
    }

    #[test]
    fn what_is_damaged_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert!(Online::open(&path, "a").unwrap().is_none());
        let mut state = Online::new("a");
        state.observe("lookup", 0, 10.0, 0.5, 0.5);
        let good = state.to_json().unwrap();
        for bad in ["", "{}", &good[..good.len() / 2], &good.replace("10.0", "-10.0"), &good.replace("10.0", "1e999")] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(Online::open(&path, "a"), Err(OnlineError::Damaged { .. })), "{bad}");
        }
        assert!(Online::open(dir.path(), "a").is_err());
    }
}

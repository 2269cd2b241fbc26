//! Observations of answers while serving: the difference of acceptance from its prediction, and the costs of work.
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
use crate::quoted::quoted;
use crate::router::log_odds;

/// Number of drafted tokens that the prediction weighs as much as.
const PRIOR: f64 = 24.0;
/// After so many drafted tokens of a class one counts half.
const HALF_LIFE: f64 = 256.0;
/// The most drafters that are kept: those of skip plans are named by users.
const MOST_DRAFTERS: usize = 64;
/// Bytes of a file at most: more than a state ever has.
pub const MOST_BYTES: u64 = 1 << 20;

/// Why a saved state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    /// It is damaged.
    #[error("The learned state {} is damaged ({reason})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// It belongs to other models.
    #[error("The learned state {} is of other models or another router", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// It is no learned state, whole or damaged, but something else that is nobody's business here.
    #[error("{} is not a learned state and was left alone", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
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
        let fade = fade(tokens);
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

/// The share that is left of earlier observations after so many tokens.
fn fade(tokens: f64) -> f64 {
    0.5_f64.powf(tokens / HALF_LIFE)
}

/// Effect of observations on a cell, whatever it held before: a fade and an addition. Old observations fade by the
/// number of newer tokens alone, so the change by several is again one factor and one sum.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Change {
    /// By how much what was there before has faded.
    fade: f64,
    /// Newer observations, faded likewise.
    added: Cell,
}

impl Default for Change {
    fn default() -> Self {
        Self { fade: 1.0, added: Cell::default() }
    }
}

impl Change {
    fn observe(&mut self, tokens: f64, acceptance: f64, expected: f64) {
        self.fade *= fade(tokens);
        self.added.observe(tokens, acceptance, expected);
    }

    /// The cell that comes of another one.
    fn of(&self, before: Cell) -> Cell {
        let Self { fade, added } = *self;
        Cell {
            evaluated: before.evaluated * fade + added.evaluated,
            accepted: before.accepted * fade + added.accepted,
            expected: before.expected * fade + added.expected,
        }
    }
}

/// Observations since the state was read or written.
#[derive(Clone, Debug, Default, PartialEq)]
struct Changes {
    /// By drafter.
    cells: BTreeMap<String, [Change; LEVELS.len()]>,
    answers: u64,
}

/// State learned while serving.
///
/// Several programs may learn into one file. Each keeps what it learned since it last read or wrote the file, and when it writes,
/// brings that to what the file holds by then ([`Online::after`]): the file is what one program would have that had seen the
/// answers of all, each program's since its former write together, in the order of the writes. Nothing is lost or counted twice.
/// Costs of work are measured anew by every answer, so of those the last to be written are right.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Online {
    /// A hash of everything that predictions come from.
    of: String,
    /// By drafter.
    cells: BTreeMap<String, [Cell; LEVELS.len()]>,
    /// Most recent costs of work.
    costs: CostTable,
    /// Answers that were learned from.
    answers: u64,
    #[serde(skip)]
    changes: Changes,
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

    /// Most recent costs of work.
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
        self.changes.cells.entry(drafter.to_owned()).or_default()[level].observe(tokens, acceptance, expected);
    }

    /// An answer is over, and this is what work took in it.
    pub fn end_answer(&mut self, costs: CostTable) {
        self.answers = self.answers.saturating_add(1);
        self.changes.answers += 1;
        self.costs = costs;
    }

    /// True if anything was learned since it was read or [taken up](Self::after).
    pub fn has_changes(&self) -> bool {
        self.changes != Changes::default()
    }

    /// A state that others wrote meanwhile, with what was learned here since applied to it. Nothing of that is pending
    /// in it.
    #[must_use]
    pub fn after(&self, others: &Self) -> Self {
        let mut all = Self { changes: Changes::default(), ..others.clone() };
        for (drafter, changes) in &self.changes.cells {
            // As many drafters as are kept, of whomever: as when one program had seen all answers.
            if all.cells.contains_key(drafter) || all.cells.len() < MOST_DRAFTERS {
                let cells = all.cells.entry(drafter.clone()).or_default();
                cells.iter_mut().zip(changes).for_each(|(cell, change)| *cell = change.of(*cell));
            }
        }
        if self.changes.answers > 0 {
            all.answers = all.answers.saturating_add(self.changes.answers);
            all.costs = self.costs.clone();
        }
        all
    }

    /// The same with nothing pending, for where the file holds nothing of others.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { changes: Changes::default(), ..self.clone() }
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

    /// A state that was learned with predictions that `of` is a hash of, from the bytes of its file; `path` is for messages.
    ///
    /// # Errors
    /// If it is damaged, of other predictions, or not one of our files.
    pub fn read(path: &Path, bytes: &[u8], of: &str) -> Result<Self, OnlineError> {
        let damaged = |reason: String| OnlineError::Damaged { path: path.to_owned(), reason: quoted(&reason) };
        let state: Self = serde_json::from_slice(bytes).map_err(|error| match begins_like_one(bytes) {
            true => damaged(error.to_string()),
            false => OnlineError::Foreign { path: path.to_owned() },
        })?;
        if state.of != of {
            return Err(OnlineError::Other { path: path.to_owned() });
        }
        state.check().map_err(|reason| damaged(reason.to_owned()))?;
        Ok(state)
    }

    /// Checks that its counts and costs are possible; the error names those that are not.
    fn check(&self) -> Result<(), &'static str> {
        if self.cells.len() > MOST_DRAFTERS || !self.cells.values().flatten().all(Cell::is_possible) {
            return Err("counts that cannot be");
        }
        let costs = &self.costs;
        let drafters = costs.drafters.values().flat_map(|cost| [cost.token, cost.reading]);
        let shares = costs.drafters.values().all(|cost| cost.share > 0.0 && cost.share <= 1.0);
        let is_time = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
        if shares && costs.steps.iter().copied().chain(drafters).all(is_time) {
            Ok(())
        } else {
            Err("costs that cannot be")
        }
    }
}

/// True if a file begins as every state written here does, `{"of": "`, whatever follows.
fn begins_like_one(bytes: &[u8]) -> bool {
    let mut bytes = bytes;
    ["{", "\"of\"", ":", "\""].iter().all(|part| {
        let rest = bytes.trim_ascii_start().strip_prefix(part.as_bytes());
        rest.inspect(|rest| bytes = rest).is_some()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::router::sigmoid;

    const SIMPLE: [f64; 3] = [1.0, 0.0, 0.0];

    fn read(bytes: &[u8], of: &str) -> Result<Online, OnlineError> {
        Online::read(Path::new("state.json"), bytes, of)
    }

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
        assert!(state.to_json().unwrap().len() < MOST_BYTES as usize);
    }

    proptest! {
        #[test]
        fn what_is_saved_is_read_back(seen in prop::collection::vec((0_usize..3, 0.1..100.0_f64, 0.0..=1.0_f64, 0.0..=1.0_f64), 0..20)) {
            let mut state = Online::new("a");
            seen.iter().for_each(|&(level, tokens, acceptance, expected)| state.observe("lookup", level, tokens, acceptance, expected));
            state.end_answer(CostTable { steps: vec![1.0, 1.5], ..CostTable::default() });
            let json = state.to_json().unwrap();
            let read = read(json.as_bytes(), "a").unwrap();
            prop_assert_eq!((read.answers, &read.costs), (1, &state.costs));
            for level in 0..3 {
                let sure: [f64; 3] = std::array::from_fn(|class| f64::from(u8::from(class == level)));
                // Decimals may be off by the last bit.
                prop_assert!((read.shift("lookup", &sure) - state.shift("lookup", &sure)).abs() < 1e-9);
            }
            let is_refused = matches!(super::Online::read(Path::new("x"), json.as_bytes(), "b"), Err(OnlineError::Other { .. }));
            prop_assert!(is_refused);
        }
    }

    #[test]
    fn what_is_damaged_is_told() {
        let mut state = Online::new("a");
        state.observe("lookup", 0, 10.0, 0.5, 0.5);
        let good = state.to_json().unwrap();
        // Wherever it was cut, from the beginning by which it is known on.
        let beginning = good.find(": \"").unwrap() + 3;
        let cut = (beginning..good.len()).map(|end| good[..end].to_owned());
        for bad in
            cut.chain([good.replace("10.0", "-10.0"), good.replace("10.0", "1e999"), good.replace("answers", "x")])
        {
            assert!(matches!(read(bad.as_bytes(), "a"), Err(OnlineError::Damaged { .. })), "{bad}");
        }
        for foreign in
            ["", "{}", "{\"model\": \"llama\"}", "Dear diary,", "{\"prompt\": \"x\"}\n{\"prompt\": \"y\"}", "\u{feff}{"]
        {
            assert!(matches!(read(foreign.as_bytes(), "a"), Err(OnlineError::Foreign { .. })), "{foreign}");
        }
        let compact = serde_json::to_vec(&state).unwrap();
        assert!(read(&compact, "a").is_ok() && read(&[b"\n ", good.as_bytes()].concat(), "a").is_ok());
    }

    /// An answer that one of several programs learned from, and whether it wrote the state then.
    type Step = (usize, (usize, usize, f64, f64, f64), bool);

    /// Learns from the step's answer.
    fn learn(state: &mut Online, (_, (drafter, level, tokens, acceptance, expected), _): &Step) {
        state.observe(["lookup", "exit:2", "model:tiny"][*drafter], *level, *tokens, *acceptance, *expected);
        state.end_answer(CostTable { steps: vec![*tokens], ..CostTable::default() });
    }

    proptest! {
        /// Whatever programs answer in turns and write when: the file is what one has that saw all, a write's answers at a time.
        #[test]
        fn nothing_that_several_programs_learn_is_lost_or_counted_twice(
            steps in prop::collection::vec(
                (0_usize..3, (0_usize..3, 0_usize..3, 0.1..100.0_f64, 0.0..=1.0_f64, 0.0..=1.0_f64), any::<bool>()), 0..40,
            ),
        ) {
            let mut file = Online::new("a");
            let mut expected = Online::new("a");
            let mut programs = vec![file.clone(); 3];
            let mut pending: Vec<Vec<&Step>> = vec![Vec::new(); 3];
            let last: Vec<Step> = (0..3).map(|program| (program, (0, 0, 1.0, 0.5, 0.5), true)).collect();
            for step in steps.iter().chain(&last) {
                let program = step.0;
                learn(&mut programs[program], step);
                pending[program].push(step);
                if step.2 {
                    prop_assert!(programs[program].has_changes());
                    file = read(programs[program].after(&file).to_json().unwrap().as_bytes(), "a").unwrap();
                    programs[program] = file.clone();
                    prop_assert!(!file.has_changes());
                    pending[program].drain(..).for_each(|step| learn(&mut expected, step));
                }
            }
            prop_assert_eq!(file.answers, steps.len() as u64 + 3);
            prop_assert_eq!(&file.costs, &expected.costs);
            prop_assert!(file.cells.keys().eq(expected.cells.keys()));
            for (found, expected) in file.cells.values().flatten().zip(expected.cells.values().flatten()) {
                let numbers = |cell: &Cell| [cell.evaluated, cell.accepted, cell.expected];
                for (found, expected) in numbers(found).into_iter().zip(numbers(expected)) {
                    prop_assert!((found - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{found} {expected}");
                }
            }
        }
    }
}

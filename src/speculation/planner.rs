//! Which drafter, and how far ahead.
//!
//! The cost model: drafting `k` tokens at `c` seconds each and verifying them and the newest token in
//! `v(k + 1)` yields `1 + sum_{i <= k} prod_{j <= i} a_j` tokens on average, against one token in `v(1)`. The
//! planner takes the drafter and the length with the most tokens per second; 0 is a length like any other.
//! Estimates move all the time, so the choice changes only for a gain worth having, and drafters that were
//! given up are tried again now and then, within a fixed share of the time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::costs::RunningCost;
use super::{Acceptance, MAX_DRAFT, VerifyCosts};
use crate::drafters::DrafterChoice;

/// The gain for which a choice changes.
const HYSTERESIS: f64 = 1.03;
/// The share of time that probes may cost.
const PROBE_SHARE: f64 = 0.01;
/// The draft length of probes and of a drafter's first rounds.
const SHORT: usize = 2;
/// Rounds after which a drafter is known well enough to draft far.
const INTRODUCTION: u32 = 4;

/// How far ahead to draft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LengthText", into = "LengthText")]
pub enum DraftLength {
    /// By the cost model, 0 included.
    #[default]
    Auto,
    /// Always this many tokens, `1..=MAX_DRAFT`.
    Fixed(usize),
}

/// A config file may hold a number or a word.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum LengthText {
    Number(i64),
    Text(String),
}

/// Text that is no draft length.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no draft length: write auto or a number from 1 to {MAX_DRAFT} (`--drafter none` drafts nothing).")]
pub struct DraftLengthError(String);

impl FromStr for DraftLength {
    type Err = DraftLengthError;

    fn from_str(text: &str) -> Result<Self, DraftLengthError> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(length)) if (1..=MAX_DRAFT).contains(&length) => Ok(Self::Fixed(length)),
            _ => Err(DraftLengthError(text.to_owned())),
        }
    }
}

impl TryFrom<LengthText> for DraftLength {
    type Error = DraftLengthError;

    fn try_from(text: LengthText) -> Result<Self, DraftLengthError> {
        match text {
            LengthText::Number(number) => number.to_string().parse(),
            LengthText::Text(text) => text.parse(),
        }
    }
}

impl From<DraftLength> for LengthText {
    fn from(length: DraftLength) -> Self {
        match length {
            DraftLength::Auto => Self::Text("auto".to_owned()),
            DraftLength::Fixed(length) => Self::Number(length as i64),
        }
    }
}

impl fmt::Display for DraftLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(length) => write!(f, "{length}"),
        }
    }
}

/// What is known about one drafter on this machine and on recent text.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: DrafterChoice,
    /// How often its tokens are accepted.
    pub acceptance: Acceptance,
    /// Seconds that a drafted token adds to the verification of its row: the drafter's own work. For an exit,
    /// whose layers verification does not run again, what remains of it after that saving.
    pub draft_cost: RunningCost,
    rounds: u32,
    /// Rounds since it was last asked.
    idle: u32,
}

impl Candidate {
    /// A drafter nothing is known about.
    pub fn new(name: DrafterChoice) -> Self {
        Self { name, acceptance: Acceptance::default(), draft_cost: RunningCost::default(), rounds: 0, idle: 0 }
    }

    /// Whether its work is part of the verification's.
    fn shares_layers(&self) -> bool {
        matches!(self.name, DrafterChoice::Exit(_))
    }

    /// Learns what a round of `drafted` tokens cost, given what verifying as many rows costs by itself.
    pub(super) fn observe_cost(&mut self, round: &Round, verify_alone: Option<f64>) {
        let verify_alone = if self.shares_layers() { verify_alone } else { None };
        let added = round.draft_seconds + verify_alone.map_or(0.0, |alone| round.verify_seconds - alone);
        self.draft_cost.observe(added.max(0.0) / round.drafted as f64);
    }
}

/// One way to go on: a drafter, as an index into the planner's candidates, and how far it drafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The candidate.
    pub candidate: usize,
    /// Tokens to draft, at least 1.
    pub length: usize,
}

/// What a round did, for the planner to learn from.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// The candidate that drafted, if one did.
    pub candidate: Option<usize>,
    /// Tokens drafted.
    pub drafted: usize,
    /// Of them accepted.
    pub accepted: usize,
    /// Seconds spent drafting.
    pub draft_seconds: f64,
    /// Seconds of the target's step.
    pub verify_seconds: f64,
}

/// Decides before every round, learns after it. Kept from answer to answer.
pub struct Planner {
    costs: VerifyCosts,
    candidates: Vec<Candidate>,
    current: Option<Plan>,
    probing: bool,
    seconds: f64,
    probe_seconds: f64,
}

impl Planner {
    /// A planner that knows nothing yet.
    pub fn new(candidates: Vec<Candidate>, costs: VerifyCosts) -> Self {
        Self { costs, candidates, current: None, probing: false, seconds: 0.0, probe_seconds: 0.0 }
    }

    /// The drafters it chooses from.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The target's step costs.
    pub fn costs(&self) -> &VerifyCosts {
        &self.costs
    }

    /// The step costs, for a calibration to fill in.
    pub fn costs_mut(&mut self) -> &mut VerifyCosts {
        &mut self.costs
    }

    /// The candidates, for a calibration to fill in.
    pub fn candidates_mut(&mut self) -> &mut [Candidate] {
        &mut self.candidates
    }

    /// The plans worth trying for the next round among `allowed` candidates, best first: if the first has
    /// nothing to draft, the next may. Empty means plain decoding. No draft is longer than `room`.
    pub fn plans(&mut self, allowed: &[usize], length: DraftLength, room: usize) -> Vec<Plan> {
        let room = room.min(MAX_DRAFT);
        if room == 0 {
            return Vec::new();
        }
        let mut scored: Vec<(f64, Plan)> = allowed.iter().map(|&index| self.best_length(index, length, room)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        if let DraftLength::Fixed(_) = length {
            return scored.into_iter().map(|(_, plan)| plan).collect();
        }
        self.probing = false;
        if let Some(probe) = self.probe(allowed, room, scored.first().map_or(1.0, |best| best.0.max(1.0))) {
            self.probing = true;
            // Asked is asked, even if it finds nothing to draft: the next probe is another's.
            self.candidates[probe.candidate].idle = 0;
            return vec![probe];
        }
        // The current choice stays unless the best is better by more than the noise of the estimates. Plain
        // decoding is a choice too.
        let current = self.current.filter(|plan| allowed.contains(&plan.candidate) && plan.length <= room);
        let holding = current.map_or(1.0, |plan| self.speedup(plan));
        let change = scored.first().is_some_and(|best| best.0 > holding * HYSTERESIS);
        match current {
            None if !change => scored.clear(),
            Some(plan) if !change && holding > 1.0 => {
                scored.retain(|(_, other)| other.candidate != plan.candidate);
                scored.insert(0, (holding, plan));
            }
            _ => scored.retain(|(speedup, _)| *speedup > 1.0),
        }
        self.current = scored.first().map(|(_, plan)| *plan);
        scored.into_iter().map(|(_, plan)| plan).collect()
    }

    /// Learns from a round.
    pub fn observe(&mut self, round: &Round) {
        let rows = round.drafted + 1;
        let seconds = round.draft_seconds + round.verify_seconds;
        self.seconds += seconds;
        if self.probing {
            let worth = self.seconds_per_token() * (round.accepted + 1) as f64;
            self.probe_seconds += (seconds - worth).max(0.0);
        }
        for candidate in &mut self.candidates {
            candidate.idle = candidate.idle.saturating_add(1);
        }
        match round.candidate.map(|index| &mut self.candidates[index]) {
            Some(candidate) if round.drafted > 0 => {
                candidate.observe_cost(round, self.costs.seconds(rows));
                candidate.acceptance.observe(round.drafted, round.accepted);
                candidate.rounds = candidate.rounds.saturating_add(1);
                candidate.idle = 0;
                if !candidate.shares_layers() {
                    self.costs.observe(rows, round.verify_seconds);
                }
            }
            _ => self.costs.observe(rows, round.verify_seconds),
        }
    }

    /// Tokens per second of a plan in units of plain decoding.
    pub fn speedup(&self, plan: Plan) -> f64 {
        let candidate = &self.candidates[plan.candidate];
        let (Some(plain), Some(verify)) = (self.costs.seconds(1), self.costs.seconds(plan.length + 1)) else {
            return 1.0;
        };
        let draft = candidate.draft_cost.seconds().unwrap_or(0.0) * plan.length as f64;
        candidate.acceptance.expected_tokens()[plan.length - 1] * plain / (draft + verify)
    }

    fn best_length(&self, candidate: usize, length: DraftLength, room: usize) -> (f64, Plan) {
        let lengths = match length {
            DraftLength::Fixed(length) => length.min(room)..=length.min(room),
            DraftLength::Auto if self.candidates[candidate].rounds < INTRODUCTION => 1..=room.min(SHORT),
            DraftLength::Auto => 1..=room,
        };
        let plans = lengths.map(|length| Plan { candidate, length }).map(|plan| (self.speedup(plan), plan));
        plans.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, Plan { candidate, length: 1 }))
    }

    /// A short round of the candidate idle for longest, if the time that probes have cost and this one may
    /// cost stays within their share.
    fn probe(&self, allowed: &[usize], room: usize, best: f64) -> Option<Plan> {
        let current = self.current.map(|plan| plan.candidate);
        let candidate =
            allowed.iter().copied().filter(|&c| Some(c) != current).max_by_key(|&c| self.candidates[c].idle)?;
        let plan = Plan { candidate, length: room.min(SHORT) };
        let round = self.candidates[candidate].draft_cost.seconds().unwrap_or(0.0) * plan.length as f64
            + self.costs.seconds(plan.length + 1)?;
        let gain = self.costs.seconds(1)? / best;
        let waste = (round - gain).max(0.0);
        let due = self.candidates[candidate].idle > 32;
        (due && self.probe_seconds + waste <= PROBE_SHARE * self.seconds).then_some(plan)
    }

    fn seconds_per_token(&self) -> f64 {
        let speedup = self.current.map_or(1.0, |plan| self.speedup(plan).max(1.0));
        self.costs.seconds(1).unwrap_or(0.0) / speedup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine where a step over `r` rows takes `1 + slope * (r - 1)` and every drafter `draft` a token,
    /// played for `rounds` rounds with drafters that are always right up to a position.
    struct Machine {
        planner: Planner,
        slope: f64,
        draft: Vec<f64>,
        right_up_to: Vec<usize>,
        tokens: usize,
        seconds: f64,
    }

    impl Machine {
        fn new(slope: f64, drafters: &[(f64, usize)]) -> Self {
            let mut costs = VerifyCosts::default();
            (1..=MAX_DRAFT + 1).for_each(|rows| costs.observe(rows, 1.0 + slope * (rows - 1) as f64));
            let model = |i: usize| Candidate::new(DrafterChoice::Model(Some(i.to_string())));
            let candidates = (0..drafters.len()).map(model).collect();
            Self {
                planner: Planner::new(candidates, costs),
                slope,
                draft: drafters.iter().map(|d| d.0).collect(),
                right_up_to: drafters.iter().map(|d| d.1).collect(),
                tokens: 0,
                seconds: 0.0,
            }
        }

        /// Plays and returns the plans of the last round.
        fn play(&mut self, rounds: usize) -> Option<Plan> {
            let allowed: Vec<usize> = (0..self.draft.len()).collect();
            let mut last = None;
            for _ in 0..rounds {
                let plan = self.planner.plans(&allowed, DraftLength::Auto, MAX_DRAFT).first().copied();
                let drafted = plan.map_or(0, |plan| plan.length);
                let accepted = plan.map_or(0, |plan| drafted.min(self.right_up_to[plan.candidate]));
                let round = Round {
                    candidate: plan.map(|plan| plan.candidate),
                    drafted,
                    accepted,
                    draft_seconds: plan.map_or(0.0, |plan| self.draft[plan.candidate] * drafted as f64),
                    verify_seconds: 1.0 + self.slope * drafted as f64,
                };
                self.planner.observe(&round);
                self.tokens += accepted + 1;
                self.seconds += round.draft_seconds + round.verify_seconds;
                if !self.planner.probing {
                    last = plan;
                }
            }
            last
        }
    }

    #[test]
    fn a_drafter_that_is_always_wrong_is_given_up_and_costs_little() {
        let mut machine = Machine::new(0.1, &[(0.3, 0)]);
        assert_eq!(machine.play(100), None);
        let (tokens, seconds) = (machine.tokens, machine.seconds);
        machine.play(5000);
        let plain_share = (machine.tokens - tokens) as f64 / (machine.seconds - seconds);
        assert!(plain_share > 0.98, "probes cost {plain_share}");
    }

    #[test]
    fn a_drafter_that_is_always_right_drafts_far_where_verification_is_cheap() {
        let plan = Machine::new(0.02, &[(0.05, MAX_DRAFT)]).play(400);
        assert!(plan.is_some_and(|plan| plan.length >= 12), "{plan:?}");
    }

    #[test]
    fn nothing_is_drafted_where_a_row_costs_as_much_as_a_step() {
        assert_eq!(Machine::new(1.0, &[(0.1, MAX_DRAFT)]).play(400), None);
    }

    #[test]
    fn the_best_of_several_is_found_and_its_length_fits_what_it_knows() {
        // The second is right for three tokens, then wrong; the others are wrong at once or dear.
        let plan = Machine::new(0.1, &[(0.1, 0), (0.05, 3), (0.9, MAX_DRAFT)]).play(600);
        assert!(plan.is_some_and(|plan| plan.candidate == 1 && (3..=4).contains(&plan.length)), "{plan:?}");
    }

    #[test]
    fn a_drafter_that_becomes_good_is_found_again() {
        let mut machine = Machine::new(0.05, &[(0.1, 0)]);
        assert_eq!(machine.play(300), None);
        machine.right_up_to[0] = MAX_DRAFT;
        assert!(machine.play(20_000).is_some());
    }

    #[test]
    fn what_an_exit_saves_in_verification_counts_for_it() {
        let mut costs = VerifyCosts::default();
        (1..=MAX_DRAFT + 1).for_each(|rows| costs.observe(rows, 1.0));
        let mut planner = Planner::new(vec![Candidate::new(DrafterChoice::Exit(2))], costs);
        // Half of the layers run while drafting, one token at a time; verification runs the other half.
        let round = Round { candidate: Some(0), drafted: 4, accepted: 4, draft_seconds: 2.0, verify_seconds: 0.6 };
        (0..50).for_each(|_| planner.observe(&round));
        let cost = planner.candidates()[0].draft_cost.seconds();
        assert!(cost.is_some_and(|cost| (cost - (2.0 + 0.6 - 1.0) / 4.0).abs() < 1e-9), "{cost:?}");
        assert_eq!(planner.costs().seconds(5), Some(1.0), "a shortened verification says nothing about whole ones");
    }

    #[test]
    fn a_fixed_length_is_kept_whatever_it_costs_and_never_exceeds_the_room() {
        let mut planner = Machine::new(1.0, &[(5.0, 0)]).planner;
        let plan = |planner: &mut Planner, room| {
            planner.plans(&[0], DraftLength::Fixed(8), room).first().map(|plan| plan.length)
        };
        assert_eq!((plan(&mut planner, 16), plan(&mut planner, 3), plan(&mut planner, 0)), (Some(8), Some(3), None));
    }
}

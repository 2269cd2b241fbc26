//! Costs of this machine: the target's steps, and what drafters' work takes. Measured while answering, never learned into
//! weights.

use paceline_router::CostTable;
use paceline_router::costs::DrafterCost;

use super::MAX_DRAFT;
use super::costs::{RunningCost, StepCosts};
use super::shared_steps::SharedSteps;

/// Weight of the guess at [`DrafterCosts::share`], in rounds, and the most rounds that count: the share is a matter of how
/// the target is made, so it hardly moves.
const SHARE_PRIOR: f64 = 8.0;
const SHARE_MOST: f64 = 200.0;
/// No exit leaves less of a step than this.
const LEAST_SHARE: f64 = 0.01;

/// Costs of a target's steps, and of its drafters by their index.
#[derive(Clone, Debug, Default)]
pub struct MachineCosts {
    /// The target's steps for one answer.
    pub steps: StepCosts,
    /// Its steps that answers share.
    pub shared: SharedSteps,
    /// The drafters' work.
    pub drafters: Vec<DrafterCosts>,
}

/// Costs of a drafter's work.
#[derive(Clone, Debug)]
pub struct DrafterCosts {
    /// Seconds of a drafted token.
    pub token: RunningCost,
    /// The share of a target step that verifying its drafts takes: below 1 for an exit, whose layers are not run again. A
    /// guess at first, which weighs as much as some rounds.
    pub share: f64,
    /// Rounds that the share stands for.
    shares: f64,
    /// Guessed cost of a drafted token before it is measured, in plain steps of the target.
    pub(super) guess: f64,
    /// Bytes of memory that it needs for itself.
    pub(super) bytes: u64,
}

impl DrafterCosts {
    /// Costs of which nothing is known but guesses: of a token, in plain steps of the target, and of the share of a step that
    /// verifying takes; with the bytes that the drafter needs for itself.
    pub fn guessed(guess: f64, share: f64, bytes: u64) -> Self {
        Self { token: RunningCost::default(), share, shares: SHARE_PRIOR, guess, bytes }
    }

    /// Learns that verifying a draft took such a share of a step over as many rows.
    pub(super) fn observe_share(&mut self, share: f64) {
        self.shares = (self.shares + 1.0).min(SHARE_MOST);
        self.share += (share.clamp(LEAST_SHARE, 1.0) - self.share) / self.shares;
    }

    /// True if asking it costs next to nothing, as it computes nothing.
    pub(super) fn is_free(&self) -> bool {
        self.guess == 0.0
    }
}

impl MachineCosts {
    /// Guess at what a further row adds to a step: what it adds to steps of one answer.
    pub(super) fn row_guess(&self) -> Option<f64> {
        let all = self.steps.all()?;
        Some((all[MAX_DRAFT] - all[0]).max(0.0) / MAX_DRAFT as f64)
    }

    /// Table of the costs, as far as they are known, of the first drafters, which have these names.
    pub fn table<'a>(&self, names: impl Iterator<Item = &'a str>) -> CostTable {
        let mut steps = vec![0.0; MAX_DRAFT + 1];
        self.steps.observed().for_each(|(rows, seconds)| steps[rows - 1] = seconds);
        let cost = |(costs, name): (&DrafterCosts, &str)| {
            let token = costs.token.seconds()?;
            Some((name.to_owned(), DrafterCost { token, share: costs.share, ..DrafterCost::default() }))
        };
        let drafters = self.drafters.iter().zip(names).filter_map(cost).collect();
        CostTable { steps, drafters, ..CostTable::default() }
    }

    /// Takes up what work took in an earlier run, of drafters with these names. It is as good as measured, until it is measured
    /// again.
    pub fn restore<'a>(&mut self, known: &CostTable, names: impl Iterator<Item = &'a str>) {
        for (rows, &seconds) in (1..).zip(&known.steps).filter(|(_, seconds)| **seconds > 0.0) {
            self.steps.restore(rows, seconds);
        }
        for (costs, name) in self.drafters.iter_mut().zip(names) {
            if let Some(known) = known.drafters.get(name) {
                costs.token = RunningCost::known(known.token);
                (costs.share, costs.shares) = (known.share, SHARE_MOST);
            }
        }
    }
}

//! Knowledge about a drafter.

use paceline_router::costs::DrafterCost;

use crate::drafters::DrafterChoice;
use crate::speculation::calibration::Calibration;
use crate::speculation::costs::RunningCost;
use crate::speculation::yields::Yield;

/// Rounds after which a drafter is no newcomer any more.
pub(super) const INTRODUCTION: u32 = 4;
/// Weight of the guess at [`Candidate::share`], in rounds, and the most rounds that count: the share is a matter of how
/// the target is made, so it hardly moves.
const SHARE_PRIOR: f64 = 8.0;
const SHARE_MOST: f64 = 200.0;
/// No exit leaves less of a step than this.
const LEAST_SHARE: f64 = 0.01;

/// Expectations of a drafter in an answer before it begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// The share of its tokens that are accepted.
    pub acceptance: f64,
    /// Its effective acceptance ([`paceline_router::Prices::effective_acceptance`]).
    pub effective: f64,
    /// Weight of the forecast, in rounds of the answer.
    pub rounds: f64,
    /// Factor on its speed before the comparison: below 1 for a drafter that is hardly ever the best, so that noise in
    /// its price does not make it look so.
    pub trust: f64,
}

/// Knowledge about one drafter on this machine and on recent text.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: DrafterChoice,
    /// Seconds of a drafted token.
    pub draft_cost: RunningCost,
    /// The share of a target step that verifying its drafts takes: below 1 for an exit, whose layers are not run again. A
    /// guess at first, which weighs as much as some rounds.
    pub share: f64,
    shares: f64,
    /// Yield of its rounds.
    pub(super) yields: Yield,
    /// Calibration of its odds.
    pub(super) calibration: Calibration,
    /// Guessed cost of a drafted token before it is measured, in plain steps of the target.
    pub(super) guess: f64,
    /// Bytes of memory that it needs for itself.
    pub(super) bytes: u64,
    /// Rounds in which it worked on a draft.
    pub(super) rounds: u32,
    /// Rounds for which it was tried out.
    pub(super) tries: u32,
    /// Rounds since it was last asked.
    pub(super) idle: u32,
    /// Answers in the making that know it.
    pub(super) answers: usize,
}

impl Candidate {
    /// A drafter nothing is known about but a guess at what one of its tokens costs, in plain steps of the target.
    pub fn new(name: DrafterChoice, guess: f64) -> Self {
        Self {
            name,
            draft_cost: RunningCost::default(),
            share: 1.0,
            shares: SHARE_PRIOR,
            yields: Yield::default(),
            calibration: Calibration::default(),
            guess,
            bytes: 0,
            rounds: 0,
            tries: 0,
            idle: 0,
            answers: 0,
        }
    }

    /// The same drafter, which needs so many bytes of memory for itself.
    #[must_use]
    pub fn needing(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    /// The same drafter, of whose drafts such a share of a target step is guessed to verify them.
    #[must_use]
    pub fn verified_in(self, share: f64) -> Self {
        Self { share, ..self }
    }

    /// Takes up what was learned of its costs in an earlier run.
    pub(super) fn restore(&mut self, cost: &DrafterCost) {
        self.draft_cost = RunningCost::known(cost.token);
        (self.share, self.shares) = (cost.share, SHARE_MOST);
    }

    /// Learns that verifying a draft took such a share of a step over as many rows.
    pub(super) fn observe_share(&mut self, share: f64) {
        self.shares = (self.shares + 1.0).min(SHARE_MOST);
        self.share += (share.clamp(LEAST_SHARE, 1.0) - self.share) / self.shares;
    }

    /// True if its work is part of the verification's.
    pub fn shares_layers(&self) -> bool {
        matches!(self.name, DrafterChoice::Exit(_))
    }

    /// True if asking it costs next to nothing, as it computes nothing.
    pub(super) fn is_free(&self) -> bool {
        self.guess == 0.0
    }

    /// True if it has not drafted often enough to be known.
    pub(super) fn is_untried(&self) -> bool {
        self.rounds < INTRODUCTION
    }
}

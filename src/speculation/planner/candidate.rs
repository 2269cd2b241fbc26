//! Knowledge about a drafter.

use paceline_router::costs::DrafterCost;
use paceline_router::router::{log_odds, sigmoid};

use crate::drafters::DrafterChoice;
use crate::speculation::calibration::Calibration;
use crate::speculation::costs::RunningCost;
use crate::speculation::watch::Heard;
use crate::speculation::yields::Yield;

/// Rounds after which a drafter is no newcomer any more.
pub(super) const INTRODUCTION: u32 = 4;
/// Weight of the guess at [`Candidate::share`], in rounds, and the most rounds that count: the share is a matter of how
/// the target is made, so it hardly moves.
const SHARE_PRIOR: f64 = 8.0;
const SHARE_MOST: f64 = 200.0;
/// No exit leaves less of a step than this.
const LEAST_SHARE: f64 = 0.01;
/// Weight of a prediction, in tokens of shadow scoring.
const HEARD_PRIOR: f64 = 24.0;

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
    /// Yield of its rounds in this answer, for which something was expected of it.
    pub(super) of_answer: Option<Yield>,
    /// Forecast for it in this answer, and its shadow scores since, without having it draft: tokens it would have got
    /// right, and all.
    pub(super) forecast: Option<Forecast>,
    pub(super) heard: [f64; 2],
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
            of_answer: None,
            forecast: None,
            heard: [0.0; 2],
            calibration: Calibration::default(),
            guess,
            bytes: 0,
            rounds: 0,
            tries: 0,
            idle: 0,
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

    /// True if it has yet to be tried. Of one that something is expected of, only the cost is to be found out.
    pub(super) fn is_newcomer(&self) -> bool {
        match self.of_answer {
            Some(_) => !self.draft_cost.is_settled(),
            None => self.rounds < INTRODUCTION,
        }
    }

    pub(super) fn each_yield(&mut self, learn: impl FnMut(&mut Yield)) {
        [Some(&mut self.yields), self.of_answer.as_mut()].into_iter().flatten().for_each(learn);
    }

    /// Yield of its rounds: in this answer, if something was expected of that, or on average.
    pub(super) fn yields(&self) -> &Yield {
        self.of_answer.as_ref().unwrap_or(&self.yields)
    }

    /// Learns what it would have picked, at places where it did not draft.
    pub(super) fn hear(&mut self, heard: &Heard) {
        for &(lead, is_right) in heard {
            self.calibration.observe(lead, is_right);
            self.heard[0] += f64::from(u8::from(is_right));
            self.heard[1] += 1.0;
        }
        // The prediction is the prior of a beta distribution; its mean moves the effective acceptance along.
        if let (Some(forecast), Some(yields)) = (self.forecast, &mut self.of_answer) {
            let [right, all] = self.heard;
            let mean = (right + HEARD_PRIOR * forecast.acceptance) / (all + HEARD_PRIOR);
            let shift = log_odds(mean) - log_odds(forecast.acceptance);
            yields.expect(sigmoid(log_odds(forecast.effective) + shift));
        }
    }

    /// The share of tokens that it would have got right, of those at which it was looked in this answer without having it draft, and
    /// all of these.
    pub(super) fn overheard(&self) -> Option<(f64, f64)> {
        let [right, all] = self.heard;
        (all > 0.0).then(|| (right / all, all))
    }
}

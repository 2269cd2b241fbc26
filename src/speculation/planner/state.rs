//! Knowledge of one answer, beside what all answers taught.

use paceline_router::Objective;
use paceline_router::router::{log_odds, sigmoid};

use super::Forecast;
use super::trials::Trial;
use crate::speculation::drafter_stats::{DrafterStats, RoundCounts};
use crate::speculation::machine::DrafterCosts;
use crate::speculation::shadow_scores::ShadowScores;

/// Weight of a prediction, in tokens of shadow scoring.
const SHADOW_PRIOR: f64 = 24.0;

/// Planner's state of one answer. It begins with [`Planner::begin`](super::Planner::begin) and ends with
/// [`Planner::end`](super::Planner::end).
#[derive(Debug, Default)]
pub struct RequestState {
    /// Tokens that the answer may have.
    pub(super) limit: usize,
    /// True if the user named the drafter.
    pub(super) named: bool,
    /// Its place among the planner's time accounts.
    pub(super) account: usize,
    pub(super) prefill_seconds_per_token: f64,
    pub(super) seconds: f64,
    pub(super) introductions_lost: f64,
    /// Tokens so far, and how many there will be, if something was expected.
    pub(super) tokens: usize,
    pub(super) expected_tokens: Option<f64>,
    /// The objective, and the bytes of the target's weights.
    pub(super) objective: Objective,
    pub(super) target_bytes: u64,
    /// The candidate that drafts; `None` is plain decoding.
    pub(super) current: Option<usize>,
    /// The best of those that draft in every round, if they pay: what a token takes on average is what it takes with them. Of a
    /// drafter that finds something now and then, only those rounds are known.
    pub(super) pace: Option<usize>,
    /// The candidate that is tried out in this round, and why.
    pub(super) trial: Option<(usize, Trial)>,
    /// Answers that share steps with this one.
    pub(super) company: Company,
    pub(super) candidates: Vec<OfAnswer>,
}

/// Other answers in the same steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Company {
    /// Number of them.
    pub answers: usize,
    /// True if steps are shared, with these or with prompts that are read: then they are not this answer's alone to measure.
    pub shares_steps: bool,
}

/// Knowledge of a candidate in one answer.
#[derive(Clone, Debug, Default)]
pub(super) struct OfAnswer {
    /// Counts of its rounds, if something was expected of it.
    pub(super) counts: Option<RoundCounts>,
    /// Forecast for it.
    pub(super) forecast: Option<Forecast>,
    /// Its shadow scores since, without having it draft: tokens it would have got right, and all.
    pub(super) shadow: [f64; 2],
}

impl OfAnswer {
    /// Learns what it would have picked, at places where it did not draft.
    pub(super) fn observe_shadow(&mut self, scores: &ShadowScores) {
        for &(_, is_right) in scores {
            self.shadow[0] += f64::from(u8::from(is_right));
            self.shadow[1] += 1.0;
        }
        // The prediction is the prior of a beta distribution; its mean moves the effective acceptance along.
        if let (Some(forecast), Some(counts)) = (self.forecast, &mut self.counts) {
            let [right, all] = self.shadow;
            let mean = (right + SHADOW_PRIOR * forecast.acceptance) / (all + SHADOW_PRIOR);
            let shift = log_odds(mean) - log_odds(forecast.acceptance);
            counts.expect(sigmoid(log_odds(forecast.effective) + shift));
        }
    }

    /// The share of tokens that it would have got right, of those at which it was looked in this answer without having it draft, and
    /// all of these.
    fn shadow_score(&self) -> Option<(f64, f64)> {
        let [right, all] = self.shadow;
        (all > 0.0).then(|| (right / all, all))
    }
}

impl RequestState {
    /// Knowledge of a candidate; nothing of one that was admitted for another answer.
    pub(super) fn of(&self, candidate: usize) -> Option<&OfAnswer> {
        self.candidates.get(candidate)
    }

    /// Forecast for a candidate.
    pub(super) fn forecast(&self, candidate: usize) -> Option<Forecast> {
        self.of(candidate)?.forecast
    }

    /// Counts of a candidate's rounds: in this answer, if something was expected of that, or on average.
    pub(super) fn counts<'a>(&'a self, index: usize, stats: &'a DrafterStats) -> &'a RoundCounts {
        self.of(index).and_then(|of| of.counts.as_ref()).unwrap_or(&stats.counts)
    }

    /// True if a candidate has yet to be tried. Of one that something is expected of, only the cost is to be found out.
    pub(super) fn is_newcomer(&self, index: usize, stats: &DrafterStats, costs: &DrafterCosts) -> bool {
        match self.of(index).and_then(|of| of.counts.as_ref()) {
            Some(_) => !costs.token.is_settled(),
            None => stats.is_untried(),
        }
    }

    /// Shadow scores of each candidate in this answer, without having it draft: the share of tokens that it would have
    /// got right, and the number of all.
    pub fn shadow_scores(&self) -> impl Iterator<Item = Option<(f64, f64)>> + '_ {
        self.candidates.iter().map(OfAnswer::shadow_score)
    }

    /// Says what matters in the answer, of a target of so many bytes: time alone otherwise.
    pub fn aim(&mut self, objective: Objective, target_bytes: u64) {
        (self.objective, self.target_bytes) = (objective, target_bytes);
    }

    /// Says that the user named the drafter of the answer: it drafts from the first round and is judged by its rounds.
    pub fn insist(&mut self) {
        self.named = true;
    }

    /// True if other answers share its steps.
    pub fn is_in_company(&self) -> bool {
        self.company.shares_steps
    }

    /// Says which other answers share the next step.
    pub fn keep_company(&mut self, company: Company) {
        self.company = company;
    }
}

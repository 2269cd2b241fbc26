//! A planner with one answer at a time.

use std::ops::{Deref, DerefMut};

use super::super::{self as planner, *};
use crate::speculation::drafter_stats::Prices;
use crate::speculation::shadow_scores::ShadowScores;

/// The planner and the state of the answer that is made.
pub(super) struct Planner {
    shared: planner::Planner,
    pub(super) state: RequestState,
}

impl Deref for Planner {
    type Target = planner::Planner;
    fn deref(&self) -> &planner::Planner {
        &self.shared
    }
}

impl DerefMut for Planner {
    fn deref_mut(&mut self) -> &mut planner::Planner {
        &mut self.shared
    }
}

impl Planner {
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        let mut shared = planner::Planner::new(candidates);
        let state = shared.begin(0, 0.0);
        Self { shared, state }
    }

    pub(super) fn begin_answer(&mut self, limit: usize, prefill_seconds_per_token: f64) {
        self.shared.end(&self.state);
        self.state = self.shared.begin(limit, prefill_seconds_per_token);
    }

    pub(super) fn insist(&mut self) {
        self.state.insist();
    }

    pub(super) fn aim(&mut self, objective: Objective, target_bytes: u64) {
        self.state.aim(objective, target_bytes);
    }

    pub(super) fn expect(&mut self, outlook: &Outlook) {
        self.shared.expect(&mut self.state, outlook);
    }

    pub(super) fn plans(&mut self, situation: &Situation<'_>, length: DraftLength) -> Vec<Plan> {
        self.shared.plans(&mut self.state, situation, length)
    }

    pub(super) fn stop_rule(&self, plan: Plan) -> Box<dyn StopRule> {
        self.shared.stop_rule(&self.state, plan)
    }

    pub(super) fn observe(&mut self, round: &Round, draft: &Draft) {
        self.shared.observe(&mut self.state, round, draft);
    }

    pub(super) fn prices(&self, candidate: usize) -> Option<Prices> {
        self.shared.prices(&self.state, candidate)
    }

    pub(super) fn speed(&self, candidate: usize, situation: &Situation<'_>) -> f64 {
        self.shared.speed(&self.state, candidate, situation)
    }

    pub(super) fn decide(&self, situation: &Situation<'_>) -> Option<Choice> {
        self.shared.decide(&self.state, situation)
    }

    pub(super) fn exit_to_score(&self, drafting: Option<usize>, usable: &[usize]) -> Option<(usize, usize)> {
        self.shared.exit_to_score(&self.state, drafting, usable)
    }

    pub(super) fn observe_shadow(&mut self, exit: usize, scores: &ShadowScores, seconds: f64) {
        self.shared.observe_shadow(&mut self.state, exit, scores, seconds);
    }

    pub(super) fn shadow_scores(&self) -> impl Iterator<Item = Option<(f64, f64)>> + '_ {
        self.state.shadow_scores()
    }
}

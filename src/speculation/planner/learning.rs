//! Learning: a planner learns from an answer's rounds, from steps that answers shared, and from exits that were scored beside.

use super::{Planner, RequestState, Round};
use crate::drafters::Draft;
use crate::speculation::MAX_DRAFT;
use crate::speculation::drafter_stats::Prices;
use crate::speculation::shadow_scores::ShadowScores;

impl Planner {
    /// Learns what an exit would have picked, and that scoring took so long.
    pub fn observe_shadow(&mut self, state: &mut RequestState, exit: usize, scores: &ShadowScores, seconds: f64) {
        self.accounts[state.account].scoring_seconds += seconds;
        let stats = &mut self.drafters[exit];
        scores.iter().for_each(|&(lead, is_right)| stats.calibration.observe(lead, is_right));
        if let Some(of) = state.candidates.get_mut(exit) {
            of.observe_shadow(scores);
        }
    }

    /// Learns how long a step took that several answers shared, over so many rows.
    pub fn observe_step(&mut self, rows: usize, seconds: f64) {
        // A step of a few plain rows says what a step of one answer with as many costs.
        self.machine.steps.observe(rows, seconds);
        let guess = self.machine.row_guess().unwrap_or(0.0);
        self.machine.shared.observe(rows, seconds, guess);
    }

    /// Learns from a round and its draft.
    pub fn observe(&mut self, state: &mut RequestState, round: &Round, draft: &Draft) {
        let is_alone = !state.company.shares_steps;
        let rows = round.drafted + 1;
        // In company a step's time is that of its own rows, as they are priced.
        let own = |prices: Prices| prices.steps[round.drafted.min(MAX_DRAFT)];
        let priced = self.shared_prices(state).map(own).filter(|_| !is_alone);
        let verify_seconds = priced.unwrap_or(round.verify_seconds);
        let seconds = round.asking_seconds + round.draft_seconds + verify_seconds;
        self.accounts[state.account].seconds += seconds;
        state.seconds += seconds;
        state.tokens += round.tokens;
        self.charge(state, round, draft, seconds);
        self.drafters.iter_mut().for_each(|stats| stats.idle = stats.idle.saturating_add(1));
        match round.candidate {
            Some(candidate) => self.observe_drafter(state, candidate, round, draft),
            None if is_alone => self.machine.steps.observe(rows, round.verify_seconds),
            None => {}
        }
    }

    /// Learns from a round about the drafter that worked on it, and what the step cost.
    fn observe_drafter(&mut self, state: &mut RequestState, index: usize, round: &Round, draft: &Draft) {
        let is_alone = !state.company.shares_steps;
        let rows = round.drafted + 1;
        let (reading, alone) = (self.reading_seconds(round, draft), self.machine.steps.seconds(rows));
        let (stats, costs) = (&mut self.drafters[index], &mut self.machine.drafters[index]);
        stats.idle = 0;
        stats.rounds = stats.rounds.saturating_add(1);
        if let Some(alone) = alone.filter(|_| stats.shares_layers() && is_alone) {
            costs.observe_share(round.verify_seconds / alone);
        }
        let of_answer = state.candidates.get_mut(index).and_then(|of| of.counts.as_mut());
        let is_expected = of_answer.is_some();
        let mut both = [Some(&mut stats.counts), of_answer];
        let each = both.iter_mut().flatten();
        each.for_each(|counts| counts.observe(round.drafted, round.evaluated, round.accepted, round.tokens));
        // A round that began with reading says little of what a draft costs, and more of what it costs to begin.
        match reading {
            Some(reading) => both[0].iter_mut().for_each(|counts| counts.observe_reading(round.backlog, reading)),
            None => costs.token.observe(round.draft_seconds / draft.attempted().max(1) as f64),
        }
        if let Some(declined) = draft.declined {
            let is_next = round.accepted == round.drafted && round.tokens > round.drafted;
            let probability = is_next.then(|| stats.calibration.probability(declined));
            both.iter_mut().flatten().for_each(|counts| counts.observe_declined(probability));
        }
        // One that was named is given up on better evidence: it is not found again as soon.
        let is_newcomer = if is_expected { !costs.token.is_settled() } else { stats.is_untried() };
        if !is_newcomer && !state.named {
            stats.counts.settle();
        }
        for (place, &log_odds) in draft.log_odds.iter().enumerate().take(round.evaluated) {
            stats.calibration.observe(log_odds, place < round.accepted);
        }
        // What an exit leaves to verification says what all of it would have taken.
        let share = if stats.shares_layers() { costs.share } else { 1.0 };
        if is_alone && (share == 1.0 || rows > 1) {
            self.machine.steps.observe(rows, round.verify_seconds / share);
        }
    }

    /// Seconds of a round that went into reading; `None` if there was no more to read than in a usual round.
    pub(super) fn reading_seconds(&self, round: &Round, draft: &Draft) -> Option<f64> {
        let costs = &self.machine.drafters[round.candidate.filter(|_| round.backlog > MAX_DRAFT)?];
        let token = costs.token.seconds().or_else(|| Some(costs.guess * self.machine.steps.seconds(1)?));
        Some((round.draft_seconds - draft.attempted().max(1) as f64 * token.unwrap_or(0.0)).max(0.0))
    }
}

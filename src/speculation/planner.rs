//! Who drafts.
//!
//! Before every round of an answer the planner takes the drafter whose rounds bring the most tokens per second: by what they
//! brought so far ([`DrafterStats`]), at the measured costs of this machine ([`MachineCosts`]), and by what is known of this answer
//! alone ([`RequestState`]). Plain decoding is a choice like any other. How far a draft goes is decided while it is made
//! ([`super::stopping`]). Estimates move all the time, so the choice changes only for a gain worth having.
//!
//! Drafters about which nothing is known have to be tried, and trying may lose time: [`trials`] bounds how much. A drafter that
//! the user named drafts from the first round and is judged by its rounds.

mod learning;
mod pricing;
mod state;
mod trials;

use paceline_router::{Choice, CostTable, Expected, Objective};

use super::drafter_stats::{DrafterStats, RoundCounts};
use super::machine::{DrafterCosts, MachineCosts};
use super::stopping::{FixedLength, WhileItPays};
use super::{DraftLength, MAX_DRAFT};
use crate::drafters::{Draft, DrafterChoice, StopRule};
use state::OfAnswer;
pub use state::{Company, RequestState};
use trials::Trial;

/// The gain for which a choice changes.
const HYSTERESIS: f64 = 1.03;
/// The share of the time that goes into looking at exits which do not draft.
const SCORING_SHARE: f64 = 0.003;

/// A drafter that a planner may choose, with guesses at what it costs.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: DrafterChoice,
    /// Its costs.
    pub costs: DrafterCosts,
}

impl Candidate {
    /// A drafter about which nothing is known but a guess at what one of its tokens costs, in plain steps of the target.
    pub fn new(name: DrafterChoice, guess: f64) -> Self {
        Self { name, costs: DrafterCosts::guessed(guess, 1.0, 0) }
    }
}

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

/// Expectations of an answer before it begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// By candidate; nothing is expected of those that are missing.
    pub forecasts: Vec<Option<Forecast>>,
    /// Tokens of the answer.
    pub tokens: Option<f64>,
}

/// One way to go on: a drafter, as an index into the planner's candidates, and how far it may draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The candidate.
    pub candidate: usize,
    /// Tokens that it drafts at most, at least 1.
    pub length: usize,
    /// Tokens of them that it drafts and verifies in any case; the others as far as they pay.
    pub least: usize,
}

/// Where an answer stands before a round.
pub struct Situation<'a> {
    /// Candidates that may draft.
    pub usable: &'a [usize],
    /// Tokens that each candidate, by its index, has to run before it can draft.
    pub backlog: &'a dyn Fn(usize) -> usize,
    /// Tokens that the answer may still get.
    pub remaining: usize,
}

/// Outcome of a round, for the planner to learn from.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// The candidate that worked on a draft, if one did.
    pub candidate: Option<usize>,
    /// Tokens drafted and verified.
    pub drafted: usize,
    /// Of them looked at: those accepted, and the first that was not.
    pub evaluated: usize,
    /// Of them accepted.
    pub accepted: usize,
    /// Tokens that came out: those accepted and the target's own, which is missing where an accepted one ended the answer.
    pub tokens: usize,
    /// Tokens of the text that the candidate had to read before.
    pub backlog: usize,
    /// Seconds that it spent drafting.
    pub draft_seconds: f64,
    /// Seconds that others spent before, who had nothing to draft.
    pub asking_seconds: f64,
    /// Seconds of the target's step.
    pub verify_seconds: f64,
}

/// Decides before every round, learns after it. Shared by all answers of a target; what is known of one of them alone is its
/// [`RequestState`].
pub struct Planner {
    machine: MachineCosts,
    /// The candidates, by the same index as their costs.
    drafters: Vec<DrafterStats>,
    /// Number of them that stay: any beyond was admitted for an answer.
    lasting: usize,
    /// The choice and the pace of the answer that ended last, with which the next one begins.
    current: Option<usize>,
    pace: Option<usize>,
    /// By how many drafters an answer may ask: none, one or several. What one kind of answers leaves untried is not tried in
    /// another.
    accounts: [Account; 3],
    /// True if an answer tries a drafter in this round.
    tries: bool,
}

/// Time account of probes and shadow scores, which limits them.
#[derive(Clone, Copy, Default)]
struct Account {
    /// Seconds of all rounds, and what probes lost of them.
    seconds: f64,
    probes_lost: f64,
    /// Seconds that were spent on looking at exits.
    scoring_seconds: f64,
}

impl Planner {
    /// A planner that has measured nothing yet.
    pub fn new(candidates: Vec<Candidate>) -> Self {
        let lasting = candidates.len();
        let (drafters, costs) =
            candidates.into_iter().map(|candidate| (DrafterStats::new(candidate.name), candidate.costs)).unzip();
        Self {
            machine: MachineCosts { drafters: costs, ..MachineCosts::default() },
            lasting,
            drafters,
            current: None,
            pace: None,
            accounts: Default::default(),
            tries: false,
        }
    }

    /// Makes sure that a drafter is among the candidates. One that was not there from the beginning stays until
    /// another is admitted that no answer uses it, so that what was learned about it serves the next answers, and their number is
    /// bounded.
    pub fn admit(&mut self, drafter: Candidate) {
        if self.drafters.iter().any(|stats| stats.name == drafter.name) {
            return;
        }
        let stats = DrafterStats::new(drafter.name);
        let unused = (self.lasting..self.drafters.len()).find(|&index| self.drafters[index].answers == 0);
        match unused {
            None => {
                self.drafters.push(stats);
                self.machine.drafters.push(drafter.costs);
            }
            Some(index) => {
                (self.drafters[index], self.machine.drafters[index]) = (stats, drafter.costs);
                let is_other = |candidate: &usize| *candidate != index;
                (self.current, self.pace) = (self.current.filter(is_other), self.pace.filter(is_other));
            }
        }
    }

    /// The names of the drafters it chooses from.
    pub fn names(&self) -> impl Iterator<Item = &DrafterChoice> {
        self.drafters.iter().map(|stats| &stats.name)
    }

    /// Statistics and costs of the drafters it chooses from.
    pub fn drafters(&self) -> impl Iterator<Item = (&DrafterStats, &DrafterCosts)> {
        self.drafters.iter().zip(&self.machine.drafters)
    }

    /// Costs of this machine.
    pub fn machine(&self) -> &MachineCosts {
        &self.machine
    }

    /// Table of the costs of work, as far as they are known.
    pub fn cost_table(&self) -> CostTable {
        let names: Vec<String> = self.names().take(self.lasting).map(ToString::to_string).collect();
        self.machine.table(names.iter().map(String::as_str))
    }

    /// Takes up what work took in an earlier run.
    pub fn restore(&mut self, known: &CostTable) {
        let names: Vec<String> = self.names().map(ToString::to_string).collect();
        self.machine.restore(known, names.iter().map(String::as_str));
    }

    /// A new answer of at most `limit` tokens begins, after a prefill that took so long per token.
    pub fn begin(&mut self, limit: usize, prefill_seconds_per_token: f64) -> RequestState {
        self.drafters.iter_mut().for_each(|stats| stats.answers += 1);
        RequestState {
            limit,
            prefill_seconds_per_token,
            current: self.current,
            pace: self.pace,
            candidates: vec![OfAnswer::default(); self.drafters.len()],
            ..RequestState::default()
        }
    }

    /// A round of all answers begins.
    pub fn begin_round(&mut self) {
        self.tries = false;
    }

    /// An answer ends.
    pub fn end(&mut self, state: &RequestState) {
        let known = self.drafters.iter_mut().take(state.candidates.len());
        known.for_each(|stats| stats.answers = stats.answers.saturating_sub(1));
        (self.current, self.pace) = (state.current, state.pace);
    }

    /// Takes what is expected of the answer that begins: its drafters are chosen by that and by what its own rounds show, instead
    /// of what other answers' rounds brought.
    pub fn expect(&self, state: &mut RequestState, outlook: &Outlook) {
        state.expected_tokens = outlook.tokens;
        for (of, forecast) in state.candidates.iter_mut().zip(&outlook.forecasts) {
            let counts = forecast.map(|forecast| RoundCounts::expecting(forecast.effective, forecast.rounds));
            *of = OfAnswer { counts, forecast: *forecast, shadow: [0.0; 2] };
        }
        // Another prompt may be another's.
        (state.current, state.pace) = (None, None);
    }

    /// Results of the answer for each candidate that drafted in it: its effective acceptance, and the tokens that it
    /// drafted.
    pub fn shown(&self, state: &RequestState) -> Vec<Option<(f64, f64)>> {
        let shown = |index: usize| {
            let counts = state.of(index)?.counts.as_ref()?;
            counts.effective_acceptance(&self.prices(state, index)?)
        };
        (0..state.candidates.len()).map(shown).collect()
    }

    /// Choice for a whole answer by what is known and expected; `None` as long as no step was measured.
    pub fn decide(&self, state: &RequestState, situation: &Situation<'_>) -> Option<Choice> {
        self.plain(state)?;
        let mut plans = vec![None; self.drafters.len()];
        for &candidate in situation.usable {
            let seconds = 1.0 / self.speed(state, candidate, situation);
            plans[candidate] = Some(Expected { seconds, joules: seconds, bytes: 0.0 });
        }
        // The speeds are by the objective already.
        Some(Objective::default().choose(&plans, &Expected { seconds: 1.0, joules: 1.0, bytes: 0.0 }, 1.0))
    }

    /// The plans worth trying for the next round, best first: if the first has nothing to draft, the next may.
    /// Empty means plain decoding.
    pub fn plans(&mut self, state: &mut RequestState, situation: &Situation<'_>, length: DraftLength) -> Vec<Plan> {
        state.trial = None;
        // Where the length is fixed nothing is tried.
        let choices = if length == DraftLength::Auto { situation.usable.len() } else { 0 };
        state.account = choices.min(self.accounts.len() - 1);
        let room = situation.remaining.saturating_sub(1).min(MAX_DRAFT);
        if room == 0 {
            return Vec::new();
        }
        if let DraftLength::Fixed(length) = length {
            let length = length.min(room);
            let speeds = situation.usable.iter().map(|&candidate| (self.speed(state, candidate, situation), candidate));
            let plan = |(_, candidate)| Plan { candidate, length, least: length };
            return best_first(speeds).into_iter().map(plan).collect();
        }
        if let Some(plan) = self.opening(state, situation, room) {
            return vec![plan];
        }
        // As long as a plain step is not measured, or not lately, plain steps are what is needed.
        let Some(plain) = self.plain(state) else { return Vec::new() };
        let chosen = self.choose(state, situation);
        let best = chosen.iter().find(|(_, candidate)| Some(*candidate) == state.pace).map_or(1.0, |(speed, _)| *speed);
        // What one answer finds out serves all: in company one tries at a time.
        if state.is_in_company() && self.tries {
            return chosen.into_iter().map(|(_, candidate)| Plan { candidate, length: room, least: 0 }).collect();
        }
        let introduction = self.introduction(state, situation, room, plain, best);
        let introduction = introduction.map(|plan| (plan, Trial::Introduction));
        let trial = introduction.or_else(|| Some((self.probe(state, situation, room, plain, best)?, Trial::Probe)));
        let chosen = chosen.into_iter().map(|(_, candidate)| Plan { candidate, length: room, least: 0 });
        let Some((plan, why)) = trial else { return chosen.collect() };
        // Asked is asked, even if it finds nothing to draft: the next trial is another's.
        let tried = &mut self.drafters[plan.candidate];
        tried.tries = tried.tries.saturating_add(1);
        tried.idle = 0;
        state.trial = Some((plan.candidate, why));
        self.tries = true;
        std::iter::once(plan).chain(chosen.filter(|other| other.candidate != plan.candidate)).collect()
    }

    /// The rule by which the draft of a plan stops.
    pub fn stop_rule(&self, state: &RequestState, plan: Plan) -> Box<dyn StopRule> {
        match self.prices(state, plan.candidate) {
            Some(prices) if plan.least < plan.length => {
                let stats = &self.drafters[plan.candidate];
                let counts = state.counts(plan.candidate, stats);
                // Where its own rounds bring more than those of the choice, a token is worth less.
                let own =
                    if self.is_free(plan.candidate) { f64::INFINITY } else { counts.seconds_per_token(&prices, 0) };
                let token_seconds = self.token_seconds(state).min(own);
                let (acceptance, bounds) = (counts.acceptance(), (plan.least, plan.length));
                Box::new(WhileItPays::new(stats.calibration.clone(), acceptance, prices, token_seconds, bounds))
            }
            _ => Box::new(FixedLength::new(plan.length)),
        }
    }

    /// True if a drafter that has nothing worth verifying leaves the round to the next one: one that works for its
    /// drafts has spent the time that a second opinion might save.
    pub fn passes_on(&self, plan: Plan, draft: &Draft) -> bool {
        draft.attempted() == 0 || self.is_free(plan.candidate)
    }

    /// The candidates that pay by what is known, with their speeds, best first.
    fn choose(&self, state: &mut RequestState, situation: &Situation<'_>) -> Vec<(f64, usize)> {
        let is_known = |index: &usize| !self.is_newcomer(state, *index);
        let known = situation.usable.iter().copied().filter(is_known);
        let speeds = known.map(|index| (self.speed(state, index, situation), index));
        let mut scored = best_first(speeds.filter(|(speed, _)| *speed > 1.0));
        // The current choice stays unless the best is better by more than the noise of the estimates. Plain
        // decoding is a choice too.
        let current = state.current.filter(|candidate| situation.usable.contains(candidate));
        let holding = current.map_or(1.0, |candidate| self.speed(state, candidate, situation));
        if scored.first().is_none_or(|best| best.0 <= holding * HYSTERESIS) {
            match current {
                None => scored.clear(),
                Some(candidate) if holding > 1.0 => {
                    scored.retain(|(_, other)| *other != candidate);
                    scored.insert(0, (holding, candidate));
                }
                Some(_) => {}
            }
        }
        state.current = scored.first().map(|(_, candidate)| *candidate);
        state.pace = scored.iter().map(|(_, candidate)| *candidate).find(|&index| !self.is_free(index));
        scored
    }

    /// An exit to score in this round, with its depth: the one of which something is expected that was scored least, as long as
    /// scoring takes no more than its share of the time. One that drafts shows itself, and layers that ran ahead are not run.
    pub fn exit_to_score(
        &self,
        state: &RequestState,
        drafting: Option<usize>,
        usable: &[usize],
    ) -> Option<(usize, usize)> {
        let Account { seconds, scoring_seconds, .. } = self.accounts[state.account];
        if scoring_seconds > SCORING_SHARE * seconds {
            return None;
        }
        let depth = |index: usize| match self.drafters[index].name {
            DrafterChoice::Exit(depth) => Some((index, depth)),
            _ => None,
        };
        let ran_ahead = drafting.and_then(depth).map_or(0, |(_, depth)| depth);
        let exits = usable.iter().filter_map(|&index| depth(index)).filter(|(_, depth)| *depth > ran_ahead);
        let known = exits.filter(|(index, _)| state.forecast(*index).is_some());
        let scored = |index: usize| state.of(index).map_or(0.0, |of| of.shadow[1]);
        known.min_by(|a, b| scored(a.0).total_cmp(&scored(b.0)))
    }

    /// True if asking a candidate costs next to nothing.
    fn is_free(&self, candidate: usize) -> bool {
        self.machine.drafters[candidate].is_free()
    }

    /// True if a candidate has yet to be tried in an answer.
    fn is_newcomer(&self, state: &RequestState, candidate: usize) -> bool {
        state.is_newcomer(candidate, &self.drafters[candidate], &self.machine.drafters[candidate])
    }
}

/// Tokens that a candidate has to run before it drafts; what a usual round leaves behind is part of its draft cost.
fn unread(candidate: usize, situation: &Situation<'_>) -> usize {
    (situation.backlog)(candidate).saturating_sub(MAX_DRAFT)
}

/// Candidates with their speeds, the fastest first.
fn best_first(speeds: impl Iterator<Item = (f64, usize)>) -> Vec<(f64, usize)> {
    let mut speeds: Vec<(f64, usize)> = speeds.collect();
    speeds.sort_by(|a, b| b.0.total_cmp(&a.0));
    speeds
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests;

//! Who drafts.
//!
//! Before every round the planner takes the drafter whose rounds bring the most tokens per second: their yields
//! ([`Yield`], learned from what was accepted), at the prices of this machine ([`VerifyCosts`], measured). Plain decoding is a
//! choice like any other. How far a draft goes is decided while it is made ([`super::stopping`]). Estimates move all the time,
//! so the choice changes only for a gain worth having.
//!
//! Drafters about which nothing is known have to be tried, and trying may lose time: [`trials`] bounds how much. A drafter that
//! the user named drafts from the first round and is judged by its rounds.

mod candidate;
mod state;
mod trials;

use paceline_router::costs::DrafterCost;
use paceline_router::{Choice, CostTable, Expected, Objective};

use super::stopping::{FixedLength, WhileItPays};
use super::watch::Heard;
use super::yields::{Prices, Yield};
use super::{DraftLength, MAX_DRAFT, VerifyCosts};
use crate::drafters::{Draft, DrafterChoice, StopRule};
pub use candidate::{Candidate, Forecast};
use state::OfAnswer;
pub use state::{Company, RequestState};
use trials::Trial;

/// The gain for which a choice changes.
const HYSTERESIS: f64 = 1.03;
/// The share of the time that goes into looking at exits which do not draft.
const WATCH_SHARE: f64 = 0.003;

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
    costs: VerifyCosts,
    candidates: Vec<Candidate>,
    /// Number of them that stay: any beyond was admitted for an answer.
    lasting: usize,
    /// The choice and the pace of the answer that ended last, with which the next one begins.
    current: Option<usize>,
    pace: Option<usize>,
    /// By how many drafters an answer may ask: none, one or several. What one kind of answers leaves untried is not tried in
    /// another.
    accounts: [Account; 3],
}

/// Time account of probes and shadow scores, which limits them.
#[derive(Clone, Copy, Default)]
struct Account {
    /// Seconds of all rounds, and what probes lost of them.
    seconds: f64,
    probes_lost: f64,
    /// Seconds that were spent on looking at exits.
    watching_seconds: f64,
}

impl Planner {
    /// A planner that has measured nothing yet.
    pub fn new(candidates: Vec<Candidate>) -> Self {
        Self {
            costs: VerifyCosts::default(),
            lasting: candidates.len(),
            candidates,
            current: None,
            pace: None,
            accounts: Default::default(),
        }
    }

    /// Makes sure that a drafter is among the candidates. One that was not there from the beginning stays until
    /// another is admitted that no answer uses it, so that what was learned about it serves the next answers, and their number is
    /// bounded.
    pub fn admit(&mut self, drafter: Candidate) {
        if self.candidates.iter().any(|candidate| candidate.name == drafter.name) {
            return;
        }
        let unused = (self.lasting..self.candidates.len()).find(|&index| self.candidates[index].answers == 0);
        match unused {
            None => self.candidates.push(drafter),
            Some(index) => {
                self.candidates[index] = drafter;
                let is_other = |candidate: &usize| *candidate != index;
                (self.current, self.pace) = (self.current.filter(is_other), self.pace.filter(is_other));
            }
        }
    }

    /// The drafters it chooses from.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The target's step costs.
    pub fn costs(&self) -> &VerifyCosts {
        &self.costs
    }

    /// Table of the costs of work, as far as they are known.
    pub fn cost_table(&self) -> CostTable {
        let token = |candidate: &Candidate| {
            let token = candidate.draft_cost.seconds()?;
            Some((candidate.name.to_string(), DrafterCost { token, share: candidate.share, ..DrafterCost::default() }))
        };
        CostTable {
            steps: {
                let mut steps = vec![0.0; MAX_DRAFT + 1];
                self.costs.observed().for_each(|(rows, seconds)| steps[rows - 1] = seconds);
                steps
            },
            drafters: self.candidates.iter().take(self.lasting).filter_map(token).collect(),
            ..CostTable::default()
        }
    }

    /// Takes up what work took in an earlier run. It is as good as measured, until it is measured again.
    pub fn restore(&mut self, known: &CostTable) {
        for (rows, &seconds) in (1..).zip(&known.steps).filter(|(_, seconds)| **seconds > 0.0) {
            self.costs.restore(rows, seconds);
        }
        for candidate in &mut self.candidates {
            if let Some(cost) = known.drafters.get(&candidate.name.to_string()) {
                candidate.restore(cost);
            }
        }
    }

    /// A new answer of at most `limit` tokens begins, after a prefill that took so long per token.
    pub fn begin(&mut self, limit: usize, prefill_seconds_per_token: f64) -> RequestState {
        self.candidates.iter_mut().for_each(|candidate| candidate.answers += 1);
        RequestState {
            limit,
            prefill_seconds_per_token,
            current: self.current,
            pace: self.pace,
            candidates: vec![OfAnswer::default(); self.candidates.len()],
            ..RequestState::default()
        }
    }

    /// An answer ends.
    pub fn end(&mut self, state: &RequestState) {
        let known = self.candidates.iter_mut().take(state.candidates.len());
        known.for_each(|candidate| candidate.answers = candidate.answers.saturating_sub(1));
        (self.current, self.pace) = (state.current, state.pace);
    }

    /// Takes what is expected of the answer that begins: its drafters are chosen by that and by what its own rounds show, instead
    /// of what other answers' rounds brought.
    pub fn expect(&self, state: &mut RequestState, outlook: &Outlook) {
        state.expected_tokens = outlook.tokens;
        for (of, forecast) in state.candidates.iter_mut().zip(&outlook.forecasts) {
            let yields = forecast.map(|forecast| Yield::expecting(forecast.effective, forecast.rounds));
            *of = OfAnswer { yields, forecast: *forecast, heard: [0.0; 2] };
        }
        // Another prompt may be another's.
        (state.current, state.pace) = (None, None);
    }

    /// Results of the answer for each candidate that drafted in it: its effective acceptance, and the tokens that it
    /// drafted.
    pub fn shown(&self, state: &RequestState) -> Vec<Option<(f64, f64)>> {
        let shown = |index: usize| {
            let yields = state.of(index)?.yields.as_ref()?;
            yields.effective_acceptance(&self.prices(state, index)?)
        };
        (0..state.candidates.len()).map(shown).collect()
    }

    /// Choice for a whole answer by what is known and expected; `None` as long as no step was measured.
    pub fn decide(&self, state: &RequestState, situation: &Situation<'_>) -> Option<Choice> {
        self.plain(state)?;
        let mut plans = vec![None; self.candidates.len()];
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
        let introduction = self.introduction(state, situation, room, plain, best);
        let introduction = introduction.map(|plan| (plan, Trial::Introduction));
        let trial = introduction.or_else(|| Some((self.probe(state, situation, room, plain, best)?, Trial::Probe)));
        let chosen = chosen.into_iter().map(|(_, candidate)| Plan { candidate, length: room, least: 0 });
        let Some((plan, why)) = trial else { return chosen.collect() };
        // Asked is asked, even if it finds nothing to draft: the next trial is another's.
        let tried = &mut self.candidates[plan.candidate];
        tried.tries = tried.tries.saturating_add(1);
        tried.idle = 0;
        state.trial = Some((plan.candidate, why));
        std::iter::once(plan).chain(chosen.filter(|other| other.candidate != plan.candidate)).collect()
    }

    /// The rule by which the draft of a plan stops.
    pub fn stop_rule(&self, state: &RequestState, plan: Plan) -> Box<dyn StopRule> {
        match self.prices(state, plan.candidate) {
            Some(prices) if plan.least < plan.length => {
                let candidate = &self.candidates[plan.candidate];
                let yields = state.yields(plan.candidate, candidate);
                // Where its own rounds bring more than those of the choice, a token is worth less.
                let own = if candidate.is_free() { f64::INFINITY } else { yields.seconds_per_token(&prices, 0) };
                let token_seconds = self.token_seconds(state).min(own);
                let (acceptance, bounds) = (yields.acceptance(), (plan.least, plan.length));
                Box::new(WhileItPays::new(candidate.calibration.clone(), acceptance, prices, token_seconds, bounds))
            }
            _ => Box::new(FixedLength::new(plan.length)),
        }
    }

    /// True if a drafter that has nothing worth verifying leaves the round to the next one: one that works for its
    /// drafts has spent the time that a second opinion might save.
    pub fn passes_on(&self, plan: Plan, draft: &Draft) -> bool {
        draft.attempted() == 0 || self.candidates[plan.candidate].is_free()
    }

    /// The candidates that pay by what is known, with their speeds, best first.
    fn choose(&self, state: &mut RequestState, situation: &Situation<'_>) -> Vec<(f64, usize)> {
        let is_known = |index: &usize| !state.is_newcomer(*index, &self.candidates[*index]);
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
        state.pace = scored.iter().map(|(_, candidate)| *candidate).find(|&index| !self.candidates[index].is_free());
        scored
    }

    /// An exit to look at in this round, with its depth: the one of which something is expected that was looked at least, as long as
    /// looking takes no more than its share of the time. One that drafts shows itself, and layers that ran ahead are not run.
    pub fn watch(&self, state: &RequestState, drafting: Option<usize>, usable: &[usize]) -> Option<(usize, usize)> {
        let Account { seconds, watching_seconds, .. } = self.accounts[state.account];
        if watching_seconds > WATCH_SHARE * seconds {
            return None;
        }
        let depth = |index: usize| match self.candidates[index].name {
            DrafterChoice::Exit(depth) => Some((index, depth)),
            _ => None,
        };
        let ran_ahead = drafting.and_then(depth).map_or(0, |(_, depth)| depth);
        let exits = usable.iter().filter_map(|&index| depth(index)).filter(|(_, depth)| *depth > ran_ahead);
        let known = exits.filter(|(index, _)| state.forecast(*index).is_some());
        let heard = |index: usize| state.of(index).map_or(0.0, |of| of.heard[1]);
        known.min_by(|a, b| heard(a.0).total_cmp(&heard(b.0)))
    }

    /// Learns what an exit would have picked, and that looking took so long.
    pub fn hear(&mut self, state: &mut RequestState, exit: usize, heard: &Heard, seconds: f64) {
        self.accounts[state.account].watching_seconds += seconds;
        let candidate = &mut self.candidates[exit];
        heard.iter().for_each(|&(lead, is_right)| candidate.calibration.observe(lead, is_right));
        if let Some(of) = state.candidates.get_mut(exit) {
            of.hear(heard);
        }
    }

    /// Learns how long a step took that several answers shared, over so many rows.
    pub fn observe_step(&mut self, rows: usize, seconds: f64) {
        self.costs.observe(rows, seconds);
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
        for candidate in &mut self.candidates {
            candidate.idle = candidate.idle.saturating_add(1);
        }
        let (reading, verify_alone) = (self.reading_seconds(round, draft), self.costs.seconds(rows));
        let Some((index, candidate)) = round.candidate.map(|index| (index, &mut self.candidates[index])) else {
            if is_alone {
                self.costs.observe(rows, round.verify_seconds);
            }
            return;
        };
        candidate.idle = 0;
        candidate.rounds = candidate.rounds.saturating_add(1);
        if let Some(alone) = verify_alone.filter(|_| candidate.shares_layers() && is_alone) {
            candidate.observe_share(round.verify_seconds / alone);
        }
        let named = state.named;
        let of_answer = state.candidates.get_mut(index).and_then(|of| of.yields.as_mut());
        let is_expected = of_answer.is_some();
        let mut each_yield = [Some(&mut candidate.yields), of_answer];
        let each = each_yield.iter_mut().flatten();
        each.for_each(|yields| yields.observe(round.drafted, round.evaluated, round.accepted, round.tokens));
        // A round that began with reading says little of what a draft costs, and more of what it costs to begin.
        match reading {
            Some(reading) => each_yield[0].iter_mut().for_each(|yields| yields.observe_reading(round.backlog, reading)),
            None => candidate.draft_cost.observe(round.draft_seconds / draft.attempted().max(1) as f64),
        }
        if let Some(declined) = draft.declined {
            let is_next = round.accepted == round.drafted && round.tokens > round.drafted;
            let probability = is_next.then(|| candidate.calibration.probability(declined));
            each_yield.iter_mut().flatten().for_each(|yields| yields.observe_declined(probability));
        }
        // One that was named is given up on better evidence: it is not found again as soon.
        let is_newcomer = if is_expected { !candidate.draft_cost.is_settled() } else { candidate.is_untried() };
        if !is_newcomer && !named {
            candidate.yields.settle();
        }
        for (place, &log_odds) in draft.log_odds.iter().enumerate().take(round.evaluated) {
            candidate.calibration.observe(log_odds, place < round.accepted);
        }
        // What an exit leaves to verification says what all of it would have taken.
        let share = if candidate.shares_layers() { candidate.share } else { 1.0 };
        if is_alone && (share == 1.0 || rows > 1) {
            self.costs.observe(rows, round.verify_seconds / share);
        }
    }

    /// Seconds of a round that went into reading; `None` if there was no more to read than in a usual round.
    fn reading_seconds(&self, round: &Round, draft: &Draft) -> Option<f64> {
        let candidate = &self.candidates[round.candidate.filter(|_| round.backlog > MAX_DRAFT)?];
        let token = candidate.draft_cost.seconds().or_else(|| Some(candidate.guess * self.costs.seconds(1)?));
        Some((round.draft_seconds - draft.attempted().max(1) as f64 * token.unwrap_or(0.0)).max(0.0))
    }

    /// True if a candidate may be asked for the memory that it needs, however fast it is.
    fn fits(&self, state: &RequestState, candidate: usize) -> bool {
        let RequestState { objective, target_bytes, .. } = state;
        objective.memory * self.candidates[candidate].bytes as f64 <= (*target_bytes).max(1) as f64
    }

    /// Seconds of a plain step, once that is known and was measured lately.
    fn plain(&self, state: &RequestState) -> Option<f64> {
        match state.company {
            Company { answers: 0, .. } => self.costs.plain().filter(|_| !self.costs.is_plain_stale()),
            _ => Some(self.shared_prices(state)?.steps[0]),
        }
    }

    /// Times of the target's steps by the rows of this answer, for a token that is its own. In company a step is everybody's: an
    /// answer's plain step costs what a token costs on average, and each further row what it adds to the step. So the rule that
    /// stops a draft gives a further row to the answer in which its survival is worth most, and drafts become short as the
    /// company grows: draft length and batch size are one decision.
    fn shared_prices(&self, state: &RequestState) -> Option<Prices> {
        let Company { answers, rows, .. } = state.company;
        let own = |steps| Prices { steps, share: 1.0, token: 0.0 };
        if answers == 0 {
            return self.costs.all().map(own);
        }
        let (all, first) = (answers + 1, self.costs.seconds(rows + 1)?);
        let token = self.costs.seconds(all)? / all as f64;
        let mut steps = [token; MAX_DRAFT + 1];
        for (drafted, step) in steps.iter_mut().enumerate() {
            *step += (self.costs.seconds(rows + 1 + drafted)? - first).max(0.0);
        }
        Some(own(steps))
    }

    /// Times of a candidate's work and of the target's steps; `None` as long as nothing was measured.
    fn prices(&self, state: &RequestState, candidate: usize) -> Option<Prices> {
        let plain = self.costs.seconds(1)?;
        let Candidate { draft_cost, share, guess, .. } = &self.candidates[candidate];
        let share = if state.company.answers == 0 { *share } else { 1.0 };
        let token = draft_cost.seconds().unwrap_or(guess * plain);
        Some(Prices { share, token, ..self.shared_prices(state)? })
    }

    /// Cost of a token in plain decoding, in units of its cost with a candidate: by time the candidate's speedup,
    /// otherwise by the objective. The candidate's backlog is spread over the tokens to come, or counts as it did in
    /// the answers so far, whichever is more: most answers are shorter than they may be. One that was named is judged
    /// by its rounds alone.
    fn speed(&self, state: &RequestState, candidate: usize, situation: &Situation<'_>) -> f64 {
        let Some(prices) = self.prices(state, candidate) else { return 1.0 };
        let own = &self.candidates[candidate];
        let drafting = state.yields(candidate, own).seconds_per_token(&prices, 0);
        let seconds = match unread(candidate, situation) {
            0 => drafting,
            _ if state.named => drafting,
            unread => {
                let spread = self.backlog_seconds(state, candidate, situation) / to_come(state, situation);
                match state.expected_tokens {
                    Some(_) => drafting + spread,
                    None => own.yields.seconds_per_token(&prices, unread).max(drafting + spread),
                }
            }
        };
        let expected = |seconds: f64, bytes: u64| {
            // All threads are busy in every step, so energy goes with time.
            Expected { seconds, joules: seconds, bytes: bytes as f64 }
        };
        let RequestState { objective, target_bytes, .. } = state;
        let trust = state.forecast(candidate).map_or(1.0, |forecast| forecast.trust);
        trust / objective.cost(&expected(seconds, own.bytes), &expected(prices.steps[0], 0), *target_bytes as f64)
    }

    /// Seconds that a candidate needs to run what it has not seen.
    fn backlog_seconds(&self, state: &RequestState, candidate: usize, situation: &Situation<'_>) -> f64 {
        unread(candidate, situation) as f64 * self.candidates[candidate].guess * state.prefill_seconds_per_token
    }

    /// Seconds per token of what is best in every round.
    fn token_seconds(&self, state: &RequestState) -> f64 {
        let plain = self.shared_prices(state).map_or(0.0, |prices| prices.steps[0]);
        let drafting = state.pace.and_then(|candidate| {
            let prices = self.prices(state, candidate)?;
            Some(state.yields(candidate, &self.candidates[candidate]).seconds_per_token(&prices, 0))
        });
        drafting.map_or(plain, |drafting| drafting.min(plain))
    }
}

/// Tokens that an answer is expected to get from here on, as many as it may where nothing is expected.
fn to_come(state: &RequestState, situation: &Situation<'_>) -> f64 {
    let remaining = situation.remaining.max(1) as f64;
    let expected = state.expected_tokens.map(|tokens| tokens - state.tokens as f64);
    expected.map_or(remaining, |tokens| tokens.clamp(1.0, remaining))
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

//! Trying a drafter that is not the choice of the time, and the bounds on the time that this may lose.
//!
//! - A drafter that the user *named* drafts from the first round on. Its first [`INTRODUCTION`] rounds draft at most
//!   [`OPENING`] tokens each; then a few plain steps say what it has to beat, and it goes on for as long as its rounds beat them. A
//!   hopeless one loses those rounds and its reading of the prompt. After that it is probed within [`NAMED_PROBE_SHARE`].
//! - Under `auto` an answer starts plainly, which measures `v(1)`. Then *introductions* try newcomers that promise more than the
//!   choice of the time, within [`INTRODUCTION_SHARE`] and [`INTRODUCTION_PACE`]. Reading the prompt into a draft model is not
//!   in these shares: it is an *investment* over the tokens to come, made where they are expected to return it. A model that
//!   turns out hopeless loses its reading once.
//! - *Probes* ask drafters again that were given up, within [`PROBE_SHARE`], reading included.

use super::{Account, HYSTERESIS, Plan, Planner, RequestState, Round, Situation, best_first, unread};
use crate::drafters::Draft;
use crate::speculation::drafter_stats::{DrafterStats, INTRODUCTION};

/// Tokens that introductions and probes draft in any case.
const SHORT: usize = 2;
/// The most tokens that a named drafter drafts in its first rounds.
pub(super) const OPENING: usize = 4;
/// By how much the speed of a drafter may be underestimated whose cost was never measured, only guessed from its size.
const DOUBT: f64 = 1.25;
/// The most that introductions may lose, as a share of the time that the answer would take plainly at full
/// length, and of its time so far.
pub(super) const INTRODUCTION_SHARE: f64 = 0.04;
pub(super) const INTRODUCTION_PACE: f64 = 0.25;
/// The most that probes may lose, as a share of the time of answers with as much to choose from.
pub(super) const PROBE_SHARE: f64 = 0.004;
/// The same for a drafter that was named: the user expects something of it.
pub(super) const NAMED_PROBE_SHARE: f64 = 0.02;
/// Rounds after which a drafter that was not asked may be probed.
const PROBE_AFTER: u32 = 32;
/// The acceptance with which a drafter would have to beat the choice to be probed.
const HOPED: f64 = 0.97;

/// Why a drafter is asked although it is not the choice.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trial {
    Introduction,
    Probe,
}

impl Planner {
    /// The plan of a drafter that was named, as long as it has not shown what its rounds bring.
    pub(super) fn opening(&self, state: &mut RequestState, situation: &Situation<'_>, room: usize) -> Option<Plan> {
        let candidate = situation.usable.first().copied().filter(|_| state.named)?;
        if self.drafters[candidate].rounds >= INTRODUCTION {
            return None;
        }
        // It is the choice until plain steps turn out to be faster.
        state.current = Some(candidate);
        state.pace = state.current.filter(|_| !self.is_free(candidate));
        Some(Plan { candidate, length: room.min(OPENING), least: room.min(SHORT) })
    }

    /// Of the newcomers that promise more than the best does, the one that promises most and may lose no more than is within
    /// bounds: most answers are short, and one good drafter is worth more in them than knowing all.
    pub(super) fn introduction(
        &self,
        state: &RequestState,
        situation: &Situation<'_>,
        room: usize,
        plain: f64,
        best: f64,
    ) -> Option<Plan> {
        let is_newcomer = |index: &usize| self.is_newcomer(state, *index);
        let newcomers = situation.usable.iter().copied().filter(is_newcomer);
        let speeds = newcomers.map(|candidate| (self.speed(state, candidate, situation), candidate));
        // Those that were asked and found nothing to draft wait for the others.
        let silent = |&(_, candidate): &(f64, usize)| {
            let DrafterStats { tries, rounds, .. } = self.drafters[candidate];
            tries.saturating_sub(rounds)
        };
        // What it costs is a guess as well where its acceptance is not. One that is hardly ever the best gets no such credit, nor
        // one that has to read: its speed has that spread over the tokens to come, which are to return it.
        let promise = |candidate: usize| match state.forecast(candidate) {
            Some(forecast) if forecast.trust >= 1.0 && unread(candidate, situation) == 0 => DOUBT,
            _ => 1.0,
        };
        let mut hopeful = best_first(speeds.filter(|&(speed, candidate)| speed * promise(candidate) > best));
        hopeful.sort_by_key(silent);
        let most = (INTRODUCTION_SHARE * plain * state.limit as f64).min(INTRODUCTION_PACE * state.seconds);
        let left = most - state.introductions_lost;
        hopeful.into_iter().find_map(|(_, candidate)| self.trial_within(state, left, candidate, room))
    }

    /// Of the candidates that were not asked for long and could be better than the best, the one that waits longest and may lose
    /// no more than is within bounds.
    pub(super) fn probe(
        &self,
        state: &RequestState,
        situation: &Situation<'_>,
        room: usize,
        plain: f64,
        best: f64,
    ) -> Option<Plan> {
        let hopeful = |candidate: &usize| {
            let (tokens, seconds) =
                self.prices(state, *candidate).map_or((0.0, 1.0), |prices| prices.best_round(HOPED));
            self.fits(state, *candidate) && plain * tokens > seconds * best * HYSTERESIS
        };
        let due = |candidate: &usize| {
            Some(*candidate) != state.current && self.drafters[*candidate].idle > PROBE_AFTER && hopeful(candidate)
        };
        let mut due: Vec<usize> = situation.usable.iter().copied().filter(due).collect();
        due.sort_by_key(|&candidate| std::cmp::Reverse(self.drafters[candidate].idle));
        let Account { seconds, probes_lost, .. } = self.accounts[state.account];
        let share = if state.named { NAMED_PROBE_SHARE } else { PROBE_SHARE };
        let left = share * seconds - probes_lost;
        due.into_iter().find_map(|candidate| {
            let left = left - self.backlog_seconds(state, candidate, situation);
            self.trial_within(state, left, candidate, room)
        })
    }

    /// A trial that loses at most so many seconds beside the tokens of the choice of the time, by what is expected of it, or even if
    /// nothing is accepted. What it has to read is not counted.
    fn trial_within(&self, state: &RequestState, most: f64, candidate: usize, room: usize) -> Option<Plan> {
        let prices = self.prices(state, candidate)?;
        // Where something is expected of it, its tokens are; else the target's own alone is sure.
        let acceptance = state.forecast(candidate).map_or(0.0, |forecast| forecast.effective);
        let (mut survival, mut tokens, mut longest) = (1.0, 1.0, None);
        let token_seconds = self.token_seconds(state);
        for length in 1..=room {
            survival *= acceptance;
            tokens += survival;
            let seconds = prices.token * length as f64 + prices.verification(length);
            if seconds - token_seconds * tokens <= most {
                longest = Some(length);
            }
        }
        let length = longest?;
        (length >= room.min(SHORT)).then_some(Plan { candidate, length, least: room.min(SHORT) })
    }

    /// Charges a trial, if the round was one, with what it lost in so many seconds. Reading for an introduction is an investment.
    pub(super) fn charge(&mut self, state: &mut RequestState, round: &Round, draft: &Draft, seconds: f64) {
        let Some((_, why)) = state.trial.filter(|trial| Some(trial.0) == round.candidate) else { return };
        let lost = seconds - self.token_seconds(state) * round.tokens as f64;
        let invested = self.reading_seconds(round, draft).unwrap_or(0.0);
        let (account, lost) = match why {
            Trial::Introduction => (&mut state.introductions_lost, lost - invested),
            Trial::Probe => (&mut self.accounts[state.account].probes_lost, lost),
        };
        *account = (*account + lost).max(0.0);
    }
}

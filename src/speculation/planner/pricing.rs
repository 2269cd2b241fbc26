//! Prices: what work takes on this machine, for an answer alone or in company.

use paceline_router::Expected;

use super::{Company, Planner, RequestState, Situation, unread};
use crate::speculation::MAX_DRAFT;
use crate::speculation::drafter_stats::Prices;
use crate::speculation::machine::DrafterCosts;

impl Planner {
    /// True if a candidate may be asked for the memory that it needs, however fast it is.
    pub(super) fn fits(&self, state: &RequestState, candidate: usize) -> bool {
        let RequestState { objective, target_bytes, .. } = state;
        objective.memory * self.machine.drafters[candidate].bytes as f64 <= (*target_bytes).max(1) as f64
    }

    /// Seconds of a plain step, once that is known and was measured lately.
    pub(super) fn plain(&self, state: &RequestState) -> Option<f64> {
        match state.company {
            Company { answers: 0, .. } => self.machine.steps.plain().filter(|_| !self.machine.steps.is_plain_stale()),
            _ => Some(self.shared_prices(state)?.steps[0]),
        }
    }

    /// Times of the target's steps by the rows of this answer, for a token that is its own. In company a step is everybody's: an
    /// answer's plain step costs what a token costs on average, and each further row what it adds to the step. So the rule that
    /// stops a draft gives a further row to the answer in which its survival is worth most, and drafts become short as the
    /// company grows: draft length and batch size are one decision.
    pub(super) fn shared_prices(&self, state: &RequestState) -> Option<Prices> {
        let Company { answers, .. } = state.company;
        let own = |steps| Prices { steps, share: 1.0, token: 0.0 };
        if answers == 0 {
            return self.machine.steps.all().map(own);
        }
        let guess = self.machine.row_guess()?;
        let all = (answers + 1) as f64;
        let row = self.machine.shared.row(guess);
        let plain = self.machine.shared.seconds(all, guess).or_else(|| self.machine.steps.seconds(answers + 1))?;
        let mut steps = [plain / all; MAX_DRAFT + 1];
        steps.iter_mut().enumerate().for_each(|(drafted, step)| *step += row * drafted as f64);
        Some(own(steps))
    }

    /// Times of a candidate's work and of the target's steps; `None` as long as nothing was measured.
    pub(super) fn prices(&self, state: &RequestState, candidate: usize) -> Option<Prices> {
        let plain = self.machine.steps.seconds(1)?;
        let DrafterCosts { token, share, guess, .. } = &self.machine.drafters[candidate];
        let share = if state.company.answers == 0 { *share } else { 1.0 };
        let token = token.seconds().unwrap_or(guess * plain);
        Some(Prices { share, token, ..self.shared_prices(state)? })
    }

    /// Cost of a token in plain decoding, in units of its cost with a candidate: by time the candidate's speedup,
    /// otherwise by the objective. The candidate's backlog is spread over the tokens to come, or counts as it did in
    /// the answers so far, whichever is more: most answers are shorter than they may be. One that was named is judged
    /// by its rounds alone.
    pub(super) fn speed(&self, state: &RequestState, candidate: usize, situation: &Situation<'_>) -> f64 {
        let Some(prices) = self.prices(state, candidate) else { return 1.0 };
        let (stats, own_bytes) = (&self.drafters[candidate], self.machine.drafters[candidate].bytes);
        let drafting = state.counts(candidate, stats).seconds_per_token(&prices, 0);
        let seconds = match unread(candidate, situation) {
            0 => drafting,
            _ if state.named => drafting,
            unread => {
                let spread = self.backlog_seconds(state, candidate, situation) / to_come(state, situation);
                match state.expected_tokens {
                    Some(_) => drafting + spread,
                    None => stats.counts.seconds_per_token(&prices, unread).max(drafting + spread),
                }
            }
        };
        let expected = |seconds: f64, bytes: u64| {
            // All threads are busy in every step, so energy goes with time.
            Expected { seconds, joules: seconds, bytes: bytes as f64 }
        };
        let RequestState { objective, target_bytes, .. } = state;
        let trust = state.forecast(candidate).map_or(1.0, |forecast| forecast.trust);
        trust / objective.cost(&expected(seconds, own_bytes), &expected(prices.steps[0], 0), *target_bytes as f64)
    }

    /// Seconds that a candidate needs to run what it has not seen.
    pub(super) fn backlog_seconds(&self, state: &RequestState, candidate: usize, situation: &Situation<'_>) -> f64 {
        unread(candidate, situation) as f64 * self.machine.drafters[candidate].guess * state.prefill_seconds_per_token
    }

    /// Seconds per token of what is best in every round.
    pub(super) fn token_seconds(&self, state: &RequestState) -> f64 {
        let plain = self.shared_prices(state).map_or(0.0, |prices| prices.steps[0]);
        let drafting = state.pace.and_then(|candidate| {
            let prices = self.prices(state, candidate)?;
            Some(state.counts(candidate, &self.drafters[candidate]).seconds_per_token(&prices, 0))
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

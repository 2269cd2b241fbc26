//! Which drafter, and how far ahead.
//!
//! The cost model: drafting `k` tokens at `c` seconds each and verifying them and the newest token in
//! `v(k + 1)` yields `1 + sum_{i <= k} prod_{j <= i} a_j` tokens on average, against one token in `v(1)`. The
//! planner takes the drafter and the length with the most tokens per second; 0 is a length like any other.
//! Estimates move all the time, so the choice changes only for a gain worth having.
//!
//! What is not known yet has to be tried, and trying may lose time. An answer starts plainly, which measures
//! `v(1)`. Then newcomers are introduced by short drafts, and later given-up drafters are probed, both within
//! stated shares of the time.

use super::costs::RunningCost;
use super::{Acceptance, DraftLength, MAX_DRAFT, VerifyCosts};
use crate::drafters::DrafterChoice;

/// The gain for which a choice changes.
const HYSTERESIS: f64 = 1.03;
/// The draft length of introductions and probes.
const SHORT: usize = 2;
/// Rounds after which a drafter is no newcomer any more.
const INTRODUCTION: u32 = 4;
/// The most that introductions may lose, as a share of the time that the answer would take plainly at full
/// length, and of its time so far.
const INTRODUCTION_SHARE: f64 = 0.04;
const INTRODUCTION_PACE: f64 = 0.25;
/// The most that probes may lose, as a share of all time.
const PROBE_SHARE: f64 = 0.01;
/// Rounds after which a drafter that was not asked may be probed.
const PROBE_AFTER: u32 = 32;

/// What is known about one drafter on this machine and on recent text.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: DrafterChoice,
    /// How often its tokens are accepted.
    pub acceptance: Acceptance,
    /// Seconds that a drafted token adds to the verification of its row: the drafter's own work. For an exit,
    /// whose layers verification does not run again, what remains of it after that saving.
    pub draft_cost: RunningCost,
    /// What a drafted token is guessed to cost before it is measured, in plain steps of the target.
    guess: f64,
    /// Rounds in which it drafted.
    rounds: u32,
    /// Rounds for which it was tried out.
    tries: u32,
    /// Rounds since it was last asked.
    idle: u32,
}

impl Candidate {
    /// A drafter nothing is known about but a guess at what one of its tokens costs, in plain steps of the target.
    pub fn new(name: DrafterChoice, guess: f64) -> Self {
        Self {
            name,
            acceptance: Acceptance::default(),
            draft_cost: RunningCost::default(),
            guess,
            rounds: 0,
            tries: 0,
            idle: 0,
        }
    }

    /// Whether its work is part of the verification's.
    fn shares_layers(&self) -> bool {
        matches!(self.name, DrafterChoice::Exit(_))
    }

    fn is_newcomer(&self) -> bool {
        self.rounds < INTRODUCTION
    }
}

/// One way to go on: a drafter, as an index into the planner's candidates, and how far it drafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The candidate.
    pub candidate: usize,
    /// Tokens to draft, at least 1.
    pub length: usize,
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

/// What a round did, for the planner to learn from.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// The candidate that drafted, if one did.
    pub candidate: Option<usize>,
    /// Tokens drafted.
    pub drafted: usize,
    /// Of them looked at: those accepted, and the first that was not.
    pub evaluated: usize,
    /// Of them accepted.
    pub accepted: usize,
    /// Seconds spent drafting.
    pub draft_seconds: f64,
    /// Seconds of the target's step.
    pub verify_seconds: f64,
}

/// Decides before every round, learns after it. Kept from answer to answer.
pub struct Planner {
    costs: VerifyCosts,
    candidates: Vec<Candidate>,
    /// How many of them stay: any beyond was admitted for an answer.
    lasting: usize,
    current: Option<Plan>,
    /// The candidate that is tried out in this round, and why.
    trial: Option<(usize, Trial)>,
    /// Seconds of all rounds, and what probes lost of them.
    seconds: f64,
    probes_lost: f64,
    answer: AnswerSoFar,
}

/// Why a drafter is asked although it is not the choice.
#[derive(Clone, Copy)]
enum Trial {
    Introduction,
    Probe,
}

/// What the planner knows of the answer at hand.
#[derive(Default)]
struct AnswerSoFar {
    limit: usize,
    prefill_seconds_per_token: f64,
    seconds: f64,
    introductions_lost: f64,
}

impl Planner {
    /// A planner that has measured nothing yet.
    pub fn new(candidates: Vec<Candidate>) -> Self {
        Self {
            costs: VerifyCosts::default(),
            lasting: candidates.len(),
            candidates,
            current: None,
            trial: None,
            seconds: 0.0,
            probes_lost: 0.0,
            answer: AnswerSoFar::default(),
        }
    }

    /// Makes sure that a drafter is among the candidates. One that was not there from the beginning stays until
    /// another is admitted, so that what was learned about it serves the next answers, and their number is bounded.
    pub fn admit(&mut self, name: &DrafterChoice, guess: f64) {
        if self.candidates.iter().all(|candidate| candidate.name != *name) {
            self.candidates.truncate(self.lasting);
            self.candidates.push(Candidate::new(name.clone(), guess));
            self.current = self.current.filter(|plan| plan.candidate < self.lasting);
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

    /// A new answer of at most `limit` tokens begins, after a prefill that took so long per token.
    pub fn begin_answer(&mut self, limit: usize, prefill_seconds_per_token: f64) {
        self.answer = AnswerSoFar { limit, prefill_seconds_per_token, ..AnswerSoFar::default() };
    }

    /// The plans worth trying for the next round, best first: if the first has nothing to draft, the next may.
    /// Empty means plain decoding.
    pub fn plans(&mut self, situation: &Situation<'_>, length: DraftLength) -> Vec<Plan> {
        self.trial = None;
        let room = situation.remaining.saturating_sub(1).min(MAX_DRAFT);
        if room == 0 {
            return Vec::new();
        }
        if let DraftLength::Fixed(length) = length {
            let plans = situation.usable.iter().map(|&candidate| Plan { candidate, length: length.min(room) });
            let mut plans: Vec<Plan> = plans.collect();
            plans.sort_by(|a, b| self.speedup(*b, situation).total_cmp(&self.speedup(*a, situation)));
            return plans;
        }
        // As long as a plain step is not measured, plain steps are what is needed.
        let Some(plain) = self.costs.plain() else { return Vec::new() };
        let introduction = self.introduction(situation, room, plain).map(|plan| (plan, Trial::Introduction));
        let trial = introduction.or_else(|| self.probe(situation, room, plain).map(|plan| (plan, Trial::Probe)));
        let chosen = self.choose(situation, room);
        let Some((plan, why)) = trial else { return chosen };
        // Asked is asked, even if it finds nothing to draft: the next trial is another's.
        let candidate = &mut self.candidates[plan.candidate];
        candidate.tries = candidate.tries.saturating_add(1);
        candidate.idle = 0;
        self.trial = Some((plan.candidate, why));
        std::iter::once(plan).chain(chosen).collect()
    }

    /// The plans that pay by what is known, best first.
    fn choose(&mut self, situation: &Situation<'_>, room: usize) -> Vec<Plan> {
        let known = situation.usable.iter().copied().filter(|&index| !self.candidates[index].is_newcomer());
        let best = known.filter_map(|index| self.best_length(index, situation, room));
        let mut scored: Vec<(f64, Plan)> = best.filter(|(speedup, _)| *speedup > 1.0).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        // The current choice stays unless the best is better by more than the noise of the estimates. Plain
        // decoding is a choice too.
        let fits = |plan: &Plan| situation.usable.contains(&plan.candidate) && plan.length <= room;
        let current = self.current.filter(fits);
        let holding = current.map_or(1.0, |plan| self.speedup(plan, situation));
        if scored.first().is_none_or(|best| best.0 <= holding * HYSTERESIS) {
            match current {
                None => scored.clear(),
                Some(plan) if holding > 1.0 => {
                    scored.retain(|(_, other)| other.candidate != plan.candidate);
                    scored.insert(0, (holding, plan));
                }
                Some(_) => {}
            }
        }
        self.current = scored.first().map(|(_, plan)| *plan);
        scored.into_iter().map(|(_, plan)| plan).collect()
    }

    /// A short round of the newcomer that promises most, if what it may lose is within bounds: most answers are short, and
    /// one good drafter is worth more in them than knowing all.
    fn introduction(&self, situation: &Situation<'_>, room: usize, plain: f64) -> Option<Plan> {
        let newcomers = situation.usable.iter().copied().filter(|&index| self.candidates[index].is_newcomer());
        let plans = newcomers.map(|candidate| Plan { candidate, length: room.min(SHORT) });
        let hopeful = plans.map(|plan| (self.speedup(plan, situation), plan)).filter(|(speedup, _)| *speedup > 1.0);
        // Those that were asked and found nothing to draft wait for the others.
        let silent = |plan: &Plan| {
            let Candidate { tries, rounds, .. } = self.candidates[plan.candidate];
            tries.saturating_sub(rounds)
        };
        let (_, plan) = hopeful.min_by(|(a, one), (b, other)| silent(one).cmp(&silent(other)).then(b.total_cmp(a)))?;
        let lost = self.answer.introductions_lost + self.loss_if_refused(plan, situation);
        let most = (INTRODUCTION_SHARE * plain * self.answer.limit as f64).min(INTRODUCTION_PACE * self.answer.seconds);
        (lost <= most).then_some(plan)
    }

    /// A short round of the candidate that was not asked for longest, if what it may lose is within bounds.
    fn probe(&self, situation: &Situation<'_>, room: usize, plain: f64) -> Option<Plan> {
        let current = self.current.map(|plan| plan.candidate);
        let others = situation.usable.iter().copied().filter(|&index| Some(index) != current);
        let candidate = others.max_by_key(|&index| self.candidates[index].idle)?;
        let plan = Plan { candidate, length: room.min(SHORT) };
        let lost = self.probes_lost + self.loss_if_refused(plan, situation).max(0.1 * plain);
        let due = self.candidates[candidate].idle > PROBE_AFTER;
        (due && lost <= PROBE_SHARE * self.seconds).then_some(plan)
    }

    /// Learns from a round.
    pub fn observe(&mut self, round: &Round) {
        let seconds = round.draft_seconds + round.verify_seconds;
        self.seconds += seconds;
        self.answer.seconds += seconds;
        if let Some((_, why)) = self.trial.filter(|trial| Some(trial.0) == round.candidate) {
            let lost = seconds - self.seconds_per_token() * (round.accepted + 1) as f64;
            let account = match why {
                Trial::Introduction => &mut self.answer.introductions_lost,
                Trial::Probe => &mut self.probes_lost,
            };
            *account = (*account + lost).max(0.0);
        }
        for candidate in &mut self.candidates {
            candidate.idle = candidate.idle.saturating_add(1);
        }
        let rows = round.drafted + 1;
        let verify_alone = self.costs.seconds(rows);
        let Some(candidate) = round.candidate.map(|index| &mut self.candidates[index]) else {
            self.costs.observe(rows, round.verify_seconds);
            return;
        };
        candidate.idle = 0;
        candidate.rounds = candidate.rounds.saturating_add(1);
        candidate.acceptance.observe(round.evaluated, round.accepted);
        if !candidate.is_newcomer() {
            candidate.acceptance.settle();
        }
        let saved = match verify_alone {
            Some(alone) if candidate.shares_layers() => alone - round.verify_seconds,
            _ => 0.0,
        };
        candidate.draft_cost.observe((round.draft_seconds - saved).max(0.0) / round.drafted.max(1) as f64);
        if !candidate.shares_layers() {
            self.costs.observe(rows, round.verify_seconds);
        }
    }

    /// Tokens per second of a plan, in units of plain decoding. A backlog is spread over the tokens to come.
    fn speedup(&self, plan: Plan, situation: &Situation<'_>) -> f64 {
        let tokens = self.candidates[plan.candidate].acceptance.expected_tokens()[plan.length - 1];
        self.speedup_given(plan, tokens, self.backlog_seconds(plan.candidate, situation), situation)
    }

    fn speedup_given(&self, plan: Plan, tokens: f64, backlog_seconds: f64, situation: &Situation<'_>) -> f64 {
        let Some(plain) = self.costs.seconds(1) else { return 1.0 };
        plain / (self.round_seconds(plan) / tokens + backlog_seconds / situation.remaining.max(1) as f64)
    }

    /// What a round costs more than plain decoding, or than the current plan, if all of its draft is refused.
    fn loss_if_refused(&self, plan: Plan, situation: &Situation<'_>) -> f64 {
        self.round_seconds(plan) + self.backlog_seconds(plan.candidate, situation) - self.seconds_per_token()
    }

    fn round_seconds(&self, plan: Plan) -> f64 {
        let candidate = &self.candidates[plan.candidate];
        let plain = self.costs.seconds(1).unwrap_or(0.0);
        let draft = candidate.draft_cost.seconds().unwrap_or(candidate.guess * plain);
        draft * plan.length as f64 + self.costs.seconds(plan.length + 1).unwrap_or(0.0)
    }

    /// Seconds that a candidate needs to run what it has not seen; what a usual round leaves behind is part of
    /// its draft cost.
    fn backlog_seconds(&self, candidate: usize, situation: &Situation<'_>) -> f64 {
        let backlog = (situation.backlog)(candidate).saturating_sub(MAX_DRAFT);
        backlog as f64 * self.candidates[candidate].guess * self.answer.prefill_seconds_per_token
    }

    /// Seconds per token of the current choice.
    fn seconds_per_token(&self) -> f64 {
        let plain = self.costs.seconds(1).unwrap_or(0.0);
        self.current.map_or(plain, |plan| {
            let tokens = self.candidates[plan.candidate].acceptance.expected_tokens()[plan.length - 1];
            plain.min(self.round_seconds(plan) / tokens)
        })
    }

    fn best_length(&self, candidate: usize, situation: &Situation<'_>, room: usize) -> Option<(f64, Plan)> {
        let tokens = self.candidates[candidate].acceptance.expected_tokens();
        let backlog = self.backlog_seconds(candidate, situation);
        let plans = (1..=room).map(|length| Plan { candidate, length });
        let scored = plans.map(|plan| (self.speedup_given(plan, tokens[plan.length - 1], backlog, situation), plan));
        scored.max_by(|a, b| a.0.total_cmp(&b.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine where a step over `r` rows takes `1 + slope * (r - 1)`, with drafters of a price each that are
    /// always right up to a position, one of which may find something to draft only every other round.
    struct Machine {
        planner: Planner,
        slope: f64,
        price: Vec<f64>,
        right_up_to: Vec<usize>,
        every_other_round: Option<usize>,
        never: Option<usize>,
        backlog: usize,
        rounds: Vec<Round>,
        tokens: usize,
        seconds: f64,
    }

    impl Machine {
        fn new(slope: f64, drafters: &[(f64, usize)]) -> Self {
            let model = |i: usize| DrafterChoice::Model(Some(i.to_string()));
            let candidates = drafters.iter().enumerate().map(|(i, drafter)| Candidate::new(model(i), drafter.0));
            let mut planner = Planner::new(candidates.collect());
            planner.begin_answer(256, 0.1);
            Self {
                planner,
                slope,
                price: drafters.iter().map(|d| d.0).collect(),
                right_up_to: drafters.iter().map(|d| d.1).collect(),
                every_other_round: None,
                never: None,
                backlog: 0,
                rounds: Vec::new(),
                tokens: 0,
                seconds: 0.0,
            }
        }

        /// Plays rounds and returns the plan that stands at the end.
        fn play(&mut self, rounds: usize) -> Option<Plan> {
            let usable: Vec<usize> = (0..self.price.len()).collect();
            for _ in 0..rounds {
                let backlog = self.backlog;
                let situation = Situation { usable: &usable, backlog: &|_| backlog, remaining: 1000 };
                let plans = self.planner.plans(&situation, DraftLength::Auto);
                let silent = |plan: &Plan| {
                    let now = self.rounds.len().is_multiple_of(2) && Some(plan.candidate) == self.every_other_round;
                    now || Some(plan.candidate) == self.never
                };
                let plan = plans.into_iter().find(|plan| !silent(plan));
                let drafted = plan.map_or(0, |plan| plan.length);
                let accepted = plan.map_or(0, |plan| drafted.min(self.right_up_to[plan.candidate]));
                let round = Round {
                    candidate: plan.map(|plan| plan.candidate),
                    drafted,
                    evaluated: drafted.min(accepted + 1),
                    accepted,
                    draft_seconds: plan.map_or(0.0, |plan| self.price[plan.candidate] * drafted as f64),
                    verify_seconds: 1.0 + self.slope * drafted as f64,
                };
                self.planner.observe(&round);
                self.rounds.push(round);
                self.tokens += accepted + 1;
                self.seconds += round.draft_seconds + round.verify_seconds;
            }
            self.planner.current
        }

        /// Tokens per second of the rounds since the last call, in units of plain decoding.
        fn speed(&mut self) -> f64 {
            let speed = self.tokens as f64 / self.seconds;
            (self.tokens, self.seconds) = (0, 0.0);
            speed
        }
    }

    #[test]
    fn drafters_that_are_always_wrong_are_given_up_and_cost_what_is_stated() {
        for drafters in [&[(0.3, 0)][..], &[(0.0, 0), (0.5, 0), (0.25, 0), (0.75, 0)]] {
            let mut machine = Machine::new(0.1, drafters);
            // The first answer, at any point of it, and later ones.
            for rounds in [10, 20, 40, 100] {
                machine.play(rounds);
                let speed = machine.tokens as f64 / machine.seconds;
                assert!(
                    speed > 1.0 - INTRODUCTION_PACE - PROBE_SHARE,
                    "{speed} after {} rounds with {drafters:?}",
                    machine.rounds.len()
                );
            }
            assert!(machine.play(76).is_none());
            let speed = machine.speed();
            assert!(
                speed > 1.0 - INTRODUCTION_SHARE - PROBE_SHARE,
                "the whole first answer: {speed} with {drafters:?}"
            );
            // Later answers bring introductions of their own only for what is still unknown.
            machine.planner.begin_answer(256, 0.1);
            machine.play(5000);
            machine.speed();
            machine.planner.begin_answer(256, 0.1);
            machine.play(5000);
            let speed = machine.speed();
            assert!(speed > 1.0 - 1.2 * PROBE_SHARE, "in the long run: {speed} with {drafters:?}");
        }
    }

    #[test]
    fn a_drafter_that_is_always_right_drafts_far_where_verification_is_cheap() {
        let plan = Machine::new(0.02, &[(0.05, MAX_DRAFT)]).play(200);
        assert!(plan.is_some_and(|plan| plan.length >= 12), "{plan:?}");
    }

    #[test]
    fn nothing_is_drafted_where_a_row_costs_as_much_as_a_step() {
        assert_eq!(Machine::new(1.0, &[(0.1, MAX_DRAFT)]).play(400), None);
    }

    #[test]
    fn the_best_of_several_is_found_and_its_length_fits_what_it_knows() {
        // The second is right for three tokens, then wrong; the others are wrong at once or dear.
        let plan = Machine::new(0.1, &[(0.1, 0), (0.05, 3), (0.9, MAX_DRAFT)]).play(600);
        assert!(plan.is_some_and(|plan| plan.candidate == 1 && (3..=4).contains(&plan.length)), "{plan:?}");
    }

    #[test]
    fn what_promises_most_drafts_in_a_short_answer_already() {
        let mut machine = Machine::new(0.2, &[(0.4, 0), (0.2, 0), (0.05, MAX_DRAFT), (0.3, 0)]);
        let plan = machine.play(16);
        assert!(plan.is_some_and(|plan| plan.candidate == 2), "{plan:?}");
        assert!(machine.tokens > 25, "{}", machine.tokens);
    }

    #[test]
    fn one_that_finds_nothing_does_not_keep_the_others_from_being_tried() {
        let mut machine = Machine::new(0.1, &[(0.0, MAX_DRAFT), (0.1, MAX_DRAFT)]);
        machine.never = Some(0);
        assert!(machine.play(40).is_some_and(|plan| plan.candidate == 1));
    }

    #[test]
    fn a_drafter_that_becomes_good_is_found_again() {
        let mut machine = Machine::new(0.05, &[(0.1, 0)]);
        assert_eq!(machine.play(300), None);
        machine.right_up_to[0] = MAX_DRAFT;
        assert!(machine.play(20_000).is_some());
    }

    #[test]
    fn where_the_best_finds_nothing_a_loser_does_not_step_in() {
        let mut machine = Machine::new(0.1, &[(0.0, 4), (0.5, 0)]);
        machine.every_other_round = Some(0);
        machine.play(400);
        let before = machine.rounds.len();
        machine.play(1000);
        let loser = machine.rounds[before..].iter().filter(|round| round.candidate == Some(1)).count();
        assert!(loser < 30, "the loser drafted in {loser} of 1000 rounds");
    }

    #[test]
    fn a_long_backlog_is_not_run_for_a_short_gain() {
        let tried = |backlog| {
            let mut machine = Machine::new(0.1, &[(0.2, MAX_DRAFT)]);
            machine.backlog = backlog;
            machine.play(100);
            machine.rounds.iter().any(|round| round.drafted > 0)
        };
        assert!(tried(0) && !tried(100_000));
    }

    #[test]
    fn what_an_exit_saves_in_verification_counts_for_it() {
        let mut planner = Planner::new(vec![Candidate::new(DrafterChoice::Exit(2), 0.5)]);
        let plain = |rows: usize| Round {
            candidate: None,
            drafted: rows - 1,
            evaluated: 0,
            accepted: 0,
            draft_seconds: 0.0,
            verify_seconds: 1.0,
        };
        (1..=MAX_DRAFT + 1).for_each(|rows| planner.observe(&plain(rows)));
        // Half of the layers run while drafting, one token at a time; verification runs the other half.
        let (draft_seconds, verify_seconds) = (2.0, 0.6);
        let round = Round { candidate: Some(0), drafted: 4, evaluated: 4, accepted: 4, draft_seconds, verify_seconds };
        (0..50).for_each(|_| planner.observe(&round));
        let cost = planner.candidates()[0].draft_cost.seconds();
        assert!(cost.is_some_and(|cost| (cost - (2.0 + 0.6 - 1.0) / 4.0).abs() < 1e-9), "{cost:?}");
        assert_eq!(planner.costs().seconds(5), Some(1.0), "a shortened verification says nothing about whole ones");
    }

    #[test]
    fn a_fixed_length_is_kept_whatever_it_costs_and_never_exceeds_the_room() {
        let mut planner = Machine::new(1.0, &[(5.0, 0)]).planner;
        let mut length = |remaining| {
            let situation = Situation { usable: &[0], backlog: &|_| 0, remaining };
            planner.plans(&situation, DraftLength::Fixed(8)).first().map(|plan| plan.length)
        };
        assert_eq!((length(17), length(4), length(1)), (Some(8), Some(3), None));
    }

    #[test]
    fn a_drafter_that_is_admitted_keeps_what_was_learned_until_another_is() {
        let mut planner = Planner::new(vec![Candidate::new(DrafterChoice::Lookup, 0.0)]);
        planner.begin_answer(64, 0.0);
        let skip = |plan: &str| DrafterChoice::Skip(plan.parse().expect("a plan"));
        for plan in ["a1", "m2", "m2", "3"] {
            planner.admit(&skip(plan), 0.5);
            planner.admit(&DrafterChoice::Lookup, 0.0);
            let names: Vec<&DrafterChoice> = planner.candidates().iter().map(|candidate| &candidate.name).collect();
            assert_eq!(names, [&DrafterChoice::Lookup, &skip(plan)]);
        }
        planner.candidates[1].tries = 7;
        planner.current = Some(Plan { candidate: 1, length: 2 });
        planner.admit(&skip("3"), 0.5);
        assert_eq!((planner.candidates()[1].tries, planner.current.map(|plan| plan.candidate)), (7, Some(1)));
        planner.admit(&skip("4"), 0.5);
        assert_eq!((planner.candidates()[1].tries, planner.current.is_none()), (0, true));
    }
}

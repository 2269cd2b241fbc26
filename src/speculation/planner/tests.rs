//! The planner against machines whose costs and drafters are known.

mod alone;
mod pair;

use super::super::planner;
use super::trials::{INTRODUCTION_PACE, INTRODUCTION_SHARE, NAMED_PROBE_SHARE, PROBE_SHARE};
use super::*;
use crate::speculation::StepCosts;
use alone::Planner;

const SURE: f32 = 12.0;

/// Draft for a plan from a drafter that gives its token at each position these log-odds.
fn drafted(planner: &Planner, plan: Plan, odds: impl Fn(usize) -> f32) -> Draft {
    let (mut draft, mut rule) = (Draft::default(), planner.stop_rule(plan));
    while rule.wants_another() && draft.declined.is_none() {
        let odds = odds(draft.tokens.len());
        if rule.takes(odds) {
            draft.tokens.push(0);
            draft.log_odds.push(odds);
        } else {
            draft.declined = Some(odds);
        }
    }
    draft
}

/// A machine where a step over `r` rows takes `1 + slope * (r - 1)`, with drafters of a price each that are
/// always right up to a position, one of which may find something to draft only every other round.
struct Machine {
    planner: Planner,
    slope: f64,
    price: Vec<f64>,
    right_up_to: Vec<usize>,
    every_other_round: Option<usize>,
    never: Option<usize>,
    /// The log-odds that drafters give a token that is wrong.
    doubt: f32,
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
            doubt: SURE,
            backlog: 0,
            rounds: Vec::new(),
            tokens: 0,
            seconds: 0.0,
        }
    }

    /// Plays rounds and returns the candidate that stands at the end.
    fn play(&mut self, rounds: usize) -> Option<usize> {
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
            let mut draft = Draft::default();
            if let Some(plan) = plan {
                let right = self.right_up_to[plan.candidate];
                draft = drafted(&self.planner, plan, |token| if token < right { SURE } else { self.doubt });
            }
            let drafted = draft.tokens.len();
            let accepted = plan.map_or(0, |plan| drafted.min(self.right_up_to[plan.candidate]));
            let round = Round {
                candidate: plan.map(|plan| plan.candidate),
                drafted,
                evaluated: drafted.min(accepted + 1),
                accepted,
                tokens: accepted + 1,
                backlog,
                asking_seconds: 0.0,
                draft_seconds: plan.map_or(0.0, |plan| self.price[plan.candidate] * draft.attempted() as f64),
                verify_seconds: 1.0 + self.slope * drafted as f64,
            };
            self.planner.observe(&round, &draft);
            self.rounds.push(round);
            self.tokens += accepted + 1;
            self.seconds += round.draft_seconds + round.verify_seconds;
        }
        self.planner.state.current
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
        assert!(speed > 1.0 - INTRODUCTION_SHARE - PROBE_SHARE, "the whole first answer: {speed} with {drafters:?}");
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
    let mut machine = Machine::new(0.02, &[(0.05, MAX_DRAFT)]);
    machine.play(200);
    // But for the plain step that is measured again now and then.
    let far = machine.rounds[100..].iter().filter(|round| round.drafted == MAX_DRAFT).count();
    assert!(far >= 98, "{far} of 100 rounds");
}

#[test]
fn nothing_is_drafted_where_a_row_costs_as_much_as_a_step() {
    assert_eq!(Machine::new(1.0, &[(0.1, MAX_DRAFT)]).play(400), None);
}

#[test]
fn the_best_of_several_is_found_and_its_length_fits_what_it_knows() {
    // The second is right for three tokens, then wrong; the others are wrong at once or dear.
    let drafters = [(0.1, 0), (0.05, 3), (0.9, MAX_DRAFT)];
    for doubt in [SURE, -1.0] {
        let mut machine = Machine::new(0.1, &drafters);
        machine.doubt = doubt;
        assert_eq!(machine.play(600), Some(1));
        machine.speed();
        machine.play(200);
        // Where it says that it does not know, what it does not know is not verified: 4 tokens in 1.3 and four drafts of 0.05.
        let (speed, best) = (machine.speed(), 4.0 / 1.5);
        assert!(speed < 1.001 * best && speed > if doubt == SURE { 0.8 } else { 0.97 } * best, "{speed} of {best}");
    }
}

#[test]
fn what_promises_most_drafts_in_a_short_answer_already() {
    let mut machine = Machine::new(0.2, &[(0.4, 0), (0.2, 0), (0.05, MAX_DRAFT), (0.3, 0)]);
    assert_eq!(machine.play(16), Some(2));
    assert!(machine.tokens > 25, "{}", machine.tokens);
}

#[test]
fn one_that_finds_nothing_does_not_keep_the_others_from_being_tried() {
    let mut machine = Machine::new(0.1, &[(0.0, MAX_DRAFT), (0.1, MAX_DRAFT)]);
    machine.never = Some(0);
    assert_eq!(machine.play(40), Some(1));
}

#[test]
fn a_drafter_that_becomes_good_is_found_again() {
    let mut machine = Machine::new(0.05, &[(0.1, 0)]);
    assert_eq!(machine.play(300), None);
    machine.right_up_to[0] = MAX_DRAFT;
    assert!(machine.play(400).is_some());
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
    let mut planner =
        Planner::new(vec![Candidate { name: DrafterChoice::Exit(2), costs: DrafterCosts::guessed(0.5, 0.5, 0) }]);
    (1..=MAX_DRAFT + 1).for_each(|rows| (0..3).for_each(|_| planner.observe(&plain(rows), &Draft::default())));
    // Half of the layers run while drafting, one token at a time; verification runs the others.
    let (draft_seconds, verify_seconds) = (2.0, 0.6);
    let round = Round { candidate: Some(0), draft_seconds, verify_seconds, ..plain(5) };
    (0..2000).for_each(|_| planner.observe(&round, &four()));
    let prices = planner.prices(0).unwrap();
    assert!((prices.token - 0.5).abs() < 1e-9, "{prices:?}");
    // What it cannot tell apart is what a whole step takes and which share of it: their product is what verification took.
    assert!((prices.verification(4) - 0.6).abs() < 0.02, "{prices:?}");
    // Steps over other rows were measured whole, so the share is known from them where they are near.
    assert!(prices.verification(8) > 0.5 && prices.verification(8) < 0.7, "{prices:?}");
    assert_eq!(
        planner.machine().steps.seconds(1),
        Some(1.0),
        "a shortened verification says nothing about plain steps"
    );
}

#[test]
fn a_fixed_length_is_kept_whatever_it_costs_and_never_exceeds_the_room() {
    let mut machine = Machine::new(1.0, &[(5.0, 0)]);
    // Before anything is measured, and after.
    for rounds in [0, 50] {
        machine.play(rounds);
        let planner = &mut machine.planner;
        let mut length = |remaining| {
            let situation = Situation { usable: &[0], backlog: &|_| 0, remaining };
            let plan = *planner.plans(&situation, DraftLength::Fixed(8)).first()?;
            let mut judge = planner.stop_rule(plan);
            Some((0..100).take_while(|_| judge.wants_another() && judge.takes(-9.0)).count())
        };
        assert_eq!((length(17), length(4), length(1)), (Some(8), Some(3), None));
    }
}

#[test]
fn a_drafter_that_is_admitted_keeps_what_was_learned_until_another_is() {
    let mut planner = Planner::new(vec![Candidate::new(DrafterChoice::Lookup, 0.0)]);
    planner.begin_answer(64, 0.0);
    let skip = |plan: &str| DrafterChoice::Skip(plan.parse().expect("a plan"));
    for plan in ["a1", "m2", "m2", "3"] {
        planner.admit(Candidate::new(skip(plan), 0.5));
        planner.admit(Candidate::new(DrafterChoice::Lookup, 0.0));
        let names: Vec<&DrafterChoice> = planner.names().collect();
        assert_eq!(names, [&DrafterChoice::Lookup, &skip(plan)]);
    }
    planner.drafters[1].tries = 7;
    planner.current = Some(1);
    planner.admit(Candidate::new(skip("3"), 0.5));
    assert_eq!((planner.drafters[1].tries, planner.current), (7, Some(1)));
    planner.admit(Candidate::new(skip("4"), 0.5));
    assert_eq!((planner.drafters[1].tries, planner.current.is_none()), (0, true));
}

#[test]
fn a_drafter_that_an_answer_uses_is_not_replaced_by_another() {
    let mut planner = planner::Planner::new(vec![Candidate::new(DrafterChoice::Lookup, 0.0)]);
    let skip = |plan: &str| DrafterChoice::Skip(plan.parse().expect("a plan"));
    planner.admit(Candidate::new(skip("1"), 0.5));
    let first = planner.begin(64, 0.0);
    planner.admit(Candidate::new(skip("2"), 0.5));
    let second = planner.begin(64, 0.0);
    let names = |planner: &planner::Planner| -> Vec<String> { planner.names().map(ToString::to_string).collect() };
    assert_eq!(names(&planner), ["lookup", "skip:1", "skip:2"]);
    planner.end(&first);
    planner.admit(Candidate::new(skip("3"), 0.5));
    assert_eq!(names(&planner), ["lookup", "skip:1", "skip:2", "skip:3"], "the second answer knows the first one's");
    planner.end(&second);
    planner.admit(Candidate::new(skip("4"), 0.5));
    assert_eq!(names(&planner), ["lookup", "skip:4", "skip:2", "skip:3"]);
}

/// A step over `n` rows costs `1 + n / 10`, and every token is accepted with the same high probability.
#[test]
fn drafts_become_short_as_the_company_grows() {
    let length = |answers: usize| {
        let mut planner = planner::Planner::new(vec![Candidate::new(DrafterChoice::Lookup, 0.0)]);
        let all = answers + 1;
        for step in 0..400 {
            let rows = all + step % 9;
            planner.observe_step(rows, 1.0 + 0.1 * rows as f64);
        }
        let mut state = RequestState::default();
        state.keep_company(Company { answers, shares_steps: true });
        let plan = Plan { candidate: 0, length: MAX_DRAFT, least: 0 };
        let mut rule = planner.stop_rule(&state, plan);
        (0..MAX_DRAFT).take_while(|_| rule.wants_another() && rule.takes(2.0)).count()
    };
    // The time of a token is (1 + n / 10) / n: half a second for two answers, less than a fifth for sixteen.
    let lengths = [1, 3, 7, 15].map(length);
    assert!(lengths.windows(2).all(|pair| pair[0] >= pair[1]), "{lengths:?}");
    assert!(lengths[0] > 8 && lengths[3] <= 4, "{lengths:?}");
}

/// What one answer finds out serves all.
#[test]
fn in_company_one_answer_at_a_time_tries_a_drafter() {
    let mut planner = planner::Planner::new(vec![Candidate::new(DrafterChoice::Lookup, 0.0)]);
    (0..50).for_each(|step| planner.observe_step(2 + step % 3, 1.0 + 0.05 * (2 + step % 3) as f64));
    let mut states: Vec<RequestState> = (0..2).map(|_| planner.begin(256, 0.0)).collect();
    for state in &mut states {
        state.keep_company(Company { answers: 1, shares_steps: true });
        (0..20).for_each(|_| planner.observe(state, &plain(1), &Draft::default()));
    }
    let situation = Situation { usable: &[0], backlog: &|_| 0, remaining: 200 };
    let mut tried = |state: &mut RequestState| {
        planner.plans(state, &situation, DraftLength::Auto);
        state.trial.is_some()
    };
    let [first, second] = &mut states[..] else { panic!("two answers") };
    assert!(tried(first) && !tried(second));
    planner.begin_round();
    let plans = planner.plans(second, &situation, DraftLength::Auto);
    assert!(second.trial.is_some() && plans.len() == 1);
}

#[test]
fn who_promises_less_than_the_choice_is_not_introduced() {
    // The second would have to be right always to come near the first.
    let mut machine = Machine::new(0.1, &[(0.05, MAX_DRAFT), (0.9, MAX_DRAFT)]);
    machine.play(2000);
    assert!(machine.rounds.iter().all(|round| round.candidate != Some(1)));
}

#[test]
fn who_was_named_is_tried_whatever_is_guessed() {
    // A token is guessed to cost 0.9 of a step, and costs 0.05.
    let mut machine = Machine::new(0.1, &[(0.9, MAX_DRAFT)]);
    machine.planner.insist();
    machine.price[0] = 0.05;
    assert_eq!(machine.play(100), Some(0));
}

#[test]
fn one_cold_step_does_not_decide_against_drafting() {
    let mut machine = Machine::new(0.1, &[(0.05, MAX_DRAFT)]);
    machine.play(20);
    machine.planner.machine.steps = StepCosts::default();
    (0..3).for_each(|_| machine.planner.machine.steps.observe(1, 1.0));
    machine.planner.machine.steps.observe(MAX_DRAFT + 1, 50.0);
    machine.speed();
    machine.play(20);
    assert!(machine.speed() > 2.0);
}

#[test]
fn reading_the_prompt_is_no_part_of_what_a_draft_costs() {
    let mut planner = Planner::new(vec![Candidate::new(DrafterChoice::Lookup, 0.1)]);
    planner.begin_answer(256, 0.1);
    let round = |backlog, draft_seconds| Round {
        candidate: Some(0),
        drafted: 4,
        evaluated: 4,
        accepted: 4,
        tokens: 5,
        backlog,
        draft_seconds,
        asking_seconds: 0.0,
        verify_seconds: 1.0,
    };
    (0..10).for_each(|_| planner.observe(&round(0, 0.4), &four()));
    planner.observe(&round(100, 20.0), &four());
    assert!(planner.machine().drafters[0].token.seconds().is_some_and(|cost| (cost - 0.1).abs() < 1e-9));
    let speed = |backlog: usize| planner.speed(0, &Situation { usable: &[0], backlog: &|_| backlog, remaining: 1000 });
    assert!(speed(100) < 0.7 * speed(0), "what reading took is expected again: {} {}", speed(100), speed(0));
}

#[test]
fn one_that_is_good_now_and_then_leaves_the_other_rounds_to_others() {
    // The first is free and right for sixteen tokens, every other round; the second would do in all of them.
    let mut machine = Machine::new(0.1, &[(0.0, MAX_DRAFT), (0.05, 6)]);
    machine.every_other_round = Some(0);
    machine.play(600);
    let drafted = |who| machine.rounds[300..].iter().filter(|round| round.candidate == Some(who)).count();
    assert!(drafted(0) > 120 && drafted(1) > 120, "{} and {} of 300 rounds", drafted(0), drafted(1));
    // It drafts first, but what a token takes on average is not what it takes in the rounds of the first.
    assert_eq!((machine.planner.state.current, machine.planner.state.pace), (Some(0), Some(1)));
}

#[test]
fn who_cannot_be_afforded_does_not_keep_others_from_being_tried() {
    let mut planner = Machine::new(0.1, &[(0.05, 0), (0.1, 0)]).planner;
    (0..30).for_each(|_| planner.observe(&plain(1), &Draft::default()));
    // The first promises more, but has so much to read that the rest of the answer would not return it.
    let backlog = |candidate: usize| if candidate == 0 { 100_000 } else { 0 };
    let situation = Situation { usable: &[0, 1], backlog: &backlog, remaining: 226 };
    let plans = planner.plans(&situation, DraftLength::Auto);
    assert_eq!(plans.first().map(|plan| plan.candidate), Some(1));
}

/// Four tokens.
fn four() -> Draft {
    Draft { tokens: vec![0; 4], log_odds: vec![SURE; 4], declined: None }
}

/// A step of plain decoding, or of so many rows.
fn plain(rows: usize) -> Round {
    Round {
        candidate: None,
        drafted: rows - 1,
        evaluated: 0,
        accepted: 0,
        tokens: 1,
        backlog: 0,
        draft_seconds: 0.0,
        asking_seconds: 0.0,
        verify_seconds: 1.0,
    }
}

/// An outlook that expects such acceptances, and nothing where there is none.
fn outlook(acceptances: &[Option<f64>]) -> Outlook {
    let forecast = |acceptance: f64| Forecast { acceptance, effective: acceptance, rounds: 40.0, trust: 1.0 };
    Outlook { forecasts: acceptances.iter().map(|acceptance| acceptance.map(forecast)).collect(), tokens: None }
}

#[test]
fn what_is_expected_of_an_answer_decides_before_it_has_begun() {
    // Both are as good and as dear, and known to be.
    let mut machine = Machine::new(0.1, &[(0.05, 8), (0.05, 8)]);
    machine.play(300);
    for (expected, first) in [([0.95, 0.5], 0), ([0.5, 0.95], 1)] {
        machine.planner.begin_answer(256, 0.1);
        machine.planner.expect(&outlook(&expected.map(Some)));
        // Apart from a probe.
        assert!(share(&mut machine, first) >= 0.9, "{expected:?}: {:?}", machine.rounds);
    }
    // One that is hardly ever the best has to be better by more.
    let mut expected = outlook(&[Some(0.9), Some(0.92)]);
    expected.forecasts[1].as_mut().unwrap().trust = 0.8;
    machine.planner.begin_answer(256, 0.1);
    machine.planner.expect(&expected);
    assert!(share(&mut machine, 0) >= 0.9, "{:?}", machine.rounds);
}

/// The share of the next ten rounds that a candidate drafts in.
fn share(machine: &mut Machine, candidate: usize) -> f64 {
    machine.rounds.clear();
    machine.play(10);
    machine.rounds.iter().filter(|round| round.candidate == Some(candidate)).count() as f64 / 10.0
}

#[test]
fn what_was_wrongly_expected_costs_little() {
    let mut machine = Machine::new(0.1, &[(0.05, 0), (0.05, 8)]);
    machine.doubt = 0.0;
    machine.play(300);
    machine.planner.begin_answer(256, 0.1);
    machine.planner.expect(&outlook(&[Some(0.9), Some(0.8)]));
    machine.speed();
    machine.play(60);
    // Drafts that turn out wrong become short at once, whatever was expected.
    let speed = machine.speed();
    assert!(speed > 0.85, "{speed}");
}

#[test]
fn an_exit_that_is_scored_becomes_what_its_scores_say() {
    let exits = [2, 6].map(|depth| Candidate::new(DrafterChoice::Exit(depth), 0.1));
    let mut planner = Planner::new(exits.to_vec());
    (0..10).for_each(|_| planner.observe(&plain(1), &Draft::default()));
    planner.begin_answer(256, 0.1);
    assert_eq!(planner.exit_to_score(None, &[0, 1]), None, "nothing is expected, so nothing is to be corrected");
    planner.expect(&outlook(&[Some(0.9), Some(0.9)]));
    let situation = Situation { usable: &[0, 1], backlog: &|_| 0, remaining: 100 };
    let before = planner.decide(&situation).unwrap();
    // Layers that ran ahead are not run again, so a shallower exit has no states.
    assert_eq!(
        (planner.exit_to_score(None, &[0, 1]), planner.exit_to_score(Some(0), &[0, 1])),
        (Some((0, 2)), Some((1, 6)))
    );
    assert_eq!(planner.exit_to_score(Some(1), &[0, 1]), None);
    for _ in 0..20 {
        planner.observe_shadow(0, &vec![(2.0, false); 4], 0.0);
    }
    assert_eq!(planner.shadow_scores().collect::<Vec<_>>(), [Some((0.0, 80.0)), None]);
    let after = planner.decide(&situation).unwrap();
    assert!(before.margin < 1e-9 && after.plan == Some(1) && after.margin > 0.5, "{before:?} {after:?}");
    // Looking stops where it takes more than its share.
    planner.observe_shadow(0, &Vec::new(), 1.0);
    assert_eq!(planner.exit_to_score(None, &[0, 1]), None);
}

#[test]
fn memory_that_matters_more_than_time_is_never_asked_for() {
    let mut machine = Machine::new(0.1, &[(0.05, 8), (0.4, 3)]);
    machine.planner = {
        let name = |index: usize| DrafterChoice::Model(Some(index.to_string()));
        Planner::new(vec![
            Candidate { name: name(0), costs: DrafterCosts::guessed(0.05, 1.0, 500) },
            Candidate::new(name(1), 0.4),
        ])
    };
    let capacity = paceline_router::Profile::Capacity.objective();
    for _ in 0..20 {
        machine.planner.begin_answer(256, 0.1);
        machine.planner.aim(capacity, 1000);
        machine.planner.expect(&outlook(&[Some(0.95), Some(0.7)]));
        machine.play(50);
    }
    assert!(machine.rounds.iter().all(|round| round.candidate != Some(0)), "{:?}", machine.rounds);
    machine.planner.begin_answer(256, 0.1);
    machine.play(50);
    assert_eq!(machine.rounds.last().unwrap().candidate, Some(0));
}

#[test]
fn an_answer_that_begins_badly_is_not_decoded_plainly_to_its_end() {
    let mut machine = Machine::new(0.25, &[(0.1, MAX_DRAFT)]);
    machine.play(200);
    machine.planner.begin_answer(256, 0.1);
    machine.planner.expect(&outlook(&[Some(0.98)]));
    machine.right_up_to[0] = 0;
    machine.play(4);
    machine.right_up_to[0] = MAX_DRAFT;
    machine.rounds.clear();
    machine.play(40);
    let far = machine.rounds.iter().filter(|round| round.drafted > 4).count();
    assert!(far >= 36, "{far} of 40 rounds");
}

#[test]
fn what_answers_without_a_choice_take_pays_for_no_trials() {
    let mut machine = Machine::new(0.1, &[(0.05, 4), (0.02, 0)]);
    let trials = |machine: &Machine| machine.rounds.iter().filter(|round| round.candidate == Some(1)).count();
    machine.play(100);
    machine.rounds.clear();
    machine.play(1000);
    let usual = trials(&machine);
    // A long time of plain decoding and of a drafter that was asked for by name.
    for usable in [&[][..], &[0]] {
        for _ in 0..20_000 {
            let situation = Situation { usable, backlog: &|_| 0, remaining: 1000 };
            machine.planner.plans(&situation, DraftLength::Auto);
            machine.planner.observe(&plain(1), &Draft::default());
        }
    }
    machine.rounds.clear();
    machine.play(1000);
    assert!(trials(&machine) <= usual + 1, "{} instead of {usual}", trials(&machine));
}

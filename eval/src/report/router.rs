//! The router's worth: between the best static plan and the per-prompt oracle, and how well it knows.
//!
//! The oracle's plan for a prompt is chosen on every other repeat and scored on the others, both ways, so that noise is
//! not taken for insight. The best static plan is chosen on every other prompt and scored on the others, both ways.

use std::collections::BTreeMap;

use super::energy::RESAMPLES;
use super::plans::PlanResult;
use crate::rows::Row;
use crate::statistics::{Interval, bootstrap, median};

/// The levels as the router names them.
pub const LEVELS: [&str; 3] = ["simple", "medium", "complex"];
/// Bins of the reliability curve.
const BINS: usize = 8;

/// The worth of choosing, as decode time over all prompts.
#[derive(Clone, Debug)]
pub struct Regret {
    /// The plan that chooses.
    pub auto: String,
    /// The static plans that it is compared with, and which was best on each half of the prompts.
    pub statics: Vec<String>,
    /// See [`Regret::statics`].
    pub best: Vec<String>,
    /// Time of the mean of all static plans, of the choosing one and of the oracle, as shares of the best static plan's.
    pub random: Interval,
    /// See [`Regret::random`].
    pub chosen: Interval,
    /// See [`Regret::random`].
    pub oracle: Interval,
}

/// Values of one prompt: for each plan its typical time in even repeats, and in odd ones.
type Halves = Vec<[f64; 2]>;

/// The worth of choosing; `None` without repeats, or without static plans to compare with.
pub fn regret(auto: &PlanResult, statics: &[&PlanResult]) -> Option<Regret> {
    let halves = |plan: &PlanResult, id: &str| -> Option<[f64; 2]> {
        let all = &plan.prompts.get(id)?.decode_ms;
        let half = |first: usize| median(&all.iter().copied().skip(first).step_by(2).collect::<Vec<_>>());
        Some([half(0)?, half(1)?])
    };
    let prompts: Vec<([f64; 2], Halves)> = auto
        .prompts
        .keys()
        .filter_map(|id| Some((halves(auto, id)?, statics.iter().map(|plan| halves(plan, id)).collect::<Option<_>>()?)))
        .collect();
    if statics.is_empty() || prompts.len() < 4 {
        return None;
    }
    let both = |pair: [f64; 2]| 0.5 * (pair[0] + pair[1]);
    let sum_of = |plan: usize, half: usize| -> f64 {
        prompts.iter().skip(half).step_by(2).map(|(_, plans)| both(plans[plan])).sum()
    };
    let best_on = |half: usize| (0..statics.len()).min_by(|&a, &b| sum_of(a, half).total_cmp(&sum_of(b, half)));
    // Prompts of one half are scored with the plan that the other half chose.
    let best = [best_on(1)?, best_on(0)?];
    let oracle = |plans: &Halves| {
        let pick = |by: usize| plans.iter().min_by(|a, b| a[by].total_cmp(&b[by])).map_or(0.0, |plan| plan[1 - by]);
        0.5 * (pick(0) + pick(1))
    };
    let share = |of: &dyn Fn(usize) -> f64| {
        bootstrap(prompts.len(), RESAMPLES, 0, |places| {
            let base: f64 = places.iter().map(|&place| both(prompts[place].1[best[place % 2]])).sum();
            places.iter().map(|&place| of(place)).sum::<f64>() / base
        })
    };
    Some(Regret {
        auto: auto.name.clone(),
        statics: statics.iter().map(|plan| plan.name.clone()).collect(),
        best: best.iter().map(|&plan| statics[plan].name.clone()).collect(),
        random: share(&|place| prompts[place].1.iter().map(|plan| both(*plan)).sum::<f64>() / statics.len() as f64),
        chosen: share(&|place| both(prompts[place].0)),
        oracle: share(&|place| oracle(&prompts[place].1)),
    })
}

/// Confusion matrix of levels: number of prompts stated to be of a level that were judged to be of each.
pub fn confusion(rows: &[&Row]) -> Option<[[usize; 3]; 3]> {
    let mut counts = [[0; 3]; 3];
    let level = |name: &str| LEVELS.iter().position(|level| *level == name);
    for row in rows.iter().filter(|row| row.repeat == 0) {
        if let (Some(said), Some(judged)) = (level(&row.level), level(&row.difficulty)) {
            counts[said][judged] += 1;
        }
    }
    counts.iter().flatten().any(|&count| count > 0).then_some(counts)
}

/// A bin of the reliability curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Answers in it.
    pub answers: usize,
    /// The mean of what was expected.
    pub expected: f64,
    /// The share of tokens looked at that were kept.
    pub measured: f64,
}

/// Expected and measured acceptance, in bins of as many answers each.
pub fn reliability(rows: &[&Row]) -> Vec<Bin> {
    let of = |row: &&Row| Some((row.expected_acceptance?, row.accepted as f64, row.evaluated as f64));
    let mut all: Vec<(f64, f64, f64)> = rows.iter().filter(|row| row.evaluated > 0).filter_map(of).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let size = all.len().div_ceil(BINS).max(1);
    let bin = |answers: &[(f64, f64, f64)]| Bin {
        answers: answers.len(),
        expected: answers.iter().map(|answer| answer.0).sum::<f64>() / answers.len() as f64,
        measured: answers.iter().map(|answer| answer.1).sum::<f64>()
            / answers.iter().map(|answer| answer.2).sum::<f64>(),
    };
    all.chunks(size).map(bin).collect()
}

/// Which drafters a plan used most, and in how many answers.
pub fn chosen(rows: &[&Row]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(row.drafter.clone()).or_insert(0) += 1);
    counts
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;
    use crate::report::plans::results;

    fn rows(time: impl Fn(&str, usize) -> f64) -> Vec<Row> {
        let mut rows = Vec::new();
        for id in 0..32 {
            for repeat in 0..4 {
                for plan in ["a", "auto", "b"] {
                    let latency_ms = Some(time(plan, id) * 10.0);
                    rows.push(Row {
                        id: format!("{id:02}"),
                        plan: plan.into(),
                        repeat,
                        tokens: 10,
                        latency_ms,
                        ..Row::default()
                    });
                }
            }
        }
        rows
    }

    #[test]
    fn a_choice_that_is_always_right_is_the_oracle() {
        // `a` is better for three of four prompts.
        let time = |plan: &str, id: usize| match (plan, id % 4) {
            ("a", 0) | ("b", 1..) => 2.0,
            _ => 1.0,
        };
        let results = results(&rows(time), "a", |_| false);
        let by = |name: &str| results.iter().find(|plan| plan.name == name).unwrap();
        let found = regret(by("auto"), &[by("a"), by("b")]).unwrap();
        assert_eq!(found.best, ["a", "a"]);
        assert!((found.chosen.estimate - 0.8).abs() < 1e-9 && (found.oracle.estimate - 0.8).abs() < 1e-9, "{found:?}");
        assert!((found.random.estimate - 1.2).abs() < 1e-9);
    }

    #[test]
    fn noise_is_not_taken_for_insight() {
        // Repeats differ, plans do not.
        let mut rows = rows(|_, _| 1.0);
        for (place, row) in rows.iter_mut().enumerate() {
            row.latency_ms = Some(10.0 + ((place * 7919) % 13) as f64 * 0.2);
        }
        let results = results(&rows, "a", |_| false);
        let found = regret(&results[1], &[&results[0], &results[2]]).unwrap();
        assert!(found.oracle.estimate > 0.97, "{found:?}");
    }

    #[test]
    fn what_was_expected_is_held_to_what_was_measured() {
        let row = |expected: f64, accepted: u64| Row {
            expected_acceptance: Some(expected),
            evaluated: 10,
            accepted,
            level: "simple".into(),
            difficulty: "medium".into(),
            ..Row::default()
        };
        let rows: Vec<Row> = (0..16).map(|place| if place < 8 { row(0.9, 8) } else { row(0.4, 5) }).collect();
        let rows: Vec<&Row> = rows.iter().collect();
        let bins = reliability(&rows);
        assert_eq!(bins.len(), 8);
        assert_eq!(bins[0], Bin { answers: 2, expected: 0.4, measured: 0.5 });
        assert_eq!(bins[7], Bin { answers: 2, expected: 0.9, measured: 0.8 });
        assert_eq!(confusion(&rows).unwrap()[0], [0, 16, 0]);
    }
}

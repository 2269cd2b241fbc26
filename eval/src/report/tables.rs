//! The tables behind a report, as CSV.

use serde::Serialize;

use super::Findings;
use super::quality::Verdict;
use super::router::{LEVELS, chosen, confusion, reliability};
use crate::rows::to_csv;
use crate::statistics::Interval;

/// A line of plans.csv, and of groups.csv, where it is of some prompts.
#[derive(Default, Serialize)]
struct Line<'a> {
    plan: &'a str,
    by: &'a str,
    group: &'a str,
    prompts: usize,
    times_as_fast: f64,
    times_as_fast_low: f64,
    times_as_fast_high: f64,
    share_of_time: f64,
    share_of_time_low: f64,
    share_of_time_high: f64,
    /// The part that times are of: after the prompt, or whole answers.
    times_of: &'static str,
    right: Option<f64>,
    right_low: Option<f64>,
    right_high: Option<f64>,
    latency_ms: Option<f64>,
    share_of_latency: Option<f64>,
    joules_per_token: Option<f64>,
    net_joules_per_token: Option<f64>,
    share_of_energy: Option<f64>,
    share_of_energy_low: Option<f64>,
    share_of_energy_high: Option<f64>,
    energy_source: String,
    energy_prompts: Option<usize>,
    same_tokens: Option<f64>,
    prompts_with_other_tokens_by_repeat: Option<usize>,
    prompts_checked: Option<u64>,
    right_difference: Option<f64>,
    right_difference_low: Option<f64>,
    right_difference_high: Option<f64>,
    p_other_accuracy: Option<f64>,
    /// `same`, `yes` or `not shown`.
    not_worse_within_margin: Option<&'static str>,
    tokens_per_step: Option<f64>,
    acceptance: Option<f64>,
    share_of_layers: Option<f64>,
}

#[derive(Serialize)]
struct Position<'a> {
    plan: &'a str,
    position: usize,
    reached: u64,
    accepted: u64,
}

#[derive(Serialize)]
struct Step {
    rows: usize,
    milliseconds: f64,
    plain_steps: Option<f64>,
}

#[derive(Serialize)]
struct RouterLine {
    what: &'static str,
    of: String,
    value: f64,
    low: Option<f64>,
    high: Option<f64>,
}

/// All tables by their names.
pub(super) fn all(findings: &Findings) -> Result<Vec<(&'static str, Vec<u8>)>, anyhow::Error> {
    let mut plans = Vec::new();
    let mut groups = Vec::new();
    let mut positions = Vec::new();
    for plan in &findings.plans {
        let line = |by, group, prompts, speed: &Interval, time: &Interval, right: Option<Interval>| Line {
            plan: &plan.name,
            by,
            group,
            prompts,
            times_as_fast: speed.estimate,
            times_as_fast_low: speed.low,
            times_as_fast_high: speed.high,
            share_of_time: time.estimate,
            share_of_time_low: time.low,
            share_of_time_high: time.high,
            times_of: if plan.is_whole { "whole answers" } else { "decoding" },
            right: right.map(|right| right.estimate),
            right_low: right.map(|right| right.low),
            right_high: right.map(|right| right.high),
            ..Line::default()
        };
        let (energy, quality) = (&plan.energy, &plan.quality);
        let (share, difference) = (energy.share.ok(), quality.difference());
        plans.push(Line {
            latency_ms: Some(plan.latency_ms.estimate),
            share_of_latency: Some(plan.latency_ms.estimate / plan.reference_latency_ms),
            joules_per_token: energy.joules,
            net_joules_per_token: energy.net_joules,
            share_of_energy: share.map(|share| share.estimate),
            share_of_energy_low: share.map(|share| share.low),
            share_of_energy_high: share.map(|share| share.high),
            energy_source: energy.meters(),
            energy_prompts: Some(energy.prompts),
            same_tokens: quality.same,
            prompts_with_other_tokens_by_repeat: Some(quality.unsteady),
            prompts_checked: Some(quality.checked),
            right_difference: difference.map(|difference| difference.estimate),
            right_difference_low: difference.map(|difference| difference.low),
            right_difference_high: difference.map(|difference| difference.high),
            p_other_accuracy: quality.tests.map(|tests| tests.p),
            not_worse_within_margin: quality.verdict().map(Verdict::word),
            tokens_per_step: plan.tokens_per_step,
            acceptance: plan.acceptance,
            share_of_layers: plan.layers,
            ..line("all", "all", plan.pairs, &plan.speed, &plan.time, quality.right)
        });
        groups.extend(plan.groups.iter().map(|group| Line {
            share_of_latency: Some(group.latency.estimate),
            share_of_energy: group.energy.map(|energy| energy.estimate),
            share_of_energy_low: group.energy.map(|energy| energy.low),
            share_of_energy_high: group.energy.map(|energy| energy.high),
            ..line(group.by, &group.name, group.prompts, &group.speed, &group.time, group.right)
        }));
        let of = |(place, &(reached, accepted)): (usize, &(u64, u64))| Position {
            plan: &plan.name,
            position: place + 1,
            reached,
            accepted,
        };
        positions.extend(plan.positions.iter().enumerate().map(of));
    }
    let costs = &findings.facts.step_costs_ms;
    let step = |(&rows, &milliseconds): (&usize, &f64)| Step {
        rows,
        milliseconds,
        plain_steps: costs.get(&1).filter(|plain| **plain > 0.0).map(|plain| milliseconds / plain),
    };
    let steps: Vec<Step> = costs.iter().map(step).collect();
    Ok(vec![
        ("plans.csv", to_csv(&plans, true)?),
        ("groups.csv", to_csv(&groups, true)?),
        ("positions.csv", to_csv(&positions, true)?),
        ("steps.csv", to_csv(&steps, true)?),
        ("router.csv", to_csv(&router(findings), true)?),
    ])
}

fn router(findings: &Findings) -> Vec<RouterLine> {
    let mut lines = Vec::new();
    let Some(auto) = findings.auto() else { return lines };
    let rows = findings.rows_of(&auto.name);
    if let Some(regret) = &findings.regret {
        let shares = [("random", &regret.random), (auto.name.as_str(), &regret.chosen), ("oracle", &regret.oracle)];
        lines.extend(shares.map(|(of, share)| RouterLine {
            what: "share of the best static plan's time",
            of: of.to_owned(),
            value: share.estimate,
            low: Some(share.low),
            high: Some(share.high),
        }));
    }
    let plain = |what, of: String, value| RouterLine { what, of, value, low: None, high: None };
    lines.extend(
        chosen(&rows).into_iter().map(|(drafter, count)| plain("answers drafted mostly by", drafter, count as f64)),
    );
    for (said, judged) in confusion(&rows).into_iter().flatten().zip(LEVELS).map(|(judged, said)| (said, judged)) {
        lines.extend(judged.iter().zip(LEVELS).map(|(count, level)| {
            plain("prompts of a level judged to be of another", format!("{said} as {level}"), *count as f64)
        }));
    }
    for bin in reliability(&rows) {
        lines.push(plain("measured acceptance where this was expected", format!("{:.4}", bin.expected), bin.measured));
    }
    lines
}

//! Traces as a table: replays at measured costs, and what lossy plans lose.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use paceline::drafters::DrafterChoice;
use paceline::files::write_file;
use paceline::speculation::calibration::Calibration;
use paceline::speculation::costs::MAX_ROWS;
use paceline::speculation::drafter_stats::{PRIOR, PRIOR_TOKENS, Prices};
use paceline_router::{CostTable, TraceRow};

use super::replay::{Drafts, Replayed, Rule};
use super::store::Trace;

/// Name of the drafter that needs no model.
pub const LOOKUP: &str = "lookup";
/// The probabilities from which an exit's tokens would come out unverified.
pub const THRESHOLDS: [f64; 5] = [0.7, 0.8, 0.9, 0.95, 0.99];
/// Number of times a drafter's own seconds a token are put into the rule by which it stops.
const ROUNDS: usize = 3;

/// Replays of every drafter on every prompt: `replays[drafter][trace]`, and the seconds a token, reading included.
pub struct Replays {
    /// The drafters: lookup, then the sources.
    pub drafters: Vec<String>,
    /// Results of the replays.
    pub replays: Vec<Vec<Replayed>>,
    /// Seconds a token, reading the prompt included.
    pub seconds: Vec<Vec<f64>>,
    /// Seconds a token of plain decoding.
    pub plain: f64,
}

/// Replays all drafters on all traces at some costs.
pub fn replay_all(traces: &[Trace], sources: &[String], costs: &CostTable) -> Replays {
    let drafters: Vec<String> = std::iter::once(LOOKUP.to_owned()).chain(sources.iter().cloned()).collect();
    let (mut replays, mut seconds) = (Vec::new(), Vec::new());
    let mut steps = [0.0; MAX_ROWS];
    steps.iter_mut().zip(&costs.steps).for_each(|(to, from)| *to = *from);
    for (index, drafter) in drafters.iter().enumerate() {
        let cost = costs.drafters.get(drafter).copied().unwrap_or_default();
        let drafts: Vec<&dyn Drafts> = traces
            .iter()
            .map(|trace| match index {
                0 => &trace.lookups as &dyn Drafts,
                _ => &trace.forced.columns[index - 1],
            })
            .collect();
        let (mut calibration, mut right, mut asked) = (Calibration::default(), 0.0, 0.0);
        for (trace, drafts) in traces.iter().zip(&drafts) {
            for place in 0..trace.places() {
                if let Some((matches, odds)) = drafts.token(place, 0) {
                    calibration.observe(odds, matches);
                    (right, asked) = (right + f64::from(u8::from(matches)), asked + 1.0);
                }
            }
        }
        let prices = Prices { steps, share: cost.share, token: cost.token };
        let mut token_seconds = steps[0];
        let mut last: Vec<Replayed> = Vec::new();
        for _ in 0..ROUNDS {
            let rule = Rule {
                calibration: &calibration,
                acceptance: (right + PRIOR_TOKENS * PRIOR) / (asked + PRIOR_TOKENS),
                prices,
                token_seconds,
            };
            last = traces.iter().zip(&drafts).map(|(trace, drafts)| rule.replay(*drafts, trace.places())).collect();
            let (spent, tokens): (f64, usize) = last
                .iter()
                .zip(traces)
                .fold((0.0, 0), |sum, (replayed, trace)| (sum.0 + replayed.seconds, sum.1 + trace.places()));
            token_seconds = (spent / tokens.max(1) as f64).min(steps[0]);
        }
        let reading = |trace: &Trace| cost.reading * trace.asked.tokens as f64;
        let of = |(replayed, trace): (&Replayed, &Trace)| (replayed.seconds + reading(trace)) / trace.places() as f64;
        seconds.push(last.iter().zip(traces).map(of).collect());
        replays.push(last);
    }
    Replays { drafters, replays, seconds, plain: steps[0] }
}

/// A row for every prompt and plan.
pub fn rows(traces: &[Trace], sources: &[String], costs: &CostTable, work: &[Option<f64>]) -> Vec<TraceRow> {
    let all = replay_all(traces, sources, costs);
    let mut rows = Vec::new();
    for (place, trace) in traces.iter().enumerate() {
        let asked = &trace.asked;
        let common = TraceRow {
            id: asked.id.clone(),
            split: if asked.held_out { "validation" } else { "train" }.to_owned(),
            category: asked.category.clone(),
            level: asked.level.clone(),
            temperature: asked.temperature,
            prompt_tokens: asked.tokens,
            answer_tokens: trace.places(),
            entropy: mean(trace.forced.entropy.iter().map(|value| f64::from(*value))),
            plain_microseconds_per_token: 1e6 * all.plain,
            ..TraceRow::default()
        };
        for (index, drafter) in all.drafters.iter().enumerate() {
            let replayed = &all.replays[index][place];
            let (evaluated, accepted) = match index {
                0 => {
                    let found =
                        trace.lookups.agreed.iter().zip(&trace.lookups.right).filter(|(agreed, _)| **agreed > 0);
                    found.fold((0, 0), |sum, (_, right)| (sum.0 + 1, sum.1 + usize::from(*right > 0)))
                }
                _ => {
                    let matches = &trace.forced.columns[index - 1].matches;
                    (matches.len(), matches.iter().filter(|matches| **matches).count())
                }
            };
            let reached = replayed.accepted.iter().take_while(|count| **count > 0);
            rows.push(TraceRow {
                plan: drafter.clone(),
                evaluated,
                accepted,
                rounds: replayed.rounds,
                drafted: replayed.drafted,
                verified: replayed.verified,
                accepted_by_position: reached.map(ToString::to_string).collect::<Vec<_>>().join(" "),
                microseconds_per_token: 1e6 * all.seconds[index][place],
                ..common.clone()
            });
        }
        for lossy in lossy(trace, sources, work) {
            rows.push(TraceRow {
                plan: lossy.plan,
                exact_match: Some(lossy.exact),
                divergence: Some(lossy.distance),
                perplexity_delta: Some(lossy.perplexity),
                work: Some(lossy.work),
                ..common.clone()
            });
        }
    }
    rows
}

/// Effects of a lossy plan on an answer.
pub struct LossyTrace {
    /// The plan.
    pub plan: String,
    /// True if the answer is the target's.
    pub exact: bool,
    /// The mean distance of the distributions that its tokens come from.
    pub distance: f64,
    /// By what share its perplexity of the target's answer is above the target's own.
    pub perplexity: f64,
    /// The share of the target's work that is done.
    pub work: f64,
}

/// The lossy plans that a trace says something of: exits without verification, and the target rounded or shortened. They are
/// taken along the target's answer, which is theirs until they first differ.
pub fn lossy(trace: &Trace, sources: &[String], work: &[Option<f64>]) -> Vec<LossyTrace> {
    let mut all = Vec::new();
    for ((column, source), work) in trace.forced.columns.iter().zip(sources).zip(work) {
        let Some(work) = *work else { continue };
        let sum = |values: &[f32], counts: &dyn Fn(f32) -> bool| {
            mean(
                values
                    .iter()
                    .zip(&column.confidence)
                    .map(|(value, sure)| if counts(*sure) { f64::from(*value) } else { 0.0 }),
            )
        };
        let perplexity = |counts: &dyn Fn(f32) -> bool| sum(&column.surprise, counts).exp_m1();
        if let Ok(DrafterChoice::Exit(depth)) = source.parse() {
            for threshold in THRESHOLDS {
                let unverified = |confidence: f32| f64::from(confidence) >= threshold;
                all.push(LossyTrace {
                    plan: format!("unverified:{depth}@{threshold}"),
                    exact: column
                        .matches
                        .iter()
                        .zip(&column.confidence)
                        .all(|(matches, sure)| *matches || !unverified(*sure)),
                    distance: sum(&column.distance, &unverified),
                    perplexity: perplexity(&unverified),
                    work: mean(column.confidence.iter().map(|sure| if unverified(*sure) { work } else { 1.0 })),
                });
            }
        } else {
            all.push(LossyTrace {
                plan: match source.parse() {
                    Ok(DrafterChoice::SelfQuantized(format)) => format!("target:{format}"),
                    Ok(DrafterChoice::Skip(plan)) => format!("target-without:{plan}"),
                    _ => source.clone(),
                },
                exact: column.matches.iter().all(|matches| *matches),
                distance: sum(&column.distance, &|_| true),
                perplexity: perplexity(&|_| true),
                work,
            });
        }
    }
    all
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// Writes the table.
pub fn save(path: &Path, rows: &[TraceRow]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row))?;
    Ok(write_file(path, &writer.into_inner()?)?)
}

/// The plans, with means over the held-out prompts.
pub fn summary(rows: &[TraceRow]) -> String {
    let mut by_plan: BTreeMap<&str, Vec<&TraceRow>> = BTreeMap::new();
    let any_held_out = rows.iter().any(|row| row.split == "validation");
    for row in rows.iter().filter(|row| !any_held_out || row.split == "validation") {
        by_plan.entry(&row.plan).or_default().push(row);
    }
    let mut text = format!(
        "{:<24} {:>10} {:>14} {:>12} {:>12} {:>10}\n",
        "plan", "agreement", "times as fast", "same answer", "distance", "work"
    );
    for (plan, rows) in by_plan {
        let over = |get: &dyn Fn(&TraceRow) -> f64| mean(rows.iter().map(|row| get(row)));
        let share = over(&|row| row.accepted as f64) / over(&|row| row.evaluated as f64);
        // Writing into a string cannot fail.
        let _ = match rows[0].exact_match {
            None => {
                let speed = over(&|row| row.plain_microseconds_per_token / row.microseconds_per_token);
                writeln!(text, "{plan:<24} {:>9.1}% {speed:>14.2}", 100.0 * share)
            }
            Some(_) => {
                let exact = over(&|row| f64::from(u8::from(row.exact_match == Some(true))));
                let distance = over(&|row| row.divergence.unwrap_or(0.0));
                let work = over(&|row| row.work.unwrap_or(1.0));
                writeln!(
                    text,
                    "{plan:<24} {:>10} {:>14} {:>11.1}% {distance:>12.4} {:>9.1}%",
                    "",
                    "",
                    100.0 * exact,
                    100.0 * work
                )
            }
        };
    }
    text
}

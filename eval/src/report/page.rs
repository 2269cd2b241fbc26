//! The page: one HTML file that needs nothing else.

use std::fmt::Write as _;

use super::pictures::{Axis, Series, intervals, lines, pareto};
use super::plans::{MARGIN, PlanResult};
use super::router::{LEVELS, chosen, confusion, reliability};
use super::{Findings, targets};
use crate::statistics::Interval;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(findings: &Findings) -> String {
    let mut body = format!("<h1>{}</h1>\n", escape(&findings.title));
    for sentence in summary(findings) {
        let _ = writeln!(body, "<p class=\"lead\">{}</p>", escape(&sentence));
    }
    if !findings.warnings.is_empty() {
        let all: String = findings.warnings.iter().map(|warning| format!("<li>{}</li>", marked(warning))).collect();
        let _ = writeln!(
            body,
            "<div class=\"warnings\" role=\"note\"><strong>What is doubtful</strong><ul>{all}</ul></div>"
        );
    }
    body += &speeds(findings);
    body += &trade(findings);
    body += &groups(findings);
    body += &drafting(findings);
    body += &routing(findings);
    body += &targets::section(findings);
    body += &measuring(findings);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        escape(&findings.title)
    )
}

/// What a reader in a hurry takes along, in three sentences: speed, energy, quality.
pub fn summary(findings: &Findings) -> Vec<String> {
    let reference = &findings.facts.reference;
    let best = |lossy: bool| {
        let own = findings
            .plans
            .iter()
            .skip(1)
            .filter(|plan| findings.is_own(&plan.name) && findings.is_lossy(&plan.name) == lossy);
        own.max_by(|a, b| a.speed.estimate.total_cmp(&b.speed.estimate))
    };
    let exact = findings.auto().or_else(|| best(false));
    let speed = match exact {
        Some(plan) => format!(
            "With the same tokens, {} makes a token {} times as fast as {reference} ({:.2} to {:.2}, 95% interval over {} prompts); a whole answer takes {:.1} ms instead of {:.1}.",
            plan.name,
            two(plan.speed.estimate),
            plan.speed.low,
            plan.speed.high,
            plan.prompts.len(),
            plan.latency_ms.estimate,
            findings.plans[0].latency_ms.estimate
        ),
        None => {
            format!("Only {reference} was measured: an answer takes {:.1} ms.", findings.plans[0].latency_ms.estimate)
        }
    };
    let energy = match exact.and_then(|plan| Some((plan, plan.energy?))) {
        Some((plan, share)) => format!(
            "Its energy for a token is {:.0}% of {reference}'s ({:.0}% to {:.0}%; {}).",
            100.0 * share.estimate,
            100.0 * share.low,
            100.0 * share.high,
            plan.energy_sources.iter().cloned().collect::<Vec<_>>().join(", ")
        ),
        None => "Energy is unavailable: no meter could be read on this machine.".to_owned(),
    };
    let quality = match (best(true), findings.plans[0].right) {
        (Some(lossy), Some(base)) => format!(
            "Where other answers are allowed, {} is {} times as fast and answers {:.1}% rightly, against {:.1}%{}.",
            lossy.name,
            two(lossy.speed.estimate),
            100.0 * lossy.right.map_or(0.0, |right| right.estimate),
            100.0 * base.estimate,
            match lossy.not_worse.as_ref().is_some_and(|not_worse| not_worse.holds) {
                true => format!(", which is not more than {:.0} point worse beyond doubt", 100.0 * MARGIN),
                false => format!("; that it is not more than {:.0} point worse is not shown", 100.0 * MARGIN),
            }
        ),
        (_, Some(base)) => format!(
            "All plans answer {:.1}% of {} prompts rightly, as their tokens are the same.",
            100.0 * base.estimate,
            findings.plans[0].checked
        ),
        _ => "How many answers are right is unknown, as the prompts have no answers.".to_owned(),
    };
    vec![speed, energy, quality]
}

fn speeds(findings: &Findings) -> String {
    let named: Vec<(String, Interval)> =
        findings.plans.iter().skip(1).map(|plan| (plan.name.clone(), plan.speed)).collect();
    let reference = &findings.facts.reference;
    let mut html = "<h2>Speed, energy and quality of every plan</h2>\n".to_owned();
    let axis = Axis { name: "times as fast per token", decimals: 1 };
    html += &intervals(
        &format!("Times as fast as {reference}, per token after the prompt was read; 95% intervals over prompts"),
        axis,
        &named,
        1.0,
    );
    let heads = [
        "plan",
        "times as fast",
        "share of time",
        "answer, ms",
        "J per token",
        "share of energy",
        "right",
        "same tokens",
        "not worse",
        "p",
        "tokens per step",
        "layers run",
    ];
    let rows = findings.plans.iter().map(|plan| {
        vec![
            escape(&plan.name),
            shown(&plan.speed, 2),
            shown(&plan.time, 3),
            format!("{:.1}", plan.latency_ms.estimate),
            plan.joules.map_or_else(dash, |joules| format!("{joules:.4}")),
            plan.energy.as_ref().map_or_else(dash, |energy| shown(energy, 3)),
            plan.right.as_ref().map_or_else(dash, percent),
            plan.same.map_or_else(dash, |same| format!("{:.1}%", 100.0 * same)),
            match &plan.not_worse {
                _ if plan.same == Some(1.0) => "the same".to_owned(),
                Some(not_worse) if not_worse.holds => "yes".to_owned(),
                Some(_) => "not shown".to_owned(),
                None => dash(),
            },
            plan.p.filter(|_| plan.name != *reference).map_or_else(dash, |p| format!("{p:.3}")),
            if plan.tokens_per_step > 0.0 { format!("{:.2}", plan.tokens_per_step) } else { dash() },
            plan.layers.map_or_else(dash, |layers| format!("{:.0}%", 100.0 * layers)),
        ]
    });
    html += &table(&heads, rows);
    let _ = writeln!(
        html,
        "<p class=\"soft\">\"Times as fast\" is the mean over prompts of how much faster a token is made; \"share of time\" is all decode time beside the \
         reference's. \"Not worse\": at most {:.0} point fewer right answers, one-sided at 2.5% (Tango's score test); where all tokens are the same there is nothing to test. p: whether as many answers are right (McNemar's exact test, \
         corrected after Holm). \"Layers run\" counts layers a token of the target, prompts included: exact drafting adds some, and only lossy plans save them.</p>",
        100.0 * MARGIN
    );
    html
}

fn trade(findings: &Findings) -> String {
    let point = |plan: &PlanResult, x: Option<f64>| Some((plan.name.clone(), x?, 100.0 * plan.right?.estimate));
    let quality = Axis { name: "right answers, %", decimals: 1 };
    let time: Vec<_> = findings.plans.iter().filter_map(|plan| point(plan, Some(plan.latency_ms.estimate))).collect();
    let energy: Vec<_> = findings.plans.iter().filter_map(|plan| point(plan, plan.joules)).collect();
    if time.is_empty() {
        return String::new();
    }
    let mut html = "<h2>What quality costs</h2>\n<div class=\"pair\">".to_owned();
    html += &pareto(
        "Quality against latency: the grey line joins plans that no other beats in both",
        Axis { name: "a whole answer, ms", decimals: 0 },
        quality,
        &time,
    );
    if !energy.is_empty() {
        html += &pareto("Quality against energy", Axis { name: "joules per token", decimals: 3 }, quality, &energy);
    }
    html + "</div>\n"
}

fn groups(findings: &Findings) -> String {
    let Some(first) = findings.plans.first().filter(|plan| !plan.groups.is_empty()) else { return String::new() };
    let mut html =
        "<h2>By level and category</h2>\n<p>Times as fast as the reference, 95% intervals; right answers below.</p>\n"
            .to_owned();
    let mut heads = vec!["plan".to_owned()];
    heads.extend(first.groups.iter().map(|group| format!("{} ({})", escape(&group.name), group.prompts)));
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let rows = findings.plans.iter().map(|plan| {
        let cell = |name: &String| {
            let group = plan.groups.iter().find(|group| group.name == *name);
            group.map_or_else(dash, |group| {
                let right = group.right.as_ref().map_or_else(String::new, |right| {
                    format!("<br><small>{:.0}% right</small>", 100.0 * right.estimate)
                });
                format!(
                    "{:.2}<br><small>{:.2} to {:.2}</small>{right}",
                    group.speed.estimate, group.speed.low, group.speed.high
                )
            })
        };
        std::iter::once(escape(&plan.name)).chain(first.groups.iter().map(|group| cell(&group.name))).collect()
    });
    html += &table(&heads, rows);
    html
}

fn drafting(findings: &Findings) -> String {
    let mut html = "<h2>Drafting</h2>\n<div class=\"pair\">".to_owned();
    let share = |plan: &&PlanResult| {
        // Few drafts are that long: what is left of them is noise.
        let enough = plan.positions.iter().enumerate().filter(|(_, (reached, _))| *reached >= 50);
        let points: Vec<(f64, f64)> = enough
            .map(|(place, &(reached, kept))| (place as f64 + 1.0, 100.0 * kept as f64 / reached as f64))
            .collect();
        (points.len() > 1).then(|| Series { name: plan.name.clone(), points })
    };
    let own = || findings.plans.iter().filter(|plan| findings.is_own(&plan.name));
    let exact = own().filter(|plan| !findings.is_lossy(&plan.name));
    let series: Vec<Series> = exact.filter_map(|plan| share(&plan)).collect();
    if !series.is_empty() {
        let (x, y) = (
            Axis { name: "position in the draft", decimals: 0 },
            Axis { name: "kept, % of those reached", decimals: 0 },
        );
        html += &lines(
            "Acceptance by position: drafted tokens that were kept, of those whose predecessors were",
            x,
            y,
            &series,
            true,
        );
    }
    let mut depths: Vec<(f64, f64)> = Vec::new();
    for plan in own().filter(|plan| !findings.is_lossy(&plan.name)) {
        let rows = findings.rows_of(&plan.name);
        let depth = rows.iter().find_map(|row| row.exit_depth);
        let all_alike = rows.iter().all(|row| {
            row.exit_depth.is_none_or(|own| Some(own) == depth) && (row.exit_depth.is_some() || row.drafter == "none")
        });
        if let (Some(depth), Some(acceptance), true) = (depth, plan.acceptance, all_alike) {
            depths.push((depth as f64, 100.0 * acceptance));
        }
    }
    depths.sort_by(|a, b| a.0.total_cmp(&b.0));
    depths.dedup_by(|a, b| a.0 == b.0);
    if depths.len() > 1 {
        let (x, y) = (Axis { name: "layers before the exit", decimals: 0 }, Axis { name: "agreement, %", decimals: 0 });
        let title = format!("Exits: how often their pick is the target's (of {} layers)", findings.facts.layers);
        html += &lines(&title, x, y, &[Series { name: "exits".into(), points: depths }], false);
    }
    let costs = &findings.facts.step_costs_ms;
    if let Some(plain) = costs.get(&1).filter(|plain| **plain > 0.0 && costs.len() > 2) {
        let points = costs.iter().map(|(&rows, cost)| (rows as f64, cost / plain)).collect();
        let (x, y) = (Axis { name: "rows of a step", decimals: 0 }, Axis { name: "plain steps", decimals: 1 });
        html += &lines(
            &format!("v(k): what a step over k rows takes, in plain steps of {plain:.3} ms"),
            x,
            y,
            &[Series { name: "v".into(), points }],
            true,
        );
    }
    html += "</div>\n";
    if !findings.facts.draft_costs_ms.is_empty() {
        let rows = findings.facts.draft_costs_ms.iter().map(|(name, cost)| vec![escape(name), format!("{cost:.4}")]);
        html += &table(&["drafter", "a drafted token, ms"], rows);
    }
    html
}

fn routing(findings: &Findings) -> String {
    let Some(auto) = findings.auto() else { return String::new() };
    let rows = findings.rows_of(&auto.name);
    let mut html = "<h2>The router</h2>\n".to_owned();
    if let Some(regret) = &findings.regret {
        let share = |name: &str, share: &Interval| (name.to_owned(), *share);
        let named =
            [share("random", &regret.random), share(&regret.auto, &regret.chosen), share("oracle", &regret.oracle)];
        let best = if regret.best[0] == regret.best[1] { regret.best[0].clone() } else { regret.best.join(" and ") };
        let axis = Axis { name: "share of the best static plan's time", decimals: 2 };
        html += &intervals(
            &format!(
                "Decode time beside the best static plan, {best}: random choice, the router, the best choice for every prompt"
            ),
            axis,
            &named,
            1.0,
        );
        let gap = 1.0 - regret.oracle.estimate;
        let closed = (1.0 - regret.chosen.estimate) / gap;
        let _ = writeln!(
            html,
            "<p>Between the best static plan ({}) and the oracle there are {:.1}% of time; the router is {} by {:.1}% ({:.3} to {:.3} of its time){}.</p>",
            escape(&best),
            100.0 * gap,
            if regret.chosen.estimate <= 1.0 { "ahead of the static plan" } else { "behind the static plan" },
            100.0 * (1.0 - regret.chosen.estimate).abs(),
            regret.chosen.low,
            regret.chosen.high,
            if gap > 0.0 && closed > 0.0 {
                format!(" and closes {:.0}% of the gap", 100.0 * closed)
            } else {
                String::new()
            }
        );
        let _ = writeln!(
            html,
            "<p class=\"soft\">The static plan is one of {}, chosen on every other prompt and scored on the others; the oracle's is chosen on every other repeat and scored on the others.</p>",
            escape(&regret.statics.join(", "))
        );
    }
    html += &table(
        &["mostly drafted by", "answers"],
        chosen(&rows).into_iter().map(|(drafter, count)| vec![escape(&drafter), count.to_string()]),
    );
    if let Some(counts) = confusion(&rows) {
        html += "<p>Difficulty: rows as the prompts are labelled, columns as judged.</p>\n";
        let heads: Vec<&str> = std::iter::once("labelled").chain(LEVELS).collect();
        html += &table(
            &heads,
            counts.iter().zip(LEVELS).map(|(judged, level)| {
                std::iter::once(level.to_owned()).chain(judged.iter().map(usize::to_string)).collect()
            }),
        );
    }
    let bins = reliability(&rows);
    if bins.len() > 1 {
        let points = bins.iter().map(|bin| (100.0 * bin.expected, 100.0 * bin.measured)).collect();
        let ends = bins.iter().map(|bin| 100.0 * bin.expected);
        let (low, high) = ends.fold((100.0_f64, 0.0_f64), |(low, high), end| (low.min(end), high.max(end)));
        let series = [
            Series { name: "answers in bins".into(), points },
            Series { name: "as expected".into(), points: vec![(low, low), (high, high)] },
        ];
        let (x, y) = (
            Axis { name: "expected effective acceptance, %", decimals: 0 },
            Axis { name: "tokens kept, % of those looked at", decimals: 0 },
        );
        html += &lines(
            "Reliability: what the router expected of the drafter that drafted, and what was kept. The effective acceptance counts what stopping in time gains, so it lies above",
            x,
            y,
            &series,
            false,
        );
    }
    html
}

fn measuring(findings: &Findings) -> String {
    let facts = &findings.facts;
    let mut html = "<h2>How this was measured</h2>\n<ul>".to_owned();
    let mut item = |what: &str, text: &str| {
        let _ = write!(html, "<li>{what}: {}</li>", escape(text));
    };
    item("Machine", &format!("{}; {} threads", facts.machine, facts.threads));
    item("Paceline", &facts.version);
    item(
        "Target",
        &format!(
            "{} ({}), {}, {} layers, {:.1} MB of weights",
            facts.target,
            facts.target_hash,
            facts.precision,
            facts.layers,
            facts.weight_bytes as f64 / 1e6
        ),
    );
    for (name, hash) in &facts.drafts {
        item("Draft", &format!("{name} ({hash})"));
    }
    item(
        "Suite",
        &format!(
            "{} ({:016x}): {} prompts, {} repeats, {} plans",
            facts.suite,
            facts.suite_digest,
            facts.prompts,
            facts.repeats,
            facts.plans.len()
        ),
    );
    for part in &findings.parts {
        item("Command", &part.command);
    }
    html += "</ul>\n<p>Plans answered a prompt one after the other, in another order each time; a prompt's value is the median over repeats, and \
             intervals are 95% by paired bootstrap over prompts. Times per token leave out the reading of the prompt; latencies do not.</p>\n";
    let settings = facts.plans.iter().map(|plan| {
        vec![
            escape(&plan.name),
            format!("{}{}", escape(&plan.described), if plan.lossy { " (may change tokens)" } else { "" }),
        ]
    });
    html += &table(&["plan", "settings"], settings);
    let mut others: Vec<(&str, &str)> = findings
        .rows
        .iter()
        .filter(|row| !findings.is_own(&row.plan))
        .map(|row| (row.plan.as_str(), row.command.as_str()))
        .collect();
    others.sort_unstable();
    others.dedup();
    if !others.is_empty() {
        html += "<p>Other programs, imported:</p>\n";
        html +=
            &table(&["plan", "command"], others.into_iter().map(|(plan, command)| vec![escape(plan), escape(command)]));
    }
    html
}

/// A table that scrolls where the page is narrow. Cells are HTML.
pub(super) fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    let cell = |cell: String| {
        if cell.len() > 60 { format!("<td class=\"text\">{cell}</td>") } else { format!("<td>{cell}</td>") }
    };
    let rows: String =
        rows.map(|cells| format!("<tr>{}</tr>\n", cells.into_iter().map(cell).collect::<String>())).collect();
    format!("<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>\n")
}

fn shown(interval: &Interval, decimals: usize) -> String {
    format!(
        "{:.decimals$} <small>{:.decimals$} to {:.decimals$}</small>",
        interval.estimate, interval.low, interval.high
    )
}

fn percent(interval: &Interval) -> String {
    format!(
        "{:.1}% <small>{:.1} to {:.1}</small>",
        100.0 * interval.estimate,
        100.0 * interval.low,
        100.0 * interval.high
    )
}

fn two(value: f64) -> String {
    format!("{value:.2}")
}

/// What is unknown.
pub(super) fn dash() -> String {
    "-".to_owned()
}

/// Text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A sentence for HTML, in which names stand between backticks.
fn marked(text: &str) -> String {
    let parts = escape(text);
    let parts: Vec<&str> = parts.split('`').collect();
    let last = parts.len() - 1;
    // An open end is no name.
    parts
        .iter()
        .enumerate()
        .map(|(place, part)| match place % 2 == 1 && place < last {
            true => format!("<code>{part}</code>"),
            false => (*part).to_owned(),
        })
        .collect()
}

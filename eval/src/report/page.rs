//! The page: one HTML file that needs nothing else.

use std::fmt::Write as _;

use super::pictures::{Axis, Series, intervals, lines, pareto};
use super::plans::{Group, PlanResult};
use super::quality::MARGIN;
use super::router::{LEVELS, chosen, confusion, reliability};
use super::{Findings, measured, summary, targets};
use crate::statistics::Interval;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(findings: &Findings) -> String {
    let mut body = format!("<h1>{}</h1>\n", escape(&findings.title));
    for sentence in summary::summary(findings) {
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
    body += &quality(findings);
    body += &trade(findings);
    body += &groups(findings);
    body += &drafting(findings);
    body += &routing(findings);
    body += &targets::section(findings);
    body += &measured::section(findings);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        escape(&findings.title)
    )
}

fn speeds(findings: &Findings) -> String {
    let marked = |plan: &PlanResult| if plan.is_whole { " (whole answers)" } else { "" };
    let others = findings.plans.iter().skip(1);
    let named: Vec<(String, Interval)> =
        others.map(|plan| (format!("{}{}", plan.name, marked(plan)), plan.speed)).collect();
    let reference = &findings.facts.reference;
    let mut html = "<h2>Speed and energy of every plan</h2>\n".to_owned();
    let axis = Axis { name: "times as fast per token", decimals: 1 };
    html += &intervals(
        &format!("Times as fast as {reference}, per token after the prompt was read; 95% intervals over prompts"),
        axis,
        &named,
        1.0,
    );
    let heads = [
        "plan",
        "prompts",
        "times as fast",
        "share of time",
        "answer, ms",
        "J per token",
        "net",
        "share of energy",
        "tokens per step",
        "target layers run",
    ];
    let rows = findings.plans.iter().map(|plan| {
        let energy = &plan.energy;
        vec![
            escape(&plan.name),
            plan.pairs.to_string(),
            format!("{}{}", shown(&plan.speed, 2), if plan.is_whole { "<br><small>whole answers</small>" } else { "" }),
            shown(&plan.time, 3),
            format!("{:.1}", plan.latency_ms.estimate),
            energy.joules.map_or_else(dash, |joules| format!("{joules:.4}")),
            energy.net_joules.map_or_else(dash, |joules| format!("{joules:.4}")),
            energy.share.as_ref().map_or_else(
                |_| dash(),
                |share| match energy.prompts == plan.pairs {
                    true => shown(share, 3),
                    false => format!("{}<br><small>of {} prompts</small>", shown(share, 3), energy.prompts),
                },
            ),
            plan.tokens_per_step.map_or_else(dash, |tokens| format!("{tokens:.2}")),
            plan.layers.map_or_else(dash, |layers| format!("{:.0}%", 100.0 * layers)),
        ]
    });
    html += &table(&heads, rows);
    let _ = writeln!(
        html,
        "<p class=\"soft\">\"Prompts\" are those that {} answered too. \"Times as fast\" is the mean over prompts of how much faster a token is made; \"share of time\" is all decode time beside the \
         reference's. Both are of the time after the prompt was read; where \"whole answers\" stands, one side does not tell that, and whole answers are compared with whole answers of {}. \"J per token\" is the mean over prompts of all repeats' energy over all their tokens, \
         \"share of energy\" the sum over prompts beside the reference's, by the same meter. Intervals are 95% by bootstrap over prompts. \
         \"Target layers run\" counts layers of the target a token, prompts included, and not those of draft models: exact drafting adds some, and only lossy plans save them.</p>",
        escape(reference),
        escape(reference)
    );
    html
}

fn quality(findings: &Findings) -> String {
    let heads =
        ["plan", "prompts checked", "right", "more right than the reference, points", "not worse", "p", "same tokens"];
    let rows = findings.plans.iter().map(|plan| {
        let quality = &plan.quality;
        vec![
            escape(&plan.name),
            quality.checked.to_string(),
            quality.right.as_ref().map_or_else(dash, percent),
            quality.difference().as_ref().map_or_else(dash, |difference| {
                let [estimate, low, high] = points(difference);
                format!("{estimate} <small>{low} to {high}</small>")
            }),
            quality.verdict().map_or_else(dash, |verdict| verdict.word().to_owned()),
            quality.tests.as_ref().map_or_else(dash, |tests| p_value(tests.p)),
            quality.same.map_or_else(dash, |same| format!("{:.1}%", 100.0 * same)),
        ]
    });
    let tested = findings.tested();
    format!(
        "<h2>Quality of every plan</h2>\n{}<p class=\"soft\">An answer is right if it is in all repeats. Intervals are of 95%: of the share of right answers Wilson's, of the difference Tango's. \
         \"Not worse\": at most {:.0} point fewer right answers by Tango's score test, one-sided at 2.5%{}; where all tokens are the same there is nothing to test. p: whether as many answers are right (McNemar's exact test, \
         corrected after Holm). Plans that promise the reference's tokens, and gave them, are no tests. \"Same tokens\": answers with the tokens of the reference in the same repeat.</p>\n",
        table(&heads, rows),
        100.0 * MARGIN,
        if tested > 1 { format!(" over the number of plans tested, {tested} (Bonferroni)") } else { String::new() }
    )
}

fn trade(findings: &Findings) -> String {
    let point = |plan: &PlanResult, x: Option<f64>| Some((plan.name.clone(), x?, 100.0 * plan.quality.right?.estimate));
    let quality = Axis { name: "right answers, %", decimals: 1 };
    // Shares of right answers to other prompts are no places in one picture.
    let all = findings.plans.first().map_or(0, |plan| plan.prompts.len());
    let (shown, others): (Vec<_>, Vec<_>) = findings.plans.iter().partition(|plan| plan.prompts.len() == all);
    let time: Vec<_> = shown.iter().filter_map(|plan| point(plan, Some(plan.latency_ms.estimate))).collect();
    let energy: Vec<_> = shown.iter().filter_map(|plan| point(plan, plan.energy.joules)).collect();
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
    html += "</div>\n";
    if !others.is_empty() {
        let named = |plan: &&PlanResult| {
            format!("{} ({} prompts, {:.1} ms)", escape(&plan.name), plan.prompts.len(), plan.latency_ms.estimate)
        };
        let others: Vec<String> = others.iter().map(named).collect();
        let _ = writeln!(html, "<p>Not in the picture, as fewer prompts were answered: {}.</p>", others.join(", "));
    }
    html
}

fn groups(findings: &Findings) -> String {
    let Some(first) = findings.plans.first().filter(|plan| !plan.groups.is_empty()) else { return String::new() };
    let of = |what: &str, cell: &dyn Fn(&Group) -> Option<String>| {
        let known = findings.plans.iter().any(|plan| plan.groups.iter().any(|group| cell(group).is_some()));
        if !known {
            return String::new();
        }
        let mut heads = vec!["plan".to_owned()];
        heads.extend(first.groups.iter().map(|group| format!("{} ({})", escape(&group.name), group.prompts)));
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let rows = findings.plans.iter().map(|plan| {
            let own = |group: &Group| {
                let own = plan.groups.iter().find(|own| (own.by, &own.name) == (group.by, &group.name));
                own.and_then(cell).unwrap_or_else(dash)
            };
            std::iter::once(escape(&plan.name)).chain(first.groups.iter().map(own)).collect()
        });
        format!("<p>{what}</p>\n{}", table(&heads, rows))
    };
    let two = |interval: &Interval| {
        format!("{:.2}<br><small>{:.2} to {:.2}</small>", interval.estimate, interval.low, interval.high)
    };
    let whole = |right: &Interval| {
        let [estimate, low, high] = [right.estimate, right.low, right.high].map(|share| 100.0 * share);
        format!("{estimate:.0}%<br><small>{low:.0} to {high:.0}</small>")
    };
    format!(
        "<h2>By level and category</h2>\n{}{}{}",
        of("Times as fast as the reference, with 95% intervals by bootstrap over prompts.", &|group| Some(two(
            &group.speed
        ))),
        of(
            "Energy of a token as a share of the reference's, with 95% intervals by bootstrap over prompts.",
            &|group| { group.energy.as_ref().map(two) }
        ),
        of("Right answers, with Wilson's 95% intervals.", &|group| group.right.as_ref().map(whole))
    )
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

/// A table that scrolls where the page is narrow. Cells are HTML.
pub(super) fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    // What is seen, without the tags.
    let width = |cell: &str| cell.split('<').map(|part| part.rsplit('>').next().map_or(0, str::len)).sum::<usize>();
    let cell = |cell: String| match width(&cell) > 60 {
        true => format!("<td class=\"text\">{cell}</td>"),
        false => format!("<td>{cell}</td>"),
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

/// A p-value, none of which is 0.
fn p_value(p: f64) -> String {
    if p < 0.0005 { "&lt;0.001".to_owned() } else { format!("{p:.3}") }
}

/// A share and its interval in points, with their signs.
pub(super) fn points(difference: &Interval) -> [String; 3] {
    // Rounded before it is written, and 0 added, so that no zero has a sign of its own.
    [difference.estimate, difference.low, difference.high]
        .map(|share| format!("{:+.1}", (1000.0 * share).round() / 10.0 + 0.0))
}

/// Placeholder for an unknown value.
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
    // An open end is not a name.
    parts
        .iter()
        .enumerate()
        .map(|(place, part)| match place % 2 == 1 && place < last {
            true => format!("<code>{part}</code>"),
            false => (*part).to_owned(),
        })
        .collect()
}

//! Metadata of a run: machine, models, commands, dates, settings.

use std::fmt::Write as _;

use paceline::text::strftime_utc;

use super::Findings;
use super::page::{escape, table};

/// The section.
pub(super) fn section(findings: &Findings) -> String {
    let facts = &findings.facts;
    let mut html = "<h2>How this was measured</h2>\n<ul>".to_owned();
    let mut item = |what: &str, text: &str| {
        let _ = write!(html, "<li>{what}: {}</li>", escape(text));
    };
    let mut machine = format!("{}; {} threads", facts.machine, facts.threads);
    if !facts.instruction_set.is_empty() {
        let _ = write!(machine, "; instruction set {}", facts.instruction_set);
    }
    item("Machine", &machine);
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
    for (what, hash) in [("Trained exits", &facts.exits_hash), ("Router", &facts.router_hash)] {
        if !hash.is_empty() {
            item(what, hash);
        }
    }
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
        if let Some(began) = date(part.began) {
            let ended = date(part.ended).map_or_else(|| ", not over yet".to_owned(), |ended| format!(" to {ended}"));
            item("When", &format!("{began}{ended} (UTC)"));
        }
        let around = [("before", &part.before), ("after", &part.after)];
        let seen = around.iter().filter_map(|(when, seen)| Some(format!("{when}: {}", seen.described()?)));
        let seen: Vec<String> = seen.collect();
        if !seen.is_empty() {
            item("Machine without work", &seen.join("; "));
        }
    }
    html += "</ul>\n<p>Plans answered a prompt one after the other, in another order each time. A prompt's time is the median over repeats, its energy the sum over repeats. \
             Intervals are of 95%: those of times and energy by paired bootstrap over prompts (percentiles), those of shares of right answers Wilson's, those of their differences Tango's. \
             Times per token leave out the reading of the prompt; latencies do not.</p>\n";
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

/// Seconds since 1970 as day and minute of the calendar, in UTC; `None` of 0, which stands for no time.
fn date(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok().filter(|&seconds| seconds > 0)?;
    strftime_utc("%F %H:%M", seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_days_of_the_calendar() {
        for (seconds, known) in [
            (1, "1970-01-01 00:00"),
            (951_782_400, "2000-02-29 00:00"),
            (951_868_799, "2000-02-29 23:59"),
            (951_868_800, "2000-03-01 00:00"),
            (1_735_689_599, "2024-12-31 23:59"),
            (1_795_316_064, "2026-11-22 02:54"),
            (4_107_542_400, "2100-03-01 00:00"),
        ] {
            assert_eq!(date(seconds).as_deref(), Some(known));
        }
        assert_eq!(date(0), None);
    }
}

//! Results of a router, as a page in Markdown.

use std::fmt::Write as _;

use paceline_router::network::LEVELS;
use paceline_router::{CostTable, Group};

use super::examples::Examples;
use super::judge::Judged;

/// The page.
pub(super) fn page(examples: &Examples, judged: &Judged, without: &[(Group, Judged)], costs: &CostTable) -> String {
    let name = |place: Option<usize>| place.map_or("none", |place| &examples.drafters[place]);
    let mut text = format!(
        "Learned from {} prompts, judged on {} that were held out, by replay at the costs of {}. Costs are times of a token in units of plain decoding.\n\n",
        examples.train.len(),
        examples.held_out.len(),
        costs.machine
    );
    // Writing into a string cannot fail.
    let _ = writeln!(text, "| plan | cost | times as fast | of the gap from static to oracle |\n|---|---|---|---|");
    let fixed = format!("best static, `{}`", name(judged.fixed_plan));
    for (what, cost) in
        [("random", judged.random), (&fixed, judged.fixed), ("router", judged.routed), ("oracle", judged.oracle)]
    {
        let closed = (judged.fixed - cost) / (judged.fixed - judged.oracle).max(1e-12);
        let _ = writeln!(text, "| {what} | {cost:.4} | {:.3} | {:.0}% |", 1.0 / cost, 100.0 * closed);
    }
    for (group, judged) in without {
        let _ = writeln!(
            text,
            "| router without {} | {:.4} | {:.3} | {:.0}% |",
            group.name(),
            judged.routed,
            1.0 / judged.routed,
            100.0 * judged.closed()
        );
    }
    let _ = writeln!(
        text,
        "\n| drafter | chosen | predicted acceptance off by (expected calibration error) |\n|---|---|---|"
    );
    for (place, drafter) in examples.drafters.iter().enumerate() {
        let _ = writeln!(text, "| {drafter} | {} | {:.3} |", judged.chosen[place], judged.calibration_error(place));
    }
    let _ = writeln!(text, "| none | {} | |", judged.chosen[examples.drafters.len()]);
    let known =
        if examples.levels_known { "as the prompts are labelled" } else { "thirds of how fast the fastest plan is" };
    let _ = writeln!(
        text,
        "\nDifficulty ({known}), rows true, columns predicted:\n\n| | {} |\n|---|{}",
        LEVELS.join(" | "),
        "---|".repeat(LEVELS.len())
    );
    for (level, row) in LEVELS.iter().zip(judged.confusion) {
        let shares: Vec<String> = row.iter().map(|share| format!("{:.0}%", 100.0 * share)).collect();
        let _ = writeln!(text, "| {level} | {} |", shares.join(" | "));
    }
    if !examples.lossy.is_empty() {
        let _ = writeln!(
            text,
            "\n| lossy plan | other answers | predicted | perplexity | its estimate by prompt is off by | work |\n|---|---|---|---|---|---|"
        );
        for (plan, found) in examples.lossy.iter().zip(&judged.lossy) {
            let percent = |share: f64| 100.0 * share;
            let _ = writeln!(
                text,
                "| {plan} | {:.1}% | {:.1}% | {:+.2}% | {:.2}% | {:.1}% |",
                percent(found.found),
                percent(found.predicted),
                percent(found.perplexity),
                percent(found.perplexity_error),
                percent(found.work)
            );
        }
    }
    let _ = writeln!(text, "\nLengths of answers are predicted with a mean error of {:.0}%.", 100.0 * judged.length);
    text
}

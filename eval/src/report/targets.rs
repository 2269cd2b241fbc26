//! Targets stated by the sources of the project's idea, beside the measurements.

use super::page::{dash, escape, table};
use super::plans::{Group, PlanResult};
use super::{Findings, setting};

/// The section; it needs a plan that chooses.
pub(super) fn section(findings: &Findings) -> String {
    let Some(auto) = findings.auto() else { return String::new() };
    let own = || findings.plans.iter().filter(|plan| findings.is_own(&plan.name));
    let lossy =
        own().filter(|plan| findings.is_lossy(&plan.name)).max_by(|a, b| a.speed.estimate.total_cmp(&b.speed.estimate));
    let level = |plan: &'_ PlanResult, name: &str| {
        plan.groups.iter().find(|group| group.by == "level" && group.name == name).cloned()
    };
    let of = |measure: &dyn Fn(&PlanResult) -> Option<String>| {
        vec![measure(auto).unwrap_or_else(dash), lossy.and_then(measure).unwrap_or_else(dash)]
    };
    let change = |share: f64| format!("{:+.0}%", 100.0 * (share - 1.0));
    let times = |group: Option<Group>| group.map(|group| format!("{:.2} times as fast", group.speed.estimate));
    let layers = findings.facts.layers as f64;
    let used = |plan: &PlanResult| Some(format!("{:.1} of {layers}", plan.layers? * layers));
    let row = |what: &str, stated: &str, measure: &dyn Fn(&PlanResult) -> Option<String>| {
        [vec![what.to_owned(), stated.to_owned()], of(measure)].concat()
    };
    let lowered = |precision: &str, stated: &str| {
        let measured = lowered(findings, precision).map_or_else(dash, |plan| cheaper(plan, &findings.plans[0]));
        vec![format!("target in {precision}"), stated.to_owned(), dash(), measured]
    };
    let rows: Vec<Vec<String>> = vec![
        row("target layers run", "compute -30% to -60%", &|plan| Some(change(plan.layers?))),
        row("latency of simple prompts", "-50% and more", &|plan| {
            Some(format!("{} of whole answers", change(level(plan, "simple")?.latency.estimate)))
        }),
        row("cost", "-40%", &|plan| {
            Some(plan.energy.share.as_ref().map_or_else(
                |_| format!("{} time (energy unknown)", change(plan.time.estimate)),
                |energy| format!("{} energy", change(energy.estimate)),
            ))
        }),
        row("loss of accuracy", "under 1%", &lost),
        row("target layers run, mean", "12 of 32, 2.7 times as fast", &|plan| {
            Some(format!("{}, {:.2} times as fast", used(plan)?, plan.speed.estimate))
        }),
        row("simple prompts", "3 of 32 layers, 10 times as fast", &|plan| times(level(plan, "simple"))),
        row("hard prompts", "28 of 32 layers, 1.1 times as fast", &|plan| times(level(plan, "complex"))),
        lowered("int8", "energy 0.5 at 0.98 of the quality"),
        lowered("int4", "energy 0.3 at 0.92 of the quality"),
    ];
    let name = lossy.map_or_else(dash, |plan| escape(&plan.name));
    let heads = [
        "",
        "stated by the sources",
        &format!("{} (same tokens)", escape(&auto.name)),
        &format!("{name} (may change tokens)"),
    ];
    format!(
        "<h2>Targets stated by the sources</h2>\n<p>Stated for other and larger models; measured here, beside {}. Exact drafting saves time and the reading of \
         weights, never work: drafts that are not kept add some. Layers of draft models are not counted. The rows of a target in fewer bits are of plans that lower its precision.</p>\n{}",
        escape(&findings.facts.reference),
        table(&heads, rows.into_iter())
    )
}

/// A plan that lowers the target's precision, best one that drafts nothing.
fn lowered<'a>(findings: &'a Findings, precision: &str) -> Option<&'a PlanResult> {
    let is_lowered = |plan: &&PlanResult| {
        let described = findings.known(&plan.name).map(|known| known.described.as_str());
        described.and_then(|described| setting(described, "lower-precision")) == Some(precision)
    };
    // The first of those that are alike.
    findings.plans.iter().filter(is_lowered).min_by_key(|plan| plan.drafts)
}

/// A plan's share of the reference's energy, or time, and the share of its quality that is kept.
fn cheaper(plan: &PlanResult, reference: &PlanResult) -> String {
    let spent = plan.energy.share.as_ref().map_or_else(
        |_| format!("time {:.2}, energy unknown", plan.time.estimate),
        |energy| format!("energy {:.2}", energy.estimate),
    );
    let shares = plan.quality.right.zip(reference.quality.right).filter(|(_, base)| base.estimate > 0.0);
    let kept = shares
        .map_or_else(String::new, |(own, base)| format!(" at {:.3} of the quality", own.estimate / base.estimate));
    let drafting = if plan.drafts { ", with drafting" } else { "" };
    format!("{spent}{kept}{drafting} <small>({})</small>", escape(&plan.name))
}

/// By how many points fewer answers are right, in words that cannot be taken for their opposite.
fn lost(plan: &PlanResult) -> Option<String> {
    if plan.quality.is_identical {
        return Some("none: the same tokens".to_owned());
    }
    let difference = plan.quality.difference()?;
    let words = |share: f64| {
        // Of right answers gained; rounded as it is written.
        let gained = (1000.0 * share).round() / 10.0;
        match gained {
            0.0 => "0.0".to_owned(),
            _ if gained > 0.0 => format!("{gained:.1} gained"),
            _ => format!("{:.1} lost", -gained),
        }
    };
    let [estimate, low, high] = [difference.estimate, difference.low, difference.high].map(words);
    Some(format!("points: {estimate} <small>{high} to {low}</small>"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;
    use crate::report::plans::results;
    use crate::rows::Row;

    #[test]
    fn a_loss_has_an_interval_and_a_word_for_its_sign() {
        let row = |plan: &str, id: usize, right: bool| Row {
            id: format!("{id}"),
            plan: plan.into(),
            tokens: 10,
            latency_ms: Some(10.0),
            prefill_ms: Some(1.0),
            right: Some(right),
            digest: format!("{right}"),
            ..Row::default()
        };
        // Bentur et al. 2009: 1 and 7 of 21 differ, the interval is -0.517 to -0.026.
        let mut rows: Vec<Row> = (0..21).map(|id| row("plain", id, id > 0)).collect();
        rows.extend((0..21).map(|id| row("worse", id, !(1..8).contains(&id))));
        rows.extend((0..21).map(|id| row("alike", id, id > 0)));
        let lost_of = |reference: &str, plan: &str| {
            let results = results(&rows, reference, |_| true);
            lost(results.iter().find(|result| result.name == plan).unwrap()).unwrap()
        };
        assert_eq!(lost_of("plain", "worse"), "points: 28.6 lost <small>2.6 lost to 51.7 lost</small>");
        assert_eq!(lost_of("worse", "plain"), "points: 28.6 gained <small>51.7 gained to 2.6 gained</small>");
        assert_eq!(lost_of("plain", "alike"), "none: the same tokens");
    }
}

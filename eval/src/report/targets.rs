//! What the sources of the project's idea state, beside what was measured.

use super::Findings;
use super::page::{dash, escape, table};
use super::plans::{Group, PlanResult};

/// The section; it needs a plan that chooses.
pub(super) fn section(findings: &Findings) -> String {
    let Some(auto) = findings.auto() else { return String::new() };
    let own = || findings.plans.iter().filter(|plan| findings.is_own(&plan.name));
    let lossy =
        own().filter(|plan| findings.is_lossy(&plan.name)).max_by(|a, b| a.speed.estimate.total_cmp(&b.speed.estimate));
    let lowered = |precision: &str| {
        let known = findings
            .facts
            .plans
            .iter()
            .find(|plan| plan.described.contains("lower-precision") && plan.described.contains(precision));
        own().find(|plan| known.is_some_and(|known| known.name == plan.name))
    };
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
    let drop = |plan: &PlanResult| {
        Some(format!("{:+.1} points", 100.0 * (plan.right?.estimate - findings.plans[0].right?.estimate)))
    };
    let both = |plan: Option<&PlanResult>| {
        plan.map_or_else(dash, |plan| {
            let energy = plan.energy.as_ref().map_or_else(
                || format!("time {:.2}, energy unknown", plan.time.estimate),
                |energy| format!("energy {:.2}", energy.estimate),
            );
            let kept = plan.right.zip(findings.plans[0].right).map(|(own, base)| own.estimate / base.estimate);
            format!("{energy}{}", kept.map_or_else(String::new, |kept| format!(" at {kept:.3} of the quality")))
        })
    };
    let mut rows: Vec<Vec<String>> = vec![
        [
            vec!["compute".into(), "-30% to -60%".into()],
            of(&|plan| Some(format!("{} layers run", change(plan.layers?)))),
        ]
        .concat(),
        [
            vec!["latency of simple prompts".into(), "-50% and more".into()],
            of(&|plan| Some(format!("{} decode time", change(level(plan, "simple")?.time.estimate)))),
        ]
        .concat(),
        [
            vec!["cost".into(), "-40%".into()],
            of(&|plan| {
                Some(plan.energy.as_ref().map_or_else(
                    || format!("{} time (energy unknown)", change(plan.time.estimate)),
                    |energy| format!("{} energy", change(energy.estimate)),
                ))
            }),
        ]
        .concat(),
        [vec!["loss of accuracy".into(), "under 1%".into()], of(&|plan| drop(plan))].concat(),
        [
            vec!["layers run, mean".into(), "12 of 32, 2.7 times as fast".into()],
            of(&|plan| Some(format!("{}, {:.2} times as fast", used(plan)?, plan.speed.estimate))),
        ]
        .concat(),
        [
            vec!["simple prompts".into(), "3 of 32 layers, 10 times as fast".into()],
            of(&|plan| times(level(plan, "simple"))),
        ]
        .concat(),
        [
            vec!["hard prompts".into(), "28 of 32 layers, 1.1 times as fast".into()],
            of(&|plan| times(level(plan, "complex"))),
        ]
        .concat(),
    ];
    rows.push(vec!["target in int8".into(), "energy 0.5 at 0.98 of the quality".into(), dash(), both(lowered("int8"))]);
    rows.push(vec!["target in int4".into(), "energy 0.3 at 0.92 of the quality".into(), dash(), both(lowered("int4"))]);
    let name = lossy.map_or_else(dash, |plan| escape(&plan.name));
    let heads = [
        "",
        "stated by the sources",
        &format!("{} (same tokens)", escape(&auto.name)),
        &format!("{name} (may change tokens)"),
    ];
    format!(
        "<h2>Targets stated by the sources</h2>\n<p>Stated for other and larger models; measured here, beside {}. Exact drafting saves time and the reading of \
         weights, never work: drafts that are not kept add some.</p>\n{}",
        escape(&findings.facts.reference),
        table(&heads, rows.into_iter())
    )
}

//! Which numbers are doubtful, and what to do about it.

use super::Findings;
use super::plans::FEW;
use crate::statistics::outlier_share;

/// Repeats of a prompt are usually nearer to each other than this.
const NOISY: f64 = 0.05;
/// More outliers than this are no accident.
const MANY_OUTLIERS: f64 = 0.1;

/// Everything doubtful, what was told while reading last.
pub(super) fn of(findings: &Findings, complaints: Vec<String>) -> Vec<String> {
    let mut all = Vec::new();
    let reference = &findings.facts.reference;
    for plan in findings.plans.iter().filter(|plan| findings.is_own(&plan.name)) {
        let name = &plan.name;
        if !findings.is_lossy(name) && plan.same.is_some_and(|same| same < 1.0) {
            all.push(format!(
                "`{name}` promises the tokens of `{reference}` and gave others in {:.1}% of the answers: that is a defect, please report it with run.json and the rows.",
                100.0 * (1.0 - plan.same.unwrap_or(1.0))
            ));
        }
        let relative: Vec<f64> = plan
            .prompts
            .values()
            .flat_map(|prompt| prompt.decode_ms.iter().map(move |ms| ms / prompt.typical_ms))
            .collect();
        if let Some(share) = outlier_share(&relative).filter(|share| *share > MANY_OUTLIERS) {
            all.push(format!("{:.0}% of the times of `{name}` are outliers: medians are shown, which bear that; the intervals are too narrow.", 100.0 * share));
        }
    }
    let noisy = findings.plans.iter().filter(|plan| plan.noise.is_some_and(|noise| noise > NOISY));
    let noisy: Vec<String> =
        noisy.map(|plan| format!("`{}` by {:.0}%", plan.name, 100.0 * plan.noise.unwrap_or(0.0))).collect();
    if !noisy.is_empty() {
        all.push(format!(
            "Repeats of a prompt differ (median deviation): {}. Something else used the machine: close it, or ask for more repeats.",
            noisy.join(", ")
        ));
    }
    let first = findings.plans.first();
    let prompts = first.map_or(0, |plan| plan.prompts.len());
    if prompts < FEW {
        all.push(format!("{prompts} prompts say little, however often they are repeated: {FEW} at least make an interval that can be believed."));
    }
    let small: Vec<&str> = first
        .into_iter()
        .flat_map(|plan| &plan.groups)
        .filter(|group| group.prompts < FEW)
        .map(|group| group.name.as_str())
        .collect();
    if !small.is_empty() {
        all.push(format!(
            "Of these groups there are fewer than {FEW} prompts, so their rows are rough: {}.",
            small.join(", ")
        ));
    }
    if findings.facts.repeats < 3 {
        all.push("With fewer than 3 repeats a hiccup cannot be told from a slow prompt, and the oracle is not shown or is noise.".to_owned());
    }
    let expected: usize = findings.facts.prompts * findings.facts.repeats * findings.facts.plans.len();
    let own = findings.rows.iter().filter(|row| findings.is_own(&row.plan)).count();
    if own < expected {
        all.push(format!("The run is not finished: {own} of {expected} answers are there; run the suite again, it goes on from there."));
    }
    let failed = findings.rows.iter().filter(|row| !row.error.is_empty());
    if let Some(one) = failed.clone().next() {
        all.push(format!(
            "{} prompts could not be answered and are left out, such as {}: {}",
            failed.count(),
            one.id,
            one.error
        ));
    }
    let own_sources: Vec<&String> = findings
        .plans
        .iter()
        .filter(|plan| findings.is_own(&plan.name))
        .flat_map(|plan| &plan.energy_sources)
        .collect();
    if own_sources.is_empty() {
        all.push("Energy was not measured, as no meter could be read (columns say so): see `energy-source` in the suite's [engine].".to_owned());
    } else if own_sources.iter().any(|source| source.starts_with("estimated")) {
        all.push(
            "Energy is estimated from processor time: it follows that, so it shows no saving beyond it.".to_owned(),
        );
    }
    let doubtful = findings.rows.iter().filter(|row| !row.energy_doubt.is_empty()).count();
    if doubtful > 0 {
        all.push(format!("{doubtful} readings of energy are doubtful, mostly windows shorter than the meter's resolution; sums over many answers are not."));
    }
    if findings.plans.iter().all(|plan| plan.checked == 0) {
        all.push(
            "The suite has no answers, so quality is unknown; only whether tokens are the same is shown.".to_owned(),
        );
    }
    if findings.parts.iter().any(|part| part.machine != findings.facts.machine) {
        all.push("Parts were measured on different machines: compare plans within a prompt, not times.".to_owned());
    }
    all.extend(complaints);
    all
}

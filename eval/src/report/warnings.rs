//! Which numbers are doubtful, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use super::energy::Unmeasured;
use super::plans::{FEW, PlanResult};
use super::prompts::is_usable;
use super::quality::MARGIN;
use crate::statistics::{least_prompts, outlier_share};

/// Repeats of a prompt are usually nearer to each other than this.
const NOISY: f64 = 0.05;
/// Idle power before a run and after it is usually nearer than this.
const OTHER_IDLE: f64 = 0.1;
/// More outliers than this are no accident.
const MANY_OUTLIERS: f64 = 0.1;

/// Everything doubtful, what was told while reading last.
pub(super) fn of(findings: &Findings, problems: Vec<String>) -> Vec<String> {
    let mut all = Vec::new();
    tokens(findings, &mut all);
    router(findings, &mut all);
    quality(findings, &mut all);
    times(findings, &mut all);
    sizes(findings, &mut all);
    left_out(findings, &mut all);
    energy(findings, &mut all);
    machine(findings, &mut all);
    all.extend(problems);
    all
}

/// Plans of the run.
fn own(findings: &Findings) -> impl Iterator<Item = &PlanResult> {
    findings.plans.iter().filter(|plan| findings.is_own(&plan.name))
}

/// Names as they stand in a sentence.
fn listed<'a>(plans: impl Iterator<Item = &'a PlanResult>) -> String {
    plans.map(|plan| format!("`{}`", plan.name)).collect::<Vec<_>>().join(", ")
}

fn tokens(findings: &Findings, all: &mut Vec<String>) {
    let reference = &findings.facts.reference;
    for plan in own(findings) {
        let (name, unsteady) = (&plan.name, plan.quality.unsteady);
        if !findings.is_lossy(name) && plan.quality.same.is_some_and(|same| same < 1.0) {
            all.push(format!(
                "`{name}` promises the tokens of `{reference}` and gave others in {:.1}% of the answers: that is a defect, please report it with run.json and the rows.",
                100.0 * (1.0 - plan.quality.same.unwrap_or(1.0))
            ));
        }
        if unsteady > 0 {
            all.push(format!(
                "`{name}` gave other tokens in another repeat for {unsteady} of {} prompts: {}",
                plan.pairs,
                match findings.is_lossy(name) {
                    true => "what it gives up depends on more than the prompt, so its quality is that of this run.",
                    false => "its decoding is not reproducible, which is a defect; please report it with run.json and the rows.",
                }
            ));
        }
    }
}

fn router(findings: &Findings, all: &mut Vec<String>) {
    if let Some(regret) = findings.regret.as_ref().filter(|regret| regret.chosen.low > 1.0) {
        let best: BTreeSet<String> = regret.best.iter().map(|name| format!("`{name}`")).collect();
        let percent = |share: f64| 100.0 * (share - 1.0);
        all.push(format!(
            "`{}` is behind the best static plan ({}) by {:.1}% of its time ({:.1}% to {:.1}%): a router that chooses worse than one fixed plan is a defect; use that plan, or train the router again with traces of this machine.",
            regret.auto,
            best.into_iter().collect::<Vec<_>>().join(" and "),
            percent(regret.chosen.estimate),
            percent(regret.chosen.low),
            percent(regret.chosen.high)
        ));
    }
}

fn quality(findings: &Findings, all: &mut Vec<String>) {
    if findings.plans.iter().all(|plan| plan.quality.checked == 0) {
        all.push(
            "The suite has no answers, so quality is unknown; only whether tokens are the same is shown.".to_owned(),
        );
    }
    let wavering: Vec<String> = findings
        .plans
        .iter()
        .filter(|plan| plan.quality.wavering > 0)
        .map(|plan| format!("`{}` ({})", plan.name, plan.quality.wavering))
        .collect();
    if !wavering.is_empty() {
        all.push(format!(
            "Of some prompts the answer is right in one repeat and wrong in another, and counts as wrong: {}.",
            wavering.join(", ")
        ));
    }
    let tested = findings.tested();
    let least = least_prompts(MARGIN, tested);
    let small = || findings.plans.iter().filter(|plan| plan.quality.tests.is_some() && plan.quality.checked < least);
    if let Some(most) = small().map(|plan| plan.quality.checked).max() {
        all.push(format!(
            "{most} checked prompts are too few to show that a plan is not more than {:.0} point worse, even if it never differs: with {tested} {} tested that takes {least}. This is so of {}.",
            100.0 * MARGIN,
            if tested == 1 { "plan" } else { "plans" },
            listed(small())
        ));
    }
}

fn times(findings: &Findings, all: &mut Vec<String>) {
    for plan in own(findings) {
        let relative: Vec<f64> = plan
            .prompts
            .values()
            .flat_map(|prompt| prompt.decode_ms.iter().map(move |ms| ms / prompt.typical_ms))
            .collect();
        if let Some(share) = outlier_share(&relative).filter(|share| *share > MANY_OUTLIERS) {
            all.push(format!("{:.0}% of the times of `{}` are outliers: medians are shown, which bear that; the intervals are too narrow.", 100.0 * share, plan.name));
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
    let whole = || findings.plans.iter().skip(1).filter(|plan| plan.is_whole);
    if whole().next().is_some() {
        all.push(format!(
            "It is not known of all answers how long the prompt was read (`prefill_ms`), so whole answers are compared with whole answers of `{}`, and the reading of the prompt is in these times: {}.",
            findings.facts.reference,
            listed(whole())
        ));
    }
}

fn sizes(findings: &Findings, all: &mut Vec<String>) {
    let first = findings.plans.first();
    let prompts = first.map_or(0, |plan| plan.pairs);
    if prompts < FEW {
        all.push(format!("{prompts} prompts say little, however often they are repeated: {FEW} at least make an interval that can be believed."));
    }
    let fewer = || findings.plans.iter().filter(|plan| plan.pairs < FEW.min(prompts));
    if fewer().next().is_some() {
        all.push(format!(
            "Of these plans there are fewer than {FEW} prompts, so their rows are rough: {}.",
            listed(fewer())
        ));
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
}

fn left_out(findings: &Findings, all: &mut Vec<String>) {
    let failed = findings.rows.iter().filter(|row| !row.error.is_empty());
    if let Some(one) = failed.clone().next() {
        all.push(format!(
            "{} prompts could not be answered and are left out, such as {}: {}",
            failed.count(),
            one.id,
            one.error
        ));
    }
    let ids: BTreeSet<&str> =
        findings.rows.iter().filter(|row| findings.is_own(&row.plan)).map(|row| row.id.as_str()).collect();
    // Of each plan the answers without a time, and the prompts that the run does not have.
    let mut plans: BTreeMap<&str, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for row in findings.rows.iter().filter(|row| row.error.is_empty()) {
        let (timeless, unknown) = plans.entry(&row.plan).or_default();
        *timeless += usize::from(!is_usable(row));
        if !ids.contains(row.id.as_str()) {
            unknown.insert(&row.id);
        }
    }
    for (name, (timeless, unknown)) in plans {
        if timeless > 0 {
            all.push(format!(
                "{timeless} answers of `{name}` have no token, or no time greater than 0 for them, and are left out."
            ));
        }
        if let Some(one) = unknown.first() {
            all.push(format!(
                "{} prompts of `{name}` are none of the run and are left out, such as {one}: its ids must be those of the suite.",
                unknown.len()
            ));
        }
        if !findings.plans.iter().any(|plan| plan.name == name) {
            all.push(format!(
                "`{name}` is left out, as it has no prompt that `{}` answered too.",
                findings.facts.reference
            ));
        }
    }
}

fn energy(findings: &Findings, all: &mut Vec<String>) {
    let own_sources: Vec<&String> = own(findings).flat_map(|plan| &plan.energy.sources).collect();
    if own_sources.is_empty() {
        all.push("Energy was not measured, as no meter could be read (columns say so): see `energy-source` in the suite's [engine].".to_owned());
    } else if own_sources.iter().any(|source| source.starts_with("estimated")) {
        all.push(
            "Energy is estimated from processor time: it follows that, so it shows no saving beyond it.".to_owned(),
        );
    }
    let reference = &findings.facts.reference;
    for plan in &findings.plans {
        let (name, energy) = (&plan.name, &plan.energy);
        match energy.share {
            Ok(_) if energy.prompts < plan.pairs => all.push(format!(
                "Energy of `{name}` and `{reference}` is known of {} of {} prompts, and compared on these.",
                energy.prompts, plan.pairs
            )),
            Ok(_) | Err(Unmeasured::NoMeter) => {}
            // Other programs seldom measure it.
            Err(Unmeasured::NotAll) if !findings.is_own(name) && energy.sources.is_empty() => {}
            Err(_) => {
                let reason = energy.reason(&format!("`{name}`"), &format!("`{reference}`")).unwrap_or_default();
                all.push(format!("The energy of `{name}` is not compared with that of `{reference}`: {reason}."));
            }
        }
    }
    let doubtful = findings.rows.iter().filter(|row| !row.energy_doubt.is_empty()).count();
    if doubtful > 0 {
        all.push(format!("{doubtful} readings of energy are doubtful, mostly windows shorter than the meter's resolution; sums over many answers are not."));
    }
}

fn machine(findings: &Findings, all: &mut Vec<String>) {
    for part in &findings.parts {
        if let (Some(before), Some(after)) = (part.before.idle_watts, part.after.idle_watts)
            && (before - after).abs() > OTHER_IDLE * before.max(after)
        {
            all.push(format!(
                "The idle machine took {before:.1} W before the run and {after:.1} W after it: something else was at work, or it was still warm, so net joules are rough."
            ));
        }
        if let Some(reason) = part.before.throttling.iter().chain(&part.after.throttling).next() {
            all.push(format!("The card held its clocks back ({reason}), so times are not those of a cool one."));
        }
    }
    if findings.parts.iter().any(|part| part.machine != findings.facts.machine) {
        all.push("Parts were measured on different machines: compare plans within a prompt, not times.".to_owned());
    }
}

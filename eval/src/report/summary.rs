//! Summary for a reader in a hurry, in three sentences: speed, energy, quality.

use super::Findings;
use super::page::points;
use super::plans::PlanResult;
use super::quality::MARGIN;

/// The three sentences.
pub(super) fn summary(findings: &Findings) -> Vec<String> {
    let exact = findings.auto().or_else(|| fastest(findings, false));
    vec![speed(findings, exact), energy(findings, exact), quality(findings)]
}

/// The fastest plan of the run beside the reference that may change tokens, or may not.
fn fastest(findings: &Findings, lossy: bool) -> Option<&PlanResult> {
    let others = findings.plans.iter().skip(1);
    let own = others.filter(|plan| findings.is_own(&plan.name) && findings.is_lossy(&plan.name) == lossy);
    own.max_by(|a, b| a.speed.estimate.total_cmp(&b.speed.estimate))
}

fn speed(findings: &Findings, exact: Option<&PlanResult>) -> String {
    let reference = &findings.facts.reference;
    let Some(plan) = exact else {
        let what = if findings.plans.len() == 1 { "Only" } else { "Of exact plans, only" };
        return format!(
            "{what} {reference} was measured: an answer takes {:.1} ms.",
            findings.plans[0].latency_ms.estimate
        );
    };
    let tokens = match plan.quality.same {
        _ if plan.quality.is_identical => "With the same tokens".to_owned(),
        Some(same) if same < 1.0 => {
            format!("With other tokens in {:.1}% of the answers, which is a defect", 100.0 * (1.0 - same))
        }
        _ => "With the same tokens by promise, which was not checked for all answers".to_owned(),
    };
    format!(
        "{tokens}, {} makes a token {:.2} times as fast as {reference} ({:.2} to {:.2}, 95% interval over {} prompts); a whole answer takes {:.1} ms instead of {:.1}.",
        plan.name,
        plan.speed.estimate,
        plan.speed.low,
        plan.speed.high,
        plan.pairs,
        plan.latency_ms.estimate,
        plan.reference_latency_ms
    )
}

fn energy(findings: &Findings, exact: Option<&PlanResult>) -> String {
    let reference = &findings.plans[0];
    let Some(plan) = exact else {
        return match reference.energy.joules {
            Some(joules) => format!("A token takes {joules:.4} J ({}).", reference.energy.meters()),
            None if reference.energy.sources.is_empty() => no_meter(),
            None => format!("Energy is not told: several meters measured it, {}.", reference.energy.meters()),
        };
    };
    let energy = &plan.energy;
    match (&energy.share, energy.reason(&plan.name, &reference.name)) {
        (Ok(share), _) => format!(
            "Its energy for a token is {:.0}% of {}'s ({:.0}% to {:.0}%; {}{}).",
            100.0 * share.estimate,
            reference.name,
            100.0 * share.low,
            100.0 * share.high,
            energy.meters(),
            match energy.prompts == plan.pairs {
                true => String::new(),
                false => format!("; of {} of {} prompts", energy.prompts, plan.pairs),
            }
        ),
        (Err(_), Some(reason)) if !energy.sources.is_empty() || !energy.reference_sources.is_empty() => {
            format!("Its energy is not compared: {reason}.")
        }
        _ => no_meter(),
    }
}

fn no_meter() -> String {
    "Energy is unavailable: no meter could be read on this machine.".to_owned()
}

fn quality(findings: &Findings) -> String {
    let reference = &findings.plans[0];
    let Some(base) = reference.quality.right else {
        return "How many answers are right is unknown, as the prompts have no answers.".to_owned();
    };
    if let Some(lossy) = fastest(findings, true) {
        let speed =
            format!("Where other answers are allowed, {} is {:.2} times as fast", lossy.name, lossy.speed.estimate);
        let (Some(right), Some(tests)) = (lossy.quality.right, lossy.quality.tests) else {
            return format!("{speed}; how many of its answers are right is unknown.");
        };
        let difference = tests.not_worse.difference;
        let [estimate, low, high] = points(&difference);
        return format!(
            "{speed} and answers {:.1}% rightly, against {:.1}% (difference {estimate} points, {low} to {high}){}.",
            100.0 * right.estimate,
            100.0 * (right.estimate - difference.estimate),
            match tests.not_worse.holds {
                true => format!(", which is not more than {:.0} point worse beyond doubt", 100.0 * MARGIN),
                false => format!("; that it is not more than {:.0} point worse is not shown", 100.0 * MARGIN),
            }
        );
    }
    let own: Vec<&PlanResult> = findings.plans.iter().filter(|plan| findings.is_own(&plan.name)).collect();
    let (share, prompts) = (100.0 * base.estimate, reference.quality.checked);
    if own.len() > 1 && own.iter().all(|plan| plan.quality.is_identical && plan.pairs == reference.pairs) {
        let all = if own.len() < findings.plans.len() { "All plans of the run" } else { "All plans" };
        return format!("{all} answer {share:.1}% of {prompts} prompts rightly, as their tokens are the same.");
    }
    format!("{} answers {share:.1}% of {prompts} prompts rightly.", reference.name)
}

//! The command `compare`: what changed between two runs of the same prompts, plan by plan.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use paceline::command::Failure;
use paceline::command::output::{note, print_line};

use super::find;
use super::plans::{PlanResult, RESAMPLES};
use crate::statistics::{Interval, bootstrap, mcnemar};

/// The flags of `compare`.
#[derive(Debug, Args)]
pub struct CompareFlags {
    /// The folder of a run
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The folder of another
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
}

/// Compares two runs.
///
/// # Errors
/// A sentence, if a run cannot be read or they have no plan or prompt in common.
pub fn compare(flags: &CompareFlags) -> Result<ExitCode, Failure> {
    let (before, after) = (find(&flags.before, &[], None)?, find(&flags.after, &[], None)?);
    if before.facts.machine != after.facts.machine || before.facts.threads != after.facts.threads {
        note(&format!(
            "The runs were made on different machines or threads ({}, {} threads; {}, {} threads): only the column beside the own reference can be compared.",
            before.facts.machine, before.facts.threads, after.facts.machine, after.facts.threads
        ));
    }
    if before.facts.target_hash != after.facts.target_hash {
        note("The runs are of different models.");
    }
    let both: Vec<(&PlanResult, &PlanResult)> = before
        .plans
        .iter()
        .filter_map(|plan| Some((plan, after.plans.iter().find(|other| other.name == plan.name)?)))
        .collect();
    if both.is_empty() {
        return Err(anyhow!("{} and {} have no plan in common.", flags.before.display(), flags.after.display()).into());
    }
    print_line(
        "| plan | prompts of both | time per token, after of before | times as fast as the reference, before | after | right, before | after | p | same tokens |\n|---|---|---|---|---|---|---|---|---|",
    )?;
    for (before, after) in both {
        print_line(&line(before, after)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(before: &PlanResult, after: &PlanResult) -> Result<String, anyhow::Error> {
    let pairs: Vec<_> = before.prompts.iter().filter_map(|(id, old)| Some((old, after.prompts.get(id)?))).collect();
    if pairs.is_empty() {
        return Err(anyhow!("The runs have no prompt of plan {} in common.", before.name));
    }
    let time = bootstrap(pairs.len(), RESAMPLES, 0, |places| {
        let sums = places
            .iter()
            .fold((0.0, 0.0), |sums, &place| (sums.0 + pairs[place].0.typical_ms, sums.1 + pairs[place].1.typical_ms));
        sums.1 / sums.0
    });
    let checked: Vec<(bool, bool)> = pairs.iter().filter_map(|(old, new)| Some((old.right?, new.right?))).collect();
    let only = |wanted: (bool, bool)| checked.iter().filter(|pair| **pair == wanted).count() as u64;
    let share = |count: usize| {
        if checked.is_empty() { "-".to_owned() } else { format!("{:.1}%", 100.0 * count as f64 / checked.len() as f64) }
    };
    let same = pairs.iter().filter(|(old, new)| old.digest == new.digest).count();
    let shown = |interval: &Interval| format!("{:.3} ({:.3} to {:.3})", interval.estimate, interval.low, interval.high);
    Ok(format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {:.1}% |",
        before.name,
        pairs.len(),
        shown(&time),
        shown(&before.speed),
        shown(&after.speed),
        share(checked.iter().filter(|pair| pair.0).count()),
        share(checked.iter().filter(|pair| pair.1).count()),
        if checked.is_empty() {
            "-".to_owned()
        } else {
            format!("{:.3}", mcnemar(only((true, false)), only((false, true))))
        },
        100.0 * same as f64 / pairs.len() as f64
    ))
}

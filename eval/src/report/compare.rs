//! The command `compare`: what changed between two runs of the same prompts, plan by plan.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use paceline::command::Failure;
use paceline::command::output::{note, print_line};

use super::energy::RESAMPLES;
use super::find;
use super::page::points;
use super::plans::PlanResult;
use super::prompts::Pair;
use super::quality::{self, Quality, Tests};
use crate::statistics::{Interval, bootstrap};

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
    let mut changes = both.into_iter().map(|(old, new)| change(old, new)).collect::<Result<Vec<_>, _>>()?;
    let tests: Vec<&mut Tests> = changes.iter_mut().filter_map(|change| change.quality.tests.as_mut()).collect();
    let count = tests.len();
    quality::correct(tests);
    print_line(
        "| plan | prompts of both | time per token, after of before | times as fast as the reference, before | after | right, before | after | difference, points (Tango, 95%) | p | same tokens |\n|---|---|---|---|---|---|---|---|---|---|",
    )?;
    changes.iter().try_for_each(|change| print_line(&change.line()))?;
    if count > 1 {
        note(&format!(
            "Of plans whose tokens changed there are {count}, so p is corrected for that (Holm); intervals are of 95% each."
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes of a plan, over the prompts of both runs.
struct Change<'a> {
    before: &'a PlanResult,
    after: &'a PlanResult,
    prompts: usize,
    time: Interval,
    /// That of the run after beside the one before.
    quality: Quality,
}

fn change<'a>(before: &'a PlanResult, after: &'a PlanResult) -> Result<Change<'a>, anyhow::Error> {
    let pairs: Vec<Pair<'_>> =
        before.prompts.iter().filter_map(|(id, old)| Some((after.prompts.get(id)?, old))).collect();
    if pairs.is_empty() {
        return Err(anyhow!("The runs have no prompt of plan {} in common.", before.name));
    }
    let is_whole = pairs.iter().any(|(new, old)| !new.is_split || !old.is_split);
    let time = bootstrap(pairs.len(), RESAMPLES, 0, |places| {
        let sum = |pace: &dyn Fn(&Pair<'_>) -> f64| places.iter().map(|&place| pace(&pairs[place])).sum::<f64>();
        sum(&|(new, _)| new.pace(is_whole)) / sum(&|(_, old)| old.pace(is_whole))
    });
    // Where no token changed there is nothing to test.
    let quality = Quality::of(&pairs, !Quality::of(&pairs, false).is_identical);
    Ok(Change { before, after, prompts: pairs.len(), time, quality })
}

impl Change<'_> {
    /// A line of the table in Markdown.
    fn line(&self) -> String {
        let dash = || "-".to_owned();
        let shown =
            |interval: &Interval| format!("{:.3} ({:.3} to {:.3})", interval.estimate, interval.low, interval.high);
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        let quality = &self.quality;
        let right = quality.right.map(|right| right.estimate);
        let gained = quality.difference().map_or(0.0, |difference| difference.estimate);
        let difference = quality.difference().as_ref().map(points);
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.before.name,
            self.prompts,
            shown(&self.time),
            shown(&self.before.speed),
            shown(&self.after.speed),
            right.map_or_else(dash, |right| percent(right - gained)),
            right.map_or_else(dash, percent),
            difference.map_or_else(dash, |[estimate, low, high]| format!("{estimate} ({low} to {high})")),
            quality.tests.map_or_else(dash, |tests| format!("{:.3}", tests.p)),
            quality.same.map_or_else(dash, percent)
        )
    }
}

//! Runs the target in full and every bundle over calibration prompts, and makes certificates of what is lost.

use anyhow::{Context as _, anyhow};
use paceline::certificate::{Calibration, Certificate, CertifiedLevel, Conditions, VERSION};
use paceline::command::Failure;
use paceline::command::progress::{self, Progress};
use paceline::{Answer, Engine, Error, GenerationConfig};
use paceline_router::Lossy;
use paceline_router::network::LEVELS;

use super::bundles::Bundle;
use super::losses::{LossesFile, Row};
use super::sequence::{Claim, Sample, TooFew, certify_level, in_full};
use super::tasks::Task;

/// Measures what is not in the file yet.
///
/// # Errors
/// When a prompt cannot be answered or judged, or the file cannot be written.
pub fn measure(
    engine: &Engine,
    tasks: &[Task],
    bundles: &[Bundle],
    answer: &GenerationConfig,
    file: &mut LossesFile,
) -> Result<(), Failure> {
    let settings: Vec<GenerationConfig> = bundles
        .iter()
        .map(|bundle| {
            bundle.settings(answer).map_err(|reason| anyhow!("The plan {bundle} cannot be tested: {reason}."))
        })
        .collect::<Result<_, _>>()?;
    file.check_order(tasks.iter().map(|task| &*task.id))?;
    let there = file.rows.len();
    let mut progress = Progress::new();
    for (done, task) in tasks.iter().enumerate().skip(there) {
        progress.show("calibrating: prompts", done - there, tasks.len() - there);
        let row = one(engine, task, &settings, answer)
            .with_context(|| format!("The prompt {} cannot be used for a certificate", task.id))
            .map_err(|error| anyhow!("{error:#}"))?;
        file.add(row)?;
    }
    progress::clear();
    Ok(())
}

fn one(
    engine: &Engine,
    task: &Task,
    settings: &[GenerationConfig],
    answer: &GenerationConfig,
) -> Result<Row, anyhow::Error> {
    let target = engine.generate(task.prompt.clone(), answer)?.finish()?;
    let level = level(&target)?;
    let right = task.is_right(&target);
    let losses = if right == Some(false) {
        // What the target has wrong, nothing can lose.
        vec![0.0; settings.len()]
    } else {
        // All at once, so that the engine need not wait.
        let begun: Vec<_> =
            settings.iter().map(|config| engine.generate(task.prompt.clone(), config)).collect::<Result<_, _>>()?;
        let loss = |answer: Result<Answer, Error>| answer.map(|answer| task.loss(&target, &answer));
        begun.into_iter().map(|begun| loss(begun.finish())).collect::<Result<_, _>>()?
    };
    Ok(Row { id: task.id.clone(), level, right, losses })
}

/// The level that the router predicts of a prompt, by its place.
///
/// # Errors
/// When there is no router to predict it.
pub fn level(answer: &Answer) -> Result<usize, anyhow::Error> {
    let predicted = answer.report.plan.difficulty.as_deref();
    let place = LEVELS.iter().position(|name| predicted == Some(name));
    place.context("no router judged it, and certificates go by the level that one predicts: train one with `paceline-train router`")
}

/// Basis of certificates.
#[derive(Debug)]
pub struct Measured<'a> {
    /// The conditions that they will hold for.
    pub conditions: Conditions,
    /// The prompts.
    pub calibration: Calibration,
    /// The plans in order.
    pub bundles: &'a [Bundle],
    /// The losses of all prompts.
    pub rows: &'a [Row],
}

/// The plan that may be deployed for each level, by losses of these rows, and why a level can only be answered in full
/// where it has too few prompts.
pub fn levels<'a>(
    bundles: &[Lossy],
    rows: impl IntoIterator<Item = &'a Row>,
    claim: Claim,
) -> (Vec<CertifiedLevel>, Vec<TooFew>) {
    let mut sums = vec![(0, vec![0.0; bundles.len()], true); LEVELS.len()];
    for row in rows {
        let (n, losses, binary) = &mut sums[row.level];
        *n += 1;
        *binary &= row.right.is_some();
        losses.iter_mut().zip(&row.losses).for_each(|(sum, loss)| *sum += loss);
    }
    let mut refused = Vec::new();
    let certified = LEVELS.iter().zip(&sums).map(|(name, (n, losses, binary))| {
        let sample = Sample { n: *n, losses, binary: *binary };
        certify_level(name, bundles, sample, claim).unwrap_or_else(|error| {
            refused.push(error);
            in_full(name, *n)
        })
    });
    (certified.collect(), refused)
}

impl Measured<'_> {
    /// The certificate for a floor, and sentences about levels with too few prompts.
    ///
    /// # Errors
    /// When every level has too few.
    pub fn certificate(&self, claim: Claim) -> Result<(Certificate, Vec<TooFew>), TooFew> {
        let bundles: Vec<Lossy> = self.bundles.iter().map(|bundle| bundle.0.clone()).collect();
        let (levels, mut refused) = levels(&bundles, self.rows, claim);
        if refused.len() == levels.len() {
            return Err(refused.swap_remove(0));
        }
        let certificate = Certificate {
            version: VERSION,
            floor: claim.floor,
            eps: claim.eps(),
            delta: claim.delta,
            claims: claim.claims,
            bundles,
            levels,
            calibration: self.calibration.clone(),
            conditions: self.conditions.clone(),
            checksum: String::new(),
        };
        Ok((certificate, refused))
    }
}

//! The step `pretrain`: the target model, from nothing.

use anyhow::Context;
use paceline::checkpoint::Checkpoint;
use paceline::command::Failure;
use paceline::files::AtomicFolder;

use crate::checksum::Checksum;
use crate::export::export;
use crate::job::{Job, Outcome, TrainingFlags};
use crate::objective::Objective;
use crate::packing::sources;
use crate::settings::TARGET;
use crate::tokenize;
use crate::tokenizer::ChatTokenizer;
use crate::tokens;
use crate::trainer::Training;

/// Trains the target and writes it to `models/target`, unless that is done.
///
/// # Errors
/// When something that an earlier step makes is not there, or the training fails.
pub fn run(job: &Job, flags: &TrainingFlags) -> Result<Outcome, Failure> {
    let recipe = job.recipe.target.as_ref().context(
        "The recipe has no [target]: give it a section with `layers`, `hidden`, `intermediate` and `heads`.",
    )?;
    let tokenizer = ChatTokenizer::open(&job.tokenizer())?;
    let tokens = tokenize::open(job, &tokenizer)?;
    let (sources, validation) = sources(&tokens);
    let (config, seed) = (tokenizer.model_config(recipe, job.recipe.data.document_tokens), job.recipe.seed);
    let (vocabulary, data) = (tokenizer.hash(), tokens::fingerprint(&tokens));
    let fingerprint = format!("{config:?} {seed} {vocabulary:x} {data}");
    let path = job.model(TARGET);
    let key = Checksum::of(format!("{fingerprint} {recipe:?}").as_bytes());
    AtomicFolder::recover(&path)?;
    if job.is_done(STEP, key) && Checkpoint::open(&path).is_ok() {
        return Ok(Outcome::Kept);
    }
    let training = Training {
        name: TARGET,
        config,
        recipe: &recipe.training,
        objective: &Objective::NextToken,
        seed,
        sources: &sources,
        validation: &validation,
        folder: job.folder(TARGET)?,
        fingerprint,
        place: flags.open()?,
    };
    let trained = training.run()?;
    job.folder("models")?;
    export(&trained.model, &job.tokenizer(), &path)?;
    job.mark_done(STEP, key)?;
    Ok(Outcome::Made)
}

const STEP: &str = "pretrain";

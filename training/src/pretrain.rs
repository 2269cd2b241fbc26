//! The step `pretrain`: the target model, from nothing.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use paceline::checkpoint::Checkpoint;
use paceline::command::Failure;
use paceline::files::AtomicFolder;
use paceline::model::{Compute, DeviceName};
use paceline_kernels::Kernels;

use crate::checksum::Checksum;
use crate::export::export;
use crate::job::{Job, JobFlags, Outcome};
use crate::objective::Objective;
use crate::packing::Source;
use crate::tokenizer::ChatTokenizer;
use crate::tokens::{self, SourceTokens};
use crate::trainer::{Place, Training};

/// The flags of steps that train.
#[derive(Debug, Args)]
pub struct TrainingFlags {
    /// What every step takes.
    #[command(flatten)]
    pub job: JobFlags,
    /// Where to compute: cpu, or cuda:0 in a build with CUDA
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: DeviceName,
    /// Processor threads; 0 for all that the process may use
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
}

impl TrainingFlags {
    /// Opens the device.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(&self) -> Result<Place, Failure> {
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let compute = Compute::open(self.device, threads)?;
        let kernels = match &compute {
            Compute::Kernels(kernels) => Arc::clone(kernels),
            Compute::Burn(_) => Arc::new(Kernels::new(threads).context("The worker threads could not be started")?),
        };
        Ok(Place { compute, kernels })
    }
}

/// What the target is called among the models.
pub const TARGET: &str = "target";

/// Trains the target and writes it to `models/target`, unless that is done.
///
/// # Errors
/// When something that an earlier step makes is not there, or the training fails.
pub fn run(job: &Job, flags: &TrainingFlags) -> Result<Outcome, Failure> {
    let recipe = job.recipe.target.as_ref().context(
        "The recipe has no [target]: give it a section with `layers`, `hidden`, `intermediate` and `heads`.",
    )?;
    let tokenizer = ChatTokenizer::open(&job.tokenizer())?;
    let tokens = tokens::open(job, &tokenizer)?;
    let (sources, validation) = sources(&tokens);
    let (config, seed) = (recipe.config(&tokenizer, job.recipe.data.document_tokens), job.recipe.seed);
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

/// What is trained on, and what is validated on.
pub fn sources(tokens: &[SourceTokens]) -> (Vec<Source<'_>>, Vec<Source<'_>>) {
    let train = tokens.iter().map(|source| Source { name: &source.name, shard: &source.train, weight: source.weight });
    let held_out = tokens.iter().filter_map(|source| {
        let shard = source.validation.as_ref()?;
        Some(Source { name: &source.name, shard, weight: source.weight })
    });
    (train.collect(), held_out.collect())
}

//! The step `pretrain`: the target model, from nothing.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use paceline::command::Failure;
use paceline::model::{Compute, DeviceName};
use paceline_kernels::Kernels;

use crate::export::export;
use crate::job::{Job, JobFlags};
use crate::packing::Source;
use crate::settings::ModelRecipe;
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

/// Trains the target and writes it to `models/target`.
///
/// # Errors
/// When something that an earlier step makes is not there, or the training fails.
pub fn run(flags: &TrainingFlags) -> Result<(), Failure> {
    let job = Job::open(&flags.job)?;
    let recipe = job.recipe.target.as_ref().context(
        "The recipe has no [target]: give it a section with `layers`, `hidden`, `intermediate` and `heads`.",
    )?;
    let place = flags.open()?;
    let tokenizer = ChatTokenizer::open(&job.tokenizer())?;
    let tokens = tokens::open(&job, &tokenizer)?;
    let (sources, validation) = sources(&tokens);
    let training = Training {
        name: "target",
        config: recipe.config(&tokenizer, job.recipe.data.document_tokens),
        recipe: &recipe.training,
        seed: job.recipe.seed,
        sources: &sources,
        validation: &validation,
        folder: job.folder("target")?,
        fingerprint: fingerprint(recipe, &tokens),
        place,
    };
    let model = training.run()?;
    export(&model, &job.tokenizer(), &job.folder("models")?.join("target"))?;
    Ok(())
}

/// What is trained on, and what is validated on.
pub fn sources(tokens: &[SourceTokens]) -> (Vec<Source<'_>>, Vec<Source<'_>>) {
    let train = tokens.iter().map(|source| Source { name: &source.name, shard: &source.train, weight: source.weight });
    let held_out = tokens.iter().filter_map(|source| {
        let shard = source.validation.as_ref()?;
        Some(Source { name: &source.name, shard, weight: source.weight })
    });
    (train.collect(), held_out.collect())
}

/// All that decides what a training computes, as text.
pub fn fingerprint(recipe: &ModelRecipe, tokens: &[SourceTokens]) -> String {
    let sources: Vec<_> = tokens.iter().map(|source| (&source.name, source.weight, source.train.checksum())).collect();
    format!("{recipe:?} {sources:?}")
}

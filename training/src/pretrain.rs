//! The step `pretrain`: the target model, from nothing.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use paceline::checkpoint::ModelConfig;
use paceline::command::Failure;
use paceline::model::{Compute, DeviceName};
use paceline_kernels::Kernels;

use crate::export::export;
use crate::job::{Job, JobFlags};
use crate::packing::Source;
use crate::settings::ModelRecipe;
use crate::trainer::Training;

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

/// Where a training computes, and what its optimizer computes with.
pub struct Place {
    /// The model's place.
    pub compute: Compute,
    /// The processor's.
    pub kernels: Arc<Kernels>,
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
    let (sources, validation) = (sources(&job, "train")?, sources(&job, "validation")?);
    let folder = job.out().join("target");
    std::fs::create_dir_all(&folder).with_context(|| format!("The folder {} cannot be made", folder.display()))?;
    let training = Training {
        name: "target",
        config: config(&job, recipe)?,
        recipe: &recipe.training,
        seed: job.recipe.seed,
        sources: &sources,
        validation: &validation,
        compute: place.compute,
        kernels: place.kernels,
        folder,
        fingerprint: fingerprint(&job, recipe)?,
    };
    let model = training.run()?;
    export(&model, &job.tokenizer(), &models(&job, "target"))?;
    Ok(())
}

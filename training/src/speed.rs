//! The command `speed`: how fast a recipe's models train here, on tokens that mean nothing.

use std::time::Instant;

use anyhow::Context;
use clap::Args;
use paceline::command::{Failure, output};
use paceline::model::{Batch, Trainable};

use crate::device::Place;
use crate::initial::initial;
use crate::job::TrainingFlags;
use crate::objective::{Objective, Sample, gradients};
use crate::optimizer::Optimizer;
use crate::progress::{grouped, time};
use crate::recipe::Recipe;
use crate::settings::ModelRecipe;

/// The flags of `speed`.
#[derive(Debug, Args)]
pub struct SpeedFlags {
    /// Flags of every training.
    #[command(flatten)]
    pub training: TrainingFlags,
    /// Steps to time; the first of as many again is not counted
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub repeats: usize,
}

/// Prints tokens per second of the recipe's target and how long its steps will take.
///
/// # Errors
/// If the recipe or the device cannot be used.
pub fn run(flags: &SpeedFlags) -> Result<(), Failure> {
    let recipe = Recipe::read(&flags.training.job.recipe, &flags.training.job.set)?;
    let target = recipe.target.as_ref().context("The recipe has no [target] to time: give it one.")?;
    let place = flags.training.open()?;
    let rate = tokens_per_second(target, recipe.tokenizer.vocabulary, &place, flags.repeats);
    let training = &target.training;
    let tokens = training.total_steps() as f64 * (training.accumulate * training.sequences * training.length) as f64;
    let whole = time(std::time::Duration::from_secs_f64(tokens / rate));
    output::print(&format!(
        "target: {} tokens a second, {} tokens in {whole} (without growth, validation and checkpoints)\n",
        grouped(rate as u64),
        grouped(tokens as u64),
    ))?;
    Ok(())
}

/// The median over `repeats` steps.
fn tokens_per_second(recipe: &ModelRecipe, vocabulary: usize, place: &Place, repeats: usize) -> f64 {
    let training = &recipe.training;
    let config = recipe.shape(vocabulary, training.length);
    let mut model =
        Trainable::new(config.clone(), &place.compute, initial(&config, 0)).with_products(training.products.into());
    let mut optimizer = Optimizer::new(training.optimizer.clone(), place.kernels.clone());
    let rows = training.sequences * training.length;
    let tokens = |factor: usize| (0..rows).map(|row| (row * factor % vocabulary) as u32).collect::<Vec<u32>>();
    let batch = Batch::whole(tokens(7919), training.length);
    let sample = Sample { batch, targets: tokens(104_729), weights: vec![1.0 / rows as f32; rows] };
    let mut step = || {
        let start = Instant::now();
        let (_, gradients) = gradients(&model, &Objective::NextToken, &sample, None);
        optimizer.step(model.parameters_mut(), &gradients, training.schedule.learning_rate);
        start.elapsed().as_secs_f64()
    };
    step(); // memory is taken for the first time
    let mut seconds: Vec<f64> = (0..repeats.max(1)).map(|_| step()).collect();
    seconds.sort_by(f64::total_cmp);
    rows as f64 / seconds[seconds.len() / 2]
}

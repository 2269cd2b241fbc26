//! The loop that trains a model: batches, gradients, steps, checkpoints, its curve.
//!
//! Everything that a step computes follows from the recipe and the state before it, so a training that was ended at any
//! moment and called again ends with the same bits as one that was not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use paceline::checkpoint::{ModelConfig, tensors_of};
use paceline::command::signals::{Keeping, received};
use paceline::model::Trainable;

use crate::curve::{Curve, Picture};
use crate::device::Place;
use crate::growth::{deepened, layers_at};
use crate::initial::initial;
use crate::objective::{Exits, Measured, Objective, Sample, gradients, measure};
use crate::optimizer::{Gradients, Optimizer};
use crate::packing::{Drawing, Packer, PackingState, Source};
use crate::progress::Progress;
use crate::settings::{Added, TrainingRecipe};
use crate::state::State;

/// The drawing of what is validated on: the same for all models, so that their losses can be compared; answers alone count.
const VALIDATION: Drawing = Drawing { seed: 0, prompt_weight: 0.0, curriculum: None };

/// A training, before it runs.
pub struct Training<'a> {
    /// Its name in file names and on the screen.
    pub name: &'a str,
    /// The model's shape in the end.
    pub config: ModelConfig,
    /// The settings of the training.
    pub recipe: &'a TrainingRecipe,
    /// The loss that it learns by.
    pub objective: &'a Objective,
    /// The seed of all randomness.
    pub seed: u64,
    /// The sources that it learns from.
    pub sources: &'a [Source<'a>],
    /// The sources that its losses are measured on.
    pub validation: &'a [Source<'a>],
    /// The device that it computes on.
    pub place: Place,
    /// The folder for its checkpoint and its curve.
    pub folder: PathBuf,
    /// All that decides what is computed but for `recipe`, as text, by which a checkpoint of another training is told.
    pub fingerprint: String,
}

/// The result of a training.
pub struct Trained {
    /// The model.
    pub model: Trainable,
    /// Its losses and whatever else was measured on the way.
    pub curve: Curve,
}

/// The column of the curve with the validation loss on a source, in nats a token.
pub fn validation_column(source: &str) -> String {
    format!("validation, {source}")
}

/// The column of the curve with the share of a source's tokens for which model and teacher pick the same.
pub fn agreement_column(source: &str) -> String {
    format!("agreement, {source}")
}

impl Training<'_> {
    /// Trains to the end, from the checkpoint where there is one.
    ///
    /// # Errors
    /// When a checkpoint cannot be read or written, or the loss is NaN or infinite; the last checkpoint is whole. When a
    /// signal asked for the end, after a checkpoint of that step.
    pub fn run(&self) -> anyhow::Result<Trained> {
        self.check_weights()?;
        let path = self.folder.join("checkpoint.safetensors");
        let state = State::load(&path, |steps| self.fingerprint(steps))?;
        let mut step = state.as_ref().map_or(0, |state| state.steps);
        if let Some(state) = &state {
            let shapes = tensors_of(&self.config_at(state)).into_iter();
            state.check(&path, shapes.map(|(name, shape)| (name, shape.iter().product())))?;
        }
        let (mut model, mut optimizer, packing) = self.begin(state);
        let TrainingRecipe { prompt_weight, curriculum, .. } = *self.recipe;
        let mut packer = Packer::new(self.sources, Drawing { seed: self.seed, prompt_weight, curriculum }, packing);
        let mut picture = Picture::of_losses(&format!("{}: loss by step", self.name));
        picture.hidden.extend(self.validation.iter().map(|source| agreement_column(source.name)));
        let mut curve = Curve::open(&self.folder, "loss", picture, step)?;
        let steps = self.recipe.total_steps();
        let tokens_per_step = (self.recipe.accumulate * self.recipe.sequences * self.recipe.length) as u64;
        let mut progress = Progress::start(self.name, "tokens", step * tokens_per_step, steps * tokens_per_step);
        if step == 0 && matches!(self.objective, Objective::Distillation(_)) {
            self.validate(&model, |source, measured| record_agreement(&mut curve, 0, source, measured));
        }
        let keeping = Keeping::begin();
        while step < steps {
            self.grow(&mut model, &mut optimizer, step);
            if let Some(weights) = self.recipe.weights(step) {
                packer.weigh(weights);
            }
            // Of the first phase: what grows has grown by then.
            let done = step as f64 / self.recipe.steps.max(1) as f64;
            let (loss, gradients) = self.gradients(&model, &mut packer, step, done);
            let rate = self.recipe.rate(step);
            let norm = optimizer.step(model.parameters_mut(), &gradients, rate);
            if !loss.is_finite() || !norm.is_finite() {
                bail!(
                    "The loss of {} is no longer finite at step {}: lower `learning_rate`, or `clip`; the checkpoint {} holds the last good weights.",
                    self.name,
                    step + 1,
                    path.display()
                );
            }
            step += 1;
            curve.record(step, &[("train", loss), ("learning rate", rate), ("gradient norm", norm)]);
            let last = step == steps;
            if last || step.is_multiple_of(self.recipe.validate_every.max(1)) {
                self.validate(&model, |source, measured| {
                    curve.record(step, &[(&validation_column(source), measured.loss / measured.weight)]);
                    record_agreement(&mut curve, step, source, measured);
                });
            }
            let asked = received().is_some();
            if asked || last || step.is_multiple_of(self.recipe.save_every.max(1)) {
                // The curve first: rows past the checkpoint are measured again, but none before it.
                curve.save()?;
                State::of(step, model.parameters(), &optimizer, packer.state()).save(&path, &self.fingerprint(step))?;
            }
            progress.show(step * tokens_per_step, || format!("loss {loss:.3}, rate {rate:.1e}"));
            // A signal that comes only now gets its checkpoint with the next step.
            if asked && !last {
                keeping.check()?;
            }
        }
        progress.finish("");
        Ok(Trained { model, curve })
    }

    /// Every part of the training must have something to draw from: only here is known which sources there are.
    fn check_weights(&self) -> anyhow::Result<()> {
        let none = BTreeMap::new();
        let of_phases = self.recipe.phases.iter().map(|phase| &phase.weights);
        for (number, weights) in std::iter::once(&none).chain(of_phases).enumerate() {
            let drawn = |source: &Source<'_>| weights.get(source.name).copied().unwrap_or(source.weight) > 0.0;
            if !self.sources.iter().any(drawn) {
                let part = if number == 0 { "its first steps".to_owned() } else { format!("its phase {number}") };
                let there: Vec<&str> = self.sources.iter().map(|source| source.name).collect();
                let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
                bail!(
                    "The training of {} has nothing to learn from in {part}: give one of its sources a weight above 0; there are {there}.",
                    self.name
                );
            }
        }
        Ok(())
    }

    /// All that decided the first steps, as text. Phases that come later may still change: so a training that is done
    /// is resumed when its recipe gets another phase.
    fn fingerprint(&self, steps: u64) -> String {
        // How often a checkpoint is written changes nothing.
        let first = TrainingRecipe { phases: Vec::new(), save_every: 0, ..self.recipe.clone() };
        format!("{} {first:?} {:?}", self.fingerprint, self.recipe.begun(steps))
    }

    fn begin(&self, state: Option<State>) -> (Trainable, Optimizer, PackingState) {
        let optimizer = Optimizer::new(self.recipe.optimizer.clone(), Arc::clone(&self.place.kernels));
        let Some(state) = state else {
            let config = ModelConfig { layers: self.layers_at(0), ..self.config.clone() };
            let values = initial(&self.config, self.seed);
            return (self.trainable(config, values), optimizer, PackingState::default());
        };
        let model = self.trainable(self.config_at(&state), |name, _| state.parameters[name].clone());
        (model, optimizer.resume(state.optimizer_steps, state.moments), state.packing)
    }

    /// The shape of the model that a state is of.
    fn config_at(&self, state: &State) -> ModelConfig {
        // At the moment of growth it is still that of the shallower one.
        ModelConfig { layers: self.layers_at(state.steps.saturating_sub(1)), ..self.config.clone() }
    }

    fn trainable(&self, config: ModelConfig, values: impl FnMut(&str, &[usize]) -> Vec<f32>) -> Trainable {
        Trainable::new(config, &self.place.compute, values).with_products(self.recipe.products.into())
    }

    fn layers_at(&self, step: u64) -> usize {
        layers_at(&self.recipe.growth, self.config.layers, step as f64 / self.recipe.steps.max(1) as f64)
    }

    /// Makes the model as deep as it is to be at a step.
    fn grow(&self, model: &mut Trainable, optimizer: &mut Optimizer, step: u64) {
        let layers = self.layers_at(step);
        if model.config().layers == layers {
            return;
        }
        let config = ModelConfig { layers, ..self.config.clone() };
        // The stage that ends here.
        let stage = self.recipe.growth.iter().rfind(|stage| stage.layers == model.config().layers);
        let added = stage.map_or(Added::default(), |stage| stage.added);
        let (values, moments) = deepened(model, optimizer.moments(), layers, added);
        *model = self.trainable(config, |name, _| values.get(name).cloned().unwrap_or_default());
        *optimizer = Optimizer::new(self.recipe.optimizer.clone(), Arc::clone(&self.place.kernels))
            .resume(optimizer.steps(), moments);
    }

    /// The mean loss of a step's tokens, by their weights, and its gradients.
    fn gradients(&self, model: &Trainable, packer: &mut Packer<'_>, step: u64, done: f64) -> (f64, Gradients) {
        let TrainingRecipe { sequences, length, accumulate, .. } = *self.recipe;
        let mut samples: Vec<Sample> = (0..accumulate).map(|_| packer.next(sequences, length, done)).collect();
        let total: f64 = samples.iter().flat_map(|sample| &sample.weights).map(|weight| f64::from(*weight)).sum();
        for weight in samples.iter_mut().flat_map(|sample| &mut sample.weights) {
            *weight = (f64::from(*weight) / total.max(f64::MIN_POSITIVE)) as f32;
        }
        let exits = self.recipe.early_exits(step);
        let exits = exits.map(|recipe| Exits::of_step(recipe, self.seed, step, model.config().layers));
        let mut sum = Gradients::new();
        let mut loss = 0.0;
        for sample in &samples {
            let (more, gradients) = gradients(model, self.objective, sample, exits.as_ref());
            loss += more;
            for (name, gradient) in gradients {
                match sum.entry(name) {
                    std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(gradient)),
                    std::collections::btree_map::Entry::Occupied(mut entry) => {
                        self.place.kernels.add_into(entry.get_mut(), &gradient);
                    }
                }
            }
        }
        (loss, sum)
    }

    /// Measures the model on every validation source and hands what came out to `take`, with the source's name.
    fn validate(&self, model: &Trainable, mut take: impl FnMut(&str, Measured)) {
        for source in self.validation.iter().filter(|source| source.shard.documents() > 0) {
            let mut packer = Packer::new(std::slice::from_ref(source), VALIDATION, PackingState::default());
            let mut sum = Measured::default();
            for _ in 0..self.recipe.validate_on.div_ceil(self.recipe.sequences).max(1) {
                let sample = packer.next(self.recipe.sequences, self.recipe.length, 0.0);
                let Measured { weight, loss, agreed } = measure(model, self.objective, &sample);
                sum.weight += weight;
                sum.loss += loss;
                sum.agreed = agreed.map(|agreed| agreed + sum.agreed.unwrap_or_default());
            }
            sum.weight = sum.weight.max(f64::MIN_POSITIVE);
            take(source.name, sum);
        }
    }
}

fn record_agreement(curve: &mut Curve, step: u64, source: &str, measured: Measured) {
    if let Some(agreed) = measured.agreed {
        curve.record(step, &[(&agreement_column(source), agreed / measured.weight)]);
    }
}

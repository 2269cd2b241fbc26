//! Training of exit heads from activations.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use burn::tensor::{Tensor, TensorData};
use paceline::checkpoint::{FINAL_NORM, exit_tensors};
use paceline::model::{Model, Parameters, Trainable};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Activations;
use crate::curve::{Curve, Picture};
use crate::device::Place;
use crate::initial::initial;
use crate::optimizer::{Optimizer, into_values};
use crate::packing::PackingState;
use crate::progress::Progress;
use crate::settings::ExitsRecipe;
use crate::state::State;

/// Rows that are computed together where nothing is learned.
pub(super) const CHUNK: usize = 256;
/// Held-out rows whose loss the curve shows.
const SHOWN: usize = 2048;

/// Inputs of a training of heads.
pub struct HeadTraining<'a> {
    /// The recipe of their training.
    pub recipe: &'a ExitsRecipe,
    /// The model, which stays as it is.
    pub trunk: &'a Trainable,
    /// Where it computes.
    pub place: &'a Place,
    /// The seed of all randomness.
    pub seed: u64,
    /// Where checkpoint and curve go.
    pub folder: &'a Path,
    /// Settings, model and data as text, by which a checkpoint of another training is told.
    pub fingerprint: String,
}

impl HeadTraining<'_> {
    /// Trains to the end, from the checkpoint where there is one. Returns the heads.
    ///
    /// # Errors
    /// When a checkpoint cannot be read or written, or the loss is not finite; the last checkpoint is whole.
    pub fn run(&self, known: &Activations, held_out: &Activations) -> anyhow::Result<Parameters> {
        let path = self.folder.join("checkpoint.safetensors");
        let (steps, batch) = (self.recipe.steps, self.recipe.batch);
        let state = State::load(&path, |_| self.fingerprint.clone())?;
        if let Some(state) = &state {
            state.check(&path, self.shapes().into_iter().map(|(name, shape)| (name, shape.iter().product())))?;
        }
        let mut step = state.as_ref().map_or(0, |state| state.steps);
        let (mut heads, mut optimizer) = self.begin(state);
        let model = self.trunk.model(true);
        let mut order = Order::new(known.rows(), self.seed);
        let mut curve = Curve::open(self.folder, "loss", Picture::of_losses("exits: loss by step"), step)?;
        let mut progress = Progress::start("exits", "steps", step, steps);
        while step < steps {
            let rows = order.rows(step * batch as u64, batch);
            let losses = self.losses(&model, &heads, known, &rows);
            let whole =
                losses.iter().cloned().reduce(|sum, loss| sum + loss).expect("a recipe names at least one depth");
            let gradients = heads.gradients(&whole);
            let rate = self.recipe.schedule.at(step, steps);
            let norm = optimizer.step(&mut heads, &gradients, rate);
            let losses: Vec<f64> = losses.into_iter().map(value).collect();
            let sum: f64 = losses.iter().sum();
            if !sum.is_finite() || !norm.is_finite() {
                bail!(
                    "The loss of the exits is no longer finite at step {}: lower `learning_rate`, or `clip`; the checkpoint {} holds the last good heads.",
                    step + 1,
                    path.display()
                );
            }
            step += 1;
            let last = step == steps;
            self.record(&mut curve, step, "", &losses);
            curve.record(step, &[("learning rate", rate), ("gradient norm", norm)]);
            if last || step.is_multiple_of(self.recipe.save_every.max(1)) {
                self.record(&mut curve, step, "held out, ", &self.held_out(&model, &heads, held_out));
                // As in every training: the curve first.
                curve.save()?;
                State::of(step, &heads, &optimizer, &PackingState::default()).save(&path, &self.fingerprint)?;
            }
            progress.show(step, || format!("loss {:.3}, rate {rate:.1e}", sum / losses.len() as f64));
        }
        progress.finish("");
        Ok(heads)
    }

    fn begin(&self, state: Option<State>) -> (Parameters, Optimizer) {
        let optimizer = Optimizer::new(self.recipe.optimizer.clone(), Arc::clone(&self.place.kernels));
        match state {
            None => (untrained(self.trunk, self.recipe, self.place, self.seed), optimizer),
            Some(State { parameters, moments, optimizer_steps, .. }) => {
                let heads = Parameters::new(self.shapes(), &self.place.compute, |name, _| parameters[name].clone());
                (heads, optimizer.resume(optimizer_steps, moments))
            }
        }
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        shapes(self.recipe, self.trunk.config().hidden_size)
    }

    /// The mean loss of some rows for each depth, `[1, 1]`: `T^2 KL(model, head) + alignment (1 - cos)`.
    fn losses(&self, model: &Model, heads: &Parameters, from: &Activations, rows: &[usize]) -> Vec<Tensor<2>> {
        let place = |state| {
            let values = from.gather(state, rows.iter().copied());
            Tensor::<2>::from_data(TensorData::new(values, [rows.len(), from.width()]), heads.device())
        };
        let last = place(from.last());
        let teacher = model.logits(last.clone());
        let weights = vec![1.0 / rows.len() as f32; rows.len()];
        let of_depth = |(state, depth): (usize, &usize)| {
            let (states, logits) = model.exit(heads, *depth, place(state));
            let missing = model.soft_cross_entropy(logits, teacher.clone(), self.recipe.temperature, &weights);
            let unlike = (cosines(states, last.clone()).mean().neg() + 1.0).reshape([1, 1]);
            missing + unlike * self.recipe.alignment
        };
        self.recipe.depths.iter().enumerate().map(of_depth).collect()
    }

    /// The mean loss of held-out rows for each depth.
    fn held_out(&self, model: &Model, heads: &Parameters, from: &Activations) -> Vec<f64> {
        let heads = &heads.frozen();
        let most = from.rows().min(SHOWN);
        let mut sums = vec![0.0; self.recipe.depths.len()];
        for start in (0..most).step_by(CHUNK) {
            let rows: Vec<usize> = (start..most.min(start + CHUNK)).collect();
            for (sum, loss) in sums.iter_mut().zip(self.losses(model, heads, from, &rows)) {
                *sum += value(loss) * rows.len() as f64 / most as f64;
            }
        }
        sums
    }

    fn record(&self, curve: &mut Curve, step: u64, before: &str, losses: &[f64]) {
        for (depth, loss) in self.recipe.depths.iter().zip(losses) {
            curve.record(step, &[(&format!("{before}exit:{depth}"), *loss)]);
        }
    }
}

/// Names and shapes of the heads' tensors.
fn shapes(recipe: &ExitsRecipe, hidden: usize) -> Vec<(String, Vec<usize>)> {
    recipe.depths.iter().flat_map(|depth| exit_tensors(*depth, recipe.rank, hidden)).collect()
}

/// Heads that do what the model's own norm does: `up` is zero, so nothing is added yet.
fn untrained(trunk: &Trainable, recipe: &ExitsRecipe, place: &Place, seed: u64) -> Parameters {
    let hidden = trunk.config().hidden_size;
    let offset = trunk.config().norm_offset;
    let norm = trunk.parameters().get(FINAL_NORM).map(|norm| into_values(norm.clone().inner() + offset));
    let random = initial(trunk.config(), seed);
    Parameters::new(shapes(recipe, hidden), &place.compute, |name, shape| match name.rsplit('.').nth(1) {
        Some("norm") => norm.clone().unwrap_or_else(|| vec![1.0; hidden]),
        Some("up") => vec![0.0; shape.iter().product()],
        _ => random(name, shape),
    })
}

/// The cosine of every row of `x` with that of `y`, `[rows, 1]`, for both `[rows, width]`.
fn cosines(x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    let squared = |x: Tensor<2>| x.clone().mul(x).sum_dim(1);
    let lengths = (squared(x.clone()) * squared(y.clone()) + 1e-12).sqrt();
    x.mul(y).sum_dim(1) / lengths
}

/// The value of a tensor `[1, 1]`.
fn value(tensor: Tensor<2>) -> f64 {
    f64::from(into_values(tensor.inner())[0])
}

/// Rows in an order of its own for every pass over them.
struct Order {
    seed: u64,
    pass: Option<u64>,
    rows: Vec<usize>,
}

impl Order {
    fn new(rows: usize, seed: u64) -> Self {
        Self { seed, pass: None, rows: (0..rows).collect() }
    }

    /// `count` rows from place `start` of the order on, counted over all passes.
    fn rows(&mut self, start: u64, count: usize) -> Vec<usize> {
        let all = self.rows.len() as u64;
        (start..start + count as u64).map(|place| self.of_pass(place / all)[(place % all) as usize]).collect()
    }

    fn of_pass(&mut self, pass: u64) -> &[usize] {
        if self.pass != Some(pass) {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x726f_7773);
            random.set_stream(pass);
            let all = self.rows.len();
            self.rows = (0..all).collect();
            self.rows.shuffle(&mut random);
            self.pass = Some(pass);
        }
        &self.rows
    }
}

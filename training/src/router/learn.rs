//! Training of the router: first to predict, then through the decision.
//!
//! Acceptance is learned by a binomial likelihood whose weight falls with the answer's length as that of a beta-binomial does
//! (quasi-likelihood, Williams 1982): tokens of one answer are alike. Then the expected cost of the decision is made smaller,
//! `sum over plans of softmax(-J / tau) J_true`, where `J` is the cost that predictions lead to and `J_true` the one that the
//! replay had, on machines drawn from several.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use burn::tensor::activation::{log_softmax, relu, softmax, softplus};
use burn::tensor::{Device, Int, Tensor, TensorData};
use paceline::model::Parameters;
use paceline_router::features::NUMBERS;
use paceline_router::network::{Batch, LEARNED, LEVELS, MEAN, Network, Outputs, SCALE, Shape};
use paceline_router::{Features, Group};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::examples::{Example, Examples, without};
use crate::curve::{Curve, Picture};
use crate::device::Place;
use crate::optimizer::{Optimizer, into_values};
use crate::packing::PackingState;
use crate::progress::Progress;
use crate::settings::RouterRecipe;
use crate::state::State;

/// Correlation of the tokens of one answer, that of the beta-binomial.
const ALIKE: f64 = 0.1;
/// Weight of each part of the loss.
const DIFFICULTY: f64 = 0.3;
const LOSS: f64 = 0.3;
const LENGTH: f64 = 0.05;
const COST: f64 = 20.0;
/// The name of what makes effective acceptances of acceptances, `[2, drafters]`.
const STOPPING: &str = "stopping";
/// The log-odds between which costs are tabled, and their distance.
const GRID: (f64, f64, f64) = (-7.0, 9.0, 0.25);

/// Inputs of a training of the router.
pub struct Learning<'a> {
    /// The recipe of the training.
    pub recipe: &'a RouterRecipe,
    /// From what.
    pub examples: &'a Examples,
    /// The network's sizes.
    pub shape: Shape,
    /// The group of features that it does not get.
    pub without: Option<Group>,
    /// Where it computes.
    pub place: &'a Place,
    /// The seed of all randomness.
    pub seed: u64,
    /// Where checkpoint and curve go.
    pub folder: PathBuf,
    /// All that decides what is learned, as text.
    pub fingerprint: String,
}

/// The result of a training.
pub struct Learned {
    /// The network, on the device it is used on.
    pub network: Network,
    /// Coefficients that turn log-odds of acceptance into those of effective acceptance, by drafter.
    pub stopping: Vec<[f64; 2]>,
}

impl Learning<'_> {
    /// Learns to the end, from the checkpoint where there is one.
    ///
    /// # Errors
    /// When a checkpoint cannot be read or written, or the loss is not finite.
    pub fn run(&self) -> anyhow::Result<Learned> {
        std::fs::create_dir_all(&self.folder)?;
        let path = self.folder.join("checkpoint.safetensors");
        let state = State::load(&path, |_| self.fingerprint.clone());
        // Minutes at most: what belongs to other traces begins anew.
        let state = match state {
            Err(crate::state::StateError::OtherRecipe { .. }) => None,
            other => other?,
        };
        let shapes = || {
            let learned = LEARNED.map(|name| self.shape.tensors().into_iter().find(|(known, _)| *known == name));
            let learned = learned.into_iter().flatten().map(|(name, shape)| (name.to_owned(), shape.to_vec()));
            learned.chain([(STOPPING.to_owned(), vec![2, self.shape.drafters])]).collect::<Vec<_>>()
        };
        if let Some(state) = &state {
            state.check(&path, shapes().into_iter().map(|(name, shape)| (name, shape.iter().product())))?;
        }
        let mut step = state.as_ref().map_or(0, |state| state.steps);
        let optimizer = Optimizer::new(self.recipe.optimizer.clone(), Arc::clone(&self.place.kernels));
        let (mut parameters, mut optimizer) = match state {
            None => {
                let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x726f_7574_6572);
                let initial = |name: &str, shape: &[usize]| -> Vec<f32> {
                    let count = shape.iter().product();
                    match name {
                        STOPPING => (0..count).map(|place| f32::from(u8::from(place >= count / 2))).collect(),
                        _ if name.ends_with("bias") => vec![0.0; count],
                        _ => {
                            let inputs = if name == LEARNED[0] { shape[1] } else { shape[0] };
                            let width = (3.0 / inputs as f32).sqrt();
                            (0..count).map(|_| random.random_range(-width..width)).collect()
                        }
                    }
                };
                (Parameters::new(shapes(), &self.place.compute, initial), optimizer)
            }
            Some(State { parameters, moments, optimizer_steps, .. }) => {
                let known = Parameters::new(shapes(), &self.place.compute, |name, _| parameters[name].clone());
                (known, optimizer.resume(optimizer_steps, moments))
            }
        };
        let train: Vec<Features> =
            self.examples.train.iter().map(|example| without(&example.trace.features, self.without)).collect();
        let (mean, scale) = standard(&train);
        let fixed = |device: &Device| {
            [(MEAN, &mean), (SCALE, &scale)].map(|(name, values)| {
                (name, Tensor::<2>::from_data(TensorData::new(values.clone(), [1, values.len()]), device))
            })
        };
        let on_device = fixed(parameters.device());
        let network = |parameters: &Parameters| {
            Network::new(self.shape, |name| {
                let fixed = on_device.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor.clone());
                fixed.or_else(|| parameters.get(name).cloned()).expect("every tensor is learned or fixed")
            })
        };
        let tables = self.tables(parameters.device());
        let all = self.recipe.steps + self.recipe.decide;
        let title = self.without.map_or("router".to_owned(), |group| format!("router without {}", group.name()));
        let mut curve = Curve::open(&self.folder, "loss", Picture::of_losses(&format!("{title}: loss by step")), step)?;
        let mut progress = Progress::start(&title, "steps", step, all);
        while step < all {
            let decides = step >= self.recipe.steps;
            if step == self.recipe.steps {
                let learned = network(&parameters);
                self.fit_stopping(&mut parameters, &learned, &train);
            }
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(step + 1);
            // Easy and short ones first: they stand first.
            let done = step as f64 / (self.recipe.curriculum * self.recipe.steps as f64).max(1.0);
            let known = ((train.len() as f64 * (0.3 + 0.7 * done)) as usize).clamp(1, train.len());
            let drawn: Vec<usize> = (0..self.recipe.batch).map(|_| random.random_range(0..known)).collect();
            let machine = *(0..self.examples.machines.len()).collect::<Vec<_>>().choose(&mut random).unwrap_or(&0);
            let features: Vec<&Features> = drawn.iter().map(|place| &train[*place]).collect();
            let examples: Vec<&Example> = drawn.iter().map(|place| &self.examples.train[*place]).collect();
            let outputs = network(&parameters).forward(Batch::new(&features, parameters.device()));
            let decision = decides.then(|| {
                let stopping = parameters.get(STOPPING).cloned().expect("it is among the parameters");
                self.decision(&outputs, &stopping, &examples, machine, &tables)
            });
            let parts = self.losses(outputs, &examples);
            let mut named =
                vec![("acceptance", parts[0].clone()), ("difficulty", parts[1].clone()), ("length", parts[3].clone())];
            named.push(("lossy", parts[2].clone()));
            let [acceptance, difficulty, lossy, length] = parts;
            let mut loss = acceptance + difficulty * DIFFICULTY + lossy * LOSS + length * LENGTH;
            if let Some([regret, error]) = decision {
                named.extend([("cost of decisions", regret.clone()), ("squared error of costs", error.clone())]);
                loss = loss + regret + error * COST;
            }
            let gradients = parameters.gradients(&loss);
            let rate = self.recipe.schedule.at(step, all);
            let norm = optimizer.step(&mut parameters, &gradients, rate);
            let loss = value(loss);
            if !loss.is_finite() || !norm.is_finite() {
                bail!(
                    "The loss of the router is no longer finite at step {}: lower `learning_rate` of [router].",
                    step + 1
                );
            }
            step += 1;
            if step.is_multiple_of(10) || step == all {
                let named: Vec<(&str, f64)> = named.into_iter().map(|(name, part)| (name, value(part))).collect();
                curve.record(step, &named);
            }
            if step == all || step.is_multiple_of(self.recipe.save_every) {
                curve.save()?;
                State::of(step, &parameters, &optimizer, &PackingState::default()).save(&path, &self.fingerprint)?;
            }
            progress.show(step, || format!("loss {loss:.4}"));
        }
        progress.finish("");
        let device = Device::flex();
        let fixed = fixed(&device);
        let values = parameters.values();
        let network = Network::new(self.shape, |name| {
            let fixed = fixed.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor.clone());
            fixed.unwrap_or_else(|| {
                let shape = self
                    .shape
                    .tensors()
                    .into_iter()
                    .find(|(known, _)| *known == name)
                    .map_or([0, 0], |(_, shape)| shape);
                Tensor::from_data(TensorData::new(values[name].clone(), shape), &device)
            })
        });
        let drafters = self.shape.drafters;
        let stopping = &values[STOPPING];
        let stopping = (0..drafters).map(|place| [f64::from(stopping[place]), f64::from(stopping[drafters + place])]);
        Ok(Learned { network, stopping: stopping.collect() })
    }

    /// Acceptance, difficulty, lossy plans and length, `[1, 1]` each.
    fn losses(&self, outputs: Outputs, examples: &[&Example]) -> [Tensor<2>; 4] {
        let device = outputs.difficulty.device();
        let prompts = examples.len();
        let matrix = |width: usize, values: &mut dyn Iterator<Item = f64>| {
            let values: Vec<f32> = values.map(|value| value as f32).collect();
            Tensor::<2>::from_data(TensorData::new(values, [prompts, width]), &device)
        };
        let mean = |tensor: Tensor<2>| tensor.mean().reshape([1, 1]);
        let drafters = self.shape.drafters;
        let shares = matrix(
            drafters,
            &mut examples.iter().flat_map(|example| example.counts.iter().map(|[all, right]| right / all.max(1.0))),
        );
        let weights = matrix(
            drafters,
            &mut examples
                .iter()
                .flat_map(|example| example.counts.iter().map(|[all, _]| all / (1.0 + (all - 1.0) * ALIKE) * ALIKE)),
        );
        let acceptance = mean((softplus(outputs.acceptance.clone(), 1.0) - outputs.acceptance * shares) * weights);
        let classes = matrix(
            LEVELS.len(),
            &mut examples
                .iter()
                .flat_map(|example| (0..LEVELS.len()).map(|class| f64::from(u8::from(class == example.level)))),
        );
        let difficulty = mean(log_softmax(outputs.difficulty, 1).mul(classes).sum_dim(1).neg());
        let lossy = match self.shape.lossy {
            0 => Tensor::zeros([1, 1], &device),
            plans => {
                let lost = matrix(plans, &mut examples.iter().flat_map(|example| example.lost.iter().copied()));
                mean(softplus(outputs.loss.clone(), 1.0) - outputs.loss * lost)
            }
        };
        let lengths = matrix(1, &mut examples.iter().map(|example| (example.trace.places() as f64).ln()));
        let missed = outputs.length - lengths;
        [acceptance, difficulty, lossy, mean(missed.clone() * missed)]
    }

    /// For each machine and drafter, its cost in units of plain decoding at the log-odds of [`GRID`], `[grid, 1]`.
    fn tables(&self, device: &Device) -> Vec<Vec<Tensor<2>>> {
        let points: Vec<f64> = grid().collect();
        let table = |machine: &paceline_router::CostTable, drafter: &String| {
            let plain = machine.steps.first().copied().unwrap_or(1.0);
            let cost = |odds: &f64| {
                let acceptance = paceline_router::router::sigmoid(*odds);
                machine.prices(drafter).map_or(1.0, |prices| prices.seconds_per_token(acceptance) / plain) as f32
            };
            let values: Vec<f32> = points.iter().map(cost).collect();
            Tensor::from_data(TensorData::new(values, [points.len(), 1]), device)
        };
        let of = |machine| self.examples.drafters.iter().map(|drafter| table(machine, drafter)).collect();
        self.examples.machines.iter().map(of).collect()
    }

    /// The expected cost of decisions, and the mean squared error of the costs they go by, `[1, 1]` each.
    fn decision(
        &self,
        outputs: &Outputs,
        stopping: &Tensor<2>,
        examples: &[&Example],
        machine: usize,
        tables: &[Vec<Tensor<2>>],
    ) -> [Tensor<2>; 2] {
        let device = outputs.acceptance.device();
        let (prompts, drafters) = (examples.len(), self.shape.drafters);
        let first = |row: i64| stopping.clone().select(0, Tensor::<1, Int>::from_data([row], &device));
        let odds = first(0) + first(1) * outputs.acceptance.clone();
        let odds = odds.clamp(GRID.0 + 0.01, GRID.1 - 0.01);
        let points: Vec<f32> = grid().map(|point| point as f32).collect();
        let points = Tensor::<2>::from_data(TensorData::new(points.clone(), [1, points.len()]), &device);
        let own = &self.examples.machines[machine];
        let plain = own.steps.first().copied().unwrap_or(1.0);
        let mut costs = Vec::with_capacity(drafters + 1);
        for (place, drafter) in self.examples.drafters.iter().enumerate() {
            let odds = odds.clone().select(1, Tensor::<1, Int>::from_data([place as i64], &device));
            // Between two points of the table, the line through them.
            let near = relu(((odds - points.clone()).abs() / GRID.2 as f32).neg() + 1.0);
            let reading = own.drafters.get(drafter).map_or(0.0, |cost| cost.reading);
            let reading = examples.iter().map(|example| {
                (reading * example.trace.asked.tokens as f64 / example.trace.places() as f64 / plain) as f32
            });
            let reading = Tensor::<2>::from_data(TensorData::new(reading.collect::<Vec<f32>>(), [prompts, 1]), &device);
            costs.push(near.matmul(tables[machine][place].clone()) + reading);
        }
        let known = examples.iter().flat_map(|example| example.cost[machine].iter().map(|cost| *cost as f32));
        let known = Tensor::<2>::from_data(TensorData::new(known.collect::<Vec<f32>>(), [prompts, drafters]), &device);
        let drafting = Tensor::cat(costs, 1);
        let missed = drafting.clone() - known.clone();
        let error = (missed.clone() * missed).mean().reshape([1, 1]);
        let plain = Tensor::<2>::ones([prompts, 1], &device);
        let expected = Tensor::cat(vec![drafting, plain.clone()], 1);
        let known = Tensor::cat(vec![known, plain], 1);
        let chosen = softmax(expected.neg() / self.recipe.sharpness as f32, 1);
        [(chosen * known).sum_dim(1).mean().reshape([1, 1]), error]
    }

    /// Sets what makes effective acceptances of acceptances by least squares in log-odds.
    fn fit_stopping(&self, parameters: &mut Parameters, network: &Network, train: &[Features]) {
        let drafters = self.shape.drafters;
        let device = parameters.device().clone();
        let mut sums = vec![[0.0_f64; 5]; drafters];
        for (chunk, examples) in train.chunks(256).zip(self.examples.train.chunks(256)) {
            let odds =
                into_values(network.forward(Batch::new(&chunk.iter().collect::<Vec<_>>(), &device)).acceptance.inner());
            for (odds, example) in odds.chunks_exact(drafters).zip(examples) {
                let weight = example.trace.places() as f64;
                for ((sums, odds), effective) in sums.iter_mut().zip(odds).zip(&example.effective[0]) {
                    let (x, y) = (f64::from(*odds), effective.clamp(-5.0, 6.0));
                    let terms = [1.0, x, y, x * x, x * y];
                    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += weight * term);
                }
            }
        }
        let mut stopping = vec![0.0; 2 * drafters];
        for (place, [w, x, y, xx, xy]) in sums.into_iter().enumerate() {
            let spread = xx - x * x / w;
            let factor = if spread > 1e-6 * w { (xy - x * y / w) / spread } else { 0.0 };
            stopping[place] = ((y - factor * x) / w) as f32;
            stopping[drafters + place] = factor as f32;
        }
        parameters.update(|name, tensor| match name {
            STOPPING => Tensor::from_data(TensorData::new(stopping.clone(), [2, drafters]), &tensor.device()),
            _ => tensor,
        });
    }
}

fn grid() -> impl Iterator<Item = f64> {
    let count = ((GRID.1 - GRID.0) / GRID.2) as usize;
    (0..=count).map(|place| GRID.0 + GRID.2 * place as f64)
}

fn value(tensor: Tensor<2>) -> f64 {
    f64::from(into_values(tensor.inner())[0])
}

/// The means of the numbers, and what numbers and marks of missing ones are multiplied with: the inverse of their standard
/// deviation, and 0 where nothing varies, so that nothing is made of what was never seen to.
fn standard(prompts: &[Features]) -> (Vec<f32>, Vec<f32>) {
    let (mut means, mut scales, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for place in 0..NUMBERS.len() {
        let known: Vec<f64> = prompts
            .iter()
            .map(|features| f64::from(features.numbers[place]))
            .filter(|value| value.is_finite())
            .collect();
        let count = known.len().max(1) as f64;
        let mean = known.iter().sum::<f64>() / count;
        let deviation = (known.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
        means.push(mean as f32);
        scales.push(if deviation > 1e-4 { (1.0 / deviation) as f32 } else { 0.0 });
        marks.push(f32::from(u8::from(!known.is_empty() && known.len() < prompts.len())));
    }
    scales.extend(marks);
    (means, scales)
}

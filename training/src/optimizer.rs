//! AdamW over a model's parameters, or Muon over its inner matrices, with the norm of the whole gradient clipped.

mod orthogonal;

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use paceline::model::Parameters;
use paceline_kernels::{AdamWSettings, Kernels};

use self::orthogonal::orthogonalized;
use crate::settings::OptimizerSettings;

/// Gradients by the names of their parameters.
pub type Gradients = BTreeMap<String, Vec<f32>>;

/// The running means of a parameter's gradient and of its square.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moments {
    /// Of the gradient.
    pub first: Vec<f32>,
    /// Of its square; empty where Muon moves the parameter.
    pub second: Vec<f32>,
}

/// AdamW (Loshchilov and Hutter 2019), and Muon (Jordan et al. 2024) in the form that shares its learning rate and decay
/// (Liu et al. 2025). Its state is on the host, wherever the model is.
pub struct Optimizer {
    settings: OptimizerSettings,
    kernels: Arc<Kernels>,
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

impl Optimizer {
    /// An optimizer before its first step.
    pub fn new(settings: OptimizerSettings, kernels: Arc<Kernels>) -> Self {
        Self { settings, kernels, steps: 0, moments: BTreeMap::new() }
    }

    /// An optimizer after so many steps.
    pub fn resume(mut self, steps: u64, moments: BTreeMap<String, Moments>) -> Self {
        (self.steps, self.moments) = (steps, moments);
        self
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The running means, by parameter.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Moves the parameters against `gradients`. Returns the gradient's norm before it was clipped; where that is not
    /// finite, nothing has changed.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &Gradients, learning_rate: f64) -> f64 {
        let slices: Vec<&[f32]> = gradients.values().map(Vec::as_slice).collect();
        let norm = self.kernels.global_norm_squared(&slices).sqrt();
        if !norm.is_finite() {
            return norm;
        }
        self.steps += 1;
        let gradient_scale = if norm > self.settings.clip { (self.settings.clip / norm) as f32 } else { 1.0 };
        let (settings, kernels, steps) = (&self.settings, &self.kernels, self.steps);
        let moments = &mut self.moments;
        parameters.update(|name, parameter| {
            let Some(gradient) = gradients.get(name) else { return parameter };
            let [rows, width] = parameter.dims();
            let device = parameter.device();
            let zeros = || vec![0.0; gradient.len()];
            let muon = settings.muon.filter(|_| is_inner_matrix(name, rows));
            let moments = moments.entry(name.to_owned()).or_insert_with(|| Moments {
                first: zeros(),
                second: if muon.is_some() { Vec::new() } else { zeros() },
            });
            let mut values = into_values(parameter);
            let settings = AdamWSettings {
                learning_rate: learning_rate as f32,
                beta1: settings.beta_1,
                beta2: settings.beta_2,
                epsilon: settings.epsilon,
                weight_decay: if rows == 1 { 0.0 } else { settings.weight_decay },
                gradient_scale,
            };
            match muon {
                Some(momentum) => {
                    muon_step(kernels, &mut values, gradient, &mut moments.first, momentum, [rows, width], &settings);
                }
                None => {
                    kernels.adamw_step(
                        &mut values,
                        gradient,
                        &mut moments.first,
                        &mut moments.second,
                        &settings,
                        steps,
                    );
                }
            }
            Tensor::from_data(TensorData::new(values, [rows, width]), &device)
        });
        norm
    }
}

/// The beginning of the names of parameters inside of layers.
pub const LAYERS: &str = "model.layers.";

/// True if a parameter is a matrix that maps hidden states to hidden states.
fn is_inner_matrix(name: &str, rows: usize) -> bool {
    rows > 1 && name.starts_with(LAYERS)
}

/// The root mean square of AdamW's steps, to which those of Muon are brought (Liu et al. 2025).
const STEP_SIZE: f32 = 0.2;

/// Moves a matrix of `shape` against its running mean, looked ahead by a step (Nesterov), with singular values of one.
fn muon_step(
    kernels: &Kernels,
    values: &mut [f32],
    gradient: &[f32],
    mean: &mut [f32],
    momentum: f32,
    [rows, width]: [usize; 2],
    settings: &AdamWSettings,
) {
    let ahead = |(mean, gradient): (&mut f32, &f32)| {
        let gradient = gradient * settings.gradient_scale;
        *mean = momentum * *mean + (1.0 - momentum) * gradient;
        momentum * *mean + (1.0 - momentum) * gradient
    };
    let direction: Vec<f32> = mean.iter_mut().zip(gradient).map(ahead).collect();
    let step = orthogonalized(kernels, &direction, rows, width);
    let by = settings.learning_rate * STEP_SIZE * (rows.max(width) as f32).sqrt();
    let kept = 1.0 - settings.learning_rate * settings.weight_decay;
    values.iter_mut().zip(step).for_each(|(value, step)| *value = *value * kept - by * step);
}

/// The values of a tensor, row-major.
pub fn into_values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("parameters are f32")
}

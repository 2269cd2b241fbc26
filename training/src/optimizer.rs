//! AdamW over named parameters, with the norm of the whole gradient clipped.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use paceline::model::Parameters;
use paceline_kernels::{AdamWSettings, Kernels};
use serde::{Deserialize, Serialize};

/// What the optimizer goes by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// How much of the running mean of gradients a step keeps.
    pub beta_1: f32,
    /// How much of the running mean of their squares a step keeps.
    pub beta_2: f32,
    /// What is added to the root of the latter.
    pub epsilon: f32,
    /// Decay of matrices per step, in units of the learning rate; vectors do not decay.
    pub weight_decay: f32,
    /// The largest norm of the whole gradient; a longer one is shortened to it.
    pub clip: f64,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip: 1.0 }
    }
}

/// Gradients by the names of their parameters.
pub type Gradients = BTreeMap<String, Vec<f32>>;

/// The running means of a parameter's gradient and of its square.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moments {
    /// Of the gradient.
    pub first: Vec<f32>,
    /// Of its square.
    pub second: Vec<f32>,
}

/// AdamW (Loshchilov and Hutter 2019). Its state is on the host, wherever the model is.
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
            let moments = moments.entry(name.to_owned()).or_insert_with(|| Moments { first: zeros(), second: zeros() });
            let mut values = into_values(parameter);
            let settings = AdamWSettings {
                learning_rate: learning_rate as f32,
                beta1: settings.beta_1,
                beta2: settings.beta_2,
                epsilon: settings.epsilon,
                weight_decay: if rows == 1 { 0.0 } else { settings.weight_decay },
                gradient_scale,
            };
            kernels.adamw_step(&mut values, gradient, &mut moments.first, &mut moments.second, &settings, steps);
            Tensor::from_data(TensorData::new(values, [rows, width]), &device)
        });
        norm
    }
}

/// The values of a tensor, row-major.
pub fn into_values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("parameters are f32")
}

//! AdamW over a model's parameters, with the norm of the whole gradient clipped.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use paceline::model::Trainable;
use paceline_kernels::{AdamWSettings, Kernels};
use serde::{Deserialize, Serialize};

/// What the optimizer goes by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// How quickly the mean of gradients forgets.
    pub beta_1: f32,
    /// How quickly the mean of their squares forgets.
    pub beta_2: f32,
    /// What is added to the root of the latter.
    pub epsilon: f32,
    /// Decay of matrices, in units of the learning rate; vectors do not decay.
    pub weight_decay: f32,
    /// The largest norm of the whole gradient; a longer one is shortened to it.
    pub clip: f32,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip: 1.0 }
    }
}

/// The two running means of a parameter's gradient.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moments {
    /// Of the gradient.
    pub first: Vec<f32>,
    /// Of its square.
    pub second: Vec<f32>,
}

/// AdamW (Loshchilov and Hutter 2019). Its state is on the host.
pub struct Optimizer {
    settings: OptimizerSettings,
    kernels: Arc<Kernels>,
    /// Steps done.
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

/// Gradients by the names of their parameters, on the host.
pub type Gradients = BTreeMap<String, Vec<f32>>;

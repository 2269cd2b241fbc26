//! Losses over logits whose gradient is computed with them.

use std::sync::Arc;

use burn::tensor::Tensor;
use paceline_kernels::{Kernels, SoftTargets};

use super::differentiable::{Differentiable, Values, apply, dims, slice, tensor};

/// The sum over rows of `weight * -ln p(target)`, `[1, 1]`, for logits `[rows, vocabulary]`.
pub(in crate::model) fn cross_entropy(
    logits: Tensor<2>,
    targets: &[u32],
    weights: &[f32],
    kernels: &Arc<Kernels>,
) -> Tensor<2> {
    let loss = CrossEntropy { targets: targets.to_vec(), weights: weights.to_vec(), kernels: Arc::clone(kernels) };
    apply([logits], loss)
}

struct CrossEntropy {
    targets: Vec<u32>,
    weights: Vec<f32>,
    kernels: Arc<Kernels>,
}

impl Differentiable for CrossEntropy {
    fn forward(&self, inputs: Vec<Values>) -> (Values, Vec<Values>) {
        let mut logits = inputs.into_iter().next().expect("one input");
        // In place where nobody else holds the logits.
        let mut losses = vec![0.0; self.weights.len()];
        let sum = self.kernels.softmax_cross_entropy(logits.storage_mut(), &self.targets, &self.weights, &mut losses);
        (tensor(vec![sum as f32], 1, 1), vec![logits])
    }

    fn backward(&self, kept: Vec<Values>, gradient: Values, _: &[bool]) -> Vec<Option<Values>> {
        vec![kept.into_iter().next().map(|d_logits| scaled(d_logits, slice(&gradient)[0]))]
    }
}

/// The sum over rows of `weight * temperature^2 * -sum(q ln p)`, `[1, 1]`, with the softmax p of `logits / temperature`,
/// `[rows, vocabulary]`, and the distributions q in `probabilities`, of the same shape. Those have no gradient.
pub(in crate::model) fn soft_cross_entropy(
    logits: Tensor<2>,
    probabilities: Vec<f32>,
    temperature: f32,
    weights: &[f32],
    kernels: &Arc<Kernels>,
) -> Tensor<2> {
    let kernels = Arc::clone(kernels);
    apply([logits], SoftCrossEntropy { probabilities, temperature, weights: weights.to_vec(), kernels })
}

struct SoftCrossEntropy {
    probabilities: Vec<f32>,
    temperature: f32,
    weights: Vec<f32>,
    kernels: Arc<Kernels>,
}

impl Differentiable for SoftCrossEntropy {
    fn forward(&self, inputs: Vec<Values>) -> (Values, Vec<Values>) {
        let logits = inputs.into_iter().next().expect("one input");
        let mut logits = scaled(logits, self.temperature.recip());
        let mut losses = vec![0.0; self.weights.len()];
        let targets = SoftTargets::All(&self.probabilities);
        let sum = self.kernels.soft_cross_entropy(logits.storage_mut(), targets, &self.weights, &mut losses);
        (tensor(vec![sum as f32 * self.temperature.powi(2)], 1, 1), vec![logits])
    }

    fn backward(&self, kept: Vec<Values>, gradient: Values, _: &[bool]) -> Vec<Option<Values>> {
        // What is kept is the gradient by logits / temperature, of the sum without the factor temperature^2.
        let by = slice(&gradient)[0] * self.temperature;
        vec![kept.into_iter().next().map(|d_logits| scaled(d_logits, by))]
    }
}

/// `values * by`; themselves where that is 1, as the gradient of a loss is unless somebody computed on with it.
fn scaled(values: Values, by: f32) -> Values {
    if by == 1.0 {
        return values;
    }
    let [rows, width] = dims(&values);
    tensor(slice(&values).iter().map(|value| value * by).collect(), rows, width)
}

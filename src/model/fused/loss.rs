//! Losses over logits whose gradient is computed with them.

use std::sync::Arc;

use burn::tensor::Tensor;
use paceline_kernels::Kernels;

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

/// A gradient times that of the loss, which is 1 unless somebody computed on with it.
fn scaled(gradient: Values, by: f32) -> Values {
    if by == 1.0 {
        return gradient;
    }
    let [rows, width] = dims(&gradient);
    tensor(slice(&gradient).iter().map(|value| value * by).collect(), rows, width)
}

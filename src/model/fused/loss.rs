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

/// As [`super::super::ops::soft_cross_entropy`]: the sum over rows of `weight * T^2 * KL(q, p)`, `[1, 1]`, of the softmax p of
/// `logits / T` and the softmax q of `teacher_logits / T`, both `[rows, vocabulary]`. The teacher gets no gradient.
pub(in crate::model) fn soft_cross_entropy(
    logits: Tensor<2>,
    teacher_logits: Tensor<2>,
    temperature: f32,
    weights: &[f32],
    kernels: &Arc<Kernels>,
) -> Tensor<2> {
    let loss = SoftCrossEntropy { temperature, weights: weights.to_vec(), kernels: Arc::clone(kernels) };
    apply([logits, teacher_logits.detach()], loss)
}

struct SoftCrossEntropy {
    temperature: f32,
    weights: Vec<f32>,
    kernels: Arc<Kernels>,
}

impl Differentiable for SoftCrossEntropy {
    fn forward(&self, inputs: Vec<Values>) -> (Values, Vec<Values>) {
        let mut inputs = inputs.into_iter();
        let (mut logits, mut teacher) = inputs.next().zip(inputs.next()).expect("two inputs");
        let (kernels, temperature) = (&self.kernels, self.temperature);
        let (mut losses, mut entropies) = (vec![0.0; self.weights.len()], vec![0.0; self.weights.len()]);
        kernels.softmax_with_entropy(teacher.storage_mut(), temperature, &mut entropies);
        let (logits_now, teacher) = (logits.storage_mut(), slice(&teacher));
        let sum = kernels.soft_cross_entropy(logits_now, temperature, teacher, &self.weights, &mut losses);
        let weighed =
            self.weights.iter().zip(&entropies).map(|(weight, entropy)| f64::from(*weight) * f64::from(*entropy));
        // Cross-entropy is above the divergence by the teacher's entropy.
        let missing = f64::from(temperature).powi(2) * (sum - weighed.sum::<f64>());
        (tensor(vec![missing as f32], 1, 1), vec![logits])
    }

    fn backward(&self, kept: Vec<Values>, gradient: Values, _: &[bool]) -> Vec<Option<Values>> {
        let factor = self.temperature * slice(&gradient)[0];
        vec![kept.into_iter().next().map(|d_logits| scaled(d_logits, factor)), None]
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

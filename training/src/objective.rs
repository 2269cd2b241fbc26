//! One batch: its loss and what it says about the parameters.

use paceline::model::{Batch, Trainable};

use crate::optimizer::{Gradients, into_values};

/// Rows to learn from.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The tokens.
    pub batch: Batch,
    /// For every row the token that follows.
    pub targets: Vec<u32>,
    /// For every row how much that is to be learned; 0 for not at all.
    pub weights: Vec<f32>,
}

/// The sum over rows of weight times cross-entropy in nats, and its gradients.
pub fn gradients(model: &Trainable, sample: &Sample) -> (f64, Gradients) {
    let now = model.model(false);
    let hidden = now.forward_layers(0..model.config().layers, &sample.batch, now.embed(&sample.batch), None);
    let loss = now.cross_entropy(now.logits(hidden), &sample.targets, &sample.weights);
    let mut grads = loss.backward();
    let of = |(name, tensor): (&str, &burn::tensor::Tensor<2>)| {
        tensor.grad_remove(&mut grads).map(|gradient| (name.to_owned(), into_values(gradient)))
    };
    let gradients = model.parameters().filter_map(of).collect();
    (f64::from(into_values(loss)[0]), gradients)
}

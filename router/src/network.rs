//! The network: learned attention over the prompt's hidden states, one hidden layer, and heads.
//!
//! ```text
//! weights = softmax over tokens of (states . query / sqrt(width)), for every query
//! inside  = silu([weights^T states | numbers, standardized | which are missing] W + b)
//! outputs = inside W' + b'
//! ```

use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::features::{Features, NUMBERS};

/// Classes of difficulty.
pub const LEVELS: [&str; 3] = ["simple", "medium", "complex"];

/// The sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Width of the hidden states it reads.
    pub width: usize,
    /// Queries that pool them.
    pub queries: usize,
    /// Width of its hidden layer.
    pub inside: usize,
    /// Drafters whose acceptance it predicts.
    pub drafters: usize,
    /// Lossy plans whose loss it predicts.
    pub lossy: usize,
}

/// The names of a network's tensors that are learned.
pub const LEARNED: [&str; 5] = ["query", "inside.weight", "inside.bias", "outputs.weight", "outputs.bias"];
/// Mean and inverse standard deviation of the numbers, as they were when it learned.
pub const MEAN: &str = "numbers.mean";
/// See [`MEAN`].
pub const SCALE: &str = "numbers.scale";

impl Shape {
    /// Values for each prompt in the first layer: pooled states, numbers, and a mark for every number that is missing.
    pub fn inputs(&self) -> usize {
        self.queries * self.width + 2 * NUMBERS.len()
    }

    /// Values for each prompt in the last layer.
    pub fn outputs(&self) -> usize {
        LEVELS.len() + self.drafters + self.lossy + 1
    }

    /// Names and shapes of all tensors; vectors are `[1, length]`.
    pub fn tensors(&self) -> [(&'static str, [usize; 2]); 7] {
        [
            (LEARNED[0], [self.queries, self.width]),
            (LEARNED[1], [self.inputs(), self.inside]),
            (LEARNED[2], [1, self.inside]),
            (LEARNED[3], [self.inside, self.outputs()]),
            (LEARNED[4], [1, self.outputs()]),
            (MEAN, [1, NUMBERS.len()]),
            (SCALE, [1, 2 * NUMBERS.len()]),
        ]
    }
}

/// Prompts as tensors.
pub struct Batch {
    /// Hidden states, every row scaled to a root mean square of 1, `[prompts, tokens, width]`; zeros behind shorter prompts.
    states: Tensor<3>,
    /// 0 where there is a token and a large negative number where none is, `[prompts, tokens, 1]`.
    absent: Tensor<3>,
    /// Numbers, zeros where missing, and a 1 for every one that is missing: `[prompts, numbers]` each.
    numbers: Tensor<2>,
    missing: Tensor<2>,
}

impl Batch {
    /// The features of some prompts, all of the same width.
    ///
    /// # Panics
    /// If there are none, or widths differ.
    pub fn new(prompts: &[&Features], device: &Device) -> Self {
        let width = prompts[0].width;
        // A prompt without states gets one row of zeros, so that there is something to pool.
        let rows = prompts.iter().map(|features| features.rows()).max().unwrap_or(0).max(1);
        let mut states = vec![0.0; prompts.len() * rows * width];
        let mut absent = vec![0.0; prompts.len() * rows];
        let mut numbers = Vec::with_capacity(prompts.len() * NUMBERS.len());
        let mut missing = Vec::with_capacity(prompts.len() * NUMBERS.len());
        for (place, features) in prompts.iter().enumerate() {
            assert_eq!(features.width, width, "prompts of one batch have states of one width");
            let own = &mut states[place * rows * width..][..rows * width];
            for (row, values) in own.chunks_exact_mut(width).zip(features.states.chunks_exact(width)) {
                let square = values.iter().map(|value| value * value).sum::<f32>() / width as f32;
                let scale = 1.0 / (square + 1e-6).sqrt();
                row.iter_mut().zip(values).for_each(|(to, value)| *to = value * scale);
            }
            absent[place * rows + features.rows().max(1)..(place + 1) * rows].fill(-1e9);
            numbers.extend(features.numbers.iter().map(|value| if value.is_finite() { *value } else { 0.0 }));
            missing.extend(features.numbers.iter().map(|value| f32::from(u8::from(!value.is_finite()))));
        }
        let flat = |values| Tensor::from_data(TensorData::new(values, [prompts.len(), NUMBERS.len()]), device);
        Self {
            states: Tensor::from_data(TensorData::new(states, [prompts.len(), rows, width]), device),
            absent: Tensor::from_data(TensorData::new(absent, [prompts.len(), rows, 1]), device),
            numbers: flat(numbers),
            missing: flat(missing),
        }
    }
}

/// Outputs of the network, for each prompt.
pub struct Outputs {
    /// Logits of the classes of difficulty, `[prompts, 3]`.
    pub difficulty: Tensor<2>,
    /// Log-odds that a token of each drafter is accepted, `[prompts, drafters]`.
    pub acceptance: Tensor<2>,
    /// Log-odds that the answer of each lossy plan differs from the target's, `[prompts, lossy]`.
    pub loss: Tensor<2>,
    /// The logarithm of the answer's tokens, `[prompts, 1]`.
    pub length: Tensor<2>,
}

/// The weights.
pub struct Network {
    shape: Shape,
    /// In the order of [`Shape::tensors`].
    tensors: [Tensor<2>; 7],
}

impl Network {
    /// A network of tensors that `get` gives by name, of the shapes in [`Shape::tensors`].
    pub fn new(shape: Shape, get: impl FnMut(&'static str) -> Tensor<2>) -> Self {
        Self { shape, tensors: shape.tensors().map(|(name, _)| name).map(get) }
    }

    /// Its sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Its tensors in the order of [`Shape::tensors`].
    pub fn weights(&self) -> [&Tensor<2>; 7] {
        self.tensors.each_ref()
    }

    /// Its tensors by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&'static str, &Tensor<2>)> {
        self.shape.tensors().map(|(name, _)| name).into_iter().zip(&self.tensors)
    }

    /// Outputs for some prompts.
    pub fn forward(&self, batch: Batch) -> Outputs {
        let [query, inside, inside_bias, outputs, outputs_bias, mean, scale] =
            self.tensors.each_ref().map(Tensor::clone);
        let [prompts, tokens, width] = batch.states.dims();
        let queries = self.shape.queries;
        let flat = batch.states.clone().reshape([prompts * tokens, width]);
        let scores = flat.matmul(query.transpose()).div_scalar((width as f32).sqrt());
        let scores = scores.reshape([prompts, tokens, queries]) + batch.absent;
        let pooled = softmax(scores, 1).swap_dims(1, 2).matmul(batch.states).reshape([prompts, queries * width]);
        // A missing number is taken to be usual.
        let numbers = batch.numbers - mean * batch.missing.clone().neg().add_scalar(1.0);
        let extra = Tensor::cat(vec![numbers, batch.missing], 1) * scale;
        let inside = silu(Tensor::cat(vec![pooled, extra], 1).matmul(inside) + inside_bias);
        let all = inside.matmul(outputs) + outputs_bias;
        let mut start = 0;
        let mut next = |length: usize| {
            start += length;
            let places = Tensor::<1, Int>::arange((start - length) as i64..start as i64, &all.device());
            if length == 0 { Tensor::zeros([prompts, 0], &all.device()) } else { all.clone().select(1, places) }
        };
        Outputs {
            difficulty: next(LEVELS.len()),
            acceptance: next(self.shape.drafters),
            loss: next(self.shape.lossy),
            length: next(1),
        }
    }
}

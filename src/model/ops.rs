//! The operations a decoder is described in, composed of burn's own.
//!
//! This is the definition of what a model computes, on any device that burn knows. The processor computes the same
//! through [`super::executor`], and in training through [`super::fused`]; the tests hold both to these.
//!
//! Activations are `[rows, width]`, one row per token.

use std::sync::Arc;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};
use paceline_kernels::{Activation, Kernels, Scores, TrainingPrecision};

use super::angles::Angles;
use super::batch::{Batch, Masks};
use super::fused::{self, Seen};
use super::pool::DeviceLayer;
use super::weights::LinearWeights;

/// Makes a tensor `[rows, width]` of `values` on `device`.
pub(super) fn from_values(values: Vec<f32>, rows: usize, width: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// Takes the values out of a tensor, in row-major order; waits for the device.
pub fn into_values(x: Tensor<2>) -> Vec<f32> {
    let data = x.into_data();
    data.try_into_vec().expect("activations are f32")
}

/// Implementation of the operations. Results are the same but for rounding.
#[derive(Clone)]
pub(super) enum Operations {
    /// Composed of burn's own, on any device.
    Composed,
    /// One kernel each, forward and backward: on burn's flex device, under autodiff.
    Fused {
        /// The kernels.
        kernels: Arc<Kernels>,
        /// Precision that the inputs of products with matrices are rounded to.
        products: TrainingPrecision,
    },
}

/// The rows of a matrix looked up by token id. May share its matrix with the output layer.
pub(super) struct Embedding(Tensor<2>);

impl Embedding {
    /// The embedding of a matrix `[vocabulary, width]`.
    pub(super) fn new(matrix: Tensor<2>) -> Self {
        Self(matrix)
    }

    /// The rows of `tokens`, as `[tokens, width]`.
    ///
    /// # Panics
    /// If an id is outside the vocabulary; callers check what comes from outside.
    pub(super) fn forward(&self, tokens: &[u32], with: &Operations) -> Tensor<2> {
        if let Operations::Fused { kernels, .. } = with {
            return fused::embed(self.0.clone(), tokens, kernels);
        }
        let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [tokens.len()]), &self.0.device());
        self.0.clone().select(0, ids)
    }
}

/// `y = x W^T + b`.
pub(super) struct Linear {
    matrix: Tensor<2>,
    bias: Option<Tensor<2>>,
}

impl Linear {
    /// A layer with weights `[out, in]` and an optional bias `[1, out]`.
    pub(super) fn new(weights: LinearWeights<Tensor<2>, Tensor<2>>) -> Self {
        let LinearWeights { matrix, bias } = weights;
        Self { matrix, bias }
    }

    /// `x` is `[rows, in]`, the result `[rows, out]`.
    pub(super) fn forward(&self, x: Tensor<2>, with: &Operations) -> Tensor<2> {
        let y = match with {
            Operations::Composed => x.matmul(self.matrix.clone().transpose()),
            Operations::Fused { kernels, products } => fused::linear(x, self.matrix.clone(), *products, kernels),
        };
        match &self.bias {
            Some(bias) => y + bias.clone(),
            None => y,
        }
    }
}

/// Root-mean-square normalization with a learned weight (Zhang and Sennrich 2019), over groups of as many values as the
/// weight has: whole rows, or heads where a model normalizes queries and keys.
pub(super) struct RmsNorm {
    weight: Tensor<2>,
    eps: f32,
}

impl RmsNorm {
    /// A norm with `weight` `[1, group]` and the `eps` added to the mean square.
    pub(super) fn new(weight: Tensor<2>, eps: f32) -> Self {
        Self { weight, eps }
    }

    /// `x` is `[rows, width]` with `width` a multiple of the weight's length; the result has its shape.
    pub(super) fn forward(&self, x: Tensor<2>, with: &Operations) -> Tensor<2> {
        if let Operations::Fused { kernels, .. } = with {
            return fused::rms_norm(x, self.weight.clone(), self.eps, kernels);
        }
        let [rows, width] = x.dims();
        let group = self.weight.dims()[1];
        let x = x.reshape([rows * width / group, group]);
        let mean_square = x.clone().powi_scalar(2).mean_dim(1);
        let y = x / (mean_square + self.eps).sqrt() * self.weight.clone();
        y.reshape([rows, width])
    }
}

/// The rotary position embedding of rows at given positions.
pub(super) struct Rotation {
    angles: Arc<Angles>,
    /// Cosines and sines as tensors, `[rows, 1, half]`, for [`Operations::Composed`].
    tensors: [Tensor<3>; 2],
    head_dim: usize,
    /// Half of the values of a head that turn.
    half: usize,
}

impl Rotation {
    /// The rotation of `rows` rows by `angles`.
    pub(super) fn new(angles: Angles, rows: usize, head_dim: usize, device: &Device) -> Self {
        let half = angles.cos.len() / rows.max(1);
        let place = |values: &Vec<f32>| Tensor::from_data(TensorData::new(values.clone(), [rows, 1, half]), device);
        Self { tensors: [place(&angles.cos), place(&angles.sin)], angles: Arc::new(angles), head_dim, half }
    }

    /// Rotates every head of `x`, `[rows, heads * head_dim]`, by its row's angles: of the values that turn the first half
    /// against the second.
    pub(super) fn apply(&self, x: Tensor<2>, with: &Operations) -> Tensor<2> {
        let (half, [cos, sin]) = (self.half, &self.tensors);
        if half == 0 {
            return x;
        }
        if let Operations::Fused { kernels, .. } = with {
            return fused::rotate(x, self.head_dim, &self.angles, kernels);
        }
        let [rows, width] = x.dims();
        let x = x.reshape([rows, width / self.head_dim, self.head_dim]);
        let (first, second) = (x.clone().narrow(2, 0, half), x.clone().narrow(2, half, half));
        let rotated_first = first.clone() * cos.clone() - second.clone() * sin.clone();
        let rotated_second = second * cos.clone() + first * sin.clone();
        let mut parts = vec![rotated_first, rotated_second];
        if 2 * half < self.head_dim {
            parts.push(x.narrow(2, 2 * half, self.head_dim - 2 * half));
        }
        Tensor::cat(parts, 2).reshape([rows, width])
    }
}

/// `f(gate) * up` with an activation f, elementwise, all `[rows, width]` (SwiGLU, Shazeer 2020).
pub(super) fn gated(function: Activation, gate: Tensor<2>, up: Tensor<2>, with: &Operations) -> Tensor<2> {
    match (function, with) {
        (Activation::Silu, Operations::Composed) => activation::silu(gate) * up,
        (Activation::Silu, Operations::Fused { kernels, .. }) => fused::gated_silu(gate, up, kernels),
        (Activation::GeluTanh, _) => {
            let inner = (gate.clone() + gate.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f32::consts::PI).sqrt();
            gate * 0.5 * (inner.tanh() + 1.0) * up
        }
    }
}

/// `cap * tanh(x / cap)`, elementwise.
pub(super) fn soft_capped<const D: usize>(x: Tensor<D>, cap: f32) -> Tensor<D> {
    (x / cap).tanh() * cap
}

/// The sum over rows of `weight * -ln p(target)`, `[1, 1]`, for logits `[rows, vocabulary]` and as many targets and
/// weights as rows.
pub(super) fn cross_entropy(logits: Tensor<2>, targets: &[u32], weights: &[f32], with: &Operations) -> Tensor<2> {
    let [rows, _] = logits.dims();
    assert!(targets.len() == rows && weights.len() == rows, "every row has a target and a weight");
    if let Operations::Fused { kernels, .. } = with {
        return fused::cross_entropy(logits, targets, weights, kernels);
    }
    let device = logits.device();
    let ids: Vec<i32> = targets.iter().map(|&target| target as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, 1]), &device);
    let losses =
        activation::log_softmax(logits, 1).gather(1, ids).neg() * from_values(weights.to_vec(), rows, 1, &device);
    losses.sum().reshape([1, 1])
}

/// Distillation loss against a teacher (Hinton et al. 2015): the sum over rows of `weight * T^2 * KL(q, p)` in nats,
/// `[1, 1]`, of the softmax p of `logits / T` and the softmax q of `teacher_logits / T`, both `[rows, vocabulary]`. The
/// teacher gets no gradient.
pub(super) fn soft_cross_entropy(
    logits: Tensor<2>,
    teacher_logits: Tensor<2>,
    temperature: f32,
    weights: &[f32],
    with: &Operations,
) -> Tensor<2> {
    let [rows, _] = logits.dims();
    assert!(teacher_logits.dims() == logits.dims() && weights.len() == rows, "every row has a teacher and a weight");
    if let Operations::Fused { kernels, .. } = with {
        return fused::soft_cross_entropy(logits, teacher_logits, temperature, weights, kernels);
    }
    let device = logits.device();
    let of_teacher = activation::log_softmax(teacher_logits.detach() / temperature, 1);
    let missing = of_teacher.clone() - activation::log_softmax(logits / temperature, 1);
    let of_rows = (of_teacher.exp() * missing).sum_dim(1) * from_values(weights.to_vec(), rows, 1, &device);
    (of_rows.sum() * temperature.powi(2)).reshape([1, 1])
}

/// The settings of a layer's attention.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    /// The width of a head.
    pub(super) head_dim: usize,
    /// Positions that are seen at most, if not all.
    pub(super) window: Option<usize>,
    /// What becomes of products of queries and keys.
    pub(super) scores: Scores,
}

/// Writes `keys` and `values` `[rows, kv_heads * head_dim]` to a layer's cache from position `start` on and lets `queries` `[rows,
/// heads * head_dim]` attend to it: row `r` stands at position `start + r` and sees itself and what is
/// before it, no further back than `window` positions, itself included. Grouped queries: consecutive query
/// heads share a key head. Result as `queries`.
pub(super) fn attend(
    queries: Tensor<2>,
    keys: Tensor<2>,
    values: Tensor<2>,
    cache: &mut DeviceLayer,
    start: usize,
    attention: &Attention,
) -> Tensor<2> {
    let Attention { head_dim, window, scores } = *attention;
    cache.write(start, keys, values);
    let [rows, width] = queries.dims();
    let (keys, values) = cache.first(start + rows);
    let [kv_heads, cached, _] = keys.dims();
    let heads = width / head_dim;
    let group = heads / kv_heads;
    let queries = queries.reshape([rows, heads, head_dim]).swap_dims(0, 1).reshape([kv_heads, group * rows, head_dim]);
    let hidden: Vec<bool> = (0..group * rows)
        .flat_map(|row| {
            let position = start + row % rows;
            let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
            (0..cached).map(move |key| key > position || key < first)
        })
        .collect();
    let hidden = Tensor::<2, Bool>::from_data(TensorData::new(hidden, [group * rows, cached]), &queries.device());
    let hidden = hidden.unsqueeze::<3>().expand([kv_heads, group * rows, cached]);
    let attended = masked_attention(queries, keys, values, hidden, scores);
    attended.reshape([heads, rows, head_dim]).swap_dims(0, 1).reshape([rows, width])
}

/// Lets the rows of a batch attend to each other: `queries` `[rows, heads * head_dim]`, `keys` and `values` `[rows,
/// kv_heads * head_dim]`. A row sees itself and what is before it in its document, no further back than `window`
/// positions, itself included. Grouped queries as in [`attend`]. Result as `queries`.
pub(super) fn attend_in_sequences(
    queries: Tensor<2>,
    keys: Tensor<2>,
    values: Tensor<2>,
    batch: &Batch,
    masks: &mut Masks,
    attention: &Attention,
    with: &Operations,
) -> Tensor<2> {
    let Attention { head_dim, window, scores } = *attention;
    if let (Operations::Fused { kernels, .. }, Scores { scale, cap: None }) = (with, scores) {
        let seen = Seen { length: batch.length(), first: batch.first_seen(window) };
        return fused::attend([queries, keys, values], head_dim, seen, scale, kernels);
    }
    let ([rows, width], [_, kv_width]) = (queries.dims(), keys.dims());
    let (length, kv_heads) = (batch.length(), kv_width / head_dim);
    let (sequences, group) = (rows / length, width / kv_width);
    let hidden = masks.hidden(batch, window, &queries.device());
    let hidden = hidden.reshape([sequences, 1, 1, length, length]).expand([sequences, kv_heads, group, length, length]);
    let per_head = |x: Tensor<2>, of_head: usize| {
        let x = x.reshape([sequences, length, kv_heads * of_head, head_dim]).swap_dims(1, 2);
        x.reshape([sequences * kv_heads, of_head * length, head_dim])
    };
    let attended = masked_attention(
        per_head(queries, group),
        per_head(keys, 1),
        per_head(values, 1),
        hidden.reshape([sequences * kv_heads, group * length, length]),
        scores,
    );
    attended.reshape([sequences, kv_heads * group, length, head_dim]).swap_dims(1, 2).reshape([rows, width])
}

/// Scaled dot-product attention of `queries` `[heads, rows, head_dim]` to `keys` and `values` `[heads, seen, head_dim]`,
/// but for what is `hidden`, `[heads, rows, seen]`.
fn masked_attention(
    queries: Tensor<3>,
    keys: Tensor<3>,
    values: Tensor<3>,
    hidden: Tensor<3, Bool>,
    scores: Scores,
) -> Tensor<3> {
    let scaled = queries.matmul(keys.swap_dims(1, 2)) * scores.scale;
    let scores = match scores.cap {
        Some(cap) => soft_capped(scaled, cap),
        None => scaled,
    };
    activation::softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 2).matmul(values)
}

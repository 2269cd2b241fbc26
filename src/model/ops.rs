//! The operations a decoder is described in, composed of burn's own.
//!
//! This is the definition of what a model computes, on any device that burn knows. The processor computes the same
//! through [`super::executor`], and the tests hold it to these.
//!
//! Activations are `[rows, width]`, one row per token.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};
use paceline_kernels::Weights;

use super::angles::Angles;
use super::cache::DeviceLayer;
use super::weights::LinearWeights;

/// Makes a tensor `[rows, width]` of `values` on `device`.
pub(super) fn from_values(values: Vec<f32>, rows: usize, width: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// Takes the values out of a tensor, in row-major order; waits for the device.
pub(super) fn into_values(x: Tensor<2>) -> Vec<f32> {
    let data = x.into_data();
    data.try_into_vec().expect("activations are f32")
}

/// A learned vector, `[1, length]`: a norm's weight or a layer's bias.
fn vector(values: Vec<f32>, device: &Device) -> Tensor<2> {
    let length = values.len();
    from_values(values, 1, length, device)
}

/// A matrix `[rows, width]`, given row by row.
fn matrix(rows: usize, width: usize, row: impl Fn(usize, &mut [f32]), device: &Device) -> Tensor<2> {
    let mut values = vec![0.0; rows * width];
    for (index, out) in values.chunks_exact_mut(width).enumerate() {
        row(index, out);
    }
    from_values(values, rows, width, device)
}

/// The rows of a matrix looked up by token id. May share its matrix with the output layer.
pub(super) struct Embedding(Tensor<2>);

impl Embedding {
    /// Places an embedding matrix `[vocabulary, width]`.
    pub(super) fn new(weights: &Weights, device: &Device) -> Self {
        let row = |index, out: &mut [f32]| weights.row_to_f32(index, out);
        Self(matrix(weights.out_features(), weights.in_features(), row, device))
    }

    /// The embedding that shares the output layer's matrix.
    pub(super) fn tied_to(output: &Linear) -> Self {
        Self(output.matrix.clone())
    }

    /// The rows of `tokens`, as `[tokens, width]`.
    ///
    /// # Panics
    /// If an id is outside the vocabulary; callers check what comes from outside.
    pub(super) fn forward(&self, tokens: &[u32]) -> Tensor<2> {
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
    /// Places a layer with weights `[out, in]` and an optional bias `[out]`.
    pub(super) fn new(weights: LinearWeights, device: &Device) -> Self {
        let LinearWeights { matrix: packed, bias } = weights;
        let row = |index, out: &mut [f32]| packed.row_to_f32(index, out);
        let matrix = matrix(packed.out_features(), packed.in_features(), row, device);
        Self { matrix, bias: bias.map(|values| vector(values, device)) }
    }

    /// `x` is `[rows, in]`, the result `[rows, out]`.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.matrix.clone().transpose());
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
    /// Places a norm with `weight` and the `eps` added to the mean square.
    pub(super) fn new(weight: Vec<f32>, eps: f32, device: &Device) -> Self {
        Self { weight: vector(weight, device), eps }
    }

    /// `x` is `[rows, width]` with `width` a multiple of the weight's length; the result has its shape.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [rows, width] = x.dims();
        let group = self.weight.dims()[1];
        let x = x.reshape([rows * width / group, group]);
        let mean_square = x.clone().powi_scalar(2).mean_dim(1);
        let y = x / (mean_square + self.eps).sqrt() * self.weight.clone();
        y.reshape([rows, width])
    }
}

/// The rotary position embedding of consecutive positions.
pub(super) struct Rotation {
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl Rotation {
    /// The rotation of positions `start..start + rows`; the head's width is twice the number of frequencies.
    pub(super) fn new(inverse_frequencies: &[f32], start: usize, rows: usize, device: &Device) -> Self {
        let Angles { cos, sin } = Angles::new(inverse_frequencies, start, rows);
        let place = |values| Tensor::from_data(TensorData::new(values, [rows, 1, inverse_frequencies.len()]), device);
        Self { cos: place(cos), sin: place(sin) }
    }

    /// Rotates every head of `x`, `[rows, heads * head_dim]`, by its row's angles: the first half of a head's
    /// values against the second.
    pub(super) fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let [rows, width] = x.dims();
        let half = self.cos.dims()[2];
        let x = x.reshape([rows, width / (2 * half), 2 * half]);
        let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
        let rotated_first = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let rotated_second = second * self.cos.clone() + first * self.sin.clone();
        Tensor::cat(vec![rotated_first, rotated_second], 2).reshape([rows, width])
    }
}

/// `silu(gate) * up`, elementwise, all `[rows, width]` (SwiGLU, Shazeer 2020).
pub(super) fn gated_silu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

/// Appends `keys` and `values` `[rows, kv_heads * head_dim]` to a layer's cache and lets `queries` `[rows,
/// heads * head_dim]` attend to it: row `r` stands at position `cached + r` and sees itself and what is
/// before it, no further back than `window` positions, itself included. Grouped queries: consecutive query
/// heads share a key head. Result as `queries`.
pub(super) fn attend(
    queries: Tensor<2>,
    keys: Tensor<2>,
    values: Tensor<2>,
    cache: &mut DeviceLayer,
    window: Option<usize>,
    scale: f32,
) -> Tensor<2> {
    let start = cache.len();
    cache.append(keys, values);
    let [rows, width] = queries.dims();
    let (keys, values) = cache.visible();
    let [kv_heads, cached, head_dim] = keys.dims();
    let heads = width / head_dim;
    let group = heads / kv_heads;
    let queries = queries.reshape([rows, heads, head_dim]).swap_dims(0, 1).reshape([kv_heads, group * rows, head_dim]);
    let scores = queries.matmul(keys.swap_dims(1, 2)) * scale;
    let hidden: Vec<bool> = (0..group * rows)
        .flat_map(|row| {
            let position = start + row % rows;
            let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
            (0..cached).map(move |key| key > position || key < first)
        })
        .collect();
    let hidden = Tensor::<2, Bool>::from_data(TensorData::new(hidden, [group * rows, cached]), &scores.device());
    let hidden = hidden.unsqueeze::<3>().expand([kv_heads, group * rows, cached]);
    let weights = activation::softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 2);
    weights.matmul(values).reshape([heads, rows, head_dim]).swap_dims(0, 1).reshape([rows, width])
}

//! The operations a decoder is written in.
//!
//! Each has two bodies. On [`Compute::Kernels`] it reads the tensors' values in place and calls a
//! row-invariant kernel; on [`Compute::Burn`] it is composed of burn's own operations. The composed body is
//! the definition that a reader should look at, and the tests hold the kernels to it.
//!
//! Activations are `[rows, width]`, one row per token.

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use paceline_kernels::{Kernels, PackedWeights, Product, Weights};

use super::cache::{DeviceLayer, LayerState};
use super::device::Compute;

/// Calls `kernel` with the values of `x` and a zeroed buffer of `rows * width` values, which becomes the result.
fn map_values(x: Tensor<2>, rows: usize, width: usize, kernel: impl FnOnce(&[f32], &mut [f32])) -> Tensor<2> {
    let mut out = vec![0.0; rows * width];
    with_values(x, |values| kernel(values, &mut out));
    from_values(out, rows, width, &Device::flex())
}

/// Lends the values of a CPU tensor, in row-major order.
fn with_values<R>(x: Tensor<2>, read: impl FnOnce(&[f32]) -> R) -> R {
    let x = x.try_into_primitive::<Flex>().expect("a tensor of the kernel path lives on flex");
    match x.as_slice::<f32>() {
        Some(values) => read(values),
        None => read(x.to_contiguous().storage()),
    }
}

/// Makes a tensor `[rows, width]` of `values` on `device`.
pub fn from_values(values: Vec<f32>, rows: usize, width: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// Takes the values out of a tensor, in row-major order; waits for the device.
pub fn into_values(x: Tensor<2>) -> Vec<f32> {
    let data = x.into_data();
    data.try_into_vec().expect("activations are f32")
}

/// A matrix of weights `[out, in]` on its device.
#[derive(Clone)]
enum Matrix {
    Packed(Arc<Kernels>, Arc<PackedWeights>),
    /// `[out, in]`, as stored.
    Burn(Box<Tensor<2>>),
}

/// `y = x W^T + b`.
#[derive(Clone)]
pub struct Linear {
    matrix: Matrix,
    bias: Option<Vector>,
}

/// The rows of a matrix looked up by token id.
#[derive(Clone)]
pub enum Embedding {
    /// Where they lie in a file.
    Stored(Arc<Weights>),
    /// Those of an output layer.
    Tied(Linear),
    /// On a device.
    Burn(Box<Tensor<2>>),
}

/// A learned vector: a norm's weight or a layer's bias.
#[derive(Clone)]
enum Vector {
    Kernels(Arc<Kernels>, Arc<[f32]>),
    Burn(Box<Tensor<1>>),
}

impl Vector {
    fn new(values: Vec<f32>, compute: &Compute) -> Self {
        match compute {
            Compute::Kernels(kernels) => Self::Kernels(kernels.clone(), values.into()),
            Compute::Burn(device) => {
                let length = values.len();
                Self::Burn(Box::new(Tensor::from_data(TensorData::new(values, [length]), device)))
            }
        }
    }
}

impl Vector {
    /// The values, where the kernels use them.
    fn values(&self) -> Option<&[f32]> {
        match self {
            Self::Kernels(_, values) => Some(values),
            Self::Burn(_) => None,
        }
    }
}

impl Embedding {
    /// Places an embedding matrix `[vocabulary, width]`.
    pub fn new(weights: Weights, compute: &Compute) -> Self {
        match compute {
            Compute::Kernels(_) => Self::Stored(Arc::new(weights)),
            Compute::Burn(device) => {
                let row = |index, out: &mut [f32]| weights.row_to_f32(index, out);
                Self::Burn(Box::new(widened(weights.out_features(), weights.in_features(), row, device)))
            }
        }
    }

    /// The rows of `tokens`, as `[tokens, width]` in f32.
    ///
    /// # Panics
    /// If an id is outside the vocabulary; callers check what comes from outside.
    pub fn forward(&self, tokens: &[u32]) -> Tensor<2> {
        match self {
            Self::Stored(weights) => look_up(tokens, weights.in_features(), |row, out| weights.row_to_f32(row, out)),
            Self::Tied(Linear { matrix: Matrix::Packed(_, weights), .. }) => {
                look_up(tokens, weights.in_features(), |row, out| weights.row_to_f32(row, out))
            }
            Self::Burn(weights) | Self::Tied(Linear { matrix: Matrix::Burn(weights), .. }) => {
                let ids: Vec<i32> = tokens.iter().map(|&t| t as i32).collect();
                let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [tokens.len()]), &weights.device());
                (**weights).clone().select(0, ids)
            }
        }
    }
}

fn look_up(tokens: &[u32], width: usize, row: impl Fn(usize, &mut [f32])) -> Tensor<2> {
    let mut out = vec![0.0; tokens.len() * width];
    for (out, &token) in out.chunks_exact_mut(width).zip(tokens) {
        row(token as usize, out);
    }
    from_values(out, tokens.len(), width, &Device::flex())
}

fn widened(rows: usize, width: usize, row: impl Fn(usize, &mut [f32]), device: &Device) -> Tensor<2> {
    let mut values = vec![0.0; rows * width];
    for (index, out) in values.chunks_exact_mut(width).enumerate() {
        row(index, out);
    }
    from_values(values, rows, width, device)
}

impl Matrix {
    fn new(weights: PackedWeights, compute: &Compute) -> Self {
        match compute {
            Compute::Kernels(kernels) => Self::Packed(kernels.clone(), Arc::new(weights)),
            Compute::Burn(device) => {
                let row = |index, out: &mut [f32]| weights.row_to_f32(index, out);
                Self::Burn(Box::new(widened(weights.out_features(), weights.in_features(), row, device)))
            }
        }
    }
}

impl Linear {
    /// Places a layer with weights `[out, in]` and an optional bias `[out]`.
    pub fn new(weights: PackedWeights, bias: Option<Vec<f32>>, compute: &Compute) -> Self {
        Self { matrix: Matrix::new(weights, compute), bias: bias.map(|values| Vector::new(values, compute)) }
    }

    /// `x` is `[rows, in]`, the result `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match (&self.matrix, &self.bias) {
            (Matrix::Packed(kernels, weights), bias) => {
                let (rows, bias) = (x.dims()[0], bias.as_ref().and_then(Vector::values));
                map_values(x, rows, weights.out_features(), |x, out| {
                    kernels.matmul(x, rows, &mut [Product { weights, bias, out }]);
                })
            }
            (Matrix::Burn(weights), bias) => {
                let y = x.matmul((**weights).clone().transpose());
                match bias {
                    Some(Vector::Burn(bias)) => y + (**bias).clone().unsqueeze::<2>(),
                    _ => y,
                }
            }
        }
    }
}

/// Root-mean-square normalization with a learned weight (Zhang and Sennrich 2019), over groups of as many values as the
/// weight has: whole rows, or heads where a model normalizes queries and keys.
#[derive(Clone)]
pub struct RmsNorm {
    weight: Vector,
    eps: f32,
}

impl RmsNorm {
    /// Places a norm with `weight` and the `eps` added to the mean square.
    pub fn new(weight: Vec<f32>, eps: f32, compute: &Compute) -> Self {
        Self { weight: Vector::new(weight, compute), eps }
    }

    /// `x` is `[rows, width]` with `width` a multiple of the weight's length; the result has its shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [rows, width] = x.dims();
        match &self.weight {
            Vector::Kernels(kernels, weight) => {
                map_values(x, rows, width, |x, out| kernels.rms_norm(x, weight, self.eps, out))
            }
            Vector::Burn(weight) => {
                let group = weight.dims()[0];
                let x = x.reshape([rows * width / group, group]);
                let mean_square = x.clone().powi_scalar(2).mean_dim(1);
                let y = x / (mean_square + self.eps).sqrt() * (**weight).clone().unsqueeze::<2>();
                y.reshape([rows, width])
            }
        }
    }
}

/// Cosines and sines of the rotary position embedding (Su et al. 2021) for consecutive positions, computed
/// once per call and shared by all layers.
pub struct Rotation {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rotation {
    /// The angles of positions `start..start + rows`; the head's width is twice the number of frequencies.
    pub fn new(inverse_frequencies: &[f32], start: usize, rows: usize) -> Self {
        let half = inverse_frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(rows * half), Vec::with_capacity(rows * half));
        for position in start..start + rows {
            // In f32 as the reference implementation does, so that far positions see the same rounding.
            for angle in inverse_frequencies.iter().map(|frequency| position as f32 * frequency) {
                cos.push(angle.cos());
                sin.push(angle.sin());
            }
        }
        Self { cos, sin, half }
    }

    /// Rotates every head of `x`, `[rows, heads * head_dim]`, by its row's angles: the first half of a head's
    /// values against the second.
    pub fn apply(&self, x: Tensor<2>, compute: &Compute) -> Tensor<2> {
        let [rows, width] = x.dims();
        let head_dim = 2 * self.half;
        let heads = width / head_dim;
        match compute {
            Compute::Kernels(kernels) => map_values(x, rows, width, |x, out| {
                out.copy_from_slice(x);
                kernels.rotate(out, rows, heads, head_dim, &self.cos, &self.sin);
            }),
            Compute::Burn(device) => {
                let angles = |values: &[f32]| {
                    Tensor::<3>::from_data(TensorData::new(values.to_vec(), [rows, 1, self.half]), device)
                };
                let (cos, sin) = (angles(&self.cos), angles(&self.sin));
                let x = x.reshape([rows, heads, head_dim]);
                let first = x.clone().narrow(2, 0, self.half);
                let second = x.narrow(2, self.half, self.half);
                let rotated_first = first.clone() * cos.clone() - second.clone() * sin.clone();
                let rotated_second = second * cos + first * sin;
                Tensor::cat(vec![rotated_first, rotated_second], 2).reshape([rows, width])
            }
        }
    }
}

/// `silu(gate) * up`, elementwise, all `[rows, width]` (SwiGLU, Shazeer 2020).
pub fn gated_silu(gate: Tensor<2>, up: Tensor<2>, compute: &Compute) -> Tensor<2> {
    match compute {
        Compute::Kernels(kernels) => {
            let [rows, width] = gate.dims();
            map_values(gate, rows, width, |gate, out| {
                with_values(up, |up| kernels.gated_silu(gate, up, out));
            })
        }
        Compute::Burn(_) => activation::silu(gate) * up,
    }
}

/// Appends `keys` and `values` `[rows, kv_heads * head_dim]` to a layer's cache and lets `queries` `[rows,
/// heads * head_dim]` attend to it: row `r` stands at position `cached + r` and sees itself and what is
/// before it, no further back than `window` positions, itself included. Grouped queries: consecutive query
/// heads share a key head. Result as `queries`.
pub fn attend(
    queries: Tensor<2>,
    keys: Tensor<2>,
    values: Tensor<2>,
    state: &mut LayerState,
    window: Option<usize>,
    scale: f32,
    compute: &Compute,
) -> Tensor<2> {
    let [rows, width] = queries.dims();
    match (compute, state) {
        (Compute::Kernels(kernels), LayerState::Host(cache)) => {
            let start = cache.len();
            with_values(keys, |keys| with_values(values, |values| cache.append(keys, values, rows)));
            let heads = width / cache.head_dim();
            map_values(queries, rows, width, |queries, out| {
                kernels.attention(queries, rows, heads, cache, start, window, scale, out);
            })
        }
        (Compute::Burn(_), LayerState::Device(cache)) => {
            let start = cache.len();
            cache.append(keys, values);
            attend_composed(queries, cache, start, window, scale)
        }
        _ => unreachable!("a cache is made for its decoder's computation"),
    }
}

fn attend_composed(
    queries: Tensor<2>,
    cache: &DeviceLayer,
    start: usize,
    window: Option<usize>,
    scale: f32,
) -> Tensor<2> {
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
    let hidden =
        Tensor::<2, burn::tensor::Bool>::from_data(TensorData::new(hidden, [group * rows, cached]), &scores.device());
    let hidden = hidden.unsqueeze::<3>().expand([kv_heads, group * rows, cached]);
    let weights = activation::softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 2);
    weights.matmul(values).reshape([heads, rows, head_dim]).swap_dims(0, 1).reshape([rows, width])
}

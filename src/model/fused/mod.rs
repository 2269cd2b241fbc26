//! The operations of the description as one kernel each, forward and backward, for training on the processor.
//!
//! burn's autodiff composes a norm or an attention of a dozen operations and keeps what each computed. Here they keep
//! their inputs, and the gradients are derived by hand; the tests hold them to burn's.

mod differentiable;
mod loss;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::tensor::Tensor;
use paceline_kernels::{CausalAttention, Kernels, MatrixLayout, RotaryDirection, TrainingPrecision};

use self::differentiable::{Differentiable, Values, apply, dims, slice, tensor};
pub(super) use self::loss::{cross_entropy, soft_cross_entropy};
use super::angles::Angles;

/// Rows of an embedding `[vocabulary, width]`, as `[tokens, width]`.
pub(super) fn embed(matrix: Tensor<2>, tokens: &[u32], kernels: &Arc<Kernels>) -> Tensor<2> {
    apply([matrix], Embed { tokens: tokens.to_vec(), kernels: Arc::clone(kernels) })
}

struct Embed {
    tokens: Vec<u32>,
    kernels: Arc<Kernels>,
}

impl Differentiable for Embed {
    fn forward(&self, inputs: Vec<Values>) -> (Values, Vec<Values>) {
        let ([_, width], matrix) = (dims(&inputs[0]), slice(&inputs[0]));
        let rows = self.tokens.iter().flat_map(|&token| &matrix[token as usize * width..][..width]);
        (tensor(rows.copied().collect(), self.tokens.len(), width), inputs)
    }

    fn backward(&self, kept: Vec<Values>, gradient: Values, _: &[bool]) -> Vec<Option<Values>> {
        let [vocabulary, width] = dims(&kept[0]);
        let mut matrix = vec![0.0; vocabulary * width];
        self.kernels.embedding_gradient(slice(&gradient), &self.tokens, width, &mut matrix);
        vec![Some(tensor(matrix, vocabulary, width))]
    }
}

/// `x w^T`: x `[rows, in]`, w `[out, in]`.
pub(super) fn linear(x: Tensor<2>, w: Tensor<2>, precision: TrainingPrecision, kernels: &Arc<Kernels>) -> Tensor<2> {
    apply([x, w], Linear { precision, kernels: Arc::clone(kernels) })
}

struct Linear {
    precision: TrainingPrecision,
    kernels: Arc<Kernels>,
}

impl Differentiable for Linear {
    fn forward(&self, inputs: Vec<Values>) -> (Values, Vec<Values>) {
        use MatrixLayout::{Plain, Transposed};
        let ([rows, k], [columns, _]) = (dims(&inputs[0]), dims(&inputs[1]));
        let y = self.product((slice(&inputs[0]), Plain), (slice(&inputs[1]), Transposed), [rows, columns], k);
        (y, inputs)
    }

    fn backward(&self, kept: Vec<Values>, gradient: Values, wanted: &[bool]) -> Vec<Option<Values>> {
        use MatrixLayout::{Plain, Transposed};
        let ([rows, k], [columns, _]) = (dims(&kept[0]), dims(&kept[1]));
        let (x, w, dy) = (slice(&kept[0]), slice(&kept[1]), slice(&gradient));
        let dx = wanted[0].then(|| self.product((dy, Plain), (w, Plain), [rows, k], columns));
        let dw = wanted[1].then(|| self.product((dy, Transposed), (x, Plain), [columns, k], rows));
        vec![dx, dw]
    }
}

impl Linear {
    /// The product of two matrices in memory as they say, of this shape, summed over `k`.
    fn product(&self, a: (&[f32], MatrixLayout), b: (&[f32], MatrixLayout), shape: [usize; 2], k: usize) -> Values {
        let [m, n] = shape;
        let mut out = vec![0.0; m * n];
        self.kernels.gemm(self.precision, a.0, a.1, b.0, b.1, m, n, k, false, &mut out);
        tensor(out, m, n)
    }
}

/// The norm of groups of as many values as `weight` `[1, group]` has, of x `[rows, width]`.
pub(super) fn rms_norm(x: Tensor<2>, weight: Tensor<2>, eps: f32, kernels: &Arc<Kernels>) -> Tensor<2> {
    apply([x, weight], RmsNorm { eps, kernels: Arc::clone(kernels) })
}

struct RmsNorm {
    eps: f32,
    kernels: Arc<Kernels>,
}

impl Differentiable for RmsNorm {
    fn forward(&self, inputs: Vec<Values>) -> (Values, Vec<Values>) {
        let [rows, width] = dims(&inputs[0]);
        let mut y = vec![0.0; rows * width];
        self.kernels.rms_norm(slice(&inputs[0]), slice(&inputs[1]), self.eps, &mut y);
        (tensor(y, rows, width), inputs)
    }

    fn backward(&self, kept: Vec<Values>, gradient: Values, _: &[bool]) -> Vec<Option<Values>> {
        let ([rows, width], [_, group]) = (dims(&kept[0]), dims(&kept[1]));
        let (mut dx, mut dw) = (vec![0.0; rows * width], vec![0.0; group]);
        let (x, weight) = (slice(&kept[0]), slice(&kept[1]));
        self.kernels.rms_norm_backward(x, weight, self.eps, slice(&gradient), &mut dx, &mut dw);
        vec![Some(tensor(dx, rows, width)), Some(tensor(dw, 1, group))]
    }
}

/// Every head of x `[rows, heads * head_dim]` rotated by its row's `angles`.
pub(super) fn rotate(x: Tensor<2>, head_dim: usize, angles: &Arc<Angles>, kernels: &Arc<Kernels>) -> Tensor<2> {
    apply([x], Rotate { head_dim, angles: Arc::clone(angles), kernels: Arc::clone(kernels) })
}

struct Rotate {
    head_dim: usize,
    angles: Arc<Angles>,
    kernels: Arc<Kernels>,
}

impl Rotate {
    fn rotated(&self, x: &Values, direction: RotaryDirection) -> Values {
        let [rows, width] = dims(x);
        let mut y = slice(x).to_vec();
        let Angles { cos, sin } = &*self.angles;
        let rotated = 2 * cos.len() / rows.max(1);
        let positions: Vec<u32> = (0..rows as u32).collect();
        self.kernels.rotary(&mut y, self.head_dim, rotated, cos, sin, &positions, direction);
        tensor(y, rows, width)
    }
}

impl Differentiable for Rotate {
    fn forward(&self, inputs: Vec<Values>) -> (Values, Vec<Values>) {
        (self.rotated(&inputs[0], RotaryDirection::Forward), Vec::new())
    }

    fn backward(&self, _: Vec<Values>, gradient: Values, _: &[bool]) -> Vec<Option<Values>> {
        vec![Some(self.rotated(&gradient, RotaryDirection::Backward))]
    }
}

/// `silu(gate) * up`, all `[rows, width]`.
pub(super) fn gated_silu(gate: Tensor<2>, up: Tensor<2>, kernels: &Arc<Kernels>) -> Tensor<2> {
    apply([gate, up], GatedSilu { kernels: Arc::clone(kernels) })
}

struct GatedSilu {
    kernels: Arc<Kernels>,
}

impl Differentiable for GatedSilu {
    fn forward(&self, inputs: Vec<Values>) -> (Values, Vec<Values>) {
        let [rows, width] = dims(&inputs[0]);
        let mut y = vec![0.0; rows * width];
        self.kernels.gated_silu_forward(slice(&inputs[0]), slice(&inputs[1]), &mut y);
        (tensor(y, rows, width), inputs)
    }

    fn backward(&self, kept: Vec<Values>, gradient: Values, _: &[bool]) -> Vec<Option<Values>> {
        let [rows, width] = dims(&gradient);
        let (mut d_gate, mut d_up) = (vec![0.0; rows * width], vec![0.0; rows * width]);
        let (gate, up) = (slice(&kept[0]), slice(&kept[1]));
        self.kernels.gated_silu_backward(gate, up, slice(&gradient), &mut d_gate, &mut d_up);
        vec![Some(tensor(d_gate, rows, width)), Some(tensor(d_up, rows, width))]
    }
}

/// Rows that are visible to each row of a batch.
pub(super) struct Seen {
    /// Rows of a sequence.
    pub(super) length: usize,
    /// For every row the first of its sequence that it sees.
    pub(super) first: Vec<u32>,
}

/// Attention of queries `[rows, heads * head_dim]` to keys and values `[rows, kv_heads * head_dim]` of the same
/// sequences.
pub(super) fn attend(
    inputs: [Tensor<2>; 3],
    head_dim: usize,
    seen: Seen,
    scale: f32,
    kernels: &Arc<Kernels>,
) -> Tensor<2> {
    apply(inputs, Attend { head_dim, seen, scale, kernels: Arc::clone(kernels) })
}

struct Attend {
    head_dim: usize,
    seen: Seen,
    scale: f32,
    kernels: Arc<Kernels>,
}

impl Attend {
    fn shape(&self, queries: &Values, keys: &Values) -> CausalAttention<'_> {
        let ([_, width], [_, kv_width]) = (dims(queries), dims(keys));
        CausalAttention {
            heads: width / self.head_dim,
            kv_heads: kv_width / self.head_dim,
            head_dim: self.head_dim,
            length: self.seen.length,
            first: &self.seen.first,
            scale: self.scale,
        }
    }
}

impl Differentiable for Attend {
    fn forward(&self, mut inputs: Vec<Values>) -> (Values, Vec<Values>) {
        let shape = self.shape(&inputs[0], &inputs[1]);
        let [rows, width] = dims(&inputs[0]);
        let (mut out, mut log_sums) = (vec![0.0; rows * width], vec![0.0; rows * shape.heads]);
        let [queries, keys, values] = [0, 1, 2].map(|index| slice(&inputs[index]));
        self.kernels.causal_attention_forward(&shape, queries, keys, values, &mut out, &mut log_sums);
        let heads = shape.heads;
        let out = tensor(out, rows, width);
        inputs.extend([out.clone(), tensor(log_sums, rows, heads)]);
        (out, inputs)
    }

    fn backward(&self, kept: Vec<Values>, gradient: Values, _: &[bool]) -> Vec<Option<Values>> {
        let shape = self.shape(&kept[0], &kept[1]);
        let ([rows, width], [_, kv_width]) = (dims(&kept[0]), dims(&kept[1]));
        let mut d_queries = vec![0.0; rows * width];
        let (mut d_keys, mut d_values) = (vec![0.0; rows * kv_width], vec![0.0; rows * kv_width]);
        let [queries, keys, values, out, log_sums] = [0, 1, 2, 3, 4].map(|index| slice(&kept[index]));
        self.kernels.causal_attention_backward(
            &shape,
            queries,
            keys,
            values,
            out,
            log_sums,
            slice(&gradient),
            &mut d_queries,
            &mut d_keys,
            &mut d_values,
        );
        vec![
            Some(tensor(d_queries, rows, width)),
            Some(tensor(d_keys, rows, kv_width)),
            Some(tensor(d_values, rows, kv_width)),
        ]
    }
}

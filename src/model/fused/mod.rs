//! The operations of the description as fused kernels with their own backward pass, for training on the processor.
mod differentiable;

use std::sync::Arc;

use burn::tensor::Tensor;
use paceline_kernels::Kernels;

use super::angles::Angles;

/// What the rows of a batch see.
#[derive(Debug)]
pub(super) struct Seen {
    /// Rows of a sequence.
    pub(super) length: usize,
    /// For every row the first of its sequence that it sees.
    pub(super) first: Vec<u32>,
}
pub(super) fn embed(matrix: Tensor<2>, tokens: &[u32], kernels: &Arc<Kernels>) -> Tensor<2> {
    todo!()
}
pub(super) fn linear(x: Tensor<2>, w: Tensor<2>, kernels: &Arc<Kernels>) -> Tensor<2> {
    todo!()
}
pub(super) fn rms_norm(x: Tensor<2>, w: Tensor<2>, eps: f32, kernels: &Arc<Kernels>) -> Tensor<2> {
    todo!()
}
pub(super) fn rotate(x: Tensor<2>, angles: &Arc<Angles>, kernels: &Arc<Kernels>) -> Tensor<2> {
    todo!()
}
pub(super) fn gated_silu(gate: Tensor<2>, up: Tensor<2>, kernels: &Arc<Kernels>) -> Tensor<2> {
    todo!()
}
pub(super) fn attend(
    qkv: [Tensor<2>; 3],
    head_dim: usize,
    seen: Seen,
    scale: f32,
    kernels: &Arc<Kernels>,
) -> Tensor<2> {
    todo!()
}

//! Causal attention over whole sequences, and its gradient.
//!
//! As in FlashAttention (Dao et al. 2022) no matrix of length by length is kept: the gradient computes probabilities
//! again, from the logarithm of each row's sum. Queries are taken a block at a time, one in each lane, so a softmax
//! needs no sum across lanes and scores, `[keys][queries]`, are right as they are for every product that follows.
//! A key that a block has to look at but a query may not see is given a score so low that its probability is exactly
//! 0; adding that changes no sum, so blocks, threads and instruction sets leave no trace in the result.

mod backward;
mod block;
mod forward;
mod small;

use self::backward::Backward;
use self::forward::Forward;
use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::simd::LANES;

/// Softmax attention in which rows see earlier rows of their own sequence, and themselves.
///
/// Rows are sequences of `length`, one after the other. Queries are `[rows, heads * head_dim]`, keys and values `[rows,
/// kv_heads * head_dim]`; query head h looks at kv head `h / (heads / kv_heads)`. Scores are `scale * q.k`.
#[derive(Clone, Copy, Debug)]
pub struct CausalAttention<'a> {
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values, which divide the query heads.
    pub kv_heads: usize,
    /// Values in a head; multiples of 16 are fastest, of 32 where vectors are 512 bits long.
    pub head_dim: usize,
    /// Rows in a sequence.
    pub length: usize,
    /// For every row the first one that it sees, counted from its sequence's start: 0, or where its document or its
    /// window begins. It sees all from there to itself.
    pub first: &'a [u32],
    /// Factor that scores are multiplied by, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl CausalAttention<'_> {
    /// Panics where sizes do not fit.
    fn check(&self, q: &[f32], k: &[f32], v: &[f32], lse: &[f32]) {
        let Self { heads, kv_heads, head_dim, length, first, .. } = *self;
        assert!(heads > 0 && kv_heads > 0 && head_dim > 0 && length > 0, "attention has heads, dimensions and rows");
        assert!(heads.is_multiple_of(kv_heads), "query heads share kv heads evenly");
        assert!(length < 1 << 24, "positions are exact in f32");
        let rows = first.len();
        assert!(rows.is_multiple_of(length), "rows are whole sequences");
        assert_eq!(q.len(), rows * heads * head_dim, "q is [rows, heads * head_dim]");
        assert_eq!(k.len(), rows * kv_heads * head_dim, "k is [rows, kv_heads * head_dim]");
        assert_eq!(v.len(), k.len(), "v has the shape of k");
        assert_eq!(lse.len(), rows * heads, "lse is [rows, heads]");
        let sees_itself = |(row, first): (usize, &u32)| *first as usize <= row % length;
        assert!(first.iter().enumerate().all(sees_itself), "a row sees itself");
    }

    /// Sequences times kv heads: what is computed apart from each other.
    fn units(&self) -> usize {
        self.first.len() / self.length * self.kv_heads
    }

    /// Multiply-adds of a product of all queries with the keys they see, over sixteen; half of the keys, roughly.
    fn work(&self) -> usize {
        (self.first.len() * self.heads).saturating_mul(self.head_dim * self.length / 2 / LANES)
    }
}

impl Kernels {
    /// Attention: out has the shape of q, and `lse`, `[rows, heads]`, gets the logarithm of the sum of the exponentials
    /// of each row's scores, which the gradient needs.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length, `kv_heads` does not divide `heads`, a size is 0, or a row does
    /// not see itself.
    #[allow(clippy::too_many_arguments)] // the operation has this many
    pub fn causal_attention_forward(
        &self,
        attention: &CausalAttention<'_>,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        out: &mut [f32],
        lse: &mut [f32],
    ) {
        attention.check(q, k, v, lse);
        assert_eq!(out.len(), q.len(), "out has the shape of q");
        let (out, lse) = (SharedOutput::new(out), SharedOutput::new(lse));
        self.split(attention.units(), 1, 2 * attention.work(), &|units| {
            self.isa.enter(Forward { attention, q, k, v, units, out: &out, lse: &lse });
        });
    }

    /// The gradient of [`Kernels::causal_attention_forward`]: from its inputs, its results `out` and `lse`, and the
    /// gradient `d_out` of `out`, the gradients of q, k and v, which are overwritten.
    ///
    /// # Panics
    /// As for the forward pass.
    #[allow(clippy::too_many_arguments)] // the operation has this many
    pub fn causal_attention_backward(
        &self,
        attention: &CausalAttention<'_>,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        out: &[f32],
        lse: &[f32],
        d_out: &[f32],
        d_q: &mut [f32],
        d_k: &mut [f32],
        d_v: &mut [f32],
    ) {
        attention.check(q, k, v, lse);
        assert!([out.len(), d_out.len(), d_q.len()] == [q.len(); 3], "out, d_out and d_q have the shape of q");
        assert!([d_k.len(), d_v.len()] == [k.len(); 2], "d_k and d_v have the shape of k");
        let (d_q, d_k, d_v) = (SharedOutput::new(d_q), SharedOutput::new(d_k), SharedOutput::new(d_v));
        self.split(attention.units(), 1, 5 * attention.work(), &|units| {
            let job = Backward { attention, q, k, v, out, lse, d_out, units, d_q: &d_q, d_k: &d_k, d_v: &d_v };
            self.isa.enter(job);
        });
    }
}

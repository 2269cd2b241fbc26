//! Row-invariant CPU kernels: the arithmetic of a Llama-family forward pass whose results are the same bits
//! however the work is cut.
//!
//! Speculative decoding is exact only if a token's logits are the same whether it is computed alone or in a
//! batch with others. So for every kernel here, a row's result depends on that row's inputs alone: not on how
//! many rows are in the call or where the row stands, not on the number of threads, not on how a prompt was
//! chunked. It does not depend on the instruction set either: every kernel is one generic function over a
//! vector of sixteen lanes with one order of operations. (The bits of a NaN are the exception.)
//!
//! - [`Kernels::matmul`] sums along k in sixteen lanes, element i in lane i mod 16, by fused multiply-adds in
//!   order of k, then adds the lanes by a fixed tree. Threads split the output's columns.
//! - [`Kernels::matmul_quantized`] rounds activations per row and group of k, sums a group in integers, exactly, and
//!   the groups' sums in floats, in order of k.
//! - [`Kernels::attention`] treats each row and head on its own, in blocks of cache positions counted from position 0.
//!   A cache rounds what it is given, if its format is narrow, value by value.
//! - The exponential is the crate's own, and tails go through the same instructions as full vectors.

#[cfg(target_endian = "big")]
compile_error!("weights are stored little-endian and read in place");

mod attention;
mod buffer;
mod cache;
mod convert;
mod dot;
#[cfg(target_arch = "x86_64")]
mod dot_x86;
mod elementwise;
mod file;
mod isa;
mod kernels;
mod math;
mod matmul;
mod pool;
mod quantized;
mod quantized_matmul;
mod quantizer;
mod simd;
#[cfg(target_arch = "x86_64")]
mod simd_x86;
mod tile;
mod weights;

pub use cache::{CacheFormat, LayerCache};
pub use elementwise::{HeadNorms, HeadTransform};
pub use file::MappedFile;
pub use isa::InstructionSet;
pub use kernels::Kernels;
pub use pool::ThreadPool;
pub use quantized::{QuantizedFormat, QuantizedWeights};
pub use weights::{FloatFormat, Weights, WeightsError};

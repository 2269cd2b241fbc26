//! Row-invariant CPU kernels: the arithmetic of a Llama-family forward pass whose results are the same bits
//! however the work is cut.
//!
//! Speculative decoding is exact only if a token's logits are the same whether it is computed alone or in a
//! batch with others. So for every kernel here, a row's result depends on that row's inputs alone: not on how
//! many rows are in the call or where the row stands, not on the number of threads, not on how a prompt was
//! chunked. It does not depend on the instruction set either: every kernel is one generic function over a
//! vector of sixteen lanes with one order of operations. (The bits of a NaN are the exception.)
//!
//! - [`Kernels::matmul`] sums a group of 64 values of k, floats by fused multiply-adds in order of k, integers
//!   exactly, and the groups' sums in floats, in order of k. Where weights are integers, activations are rounded to
//!   integers per row and group.
//!   Threads split the outputs.
//! - [`Kernels::attention`] treats each row and head on its own, in blocks of cache positions counted from position 0.
//!   A cache rounds what it is given, if its format is narrow, value by value.
//! - Products and gradients for training have the same bits on every number of threads and instruction set too; sums over
//!   rows are cut into pieces of a fixed size.
//! - The exponential is the crate's own, and tails compute, value by value, what full vectors do.

#[cfg(target_endian = "big")]
compile_error!("weights are stored little-endian and read in place");

mod activations;
mod affine;
mod affinity;
mod allocator;
#[cfg(target_arch = "x86_64")]
mod amx;
mod arena;
mod attention;
mod blocks;
mod buffer;
mod bus_error;
mod cache;
mod caches;
mod distance;
mod dot;
#[cfg(target_arch = "x86_64")]
mod dot_avxvnni;
#[cfg(target_arch = "x86_64")]
mod dot_x86;
mod elementwise;
mod ending;
mod file;
mod form;
mod format;
mod isa;
mod kernels;
mod math;
mod multiply;
mod packed;
mod pool;
mod product;
mod quantizer;
mod race;
mod simd;
#[cfg(target_arch = "x86_64")]
mod simd_avx512;
#[cfg(target_arch = "x86_64")]
mod simd_x86;
pub mod standard_output;
mod stored;
mod training;
mod weights;

pub use activations::Input;
pub use allocator::{OutOfMemory, SystemAllocator, keep_freed_memory, may_fail};
pub use arena::{PlainMemory, WeightArena};
pub use attention::Scores;
pub use blocks::BlockFormat;
pub use bus_error::explain_bus_errors;
pub use cache::{CacheFormat, LayerPages, PAGE_POSITIONS, Run};
pub use elementwise::{Activation, HeadNorms, HeadTransform, Residual};
pub use ending::before_exit;
#[cfg(unix)]
pub use ending::stop_process;
pub use file::MappedFile;
pub use format::{MatrixFormat, QuantizedFormat};
pub use isa::InstructionSet;
pub use kernels::Kernels;
pub use packed::{PACKED_LAYOUT, PackedWeights};
pub use pool::ThreadPool;
pub use product::Product;
pub use race::{Lap, Race};
pub use training::{AdamWSettings, CausalAttention, MatrixLayout, RotaryDirection, TrainingPrecision};
pub use weights::{FloatFormat, RowOrder, StoredFormat, Weights, WeightsError};

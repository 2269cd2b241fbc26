//! Kernels for training: products in all three forms, and the operations between them with their gradients.
//!
//! Here rows are many (thousands of tokens), weights change with every step and nothing is packed ahead. A training
//! step must still be repeatable: every result has the same bits for every number of threads and instruction set. Sums
//! over rows are cut into pieces of a fixed size that are added in order; tails go through the same operations as full
//! vectors. Nothing is allocated per call but scratch that each thread keeps.

mod activation;
mod adamw;
mod arithmetic;
mod attention;
#[cfg(target_arch = "x86_64")]
mod bf16_x86;
mod cross_entropy;
mod embedding;
mod gemm;
mod norm;
mod panel;
mod rotary;
mod scratch;
mod soft_targets;
mod softmax;
mod sums;
mod tile;

pub use adamw::AdamWSettings;
pub use arithmetic::TrainingPrecision;
pub use attention::CausalAttention;
pub use gemm::MatrixLayout;
pub use rotary::RotaryDirection;

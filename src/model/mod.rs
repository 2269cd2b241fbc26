//! The model: one description of the Llama-family decoder, in burn tensors, and the state of one sequence
//! running through it.
//!
//! [`decoder`] says what a decoder computes. [`ops`] holds the dozen operations it is written in; a
//! [`Compute`] decides how each of them runs: on the CPU through the row-invariant kernels, elsewhere as
//! compositions of burn's own operations (which also serve as their oracle in the tests). [`cache`] keeps
//! keys and values, [`sequence`] moves one sequence through the layers. Nothing here knows of drafting beyond
//! "run these layers for these tokens, keep what was computed".

pub mod cache;
pub mod decoder;
pub mod device;
pub mod ops;
pub mod precision;
pub mod sequence;

pub use cache::KvCache;
pub use decoder::{Decoder, ModelError};
pub use device::{Compute, DeviceError, DeviceName};
pub use paceline_kernels::MatrixFormat;
pub use precision::weight_bytes;
pub use sequence::{LowerLayers, Sequence, Verified};

//! The model: one description of the Llama-family decoder, in burn tensors, and the state of one sequence
//! running through it.
//!
//! [`decoder`] says what a decoder computes, in the dozen operations of [`ops`], and runs so on every device that burn
//! knows; on the processor [`executor`] does the same with row-invariant kernels and without tensors, and the tests
//! hold it to the description. [`weights`] are what both are made of. [`cache`] keeps keys and values, [`sequence`]
//! moves one sequence through the layers, [`skip`] names those to leave out. Nothing here knows of drafting beyond "run
//! these layers for these tokens, keep what was computed".

mod angles;
mod batch;
pub mod cache;
mod control_groups;
pub mod decoder;
mod description;
pub mod device;
mod executor;
mod fused;
pub mod importance;
pub mod layer_choice;
pub(crate) mod memory;
mod ops;
mod parameters;
pub mod precision;
pub mod sequence;
pub mod skip;
mod trainable;
mod turns;
mod weights;

pub use batch::Batch;
pub use cache::KvCache;
pub use decoder::{Decoder, ModelError};
pub use device::{Compute, DeviceError, DeviceName};
pub use layer_choice::{LayerChoice, LayerChoiceError};
pub use ops::into_values;
pub use paceline_kernels::MatrixFormat;
pub use parameters::Parameters;
pub use precision::weight_bytes;
pub use sequence::{DraftAccess, DraftView, Sequence, Verified};
pub use skip::{SkipError, SkipPlan, Sublayer};
pub use trainable::{Model, Trainable};

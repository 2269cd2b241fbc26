//! The model: a Llama-family decoder, and the sequences that run through it.
//!
//! A forward pass is data in, data out ([`step`]): rows of any sequences, whose keys and values lie in the pages of a pool
//! ([`pool`]). Two backends compute it: [`reference`] says what a decoder computes, in the dozen operations of [`ops`], and runs
//! so on every device that burn knows; on the processor [`executor`] does the same with row-invariant kernels and without
//! tensors, and the tests hold it to the reference. [`weights`] are what both are made of. [`sequence`] knows how far one
//! sequence is, [`skip`] names layers to leave out. Nothing here knows of drafting beyond "run these layers for these tokens,
//! keep what was computed".

mod angles;
mod batch;
mod control_groups;
pub mod decoder;
pub mod device;
mod executor;
mod fused;
mod hidden;
pub mod importance;
pub mod kept;
mod layer_choice;
mod layer_order;
pub(crate) mod memory;
mod ops;
mod parameters;
pub mod pool;
mod pools;
pub mod precision;
mod reference;
pub mod sequence;
pub mod skip;
pub mod step;
mod trainable;
mod weights;

pub use batch::Batch;
pub use decoder::{Decoder, ModelError};
pub use device::{Compute, DeviceError, DeviceName};
pub use hidden::Hidden;
pub use layer_choice::{LayerChoice, LayerChoiceError};
pub use ops::into_values;
pub use paceline_kernels::MatrixFormat;
pub use parameters::Parameters;
pub use pool::{KvPool, PoolError, SlotId};
pub use pools::Pools;
pub use precision::weight_bytes;
pub use sequence::{SelfDraft, Sequence, Track, Verified, layer_evaluations};
pub use skip::{SkipError, SkipPlan, Sublayer};
pub use step::{Early, Output, Rows, Step, Vocabulary, Want};
pub use trainable::{Model, Trainable};

//! Makes the models that Paceline drafts with.
//!
//! One recipe ([`recipe`]) says what is made; each step reads its part of it.

pub mod answers;
pub mod baseline;
pub mod cli;
pub mod curve;
pub mod distill;
pub mod exits;
pub mod export;
pub mod family;
pub mod frequent;
pub mod growth;
pub mod initial;
pub mod job;
pub mod likelihood;
pub mod objective;
pub mod optimizer;
pub mod packing;
pub mod pretrain;
pub mod progress;
pub mod recipe;
pub mod router;
pub mod schedule;
pub mod score;
pub mod settings;
pub mod sources;
pub mod speed;
pub mod state;
pub mod tasks;
pub mod tokenizer;
pub mod tokens;
pub mod traces;
pub mod trainer;

pub use paceline::checksum;

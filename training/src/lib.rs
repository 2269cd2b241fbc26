//! Makes the models that Paceline drafts with.
//!
//! One recipe ([`recipe`]) says what is made; each step reads its part of it.

pub mod checksum;
pub mod cli;
pub mod curve;
pub mod job;
pub mod progress;
pub mod recipe;
pub mod sources;
pub mod tokenizer;
pub mod tokens;

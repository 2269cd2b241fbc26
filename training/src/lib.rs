//! Makes the models that Paceline drafts with.
//!
//! One recipe ([`recipe`]) says what is made; each step reads its part of it.

pub mod cli;
pub mod tasks;

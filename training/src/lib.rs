//! Makes the models that Paceline drafts with.
//!
//! One recipe ([`recipe`]) says what is made; each step reads its part of it. Modules import only those below them:
//! [`settings`] at the foot, the recipe on these, a [`job`] on the recipe, the steps on the job, and [`cli`] on top. What several
//! steps share and no job concerns (optimizer, shards of tokens, the loop that trains) stands beside the recipe, on the settings.

pub mod answers;
pub mod baseline;
pub mod cli;
pub mod curve;
pub mod device;
pub mod distill;
pub mod exits;
pub mod export;
pub mod family;
pub mod frequent;
pub mod generate;
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
pub mod score;
pub mod settings;
pub mod sources;
pub mod speed;
pub mod state;
pub mod task_sets;
pub mod tasks;
pub mod tokenize;
pub mod tokenizer;
pub mod tokens;
pub mod traces;
pub mod trainer;
pub mod vocabulary;

pub use paceline::checksum;

//! The sections of a recipe as plain data: their keys, their defaults, and the checks that each can make by itself.
//!
//! Every step reads its settings from here, and nothing here knows a step, a job or a tokenizer; of `tasks` it knows the names
//! of categories and levels. `recipe` puts the sections together and checks what concerns several of them.

mod data;
mod distillation;
mod draft_vocabulary;
mod early_exits;
mod exits;
mod model;
mod names;
mod optimizer;
mod phases;
mod router;
mod schedule;
mod tokenizer;
mod traces;
mod training;

pub use self::data::{DataRecipe, Fields, FocusSource, TaskSource, TextSource};
pub use self::distillation::DraftRecipe;
pub use self::draft_vocabulary::DraftVocabularyRecipe;
pub use self::early_exits::EarlyExits;
pub use self::exits::ExitsRecipe;
pub use self::model::ModelRecipe;
pub use self::names::{ANSWERS, CONTINUATIONS, TARGET, TASKS};
pub use self::optimizer::OptimizerSettings;
pub use self::phases::Phase;
pub use self::router::RouterRecipe;
pub use self::schedule::Schedule;
pub use self::tokenizer::TokenizerRecipe;
pub use self::traces::TracesRecipe;
pub use self::training::{Added, Curriculum, Growth, Products, TrainingRecipe};

//! Names that the pipeline itself gives to models and sources, and that a recipe cannot give to its own.

/// The target among the models.
pub const TARGET: &str = "target";
/// The generated tasks among the sources.
pub const TASKS: &str = "tasks";
/// The target's answers to tasks, in curves and among a draft's sources.
pub const ANSWERS: &str = "answers";
/// Texts that the target went on with, in curves and among a draft's sources.
pub const CONTINUATIONS: &str = "continuations";

//! The tasks that a recipe asks for, generated into its folder.

use std::fs;

use anyhow::Context;
use paceline::command::output;

use super::{Category, Generator, Level, Split, held_out_rows, write_rows};
use crate::checksum::Checksum;
use crate::job::{Job, Outcome};

/// Rows of the validation split that losses are measured on.
const VALIDATION: usize = 600;

/// Writes the tasks of `[data.tasks]`, if there are to be any and they are not there yet.
///
/// # Errors
/// When they cannot be written.
pub fn prepare(job: &Job) -> anyhow::Result<Outcome> {
    let Some(tasks) = &job.recipe.data.tasks else { return Ok(Outcome::Kept) };
    let (train, validation) = (job.tasks("train"), job.tasks("validation"));
    let mut key = Checksum::default();
    key.text(&format!("{} {} {}", env!("CARGO_PKG_VERSION"), tasks.train, job.recipe.seed));
    let key = key.finish();
    if job.is_done("tasks", key) && train.is_file() && validation.is_file() {
        return Ok(Outcome::Kept);
    }
    let folder = job.out().join("tasks");
    fs::create_dir_all(&folder).with_context(|| format!("The folder {} cannot be made", folder.display()))?;
    write_rows(&train, Generator::new(Split::Train, job.recipe.seed).take(tasks.train))?;
    let rows = held_out_rows(Split::Validation, job.recipe.seed, &Category::ALL, &Level::ALL, VALIDATION)?;
    write_rows(&validation, rows.into_iter())?;
    job.mark_done("tasks", key)?;
    output::say(&format!("tasks: {} to train on, {VALIDATION} to validate on\n", tasks.train));
    Ok(Outcome::Made)
}

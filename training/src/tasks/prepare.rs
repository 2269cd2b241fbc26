//! The tasks that a recipe asks for, generated into its folder.

use std::fs;

use anyhow::Context;
use paceline::command::output;

use super::{Category, Generator, Level, Split, held_out_rows, write_rows};
use crate::checksum::Checksum;
use crate::job::{Job, Outcome};
use crate::recipe::{FOCUS, TASKS, TaskSource};

/// Rows of the validation split that losses are measured on.
const VALIDATION: usize = 600;

/// Writes the tasks of `[data.tasks]` and `[data.focus]`, if there are to be any and they are not there yet.
///
/// # Errors
/// When they cannot be written.
pub fn prepare(job: &Job) -> anyhow::Result<Outcome> {
    let folder = job.out().join("tasks");
    let make_folder =
        || fs::create_dir_all(&folder).with_context(|| format!("The folder {} cannot be made", folder.display()));
    let mut outcome = Outcome::Kept;
    let data = &job.recipe.data;
    if let Some(source) = &data.tasks {
        let (train, validation) = (job.tasks("train"), job.tasks("validation"));
        let key = key(job, source, 0);
        if !(job.is_done(TASKS, key) && train.is_file() && validation.is_file()) {
            make_folder()?;
            write_rows(&train, rows(job, source, 0))?;
            let rows = held_out_rows(Split::Validation, job.recipe.seed, &Category::ALL, &Level::ALL, VALIDATION)?;
            write_rows(&validation, rows.into_iter())?;
            job.mark_done(TASKS, key)?;
            output::say(&format!("tasks: {} to train on, {VALIDATION} to validate on\n", source.train));
            outcome = Outcome::Made;
        }
    }
    if let Some(source) = &data.focus {
        // Others than those of `[data.tasks]`, of which no category and level has more than this.
        let before = data.tasks.as_ref().map_or(0, |tasks| tasks.train.div_ceil(cells(tasks)));
        let path = job.tasks(FOCUS);
        let key = key(job, source, before);
        if !(job.is_done(FOCUS, key) && path.is_file()) {
            make_folder()?;
            write_rows(&path, rows(job, source, before))?;
            job.mark_done(FOCUS, key)?;
            output::say(&format!("focus: {} more tasks to train on\n", source.train));
            outcome = Outcome::Made;
        }
    }
    Ok(outcome)
}

/// Rows for training, of each category and level from the number `first` on.
fn rows(job: &Job, source: &TaskSource, first: usize) -> impl Iterator<Item = super::Task> {
    Generator::new(Split::Train, job.recipe.seed)
        .only(&source.categories, &source.levels)
        .starting_at((first * cells(source)) as u64)
        .take(source.train)
}

fn cells(source: &TaskSource) -> usize {
    source.categories.len() * source.levels.len()
}

/// What tasks are made of, as a number.
fn key(job: &Job, source: &TaskSource, first: usize) -> u64 {
    let TaskSource { train, categories, levels, .. } = source;
    let (version, seed) = (env!("CARGO_PKG_VERSION"), job.recipe.seed);
    Checksum::of(format!("{version} {seed} {train} {first} {categories:?} {levels:?}").as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::job::JobFlags;
    use crate::tasks::read_rows;

    #[test]
    fn focus_is_more_of_what_it_names_and_none_of_it_twice() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = dir.path().join("x.toml");
        let focus =
            "[data.focus]\ntrain = 50\nweight = 0\ncategories = [\"summary\"]\nlevels = [\"simple\", \"medium\"]\n";
        fs::write(&recipe, format!("[data.tasks]\ntrain = 480\n{focus}")).unwrap();
        let job = Job::open(&JobFlags { recipe, out: Some(dir.path().to_owned()), set: Vec::new() }).unwrap();
        assert_eq!(prepare(&job).unwrap(), Outcome::Made);
        assert_eq!(prepare(&job).unwrap(), Outcome::Kept);

        let rows = read_rows(&job.tasks(FOCUS)).unwrap();
        assert_eq!(rows.len(), 50);
        assert!(rows.iter().all(|row| row.category == Category::Summary && row.level != Level::Complex));
        let others = read_rows(&job.tasks("train")).unwrap();
        let ids: BTreeSet<_> = rows.iter().chain(&others).map(|row| &row.id).collect();
        assert_eq!(ids.len(), 530, "every task has a number of its own");
    }
}

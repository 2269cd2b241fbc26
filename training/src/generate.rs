//! The step `tasks`: generates the tasks that a recipe asks for into its folder.

use std::fs;

use anyhow::Context;
use paceline::command::output;

use crate::checksum::Checksum;
use crate::job::{Job, Outcome};
use crate::settings::{FocusSource, TASKS};
use crate::tasks::{Category, Generator, Level, Split, Task, held_out_rows, write_rows};

/// Rows of the validation split that losses are measured on.
const VALIDATION: usize = 600;

/// Writes the tasks of `[data.tasks]` and `[[data.focus]]`, if there are to be any and they are not there yet.
///
/// # Errors
/// When they cannot be written.
pub fn run(job: &Job) -> anyhow::Result<Outcome> {
    let folder = job.out().join("tasks");
    let make_folder = || {
        fs::create_dir_all(&folder)
            .with_context(|| format!("The folder {} cannot be made; name another one with `--out`", folder.display()))
    };
    let mut outcome = Outcome::Kept;
    let data = &job.recipe.data;
    // A category and level has no task of a number twice: each source begins where the ones before it ended at most.
    let mut first = 0;
    if let Some(source) = &data.tasks {
        let (train, validation) = (job.tasks("train"), job.tasks("validation"));
        let key = key(job, &format!("{}", source.train));
        if !(job.is_done(TASKS, key) && train.is_file() && validation.is_file()) {
            make_folder()?;
            write_rows(&train, Generator::new(Split::Train, job.recipe.seed).take(source.train))?;
            let rows = held_out_rows(Split::Validation, job.recipe.seed, &Category::ALL, &Level::ALL, VALIDATION)?;
            write_rows(&validation, rows.into_iter())?;
            job.mark_done(TASKS, key)?;
            output::say(&format!("tasks: {} to train on, {VALIDATION} to validate on\n", source.train));
            outcome = Outcome::Made;
        }
        first = source.train.div_ceil(Category::ALL.len() * Level::ALL.len());
    }
    for FocusSource { name, train, categories, levels, containing, .. } in &data.focus {
        let (path, cells) = (job.tasks(name), categories.len() * levels.len());
        let filter = containing.as_ref().map(|text| format!(" {text}")).unwrap_or_default();
        let key = key(job, &format!("{train} {first} {categories:?} {levels:?}{filter}"));
        let looked_through = if containing.is_some() { LOOKED_THROUGH * train } else { *train };
        let step = format!("tasks-{name}");
        if !(job.is_done(&step, key) && path.is_file()) {
            make_folder()?;
            let rows = Generator::new(Split::Train, job.recipe.seed).only(categories, levels);
            let rows = rows.starting_at((first * cells) as u64).take(looked_through);
            let has =
                |text: &String, row: &Task| row.messages.last().is_some_and(|message| message.content().contains(text));
            let mut found = 0;
            let rows = rows.filter(|row| containing.as_ref().is_none_or(|text| has(text, row))).take(*train);
            write_rows(&path, rows.inspect(|_| found += 1))?;
            if found < *train {
                anyhow::bail!(
                    "Only {found} of the {train} tasks of the focus `{name}` were found among {looked_through} of its categories and \
                     levels: lower its `train`, or choose a text that more of them have in `containing`."
                );
            }
            job.mark_done(&step, key)?;
            output::say(&format!("{name}: {train} more tasks to train on\n"));
            outcome = Outcome::Made;
        }
        first += looked_through.div_ceil(cells);
    }
    Ok(outcome)
}

/// Tasks that are looked through for each that has a wanted text.
const LOOKED_THROUGH: usize = 4;

/// A hash of all that decides what the tasks are.
fn key(job: &Job, what: &str) -> u64 {
    Checksum::of(format!("{} {what} {}", env!("CARGO_PKG_VERSION"), job.recipe.seed).as_bytes())
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
        let summaries = "train = 50\ncategories = [\"summary\"]\nlevels = [\"simple\", \"medium\"]\n";
        let focus = |name: &str| format!("[[data.focus]]\nname = \"{name}\"\n{summaries}");
        fs::write(&recipe, format!("[data.tasks]\ntrain = 480\n{}{}", focus("a"), focus("b"))).unwrap();
        let job = Job::open(&JobFlags { recipe, out: Some(dir.path().join("out")), set: Vec::new() }).unwrap();
        assert_eq!(run(&job).unwrap(), Outcome::Made);
        assert_eq!(run(&job).unwrap(), Outcome::Kept);

        let mut rows = read_rows(&job.tasks("a")).unwrap();
        rows.extend(read_rows(&job.tasks("b")).unwrap());
        assert_eq!(rows.len(), 100);
        assert!(rows.iter().all(|row| row.category == Category::Summary && row.level != Level::Complex));
        let others = read_rows(&job.tasks("train")).unwrap();
        let ids: BTreeSet<_> = rows.iter().chain(&others).map(|row| &row.id).collect();
        assert_eq!(ids.len(), 580, "every task has a number of its own");
    }
}

//! The command `tasks`: writes task sets with checkable answers, those that are committed or others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::Args;
use paceline::command::output;
use paceline::visible;

use crate::tasks::{COMMITTED, Category, Generator, Level, Split, Table, committed_rows, held_out_rows, write_rows};

/// Writes task sets as JSON lines. Without a split: those that are committed, into the folder `--out`.
#[derive(Debug, Args)]
pub struct TasksFlags {
    /// The split to write
    #[arg(long, value_enum)]
    split: Option<Split>,
    /// How many rows [default: as many as are committed; needed for `train`]
    #[arg(long, requires = "split", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// The file to write, or without a split the folder [default: SPLIT.jsonl, datasets/tasks]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Another seed makes other tasks of the same kind; splits of different seeds share no prompt either
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only these categories
    #[arg(long, value_enum, value_delimiter = ',', requires = "split")]
    categories: Vec<Category>,
    /// Only these levels
    #[arg(long, value_enum, value_delimiter = ',', requires = "split")]
    levels: Vec<Level>,
}

/// Writes the files and prints what they are like.
///
/// # Errors
/// When the split has too few prompts, a file cannot be written, or nobody takes what is printed.
pub fn run(flags: &TasksFlags) -> anyhow::Result<()> {
    let report = match flags.split {
        None => {
            let folder = flags.out.as_deref().unwrap_or(Path::new("datasets/tasks"));
            fs::create_dir_all(folder).map_err(|error| {
                anyhow!("The folder {} cannot be made ({error}): name another one with --out.", folder.display())
            })?;
            let write = |&(split, count)| write(flags, split, count, &folder.join(format!("{split}.jsonl")));
            COMMITTED.iter().map(write).collect::<anyhow::Result<String>>()?
        }
        Some(split) => {
            let Some(count) = flags.count.map(|count| count as usize).or(committed_rows(split)) else {
                bail!("The split {split} has no end: say with --count how many rows to write.");
            };
            let file = flags.out.clone().unwrap_or_else(|| PathBuf::from(format!("{split}.jsonl")));
            write(flags, split, count, &file)?
        }
    };
    Ok(output::print(&report)?)
}

/// Writes a file, and says what it is like.
fn write(flags: &TasksFlags, split: Split, count: usize, file: &Path) -> anyhow::Result<String> {
    let (categories, levels) = (chosen(&flags.categories, &Category::ALL), chosen(&flags.levels, &Level::ALL));
    let mut table = Table::default();
    if split == Split::Train {
        let tasks = Generator::new(split, flags.seed).only(&categories, &levels).take(count);
        write_rows(file, tasks.inspect(|task| table.add(task)))?;
    } else {
        let tasks = held_out_rows(split, flags.seed, &categories, &levels, count)?;
        write_rows(file, tasks.into_iter().inspect(|task| table.add(task)))?;
    }
    Ok(format!("{}: {count} rows\n\n{table}\n", visible::line(&file.to_string_lossy())))
}

/// The ones named, each once and in the usual order; everything if nothing was.
fn chosen<T: Copy + PartialEq>(named: &[T], all: &[T]) -> Vec<T> {
    all.iter().copied().filter(|known| named.is_empty() || named.contains(known)).collect()
}

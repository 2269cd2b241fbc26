//! Tasks as rows of JSON lines.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use paceline::files::{self, AtomicFile, Object, may_replace};

use super::{Category, Level, Split, Task, cells};

/// The splits that are committed, with their rows: at least 1,000 a level where something is reported.
pub const COMMITTED: [(Split, usize); 3] = [(Split::Validation, 600), (Split::Calibration, 3024), (Split::Test, 3024)];

/// Number of repeated prompts in a row after which it is taken for granted that there are no others.
const PATIENCE: u64 = 10_000;

/// Why tasks could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// A split has fewer prompts than were asked for.
    #[error(
        "The split {split} has no more than {found} different prompts of {category}, {level}: ask for fewer rows with --count."
    )]
    TooFew {
        /// Which split.
        split: Split,
        /// Of which category.
        category: Category,
        /// Of which level.
        level: Level,
        /// Number of different prompts found, as far as the search went.
        found: usize,
    },
    /// Something else is where tasks should go.
    #[error("{path} holds something else than tasks and was left alone: name another file with `--out`.")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error(
        "The tasks {path} cannot be read ({reason}): name a file of JSON lines as `paceline-train tasks` writes it."
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// A row is not a task.
    #[error(
        "Line {line} of the tasks {path} is not a task ({reason}): a row needs `id`, `category`, `level`, `messages` and `answer`."
    )]
    BadRow {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// The problem with it.
        reason: String,
    },
    /// There is nothing in the file.
    #[error("The tasks {path} are empty: name a file with a task in every line.")]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("{path} cannot be written ({reason}): name another file with --out, or make room.")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
}

/// So many tasks of a split whose prompts all differ, balanced over the categories and levels.
///
/// # Errors
/// When the split has too few prompts.
///
/// # Panics
/// When there is no category or no level.
pub fn held_out_rows(
    split: Split,
    seed: u64,
    categories: &[Category],
    levels: &[Level],
    count: usize,
) -> Result<Vec<Task>, RowsError> {
    let mut cells: Vec<_> = cells(categories, levels).into_iter().map(|cell| (cell, 0, 0)).collect();
    let (mut rows, mut prompts) = (Vec::new(), BTreeSet::new());
    for index in 0..count {
        let place = index % cells.len();
        let ((category, level), next, found) = &mut cells[place];
        let last = *next + PATIENCE;
        loop {
            if *next == last {
                return Err(RowsError::TooFew { split, category: *category, level: *level, found: *found });
            }
            let task = Task::new(split, seed, *category, *level, *next);
            *next += 1;
            if prompts.insert(task.prompt()) {
                *found += 1;
                rows.push(task);
                break;
            }
        }
    }
    Ok(rows)
}

/// So many rows of a split are committed; none of the train split, which has no end.
pub fn committed_rows(split: Split) -> Option<usize> {
    COMMITTED.iter().find(|entry| entry.0 == split).map(|entry| entry.1)
}

/// Bytes of a file of tasks at most.
const LARGEST: u64 = 1 << 30;
/// Bytes of a line by which a file of tasks is known; tasks are shorter.
const LONGEST_TASK: u64 = 1 << 20;

/// Reads tasks from JSON lines; empty lines are passed over.
///
/// # Errors
/// When the file cannot be read, has no row, or has one that is not a task with a prompt and an answer.
pub fn read_rows(path: &Path) -> Result<Vec<Task>, RowsError> {
    let text = files::read_input_text(path, LARGEST)
        .map_err(|error| RowsError::Unreadable { path: path.to_owned(), reason: error.into() })?;
    let read = |(index, line): (usize, &str)| {
        let bad = |reason: String| RowsError::BadRow { path: path.to_owned(), line: index + 1, reason };
        let Object(task): Object<Task> = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        match () {
            () if task.messages.is_empty() => Err(bad("`messages` is empty".to_owned())),
            () if task.answer.trim().is_empty() => Err(bad("`answer` is empty".to_owned())),
            () => Ok(task),
        }
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows: Vec<Task> = lines.map(read).collect::<Result<_, _>>()?;
    if rows.is_empty() { Err(RowsError::NoRows { path: path.to_owned() }) } else { Ok(rows) }
}

/// True if a file that begins like this is one of tasks.
fn begins_with_a_task(beginning: &[u8]) -> bool {
    let line = beginning.split(|&byte| byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice::<Object<Task>>(line).is_ok()
}

/// Writes tasks as JSON lines. The file is replaced whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_rows(path: &Path, rows: impl Iterator<Item = Task>) -> Result<(), RowsError> {
    let unwritable = |reason| RowsError::Unwritable { path: path.to_owned(), reason };
    let is_free = may_replace(path, LONGEST_TASK, begins_with_a_task).map_err(|error| unwritable(error.into()))?;
    if !is_free {
        return Err(RowsError::Foreign { path: path.to_owned() });
    }
    let mut file = AtomicFile::create(path).map_err(|error| unwritable(error.source))?;
    for row in rows {
        let written = serde_json::to_writer(&mut file, &row).map_err(io::Error::from);
        written.and_then(|()| file.write_all(b"\n")).map_err(unwritable)?;
    }
    file.commit().map_err(|error| unwritable(error.source))
}

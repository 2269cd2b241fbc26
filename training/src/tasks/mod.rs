//! Prompts with checkable answers: what the models that ship are trained for and measured with.
//!
//! A task is a function of (seed, split, category, level, number): [`Generator`] counts through them, any number of them.
//! Each category invents a *content* (a passage, a sum, a list ..) and words it with one of its phrasings; the hash of the
//! content says which split it belongs to, so that splits cannot share a prompt. The wording says in which form the answer
//! is wanted, so that there is exactly one right answer.

mod arithmetic;
mod code;
mod dialogue;
mod extraction;
mod facts;
mod forms;
mod notation;
mod phrasings;
mod picker;
mod rows;
mod summary;
mod table;
mod transforms;
mod words;
mod world;

use std::fmt;

use clap::ValueEnum;
use paceline::Message;
use serde::{Deserialize, Serialize};

pub use self::phrasings::Phrasings;
use self::picker::Picker;
pub use self::rows::{COMMITTED, RowsError, committed_rows, held_out_rows, read_rows, write_rows};
pub use self::table::{SharedNgrams, Table};

/// The kind of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Recall of facts of a small invented world, which training has to put into the weights.
    Facts,
    /// Parts of a passage, word for word.
    Extraction,
    /// A structured passage made short.
    Summary,
    /// From one notation into another: number words, dates, times, units.
    Notation,
    /// Sums with their steps.
    Arithmetic,
    /// Lists sorted, reversed, counted, freed of repeats.
    Transforms,
    /// Bodies of small Rust and Python functions.
    Code,
    /// A question about what was said earlier in a conversation.
    Dialogue,
}

/// The difficulty of a task. The difference between levels is stated by each category's module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One step, or nearly nothing but copying.
    Simple,
    /// A few steps.
    Medium,
    /// Many steps.
    Complex,
}

/// The purpose of prompts. No two splits share a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For training; generated when it is wanted.
    Train,
    /// For choosing among recipes.
    Validation,
    /// For fitting thresholds and certificates.
    Calibration,
    /// For reporting; a quarter of it in phrasings that no other split has.
    Test,
}

impl Category {
    /// All of them, in the order in which [`Generator`] goes through them.
    pub const ALL: [Self; 8] = [
        Self::Facts,
        Self::Extraction,
        Self::Summary,
        Self::Notation,
        Self::Arithmetic,
        Self::Transforms,
        Self::Code,
        Self::Dialogue,
    ];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Extraction => "extraction",
            Self::Summary => "summary",
            Self::Notation => "notation",
            Self::Arithmetic => "arithmetic",
            Self::Transforms => "transforms",
            Self::Code => "code",
            Self::Dialogue => "dialogue",
        }
    }

    /// The ways in which its questions are put.
    pub fn phrasings(self) -> &'static Phrasings {
        match self {
            Self::Facts => &phrasings::FACTS,
            Self::Extraction => &phrasings::EXTRACTION,
            Self::Summary => &phrasings::SUMMARY,
            Self::Notation => &phrasings::NOTATION,
            Self::Arithmetic => &phrasings::ARITHMETIC,
            Self::Transforms => &phrasings::TRANSFORMS,
            Self::Code => &phrasings::CODE,
            Self::Dialogue => &phrasings::DIALOGUE,
        }
    }

    fn draft(self, picker: &mut Picker, level: Level, phrasing: &str) -> Draft {
        match self {
            Self::Facts => facts::draft(picker, level, phrasing),
            Self::Extraction => extraction::draft(picker, level, phrasing),
            Self::Summary => summary::draft(picker, level, phrasing),
            Self::Notation => notation::draft(picker, level, phrasing),
            Self::Arithmetic => arithmetic::draft(picker, level, phrasing),
            Self::Transforms => transforms::draft(picker, level, phrasing),
            Self::Code => code::draft(picker, level, phrasing),
            Self::Dialogue => dialogue::draft(picker, level, phrasing),
        }
    }
}

impl Level {
    /// All of them, from easy to hard.
    pub const ALL: [Self; 3] = [Self::Simple, Self::Medium, Self::Complex];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Medium => "medium",
            Self::Complex => "complex",
        }
    }

    /// One of three values, by the level.
    fn choose<T>(self, simple: T, medium: T, complex: T) -> T {
        match self {
            Self::Simple => simple,
            Self::Medium => medium,
            Self::Complex => complex,
        }
    }
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Train, Self::Validation, Self::Calibration, Self::Test];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Calibration => "calibration",
            Self::Test => "test",
        }
    }

    /// The split that a content belongs to: 4% are for validation, 8% each for calibration and test.
    fn of(content: &str) -> Self {
        match hash(content) % 100 {
            0..80 => Self::Train,
            80..84 => Self::Validation,
            84..92 => Self::Calibration,
            _ => Self::Test,
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A prompt with the answer that is right: a row of `datasets/tasks/*.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Split, category, level and number.
    pub id: String,
    /// The kind of task.
    pub category: Category,
    /// Its difficulty.
    pub level: Level,
    /// The conversation, which ends with the user's turn.
    pub messages: Vec<Message>,
    /// The one right answer.
    pub answer: String,
}

impl Task {
    /// The task with this number: the same on every machine.
    pub fn new(split: Split, seed: u64, category: Category, level: Level, number: u64) -> Self {
        Self::with_phrasing(split, seed, category, level, number).0
    }

    /// The task, and the phrasing that its question is put in.
    fn with_phrasing(split: Split, seed: u64, category: Category, level: Level, number: u64) -> (Self, &'static str) {
        let phrasings = category.phrasings();
        for attempt in 0.. {
            let mut picker = Picker::new(seed, number, [split as u16, category as u16, level as u16], attempt);
            let phrasing = phrasings.pick(&mut picker, split);
            let draft = category.draft(&mut picker, level, phrasing);
            if Split::of(&draft.content) == split {
                let id = format!("{split}-{category}-{level}-{number}");
                return (Self { id, category, level, messages: draft.messages, answer: draft.answer }, phrasing);
            }
        }
        unreachable!("every split gets its share of contents")
    }

    /// True if its question is put in a way that no training task has. `None` for a task that the generator does not
    /// make under this id with `seed`, so that nothing is known about its phrasing.
    pub fn is_phrased_anew(&self, seed: u64) -> Option<bool> {
        let mut parts = self.id.split('-');
        let split = parts.next().and_then(|name| Split::ALL.into_iter().find(|split| split.name() == name))?;
        let number = parts.next_back()?.parse().ok()?;
        let (own, phrasing) = Self::with_phrasing(split, seed, self.category, self.level, number);
        (own == *self).then(|| self.category.phrasings().test_only.contains(&phrasing))
    }

    /// The whole prompt as one text, which no two splits share.
    pub fn prompt(&self) -> String {
        let turns: Vec<_> = self.messages.iter().map(|turn| format!("{}: {}", turn.role(), turn.content())).collect();
        turns.join("\n")
    }
}

/// Tasks of a split without end, balanced over categories and levels.
///
/// The first 24 tasks are one of each category and level, and so are the next. Training tasks may repeat, because
/// some contents are few (the simple facts above all); [`held_out_rows`] leaves repeats out.
#[derive(Debug, Clone)]
pub struct Generator {
    split: Split,
    seed: u64,
    cells: Vec<(Category, Level)>,
    next: u64,
}

impl Generator {
    /// All categories and levels in turn.
    pub fn new(split: Split, seed: u64) -> Self {
        Self { split, seed, cells: cells(&Category::ALL, &Level::ALL), next: 0 }
    }

    /// Only these categories and levels, of which there must be at least one each. A task is the same whichever others
    /// are generated beside it.
    ///
    /// # Panics
    /// When there is no category or no level.
    #[must_use]
    pub fn only(self, categories: &[Category], levels: &[Level]) -> Self {
        assert!(!categories.is_empty() && !levels.is_empty(), "a generator needs a category and a level");
        Self { cells: cells(categories, levels), ..self }
    }

    /// Goes on with the task of this index, as if those before it had been taken.
    #[must_use]
    pub fn starting_at(self, index: u64) -> Self {
        Self { next: index, ..self }
    }

    /// The task of an index, without going there.
    pub fn task(&self, index: u64) -> Task {
        let cells = self.cells.len() as u64;
        let (category, level) = self.cells[(index % cells) as usize];
        Task::new(self.split, self.seed, category, level, index / cells)
    }
}

impl Iterator for Generator {
    type Item = Task;

    fn next(&mut self) -> Option<Task> {
        let task = self.task(self.next);
        self.next += 1;
        Some(task)
    }
}

fn cells(categories: &[Category], levels: &[Level]) -> Vec<(Category, Level)> {
    categories.iter().flat_map(|&category| levels.iter().map(move |&level| (category, level))).collect()
}

/// True if the given answer is the right one. White space counts in code, where it has a meaning, except at the
/// ends of lines; elsewhere any run of it is one space.
pub fn is_right(category: Category, answer: &str, given: &str) -> bool {
    match category {
        Category::Code => {
            let lines = |text: &str| text.trim_end().lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
            lines(answer) == lines(given)
        }
        _ => answer.split_whitespace().eq(given.split_whitespace()),
    }
}

/// A task as a category makes it.
struct Draft {
    /// The text that decides the split: all that the answer depends on, or more.
    content: String,
    messages: Vec<Message>,
    answer: String,
}

impl Draft {
    /// A question in a single turn.
    fn new(content: String, prompt: String, answer: String) -> Self {
        Self { content, messages: vec![turn("user", prompt)], answer }
    }
}

fn turn(role: &str, content: String) -> Message {
    Message::new(role, content)
}

/// FNV-1a, whose low bits are then mixed (the finalizer of MurmurHash3).
fn hash(text: &str) -> u64 {
    let mut hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

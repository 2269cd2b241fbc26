//! Statistics of a set of tasks: how many of each kind, how long their answers are, and how much of them is the same
//! everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Category, Level, Task};

/// Of how many answers a category's shared n-grams are counted: more change nothing and take long.
const COUNTED: usize = 3024;

/// Characters that a token has on average, roughly.
const CHARACTERS: usize = 4;

/// Lengths and shared n-grams of answers, by category.
#[derive(Debug, Default)]
pub struct Table {
    answers: BTreeMap<Category, Vec<(Level, String)>>,
}

/// The runs of n words that more than half of a set of answers hold.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedNgrams {
    /// These runs, in alphabetical order.
    pub ngrams: Vec<String>,
    /// Their share of all runs of n words in the answers, from 0 to 1.
    pub share: f64,
}

impl SharedNgrams {
    /// Counts runs of `n` words, where a word is anything between white space.
    pub fn count(answers: &[&str], n: usize) -> Self {
        let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut all = 0;
        for answer in answers {
            let words: Vec<&str> = answer.split_whitespace().collect();
            let runs: Vec<String> = words.windows(n).map(|run| run.join(" ")).collect();
            all += runs.len();
            for run in &runs {
                counts.entry(run.clone()).or_default().1 += 1;
            }
            for run in runs.into_iter().collect::<BTreeSet<_>>() {
                counts.entry(run).or_default().0 += 1;
            }
        }
        counts.retain(|_, (holders, _)| 2 * *holders > answers.len());
        let shared: usize = counts.values().map(|(_, occurrences)| occurrences).sum();
        Self { ngrams: counts.into_keys().collect(), share: shared as f64 / all.max(1) as f64 }
    }
}

impl Table {
    /// Takes a task into account.
    pub fn add(&mut self, task: &Task) {
        self.answers.entry(task.category).or_default().push((task.level, task.answer.clone()));
    }

    /// The median length of the answers in characters: of a category or all, of a level or all.
    pub fn median(&self, category: Option<Category>, level: Option<Level>) -> usize {
        let chosen = self.answers.iter().filter(|(known, _)| category.is_none_or(|wanted| wanted == **known));
        let answers = chosen.flat_map(|(_, answers)| answers);
        let mut lengths: Vec<usize> = answers
            .filter(|(known, _)| level.is_none_or(|wanted| wanted == *known))
            .map(|(_, answer)| answer.chars().count())
            .collect();
        lengths.sort_unstable();
        lengths.get(lengths.len() / 2).copied().unwrap_or(0)
    }

    /// The runs of `n` words that most answers of a category share.
    pub fn shared(&self, category: Category, n: usize) -> SharedNgrams {
        let answers = self.answers.get(&category).map_or(&[][..], Vec::as_slice);
        let answers: Vec<&str> = answers.iter().take(COUNTED).map(|(_, answer)| answer.as_str()).collect();
        SharedNgrams::count(&answers, n)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Median length of answers in characters, and runs of 1 to 4 words that more than half of a category's"
        )?;
        writeln!(f, "answers hold, as a part of all such runs in them:\n")?;
        writeln!(f, "| category | rows | simple | medium | complex | 1 word | 2 words | 3 words | 4 words |")?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        let shared = |category| (1..=4).map(move |n| (n, self.shared(category, n)));
        for (&category, answers) in &self.answers {
            write!(f, "| {category} | {} |", answers.len())?;
            for level in Level::ALL {
                write!(f, " {} |", self.median(Some(category), Some(level)))?;
            }
            for (_, shared) in shared(category) {
                write!(f, " {:.1}% |", 100.0 * shared.share)?;
            }
            writeln!(f)?;
        }
        let median = self.median(None, None);
        writeln!(f, "\nMedian answer: {median} characters, at four a token about {} tokens.\n", median / CHARACTERS)?;
        writeln!(f, "Shared:\n")?;
        for &category in self.answers.keys() {
            for (n, shared) in shared(category).filter(|(_, shared)| !shared.ngrams.is_empty()) {
                let runs: Vec<String> = shared.ngrams.iter().map(|run| format!("`{run}`")).collect();
                writeln!(f, "- {category}, {n}: {}", runs.join(" "))?;
            }
        }
        Ok(())
    }
}

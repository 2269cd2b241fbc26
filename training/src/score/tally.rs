//! Outcomes counted in groups.

use serde::Serialize;

use crate::likelihood::Loss;
use crate::tasks::{Category, Level};

/// The outcome of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The category of the task.
    pub category: Category,
    /// Its difficulty.
    pub level: Level,
    /// True if its phrasing is one that no training task has; `None` if that is not known.
    pub anew: Option<bool>,
    /// True if the answer was right.
    pub right: bool,
    /// True if it was cut off.
    pub cut: bool,
    /// Its tokens.
    pub tokens: usize,
    /// Their entropies in nats, summed.
    pub entropy: f64,
}

/// Outcomes of one kind, together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Of this category; of all if none is named.
    pub category: Option<Category>,
    /// Of this level; of all if none is named.
    pub level: Option<Level>,
    /// In phrasings that training had not (`true`) or had (`false`); in all if nothing is said.
    pub anew: Option<bool>,
    /// Prompts.
    pub rows: usize,
    /// Right answers.
    pub right: usize,
    /// Their share, from 0 to 1.
    pub accuracy: f64,
    /// Where the share lies with a confidence of 95%.
    pub interval: [f64; 2],
    /// Nats: the mean over all tokens of all answers, right or wrong.
    pub entropy: f64,
    /// The median number of tokens of an answer, its end included.
    pub median_tokens: usize,
    /// Answers that were cut off.
    pub cut: usize,
}

/// Loss of the model on a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextLoss {
    /// The text.
    pub text: String,
    /// The loss.
    #[serde(flatten)]
    pub loss: Loss,
}

/// All that was counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Score {
    /// The model that was scored.
    pub model: String,
    /// The precision of its matrices.
    pub precision: String,
    /// The tasks that it was asked.
    pub tasks: String,
    /// Every group that has prompts.
    pub groups: Vec<Group>,
    /// Texts that it predicted.
    pub texts: Vec<TextLoss>,
}

impl Score {
    /// Counts outcomes in all groups.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut groups = Vec::new();
        for anew in [None, Some(false), Some(true)] {
            for category in or_all(&Category::ALL) {
                for level in or_all(&Level::ALL) {
                    let belongs = |outcome: &&Outcome| {
                        category.is_none_or(|category| category == outcome.category)
                            && level.is_none_or(|level| level == outcome.level)
                            && (anew.is_none() || anew == outcome.anew)
                    };
                    let chosen: Vec<&Outcome> = outcomes.iter().filter(belongs).collect();
                    if !chosen.is_empty() {
                        groups.push(Group::of(&chosen, category, level, anew));
                    }
                }
            }
        }
        Self { groups, ..Self::default() }
    }

    /// A group, where there are prompts of it; `None` stands for all.
    pub fn group(&self, category: Option<Category>, level: Option<Level>, anew: Option<bool>) -> Option<&Group> {
        self.groups.iter().find(|group| (group.category, group.level, group.anew) == (category, level, anew))
    }
}

impl Group {
    fn of(outcomes: &[&Outcome], category: Option<Category>, level: Option<Level>, anew: Option<bool>) -> Self {
        let count = |of: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| of(outcome)).count();
        let (rows, right) = (outcomes.len(), count(|outcome| outcome.right));
        let mut lengths: Vec<usize> = outcomes.iter().map(|outcome| outcome.tokens).collect();
        lengths.sort_unstable();
        let tokens: usize = lengths.iter().sum();
        let entropy: f64 = outcomes.iter().map(|outcome| outcome.entropy).sum();
        Self {
            category,
            level,
            anew,
            rows,
            right,
            accuracy: right as f64 / rows.max(1) as f64,
            interval: wilson(right, rows),
            entropy: entropy / tokens.max(1) as f64,
            median_tokens: lengths.get(rows / 2).copied().unwrap_or(0),
            cut: count(|outcome| outcome.cut),
        }
    }
}

/// Each by itself, and behind them `None` for all together.
fn or_all<T: Copy>(values: &[T]) -> impl Iterator<Item = Option<T>> {
    values.iter().copied().map(Some).chain([None])
}

/// Between which shares the true one lies with a confidence of 95%, where `right` of `rows` were right (Wilson 1927).
/// Everything is possible where nothing was asked.
pub fn wilson(right: usize, rows: usize) -> [f64; 2] {
    /// The normal distribution has 95% between plus and minus this.
    const Z: f64 = 1.959_963_984_540_054;
    if rows == 0 {
        return [0.0, 1.0];
    }
    let (n, share) = (rows as f64, right as f64 / rows as f64);
    let scale = 1.0 + Z * Z / n;
    let middle = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    [(middle - half).max(0.0), (middle + half).min(1.0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_the_known_ones() {
        // Newcombe 1998 (Statistics in Medicine 17), table I, method 3.
        for (right, rows, [low, high]) in [
            (81, 263, [0.2553, 0.3662]),
            (15, 148, [0.0624, 0.1605]),
            (0, 20, [0.0, 0.1611]),
            (1, 29, [0.0061, 0.1718]),
        ] {
            let found = wilson(right, rows);
            assert!((found[0] - low).abs() < 6e-5 && (found[1] - high).abs() < 6e-5, "{right} of {rows}: {found:?}");
        }
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
    }

    proptest! {
        /// An end of the interval is a share from which the observed one is just 1.96 standard deviations away.
        #[test]
        fn ends_are_just_as_unlikely_as_asked(rows in 1..5000_usize, part in 0.0..=1.0) {
            let right = (rows as f64 * part) as usize;
            let share = right as f64 / rows as f64;
            for end in wilson(right, rows) {
                let deviations = (share - end).abs() - 1.959_964 * (end * (1.0 - end) / rows as f64).sqrt();
                prop_assert!((0.0..=1.0).contains(&end) && deviations.abs() < 1e-5, "{end} {deviations}");
            }
        }
    }
}

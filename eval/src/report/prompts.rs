//! Results of one plan's answers to a prompt, over its repeats.

use std::collections::{BTreeMap, BTreeSet};

use crate::rows::Row;
use crate::statistics::median;

/// A prompt, and what its answers took with one plan.
#[derive(Clone, Debug, Default)]
pub struct OfPrompt {
    /// Its kind and level.
    pub category: String,
    /// Its stated difficulty.
    pub level: String,
    /// Milliseconds per token after the prompt was read, by repeat; those of whole answers where [`OfPrompt::is_split`] is false.
    pub decode_ms: Vec<f64>,
    /// The median of them.
    pub typical_ms: f64,
    /// Milliseconds per token of the whole answer, the median over repeats.
    pub whole_ms: f64,
    /// Milliseconds of the whole answer, the median over repeats.
    pub latency_ms: f64,
    /// True if all repeats report how long the prompt was read.
    pub is_split: bool,
    /// Joules per token: the sum of all repeats over the sum of their tokens. A meter that cannot resolve one answer resolves many.
    pub joules: Option<f64>,
    /// Of them those that an idle machine would not have taken, where its watts are known.
    pub net_joules: Option<f64>,
    /// True if the answer is right, which it is if it is in all repeats.
    pub right: Option<bool>,
    /// True if it is right in some repeats, and not in others.
    pub wavers: bool,
    /// Its tokens' checksums by repeat, as far as they are known.
    pub digests: BTreeMap<usize, String>,
}

/// Two plans' answers to one prompt: a plan's own, and those of the plan it is compared with.
pub type Pair<'a> = (&'a OfPrompt, &'a OfPrompt);

impl OfPrompt {
    /// Milliseconds per token: of the whole answer, or after the prompt was read.
    pub fn pace(&self, whole: bool) -> f64 {
        if whole { self.whole_ms } else { self.typical_ms }
    }

    /// True if repeats have different tokens.
    pub fn is_unsteady(&self) -> bool {
        self.digests.values().collect::<BTreeSet<_>>().len() > 1
    }

    /// In each repeat of which the tokens of both are known, whether they are the same.
    pub fn same_as(&self, other: &Self) -> Vec<bool> {
        self.digests.iter().filter_map(|(repeat, own)| Some(own == other.digests.get(repeat)?)).collect()
    }
}

/// True if a row has tokens, and times that can be divided by: greater than 0 and finite.
pub fn is_usable(row: &Row) -> bool {
    let is_time = |ms: Option<f64>| ms.is_some_and(|ms| ms.is_finite() && ms > 0.0);
    is_time(row.latency_ms) && is_time(row.decode_ms())
}

/// The prompts of a plan's rows, all of which are usable.
pub fn of_prompts(rows: &[&Row]) -> BTreeMap<String, OfPrompt> {
    let mut all: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| all.entry(row.id.clone()).or_default().push(row));
    all.into_iter().filter_map(|(id, rows)| Some((id, of_prompt(&rows)?))).collect()
}

fn of_prompt(rows: &[&Row]) -> Option<OfPrompt> {
    let first = rows.first()?;
    let all = |value: &dyn Fn(&Row) -> Option<f64>| -> Vec<f64> { rows.iter().filter_map(|row| value(row)).collect() };
    let whole = all(&|row| Some(row.latency_ms? / row.tokens as f64));
    let is_split = rows.iter().all(|row| row.prefill_ms.is_some());
    let decode_ms = if is_split { all(&Row::decode_ms) } else { whole.clone() };
    let right: Vec<bool> = rows.iter().filter_map(|row| row.right).collect();
    let known = rows.iter().filter(|row| !row.digest.is_empty());
    Some(OfPrompt {
        category: first.category.clone(),
        level: first.level.clone(),
        typical_ms: median(&decode_ms)?,
        decode_ms,
        whole_ms: median(&whole)?,
        latency_ms: median(&all(&|row| row.latency_ms))?,
        is_split,
        joules: per_token(rows, |row| row.joules.filter(|joules| *joules >= 0.0)),
        net_joules: per_token(rows, |row| row.net_joules),
        right: (!right.is_empty()).then(|| right.iter().all(|right| *right)),
        wavers: right.contains(&true) && right.contains(&false),
        digests: known.map(|row| (row.repeat, row.digest.clone())).collect(),
    })
}

/// The sum of a reading over that of the tokens, of the rows that have one.
fn per_token(rows: &[&Row], reading: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
    let known = rows.iter().filter_map(|row| Some((reading(row).filter(|joules| joules.is_finite())?, row.tokens)));
    let (joules, tokens) = known.fold((0.0, 0), |sums, (joules, tokens)| (sums.0 + joules, sums.1 + tokens));
    (tokens > 0).then(|| joules / tokens as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn row(repeat: usize) -> Row {
        Row { id: "a".into(), repeat, tokens: 10, latency_ms: Some(25.0), prefill_ms: Some(5.0), ..Row::default() }
    }

    fn only(rows: &[Row]) -> OfPrompt {
        of_prompts(&rows.iter().collect::<Vec<_>>()).remove("a").unwrap()
    }

    /// The meter moves once in four answers: their median is 0, their sum is not.
    #[test]
    fn energy_is_that_of_all_repeats_together() {
        let joules = [0.0, 0.0, 4.0, 0.0].map(Some).into_iter().chain([None, Some(f64::NAN)]);
        let rows: Vec<Row> = joules
            .enumerate()
            .map(|(repeat, joules)| Row { joules, net_joules: joules.map(|joules| joules - 0.5), ..row(repeat) })
            .collect();
        let prompt = only(&rows);
        assert_eq!((prompt.joules, prompt.net_joules), (Some(0.1), Some(0.05)));
        assert_eq!(only(&rows[4..]).joules, None);
        let longer = [Row { joules: Some(1.0), ..row(0) }, Row { joules: Some(1.0), tokens: 30, ..row(1) }];
        assert_eq!(only(&longer).joules, Some(0.05));
    }

    #[test]
    fn an_answer_is_right_if_it_is_in_all_repeats() {
        let of = |right: &[Option<bool>]| {
            let rows: Vec<Row> =
                right.iter().enumerate().map(|(repeat, &right)| Row { right, ..row(repeat) }).collect();
            let prompt = only(&rows);
            (prompt.right, prompt.wavers)
        };
        assert_eq!(of(&[Some(true), Some(true)]), (Some(true), false));
        assert_eq!(of(&[Some(true), Some(false), Some(true)]), (Some(false), true));
        assert_eq!(of(&[Some(false), Some(false)]), (Some(false), false));
        assert_eq!(of(&[None, None]), (None, false));
    }

    #[test]
    fn a_prompt_whose_reading_is_unknown_once_is_timed_as_a_whole() {
        let split = only(&[row(0), row(1)]);
        assert_eq!((split.is_split, split.typical_ms, split.whole_ms), (true, 2.0, 2.5));
        let whole = only(&[row(0), Row { prefill_ms: None, ..row(1) }]);
        assert_eq!((whole.is_split, whole.typical_ms, whole.pace(false)), (false, 2.5, 2.5));
    }

    #[test]
    fn repeats_are_compared_with_the_same_repeats() {
        let of = |digests: &[&str]| {
            let rows: Vec<Row> = digests
                .iter()
                .enumerate()
                .map(|(repeat, digest)| Row { digest: (*digest).into(), ..row(repeat) })
                .collect();
            only(&rows)
        };
        let (own, other) = (of(&["x", "y", ""]), of(&["x", "x", "x"]));
        assert_eq!(own.same_as(&other), [true, false]);
        assert_eq!(own.same_as(&of(&["x", "y", "z"])), [true, true]);
        assert!(own.is_unsteady() && !other.is_unsteady() && !of(&["", "x"]).is_unsteady());
    }

    #[test]
    fn times_that_are_none_are_told_from_others() {
        assert!(is_usable(&row(0)));
        let wrong = |latency_ms, prefill_ms| Row { latency_ms, prefill_ms, ..row(0) };
        for row in [
            wrong(None, None),
            wrong(Some(f64::NAN), None),
            wrong(Some(f64::INFINITY), Some(1.0)),
            wrong(Some(0.0), None),
            wrong(Some(5.0), Some(5.0)),
            wrong(Some(-5.0), Some(-9.0)),
            wrong(Some(5.0), Some(7.0)),
            wrong(Some(5.0), Some(f64::NAN)),
            Row { tokens: 0, ..row(0) },
            Row { error: "no".into(), ..row(0) },
        ] {
            assert!(!is_usable(&row), "{row:?}");
        }
    }
}

//! Quality of a plan's answers: the share identical to the reference's, and the share that is right.

use super::prompts::Pair;
use crate::statistics::{Interval, NonInferiority, holm, mcnemar, non_inferiority, wilson};

/// The drop of right answers that counts as none, as a share of all prompts.
pub const MARGIN: f64 = 0.01;

/// Quality of a plan's answers, over prompts that the reference answered too.
#[derive(Clone, Debug)]
pub struct Quality {
    /// Share of right answers, of prompts with a known one; an answer is right if it is in all repeats (Wilson's interval).
    pub right: Option<Interval>,
    /// Prompts with a known answer, of both sides.
    pub checked: u64,
    /// The share of answers whose tokens are those of the reference in the same repeat.
    pub same: Option<f64>,
    /// True if all tokens are known to be the reference's.
    pub is_identical: bool,
    /// Prompts whose repeats have different tokens.
    pub unsteady: usize,
    /// Prompts whose answer is right in some repeats, and not in others.
    pub wavering: usize,
    /// Results of the tests; `None` where there is nothing to test.
    pub tests: Option<Tests>,
}

/// Comparison of a plan's right answers with the reference's.
#[derive(Clone, Copy, Debug)]
pub struct Tests {
    /// The p-value of as many answers being right (McNemar's exact test, corrected after Holm for all plans tested).
    pub p: f64,
    /// Test that there are not more than [`MARGIN`] fewer: at 2.5% over the number of plans tested.
    pub not_worse: NonInferiority,
}

/// Verdict on answers being not worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Their tokens are the reference's.
    Same,
    /// They are shown to be.
    NotWorse,
    /// They may be.
    NotShown,
}

impl Verdict {
    /// As pages and tables say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::NotWorse => "yes",
            Self::NotShown => "not shown",
        }
    }
}

impl Quality {
    /// That of pairs. A plan that can give other tokens than the reference is tested, and one that did though it must not.
    pub(super) fn of(pairs: &[Pair<'_>], can_differ: bool) -> Self {
        let checked: Vec<(bool, bool)> =
            pairs.iter().filter_map(|(own, base)| Some((own.right?, base.right?))).collect();
        let only = |wanted: (bool, bool)| checked.iter().filter(|pair| **pair == wanted).count() as u64;
        let (own_alone, base_alone, n) = (only((true, false)), only((false, true)), checked.len() as u64);
        let by_prompt: Vec<Vec<bool>> = pairs.iter().map(|(own, base)| own.same_as(base)).collect();
        let answers: Vec<bool> = by_prompt.iter().flatten().copied().collect();
        let same = answers.iter().filter(|same| **same).count();
        let is_identical = same == answers.len() && by_prompt.iter().all(|repeats| !repeats.is_empty());
        let is_tested = n > 0 && (can_differ || same < answers.len());
        Self {
            right: (n > 0).then(|| wilson(own_alone + only((true, true)), n)),
            checked: n,
            same: (!answers.is_empty()).then(|| same as f64 / answers.len() as f64),
            is_identical,
            unsteady: pairs.iter().filter(|(own, _)| own.is_unsteady()).count(),
            wavering: pairs.iter().filter(|(own, _)| own.wavers).count(),
            tests: is_tested.then(|| Tests {
                p: mcnemar(own_alone, base_alone),
                not_worse: non_inferiority(own_alone, base_alone, n, MARGIN),
            }),
        }
    }

    /// Verdict on answers being not worse, where there is one.
    pub fn verdict(&self) -> Option<Verdict> {
        if self.is_identical {
            return Some(Verdict::Same);
        }
        let holds = self.tests.as_ref()?.not_worse.holds;
        Some(if holds { Verdict::NotWorse } else { Verdict::NotShown })
    }

    /// Difference of the shares of right answers, from -1 to 1, positive if more are right, with Tango's interval.
    pub fn difference(&self) -> Option<Interval> {
        self.tests.as_ref().map(|tests| tests.not_worse.difference)
    }
}

/// Corrects tests for there being several: p-values after Holm, non-inferiority after Bonferroni.
pub(super) fn correct(mut tests: Vec<&mut Tests>) {
    let count = tests.len();
    let adjusted = holm(&tests.iter().map(|tests| tests.p).collect::<Vec<_>>());
    for (tests, p) in tests.iter_mut().zip(adjusted) {
        **tests = Tests { p, not_worse: tests.not_worse.among(count) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;
    use crate::report::prompts::OfPrompt;

    fn prompt(right: bool, digests: &[&str]) -> OfPrompt {
        let digests = digests.iter().enumerate().map(|(repeat, digest)| (repeat, (*digest).to_owned())).collect();
        OfPrompt { right: Some(right), digests, ..OfPrompt::default() }
    }

    fn of(own: &[OfPrompt], base: &[OfPrompt], can_differ: bool) -> Quality {
        Quality::of(&own.iter().zip(base).collect::<Vec<_>>(), can_differ)
    }

    #[test]
    fn tokens_are_compared_in_every_repeat() {
        let base = vec![prompt(true, &["a", "a", "a"]); 4];
        let mut own = base.clone();
        let found = of(&own, &base, false);
        assert!(found.is_identical && found.same == Some(1.0) && found.tests.is_none(), "{found:?}");
        assert_eq!(found.verdict(), Some(Verdict::Same));
        // Only the last repeat of the last prompt differs.
        own[3] = prompt(true, &["a", "a", "b"]);
        let found = of(&own, &base, false);
        assert_eq!((found.same, found.is_identical, found.unsteady), (Some(11.0 / 12.0), false, 1));
        assert!(found.tests.is_some() && found.verdict() == Some(Verdict::NotShown), "{found:?}");
        // What is not known to be the same is not said to be.
        own[3] = prompt(true, &[]);
        let found = of(&own, &base, false);
        assert!(found.same == Some(1.0) && !found.is_identical && found.verdict().is_none(), "{found:?}");
    }

    #[test]
    fn right_answers_are_compared_with_tangos_interval() {
        // Bentur et al. 2009, as in the tests of the statistics: 1 and 7 of 21 differ.
        let sides = |own: bool, base: bool, count| vec![(prompt(own, &["a"]), prompt(base, &["b"])); count];
        let all =
            [sides(true, false, 1), sides(false, true, 7), sides(true, true, 10), sides(false, false, 3)].concat();
        let (own, base): (Vec<OfPrompt>, Vec<OfPrompt>) = all.into_iter().unzip();
        let found = of(&own, &base, true);
        let difference = found.difference().unwrap();
        assert!((difference.estimate + 6.0 / 21.0).abs() < 1e-12, "{difference:?}");
        assert!((difference.low + 0.517).abs() < 5e-4 && (difference.high + 0.026).abs() < 5e-4, "{difference:?}");
        assert!((found.tests.unwrap().p - 0.0703).abs() < 5e-5 && found.checked == 21);
        assert!((found.right.unwrap().estimate - 11.0 / 21.0).abs() < 1e-12);
        assert_eq!((found.verdict(), found.same), (Some(Verdict::NotShown), Some(0.0)));
    }

    #[test]
    fn tests_are_corrected_for_their_number() {
        let of = |p: f64, n: u64| Tests { p, not_worse: non_inferiority(0, 0, n, MARGIN) };
        // 400 prompts suffice for one test, not for two; 600 do for both.
        let mut all = [of(0.03, 400), of(0.2, 600)];
        correct(vec![&mut all[0]]);
        assert!(all[0].p == 0.03 && all[0].not_worse.holds);
        correct(all.iter_mut().collect());
        assert_eq!(all.map(|tests| (tests.p, tests.not_worse.holds)), [(0.06, false), (0.2, true)]);
    }
}

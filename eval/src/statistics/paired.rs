//! Two sides that answered the same prompts: is one better, is one no worse?
//!
//! Both questions are about the prompts that one side alone answered rightly; those that both did, or neither, say nothing of the
//! direction, but how many there are says how large a difference can be.

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

use super::{Interval, TAIL, deviations};

/// The two-sided p-value of the hypothesis that both sides are right equally often, where one alone was right so many times
/// (McNemar's test in its exact form: a binomial distribution of the prompts on which they differ).
pub fn mcnemar(only_a_right: u64, only_b_right: u64) -> f64 {
    let differing = only_a_right.saturating_add(only_b_right);
    let law = Binomial::new(0.5, differing);
    let tail = law.map_or(1.0, |law| law.cdf(only_a_right.min(only_b_right)));
    (2.0 * tail).min(1.0)
}

/// Test that a side is no worse than another by more than a margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NonInferiority {
    /// Share of right answers on the first side less that on the second, from -1 to 1.
    pub difference: Interval,
    /// The one-sided p-value of the hypothesis that it is smaller by the margin or more.
    pub p: f64,
    /// True if that is rejected at 2.5%, or, which is the same, the whole interval lies above minus the margin.
    pub holds: bool,
}

impl NonInferiority {
    /// The same as one of so many tests: it holds at 2.5% divided by their number (Bonferroni), so that with a probability of at most
    /// 2.5% any of them holds wrongly. The interval stays one of 95%.
    #[must_use]
    pub fn among(self, tests: usize) -> Self {
        Self { holds: self.p <= level(tests), ..self }
    }
}

/// The one-sided level of each of so many tests.
fn level(tests: usize) -> f64 {
    TAIL / tests.max(1) as f64
}

/// The fewest prompts of which [`non_inferiority`] can hold as one of so many tests, though the sides differ on none. Nothing
/// suffices for a margin of 0.
///
/// It is where the score of no differences, `sqrt(n * margin / (1 - margin))`, reaches the level.
pub fn least_prompts(margin: f64, tests: usize) -> u64 {
    let deviations = Normal::standard().inverse_cdf(1.0 - level(tests));
    (deviations * deviations * (1.0 - margin) / margin).ceil() as u64
}

/// Tests that side A is right as often as side B, or less often by no more than `margin` (from 0 to below 1), where of
/// `n` prompts `only_a_right` were answered rightly by A alone and `only_b_right` by B alone.
///
/// The score test and the score interval of Tango (1998, Statistics in Medicine 17, 891-908): the difference is
/// measured in standard deviations that it would have were it just the margin, the prompts on which the sides differ
/// being as likely as they can then be. The level is 2.5% one-sided, as ICH E9 has it, so that test and two-sided
/// interval of 95% say the same. The true error is below it, as a test finds by enumerating all outcomes for 200 and
/// 300 prompts; of no prompts nothing holds.
///
/// # Panics
/// If the sides differ on more than `n` prompts, or the margin is out of its range.
pub fn non_inferiority(only_a_right: u64, only_b_right: u64, n: u64, margin: f64) -> NonInferiority {
    assert!((0.0..1.0).contains(&margin), "a margin of {margin} is none");
    let counts = Counts::new(only_a_right, only_b_right, n);
    let Some(counts) = counts else {
        return NonInferiority {
            difference: Interval { estimate: f64::NAN, low: -1.0, high: 1.0 },
            p: 1.0,
            holds: false,
        };
    };
    let p = Normal::standard().sf(counts.score(-margin));
    NonInferiority { difference: counts.interval(), p, holds: p <= TAIL }
}

/// On how many prompts the sides differ.
struct Counts {
    only_a: f64,
    only_b: f64,
    n: f64,
}

impl Counts {
    /// `None` of no prompts.
    fn new(only_a: u64, only_b: u64, n: u64) -> Option<Self> {
        let differing = only_a.checked_add(only_b);
        assert!(differing.is_some_and(|differing| differing <= n), "{only_a} and {only_b} of {n} prompts");
        (n > 0).then_some(Self { only_a: only_a as f64, only_b: only_b as f64, n: n as f64 })
    }

    /// The likeliest probability that B alone is right, if A's share is larger by `difference`: the larger root of the
    /// quadratic equation that the derivative of the likelihood is.
    fn likeliest(&self, difference: f64) -> f64 {
        let Self { only_a, only_b, n } = *self;
        let linear = -only_a - only_b + (2.0 * n - only_a + only_b) * difference;
        let constant = -only_b * difference * (1.0 - difference);
        // Rounding alone makes the discriminant negative.
        ((linear * linear - 8.0 * n * constant).max(0.0).sqrt() - linear) / (4.0 * n)
    }

    /// Number of standard deviations by which the observed difference lies above `difference`, if that is the true one.
    fn score(&self, difference: f64) -> f64 {
        let above = self.only_a - self.only_b - self.n * difference;
        let variance = self.n * (2.0 * self.likeliest(difference) + difference * (1.0 - difference));
        match above {
            // Nothing differs and nothing should: no evidence either way.
            0.0 => 0.0,
            _ => above / variance.max(0.0).sqrt(),
        }
    }

    /// The differences from which the observed one is at most 1.96 standard deviations away.
    fn interval(&self) -> Interval {
        // The score falls as the difference rises.
        let end = |score: f64| {
            let (mut low, mut high) = (-1.0, 1.0);
            for _ in 0..60 {
                let middle = f64::midpoint(low, high);
                *(if self.score(middle) > score { &mut low } else { &mut high }) = middle;
            }
            f64::midpoint(low, high)
        };
        let estimate = (self.only_a - self.only_b) / self.n;
        Interval { estimate, low: end(deviations()).min(estimate), high: end(-deviations()).max(estimate) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use statrs::distribution::Discrete;

    use super::*;

    /// Of all ways in which differing prompts can fall to the two sides, the share that is as lopsided or more.
    fn by_enumeration(only_a: u32, only_b: u32) -> f64 {
        let differing = only_a + only_b;
        let is_as_far = |way: &u32| way.count_ones().abs_diff(differing - way.count_ones()) >= only_a.abs_diff(only_b);
        (0..1_u32 << differing).filter(is_as_far).count() as f64 / f64::from(1_u32 << differing)
    }

    #[test]
    fn the_exact_test_counts_what_is_as_lopsided() {
        for only_a in 0..=7 {
            for only_b in 0..=7 {
                let (found, counted) = (mcnemar(only_a.into(), only_b.into()), by_enumeration(only_a, only_b));
                assert!((found - counted).abs() < 1e-12, "{only_a} {only_b}: {found}, {counted} counted");
            }
        }
    }

    #[test]
    fn the_exact_test_gives_published_values() {
        // Airway hyper-responsiveness (Bentur et al. 2009), in Fagerland, Lydersen and Laake 2013 (BMC Medical Research Methodology 13:91).
        assert!((mcnemar(1, 7) - 0.0703).abs() < 5e-5, "{}", mcnemar(1, 7));
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(5, 5), 1.0);
        // Large counts keep their digits: the normal approximation with continuity correction is near.
        let z = (540.0 - 460.0 - 1.0) / 1000.0_f64.sqrt();
        let near = 2.0 * Normal::standard().sf(z);
        assert!((mcnemar(540, 460) / near - 1.0).abs() < 0.01, "{} {near}", mcnemar(540, 460));
    }

    #[test]
    fn intervals_are_published_ones() {
        // Fagerland, Lydersen and Laake 2014 (Statistics in Medicine 33, 2850-2875), whose examples are Bentur et al. 2009 and Cavo et al. 2012.
        for (only_a, only_b, n, low, high) in [(1, 7, 21, -0.517, -0.026), (6, 16, 161, -0.124, -0.0054)] {
            let found = non_inferiority(only_a, only_b, n, 0.0).difference;
            assert!((found.low - low).abs() < 5e-4 && (found.high - high).abs() < 5e-4, "{found:?}");
            let mirrored = non_inferiority(only_b, only_a, n, 0.0).difference;
            assert!((mirrored.low + found.high).abs() < 1e-9 && (mirrored.high + found.low).abs() < 1e-9);
        }
    }

    /// Without a margin the score is McNemar's, `(b - c) / sqrt(b + c)`.
    #[test]
    fn without_a_margin_the_test_is_mcnemars() {
        for (only_a, only_b) in [(3_u64, 9_u64), (20, 11), (400, 350)] {
            let (a, b) = (only_a as f64, only_b as f64);
            let p = Normal::standard().sf((a - b) / (a + b).sqrt());
            let found = non_inferiority(only_a, only_b, 1000, 0.0).p;
            assert!((found - p).abs() < 1e-9, "{found} {p}");
        }
    }

    /// Nobody differed on any prompt: `n` of them rule out a difference of `3.84 / (n + 3.84)`, by hand.
    #[test]
    fn agreement_alone_needs_prompts() {
        assert!(non_inferiority(0, 0, 381, 0.01).holds);
        assert!(!non_inferiority(0, 0, 380, 0.01).holds);
        let interval = non_inferiority(0, 0, 50, 0.1).difference;
        let known = 3.841_459 / 53.841_459;
        assert!((interval.high - known).abs() < 1e-6 && (interval.low + known).abs() < 1e-6, "{interval:?}");
        let nothing = non_inferiority(0, 0, 0, 0.1);
        assert!(!nothing.holds && nothing.p == 1.0 && nothing.difference.low == -1.0);
        let undecided = non_inferiority(0, 0, 10, 0.0);
        assert!(!undecided.holds && undecided.p == 0.5, "{undecided:?}");
    }

    #[test]
    fn several_tests_need_more_evidence_each() {
        assert_eq!(least_prompts(0.01, 1), 381);
        for tests in [1, 2, 5, 40] {
            for margin in [0.01, 0.05, 0.3] {
                let least = least_prompts(margin, tests);
                let holds = |n| non_inferiority(0, 0, n, margin).among(tests).holds;
                assert!(holds(least) && !holds(least - 1), "{least} of {tests} tests, margin {margin}");
            }
        }
        let one = non_inferiority(0, 0, 400, 0.01);
        assert!(one.holds && !one.among(2).holds && one.among(2).difference == one.difference);
    }

    #[test]
    fn ends_of_the_scale_are_reached() {
        let all = non_inferiority(10, 0, 10, 0.05);
        assert!(all.holds && all.difference.estimate == 1.0 && (all.difference.high - 1.0).abs() < 1e-9, "{all:?}");
        let none = non_inferiority(0, 10, 10, 0.05);
        assert!(!none.holds && none.p > 0.99 && (none.difference.low + 1.0).abs() < 1e-9, "{none:?}");
    }

    #[test]
    #[should_panic(expected = "3 and 8 of 10 prompts")]
    fn more_differences_than_prompts_are_a_mistake() {
        non_inferiority(3, 8, 10, 0.1);
    }

    /// The probability that the test says "no worse" where A is worse by just the margin, by enumeration of all outcomes.
    fn error(n: u64, margin: f64, only_a: f64) -> f64 {
        let law = |p: f64, n: u64, count: u64| Binomial::new(p, n).map_or(0.0, |law| law.pmf(count));
        let mut error = 0.0;
        for a in 0..=n {
            let likely = law(only_a, n, a);
            for b in (0..=n - a).take_while(|_| likely > 1e-9) {
                let together = likely * law((only_a + margin) / (1.0 - only_a), n - a, b);
                if together > 1e-12 && non_inferiority(a, b, n, margin).holds {
                    error += together;
                }
            }
        }
        error
    }

    #[test]
    fn the_error_is_below_its_level() {
        for (n, margin) in [(200, 0.05), (300, 0.02)] {
            for only_a in [0.001, 0.01, 0.05, 0.1] {
                let error = error(n, margin, only_a);
                assert!(error <= 0.025 && error > 0.005, "{n} {margin} {only_a}: {error}");
            }
        }
    }

    /// The same by drawing answers: what is worse by the margin passes in 2.5% of all trials at most, what is as good mostly does.
    #[test]
    fn what_is_worse_rarely_passes_and_what_is_as_good_mostly_does() {
        const TRIALS: u64 = 4000;
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let mut passed = |right: f64, worse: f64| {
            let trial = |_| {
                let (mut only_a, mut only_b) = (0, 0);
                for _ in 0..600 {
                    // B is right at random, A follows it nine times of ten, and else has its own luck.
                    let b = random.random_bool(right);
                    let own = random.random_bool(right - worse * 10.0);
                    let a = if random.random_bool(0.9) { b } else { own };
                    only_a += u64::from(a && !b);
                    only_b += u64::from(b && !a);
                }
                u64::from(non_inferiority(only_a, only_b, 600, 0.03).holds)
            };
            (0..TRIALS).map(trial).sum::<u64>()
        };
        let most = Binomial::new(0.025, TRIALS).map_or(0, |law| law.inverse_cdf(1.0 - 1e-4));
        let (worse, as_good) = (passed(0.7, 0.03), passed(0.7, 0.0));
        assert!(worse <= most && worse > TRIALS / 100, "{worse} of {TRIALS} passed, {most} allowed");
        assert!(as_good > TRIALS * 9 / 10, "{as_good} of {TRIALS} passed");
    }

    proptest! {
        /// The likeliest probability is that which a search finds.
        #[test]
        fn the_likelihood_has_its_maximum_there(a in 0..60_u64, b in 0..60_u64, more in 1..300_u64, difference in -0.5..0.5_f64) {
            let n = a + b + more;
            let Some(counts) = Counts::new(a, b, n) else { return Ok(()) };
            let likelihood = |only_b: f64| {
                let term = |count: f64, p: f64| if count == 0.0 { 0.0 } else { count * p.max(1e-300).ln() };
                let same = 1.0 - 2.0 * only_b - difference;
                term(counts.only_a, only_b + difference) + term(counts.only_b, only_b) + term(more as f64, same)
            };
            let (low, high) = ((-difference).max(0.0), (1.0 - difference) / 2.0);
            let found = counts.likeliest(difference);
            prop_assert!(found >= low - 1e-9 && found <= high + 1e-9, "{found} is not in {low}..{high}");
            let best = (1..2000).map(|step| likelihood(low + (high - low) * f64::from(step) / 2000.0));
            let best = best.fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(likelihood(found.clamp(low + 1e-12, high - 1e-12)) >= best - 1e-6);
        }

        /// Test and interval say the same, and more evidence for A never makes it worse.
        #[test]
        fn test_and_interval_agree(a in 0..80_u64, b in 0..80_u64, more in 0..400_u64, margin in 0.001..0.3_f64) {
            let n = a + b + more.max(1);
            let found = non_inferiority(a, b, n, margin);
            prop_assert!(found.difference.low <= found.difference.estimate && found.difference.estimate <= found.difference.high);
            let is_near = (found.difference.low + margin).abs() < 1e-9;
            prop_assert!(is_near || found.holds == (found.difference.low > -margin), "{found:?}");
            prop_assert!((found.p <= TAIL) == found.holds);
            prop_assert!(non_inferiority(a + 1, b, n, margin).p <= found.p + 1e-12);
        }
    }
}

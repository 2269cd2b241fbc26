//! Uncertainty without a formula: what the statistic would have been for other prompts.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::spread::quantile_of_sorted;
use super::{Interval, TAIL};

/// The interval of a statistic by resampling (percentile bootstrap, Efron and Tibshirani 1993, chapter 13).
///
/// `statistic` is told which of `places` prompts to look at, some of them several times, and says what it finds there.
/// A statistic that compares sides looks at the same prompts of each: that is what makes the comparison paired. The
/// estimate is the statistic of every prompt once. The same seed gives the same interval; 2,000 resamples and more make
/// its ends stable to the second digit.
///
/// Where there are no prompts or no resamples, or the statistic is NaN in some resample, everything is possible: the
/// interval reaches from minus to plus infinity. With fewer than some twenty prompts it is too narrow, as resampling
/// knows of no other prompts.
pub fn bootstrap(places: usize, resamples: usize, seed: u64, statistic: impl Fn(&[usize]) -> f64) -> Interval {
    let mut chosen: Vec<usize> = (0..places).collect();
    let estimate = statistic(&chosen);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut found: Vec<f64> = Vec::with_capacity(resamples);
    if places > 0 {
        for _ in 0..resamples {
            chosen.fill_with(|| random.random_range(0..places));
            found.push(statistic(&chosen));
        }
    }
    if found.is_empty() || found.iter().any(|value| value.is_nan()) {
        return Interval { estimate, low: f64::NEG_INFINITY, high: f64::INFINITY };
    }
    found.sort_by(f64::total_cmp);
    let end = |share| quantile_of_sorted(&found, share);
    Interval { estimate, low: end(TAIL), high: end(1.0 - TAIL) }
}

#[cfg(test)]
mod tests {
    use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

    use super::super::median;
    use super::*;

    fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
        let count = values.len() as f64;
        values.sum::<f64>() / count
    }

    /// Numbers of a normal distribution.
    fn normal(random: &mut ChaCha8Rng, count: usize) -> Vec<f64> {
        (0..count).map(|_| Normal::standard().inverse_cdf(random.random_range(1e-12..1.0))).collect()
    }

    /// Of five values all 3,125 resamples are known, and so is the share of them beyond each end.
    #[test]
    fn ends_are_those_of_all_resamples() {
        let values = [1.0, 2.0, 4.0, 9.0, 20.0];
        let mut all = vec![0.0];
        for _ in values {
            all = all.iter().flat_map(|sum| values.map(|value| sum + value / 5.0)).collect();
        }
        let found = bootstrap(5, 20_000, 7, |chosen| mean(chosen.iter().map(|&place| values[place])));
        let share = |is_there: &dyn Fn(f64) -> bool| {
            all.iter().filter(|&&mean| is_there(mean)).count() as f64 / all.len() as f64
        };
        // Many resamples have the same mean, so an end is one of which 2.5% lie beyond or just there.
        for (beyond, there) in [
            (share(&|mean| mean < found.low - 1e-9), share(&|mean| mean < found.low + 1e-9)),
            (share(&|mean| mean > found.high + 1e-9), share(&|mean| mean > found.high - 1e-9)),
        ] {
            assert!(beyond < 0.027 && there > 0.023, "{found:?}: {beyond} beyond, {there} with the end");
        }
        assert!((found.estimate - 7.2).abs() < 1e-12);
    }

    /// Over many samples of a known distribution the interval holds the truth about as often as it says.
    #[test]
    fn the_truth_is_inside_as_often_as_promised() {
        const SAMPLES: u64 = 1000;
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut covered = [0_u64; 2];
        for sample in 0..SAMPLES {
            let values = normal(&mut random, 80);
            let of_mean = bootstrap(80, 400, sample, |chosen| mean(chosen.iter().map(|&place| values[place])));
            let of_median = bootstrap(80, 400, sample, |chosen| {
                let resample: Vec<f64> = chosen.iter().map(|&place| values[place]).collect();
                median(&resample).unwrap_or(f64::NAN)
            });
            covered[0] += u64::from(of_mean.contains(0.0));
            covered[1] += u64::from(of_median.contains(0.0));
        }
        // Percentile intervals of a mean are too narrow by a factor of sqrt(1 - 1/n), and 400 resamples are few: 94% is what is due.
        let within = |share: f64, tail: f64| Binomial::new(share, SAMPLES).map_or(0, |law| law.inverse_cdf(tail));
        let (least, most) = (within(0.94, 1e-4), within(0.955, 1.0 - 1e-4));
        for count in covered {
            assert!((least..=most).contains(&count), "{covered:?} of {SAMPLES}, {least} to {most} expected");
        }
    }

    /// For a mean the interval is the one of the formula.
    #[test]
    fn the_interval_of_a_mean_is_that_of_the_formula() {
        let values = normal(&mut ChaCha8Rng::seed_from_u64(5), 400);
        let found = bootstrap(400, 10_000, 1, |chosen| mean(chosen.iter().map(|&place| values[place])));
        let middle = mean(values.iter().copied());
        let variance = mean(values.iter().map(|value| (value - middle).powi(2)));
        let half = 1.959_964 * (variance / 400.0).sqrt();
        for (end, known) in [(found.low, middle - half), (found.high, middle + half)] {
            assert!((end - known).abs() < 0.05 * half, "{found:?}, {known} expected");
        }
    }

    /// A difference that is the same for every prompt is certain, however much prompts differ.
    #[test]
    fn sides_are_compared_on_the_same_prompts() {
        let one = normal(&mut ChaCha8Rng::seed_from_u64(2), 50);
        let other: Vec<f64> = one.iter().map(|value| value * 100.0).collect();
        let found = bootstrap(50, 500, 9, |chosen| {
            let side = |values: &[f64]| mean(chosen.iter().map(|&place| values[place]));
            side(&other) / side(&one)
        });
        assert!((found.low - 100.0).abs() < 1e-6 && (found.high - 100.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn a_seed_fixes_the_interval_and_nothing_known_is_everything_possible() {
        let values = normal(&mut ChaCha8Rng::seed_from_u64(4), 30);
        let of = |seed| bootstrap(30, 200, seed, |chosen| mean(chosen.iter().map(|&place| values[place])));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let everything = (f64::NEG_INFINITY, f64::INFINITY);
        let empty = bootstrap(0, 100, 1, |chosen| chosen.len() as f64);
        assert_eq!((empty.low, empty.high), everything);
        let unsampled = bootstrap(3, 0, 1, |chosen| chosen.len() as f64);
        assert_eq!((unsampled.estimate, unsampled.low, unsampled.high), (3.0, everything.0, everything.1));
        let undefined = bootstrap(5, 100, 1, |chosen| if chosen.contains(&0) { 1.0 } else { f64::NAN });
        assert_eq!((undefined.estimate, undefined.low, undefined.high), (1.0, everything.0, everything.1));
    }
}

//! Shares of successes, and p-values of several tests at once.

use super::{Interval, deviations};

/// The share of successes among `n` (Wilson 1927, without correction for continuity; Newcombe 1998 compares it with
/// others). Everything from 0 to 1 is possible where nothing was tried; the estimate is then NaN.
///
/// # Panics
/// If there are more successes than tries.
pub fn wilson(successes: u64, n: u64) -> Interval {
    assert!(successes <= n, "{successes} successes of {n}");
    wilson_of_share(successes as f64 / n as f64, n)
}

/// The same of a share that is no count: the mean of values from 0 to 1. It is wider than need be then, as such values vary less than
/// successes and failures do.
pub fn wilson_of_share(share: f64, n: u64) -> Interval {
    if n == 0 {
        return Interval { estimate: f64::NAN, low: 0.0, high: 1.0 };
    }
    let (z, n) = (deviations(), n as f64);
    let scale = 1.0 + z * z / n;
    let middle = (share + z * z / (2.0 * n)) / scale;
    let half = z / scale * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    Interval { estimate: share, low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
}

/// p-values adjusted for being several, in the order they came: rejecting those up to alpha rejects any true hypothesis with
/// a probability of at most alpha, however the tests depend on each other (Holm 1979).
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    // NaN counts as the largest, and stays NaN.
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![f64::NAN; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, place) in order.into_iter().enumerate().take_while(|&(_, place)| !p_values[place].is_nan()) {
        // A hypothesis is only rejected if all with smaller p-values are.
        largest = largest.max(p_values[place] * (p_values.len() - rank) as f64).min(1.0);
        adjusted[place] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use statrs::distribution::{Binomial, DiscreteCDF};

    use super::*;

    #[test]
    fn shares_have_the_intervals_of_wilson() {
        let nothing = wilson_of_share(0.0, 0);
        assert_eq!([nothing.low, nothing.high], [0.0, 1.0]);
        // Known values: 10 of 100, 0 of 50.
        for (share, n, expected) in [(0.1, 100, [0.0552, 0.1744]), (0.0, 50, [0.0, 0.0713])] {
            let Interval { low, high, .. } = wilson_of_share(share, n);
            assert!([low, high].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{low}, {high}");
        }
    }

    #[test]
    fn intervals_of_shares_are_the_known_ones() {
        // Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3.
        for (successes, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let found = wilson(successes, n);
            let near = (found.low - low).abs() < 6e-5 && (found.high - high).abs() < 6e-5;
            assert!(near && found.estimate == successes as f64 / n as f64, "{successes} of {n}: {found:?}");
        }
        let nothing = wilson(0, 0);
        assert!(nothing.estimate.is_nan() && (nothing.low, nothing.high) == (0.0, 1.0));
        assert!(wilson(7, 7).high > 1.0 - 1e-12);
    }

    #[test]
    #[should_panic(expected = "3 successes of 2")]
    fn more_successes_than_tries_are_a_mistake() {
        wilson(3, 2);
    }

    #[test]
    fn adjusted_p_values_are_the_known_ones() {
        // Of `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")` in R.
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, known) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - known).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.6, 0.6]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
        let with_unknown = holm(&[f64::NAN, 0.01]);
        assert!(with_unknown[0].is_nan() && with_unknown[1] == 0.02);
    }

    /// Of true hypotheses alone, whose tests are all the same one or have nothing to do with each other, at least one is rejected in
    /// at most 5% of all cases; unadjusted, five independent ones would be in 23%.
    #[test]
    fn true_hypotheses_are_rarely_rejected() {
        const FAMILIES: u64 = 4000;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let most = Binomial::new(0.05, FAMILIES).map_or(0, |law| law.inverse_cdf(1.0 - 1e-4));
        for same in [true, false] {
            let mut rejected = 0;
            for _ in 0..FAMILIES {
                let first = random.random::<f64>();
                let p_values: Vec<f64> = (0..5).map(|_| if same { first } else { random.random() }).collect();
                rejected += u64::from(holm(&p_values).iter().any(|&p| p <= 0.05));
            }
            assert!(rejected <= most, "{rejected} of {FAMILIES} families, {most} allowed");
            // Where tests are independent the bound is nearly reached.
            assert!(same || rejected > FAMILIES * 3 / 100, "{rejected}");
        }
    }

    proptest! {
        /// By the definition: step down until a hypothesis stands.
        #[test]
        fn adjusted_p_values_reject_what_stepping_down_rejects(
            p_values in proptest::collection::vec(0.0..1.0_f64, 0..8),
            alpha in 0.001..0.5_f64,
        ) {
            let mut left: Vec<usize> = (0..p_values.len()).collect();
            let mut rejected = vec![false; p_values.len()];
            while let Some(&best) = left.iter().min_by(|&&a, &&b| p_values[a].total_cmp(&p_values[b])) {
                if p_values[best] > alpha / left.len() as f64 {
                    break;
                }
                rejected[best] = true;
                left.retain(|&other| other != best);
            }
            let adjusted: Vec<bool> = holm(&p_values).iter().map(|&p| p <= alpha).collect();
            prop_assert_eq!(adjusted, rejected);
        }

        /// An end of the interval is a share from which the observed one is just 1.96 standard deviations away.
        #[test]
        fn ends_are_just_as_unlikely_as_asked(n in 1..5000_u64, part in 0.0..=1.0) {
            let interval = wilson((n as f64 * part) as u64, n);
            for end in [interval.low, interval.high] {
                let deviation = (end * (1.0 - end) / n as f64).sqrt();
                let beyond = (interval.estimate - end).abs() - 1.959_964 * deviation;
                prop_assert!((0.0..=1.0).contains(&end) && beyond.abs() < 1e-5, "{end} {beyond}");
            }
        }
    }
}

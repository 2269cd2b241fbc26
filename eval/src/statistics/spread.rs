//! Middles and spreads that a few wild values do not move. All are `None` without values, and where a value is NaN.

/// A value further from the median than this many median absolute deviations is an outlier: ten standard deviations of a normal
/// distribution, whose median absolute deviation is 0.6745 of its standard deviation. The threshold is hyperfine's, its measure the
/// modified Z-score of Iglewicz and Hoaglin (1993).
const OUTLIER: f64 = 14.826;

/// The values in order; `None` if there are none, or one is NaN.
fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    let usable = !values.is_empty() && !values.iter().any(|value| value.is_nan());
    usable.then(|| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted
    })
}

/// The quantile of values in order: interpolated between the two nearest, as R and numpy do (type 7 of Hyndman and Fan 1996).
///
/// There must be a value.
pub(super) fn quantile_of_sorted(sorted: &[f64], share: f64) -> f64 {
    let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    let part = place.fract();
    // Infinite ends of an interval have no difference.
    if part == 0.0 || below == above { below } else { below + part * (above - below) }
}

/// The value below which a share (from 0 to 1) of the values lies, interpolated between neighbours (type 7 of Hyndman and Fan 1996).
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    sorted(values).map(|sorted| quantile_of_sorted(&sorted, share))
}

/// The value in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The median distance from the median, in the values' units; times 1.4826 it estimates a normal distribution's standard deviation.
pub fn median_absolute_deviation(values: &[f64]) -> Option<f64> {
    let middle = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    median(&distances)
}

/// The share of values, from 0 to 1, that other things than what was measured must have moved: further than 14.826 median absolute
/// deviations from the median, as hyperfine counts them. Where more than half of the values are the same, all others are.
pub fn outlier_share(values: &[f64]) -> Option<f64> {
    let (middle, deviation) = (median(values)?, median_absolute_deviation(values)?);
    let outliers = values.iter().filter(|&&value| (value - middle).abs() > OUTLIER * deviation).count();
    Some(outliers as f64 / values.len() as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_the_known_ones() {
        // Of `numpy.quantile`, which is `quantile` in R.
        let values = [15.0, 20.0, 35.0, 40.0, 50.0];
        for (share, known) in [(0.0, 15.0), (0.05, 16.0), (0.3, 23.0), (0.4, 29.0), (0.5, 35.0), (1.0, 50.0)] {
            let found = quantile(&values, share).unwrap();
            assert!((found - known).abs() < 1e-12, "{share}: {found}");
        }
        assert_eq!(median(&[3.0, 1.0]), Some(2.0));
        assert_eq!(median(&[7.0]), Some(7.0));
    }

    #[test]
    fn what_cannot_be_known_is_not_said() {
        for values in [&[][..], &[1.0, f64::NAN]] {
            assert_eq!((median(values), quantile(values, 0.1)), (None, None));
            assert_eq!((median_absolute_deviation(values), outlier_share(values)), (None, None));
        }
    }

    #[test]
    fn wild_values_are_counted_and_move_nothing() {
        let mut values: Vec<f64> = (0..20).map(|i| 10.0 + f64::from(i % 5) * 0.1).collect();
        assert_eq!(median_absolute_deviation(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), Some(1.0));
        assert_eq!(outlier_share(&values), Some(0.0));
        let middle = median(&values).unwrap();
        values[3] = 1e6;
        assert_eq!(outlier_share(&values), Some(0.05));
        assert!((median(&values).unwrap() - middle).abs() < 0.2);
        // Ten standard deviations are the border.
        let deviation = median_absolute_deviation(&values).unwrap() * 1.4826;
        let middle = median(&values).unwrap();
        values[3] = middle + 9.9 * deviation;
        assert_eq!(outlier_share(&values), Some(0.0));
        values[3] = middle + 10.1 * deviation;
        assert_eq!(outlier_share(&values), Some(0.05));
        // Most are the same.
        assert_eq!(outlier_share(&[1.0, 1.0, 1.0, 1.5]), Some(0.25));
        assert_eq!(outlier_share(&[2.0, 2.0]), Some(0.0));
    }

    proptest! {
        /// By definition: at least a share of the values is not above the quantile that is rounded up, and so on for the rest.
        #[test]
        fn a_quantile_has_as_many_values_below_it_as_asked(
            values in proptest::collection::vec(-100.0..100.0_f64, 1..40),
            share in 0.0..=1.0_f64,
        ) {
            let found = quantile(&values, share).unwrap();
            let below = values.iter().filter(|&&value| value < found).count() as f64;
            let up_to = values.iter().filter(|&&value| value <= found + 1e-9).count() as f64;
            let place = share * (values.len() - 1) as f64;
            prop_assert!(below <= place.ceil() && up_to >= place.floor() + 1.0, "{below} {up_to} {place}");
        }
    }
}

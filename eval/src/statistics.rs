//! Estimates from samples, with their uncertainty.
//!
//! Everything is a pure function of counts or numbers; what is random is a function of a seed. Intervals are of 95%
//! and two-sided. Where too little is known for an interval it has everything in it, so that nobody concludes anything.

mod paired;
mod resampling;
mod shares;
mod spread;

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

pub use paired::{NonInferiority, least_prompts, mcnemar, non_inferiority};
pub use resampling::bootstrap;
pub use shares::{holm, wilson, wilson_of_share};
pub use spread::{median, median_absolute_deviation, outlier_share, quantile};

/// The probability outside an interval on either side: 95% lie within.
const TAIL: f64 = 0.025;

/// An estimate, and between which values the truth lies with a confidence of 95%.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate from the sample.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// True if a value lies within, the ends included.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The same with each of its three numbers passed through a function that never falls, as a change of units is.
    pub fn map(self, of: impl Fn(f64) -> f64) -> Self {
        Self { estimate: of(self.estimate), low: of(self.low), high: of(self.high) }
    }
}

/// Number of standard deviations of a normal distribution that an interval reaches to either side: 1.96.
fn deviations() -> f64 {
    Normal::standard().inverse_cdf(1.0 - TAIL)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_interval_reaches_as_far_as_tables_say() {
        assert!((deviations() - 1.959_963_984_540_054).abs() < 1e-9, "{}", deviations());
    }

    #[test]
    fn an_interval_knows_what_is_in_it_and_changes_units() {
        let interval = Interval { estimate: 0.5, low: 0.25, high: 1.0 };
        assert!(interval.contains(0.25) && interval.contains(1.0) && !interval.contains(1.01));
        assert_eq!(interval.map(|share| 100.0 * share), Interval { estimate: 50.0, low: 25.0, high: 100.0 });
        assert!(!interval.contains(f64::NAN));
    }
}

//! What a step costs on this machine: measured, never assumed.
//!
//! A table of seconds by the number of rows verified at once, filled by a short calibration and kept up to
//! date by every step after it.

use super::MAX_DRAFT;

/// The most rows verified at once.
pub const MAX_ROWS: usize = MAX_DRAFT + 1;
/// The weight of a new observation.
const RATE: f64 = 0.1;
/// An observation counts at most this many times the value it updates: one hiccup of the machine must not decide.
const OUTLIER: f64 = 3.0;

/// A running mean of durations, in seconds, robust to single hiccups.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningCost(Option<f64>);

impl RunningCost {
    /// Learns an observation.
    pub fn observe(&mut self, seconds: f64) {
        self.0 = Some(match self.0 {
            None => seconds,
            Some(mean) if mean > 0.0 => mean + RATE * (seconds.min(OUTLIER * mean) - mean),
            Some(mean) => mean + RATE * (seconds - mean),
        });
    }

    /// The mean, if anything was observed.
    pub fn seconds(self) -> Option<f64> {
        self.0
    }
}

/// Seconds of a target step by its number of rows, `1..=MAX_ROWS`.
#[derive(Clone, Debug, Default)]
pub struct VerifyCosts {
    rows: [RunningCost; MAX_ROWS],
}

impl VerifyCosts {
    /// Learns how long a step over `rows` rows took.
    pub fn observe(&mut self, rows: usize, seconds: f64) {
        if let Some(cost) = self.rows.get_mut(rows.wrapping_sub(1)) {
            cost.observe(seconds);
        }
    }

    /// The cost of a step over `rows` rows: as observed, or on the line between the nearest observed counts,
    /// or beyond them in proportion. `None` as long as nothing was observed.
    pub fn seconds(&self, rows: usize) -> Option<f64> {
        let known = |rows: usize| self.rows.get(rows.wrapping_sub(1)).and_then(|cost| cost.seconds());
        if let Some(cost) = known(rows) {
            return Some(cost);
        }
        let below = (1..rows).rev().find_map(|r| known(r).map(|cost| (r, cost)));
        let above = (rows + 1..=MAX_ROWS).find_map(|r| known(r).map(|cost| (r, cost)));
        match (below, above) {
            (Some((low, at_low)), Some((high, at_high))) => {
                Some(at_low + (at_high - at_low) * (rows - low) as f64 / (high - low) as f64)
            }
            // Beyond what was seen, assume that every row costs as much as those seen: pessimistic, so never
            // a reason to draft far.
            (Some((low, cost)), None) => Some(cost * rows as f64 / low as f64),
            (None, Some((_, cost))) => Some(cost),
            (None, None) => None,
        }
    }

    /// What was observed: pairs of rows and seconds.
    pub fn observed(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.rows.iter().enumerate().filter_map(|(index, cost)| cost.seconds().map(|seconds| (index + 1, seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_interpolated_and_the_end_is_pessimistic() {
        let mut costs = VerifyCosts::default();
        assert_eq!(costs.seconds(1), None);
        costs.observe(1, 1.0);
        costs.observe(5, 2.0);
        assert_eq!(costs.seconds(3), Some(1.5));
        assert_eq!(costs.seconds(10), Some(4.0));
        assert_eq!(costs.observed().collect::<Vec<_>>(), [(1, 1.0), (5, 2.0)]);
    }

    #[test]
    fn one_hiccup_moves_a_cost_little_and_a_lasting_change_moves_it_all_the_way() {
        let mut costs = VerifyCosts::default();
        costs.observe(1, 1.0);
        costs.observe(1, 1000.0);
        assert!(costs.seconds(1).is_some_and(|cost| cost <= 1.2 + 1e-12));
        (0..200).for_each(|_| costs.observe(1, 2.0));
        assert!(costs.seconds(1).is_some_and(|cost| (cost - 2.0).abs() < 1e-3));
    }

    #[test]
    fn more_rows_than_a_step_has_are_ignored() {
        let mut costs = VerifyCosts::default();
        costs.observe(0, 1.0);
        costs.observe(MAX_ROWS + 1, 1.0);
        assert_eq!(costs.observed().count(), 0);
    }
}

//! Costs of a step on this machine: measured, never assumed.
//!
//! A table of seconds by the number of rows verified at once, learned from the answers' own steps: each of
//! them yields tokens, so measuring costs nothing.

use super::MAX_DRAFT;
use crate::drafters::catalog::ROW_GUESS;

/// The most rows verified at once.
pub const MAX_ROWS: usize = MAX_DRAFT + 1;
/// The first observations, of which the smallest counts: they meet cold caches and unmapped pages.
const FIRST: u32 = 3;
/// The weight of a later observation: noise is averaged over as many as conditions may be expected to last for, which is a
/// matter of time, but neither over too few nor over more than a whole short process has.
const RATES: (f64, f64) = (0.02, 0.1);
const LASTING_SECONDS: f64 = 0.25;
/// A later observation counts at most this many times the value it updates: hiccups must not decide.
const OUTLIER: f64 = 1.5;
/// Counts as far apart as this say something of each other's costs, and how many observations that weighs as much as.
const NEAR: usize = 3;
const NEAR_WEIGHT: f64 = 16.0;
/// After this many other steps an observation is old.
const RECENT: u64 = 256;
/// After this many other steps a plain one is due.
const PLAIN_AGAIN: u64 = 192;

/// A running mean of durations, in seconds, robust to single hiccups.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningCost {
    mean: f64,
    count: u32,
}

impl RunningCost {
    /// A cost learned earlier.
    pub fn known(seconds: f64) -> Self {
        Self { mean: seconds, count: FIRST }
    }

    /// Learns an observation.
    pub fn observe(&mut self, seconds: f64) {
        self.count = self.count.saturating_add(1);
        if self.count == 1 {
            self.mean = seconds;
        } else if self.count <= FIRST {
            self.mean = self.mean.min(seconds);
        } else {
            let usual = (self.mean / LASTING_SECONDS).clamp(RATES.0, RATES.1);
            let rate = (1.0 / f64::from(self.count)).clamp(usual, RATES.1);
            self.mean += rate * (seconds.min(OUTLIER * self.mean) - self.mean);
        }
    }

    /// The mean, if anything was observed.
    pub fn seconds(self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// Number of observations that the cost stands for.
    fn weight(self) -> f64 {
        f64::from(self.count).min(1.0 / RATES.0)
    }

    /// True once the first observations are over.
    pub fn is_settled(self) -> bool {
        self.count >= FIRST
    }
}

/// Seconds of a target step by its number of rows.
#[derive(Clone, Debug, Default)]
pub struct StepCosts {
    rows: [RunningCost; MAX_ROWS],
    /// Steps so far, and after how many of them each row count was last observed.
    steps: u64,
    observed_at: [u64; MAX_ROWS],
    /// Estimates for every row count, which follow from the observations.
    estimates: Option<[f64; MAX_ROWS]>,
}

impl StepCosts {
    /// Learns how long a step over `rows` rows took.
    pub fn observe(&mut self, rows: usize, seconds: f64) {
        let Some(cost) = self.rows.get_mut(rows.wrapping_sub(1)) else { return };
        cost.observe(seconds);
        self.steps += 1;
        self.observed_at[rows - 1] = self.steps;
        self.estimates = self.estimate();
    }

    /// Takes up what a step over `rows` rows took in an earlier run.
    pub fn restore(&mut self, rows: usize, seconds: f64) {
        let Some(cost) = self.rows.get_mut(rows.wrapping_sub(1)) else { return };
        *cost = RunningCost::known(seconds);
        self.steps += 1;
        self.observed_at[rows - 1] = self.steps;
        self.estimates = self.estimate();
    }

    /// True if a plain step, which all others are compared with, should be measured again.
    pub fn is_plain_stale(&self) -> bool {
        self.rows[0].is_settled() && self.steps - self.observed_at[0] >= PLAIN_AGAIN
    }

    /// The cost of a step over `rows` rows: as observed, or on a line through observed counts. `None` as long as
    /// nothing was observed, and for more rows than a step of one answer has.
    pub fn seconds(&self, rows: usize) -> Option<f64> {
        self.estimates?.get(rows.wrapping_sub(1)).copied()
    }

    /// [`StepCosts::seconds`] of every row count.
    pub fn all(&self) -> Option<[f64; MAX_ROWS]> {
        self.estimates
    }

    /// Estimates a step of every row count. Old observations say nothing of today's context and load, unless there is
    /// nothing newer: the line through the recent ones does. A count that has not settled may look cheaper than that
    /// line, never dearer: its first steps are cold, and a count that looks dear is not asked for again, so that it
    /// would stay so.
    fn estimate(&self) -> Option<[f64; MAX_ROWS]> {
        let is_recent = |rows: usize| rows == 1 || self.steps - self.observed_at[rows - 1] < RECENT;
        let is_settled = |rows: usize| self.rows[rows - 1].is_settled();
        let recent: Vec<(usize, f64)> = self.observed().filter(|&(rows, _)| is_recent(rows)).collect();
        let settled: Vec<(usize, f64)> = recent.iter().copied().filter(|&(rows, _)| is_settled(rows)).collect();
        if settled.is_empty() {
            return line(&recent);
        }
        let mut estimates = line(&settled)?;
        for (rows, seconds) in recent {
            let estimate = &mut estimates[rows - 1];
            *estimate = if is_settled(rows) { self.smoothed(rows, &settled) } else { seconds.min(*estimate) };
        }
        Some(estimates)
    }

    /// The cost of a settled count, drawn towards the line through those near it: how far a draft goes is decided by differences
    /// between neighbours, in which noise counts twice. A plain step stays as it is, as all others are compared with it.
    fn smoothed(&self, rows: usize, settled: &[(usize, f64)]) -> f64 {
        let own = self.rows[rows - 1];
        let near = settled.iter().filter(|&&(other, _)| rows > 1 && other != rows && other.abs_diff(rows) <= NEAR);
        // Weighted least squares, with distances from `rows`.
        let mut sums = [0.0; 5];
        for &(other, seconds) in near {
            let weight = self.rows[other - 1].weight() * (1.0 - other.abs_diff(rows) as f64 / (NEAR + 1) as f64);
            let distance = other as f64 - rows as f64;
            let terms = [1.0, distance, distance * distance, seconds, distance * seconds];
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += weight * term);
        }
        let [all, distances, squares, seconds, products] = sums;
        let determinant = all * squares - distances * distances;
        if determinant <= f64::EPSILON {
            return own.mean;
        }
        let line = (squares * seconds - distances * products) / determinant;
        (own.weight() * own.mean + NEAR_WEIGHT * line) / (own.weight() + NEAR_WEIGHT)
    }

    /// The cost of a plain step, once it is settled.
    pub fn plain(&self) -> Option<f64> {
        self.rows[0].seconds().filter(|_| self.rows[0].is_settled())
    }

    /// The observations: pairs of rows and seconds, in order.
    pub fn observed(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.rows.iter().enumerate().filter_map(|(index, cost)| cost.seconds().map(|seconds| (index + 1, seconds)))
    }
}

/// Costs of all row counts from those of some, in order: between two counts the line through them, outside the line through
/// all that is known, end to end.
fn line(known: &[(usize, f64)]) -> Option<[f64; MAX_ROWS]> {
    let (first, last) = (*known.first()?, *known.last()?);
    let mut estimates = [0.0; MAX_ROWS];
    if first.0 == last.0 {
        let step = first.1 / (1.0 + ROW_GUESS * (first.0 - 1) as f64);
        for (index, estimate) in estimates.iter_mut().enumerate() {
            *estimate = step * (1.0 + ROW_GUESS * index as f64);
        }
        return Some(estimates);
    }
    let mut pairs = known.iter().zip(&known[1..]).peekable();
    for (index, estimate) in estimates.iter_mut().enumerate() {
        let rows = index + 1;
        while pairs.next_if(|(_, high)| high.0 < rows).is_some() {}
        let inside = pairs.peek().filter(|(low, _)| low.0 <= rows).copied();
        let (low, high) = inside.unwrap_or((&first, &last));
        let slope = ((high.1 - low.1) / (high.0 - low.0) as f64).max(0.0);
        *estimate = (low.1 + slope * (rows as f64 - low.0 as f64)).max(0.0);
    }
    Some(estimates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(usize, f64)]) -> StepCosts {
        let mut costs = StepCosts::default();
        entries.iter().for_each(|&(rows, seconds)| costs.observe(rows, seconds));
        costs
    }

    #[test]
    fn costs_lie_on_the_line_through_their_neighbours() {
        let costs = table(&[(1, 1.0), (5, 2.0), (9, 5.0)]);
        assert_eq!([1, 3, 5, 7, 9, 11].map(|rows| costs.seconds(rows)), [1.0, 1.5, 2.0, 3.5, 5.0, 6.0].map(Some));
        assert_eq!(costs.observed().collect::<Vec<_>>(), [(1, 1.0), (5, 2.0), (9, 5.0)]);
    }

    #[test]
    fn one_count_alone_gives_a_guess_and_none_gives_nothing() {
        assert_eq!(StepCosts::default().seconds(1), None);
        assert_eq!(table(&[(1, 2.0)]).seconds(5), Some(4.0));
        assert_eq!(table(&[(5, 4.0)]).seconds(1), Some(2.0));
        assert_eq!(table(&[(5, 4.0), (9, 6.0)]).seconds(1), Some(2.0));
    }

    #[test]
    fn more_rows_never_cost_less() {
        // Noise may say so; the line is then level.
        let costs = table(&[(1, 2.0), (5, 1.0)]);
        assert_eq!((costs.seconds(3), costs.seconds(9)), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn the_first_observations_are_cold() {
        let costs = table(&[(1, 9.0), (1, 1.0), (1, 4.0)]);
        assert_eq!(costs.plain(), Some(1.0));
        assert_eq!(table(&[(1, 9.0), (1, 1.0)]).plain(), None);
    }

    #[test]
    fn one_hiccup_moves_a_cost_little_and_a_lasting_change_reaches_what_is_not_observed() {
        let mut costs =
            table(&[(1, 1.0), (1, 1.0), (1, 1.0), (3, 1.2), (3, 1.2), (3, 1.2), (9, 2.0), (9, 2.0), (9, 2.0)]);
        costs.observe(1, 1000.0);
        assert!(costs.seconds(1).is_some_and(|cost| cost <= 1.05 + 1e-12));
        for _ in 0..RECENT {
            costs.observe(1, 3.0);
            costs.observe(3, 3.6);
        }
        assert!(costs.seconds(1).is_some_and(|cost| (cost - 3.0).abs() < 1e-3));
        // 0.3 a row from there on.
        assert!(costs.seconds(9).is_some_and(|cost| (cost - 5.4).abs() < 1e-2), "{:?}", costs.seconds(9));
    }

    #[test]
    fn noise_in_one_count_does_not_move_another() {
        let mut costs = table(&[(1, 1.0), (1, 1.0), (1, 1.0)]);
        for round in 0..100 {
            for rows in 2..=MAX_ROWS {
                costs.observe(rows, rows as f64 * if round < 3 { 0.9 } else { 1.1 });
            }
        }
        assert_eq!(costs.seconds(1), Some(1.0));
    }

    #[test]
    fn a_count_seen_seldom_leans_on_its_neighbours_and_one_seen_often_does_not() {
        let seen = |rows: usize, seconds: f64, times: usize| vec![(rows, seconds); times];
        // On a line, but for the count of 5 rows.
        let others: Vec<(usize, f64)> =
            [1, 2, 3, 4, 6, 7, 8].into_iter().flat_map(|rows| seen(rows, rows as f64, 60)).collect();
        let five = |times| table(&[others.clone(), seen(5, 6.0, times)].concat()).seconds(5).unwrap_or(0.0);
        assert!(five(3) < 5.2, "{}", five(3));
        assert!(five(200) > 5.7, "{}", five(200));
        // Neighbours on a line leave what is on it where it is.
        assert!((table(&[others.clone(), seen(5, 5.0, 3)].concat()).seconds(5).unwrap_or(0.0) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn noise_is_averaged_over_more_steps_where_they_are_short() {
        // Every third step takes half as long again; the last did.
        let error = |scale: f64| {
            let mut cost = RunningCost::default();
            (0..=600).for_each(|step| cost.observe(scale * if step % 3 == 0 { 1.5 } else { 1.0 }));
            (cost.seconds().unwrap_or(0.0) / scale / (7.0 / 6.0) - 1.0).abs()
        };
        assert!(error(1e-4) < 0.005 && error(1.0) > 0.01, "{} {}", error(1e-4), error(1.0));
    }

    #[test]
    fn a_plain_step_is_due_now_and_then() {
        let mut costs = table(&[(1, 1.0), (1, 1.0), (1, 1.0)]);
        (0..PLAIN_AGAIN).for_each(|_| costs.observe(5, 2.0));
        assert!(costs.is_plain_stale());
        costs.observe(1, 1.0);
        assert!(!costs.is_plain_stale());
    }

    #[test]
    fn a_count_that_looks_dear_at_first_is_not_believed_before_it_settles() {
        let plain = [(1, 1.0), (1, 1.0), (1, 1.0)];
        let mut costs = table(&[&plain[..], &[(3, 6.0)]].concat());
        assert_eq!(costs.seconds(3), Some(1.5));
        assert_eq!(table(&[&plain[..], &[(3, 1.2)]].concat()).seconds(3), Some(1.2));
        costs.observe(3, 6.0);
        costs.observe(3, 6.0);
        assert_eq!((costs.seconds(3), costs.seconds(5)), (Some(6.0), Some(11.0)));
    }

    #[test]
    fn row_counts_that_no_step_has_are_ignored() {
        assert_eq!(table(&[(0, 1.0), (MAX_ROWS + 1, 1.0)]).observed().count(), 0);
    }
}

//! Costs of steps that several answers share: a line through the recent ones.
//!
//! Their rows vary from step to step far more than those of one answer, so no count is seen often; and only two numbers are asked
//! for, the cost of a usual step and what a further row adds to it.

/// After this many steps a step counts half.
const HALF_LIFE: f64 = 96.0;
/// A step counts at most this many times what the line says: hiccups must not decide.
const OUTLIER: f64 = 2.0;
/// Weight of the guess at what a row adds, in squared rows of variation.
const PRIOR: f64 = 8.0;

/// Fading sums for a least-squares line of seconds by rows.
#[derive(Clone, Debug, Default)]
pub struct SharedSteps {
    weight: f64,
    rows: f64,
    seconds: f64,
    squares: f64,
    products: f64,
}

impl SharedSteps {
    /// Learns how long a step over `rows` rows took. `guess` is what a row is thought to add.
    pub fn observe(&mut self, rows: usize, seconds: f64, guess: f64) {
        let rows = rows as f64;
        let usual = self.seconds(rows, guess);
        let seconds = usual.map_or(seconds, |usual| seconds.min(OUTLIER * usual));
        let fade = 0.5_f64.powf(1.0 / HALF_LIFE);
        let Self { weight, rows: all_rows, seconds: all_seconds, squares, products } = self;
        for (sum, term) in [
            (weight, 1.0),
            (all_rows, rows),
            (all_seconds, seconds),
            (squares, rows * rows),
            (products, rows * seconds),
        ] {
            *sum = *sum * fade + term;
        }
    }

    /// Seconds that a further row adds. Steps of the same number of rows say nothing of that: the guess counts, until they vary.
    pub fn row(&self, guess: f64) -> f64 {
        if self.weight == 0.0 {
            return guess;
        }
        let (mean_rows, mean_seconds) = (self.rows / self.weight, self.seconds / self.weight);
        let variation = self.squares - self.weight * mean_rows * mean_rows;
        let together = self.products - self.weight * mean_rows * mean_seconds;
        ((together + PRIOR * guess) / (variation.max(0.0) + PRIOR)).max(0.0)
    }

    /// Seconds of a step over so many rows; `None` as long as there was none.
    pub fn seconds(&self, rows: f64, guess: f64) -> Option<f64> {
        (self.weight > 0.0).then(|| {
            let usual = self.seconds / self.weight;
            // A line may say less than nothing far from what was seen.
            (usual + self.row(guess) * (rows - self.rows / self.weight)).max(0.1 * usual)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_that_of_the_steps_and_of_the_guess_where_they_do_not_vary() {
        let mut steps = SharedSteps::default();
        assert!(steps.seconds(8.0, 0.1).is_none() && steps.row(0.1) == 0.1);
        (0..200).for_each(|_| steps.observe(8, 3.0, 0.1));
        assert!((steps.row(0.1) - 0.1).abs() < 1e-9);
        assert!(steps.seconds(10.0, 0.1).is_some_and(|seconds| (seconds - 3.2).abs() < 1e-9));
        // Rows from 8 to 20 at a quarter of a second each.
        (0..400).for_each(|step| steps.observe(8 + step % 13, 1.0 + 0.25 * (8 + step % 13) as f64, 0.1));
        assert!((steps.row(0.1) - 0.25).abs() < 0.01, "{}", steps.row(0.1));
        assert!(steps.seconds(16.0, 0.1).is_some_and(|seconds| (seconds - 5.0).abs() < 0.05));
    }

    #[test]
    fn a_hiccup_moves_it_little_and_a_change_soon() {
        let mut steps = SharedSteps::default();
        (0..200).for_each(|step| steps.observe(8 + step % 9, 1.0, 0.1));
        steps.observe(8, 100.0, 0.1);
        assert!(steps.seconds(12.0, 0.1).is_some_and(|seconds| seconds < 1.05));
        (0..400).for_each(|step| steps.observe(8 + step % 9, 1.9, 0.1));
        assert!(steps.seconds(12.0, 0.1).is_some_and(|seconds| seconds > 1.8));
    }
}

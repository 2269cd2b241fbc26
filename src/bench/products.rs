//! Costs of the products of a target's steps, format by format.

use std::time::Instant;

use serde::Serialize;

use super::Spread;
use crate::model::Decoder;
use crate::speculation::MAX_DRAFT;

/// A further row that costs more than this share of the step before is a cliff: drafts had better end before it.
pub const CLIFF: f64 = 0.15;

/// Costs of products with the matrices of one format.
#[derive(Clone, Debug, Serialize)]
pub struct ProductBench {
    /// The format.
    pub format: String,
    /// Bytes of its matrices.
    pub bytes: u64,
    /// Seconds of all products of a step by its number of rows.
    pub rows: Vec<(usize, Spread)>,
}

impl ProductBench {
    /// The cost of products with `rows` rows in units of those with one, if they were timed.
    pub fn relative(&self, rows: usize) -> Option<f64> {
        relative(&self.rows, rows)
    }
}

/// The cost of `rows` rows in units of one.
pub(super) fn relative(costs: &[(usize, Spread)], rows: usize) -> Option<f64> {
    let seconds = |rows| costs.iter().find(|entry| entry.0 == rows).map(|entry| entry.1.median);
    Some(seconds(rows)? / seconds(1)?)
}

/// The row count, of those that follow on another, that costs most beyond the one before it, and by which share.
pub fn steepest(costs: &[(usize, Spread)]) -> Option<(usize, f64)> {
    let rises = costs.windows(2).filter(|pair| pair[1].0 == pair[0].0 + 1);
    rises.map(|pair| (pair[1].0, pair[1].1.median / pair[0].1.median - 1.0)).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Times the products of each format of a target. `progress` hears the repeats done.
pub fn products(decoder: &Decoder, repeats: usize, progress: &mut dyn FnMut(usize)) -> Vec<ProductBench> {
    let formats = decoder.step_formats();
    let mut timed = vec![vec![Vec::new(); MAX_DRAFT + 1]; formats.len()];
    // The first time round meets cold caches and pages and is not counted.
    for round in 0..=repeats {
        for ((format, _), timed) in formats.iter().zip(&mut timed) {
            for (index, times) in timed.iter_mut().enumerate() {
                let started = Instant::now();
                decoder.multiply_all(*format, index + 1);
                if round > 0 {
                    times.push(started.elapsed().as_secs_f64());
                }
            }
        }
        progress(round);
    }
    let benches = formats.into_iter().zip(timed);
    benches
        .map(|((format, bytes), timed)| {
            let rows = timed.into_iter().enumerate().map(|(index, times)| (index + 1, Spread::of(times))).collect();
            ProductBench { format: format.to_string(), bytes, rows }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steepest_row_is_that_which_costs_most_beyond_the_one_before() {
        let one = |rows: usize, seconds: f64| (rows, Spread::of(vec![seconds]));
        let costs = [one(1, 1.0), one(2, 1.1), one(3, 1.4), one(4, 1.5), one(8, 9.0)];
        let (rows, share) = steepest(&costs).expect("there are several");
        assert_eq!(rows, 3, "from 4 to 8 is not one row");
        assert!((share - 3.0 / 11.0).abs() < 1e-9);
        assert_eq!((steepest(&costs[..1]), relative(&costs, 3), relative(&costs, 5)), (None, Some(1.4), None));
    }
}

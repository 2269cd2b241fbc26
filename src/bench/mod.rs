//! Measurements of a model on this machine: what loading takes and what a loaded engine keeps ([`load`]), what a step
//! costs by its number of rows, how fast a prompt is read and how near the reading of weights comes to what the memory
//! gives ([`steps`]), what the [`products`] cost format by format, the [`perplexity`] of a text, and how near two threads are to each other ([`exchange`]).
//!
//! Repeats go round: each visits every row count once, so that a machine whose speed drifts does not favour one.
//! Medians are what to quote.

mod exchange;
mod loading;
mod perplexity;
mod plain_read;
mod process;
mod products;
mod steps;

use serde::Serialize;

pub use exchange::exchange;
pub use loading::{LoadBench, load};
pub use perplexity::{WINDOW, perplexity};
pub use process::Resident;
pub use products::{CLIFF, ProductBench, products, steepest};
pub use steps::{StepBench, steps};

/// The median of some repeats and their extremes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The smallest.
    pub smallest: f64,
    /// The median.
    pub median: f64,
    /// The largest.
    pub largest: f64,
}

impl Spread {
    /// The spread of some values; of none, zeros.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
        Self { smallest: at(0), median: at(values.len() / 2), largest: at(values.len().saturating_sub(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_smallest_median_and_largest() {
        let Spread { smallest, median, largest } = Spread::of(vec![3.0, 1.0, 2.0, 9.0, 2.5]);
        assert_eq!((smallest, median, largest), (1.0, 2.5, 9.0));
    }
}

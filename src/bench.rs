//! Measurements of a model on this machine: what a step costs by its number of rows, how fast a prompt is read, and
//! how near the reading of weights comes to what the memory gives.
//!
//! Repeats go round: each visits every row count once, so that a machine whose speed drifts does not favour one.
//! Medians are what to quote.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use paceline_kernels::ThreadPool;
use serde::Serialize;

use crate::model::{Decoder, DeviceError, Sequence};
use crate::speculation::MAX_DRAFT;

/// Tokens in the cache while steps are timed.
const CONTEXT: usize = 64;
/// Tokens of the prompt whose reading is timed.
const PROMPT: usize = 256;
/// Tokens of a window of which perplexity is measured, at most.
pub const WINDOW: usize = 1024;
/// Rows whose logits are held at once.
const ROWS_AT_ONCE: usize = 64;
/// Bytes of the smallest buffer that is read for comparison.
const SMALLEST_READ: usize = 1 << 20;

/// The median of some repeats and their extremes, in seconds.
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
    /// The spread of some durations; of none, zeros.
    pub fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |index: usize| seconds.get(index).copied().unwrap_or(0.0);
        Self { smallest: at(0), median: at(seconds.len() / 2), largest: at(seconds.len().saturating_sub(1)) }
    }
}

/// What a target's steps cost.
#[derive(Clone, Debug, Serialize)]
pub struct StepBench {
    /// The precision of the matrices.
    pub precision: String,
    /// Seconds of a step by its number of rows.
    pub rows: Vec<(usize, Spread)>,
    /// Prompt tokens read per second, in one part.
    pub prefill_tokens_per_second: f64,
    /// Bytes of weights that a plain step reads.
    pub bytes_per_step: u64,
    /// Bytes per second that a plain read of as many bytes reaches, with the same number of threads.
    pub read_bytes_per_second: f64,
}

impl StepBench {
    /// The cost of a step over `rows` rows in units of a plain step, if it was timed.
    pub fn relative(&self, rows: usize) -> Option<f64> {
        let seconds = |rows| self.rows.iter().find(|entry| entry.0 == rows).map(|entry| entry.1.median);
        Some(seconds(rows)? / seconds(1)?)
    }

    /// The rate at which a plain step reads weights, as a share of the plain read.
    pub fn share_of_bandwidth(&self) -> f64 {
        let plain = self.rows.first().map_or(f64::INFINITY, |entry| entry.1.median);
        self.bytes_per_step as f64 / plain / self.read_bytes_per_second
    }
}

/// Times a target's steps. `progress` hears the repeats done.
///
/// # Errors
/// If the threads of the plain read cannot be started.
pub fn steps(
    decoder: &Arc<Decoder>,
    threads: usize,
    repeats: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<StepBench, DeviceError> {
    let context = decoder.config().context;
    let rows: Vec<usize> = (1..=MAX_DRAFT + 1).filter(|rows| *rows < context).collect();
    let held = CONTEXT.min(context.saturating_sub(MAX_DRAFT + 1));
    let prompt = vec![0; PROMPT.min(context)];
    let mut sequence = Sequence::new(Arc::clone(decoder), prompt.len().max(held + MAX_DRAFT + 1));
    let mut timed: Vec<Vec<f64>> = vec![Vec::new(); rows.len()];
    let (mut prefills, mut reads) = (Vec::new(), Vec::new());

    let bytes_per_step = decoder.bytes_per_step();
    let buffer = vec![1_u64; SMALLEST_READ.max(bytes_per_step as usize) / 8];
    let pool = ThreadPool::new(threads).map_err(DeviceError::Threads)?;
    // The first time round meets cold caches and pages and is not counted.
    for round in 0..=repeats {
        let note = |times: &mut Vec<f64>, started: Instant| {
            if round > 0 {
                times.push(started.elapsed().as_secs_f64());
            }
        };
        sequence.truncate(0);
        let started = Instant::now();
        sequence.prefill(&prompt, prompt.len(), |_| true);
        note(&mut prefills, started);
        sequence.truncate(held);
        for (rows, times) in rows.iter().zip(&mut timed) {
            let tokens = vec![0; *rows];
            // Each step is timed after a plain one, as in decoding, with the caches as that leaves them.
            sequence.verify(&[0]);
            sequence.truncate(held);
            let started = Instant::now();
            black_box(sequence.verify(&tokens));
            note(times, started);
            sequence.truncate(held);
        }
        let part = buffer.len().div_ceil(threads);
        let read = || {
            pool.run(threads, &|index| {
                let values = buffer.chunks(part).nth(index).unwrap_or_default();
                black_box(values.iter().fold(0_u64, |sum, value| sum.wrapping_add(*value)));
            });
        };
        // Twice, since steps too find in the caches what fits there.
        read();
        let started = Instant::now();
        read();
        note(&mut reads, started);
        progress(round);
    }
    Ok(StepBench {
        precision: decoder.format().to_string(),
        rows: rows.into_iter().zip(timed.into_iter().map(Spread::of)).collect(),
        prefill_tokens_per_second: prompt.len() as f64 / Spread::of(prefills).median,
        bytes_per_step,
        read_bytes_per_second: 8.0 * buffer.len() as f64 / Spread::of(reads).median,
    })
}

/// Perplexity of a text: `exp` of the mean negative log-likelihood of its tokens, each given those before it in
/// its window. Windows are as long as the context, up to [`WINDOW`] tokens, and do not overlap; the first token
/// of each is given, not judged. `progress` hears the tokens done.
pub fn perplexity(decoder: &Arc<Decoder>, tokens: &[u32], progress: &mut dyn FnMut(usize)) -> f64 {
    let window = WINDOW.min(decoder.config().context);
    let mut sequence = Sequence::new(Arc::clone(decoder), window);
    let (mut sum, mut judged) = (0.0, 0_u64);
    for (index, part) in tokens.chunks(window).enumerate() {
        sequence.truncate(0);
        for (at, rows) in part.chunks(ROWS_AT_ONCE).enumerate() {
            let verified = sequence.verify(rows);
            let following = part[at * ROWS_AT_ONCE..].iter().skip(1);
            for (row, next) in (0..rows.len()).zip(following) {
                sum -= log_probability(verified.row(row), *next);
                judged += 1;
            }
        }
        progress(index * window + part.len());
    }
    (sum / judged.max(1) as f64).exp()
}

/// The natural logarithm of the softmax of `logits` at `token`, in f64.
fn log_probability(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    f64::from(logits[token as usize] - largest) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_smallest_median_and_largest() {
        let Spread { smallest, median, largest } = Spread::of(vec![3.0, 1.0, 2.0, 9.0, 2.5]);
        assert_eq!((smallest, median, largest), (1.0, 2.5, 9.0));
    }

    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        let logits = [0.5_f32, -1.0, 3.0];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        for (token, logit) in logits.iter().enumerate() {
            let expected = (f64::from(*logit).exp() / sum).ln();
            assert!((log_probability(&logits, token as u32) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn relative_costs_are_in_plain_steps() {
        let one = |seconds: f64| Spread::of(vec![seconds]);
        let bench = StepBench {
            precision: "bf16".into(),
            rows: vec![(1, one(0.5)), (4, one(0.75))],
            prefill_tokens_per_second: 1.0,
            bytes_per_step: 100,
            read_bytes_per_second: 400.0,
        };
        assert_eq!((bench.relative(4), bench.relative(1), bench.relative(3)), (Some(1.5), Some(1.0), None));
        assert_eq!(bench.share_of_bandwidth(), 0.5);
    }
}

//! Costs of a target's steps, by their number of rows.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::Spread;
use super::plain_read::PlainRead;
use super::products::relative;
use crate::model::{Decoder, DeviceError, Sequence};
use crate::speculation::MAX_DRAFT;

/// Steps after which it is taken as found how steps of so many rows run.
const MOST_TO_SETTLE: usize = 32;

/// Tokens in the cache while steps are timed.
const CONTEXT: usize = 64;
/// Tokens of the prompt whose reading is timed.
const PROMPT: usize = 256;
/// Bytes of the smallest buffer that is read for comparison.
const SMALLEST_READ: u64 = 1 << 20;
/// Bytes to pass over, and passes at most, before reading is timed. Answers read the same weights again and again, and
/// what a last-level cache keeps of a stream larger than itself grows over several passes: on an EPYC whose
/// reads of 139 MB began at 81 GB/s, the eighth reached 118 (2026-11-21).
const SETTLING: (u64, u64) = (1 << 30, 8);

/// Costs of a target's steps.
#[derive(Clone, Debug, Serialize)]
pub struct StepBench {
    /// The precision of the matrices.
    pub precision: String,
    /// Tokens in the cache before each step.
    pub context: usize,
    /// Seconds of a step by its number of rows.
    pub rows: Vec<(usize, Spread)>,
    /// Tokens of the prompt that was read.
    pub prefill_tokens: usize,
    /// Prompt tokens read per second, in one part.
    pub prefill_tokens_per_second: f64,
    /// Bytes of weights that a plain step reads.
    pub bytes_per_step: u64,
    /// Bytes that a token takes in the cache; a step reads those of all tokens before it.
    pub cache_bytes_per_token: u64,
    /// Bytes per second that a plain read of as many bytes reaches, with the same number of threads.
    pub read_bytes_per_second: f64,
    /// The rate at which a plain step reads weights, as a share of the plain read's just before it.
    pub share_of_read: Spread,
}

impl StepBench {
    /// The cost of a step over `rows` rows in units of a plain step, if it was timed.
    pub fn relative(&self, rows: usize) -> Option<f64> {
        relative(&self.rows, rows)
    }
}

/// Times a target's steps. `progress` hears the repeats done.
///
/// # Errors
/// If the threads of the plain read cannot be started, or there is no memory for it.
pub fn steps(
    decoder: &Arc<Decoder>,
    threads: usize,
    repeats: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<StepBench, DeviceError> {
    let room = decoder.config().context;
    let rows: Vec<usize> = (1..=MAX_DRAFT + 1).filter(|rows| *rows < room).collect();
    let context = CONTEXT.min(room.saturating_sub(MAX_DRAFT + 1));
    let prompt = vec![0; PROMPT.min(room)];
    let mut sequence = Sequence::new(Arc::clone(decoder), prompt.len().max(context + MAX_DRAFT + 1));
    let mut timed: Vec<Vec<f64>> = vec![Vec::new(); rows.len()];
    let (mut prefills, mut reads) = (Vec::new(), Vec::new());

    let bytes_per_step = decoder.bytes_per_step();
    let plain_read = PlainRead::new(bytes_per_step.max(SMALLEST_READ), threads)?;
    let passes = (SETTLING.0 / bytes_per_step.max(1)).clamp(1, SETTLING.1) as usize;
    // The first time round meets cold caches and pages and is not counted.
    for round in 0..=repeats {
        let note = |values: &mut Vec<f64>, value: f64| {
            if round > 0 {
                values.push(value);
            }
        };
        sequence.truncate(0);
        let started = Instant::now();
        sequence.prefill(&prompt, prompt.len(), |_| true);
        note(&mut prefills, started.elapsed().as_secs_f64());
        sequence.truncate(context);
        // Next to the plain steps that it is compared with: what the memory gives changes with its other users.
        note(&mut reads, plain_read.bytes_per_second(passes));
        for _ in 0..passes {
            sequence.verify(&[0]);
            sequence.truncate(context);
        }
        for (rows, times) in rows.iter().zip(&mut timed) {
            let tokens = vec![0; *rows];
            if round == 0 {
                settle(&mut sequence, &tokens);
            }
            // Each step is timed after a plain one, as in decoding, with the caches as that leaves them.
            sequence.verify(&[0]);
            sequence.truncate(context);
            let started = Instant::now();
            black_box(sequence.verify(&tokens));
            note(times, started.elapsed().as_secs_f64());
            sequence.truncate(context);
        }
        progress(round);
    }
    let plain_steps = timed.first().into_iter().flatten();
    let shares = plain_steps.zip(&reads).map(|(seconds, read)| bytes_per_step as f64 / seconds / read).collect();
    Ok(StepBench {
        precision: decoder.format().to_string(),
        context,
        rows: rows.into_iter().zip(timed.into_iter().map(Spread::of)).collect(),
        prefill_tokens: prompt.len(),
        prefill_tokens_per_second: prompt.len() as f64 / Spread::of(prefills).median,
        bytes_per_step,
        cache_bytes_per_token: decoder.cache_bytes_per_token(),
        read_bytes_per_second: Spread::of(reads).median,
        share_of_read: Spread::of(shares),
    })
}

/// Runs steps of `tokens` until the way to run them is found.
fn settle(sequence: &mut Sequence, tokens: &[u32]) {
    let context = sequence.len();
    for _ in 0..MOST_TO_SETTLE {
        if sequence.decoder().is_settled(tokens.len()) {
            return;
        }
        black_box(sequence.verify(tokens));
        sequence.truncate(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_costs_are_in_plain_steps() {
        let one = |seconds: f64| Spread::of(vec![seconds]);
        let bench = StepBench {
            precision: "bf16".into(),
            context: 64,
            rows: vec![(1, one(0.5)), (4, one(0.75))],
            prefill_tokens: 256,
            prefill_tokens_per_second: 1.0,
            bytes_per_step: 100,
            cache_bytes_per_token: 1,
            read_bytes_per_second: 400.0,
            share_of_read: one(0.5),
        };
        assert_eq!((bench.relative(4), bench.relative(1), bench.relative(3)), (Some(1.5), Some(1.0), None));
    }
}

//! The short measurement that a planner starts from: seconds of a target step by its number of rows, and of a
//! drafted token by drafter.
//!
//! It runs on scratch sequences before the first answer that needs it. Steps of the answers themselves keep
//! the numbers up to date afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::costs::MAX_ROWS;
use super::planner::{Candidate, Planner};
use crate::drafters::DrafterChoice;
use crate::model::{Decoder, Sequence};

/// Row counts that are timed; those between are interpolated.
const ROWS: [usize; 6] = [1, 2, 3, 5, 9, MAX_ROWS];
/// Tokens in the cache while timing.
const CONTEXT: usize = 32;
/// Time after which a row count is not repeated again.
const BUDGET: Duration = Duration::from_millis(60);
/// Repeats at most.
const REPEATS: usize = 5;

/// Measures what `planner` does not know yet about the target's steps and the candidates `wanted`.
/// `draft_model` gives the decoder of a candidate that is a draft model. Returns whether anything had to be
/// measured.
pub fn calibrate(
    target: &Arc<Decoder>,
    planner: &mut Planner,
    wanted: &[usize],
    draft_model: &dyn Fn(&DrafterChoice) -> Option<Arc<Decoder>>,
) -> bool {
    let known: Vec<usize> = planner.costs().observed().map(|(rows, _)| rows).collect();
    let steps: Vec<usize> = ROWS.into_iter().filter(|rows| !known.contains(rows)).collect();
    let unknown = |candidate: &Candidate| candidate.draft_cost.seconds().is_none();
    if steps.is_empty() && !wanted.iter().any(|&index| unknown(&planner.candidates()[index])) {
        return false;
    }
    let mut sequence = scratch(target);
    let context = sequence.len();
    let most_rows = sequence.capacity() - context;
    for rows in steps.into_iter().filter(|&rows| rows <= most_rows) {
        let tokens = vec![0; rows];
        let seconds = median_seconds(|| {
            sequence.verify(&tokens);
            sequence.truncate(context);
        });
        planner.costs_mut().observe(rows, seconds);
    }
    let candidates = planner.candidates_mut().iter_mut().enumerate();
    for (_, candidate) in candidates.filter(|(index, candidate)| wanted.contains(index) && unknown(candidate)) {
        let seconds = match &candidate.name {
            DrafterChoice::Exit(depth) => median_seconds(|| {
                sequence.draft_early(0, *depth);
                sequence.truncate(context);
            }),
            name => match draft_model(name) {
                Some(decoder) => {
                    let mut draft = scratch(&decoder);
                    let context = draft.len();
                    median_seconds(|| {
                        draft.next_logits(&[0]);
                        draft.truncate(context);
                    })
                }
                None => 0.0,
            },
        };
        candidate.draft_cost.observe(seconds);
    }
    true
}

fn scratch(decoder: &Arc<Decoder>) -> Sequence {
    let capacity = decoder.config().context.min(CONTEXT + MAX_ROWS);
    let mut sequence = Sequence::new(Arc::clone(decoder), capacity);
    sequence.prefill(&vec![0; capacity.saturating_sub(MAX_ROWS)], CONTEXT, |_| true);
    sequence
}

/// The median of a few runs after one that warms up.
fn median_seconds(mut run: impl FnMut()) -> f64 {
    run();
    let started = Instant::now();
    let mut seconds = Vec::with_capacity(REPEATS);
    while seconds.is_empty() || (seconds.len() < REPEATS && started.elapsed() < BUDGET) {
        let once = Instant::now();
        run();
        seconds.push(once.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

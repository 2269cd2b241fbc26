//! The short measurement that a planner starts from: seconds of a target step by its number of rows, and of a
//! drafted token by drafter.
//!
//! It runs on scratch sequences before the first answer that needs it, and is over in about a second however
//! large the model is. Steps of the answers themselves keep the numbers up to date afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::costs::MAX_ROWS;
use super::planner::{Candidate, Planner, Round};
use crate::drafters::DrafterChoice;
use crate::model::{Decoder, Sequence};

/// Row counts that are timed, the most telling first; those that are not timed are interpolated.
const ROWS: [usize; 6] = [1, MAX_ROWS, 5, 9, 3, 2];
/// Tokens in the cache while timing.
const CONTEXT: usize = 32;
/// Tokens of a timed draft.
const DRAFT: usize = 2;
/// Time after which nothing is repeated again.
const BUDGET: Duration = Duration::from_millis(60);
/// Time after which only what has no estimate yet is measured.
const TOTAL: Duration = Duration::from_secs(1);
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
    let unknown = |candidate: &Candidate| candidate.draft_cost.seconds().is_none();
    let steps_known = known.contains(&1) && known.iter().any(|&rows| rows > 1);
    if steps_known && !wanted.iter().any(|&index| unknown(&planner.candidates()[index])) {
        return false;
    }
    let mut sequence = scratch(target);
    let context = sequence.len();
    let most_rows = sequence.capacity() - context;
    let started = Instant::now();
    for rows in ROWS.into_iter().filter(|rows| *rows <= most_rows && !known.contains(rows)) {
        if started.elapsed() > TOTAL && planner.costs().observed().count() > 1 {
            break;
        }
        let tokens = vec![0; rows];
        let seconds = median_seconds(|| {
            sequence.verify(&tokens);
            sequence.truncate(context);
        });
        planner.costs_mut().observe(rows, seconds);
    }
    let verify_alone = planner.costs().seconds(DRAFT + 1);
    let candidates = planner.candidates_mut().iter_mut().enumerate();
    for (_, candidate) in candidates.filter(|(index, candidate)| wanted.contains(index) && unknown(candidate)) {
        let mut round = Round { candidate: None, drafted: 1, accepted: 0, draft_seconds: 0.0, verify_seconds: 0.0 };
        if let &DrafterChoice::Exit(depth) = &candidate.name {
            round.drafted = DRAFT;
            // Drafting and verifying, timed together: verification starts where the draft's layers ended.
            round.verify_seconds = median_seconds(|| {
                (0..DRAFT).for_each(|_| drop(sequence.draft_early(0, depth)));
                sequence.verify(&[0; DRAFT + 1]);
                sequence.truncate(context);
            });
        } else if let Some(decoder) = draft_model(&candidate.name) {
            let mut draft = scratch(&decoder);
            let context = draft.len();
            round.draft_seconds = median_seconds(|| {
                draft.next_logits(&[0]);
                draft.truncate(context);
            });
        }
        candidate.observe_cost(&round, verify_alone);
    }
    true
}

/// A sequence with a little context and room for a verification.
fn scratch(decoder: &Arc<Decoder>) -> Sequence {
    let capacity = decoder.config().context.min(CONTEXT + MAX_ROWS);
    let mut sequence = Sequence::new(Arc::clone(decoder), capacity);
    sequence.prefill(&vec![0; capacity.saturating_sub(MAX_ROWS)], CONTEXT, |_| true);
    sequence
}

/// The median of a few runs after one that warms up; of a run that alone takes longer than the budget, its time.
fn median_seconds(mut run: impl FnMut()) -> f64 {
    let mut seconds = Vec::with_capacity(REPEATS);
    let mut time = || {
        let once = Instant::now();
        run();
        once.elapsed()
    };
    let warm_up = time();
    if warm_up > BUDGET {
        return warm_up.as_secs_f64();
    }
    let started = Instant::now();
    while seconds.is_empty() || (seconds.len() < REPEATS && started.elapsed() < BUDGET) {
        seconds.push(time().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

//! A round: draft, verify, accept, roll back, for all answers of a target at once.
//!
//! Why the output cannot depend on a draft, nor on other answers: row `i` of an answer's rows holds the logits that plain
//! decoding would compute after the same tokens, bit for bit, whatever other rows are in the step and in whichever pages its keys
//! and values lie (row-invariant kernels, blocks of positions counted from 0); and
//! [`Sampler::pick`](crate::sampling::Sampler::pick) is a function of those logits, the answer's history and the token's index
//! alone (Gumbel coupling). A drafted token is kept if and only if it is that pick. What is planned, measured or shared decides
//! only how soon a token comes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::drafting::draft;
use super::planner::{Company, Planner};
use super::request::{End, Request};
use super::{Listener, MAX_DRAFT};
use crate::model::{Decoder, KvPool, Output, PoolError, Pools, Rows, SkipPlan, Step, Vocabulary};

/// Prompt tokens that go through the target in a step: an answer that is cancelled ends after at most one such part. Fewer, while
/// others wait for their next token.
const MOST_READ: usize = 256;
const MOST_READ_BESIDE_OTHERS: usize = 64;

/// Rows of a step beyond which drafts are cut: each has the logits of a whole vocabulary.
const MOST_ROWS: usize = 256;

/// A target as answers share it.
pub struct Target<'a> {
    /// The model.
    pub decoder: &'a Arc<Decoder>,
    /// Parts that it does without.
    pub skip: Option<&'a SkipPlan>,
    /// Decides what drafts and how far.
    pub planner: &'a mut Planner,
    /// Keys and values.
    pub pools: &'a mut Pools,
}

/// A target while a step's results are taken.
pub(super) struct Shared<'a> {
    pub(super) decoder: &'a Arc<Decoder>,
    pub(super) skip: Option<&'a SkipPlan>,
    pub(super) planner: &'a mut Planner,
    pub(super) kv: &'a mut KvPool,
}

impl Target<'_> {
    fn shared(&mut self) -> Shared<'_> {
        let kv = self.pools.of(self.decoder);
        Shared { decoder: self.decoder, skip: self.skip, planner: self.planner, kv }
    }
}

/// One round of requests, which are ordered by age, the oldest first. An answer reads some more of its prompt or gets a token or
/// more, unless it waits: for memory, for [`Request::decode`], for the prompts before its own, or for an answer that goes on alone
/// after a panic. A panic ends only the request that caused it.
pub fn round<L: Listener>(target: &mut Target<'_>, requests: &mut [&mut Request<L>]) {
    target.planner.begin_round();
    pause(requests);
    wake(target, requests);
    each(requests, |request| {
        request.begin_round(target.pools.of(target.decoder));
        request.close_outgrown(target.pools);
    });
    for index in 0..requests.len() {
        with_room(index, target, requests, |request, shared| request.reserve_all(shared.kv));
    }
    introduce(requests);
    each(requests, |request| request.plan(target.planner));
    draft(target, requests);

    // Verify: of every answer the newest token and the draft, or the next part of a prompt, go through the target together.
    let (rows, parts) = gather(target, requests);
    if rows.is_empty() {
        return;
    }
    let taps = taps(target, requests, &parts);
    let depth = target.decoder.layer_count();
    let step = Step { rows, depth, skip: target.skip, taps: &taps, vocabulary: Vocabulary::Whole };
    let started = Instant::now();
    let kv = target.pools.of(target.decoder);
    let output = catch_unwind(AssertUnwindSafe(|| target.decoder.run(&step, kv)));
    let seconds = started.elapsed().as_secs_f64();
    let Ok(output) = output else { return put_aside(target, requests, &parts) };

    // Accept what each of them would have picked, roll back the rest, and learn.
    learn(target.planner, requests, &step, &parts, seconds);
    let mut shared = target.shared();
    for (part, &index) in parts.iter().enumerate() {
        let results: (&Step<'_>, &Output, usize) = (&step, &output, part);
        guarded(requests[index], |request| request.take(results, seconds, parts.len() - 1, &mut shared));
    }
}

/// Calls `f` with a request. If it panics, the request ends.
pub(super) fn guarded<L: Listener, R>(request: &mut Request<L>, f: impl FnOnce(&mut Request<L>) -> R) -> Option<R> {
    let result = catch_unwind(AssertUnwindSafe(|| f(request)));
    if result.is_err() {
        request.finish(End::Panicked);
    }
    result.ok()
}

fn each<L: Listener>(requests: &mut [&mut Request<L>], mut f: impl FnMut(&mut Request<L>)) {
    requests.iter_mut().for_each(|request| {
        guarded(request, &mut f);
    });
}

/// After a step that panicked, those that shared it go on one by one, and all others pause: the guilty one ends alone.
fn pause<L: Listener>(requests: &mut [&mut Request<L>]) {
    let suspect = requests.iter().position(|request| request.is_suspect && request.end().is_none());
    for (index, request) in requests.iter_mut().enumerate() {
        request.is_paused = suspect.is_some_and(|suspect| suspect != index);
    }
}

/// Has answers that wait for memory go on, the oldest first, as far as there are pages for what they held.
fn wake<L: Listener>(target: &mut Target<'_>, requests: &mut [&mut Request<L>]) {
    let kv = target.pools.of(target.decoder);
    let mut free = kv.most_pages() - kv.used_pages();
    // Where nobody holds any, or only those that pause and give theirs, the oldest goes on in any case.
    let mut is_first =
        kv.used_pages() == 0 || requests.iter().any(|request| request.is_suspect && request.is_waiting());
    for request in requests.iter_mut().filter(|request| request.is_waiting() && !request.is_paused) {
        let needed = KvPool::pages_for(request.text_to_read() + 1 + MAX_DRAFT);
        if needed > free && !is_first {
            break;
        }
        request.resume();
        (free, is_first) = (free.saturating_sub(needed), false);
    }
}

/// Tells every answer that decodes with whom it shares the next step.
fn introduce<L: Listener>(requests: &mut [&mut Request<L>]) {
    let running = requests.iter().filter(|request| request.has_rows()).count();
    let decoding = requests.iter().filter(|request| request.is_decoding()).count();
    let company = Company { answers: decoding.saturating_sub(1), shares_steps: running > 1 };
    for request in requests.iter_mut().filter(|request| request.is_decoding()) {
        request.setup.iter_mut().for_each(|setup| setup.state.keep_company(company));
    }
}

/// The rows of the round's step, and whose they are. Where memory runs out, the youngest answers step aside.
fn gather<L: Listener>(target: &mut Target<'_>, requests: &mut [&mut Request<L>]) -> (Vec<Rows>, Vec<usize>) {
    let decodes = requests.iter().any(|request| request.is_decoding());
    let mut most = if decodes { MOST_READ_BESIDE_OTHERS } else { MOST_READ };
    let (mut rows, mut parts, mut in_step) = (Vec::with_capacity(requests.len()), Vec::new(), 0);
    for index in 0..requests.len() {
        let room = MOST_ROWS.saturating_sub(in_step).max(1);
        let part = with_room(index, target, requests, |request, shared| {
            request.trim_draft(room - 1);
            request.rows(most, shared)
        });
        if let Some(part) = part.flatten() {
            if !requests[index].is_decoding() {
                most -= part.tokens.len().min(most);
            }
            in_step += part.tokens.len();
            rows.push(part);
            parts.push(index);
        }
    }
    (rows, parts)
}

/// Has an answer do what needs pages. Where there are none, those of answers that are over are given back, then the youngest
/// step aside, and at last the answer itself. `None` if it did not come to it.
fn with_room<L: Listener, T>(
    index: usize,
    target: &mut Target<'_>,
    requests: &mut [&mut Request<L>],
    mut f: impl FnMut(&mut Request<L>, &mut Shared<'_>) -> Result<T, PoolError>,
) -> Option<T> {
    loop {
        let mut shared = target.shared();
        let error = match guarded(requests[index], |request| f(request, &mut shared))? {
            Ok(done) => return Some(done),
            Err(error) => error,
        };
        let is_over = |other: &usize| requests[*other].holds_memory() && requests[*other].end().is_some();
        let is_next = |other: &usize| {
            let is_younger = *other > index || *other < index && requests[*other].is_paused;
            is_younger && requests[*other].can_step_aside()
        };
        let all = || (0..requests.len()).rev();
        if let Some(over) = all().find(is_over) {
            requests[over].release(target.decoder, target.pools);
        } else if let Some(next) = all().find(is_next) {
            requests[next].step_aside(target.decoder, target.pools);
        } else {
            let own = requests[index].pages(target.pools.of(target.decoder));
            // Others hold the rest: of this target's answers, or of a variant that shares its pool.
            if target.pools.of(target.decoder).used_pages() > own {
                requests[index].step_aside(target.decoder, target.pools);
            } else {
                requests[index].finish(End::NoRoom(error));
            }
            return None;
        }
    }
}

/// Layers after which somebody wants to see states.
fn taps<L: Listener>(target: &mut Target<'_>, requests: &mut [&mut Request<L>], parts: &[usize]) -> Vec<usize> {
    let planner = &*target.planner;
    let tap = |&index: &usize| guarded(requests[index], |request| request.tap(planner)).flatten();
    let mut taps: Vec<usize> = parts.iter().filter_map(tap).collect();
    taps.sort_unstable();
    taps.dedup();
    taps
}

/// Learns what a step costs that several answers shared. That of one alone is a matter of its round.
fn learn<L: Listener>(
    planner: &mut Planner,
    requests: &[&mut Request<L>],
    step: &Step<'_>,
    parts: &[usize],
    seconds: f64,
) {
    let all_whole = step.rows.iter().all(|rows| rows.early.is_none());
    let all_decode = parts.iter().all(|&index| requests[index].is_decoding());
    if parts.len() > 1 && all_whole && all_decode {
        planner.observe_step(step.rows.iter().map(|rows| rows.tokens.len()).sum(), seconds);
    }
}

/// After a step that panicked: the answer whose step it was ends; of several, nobody knows whose fault it was, so each goes on
/// alone from what it had before.
pub(super) fn put_aside<L: Listener>(target: &mut Target<'_>, requests: &mut [&mut Request<L>], parts: &[usize]) {
    for &index in parts {
        let request = &mut *requests[index];
        if parts.len() == 1 {
            request.finish(End::Panicked);
            continue;
        }
        request.is_suspect = true;
        guarded(request, |request| request.roll_back(target.decoder, target.pools));
    }
}

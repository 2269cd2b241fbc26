//! The drafts of a round: every answer's drafter goes on until it wants no more, and what they have computed meanwhile shares
//! steps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::early::MOST_IN_A_ROW;
use super::planner::{Plan, Planner, Situation};
use super::request::{End, Request, usable};
use super::rounds::{Target, guarded, put_aside};
use super::{Flow, Listener};
use crate::drafters::{Ask, Draft, DraftInProgress, DraftRequest, DraftText};
use crate::model::{Decoder, Output, PoolError, Pools, Rows, SelfDraft, SkipPlan, Step, Track, Vocabulary, Want};

/// An answer's draft in a round.
#[derive(Default)]
pub(super) struct Drafting {
    /// Plans that were not tried yet, the best last.
    plans: Vec<Plan>,
    active: Option<Active>,
    /// Outcome of it.
    pub(super) drafted: Drafted,
}

/// A draft and whose it is.
#[derive(Default)]
pub(super) struct Drafted {
    pub(super) candidate: Option<usize>,
    /// Tokens that the drafter had to read before.
    pub(super) backlog: usize,
    pub(super) draft: Draft,
    pub(super) draft_seconds: f64,
    /// Spent on drafters that had nothing.
    pub(super) asking_seconds: f64,
}

/// A drafter at work.
struct Active {
    plan: Plan,
    progress: DraftInProgress,
    backlog: usize,
    seconds: f64,
}

impl Drafting {
    /// The candidate at work.
    fn candidate(&self) -> Option<usize> {
        self.active.as_ref().map(|active| active.plan.candidate)
    }
}

impl<L: Listener> Request<L> {
    /// Asks who is to draft in this round.
    pub(super) fn plan(&mut self, planner: &mut Planner) {
        let (true, Some(setup)) = (self.is_decoding(), &mut self.setup) else { return };
        if setup.early.is_some() {
            return;
        }
        let (usable, known) = (usable(&setup.drafters), self.tokens.len());
        let remaining = self.limit.min(self.longest_text.saturating_add(1)).saturating_sub(known);
        if remaining == 0 {
            return;
        }
        let backlog = |index: usize| setup.drafters[index].as_ref().map_or(0, |drafter| drafter.backlog(known));
        let situation = Situation { usable: &usable, backlog: &backlog, remaining };
        self.drafting.plans = planner.plans(&mut setup.state, &situation, setup.length);
        self.drafting.plans.reverse();
    }

    /// Goes on with the draft, after `logits` if something was computed for it, in so many seconds. Says what is to be computed
    /// next.
    fn go_on(&mut self, planner: &Planner, mut logits: Option<&[f32]>, seconds: f64, vocabulary: usize) -> Option<Ask> {
        if self.early().is_some() {
            return self.go_on_early(logits, seconds);
        }
        loop {
            let Some(active) = &mut self.drafting.active else {
                match self.begin_draft(planner) {
                    true => continue,
                    false => return None,
                }
            };
            let setup = self.setup.as_mut()?;
            let started = Instant::now();
            // Reading a long text into a draft model keeps others waiting, and is of no use to who has cancelled.
            let may_read_on = !setup.state.is_in_company() && !self.listener.is_cancelled();
            let text = DraftText {
                history: &mut self.tokens,
                prompt: self.prompt,
                stop_tokens: &self.stop_tokens,
                vocabulary,
                may_read_on,
            };
            let mut request = DraftRequest::new(&mut active.progress, &mut self.sampler, text);
            let drafter = setup.drafters[active.plan.candidate].as_mut();
            let ask = drafter.map_or(Ok(None), |drafter| drafter.go_on(&mut request, logits));
            active.seconds += started.elapsed().as_secs_f64() + if logits.take().is_some() { seconds } else { 0.0 };
            match ask {
                Ok(None) => {}
                Ok(ask) => return ask,
                Err(error) => {
                    setup.drafters[active.plan.candidate] = None;
                    self.listener.drafter_failed(active.plan.candidate, &error);
                }
            }
            self.end_draft(planner);
        }
    }

    /// Begins with the next plan; false if there is none.
    fn begin_draft(&mut self, planner: &Planner) -> bool {
        let (Some(plan), Some(setup)) = (self.drafting.plans.pop(), &self.setup) else { return false };
        if let Some(drafter) = &setup.drafters[plan.candidate] {
            let progress = DraftInProgress::new(planner.stop_rule(&setup.state, plan));
            let backlog = drafter.backlog(self.tokens.len());
            self.drafting.active = Some(Active { plan, progress, backlog, seconds: 0.0 });
        }
        true
    }

    /// Takes the draft, or leaves the round to the next plan.
    fn end_draft(&mut self, planner: &Planner) {
        let Some(Active { plan, mut progress, backlog, seconds }) = self.drafting.active.take() else { return };
        let (history, prompt) = (&mut self.tokens, self.prompt);
        let text = DraftText { history, prompt, stop_tokens: &[], vocabulary: 0, may_read_on: false };
        let draft = DraftRequest::new(&mut progress, &mut self.sampler, text).take();
        let Drafting { plans, drafted, .. } = &mut self.drafting;
        if draft.tokens.is_empty() && planner.passes_on(plan, &draft) {
            drafted.asking_seconds += seconds;
            return;
        }
        plans.clear();
        *drafted = Drafted { candidate: Some(plan.candidate), backlog, draft, draft_seconds: seconds, ..*drafted };
    }

    /// Ends the draft, as there is no room for what its drafter wants computed.
    fn refuse(&mut self, planner: &Planner, pools: &mut Pools) {
        if let Some(candidate) = self.drafting.candidate() {
            self.close_draft(candidate, pools);
        }
        self.end_draft(planner);
    }

    /// [`Request::go_on`] of an answer whose tokens may leave early: one that the exit is sure of comes out.
    fn go_on_early(&mut self, logits: Option<&[f32]>, seconds: f64) -> Option<Ask> {
        let exit = self.early().filter(|_| self.is_decoding())?;
        if let Some(logits) = logits {
            if !exit.is_sure(logits) {
                self.drafting.drafted.draft_seconds = seconds;
                return None;
            }
            let flow = self.draw(logits);
            self.listener.unverified(1, seconds);
            match flow {
                Ok(Flow::Continue) => {}
                Ok(Flow::Stop) => self.finish(End::Complete),
                Err(error) => self.finish(End::Failed(error)),
            }
        }
        let newest = self.tokens.len() - 1;
        let waiting = newest - self.track.as_ref().map_or(newest, Track::len);
        let wants_more = self.end().is_none() && self.has_room() && !self.listener.is_cancelled();
        let ask = Ask::Exit { depth: exit.depth, token: self.tokens[newest] };
        (wants_more && waiting < MOST_IN_A_ROW).then_some(ask)
    }
}

/// Work that some answers ask for together: what they run through.
enum Work {
    /// The target's lowest layers.
    Exit(usize, Vocabulary),
    SelfDraft(Arc<SelfDraft>),
    Model(Arc<Decoder>),
}

impl Work {
    /// The work that is asked for, of an answer that leaves early or not.
    fn of(ask: &Ask, leaves_early: bool) -> Self {
        match ask {
            Ask::Exit { depth, .. } if leaves_early => Self::Exit(*depth, Vocabulary::Whole),
            Ask::Exit { depth, .. } => Self::Exit(*depth, Vocabulary::Drafted),
            Ask::SelfDraft { way, .. } => Self::SelfDraft(Arc::clone(way)),
            Ask::Model { decoder, .. } => Self::Model(Arc::clone(decoder)),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exit(a, x), Self::Exit(b, y)) => (a, x) == (b, y),
            // Ways through the same weights, without the same parts, share a step although each answer has its own.
            (Self::SelfDraft(a), Self::SelfDraft(b)) => a.is_as(b),
            (Self::Model(a), Self::Model(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// Drafts for all answers.
pub(super) fn draft<L: Listener>(target: &mut Target<'_>, requests: &mut [&mut Request<L>]) {
    let vocabulary = target.decoder.config().vocab_size;
    let mut asks: Vec<(usize, Ask)> = Vec::new();
    for (index, request) in requests.iter_mut().enumerate().filter(|(_, request)| request.is_decoding()) {
        let ask = guarded(request, |request| request.go_on(target.planner, None, 0.0, vocabulary));
        asks.extend(ask.flatten().map(|ask| (index, ask)));
    }
    while let Some((first, ask)) = asks.first() {
        let leaves_early = |index: usize| requests[index].early().is_some();
        let work = Work::of(ask, leaves_early(*first));
        let is_part = |(index, ask): &(usize, Ask)| work.is(&Work::of(ask, leaves_early(*index)));
        let (together, others): (Vec<_>, Vec<_>) = asks.into_iter().partition(is_part);
        asks = others;
        asks.extend(compute(&work, together, target, requests));
    }
}

/// Computes what some answers ask for in one step, and says what they ask for next.
fn compute<L: Listener>(
    work: &Work,
    asks: Vec<(usize, Ask)>,
    target: &mut Target<'_>,
    requests: &mut [&mut Request<L>],
) -> Vec<(usize, Ask)> {
    let started = Instant::now();
    let vocabulary = target.decoder.config().vocab_size;
    let (mut rows, mut parts, mut next) = (Vec::new(), Vec::new(), Vec::new());
    for (index, ask) in asks {
        match guarded(requests[index], |request| rows_for(&ask, request, target)) {
            Some(Ok(part)) => {
                rows.push(part);
                parts.push((index, ask));
            }
            // It goes on with the draft that it has, or with the next plan.
            Some(Err(_)) => {
                let ask = guarded(requests[index], |request| {
                    request.refuse(target.planner, target.pools);
                    request.go_on(target.planner, None, 0.0, vocabulary)
                });
                next.extend(ask.flatten().map(|ask| (index, ask)));
            }
            None => {}
        }
    }
    if rows.is_empty() {
        return next;
    }
    let (decoder, depth, skip, vocabulary_of_step) = work.step(target);
    let step = Step { rows, depth, skip: skip.as_ref(), taps: &[], vocabulary: vocabulary_of_step };
    let kv = match work {
        Work::Model(decoder) => target.pools.of(decoder),
        _ => target.pools.of(target.decoder),
    };
    let output = catch_unwind(AssertUnwindSafe(|| decoder.run(&step, kv)));
    let Ok(output) = output else {
        let parts: Vec<usize> = parts.into_iter().map(|(index, _)| index).collect();
        parts.iter().for_each(|&index| requests[index].end_draft(target.planner));
        put_aside(target, requests, &parts);
        return next;
    };
    let seconds = started.elapsed().as_secs_f64() / parts.len() as f64;
    for (part, (index, ask)) in parts.into_iter().enumerate() {
        let ask = guarded(requests[index], |request| {
            let wants_logits = request.keep(&ask, &step, &output, part);
            let logits = if wants_logits { output.logits(part, 0) } else { &[] };
            request.go_on(target.planner, Some(logits), seconds, vocabulary)
        });
        next.extend(ask.flatten().map(|ask| (index, ask)));
    }
    next
}

impl Work {
    /// The decoder, layers, sublayers left out and vocabulary of its step.
    fn step(&self, target: &Target<'_>) -> (Arc<Decoder>, usize, Option<SkipPlan>, Vocabulary) {
        match self {
            Self::Exit(depth, vocabulary) => (Arc::clone(target.decoder), *depth, target.skip.cloned(), *vocabulary),
            Self::SelfDraft(way) => {
                let decoder = Arc::clone(way.decoder());
                let depth = decoder.layer_count();
                (decoder, depth, way.skip_beside(target.skip), Vocabulary::Whole)
            }
            Self::Model(decoder) => (Arc::clone(decoder), decoder.layer_count(), None, Vocabulary::Drafted),
        }
    }
}

/// Rows of what an answer asks for.
fn rows_for<L: Listener>(ask: &Ask, request: &mut Request<L>, target: &mut Target<'_>) -> Result<Rows, PoolError> {
    let kv = target.pools.of(target.decoder);
    let text = request.tokens.len();
    let track = request.track.get_or_insert_with(|| Track::open(kv, text));
    match ask {
        Ask::Exit { depth, token } => track.rows_ahead(*token, *depth, kv),
        Ask::SelfDraft { way, token } => track.rows_through(way, vec![*token], Want::All, kv),
        Ask::Model { decoder, keep, tokens, wants_logits } => {
            let candidate = request.drafting.candidate().unwrap_or_default();
            let kv = target.pools.of(decoder);
            let open = || (Arc::clone(decoder), Track::open(kv, text));
            let (_, track) = request.draft_tracks[candidate].get_or_insert_with(open);
            track.truncate(*keep, kv);
            track.rows(tokens.clone(), if *wants_logits { Want::Last } else { Want::Nothing }, kv)
        }
    }
}

impl<L: Listener> Request<L> {
    /// Notes that what was asked for was computed; true if there are logits.
    fn keep(&mut self, ask: &Ask, step: &Step<'_>, output: &Output, part: usize) -> bool {
        match ask {
            Ask::Exit { depth, token } => {
                self.count(&step.rows[part], step);
                self.track.iter_mut().for_each(|track| track.keep(*token, *depth, output.states(part)));
                true
            }
            Ask::SelfDraft { way, .. } => {
                self.track.iter_mut().for_each(|track| track.drafted(way, 1));
                true
            }
            Ask::Model { tokens, wants_logits, .. } => {
                let candidate = self.drafting.candidate().unwrap_or_default();
                self.draft_tracks[candidate].iter_mut().for_each(|(_, track)| track.commit(tokens.len()));
                *wants_logits
            }
        }
    }
}

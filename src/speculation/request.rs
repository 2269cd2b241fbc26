//! One answer on its way: a state machine that rounds move on ([`super::rounds`]).
//!
//! It reads its prompt, waits for what is to draft for it, and decodes until a token, its limit or its listener ends it. Where
//! memory runs out it gives back its own and waits; later it reads its text again and goes on, with the same tokens.

use std::sync::Arc;
use std::time::Instant;

use super::drafting::{Drafted, Drafting};
use super::planner::{Planner, RequestState, Round};
use super::rounds::Shared;
use super::{DraftLength, EarlyExit, Flow, Listener, MAX_DRAFT, shadow_scores};
use crate::drafters::Drafter;
use crate::model::{Decoder, KvPool, Output, PoolError, Pools, Rows, Step, Track, Want, layer_evaluations};
use crate::sampling::{Sampler, SamplingError};

/// Where an answer stands.
enum Phase {
    /// All tokens but the last go through the target, in parts.
    Reading,
    /// The prompt was read: what drafts is awaited ([`Request::decode`]).
    Read,
    /// Rounds bring tokens.
    Decoding,
    /// Its memory was given to another answer.
    Waiting,
    Over(End),
}

/// Why an answer ended.
#[derive(Debug)]
pub enum End {
    /// Its listener stopped it, or its limit is reached, or it was cancelled.
    Complete,
    /// Logits that a token has to be drawn from are not numbers.
    Failed(SamplingError),
    /// There is no room for it, not even alone.
    NoRoom(PoolError),
    /// A bug: what it did panicked.
    Panicked,
}

/// Setup of an answer that decodes, which is settled once the prompt was read.
pub struct DecodeSetup {
    /// Drafters by the planner's candidate index; `None` where a candidate does not apply to this answer.
    pub drafters: Vec<Option<Box<dyn Drafter>>>,
    /// Tokens to draft ahead.
    pub length: DraftLength,
    /// When tokens leave the target early, if they do: then nothing is drafted.
    pub early: Option<EarlyExit>,
    /// Planner's knowledge of the answer.
    pub state: RequestState,
}

/// One answer in the making. Requests of a target are kept by their age, the oldest first.
pub struct Request<L> {
    /// Hears what becomes of it.
    pub listener: L,
    phase: Phase,
    /// Prompt and answer so far.
    pub(super) tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// Tokens that `tokens` may grow to.
    pub(super) limit: usize,
    /// Tokens that `tokens` may have for the sequence to serve them as it is ([`KvPool::longest_text`]).
    pub(super) longest_text: usize,
    /// Tokens that end the answer, for drafts to end there too.
    pub(super) stop_tokens: Vec<u32>,
    pub(super) sampler: Sampler,
    /// Its sequence in the target's pool; what it holds is all of `tokens` but the last, or less.
    pub(super) track: Option<Track>,
    /// Its sequences in draft models' pools, by candidate.
    pub(super) draft_tracks: Vec<Option<(Arc<Decoder>, Track)>>,
    pub(super) setup: Option<DecodeSetup>,
    /// Layers after which the prompt's states are wanted.
    tap: Option<usize>,
    pub(super) drafting: Drafting,
    /// The exit that is scored in this round, and its depth.
    scored: Option<(usize, usize)>,
    /// True if a step that it shared panicked: it goes on alone.
    pub(super) is_suspect: bool,
    /// True if it takes no part in this round.
    pub(super) is_paused: bool,
    layer_evaluations: u64,
    cache_bytes: u64,
}

impl<L: Listener> Request<L> {
    /// A request for an answer to `prompt`, which is not empty, of so many tokens at most with it. `tap` is the number of layers
    /// after which the prompt's states are wanted.
    pub fn new(prompt: Vec<u32>, limit: usize, sampler: Sampler, tap: Option<usize>, listener: L) -> Self {
        Self {
            listener,
            phase: Phase::Reading,
            prompt: prompt.len(),
            tokens: prompt,
            limit,
            longest_text: usize::MAX,
            stop_tokens: Vec::new(),
            sampler,
            track: None,
            draft_tracks: Vec::new(),
            setup: None,
            tap,
            drafting: Drafting::default(),
            scored: None,
            is_suspect: false,
            is_paused: false,
            layer_evaluations: 0,
            cache_bytes: 0,
        }
    }

    /// The same request with tokens behind which drafts end.
    #[must_use]
    pub fn stopping_at(self, stop_tokens: Vec<u32>) -> Self {
        Self { stop_tokens, ..self }
    }

    /// True if the prompt was read and what drafts is awaited.
    pub fn is_read(&self) -> bool {
        matches!(self.phase, Phase::Read)
    }

    /// Begins to decode.
    pub fn decode(&mut self, setup: DecodeSetup) {
        self.draft_tracks = setup.drafters.iter().map(|_| None).collect();
        self.setup = Some(setup);
        self.phase = Phase::Decoding;
    }

    /// Why it ended, once it has.
    pub fn end(&self) -> Option<&End> {
        if let Phase::Over(end) = &self.phase { Some(end) } else { None }
    }

    /// Ends it after a bug.
    pub fn fail(&mut self) {
        self.finish(End::Panicked);
    }

    /// Takes the reason why it ended.
    pub fn take_end(&mut self) -> Option<End> {
        match std::mem::replace(&mut self.phase, Phase::Over(End::Complete)) {
            Phase::Over(end) => Some(end),
            _ => None,
        }
    }

    /// Who heard what became of it.
    pub fn into_listener(self) -> L {
        self.listener
    }

    /// Reads the prompt again, on a target of another kind: without showing its states.
    pub fn read_again(&mut self) {
        self.listener.reading_again();
        (self.phase, self.tap) = (Phase::Reading, None);
    }

    /// Prompt and answer so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Planner's knowledge of the answer, once it decodes.
    pub fn state(&self) -> Option<&RequestState> {
        self.setup.as_ref().map(|setup| &setup.state)
    }

    /// Layers of the target run for it so far, each counted once per row.
    pub fn layer_evaluations(&self) -> u64 {
        self.layer_evaluations
    }

    /// Bytes of the keys and values that it held at last.
    pub fn cache_bytes(&self) -> u64 {
        self.cache_bytes
    }

    /// Gives back what it holds in the pools. What was computed for it is lost.
    pub fn release(&mut self, target: &Arc<Decoder>, pools: &mut Pools) {
        if let Some(track) = self.track.take() {
            self.cache_bytes = pools.of(target).bytes(track.slot());
            track.close(pools.of(target));
        }
        (0..self.draft_tracks.len()).for_each(|candidate| self.close_draft(candidate, pools));
    }

    /// Gives back what a candidate has in the pool of its draft model, and has it forget what was computed for it.
    pub(super) fn close_draft(&mut self, candidate: usize, pools: &mut Pools) {
        if let Some((decoder, track)) = self.draft_tracks[candidate].take() {
            track.close(pools.of(&decoder));
        }
        if let Some(drafter) = self.setup.as_mut().and_then(|setup| setup.drafters[candidate].as_mut()) {
            drafter.forget();
        }
    }

    /// Closes what candidates have of a text that turns by other frequencies from now on: they read it again.
    pub(super) fn close_outgrown(&mut self, pools: &mut Pools) {
        for candidate in 0..self.draft_tracks.len() {
            let Some((decoder, track)) = &self.draft_tracks[candidate] else { continue };
            if pools.of(decoder).longest_text(track.slot()) < self.tokens.len() {
                self.close_draft(candidate, pools);
            }
        }
    }

    pub(super) fn is_decoding(&self) -> bool {
        matches!(self.phase, Phase::Decoding) && !self.is_paused
    }

    /// True if it waits for memory.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// True if it is to have rows in the next step.
    pub(super) fn has_rows(&self) -> bool {
        matches!(self.phase, Phase::Reading | Phase::Decoding) && !self.is_paused
    }

    /// True if it holds memory that another answer could use.
    pub(super) fn holds_memory(&self) -> bool {
        self.track.is_some()
    }

    /// Ends it.
    pub(super) fn finish(&mut self, end: End) {
        if self.end().is_none() {
            self.phase = Phase::Over(end);
        }
    }

    /// True if it can give its memory to another answer: it reads its text again later, with the same bits. Keys and values of
    /// tokens that left early are no function of the text, so an answer with such tokens holds all of its pages from its first
    /// token on, and keeps them.
    pub(super) fn can_step_aside(&self) -> bool {
        self.holds_memory() && self.end().is_none() && !self.leaves_early()
    }

    /// When its tokens leave the target early, if they may.
    pub(super) fn early(&self) -> Option<EarlyExit> {
        self.setup.as_ref().and_then(|setup| setup.early)
    }

    /// True if its tokens may leave early from now on.
    fn leaves_early(&self) -> bool {
        matches!(self.phase, Phase::Decoding) && self.early().is_some()
    }

    /// Takes all pages that an answer whose tokens may leave early will ever need, before its first token.
    ///
    /// # Errors
    /// If the pool does not have them.
    pub(super) fn reserve_all(&mut self, kv: &mut KvPool) -> Result<(), PoolError> {
        match &self.track {
            Some(track) if self.leaves_early() && !self.is_paused => kv.reserve(track.slot(), self.limit + MAX_DRAFT),
            _ => Ok(()),
        }
    }

    /// Forgets what a step that panicked may have left behind; what was committed before it is whole.
    pub(super) fn roll_back(&mut self, target: &Arc<Decoder>, pools: &mut Pools) {
        if let Some(track) = &mut self.track {
            track.truncate(track.len(), pools.of(target));
        }
        (0..self.draft_tracks.len()).for_each(|candidate| self.close_draft(candidate, pools));
    }

    /// Pages of its own in the target's pool.
    pub(super) fn pages(&self, kv: &KvPool) -> usize {
        self.track.as_ref().map_or(0, |track| kv.pages(track.slot()))
    }

    /// True if its sequence can serve another token.
    pub(super) fn has_room(&self) -> bool {
        self.tokens.len() < self.limit && self.tokens.len() <= self.longest_text
    }

    /// Cuts the draft to so many tokens, and to what its sequence serves.
    pub(super) fn trim_draft(&mut self, most: usize) {
        let most = most.min(self.longest_text.saturating_sub(self.tokens.len()));
        let draft = &mut self.drafting.drafted.draft;
        draft.tokens.truncate(most);
        draft.log_odds.truncate(most);
    }

    /// Gives its memory to another answer and waits.
    pub(super) fn step_aside(&mut self, target: &Arc<Decoder>, pools: &mut Pools) {
        self.release(target, pools);
        if self.setup.is_none() {
            self.listener.reading_again();
        }
        self.phase = Phase::Waiting;
    }

    /// Goes on after it waited: what it held is read again.
    pub(super) fn resume(&mut self) {
        self.phase = Phase::Reading;
    }

    /// Tokens that its sequence holds before it can decode.
    pub(super) fn text_to_read(&self) -> usize {
        self.tokens.len() - 1
    }

    /// Ends it if nobody wants more of it, and opens its sequence.
    pub(super) fn begin_round(&mut self, kv: &mut KvPool) {
        self.drafting = Drafting::default();
        self.scored = None;
        if self.listener.is_cancelled() || self.tokens.len() >= self.limit {
            self.finish(End::Complete);
        }
        if self.end().is_none() && !self.is_waiting() && !self.is_paused {
            let text = self.tokens.len();
            let track = self.track.get_or_insert_with(|| Track::open(kv, text));
            // A text that turns by other frequencies from now on is read again.
            if track.lengthen(text, kv) {
                self.phase = Phase::Reading;
            }
            self.longest_text = kv.longest_text(track.slot());
            self.end_reading();
        }
    }

    /// Has it go on once its text was read.
    fn end_reading(&mut self) {
        let is_read = self.track.as_ref().is_some_and(|track| track.len() == self.text_to_read());
        if matches!(self.phase, Phase::Reading) && is_read {
            self.phase = if self.setup.is_some() { Phase::Decoding } else { Phase::Read };
        }
    }

    /// Rows for the round's step: the newest token with the draft behind it, or the next part of what is to be read, at most
    /// `most` tokens. `None` if it has none to run.
    ///
    /// # Errors
    /// If the pool has no pages for them.
    pub(super) fn rows(&mut self, most: usize, shared: &mut Shared<'_>) -> Result<Option<Rows>, PoolError> {
        let kv = &mut *shared.kv;
        if self.early().is_some() && self.listener.is_cancelled() {
            self.finish(End::Complete);
        }
        let has_room = self.has_room();
        let (Some(track), false) = (&mut self.track, self.is_paused) else { return Ok(None) };
        match self.phase {
            Phase::Reading if most > 0 => {
                let done = track.len();
                let part = self.tokens[done..(done + most).min(self.tokens.len() - 1)].to_vec();
                let rows = track.rows(part, Want::Nothing, kv)?;
                if self.setup.is_none() {
                    self.listener.reading(done);
                }
                Ok(Some(rows))
            }
            Phase::Decoding if has_room => {
                let newest = self.tokens.len() - 1;
                let drafted = &self.drafting.drafted.draft.tokens;
                kv.reserve(track.slot(), self.tokens.len() + drafted.len())?;
                // Tokens that left early have yet to be put into the upper layers.
                let waiting = newest - track.len();
                track.propagate(waiting, shared.decoder, shared.skip, kv);
                let tokens = self.tokens[newest..].iter().chain(drafted).copied().collect();
                Ok(Some(track.rows(tokens, Want::All, kv)?))
            }
            _ => Ok(None),
        }
    }

    /// The number of layers after which states of its rows are wanted in the round's step.
    pub(super) fn tap(&mut self, planner: &Planner) -> Option<usize> {
        match (&self.phase, &self.setup) {
            (Phase::Reading, None) => self.tap,
            (Phase::Decoding, Some(setup)) if setup.early.is_none() => {
                self.scored =
                    planner.exit_to_score(&setup.state, self.drafting.drafted.candidate, &usable(&setup.drafters));
                self.scored.map(|(_, depth)| depth)
            }
            _ => None,
        }
    }

    /// Takes the results of its rows, which are a part of the step's.
    pub(super) fn take(
        &mut self,
        (step, output, part): (&Step<'_>, &Output, usize),
        seconds: f64,
        company: usize,
        shared: &mut Shared<'_>,
    ) {
        let rows = &step.rows[part];
        self.count(rows, step);
        // Alone, nothing went wrong: whose fault it was, it was another's.
        self.is_suspect &= company > 0;
        if self.end().is_some() {
            return;
        }
        if self.is_decoding() {
            return self.verify((step, output, part), seconds, company, shared);
        }
        let Some(track) = &mut self.track else { return };
        track.commit(rows.tokens.len());
        drop_unseen(track, shared);
        self.listener.read(seconds, company, self.setup.is_some());
        let tap =
            self.tap.filter(|_| self.setup.is_none()).and_then(|tap| step.taps.iter().position(|own| *own == tap));
        if let Some(states) = tap.and_then(|tap| output.tapped(part, tap)) {
            self.listener.states(states);
        }
        self.end_reading();
    }

    /// Accepts drafted tokens for as long as they are what the target picks, rolls the others back, and learns.
    fn verify(
        &mut self,
        (step, output, part): (&Step<'_>, &Output, usize),
        verify_seconds: f64,
        company: usize,
        shared: &mut Shared<'_>,
    ) {
        let Drafted { candidate, backlog, draft, draft_seconds, asking_seconds } =
            std::mem::take(&mut self.drafting.drafted);
        let newest = self.tokens.len() - 1;
        let (mut evaluated, mut accepted, mut flow) = (0, 0, Flow::Continue);
        while flow == Flow::Continue {
            match self.draw(output.logits(part, accepted)) {
                Ok(said) => flow = said,
                Err(error) => return self.finish(End::Failed(error)),
            }
            let Some(&drafted) = draft.tokens.get(accepted) else { break };
            evaluated += 1;
            if Some(&drafted) != self.tokens.last() {
                break;
            }
            accepted += 1;
        }
        let (Some(track), Some(setup)) = (&mut self.track, &mut self.setup) else { return };
        track.commit(step.rows[part].tokens.len());
        track.truncate(newest + 1 + accepted, shared.kv);
        drop_unseen(track, shared);
        let round = Round {
            candidate,
            drafted: draft.tokens.len(),
            evaluated,
            accepted,
            tokens: self.tokens.len() - 1 - newest,
            backlog,
            draft_seconds,
            asking_seconds,
            verify_seconds,
        };
        if setup.early.is_none() {
            shared.planner.observe(&mut setup.state, &round, &draft);
        }
        self.score_exit((step, output, part), round.tokens, shared);
        self.listener.round(&round, company);
        if flow == Flow::Stop {
            self.finish(End::Complete);
        }
    }

    /// Draws the next token from the logits after the newest one.
    pub(super) fn draw(&mut self, logits: &[f32]) -> Result<Flow, SamplingError> {
        let index = (self.tokens.len() - self.prompt) as u64;
        let token = self.sampler.pick(logits, &self.tokens, index)?;
        self.tokens.push(token);
        Ok(self.listener.token(token))
    }

    /// Scores the exit that was chosen for it, on the states that the verification had there.
    fn score_exit(&mut self, (step, output, part): (&Step<'_>, &Output, usize), new: usize, shared: &mut Shared<'_>) {
        let (Some((exit, depth)), Some(setup)) = (self.scored.take(), &mut self.setup) else { return };
        let tap = step.taps.iter().position(|tap| *tap == depth);
        let Some(states) = tap.and_then(|tap| output.tapped(part, tap)) else { return };
        let started = Instant::now();
        let text = shadow_scores::Verified { tokens: &self.tokens, prompt: self.prompt, new };
        // An exit whose logits are not finite is not scored.
        let scores = shadow_scores::score(shared.decoder, depth, &states, text, &mut self.sampler).unwrap_or_default();
        shared.planner.observe_shadow(&mut setup.state, exit, &scores, started.elapsed().as_secs_f64());
    }

    /// Counts rows of a step of the target that ran for it.
    pub(super) fn count(&mut self, rows: &Rows, step: &Step<'_>) {
        self.layer_evaluations += layer_evaluations(rows, step.depth, step.skip);
    }
}

/// Gives back the pages that no layer looks at any more, if all look back through a window.
fn drop_unseen(track: &Track, shared: &mut Shared<'_>) {
    if let Some(window) = shared.decoder.config().widest_window() {
        shared.kv.drop_before(track.slot(), (track.len() + 1).saturating_sub(window));
    }
}

/// The candidates that may draft.
pub(super) fn usable(drafters: &[Option<Box<dyn Drafter>>]) -> Vec<usize> {
    (0..drafters.len()).filter(|&index| drafters[index].is_some()).collect()
}

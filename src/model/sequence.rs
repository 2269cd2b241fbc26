//! One sequence on its way through a decoder: how far it is in a pool, and what drafting left ahead of it.
//!
//! Two ways to run ahead exist. Early exit is LayerSkip's (Elhoushi et al. 2024): a drafted token runs through the
//! lower layers once, while drafting; verification starts from the hidden states kept there and runs the upper
//! layers alone. A round that drafts `k` tokens and verifies `k + 1` rows therefore costs `(k + 1) * L` layer
//! evaluations, draft included. With row-invariant kernels the reuse is exact.
//!
//! The kept states serve tokens that leave the model early for good as well: keys and values of the upper layers are made of
//! them, many tokens' at once ([`Track::propagate`]).
//!
//! A [`SelfDraft`] is another, cheaper way through the same model. Drafted tokens run through it over the sequence's
//! own cache, so that a draft begins from what the target itself made of the text, without a cache of its own and
//! without a prompt to catch up with. What it appends is only nearly right: verification begins by dropping it.
//!
//! [`Track`] is the state of a sequence in a pool that it shares with others; [`Sequence`] has a pool to itself.

use std::sync::Arc;

use paceline_kernels::may_fail;

use super::decoder::Decoder;
use super::hidden::Hidden;
use super::pool::{KvPool, PoolError, SlotId};
use super::skip::{SkipPlan, Sublayer};
use super::step::{Early, Output, Rows, Step, Vocabulary, Want};

/// The state of one sequence in a pool.
pub struct Track {
    slot: SlotId,
    /// Tokens that every layer has cached: those that went through all of them, and those that left early and were propagated.
    committed: usize,
    ahead: Option<Ahead>,
}

/// Contents of the cache beyond the committed tokens.
enum Ahead {
    /// The work of lower layers, which verification can go on from.
    Lower(Lower),
    /// So many tokens that went through a self-draft. What it appended serves the rest of its draft alone.
    SelfDraft(Arc<SelfDraft>, usize),
}

/// Lower layers that ran ahead of the upper ones.
struct Lower {
    depth: usize,
    tokens: Vec<u32>,
    /// A row for each token: the output of layer `depth - 1`.
    states: Vec<Hidden>,
}

impl Lower {
    fn into_early(self) -> Early {
        Early { depth: self.depth, states: Hidden::cat(self.states) }
    }
}

/// A cheaper way through a model, to draft with: the same checkpoint in a lower precision, or without some
/// sublayers, or both.
pub struct SelfDraft {
    decoder: Arc<Decoder>,
    skip: Option<SkipPlan>,
}

impl SelfDraft {
    /// A way through `decoder`, which must have the layers of the sequences it is used on, without what `skip`
    /// names.
    pub fn new(decoder: Arc<Decoder>, skip: Option<SkipPlan>) -> Self {
        Self { decoder, skip }
    }

    /// The decoder that it runs through.
    pub fn decoder(&self) -> &Arc<Decoder> {
        &self.decoder
    }

    /// True if another leads through the same weights.
    pub fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.decoder, &other.decoder) && self.skip == other.skip
    }

    /// Sublayers that are left out where the model itself does without `own`: those have no cache to look back on.
    pub fn skip_beside(&self, own: Option<&SkipPlan>) -> Option<SkipPlan> {
        match (&self.skip, own) {
            (Some(skip), Some(own)) => Some(skip.and(own)),
            (skip, own) => skip.as_ref().or(own).cloned(),
        }
    }
}

impl Track {
    /// An empty sequence in `kv`, for a text that grows to `len` tokens at least ([`KvPool::open`]).
    pub fn open(kv: &mut KvPool, len: usize) -> Self {
        Self { slot: kv.open(len), committed: 0, ahead: None }
    }

    /// Sees to it that its text can have `len` tokens. Where it has to turn by other frequencies then, all that ran is forgotten;
    /// true if so.
    pub fn lengthen(&mut self, len: usize, kv: &mut KvPool) -> bool {
        let must_turn = len > kv.longest_text(self.slot);
        if must_turn {
            kv.close(self.slot);
            *self = Self::open(kv, len);
        }
        must_turn
    }

    /// A sequence that begins with the first `len` committed tokens of this one, whose pages it shares.
    ///
    /// # Panics
    /// If there are fewer, or some of their pages were dropped.
    #[must_use]
    pub fn fork(&self, len: usize, kv: &mut KvPool) -> Self {
        Self { slot: kv.fork(self.slot, len), committed: len, ahead: None }
    }

    /// Gives its pages back.
    pub fn close(self, kv: &mut KvPool) {
        kv.close(self.slot);
    }

    /// Its slot.
    pub fn slot(&self) -> SlotId {
        self.slot
    }

    /// Tokens that every layer has cached.
    pub fn len(&self) -> usize {
        self.committed
    }

    /// True if there is no such token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position after everything that ran, ahead included. Layers do not tell it: a self-draft may skip any of them.
    pub fn reach(&self) -> usize {
        self.committed
            + match &self.ahead {
                Some(Ahead::Lower(lower)) => lower.tokens.len(),
                Some(Ahead::SelfDraft(_, tokens)) => *tokens,
                None => 0,
            }
    }

    /// Rows that run tokens through all layers, from the kept states where they have run ahead. What else ran ahead is
    /// forgotten. Their step is followed by [`Track::commit`].
    ///
    /// # Errors
    /// If the pool has no pages for them.
    pub fn rows(&mut self, tokens: Vec<u32>, want: Want, kv: &mut KvPool) -> Result<Rows, PoolError> {
        kv.reserve(self.slot, self.committed + tokens.len())?;
        let early = match self.ahead.take() {
            // Kept states serve only the tokens they were computed for.
            Some(Ahead::Lower(lower)) if tokens.starts_with(&lower.tokens) => Some(lower.into_early()),
            _ => {
                self.truncate(self.committed, kv);
                None
            }
        };
        Ok(Rows { slot: self.slot, position: self.committed, tokens, early, want })
    }

    /// Notes that so many tokens went through all layers.
    pub fn commit(&mut self, tokens: usize) {
        self.committed += tokens;
    }

    /// Rows that run one more token through the lowest `depth` layers. It follows those that ran ahead to the same depth;
    /// whatever else ran ahead is forgotten first. Their step is followed by [`Track::keep`].
    ///
    /// # Errors
    /// If the pool has no pages for them.
    pub fn rows_ahead(&mut self, token: u32, depth: usize, kv: &mut KvPool) -> Result<Rows, PoolError> {
        if !matches!(&self.ahead, Some(Ahead::Lower(lower)) if lower.depth == depth) {
            self.truncate(self.committed, kv);
        }
        let position = self.reach();
        kv.reserve(self.slot, position + 1)?;
        Ok(Rows { slot: self.slot, position, tokens: vec![token], early: None, want: Want::All })
    }

    /// Keeps the states of a token that went through the lowest `depth` layers, `[1, hidden]`.
    pub fn keep(&mut self, token: u32, depth: usize, states: Hidden) {
        let mut lower = match self.ahead.take() {
            Some(Ahead::Lower(lower)) => lower,
            _ => Lower { depth, tokens: Vec::new(), states: Vec::new() },
        };
        lower.tokens.push(token);
        lower.states.push(states);
        self.ahead = Some(Ahead::Lower(lower));
    }

    /// Rows that run more tokens through a self-draft. They follow those that ran ahead through the same one; whatever else ran
    /// ahead is forgotten first. Their step, which is the self-draft's decoder's, is followed by [`Track::drafted`].
    ///
    /// # Errors
    /// If the pool has no pages for them.
    pub fn rows_through(
        &mut self,
        way: &Arc<SelfDraft>,
        tokens: Vec<u32>,
        want: Want,
        kv: &mut KvPool,
    ) -> Result<Rows, PoolError> {
        if !matches!(&self.ahead, Some(Ahead::SelfDraft(current, _)) if Arc::ptr_eq(current, way)) {
            self.truncate(self.committed, kv);
        }
        let position = self.reach();
        kv.reserve(self.slot, position + tokens.len())?;
        Ok(Rows { slot: self.slot, position, tokens, early: None, want })
    }

    /// Notes that so many tokens went through a self-draft.
    pub fn drafted(&mut self, way: &Arc<SelfDraft>, tokens: usize) {
        self.ahead = Some(Ahead::SelfDraft(Arc::clone(way), self.reach() + tokens - self.committed));
    }

    /// Commits the first `count` tokens that ran ahead through the lower layers, or as many as there are, without running the
    /// upper ones for them: what those would leave in the cache is made of the state at the exit, as if it were the input of
    /// each of them (CALM, Schuster et al. 2022).
    pub fn propagate(&mut self, count: usize, decoder: &Decoder, skip: Option<&SkipPlan>, kv: &mut KvPool) {
        let Some(Ahead::Lower(lower)) = &mut self.ahead else { return };
        let count = count.min(lower.tokens.len());
        if count == 0 {
            return;
        }
        lower.tokens.drain(..count);
        let early = Early { depth: lower.depth, states: Hidden::cat(lower.states.drain(..count).collect()) };
        if lower.tokens.is_empty() {
            self.ahead = None;
        }
        decoder.propagate(self.slot, self.committed, &early, skip, kv);
        self.committed += count;
    }

    /// Forgets every token from `len` on, and all that ran ahead.
    pub fn truncate(&mut self, len: usize, kv: &mut KvPool) {
        self.ahead = None;
        self.committed = self.committed.min(len);
        kv.truncate(self.slot, self.committed);
    }
}

/// Layers that are run for rows in a step over the lowest `depth` layers without what `skip` names, each counted once per row,
/// also where one half of it is left out.
pub fn layer_evaluations(rows: &Rows, depth: usize, skip: Option<&SkipPlan>) -> u64 {
    let runs = |layer: &usize| Sublayer::Attention(*layer).runs(skip) || Sublayer::Mlp(*layer).runs(skip);
    let from = |layer: usize| (layer..depth).filter(runs).count();
    let (ahead, enters) = rows.early.as_ref().map_or((0, 0), |early| (early.rows(), early.depth));
    (ahead * from(enters) + (rows.tokens.len() - ahead) * from(0)) as u64
}

/// A sequence with a pool to itself.
pub struct Sequence {
    decoder: Arc<Decoder>,
    /// Sublayers that the model skips, for every token.
    skip: Option<SkipPlan>,
    kv: KvPool,
    track: Track,
    capacity: usize,
    layer_evaluations: u64,
}

/// Results of a verification.
pub struct Verified(Output);

impl Verified {
    /// The logits of a row, `[vocabulary]`: row `i` speaks about the token after the `i`-th verified one.
    pub fn row(&self, row: usize) -> &[f32] {
        self.0.logits(0, row)
    }

    /// The logits of every row, `[rows, vocabulary]` in row-major order.
    pub fn into_logits(self) -> Vec<f32> {
        self.0.into_logits()
    }
}

impl Sequence {
    /// An empty sequence with room for `capacity` tokens. Where long texts turn by frequencies of their own, all of its texts are
    /// taken to be as long as that.
    ///
    /// # Panics
    /// If there is no memory for it.
    pub fn new(decoder: Arc<Decoder>, capacity: usize) -> Self {
        Self::over(decoder, capacity).expect("memory for a cache")
    }

    fn over(decoder: Arc<Decoder>, capacity: usize) -> Result<Self, PoolError> {
        let mut kv = decoder.new_pool(KvPool::pages_for(capacity));
        let track = Track::open(&mut kv, capacity);
        kv.reserve(track.slot, capacity)?;
        Ok(Self { decoder, skip: None, kv, track, capacity, layer_evaluations: 0 })
    }

    /// The same sequence through a model without what `skip` names: that is the model from now on, in every way of running it.
    ///
    /// # Panics
    /// If something ran already.
    #[must_use]
    pub fn without(self, skip: Option<SkipPlan>) -> Self {
        assert!(self.track.reach() == 0, "what ran had all layers");
        Self { skip, ..self }
    }

    /// An empty sequence with room for `capacity` tokens, after asking whether there is memory for it.
    ///
    /// # Errors
    /// The bytes that cannot be had.
    pub fn try_new(decoder: Arc<Decoder>, capacity: usize) -> Result<Self, u64> {
        Self::check_room(&decoder, capacity)?;
        let bytes = decoder.cache_bytes_per_token().saturating_mul(capacity as u64);
        Self::over(decoder, capacity).map_err(|_| bytes)
    }

    /// Asks whether there is memory for a sequence of `capacity` tokens.
    ///
    /// # Errors
    /// The bytes that cannot be had.
    pub fn check_room(decoder: &Decoder, capacity: usize) -> Result<(), u64> {
        let bytes = decoder.cache_bytes_per_token().checked_mul(capacity as u64);
        // The system answers this question without touching the memory.
        let reserve = |bytes: usize| may_fail(|| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
        let fits = |bytes: u64| usize::try_from(bytes).is_ok_and(reserve);
        if bytes.is_some_and(fits) { Ok(()) } else { Err(bytes.unwrap_or(u64::MAX)) }
    }

    /// The decoder it runs through.
    pub fn decoder(&self) -> &Arc<Decoder> {
        &self.decoder
    }

    /// Tokens that every layer has cached.
    pub fn len(&self) -> usize {
        self.track.len()
    }

    /// True if there is no such token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the keys and values that it holds.
    pub fn cache_bytes(&self) -> u64 {
        self.kv.bytes(self.track.slot)
    }

    /// Layers of the decoder run so far, each counted once per token it ran for, also where one half of it is left out; those
    /// of self-drafts are not counted.
    pub fn layer_evaluations(&self) -> u64 {
        self.layer_evaluations
    }

    /// Runs tokens through all layers without asking for logits, at most `chunk` at a time, and returns how
    /// many went through: all of them, unless `keep_going`, which hears the number done before every chunk,
    /// says no.
    ///
    /// # Panics
    /// If the sequence has no room for them, or one is not in the vocabulary.
    pub fn prefill(&mut self, tokens: &[u32], chunk: usize, keep_going: impl FnMut(usize) -> bool) -> usize {
        self.prefill_tapping(tokens, chunk, None, keep_going)
    }

    /// As [`Sequence::prefill`], and shows what the tokens are after the lowest layers: `tap` is their number and what is
    /// shown the hidden states `[rows, hidden]` of every chunk, in order.
    ///
    /// # Panics
    /// As [`Sequence::prefill`], and if the model has fewer layers.
    pub fn prefill_tapping(
        &mut self,
        tokens: &[u32],
        chunk: usize,
        mut tap: Option<(usize, &mut dyn FnMut(Hidden))>,
        mut keep_going: impl FnMut(usize) -> bool,
    ) -> usize {
        self.truncate(self.len());
        let mut done = 0;
        for part in tokens.chunks(chunk.max(1)) {
            if !keep_going(done) {
                return done;
            }
            let depth = tap.as_ref().map(|(depth, _)| *depth);
            let output = self.advance(part, Want::Nothing, depth, Vocabulary::Whole);
            if let (Some((_, see)), Some(states)) = (&mut tap, depth.and_then(|_| output.tapped(0, 0))) {
                see(states);
            }
            done += part.len();
        }
        done
    }

    /// Runs one more token through the lowest `depth` layers only and returns the exit's logits,
    /// `[vocabulary]`. The token follows those that ran ahead to the same depth; whatever else ran ahead is forgotten
    /// first. `None`, and nothing is run, where the sequence has no room for it.
    ///
    /// # Panics
    /// If `depth` is not within `1..L`.
    pub fn draft_early(&mut self, token: u32, depth: usize) -> Option<Vec<f32>> {
        self.run_ahead(token, depth, Vocabulary::Drafted)
    }

    /// As [`Sequence::draft_early`], with the logits of the whole vocabulary: for a token that comes out of the exit.
    ///
    /// # Panics
    /// As [`Sequence::draft_early`].
    pub fn leave_early(&mut self, token: u32, depth: usize) -> Option<Vec<f32>> {
        self.run_ahead(token, depth, Vocabulary::Whole)
    }

    fn run_ahead(&mut self, token: u32, depth: usize, vocabulary: Vocabulary) -> Option<Vec<f32>> {
        assert!((1..self.decoder.layer_count()).contains(&depth), "an exit lies between the first and the last layer");
        if !matches!(&self.track.ahead, Some(Ahead::Lower(lower)) if lower.depth == depth) {
            self.truncate(self.len());
        }
        if self.track.reach() >= self.capacity {
            return None;
        }
        let rows = self.track.rows_ahead(token, depth, &mut self.kv).expect("there is room");
        let step = Step { rows: vec![rows], depth, skip: self.skip.as_ref(), taps: &[], vocabulary };
        self.layer_evaluations += layer_evaluations(&step.rows[0], depth, step.skip);
        let output = self.decoder.run(&step, &mut self.kv);
        self.track.keep(token, depth, output.states(0));
        Some(output.into_logits())
    }

    /// Runs more tokens through a self-draft and returns the logits of every row, `[tokens, vocabulary]` in row-major order.
    /// They follow those that ran ahead through the same one; whatever else ran ahead is forgotten first. `None`, and
    /// nothing is run, where the sequence has no room for them.
    ///
    /// # Panics
    /// If its decoder is of another model than the sequence's.
    pub fn draft_through(&mut self, way: &Arc<SelfDraft>, tokens: &[u32]) -> Option<Vec<f32>> {
        assert!(way.decoder.config() == self.decoder.config(), "a self-draft is of the sequence's model");
        if !matches!(&self.track.ahead, Some(Ahead::SelfDraft(current, _)) if Arc::ptr_eq(current, way)) {
            self.truncate(self.len());
        }
        if self.track.reach() + tokens.len() > self.capacity {
            return None;
        }
        let rows = self.track.rows_through(way, tokens.to_vec(), Want::All, &mut self.kv).expect("there is room");
        let skip = way.skip_beside(self.skip.as_ref());
        let depth = way.decoder.layer_count();
        let step = Step { rows: vec![rows], depth, skip: skip.as_ref(), taps: &[], vocabulary: Vocabulary::Whole };
        let output = way.decoder.run(&step, &mut self.kv);
        self.track.drafted(way, tokens.len());
        Some(output.into_logits())
    }

    /// Runs tokens through all layers, from the kept hidden states where they have run ahead, and returns the
    /// logits of every row.
    ///
    /// # Panics
    /// If the sequence has no room for them, or one is not in the vocabulary.
    pub fn verify(&mut self, tokens: &[u32]) -> Verified {
        Verified(self.advance(tokens, Want::All, None, Vocabulary::Whole))
    }

    /// Runs tokens through all layers and returns the logits after the last of them, `[vocabulary]`:
    /// [`Sequence::verify`] for a caller that needs the last row alone.
    ///
    /// # Panics
    /// If `tokens` is empty, and as [`Sequence::verify`].
    pub fn next_logits(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.advance(tokens, Want::Last, None, Vocabulary::Whole).into_logits()
    }

    /// As [`Sequence::next_logits`], to draft from: minus infinity for tokens that drafts do not choose from.
    ///
    /// # Panics
    /// As [`Sequence::next_logits`].
    pub fn next_draft_logits(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.advance(tokens, Want::Last, None, Vocabulary::Drafted).into_logits()
    }

    /// As [`Track::propagate`].
    pub fn propagate(&mut self, count: usize) {
        self.track.propagate(count, &self.decoder, self.skip.as_ref(), &mut self.kv);
    }

    /// Runs tokens through all layers, from the kept states where they have run ahead.
    fn advance(&mut self, tokens: &[u32], want: Want, tap: Option<usize>, vocabulary: Vocabulary) -> Output {
        assert!(self.len() + tokens.len() <= self.capacity, "the sequence has room for the tokens");
        let rows = self.track.rows(tokens.to_vec(), want, &mut self.kv).expect("there is room");
        let (depth, taps) = (self.decoder.layer_count(), tap.as_slice());
        let step = Step { rows: vec![rows], depth, skip: self.skip.as_ref(), taps, vocabulary };
        self.layer_evaluations += layer_evaluations(&step.rows[0], depth, step.skip);
        let output = self.decoder.run(&step, &mut self.kv);
        self.track.commit(tokens.len());
        output
    }

    /// Forgets every token from `len` on, and all that ran ahead.
    pub fn truncate(&mut self, len: usize) {
        self.track.truncate(len, &mut self.kv);
    }
}

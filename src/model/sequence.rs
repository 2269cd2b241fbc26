//! One sequence on its way through a decoder: its cache, and what drafting left ahead of it.
//!
//! Two ways to run ahead exist. Early exit is LayerSkip's (Elhoushi et al. 2024): a drafted token runs through the
//! lower layers once, while drafting; verification starts from the hidden states kept there and runs the upper
//! layers alone. A round that drafts `k` tokens and verifies `k + 1` rows therefore costs `(k + 1) * L` layer
//! evaluations, draft included. With row-invariant kernels the reuse is exact.
//!
//! The kept states serve tokens that leave the model early for good as well: keys and values of the upper layers are made of
//! them, many tokens' at once ([`Sequence::propagate`]).
//!
//! A [`DraftView`] is another, cheaper way through the same model. Drafted tokens run through it over the sequence's
//! own cache, so that a draft begins from what the target itself made of the text, without a cache of its own and
//! without a prompt to catch up with. What it appends is only nearly right: verification begins by dropping it.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use paceline_kernels::may_fail;

use super::cache::KvCache;
use super::decoder::Decoder;
use super::skip::{SkipPlan, Sublayer};

/// The state of one sequence.
pub struct Sequence {
    decoder: Arc<Decoder>,
    /// Sublayers that the model skips, for every token.
    skip: Option<SkipPlan>,
    cache: KvCache,
    /// Tokens that every layer has cached: those that went through all of them, and those that left early and were propagated.
    settled: usize,
    ahead: Option<Ahead>,
    layer_evaluations: u64,
}

/// Contents of the cache beyond the settled tokens.
enum Ahead {
    /// The work of lower layers, which verification can go on from.
    Lower(Early),
    /// So many tokens that went through a view. What it appended serves the rest of its draft alone.
    View(Arc<DraftView>, usize),
}

/// Lower layers that ran ahead of the upper ones.
struct Early {
    depth: usize,
    tokens: Vec<u32>,
    /// A `[1, hidden]` tensor for each token: the output of layer `depth - 1`.
    hidden: Vec<Tensor<2>>,
}

/// A cheaper way through a model, to draft with: the same checkpoint in a lower precision, or without some
/// sublayers, or both.
pub struct DraftView {
    decoder: Arc<Decoder>,
    skip: Option<SkipPlan>,
}

impl DraftView {
    /// A view through `decoder`, which must have the layers of the sequences it is used on, without what `skip`
    /// names.
    pub fn new(decoder: Arc<Decoder>, skip: Option<SkipPlan>) -> Self {
        Self { decoder, skip }
    }
}

/// A sequence as drafters may use it: to run ahead of it, and nothing else.
pub struct DraftAccess<'a>(&'a mut Sequence);

impl<'a> DraftAccess<'a> {
    /// Access to `sequence`.
    pub fn to(sequence: &'a mut Sequence) -> Self {
        Self(sequence)
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder {
        &self.0.decoder
    }

    /// As [`Sequence::draft_early`].
    ///
    /// # Panics
    /// If `depth` is not within `1..L`.
    pub fn draft_early(&mut self, token: u32, depth: usize) -> Option<Vec<f32>> {
        self.0.draft_early(token, depth)
    }

    /// As [`Sequence::draft_through`].
    ///
    /// # Panics
    /// If the view's decoder is of another model than the sequence's.
    pub fn draft_through(&mut self, view: &Arc<DraftView>, tokens: &[u32]) -> Option<Vec<f32>> {
        self.0.draft_through(view, tokens)
    }
}

/// Results of a verification.
pub struct Verified {
    /// Logits of every row, `[rows, vocabulary]` in row-major order: row `i` speaks about the token after the
    /// `i`-th verified one.
    pub logits: Vec<f32>,
    /// The last layer's output before the final norm, `[rows, hidden]`.
    pub hidden: Tensor<2>,
    /// The states after the layers that were to be watched, `[rows, hidden]`.
    pub watched: Option<Tensor<2>>,
    vocabulary: usize,
}

impl Verified {
    /// The logits of a row, `[vocabulary]`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.logits[row * self.vocabulary..(row + 1) * self.vocabulary]
    }
}

impl Sequence {
    /// An empty sequence with room for `capacity` tokens.
    ///
    /// # Panics
    /// If there is no memory for it.
    pub fn new(decoder: Arc<Decoder>, capacity: usize) -> Self {
        let cache = decoder.new_cache(capacity);
        Self::over(decoder, cache)
    }

    fn over(decoder: Arc<Decoder>, cache: KvCache) -> Self {
        Self { decoder, skip: None, cache, settled: 0, ahead: None, layer_evaluations: 0 }
    }

    /// The same sequence through a model without what `skip` names: that is the model from now on, in every way of running it.
    ///
    /// # Panics
    /// If something ran already.
    #[must_use]
    pub fn without(self, skip: Option<SkipPlan>) -> Self {
        assert!(self.reach() == 0, "what ran had all layers");
        Self { skip, ..self }
    }

    /// An empty sequence with room for `capacity` tokens, after asking whether there is memory for it.
    ///
    /// # Errors
    /// The bytes that cannot be had.
    pub fn try_new(decoder: Arc<Decoder>, capacity: usize) -> Result<Self, u64> {
        Self::check_room(&decoder, capacity)?;
        let cache = decoder.try_new_cache(capacity).map_err(|none| none.bytes as u64)?;
        Ok(Self::over(decoder, cache))
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
        self.settled
    }

    /// True if there is no such token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Bytes of the keys and values that it holds.
    pub fn cache_bytes(&self) -> u64 {
        let layers = self.decoder.layer_count();
        let positions: usize = (0..layers).map(|layer| self.cache.len(layer)).sum();
        self.decoder.cache_bytes_per_token() / layers.max(1) as u64 * positions as u64
    }

    /// Layers of the decoder run so far, each counted once per token it ran for, also where one half of it is left out; those
    /// of views are not counted.
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
        self.prefill_seeing(tokens, chunk, None, keep_going)
    }

    /// As [`Sequence::prefill`], and shows what the tokens are after the lowest layers: `watch` is their number and what is
    /// shown the hidden states `[rows, hidden]` of every chunk, in order.
    ///
    /// # Panics
    /// As there, and if the model has fewer layers.
    pub fn prefill_seeing(
        &mut self,
        tokens: &[u32],
        chunk: usize,
        mut watch: Option<(usize, &mut dyn FnMut(Tensor<2>))>,
        mut keep_going: impl FnMut(usize) -> bool,
    ) -> usize {
        self.forget_ahead();
        let mut done = 0;
        for part in tokens.chunks(chunk.max(1)) {
            if !keep_going(done) {
                return done;
            }
            let mut hidden = self.decoder.embed(part);
            let mut from = 0;
            if let Some((depth, see)) = &mut watch {
                hidden = self.run(0..*depth, self.settled, hidden);
                see(hidden.clone());
                from = *depth;
            }
            self.run(from..self.decoder.layer_count(), self.settled, hidden);
            self.settled += part.len();
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
        let hidden = self.run_ahead(token, depth)?;
        Some(self.decoder.exit_logits(depth, hidden))
    }

    /// As [`Sequence::draft_early`], with the logits of the whole vocabulary: for a token that comes out of the exit.
    ///
    /// # Panics
    /// As [`Sequence::draft_early`].
    pub fn leave_early(&mut self, token: u32, depth: usize) -> Option<Vec<f32>> {
        let hidden = self.run_ahead(token, depth)?;
        Some(self.decoder.whole_exit_logits(depth, hidden))
    }

    /// Runs one more token through the lowest `depth` layers and keeps what came out, `[1, hidden]`.
    fn run_ahead(&mut self, token: u32, depth: usize) -> Option<Tensor<2>> {
        assert!((1..self.decoder.layer_count()).contains(&depth), "an exit lies between the first and the last layer");
        if !matches!(&self.ahead, Some(Ahead::Lower(early)) if early.depth == depth) {
            self.forget_ahead();
        }
        let position = self.reach();
        if position >= self.capacity() {
            return None;
        }
        let hidden = self.run(0..depth, position, self.decoder.embed(&[token]));
        let mut early = match self.ahead.take() {
            Some(Ahead::Lower(early)) => early,
            _ => Early { depth, tokens: Vec::new(), hidden: Vec::new() },
        };
        early.tokens.push(token);
        early.hidden.push(hidden.clone());
        self.ahead = Some(Ahead::Lower(early));
        Some(hidden)
    }

    /// Runs more tokens through a view and returns the logits of every row, `[tokens, vocabulary]` in row-major order.
    /// They follow those that ran ahead through the same view; whatever else ran ahead is forgotten first. `None`, and
    /// nothing is run, where the sequence has no room for them.
    ///
    /// # Panics
    /// If the view's decoder is of another model than the sequence's.
    pub fn draft_through(&mut self, view: &Arc<DraftView>, tokens: &[u32]) -> Option<Vec<f32>> {
        assert!(view.decoder.config() == self.decoder.config(), "a view is of the sequence's model");
        if !matches!(&self.ahead, Some(Ahead::View(current, _)) if Arc::ptr_eq(current, view)) {
            self.forget_ahead();
        }
        let position = self.reach();
        if position + tokens.len() > self.capacity() {
            return None;
        }
        let DraftView { decoder, skip } = &**view;
        let layers = 0..decoder.layer_count();
        // What the model does without has no cache to look back on.
        let both = skip.as_ref().zip(self.skip.as_ref()).map(|(skip, own)| skip.and(own));
        let skip = both.as_ref().or(skip.as_ref()).or(self.skip.as_ref());
        let hidden = decoder.forward_layers(layers, position, decoder.embed(tokens), skip, &mut self.cache);
        self.ahead = Some(Ahead::View(Arc::clone(view), position + tokens.len() - self.settled));
        Some(decoder.logits(hidden))
    }

    /// Runs tokens through all layers, from the kept hidden states where they have run ahead, and returns the
    /// logits of every row.
    ///
    /// # Panics
    /// If the sequence has no room for them, or one is not in the vocabulary.
    pub fn verify(&mut self, tokens: &[u32]) -> Verified {
        self.verify_watching(tokens, None)
    }

    /// As [`Sequence::verify`], and keeps the states after so many layers, if they are run: layers that ran ahead are not.
    ///
    /// # Panics
    /// As there, and if the model has fewer layers.
    pub fn verify_watching(&mut self, tokens: &[u32], depth: Option<usize>) -> Verified {
        let mut watched = None;
        let hidden = self.advance_watching(tokens, depth.map(|depth| (depth, &mut watched)));
        let logits = self.decoder.logits(hidden.clone());
        Verified { logits, hidden, watched, vocabulary: self.decoder.config().vocab_size }
    }

    /// Runs tokens through all layers and returns the logits after the last of them, `[vocabulary]`:
    /// [`Sequence::verify`] for a caller that needs the last row alone.
    ///
    /// # Panics
    /// If `tokens` is empty, and as [`Sequence::verify`].
    pub fn next_logits(&mut self, tokens: &[u32]) -> Vec<f32> {
        let last = self.advance(tokens).narrow(0, tokens.len() - 1, 1);
        self.decoder.logits(last)
    }

    /// As [`Sequence::next_logits`], to draft from: minus infinity for tokens that drafts do not choose from.
    ///
    /// # Panics
    /// As [`Sequence::next_logits`].
    pub fn next_draft_logits(&mut self, tokens: &[u32]) -> Vec<f32> {
        let last = self.advance(tokens).narrow(0, tokens.len() - 1, 1);
        self.decoder.draft_logits(last)
    }

    /// Settles the first `count` tokens that ran ahead through the lower layers, or as many as there are, without running the
    /// upper ones for them: what those would leave in the cache is made of the state at the exit, as if it were the input of
    /// each of them (CALM, Schuster et al. 2022).
    pub fn propagate(&mut self, count: usize) {
        let Some(Ahead::Lower(early)) = &mut self.ahead else { return };
        let count = count.min(early.tokens.len());
        if count == 0 {
            return;
        }
        early.tokens.drain(..count);
        let hidden = Tensor::cat(early.hidden.drain(..count).collect(), 0);
        let above = early.depth..self.decoder.layer_count();
        if early.tokens.is_empty() {
            self.ahead = None;
        }
        self.decoder.propagate(above, self.settled, hidden, self.skip.as_ref(), &mut self.cache);
        self.settled += count;
    }

    /// Runs tokens through all layers, from the kept hidden states where they have run ahead: `[rows, hidden]`.
    fn advance(&mut self, tokens: &[u32]) -> Tensor<2> {
        self.advance_watching(tokens, None)
    }

    /// As [`Sequence::advance`]; puts the states after so many layers into a place, if those layers are run.
    fn advance_watching(&mut self, tokens: &[u32], watch: Option<(usize, &mut Option<Tensor<2>>)>) -> Tensor<2> {
        let layers = self.decoder.layer_count();
        let (mut from, mut hidden) = match self.ahead.take() {
            // Kept states serve only the tokens they were computed for.
            Some(Ahead::Lower(early)) if tokens.starts_with(&early.tokens) => {
                let mut rows = early.hidden;
                let rest = &tokens[early.tokens.len()..];
                if !rest.is_empty() {
                    let position = self.settled + early.tokens.len();
                    rows.push(self.run(0..early.depth, position, self.decoder.embed(rest)));
                }
                (early.depth, Tensor::cat(rows, 0))
            }
            _ => {
                self.forget_ahead();
                (0, self.decoder.embed(tokens))
            }
        };
        if let Some((depth, place)) = watch
            && depth >= from
        {
            hidden = self.run(from..depth, self.settled, hidden);
            from = depth;
            *place = Some(hidden.clone());
        }
        let hidden = self.run(from..layers, self.settled, hidden);
        self.settled += tokens.len();
        hidden
    }

    fn run(&mut self, layers: Range<usize>, position: usize, hidden: Tensor<2>) -> Tensor<2> {
        let skip = self.skip.as_ref();
        let runs = |layer: &usize| Sublayer::Attention(*layer).runs(skip) || Sublayer::Mlp(*layer).runs(skip);
        self.layer_evaluations += (layers.clone().filter(runs).count() * hidden.dims()[0]) as u64;
        self.decoder.forward_layers(layers, position, hidden, skip, &mut self.cache)
    }

    /// The position after everything that ran, ahead included. Layers do not tell it: a view may skip any of them.
    fn reach(&self) -> usize {
        self.settled
            + match &self.ahead {
                Some(Ahead::Lower(early)) => early.tokens.len(),
                Some(Ahead::View(_, tokens)) => *tokens,
                None => 0,
            }
    }

    /// Forgets every token from `len` on, and all that ran ahead.
    pub fn truncate(&mut self, len: usize) {
        self.ahead = None;
        self.settled = self.settled.min(len);
        self.cache.truncate(self.settled);
    }

    fn forget_ahead(&mut self) {
        self.truncate(self.settled);
    }
}

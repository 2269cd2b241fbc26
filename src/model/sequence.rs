//! One sequence on its way through a decoder: its cache, and the hidden states that drafting by early exit left behind.
//!
//! The split is LayerSkip's (Elhoushi et al. 2024): a drafted token runs through the lower layers once, while
//! drafting; verification starts from the hidden states kept there and runs the upper layers alone. A round
//! that drafts `k` tokens and verifies `k + 1` rows therefore costs `(k + 1) * L` layer evaluations, draft
//! included. With row-invariant kernels the reuse is exact.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::cache::KvCache;
use super::decoder::Decoder;

/// The state of one sequence.
pub struct Sequence {
    decoder: Arc<Decoder>,
    cache: KvCache,
    early: Option<Early>,
    layer_evaluations: u64,
}

/// Lower layers that ran ahead of the upper ones.
struct Early {
    depth: usize,
    tokens: Vec<u32>,
    /// A `[1, hidden]` tensor for each token: the output of layer `depth - 1`.
    hidden: Vec<Tensor<2>>,
}

/// The lower layers of a sequence's decoder, as drafters may use them: to run ahead of the sequence, and nothing
/// else.
pub struct LowerLayers<'a>(&'a mut Sequence);

impl<'a> LowerLayers<'a> {
    /// The lower layers of `sequence`.
    pub fn of(sequence: &'a mut Sequence) -> Self {
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
    pub fn run(&mut self, token: u32, depth: usize) -> Option<Vec<f32>> {
        self.0.draft_early(token, depth)
    }
}

/// What a verification computed.
pub struct Verified {
    /// Logits of every row, `[rows, vocabulary]` in row-major order: row `i` speaks about the token after the
    /// `i`-th verified one.
    pub logits: Vec<f32>,
    /// The last layer's output before the final norm, `[rows, hidden]`.
    pub hidden: Tensor<2>,
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
    pub fn new(decoder: Arc<Decoder>, capacity: usize) -> Self {
        let cache = decoder.new_cache(capacity);
        Self { decoder, cache, early: None, layer_evaluations: 0 }
    }

    /// An empty sequence with room for `capacity` tokens, after asking whether there is memory for it.
    ///
    /// # Errors
    /// The bytes that cannot be had.
    pub fn try_new(decoder: Arc<Decoder>, capacity: usize) -> Result<Self, u64> {
        let bytes = decoder.cache_bytes_per_token().checked_mul(capacity as u64);
        // The system answers this question without touching the memory.
        let fits = |bytes: u64| usize::try_from(bytes).is_ok_and(|n| Vec::<u8>::new().try_reserve_exact(n).is_ok());
        if bytes.is_some_and(fits) { Ok(Self::new(decoder, capacity)) } else { Err(bytes.unwrap_or(u64::MAX)) }
    }

    /// The decoder it runs through.
    pub fn decoder(&self) -> &Arc<Decoder> {
        &self.decoder
    }

    /// Tokens that went through all layers.
    pub fn len(&self) -> usize {
        self.cache.len(self.decoder.layer_count() - 1)
    }

    /// Whether no token went through all layers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Layers run so far, each counted once per token it ran for.
    pub fn layer_evaluations(&self) -> u64 {
        self.layer_evaluations
    }

    /// Runs tokens through all layers without asking for logits, at most `chunk` at a time, and returns how
    /// many went through: all of them, unless `keep_going`, which hears the number done before every chunk,
    /// says no.
    pub fn prefill(&mut self, tokens: &[u32], chunk: usize, mut keep_going: impl FnMut(usize) -> bool) -> usize {
        self.forget_early();
        let mut done = 0;
        for part in tokens.chunks(chunk.max(1)) {
            if !keep_going(done) {
                return done;
            }
            let hidden = self.decoder.embed(part);
            self.run(0, self.decoder.layer_count(), hidden);
            done += part.len();
        }
        done
    }

    /// Runs one more token through the lowest `depth` layers only and returns the exit's logits,
    /// `[vocabulary]`. The token follows those already run ahead; a depth other than theirs forgets them
    /// first. `None`, and nothing is run, where the sequence has no room for it.
    ///
    /// # Panics
    /// If `depth` is not within `1..L`.
    pub fn draft_early(&mut self, token: u32, depth: usize) -> Option<Vec<f32>> {
        assert!((1..self.decoder.layer_count()).contains(&depth), "an exit lies between the first and the last layer");
        if self.early.as_ref().is_some_and(|early| early.depth != depth) {
            self.forget_early();
        }
        if self.cache.len(0) >= self.capacity() {
            return None;
        }
        let hidden = self.run(0, depth, self.decoder.embed(&[token]));
        let early = self.early.get_or_insert_with(|| Early { depth, tokens: Vec::new(), hidden: Vec::new() });
        early.tokens.push(token);
        early.hidden.push(hidden.clone());
        Some(self.decoder.logits(hidden))
    }

    /// Runs tokens through all layers, from the kept hidden states where they have run ahead, and returns the
    /// logits of every row.
    pub fn verify(&mut self, tokens: &[u32]) -> Verified {
        let hidden = self.advance(tokens);
        let logits = self.decoder.logits(hidden.clone());
        Verified { logits, hidden, vocabulary: self.decoder.config().vocab_size }
    }

    /// Runs tokens through all layers and returns the logits after the last of them, `[vocabulary]`:
    /// [`Sequence::verify`] for a caller that needs the last row alone.
    ///
    /// # Panics
    /// If `tokens` is empty.
    pub fn next_logits(&mut self, tokens: &[u32]) -> Vec<f32> {
        let last = self.advance(tokens).narrow(0, tokens.len() - 1, 1);
        self.decoder.logits(last)
    }

    /// Runs tokens through all layers, from the kept hidden states where they have run ahead: `[rows, hidden]`.
    fn advance(&mut self, tokens: &[u32]) -> Tensor<2> {
        let layers = self.decoder.layer_count();
        // Kept states serve only the tokens they were computed for.
        if self.early.as_ref().is_some_and(|early| !tokens.starts_with(&early.tokens)) {
            self.forget_early();
        }
        let Some(early) = self.early.take() else {
            let hidden = self.decoder.embed(tokens);
            return self.run(0, layers, hidden);
        };
        let mut rows = early.hidden;
        let rest = &tokens[early.tokens.len()..];
        if !rest.is_empty() {
            rows.push(self.run(0, early.depth, self.decoder.embed(rest)));
        }
        self.run(early.depth, layers, Tensor::cat(rows, 0))
    }

    fn run(&mut self, from: usize, to: usize, hidden: Tensor<2>) -> Tensor<2> {
        self.layer_evaluations += ((to - from) * hidden.dims()[0]) as u64;
        self.decoder.forward_layers(from..to, hidden, &mut self.cache)
    }

    /// Forgets every token from `len` on, and all that ran ahead.
    pub fn truncate(&mut self, len: usize) {
        self.early = None;
        self.cache.truncate(len);
    }

    fn forget_early(&mut self) {
        self.truncate(self.len());
    }
}

//! Penalties and filters: what happens to the logits before a token is drawn.
//!
//! The order is that of transformers' logits processors: repetition penalty, presence penalty, temperature, top-k,
//! top-p, min-p. Where a filter has to choose among equal logits, the smaller ids stay. Weights and their sums are f64;
//! the penalties are f32, as the logits are. Every sum has a fixed order, so the same logits always leave the same
//! tokens.

use std::cmp::Ordering;

use super::{Candidate, SamplingConfig};

/// Number of tokens that the first attempt at a nucleus sorts, and its growth factor: most nuclei are small, and a full
/// sort of a vocabulary costs more than the rest of the sampling.
const NUCLEUS_START: usize = 64;
const NUCLEUS_GROWTH: usize = 8;

/// Likeliest first, then the smaller id. The logits are not NaN; +0 and -0 are equal.
pub(super) fn likeliest_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Unnormalised probability: `exp((z - z_max) / T)`, 1 for the likeliest token.
pub(super) fn weight(logit: f32, best: f32, temperature: f64) -> f64 {
    ((f64::from(logit) - f64::from(best)) / temperature).exp()
}

/// A set of token ids that is emptied in the time it took to fill it, so that a call costs as much as its history and
/// not as much as the vocabulary.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenSet {
    bits: Vec<u64>,
}

impl TokenSet {
    /// Calls `each` once for every distinct id of `tokens` below `vocabulary`; ids above are ignored.
    pub(super) fn for_each_distinct(&mut self, tokens: &[u32], vocabulary: usize, mut each: impl FnMut(usize)) {
        self.bits.resize(self.bits.len().max(vocabulary.div_ceil(64)), 0);
        let known = || tokens.iter().map(|&token| token as usize).filter(|&token| token < vocabulary);
        for token in known() {
            let (word, bit) = (&mut self.bits[token / 64], 1 << (token % 64));
            if *word & bit == 0 {
                *word |= bit;
                each(token);
            }
        }
        for token in known() {
            self.bits[token / 64] = 0;
        }
    }
}

/// Applies the penalties to `scores` `[vocab]`; `history` is prompt and answer, of which `prompt` tokens are
/// the prompt.
pub(super) fn penalise(
    config: &SamplingConfig,
    seen: &mut TokenSet,
    history: &[u32],
    prompt: usize,
    scores: &mut [f32],
) {
    let vocabulary = scores.len();
    let factor = config.repetition_penalty;
    if factor != 1.0 {
        seen.for_each_distinct(history, vocabulary, |token| {
            let score = &mut scores[token];
            *score = if *score < 0.0 { *score * factor } else { *score / factor };
        });
    }
    if config.presence_penalty != 0.0 {
        let generated = history.get(prompt..).unwrap_or_default();
        seen.for_each_distinct(generated, vocabulary, |token| scores[token] -= config.presence_penalty);
    }
}

/// Leaves the candidates that pass top-k, top-p and min-p, in no particular order; at least the likeliest stays.
///
/// `candidates` come in ascending order of id, without -inf. `best` is the largest logit among them. The configured
/// temperature is positive.
pub(super) fn filter(config: &SamplingConfig, best: f32, candidates: &mut Vec<Candidate>) {
    let temperature = f64::from(config.temperature);
    let top_k = config.top_k;
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, likeliest_first);
        candidates.truncate(top_k);
    }
    if config.top_p < 1.0 {
        if top_k > 0 {
            // What top-k left is in the order of its search; give the sum below an order of its own.
            candidates.sort_unstable_by(likeliest_first);
        }
        let kept = nucleus(f64::from(config.top_p), best, temperature, candidates);
        candidates.truncate(kept);
    }
    if config.min_p > 0.0 {
        // As a difference of logits, so that no exponential is needed.
        let least = f64::from(config.min_p).ln() * temperature;
        candidates.retain(|candidate| f64::from(candidate.logit) - f64::from(best) >= least);
    }
}

/// Moves the smallest set of likeliest candidates whose probability is at least `top_p` to the front, likeliest first,
/// and returns its size.
///
/// transformers' `TopPLogitsWarper` drops a token when it and everything less likely sum to at most `1 -
/// top_p`. That is: a token stays exactly if those before it have not yet reached `top_p`.
fn nucleus(top_p: f64, best: f32, temperature: f64, candidates: &mut [Candidate]) -> usize {
    let total: f64 = candidates.iter().map(|candidate| weight(candidate.logit, best, temperature)).sum();
    let wanted = top_p * total;
    let (mut reached, mut kept, mut chunk) = (0.0, 0, NUCLEUS_START);
    while kept < candidates.len() {
        let rest = &mut candidates[kept..];
        let sorted = chunk.min(rest.len());
        if sorted < rest.len() {
            rest.select_nth_unstable_by(sorted, likeliest_first);
        }
        let front = &mut rest[..sorted];
        front.sort_unstable_by(likeliest_first);
        for candidate in front {
            if kept > 0 && reached >= wanted {
                return kept;
            }
            reached += weight(candidate.logit, best, temperature);
            kept += 1;
        }
        chunk *= NUCLEUS_GROWTH;
    }
    kept
}

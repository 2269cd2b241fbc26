//! Gumbel noise keyed by (seed, index, token), and the draw that uses it.
//!
//! The token at generated index `t` is `argmax_i (z_i / T + g_i(seed, t))`: the Gumbel-max trick makes it a sample of
//! `softmax(z / T)`, and because the noise depends on the position and the token alone, a drafter that uses the same
//! noise on its own logits picks the same token with probability at least `(1 - TV) / (1 + TV)`, where TV is the total
//! variation distance of the two distributions (Daliri, Musco, Suresh, "Coupling without communication and
//! drafter-invariant speculative decoding", 2024). Nothing here knows what was drafted.
//!
//! Noise over a whole vocabulary would cost two logarithms a token. The skip rule avoids nearly all of them without
//! changing the result: see [`GumbelNoise::argmax`].

use super::Candidate;
use super::philox::philox4x32_10;

/// Fourth word of every counter, so that other uses of the same seed can take other streams.
const DOMAIN: u32 = 0x5041_4345;

/// Added to computed upper bounds. `ln` is accurate to about 1e-15 here but nobody promises that it is monotone, and
/// the skip rule must hold without such a promise.
const BOUND_MARGIN: f64 = 1e-9;

/// Margin that the bound of logits is lowered by, relative and absolute: far more than the rounding of f32.
const LIMIT_MARGIN: f64 = 1e-6;

/// A token and its logit over the temperature plus its noise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scored {
    pub(super) id: u32,
    pub(super) score: f64,
}

/// The noise of one seed.
#[derive(Debug, Clone)]
pub(super) struct GumbelNoise {
    key: [u32; 2],
    /// `bounds[k]`: no word with exactly `k` leading one bits gives more noise than this. Ascending; the last entry is
    /// the largest value the generator can give, about 22.87.
    bounds: [f64; 33],
}

impl GumbelNoise {
    pub(super) fn new(seed: u64) -> Self {
        let mut bounds = [0.0; 33];
        for (ones, bound) in (0u32..).zip(&mut bounds) {
            // The largest word with `ones` leading ones: its next bit is zero, all others are one.
            let largest = 0x8000_0000_u32.checked_shr(ones).map_or(u32::MAX, |bit| !bit);
            *bound = gumbel(largest) + BOUND_MARGIN;
        }
        Self { key: [seed as u32, (seed >> 32) as u32], bounds }
    }

    /// The random words of tokens `4 * quad ..= 4 * quad + 3` at generated index `index`.
    fn words(&self, index: u64, quad: u32) -> [u32; 4] {
        philox4x32_10([quad, index as u32, (index >> 32) as u32, DOMAIN], self.key)
    }

    /// `argmax_i (z_i / temperature + g_i)` over `candidates`, the smallest id on ties.
    ///
    /// `start` is one of the candidates (it may occur in `candidates` again), preferably the one with the largest logit; it is only
    /// where the search begins. All logits are finite or -inf, `temperature` is positive. Without any candidate the score
    /// is -inf.
    ///
    /// The skip rule: the search starts from `start`, and a token is passed over when its `z / T + bound` is below the
    /// best score so far, first with the bound over all words (no random number needed), then with the bound over
    /// words that start with as many ones as the token's own word (no logarithm needed). Rounding keeps order, so
    /// `g <= bound` gives `fl(z / T + g) <= fl(z / T + bound) < top`: a token that is passed over can neither win nor
    /// tie, and the result is that of the full search.
    pub(super) fn argmax(
        &self,
        index: u64,
        temperature: f64,
        start: Option<Candidate>,
        candidates: impl Iterator<Item = Candidate>,
    ) -> Scored {
        let mut quad = start.map_or(0, |start| start.id / 4);
        let mut words = self.words(index, quad);
        let score = |start: Candidate| f64::from(start.logit) / temperature + gumbel(words[(start.id % 4) as usize]);
        let (mut winner, mut top) = start.map_or((u32::MAX, f64::NEG_INFINITY), |start| (start.id, score(start)));
        // The first bound again, for the score that the search begins with, as a bound of logits: without a division, and a little
        // lower than it would be without rounding.
        let limit = (top - self.bounds[32]) * temperature;
        let limit = (limit - LIMIT_MARGIN * (1.0 + limit.abs())) as f32;
        for Candidate { logit, id } in candidates {
            if logit < limit {
                continue;
            }
            let scaled = f64::from(logit) / temperature;
            if scaled + self.bounds[32] < top {
                continue;
            }
            if id / 4 != quad {
                quad = id / 4;
                words = self.words(index, quad);
            }
            let word = words[(id % 4) as usize];
            if scaled + self.bounds[word.leading_ones() as usize] < top {
                continue;
            }
            let score = scaled + gumbel(word);
            if score > top || (score == top && id < winner) {
                top = score;
                winner = id;
            }
        }
        Scored { id: winner, score: top }
    }
}

/// Standard Gumbel noise from a random word: `-ln(-ln u)` with `u = (word + 1/2) / 2^32`, which is never 0 or 1.
fn gumbel(word: u32) -> f64 {
    let uniform = (f64::from(word) + 0.5) / 4_294_967_296.0;
    -(-uniform.ln()).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The search without the skip rule and without a good start.
    fn plain_argmax(noise: &GumbelNoise, index: u64, temperature: f64, logits: &[f32]) -> u32 {
        let mut winner = (f64::NEG_INFINITY, u32::MAX);
        for (id, &logit) in (0u32..).zip(logits) {
            let word = noise.words(index, id / 4)[(id % 4) as usize];
            let score = f64::from(logit) / temperature + gumbel(word);
            if score > winner.0 {
                winner = (score, id);
            }
        }
        winner.1
    }

    fn skipping_argmax(noise: &GumbelNoise, index: u64, temperature: f64, logits: &[f32]) -> u32 {
        let all = || (0u32..).zip(logits).map(|(id, &logit)| Candidate { logit, id });
        let best = all().fold(Candidate { logit: f32::NEG_INFINITY, id: 0 }, |best, candidate| {
            if candidate.logit > best.logit { candidate } else { best }
        });
        noise.argmax(index, temperature, Some(best), all()).id
    }

    fn logit() -> impl Strategy<Value = f32> {
        prop_oneof![
            6 => -30.0f32..30.0,
            // Ties, and values that are so large that the noise is lost in rounding and scores tie.
            2 => (-3i8..=3).prop_map(f32::from),
            1 => Just(1e20f32),
            1 => Just(f32::NEG_INFINITY),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn skip_rule_changes_nothing(
            seed: u64,
            index: u64,
            temperature in prop_oneof![Just(1.0), 0.05f64..5.0, Just(1e-30)],
            mut logits in prop::collection::vec(logit(), 1..200),
        ) {
            logits[0] = logits[0].max(-40.0);
            let noise = GumbelNoise::new(seed);
            prop_assert_eq!(
                skipping_argmax(&noise, index, temperature, &logits),
                plain_argmax(&noise, index, temperature, &logits)
            );
        }

        #[test]
        fn bounds_hold_for_every_word(word: u32, ones in 0u32..=32) {
            // Also words with many leading ones, which are rare among random ones.
            for word in [word, word | u32::MAX.checked_shl(32 - ones).unwrap_or(0)] {
                let noise = GumbelNoise::new(0);
                prop_assert!(gumbel(word) <= noise.bounds[word.leading_ones() as usize]);
                prop_assert!(noise.bounds[word.leading_ones() as usize] <= noise.bounds[32]);
            }
        }
    }

    /// Logits so large that the noise is lost in rounding: all scores tie, wherever the search starts.
    #[test]
    fn equal_scores_go_to_the_smallest_id() {
        let noise = GumbelNoise::new(0);
        let tied = [5, 3, 9, 4].map(|id| Candidate { logit: 1e20, id });
        for best in tied {
            assert_eq!(noise.argmax(0, 1.0, Some(best), tied.into_iter()).id, 3);
        }
    }

    #[test]
    fn extreme_words_give_finite_noise() {
        assert!((gumbel(u32::MAX) - 22.873_857).abs() < 1e-5);
        assert!((gumbel(0) + 22.873_857f64.ln()).abs() < 1e-5);
    }
}

//! A 3-gram model over a model's own tokens: interpolated modified Kneser-Ney (Chen & Goodman 1998, section 4.1.6).
//!
//! Runs of tokens are sorted, not hashed: learning takes eight bytes a token, and afterwards sixteen for every
//! different run.

/// Tokens of the longest run.
const ORDERS: usize = 3;
/// Bits of a token in a packed run.
const BITS: u32 = 16;
/// Discounts of counts of 1, 2 and more where there are too few counts to say.
const USUAL_DISCOUNTS: [f64; 3] = [0.5, 1.0, 1.5];
/// A discount of nothing would leave nothing for what was never seen.
const LEAST_DISCOUNT: f64 = 0.05;

/// Probabilities of a token after the two before it.
#[derive(Debug)]
pub struct Trigrams {
    vocabulary: usize,
    /// Of runs of one token, two, three.
    orders: [Order; ORDERS],
}

/// Runs of one length.
#[derive(Debug)]
struct Order {
    /// The runs, the oldest token in the highest bits, sorted.
    runs: Vec<u64>,
    /// Count of each run; below the longest runs, number of different tokens that came before it.
    counts: Vec<u32>,
    /// The runs without their last token, sorted.
    contexts: Vec<Context>,
    discounts: [f64; 3],
}

/// Continuations of some tokens.
#[derive(Debug)]
struct Context {
    key: u64,
    /// Where its runs begin and end.
    runs: std::ops::Range<usize>,
    /// The sum of their counts.
    total: f64,
    /// The total discount, for the shorter context to share out.
    left: f64,
}

impl Trigrams {
    /// Learns from documents. The first token of each is only seen, as if it stood twice before the second.
    pub fn learn<'a>(documents: impl Iterator<Item = &'a [u16]>, vocabulary: usize) -> Self {
        let mut runs = Vec::new();
        for tokens in documents {
            runs.extend((1..tokens.len()).map(|at| pack(&before(tokens, at)) << BITS | u64::from(tokens[at])));
        }
        let three = Order::new(runs);
        let two = Order::new(three.suffixes(2));
        let one = Order::new(two.suffixes(1));
        Self { vocabulary, orders: [one, two, three] }
    }

    /// The probability of `token` after `context`, of which the last two count; after fewer, that of shorter runs.
    pub fn probability(&self, context: &[u16], token: u16) -> f64 {
        let mut probability = 1.0 / self.vocabulary.max(1) as f64;
        for (length, order) in self.orders.iter().enumerate() {
            let Some(from) = context.len().checked_sub(length) else { break };
            let key = pack(&context[from..]);
            // What was never seen here says nothing: the shorter context stands.
            let Ok(found) = order.contexts.binary_search_by_key(&key, |context| context.key) else { break };
            let found = &order.contexts[found];
            let count = order.count(found, key << BITS | u64::from(token));
            probability = (count - order.discount(count) + found.left * probability) / found.total;
        }
        probability
    }

    /// The natural logarithm of the probability of every token of a document but the first.
    pub fn log_probabilities(&self, tokens: &[u16]) -> Vec<f64> {
        (1..tokens.len()).map(|at| self.probability(&before(tokens, at), tokens[at]).ln()).collect()
    }
}

impl Order {
    /// Counts runs.
    fn new(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        let (mut runs, mut counts) = (Vec::new(), Vec::new());
        for same in all.chunk_by(|one, next| one == next) {
            runs.push(same[0]);
            counts.push(u32::try_from(same.len()).unwrap_or(u32::MAX));
        }
        let mut order = Self { discounts: discounts(&counts), runs, counts, contexts: Vec::new() };
        let mut start = 0;
        for same in order.runs.chunk_by(|one, next| one >> BITS == next >> BITS) {
            let runs = start..start + same.len();
            let counts = order.counts[runs.clone()].iter().map(|&count| f64::from(count));
            let total = counts.clone().sum();
            let left = counts.map(|count| order.discount(count)).sum();
            order.contexts.push(Context { key: same[0] >> BITS, total, left, runs });
            start += same.len();
        }
        order
    }

    /// The last `length` tokens of every run, once for each run.
    fn suffixes(&self, length: u32) -> Vec<u64> {
        self.runs.iter().map(|run| run & ((1 << (BITS * length)) - 1)).collect()
    }

    fn count(&self, context: &Context, run: u64) -> f64 {
        let found = self.runs[context.runs.clone()].binary_search(&run);
        found.map_or(0.0, |at| f64::from(self.counts[context.runs.start + at]))
    }

    /// The discount of a count.
    fn discount(&self, count: f64) -> f64 {
        match count {
            0.0 => 0.0,
            1.0 => self.discounts[0],
            2.0 => self.discounts[1],
            _ => self.discounts[2],
        }
    }
}

/// The two tokens before place `at`, which is not the first.
fn before(tokens: &[u16], at: usize) -> [u16; ORDERS - 1] {
    [tokens[at.saturating_sub(2)], tokens[at - 1]]
}

fn pack(tokens: &[u16]) -> u64 {
    tokens.iter().fold(0, |key, &token| key << BITS | u64::from(token))
}

/// The discounts of counts 1, 2 and above, from how many runs came once, twice, three and four times.
fn discounts(counts: &[u32]) -> [f64; 3] {
    let mut came = [0.0; 4];
    for count in counts {
        if let Some(place) = came.get_mut(*count as usize - 1) {
            *place += 1.0;
        }
    }
    if came.contains(&0.0) {
        return USUAL_DISCOUNTS;
    }
    let share = came[0] / (came[0] + 2.0 * came[1]);
    [1, 2, 3].map(|count| {
        let discount = count as f64 - (count + 1) as f64 * share * came[count] / came[count - 1];
        discount.clamp(LEAST_DISCOUNT, count as f64)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const VOCABULARY: usize = 12;

    fn documents() -> impl Strategy<Value = Vec<Vec<u16>>> {
        prop::collection::vec(prop::collection::vec(0..VOCABULARY as u16 - 1, 0..40), 0..8)
    }

    fn learn(documents: &[Vec<u16>]) -> Trigrams {
        Trigrams::learn(documents.iter().map(Vec::as_slice), VOCABULARY)
    }

    /// The same by the book's formulas, with maps of whole runs and no order among them.
    fn by_the_book(documents: &[Vec<u16>], context: &[u16], token: u16) -> f64 {
        let mut counts: BTreeMap<Vec<u16>, usize> = BTreeMap::new();
        for document in documents.iter().filter(|document| document.len() > 1) {
            let padded = [&document[..1], &document[..]].concat();
            for run in padded.windows(3) {
                *counts.entry(run.to_vec()).or_default() += 1;
            }
        }
        let continued = |longer: &BTreeMap<Vec<u16>, usize>| {
            let mut before: BTreeMap<Vec<u16>, BTreeSet<u16>> = BTreeMap::new();
            for run in longer.keys() {
                before.entry(run[1..].to_vec()).or_default().insert(run[0]);
            }
            before.into_iter().map(|(run, before)| (run, before.len())).collect::<BTreeMap<_, _>>()
        };
        let two = continued(&counts);
        let one = continued(&two);
        let mut probability = 1.0 / VOCABULARY as f64;
        for (length, counts) in [one, two, counts].iter().enumerate().take(context.len() + 1) {
            let n = |times: usize| counts.values().filter(|count| **count == times).count() as f64;
            let y = n(1) / (n(1) + 2.0 * n(2));
            let d = |count: usize| {
                let formula = |times: usize| {
                    let times_one_more = (times + 1) as f64;
                    (times as f64 - times_one_more * y * n(times + 1) / n(times)).clamp(0.05, times as f64)
                };
                match count {
                    0 => 0.0,
                    _ if (1..=4).any(|times| n(times) == 0.0) => [0.5, 1.0, 1.5][count.min(3) - 1],
                    _ => formula(count.min(3)),
                }
            };
            let history = &context[context.len() - length..];
            let after = counts.iter().filter(|(run, _)| run.starts_with(history));
            let total: usize = after.clone().map(|(_, count)| count).sum();
            if total == 0 {
                break;
            }
            let left: f64 = after.map(|(_, count)| d(*count)).sum();
            let count = counts.get(&[history, &[token]].concat()).copied().unwrap_or(0);
            probability = (count as f64 - d(count) + left * probability) / total as f64;
        }
        probability
    }

    proptest! {
        #[test]
        fn probabilities_sum_to_one(
            documents in documents(), context in prop::collection::vec(0..VOCABULARY as u16, 0..4),
        ) {
            let model = learn(&documents);
            let all = (0..VOCABULARY as u16).map(|token| model.probability(&context, token));
            prop_assert!(all.clone().all(|probability| probability > 0.0));
            prop_assert!((all.sum::<f64>() - 1.0).abs() < 1e-9);
        }

        #[test]
        fn probabilities_are_those_of_the_book(
            documents in documents(), context in prop::collection::vec(0..VOCABULARY as u16, 0..3),
            token in 0..VOCABULARY as u16,
        ) {
            let (found, expected) = (learn(&documents).probability(&context, token), by_the_book(&documents, &context, token));
            prop_assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
        }
    }

    /// Documents in which a token follows from the two before it, nine times of ten.
    fn structured(documents: usize, random: &mut ChaCha8Rng) -> Vec<Vec<u16>> {
        let mut one = || {
            let mut tokens = vec![0, random.random_range(1..11)];
            while tokens.len() < 60 {
                let [older, last] = before(&tokens, tokens.len());
                let expected = (older * 7 + last * 3) % 10 + 1;
                tokens.push(if random.random_bool(0.9) { expected } else { random.random_range(1..11) });
            }
            tokens
        };
        (0..documents).map(|_| one()).collect()
    }

    #[test]
    fn what_two_tokens_tell_is_learned() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let (train, held_out) = (structured(100, &mut random), structured(20, &mut random));
        let model = learn(&train);
        let logs: Vec<f64> = held_out.iter().flat_map(|document| model.log_probabilities(document)).collect();
        let trigrams = -logs.iter().sum::<f64>() / logs.len() as f64;
        // What token counts alone could reach at best: those of the held-out text itself.
        let predicted: Vec<u16> = held_out.iter().flat_map(|document| &document[1..]).copied().collect();
        let part = |token| predicted.iter().filter(|other| **other == token).count() as f64 / predicted.len() as f64;
        let unigrams: f64 = (1..11).map(part).map(|part| -part * part.ln()).sum();
        // The source itself: 0.91 for what follows, 0.01 for each of the nine others.
        let best = -(0.91 * 0.91_f64.ln() + 0.09 * 0.01_f64.ln());
        assert!(trigrams < 0.5 * unigrams, "{trigrams} of {unigrams}");
        assert!((0.9 * best..1.35 * best).contains(&trigrams), "{trigrams}, at best {best}");
    }
}

//! Documents packed into sequences, in an order that follows from the seed and can be resumed.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests;

use std::collections::BTreeMap;

use paceline::model::Batch;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::objective::Sample;
use crate::settings::Curriculum;
use crate::tokens::{Document, PROMPT, Shard, SourceTokens};

/// Documents that wait for a sequence they fit into.
const MOST_HELD: usize = 16;
/// Documents that are passed over for being too long before one is taken all the same.
const MOST_TRIES: usize = 256;

/// Documents of one kind.
pub struct Source<'a> {
    /// Its name in curves.
    pub name: &'a str,
    /// The documents.
    pub shard: &'a Shard,
    /// Its share of the tokens, relative to the others'.
    pub weight: f64,
}

/// The sources to train on, and those to validate on.
pub fn sources(tokens: &[SourceTokens]) -> (Vec<Source<'_>>, Vec<Source<'_>>) {
    let train = tokens.iter().map(|source| Source { name: &source.name, shard: &source.train, weight: source.weight });
    let held_out = tokens.iter().filter_map(|source| {
        let shard = source.validation.as_ref()?;
        Some(Source { name: &source.name, shard, weight: source.weight })
    });
    (train.collect(), held_out.collect())
}

/// The order and the weights that documents are drawn by.
#[derive(Debug, Clone, Copy)]
pub struct Drawing {
    /// The seed of their order.
    pub seed: u64,
    /// The weight of a prompt's tokens, where an answer's count 1.
    pub prompt_weight: f32,
    /// Short documents first.
    pub curriculum: Option<Curriculum>,
}

/// The place of a packer in its order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PackingState {
    /// Documents drawn in all.
    drawn: u64,
    /// Documents drawn from each source.
    taken: Vec<u64>,
    /// Documents drawn that no sequence had room for yet: source and document.
    held: Vec<(usize, usize)>,
}

/// Draws documents from sources by their weights and packs them into sequences. Each source is gone through as a
/// whole, in an order of its own for every pass, before a document of it comes again.
pub struct Packer<'a> {
    sources: &'a [Source<'a>],
    /// The sources' weights, as they are drawn now.
    weights: Vec<f64>,
    drawing: Drawing,
    state: PackingState,
    /// Every source's order in its present pass.
    orders: Vec<Order>,
}

/// The order of one pass.
#[derive(Default)]
struct Order {
    pass: Option<u64>,
    documents: Vec<u32>,
}

impl<'a> Packer<'a> {
    /// A packer that goes on from `state`, or begins with its default.
    pub fn new(sources: &'a [Source<'a>], drawing: Drawing, mut state: PackingState) -> Self {
        state.taken.resize(sources.len(), 0);
        let orders = sources.iter().map(|_| Order::default()).collect();
        let weights = sources.iter().map(|source| source.weight).collect();
        Self { sources, weights, drawing, state, orders }
    }

    /// From now on draws sources by these weights, by name; the others by their own.
    pub fn weigh(&mut self, weights: &BTreeMap<String, f64>) {
        let weight = |source: &Source<'_>| weights.get(source.name).copied().unwrap_or(source.weight);
        self.weights = self.sources.iter().map(weight).collect();
    }

    /// Its place in its order, to resume from.
    pub fn state(&self) -> &PackingState {
        &self.state
    }

    /// True if a document was drawn a second time from any source.
    pub fn repeats(&self) -> bool {
        let mut taken = self.state.taken.iter().zip(self.sources);
        taken.any(|(taken, source)| *taken > source.shard.documents() as u64)
    }

    /// The next `sequences` of `length` tokens, when a share `done` of the training is done. A document is one token longer than its rows, of which the first is only seen and the last only predicted; where it is
    /// longer than a sequence, its end is left out.
    pub fn next(&mut self, sequences: usize, length: usize, done: f64) -> Sample {
        let mut rows = Rows::default();
        for sequence in 1..=sequences {
            let end = sequence * length;
            while let Some((source, document)) = self.fitting(end - rows.tokens.len(), length, done) {
                rows.push(&self.sources[source].shard.document(document), length, self.drawing.prompt_weight);
            }
            rows.pad(end, length);
        }
        Sample { batch: Batch::new(rows.tokens, length, rows.starts), targets: rows.targets, weights: rows.weights }
    }

    /// A document for `room` rows of a sequence of `length`: the first held that fits, or one drawn anew. `None` where
    /// enough are held that do not fit.
    fn fitting(&mut self, room: usize, length: usize, done: f64) -> Option<(usize, usize)> {
        if room == 0 {
            return None;
        }
        let sources = self.sources;
        let fits = |&(source, document): &(usize, usize)| {
            rows_of(sources[source].shard.document(document).tokens, length) <= room
        };
        if let Some(at) = self.state.held.iter().position(fits) {
            return Some(self.state.held.remove(at));
        }
        while self.state.held.len() < MOST_HELD {
            let drawn = self.draw_short(length, done);
            if fits(&drawn) {
                return Some(drawn);
            }
            self.state.held.push(drawn);
        }
        None
    }

    /// Draws until a document is as short as the curriculum wants it.
    fn draw_short(&mut self, length: usize, done: f64) -> (usize, usize) {
        let longest = self.drawing.curriculum.map_or(usize::MAX, |curriculum| curriculum.longest(length, done));
        let mut drawn = self.draw();
        // Where all are longer there is nothing to choose from.
        for _ in 0..MOST_TRIES {
            if self.sources[drawn.0].shard.document(drawn.1).tokens.len() <= longest {
                break;
            }
            drawn = self.draw();
        }
        drawn
    }

    fn draw(&mut self) -> (usize, usize) {
        let mut random = ChaCha8Rng::seed_from_u64(self.drawing.seed);
        random.set_stream(self.state.drawn);
        self.state.drawn += 1;
        let weights = self.sources.iter().zip(&self.weights);
        let weights: Vec<f64> = weights.map(|(source, weight)| source.shard.documents_for(*weight)).collect();
        debug_assert!(weights.iter().any(|weight| *weight > 0.0), "the trainer looks after that");
        let mut point = random.random::<f64>() * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            point -= weight;
            point < 0.0
        });
        // Rounding may leave the point at the very end.
        let source = drawn.or_else(|| weights.iter().rposition(|weight| *weight > 0.0)).unwrap_or(0);
        (source, self.document(source))
    }

    /// The next document of a source.
    fn document(&mut self, source: usize) -> usize {
        let documents = self.sources[source].shard.documents();
        let (pass, at) = (self.state.taken[source] / documents as u64, self.state.taken[source] % documents as u64);
        self.state.taken[source] += 1;
        let order = &mut self.orders[source];
        if order.pass != Some(pass) {
            let mut random = ChaCha8Rng::seed_from_u64(self.drawing.seed ^ pass.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            random.set_stream(u64::MAX - source as u64);
            order.documents = (0..documents as u32).collect();
            order.documents.shuffle(&mut random);
            order.pass = Some(pass);
        }
        order.documents[at as usize] as usize
    }
}

/// Rows that a document takes in a sequence of `length`.
fn rows_of(tokens: &[u16], length: usize) -> usize {
    tokens.len().saturating_sub(1).min(length)
}

/// Rows of a sample that is being packed.
#[derive(Default)]
struct Rows {
    tokens: Vec<u32>,
    starts: Vec<u32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
}

impl Rows {
    fn push(&mut self, document: &Document<'_>, length: usize, prompt_weight: f32) {
        let start = (self.tokens.len() % length) as u32;
        let rows = rows_of(document.tokens, length);
        self.tokens.extend(document.tokens[..rows].iter().map(|&token| u32::from(token)));
        self.starts.extend(std::iter::repeat_n(start, rows));
        let predicted = 1..rows + 1;
        self.targets.extend(document.tokens[predicted.clone()].iter().map(|&token| u32::from(token)));
        let weight = |&class: &u8| if class == PROMPT { prompt_weight } else { 1.0 };
        self.weights.extend(document.learn[predicted].iter().map(weight));
    }

    /// Fills up to `end` with rows that nothing is learned from, a document each.
    fn pad(&mut self, end: usize, length: usize) {
        for row in self.tokens.len()..end {
            self.tokens.push(0);
            self.starts.push((row % length) as u32);
            self.targets.push(0);
            self.weights.push(0.0);
        }
    }
}

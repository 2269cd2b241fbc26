//! Teacher forcing: what every drafter would have picked at every place of an answer that the target gave, in one pass for each.
//!
//! A draft that is right so far has seen the target's own text, so what is computed along that text is what a drafter computes
//! there. Behind a wrong token drafts go astray, and how far they go on is guessed from their odds along the right way. Views
//! (`self:int4`, `skip:PLAN`) run over caches of their own here, in serving over the target's.

use std::ops::Range;
use std::sync::Arc;

use paceline::SkipPlan;
use paceline::model::{Decoder, KvPool, Rows, Step, Vocabulary, Want};
use paceline::sampling::{Sampler, SamplingError};

use crate::likelihood::entropy;

/// Tokens that go through a model together.
const CHUNK: usize = 256;

/// Something that picks tokens along the text.
pub struct Source {
    /// Its name, as `--drafter` has it.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
}

/// The kind of a source.
pub enum Kind {
    /// The target, left after so many layers; its head's logits are divided by the temperature.
    Exit {
        /// Layers that run.
        depth: usize,
        /// The head's temperature.
        temperature: f32,
    },
    /// Another decoder of the same vocabulary.
    Model(Arc<Decoder>),
    /// The target without some of its sublayers.
    Skip(SkipPlan),
}

/// One source's values at every place of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    /// True if it picks the answer's token.
    pub matches: Vec<bool>,
    /// By how much its pick leads the runner-up, in nats.
    pub leads: Vec<f32>,
    /// The probability of its likeliest token.
    pub confidence: Vec<f32>,
    /// Distance of its distribution from the target's: total variation, from 0 to 1.
    pub distance: Vec<f32>,
    /// By how much less likely the answer's token is to it than to the target, in nats, at most [`MOST_SURPRISED`].
    pub surprise: Vec<f32>,
}

/// Upper limit of the surprise of a token that a source takes to be impossible, in nats.
pub const MOST_SURPRISED: f32 = 20.0;

/// All that is known of a prompt's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forced {
    /// The target's entropy at every place, in nats.
    pub entropy: Vec<f32>,
    /// By source.
    pub columns: Vec<Column>,
}

/// Scores an answer of the target to a prompt, both as tokens.
///
/// # Errors
/// If logits are NaN or positive infinity.
pub fn score(
    target: &Decoder,
    sources: &[Source],
    prompt: &[u32],
    answer: &[u32],
    sampler: &mut Sampler,
) -> Result<Forced, SamplingError> {
    let text = [prompt, answer].concat();
    let rows = prompt.len() - 1..text.len() - 1;
    let depths: Vec<usize> = sources
        .iter()
        .filter_map(|source| match source.kind {
            Kind::Exit { depth, .. } => Some(depth),
            _ => None,
        })
        .collect();
    let (states, last) = states(target, &text[..rows.end], rows.clone(), &depths, None);
    let reference = target.logits(&target.hidden(last));
    let vocabulary = target.config().vocab_size;
    let entropy = reference.chunks_exact(vocabulary).map(|row| entropy(row) as f32).collect();
    let reference: Vec<Vec<f32>> = reference.chunks_exact(vocabulary).map(probabilities).collect();
    let mut exits = states.into_iter();
    let mut columns = Vec::with_capacity(sources.len());
    for source in sources {
        let (mut logits, width) = match &source.kind {
            Kind::Exit { depth, temperature } => {
                let state = exits.next().expect("a state for every exit");
                let mut logits = target.exit_logits(*depth, &target.hidden(state));
                logits.iter_mut().for_each(|logit| *logit /= temperature);
                (logits, vocabulary)
            }
            Kind::Model(decoder) => {
                let (_, last) = self::states(decoder, &text[..rows.end], rows.clone(), &[], None);
                (decoder.draft_logits(&decoder.hidden(last)), decoder.config().vocab_size)
            }
            Kind::Skip(plan) => {
                let (_, last) = self::states(target, &text[..rows.end], rows.clone(), &[], Some(plan));
                (target.logits(&target.hidden(last)), vocabulary)
            }
        };
        let mut column = Column::default();
        for (place, row) in logits.chunks_exact_mut(width).enumerate() {
            let known = &row[..width.min(vocabulary)];
            let (pick, lead) = sampler.pick_with_lead(known, &text[..prompt.len() + place], place as u64)?;
            column.matches.push(pick == answer[place]);
            column.leads.push(lead);
            let own = probabilities(known);
            column.confidence.push(own.iter().copied().fold(0.0, f32::max));
            let shared: f32 = own.iter().zip(&reference[place]).map(|(a, b)| a.min(*b)).sum();
            column.distance.push((1.0 - shared).max(0.0));
            let token = answer[place] as usize;
            let surprise = reference[place][token].ln() - own.get(token).map_or(f32::NEG_INFINITY, |share| share.ln());
            column.surprise.push(if surprise.is_nan() { 0.0 } else { surprise.clamp(-MOST_SURPRISED, MOST_SURPRISED) });
        }
        columns.push(column);
    }
    Ok(Forced { entropy, columns })
}

/// The hidden states of some rows of a text after so many layers each, by rising depth, and after the last.
fn states(
    decoder: &Decoder,
    text: &[u32],
    rows: Range<usize>,
    depths: &[usize],
    skip: Option<&SkipPlan>,
) -> (Vec<Vec<f32>>, Vec<f32>) {
    let (width, layers) = (decoder.config().hidden_size, decoder.layer_count());
    let mut kv = decoder.new_pool(KvPool::pages_for(text.len()));
    let slot = kv.open(text.len());
    let taps: Vec<usize> = depths.iter().copied().chain([layers]).collect();
    let mut kept: Vec<Vec<f32>> = vec![Vec::new(); depths.len() + 1];
    for start in (0..text.len()).step_by(CHUNK) {
        let part = &text[start..text.len().min(start + CHUNK)];
        let wanted = rows.start.saturating_sub(start).min(part.len()) * width..part.len() * width;
        kv.reserve(slot, start + part.len()).expect("memory for a cache");
        let rows = Rows { slot, position: start, tokens: part.to_vec(), early: None, want: Want::Nothing };
        let step = Step { rows: vec![rows], depth: layers, skip, taps: &taps, vocabulary: Vocabulary::Whole };
        let output = decoder.run(&step, &mut kv);
        for (tap, kept) in kept.iter_mut().enumerate() {
            let states = output.tapped(0, tap).expect("all rows run from the bottom").into_values();
            kept.extend_from_slice(&states[wanted.clone()]);
        }
    }
    let last = kept.pop().unwrap_or_default();
    (kept, last)
}

/// The softmax of a row.
fn probabilities(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut powers: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter_mut().for_each(|power| *power /= sum);
    powers
}

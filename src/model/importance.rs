//! Importance of a layer: its block influence (ShortGPT, Men et al. 2024), the mean over tokens of 1 minus the cosine
//! between the hidden state that enters the layer and the one that leaves it. A layer that hardly turns the state is one that
//! a model can do without most easily.

use super::decoder::Decoder;
use super::pool::KvPool;
use super::step::{Rows, Step, Vocabulary, Want};

/// The block influence of every layer over some texts, each read from its beginning. 0 for each where there is no text.
///
/// # Panics
/// If a token is not in the vocabulary, or there is no memory for a text's cache.
pub fn block_influence(decoder: &Decoder, texts: &[Vec<u32>]) -> Vec<f64> {
    let depth = decoder.layer_count();
    let (mut sums, width) = (vec![0.0; depth], decoder.config().hidden_size);
    let taps: Vec<usize> = (0..=depth).collect();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let mut kv = decoder.new_pool(KvPool::pages_for(text.len()));
        let slot = kv.open(text.len());
        kv.reserve(slot, text.len()).expect("memory for a cache");
        let rows = Rows { slot, position: 0, tokens: text.clone(), early: None, want: Want::Nothing };
        let step = Step { rows: vec![rows], depth, skip: None, taps: &taps, vocabulary: Vocabulary::Whole };
        let output = decoder.run(&step, &mut kv);
        let states = |tap| output.tapped(0, tap).expect("all rows ran from the bottom").into_values();
        let mut before = states(0);
        for (layer, sum) in sums.iter_mut().enumerate() {
            let after = states(layer + 1);
            let pairs = before.chunks_exact(width).zip(after.chunks_exact(width));
            *sum += pairs.map(|(before, after)| 1.0 - cosine(before, after)).sum::<f64>();
            before = after;
        }
    }
    let tokens: usize = texts.iter().map(Vec::len).sum();
    sums.iter_mut().for_each(|sum| *sum /= tokens.max(1) as f64);
    sums
}

/// Between vectors of the same length; 1 where one of them is zero, since nothing was turned.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 1.0 }
}

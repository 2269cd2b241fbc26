//! Importance of a layer: its block influence (ShortGPT, Men et al. 2024), the mean over tokens of 1 minus the cosine
//! between the hidden state that enters the layer and the one that leaves it. A layer that hardly turns the state is one that
//! a model can do without most easily.

use burn::tensor::Tensor;

use super::decoder::Decoder;
use super::ops::into_values;

/// The block influence of every layer over some texts, each read from its beginning. 0 for each where there is no text.
///
/// # Panics
/// If a token is not in the vocabulary.
pub fn block_influence(decoder: &Decoder, texts: &[Vec<u32>]) -> Vec<f64> {
    let mut sums = vec![0.0; decoder.layer_count()];
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let mut cache = decoder.new_cache(text.len());
        let mut hidden: Tensor<2> = decoder.embed(text);
        for (layer, sum) in sums.iter_mut().enumerate() {
            let left = decoder.forward_layers(layer..layer + 1, 0, hidden.clone(), None, &mut cache);
            let width = decoder.config().hidden_size;
            let (before, after) = (into_values(hidden), into_values(left.clone()));
            let pairs = before.chunks_exact(width).zip(after.chunks_exact(width));
            *sum += pairs.map(|(before, after)| 1.0 - cosine(before, after)).sum::<f64>();
            hidden = left;
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

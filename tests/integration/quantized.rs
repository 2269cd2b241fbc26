//! Whole models with integer weights: against burn's operations on the same integers, and what they cost in perplexity.

use std::sync::Arc;

use burn::tensor::Device;
use paceline::bench::perplexity;
use paceline::checkpoint::Checkpoint;
use paceline::model::{Compute, Decoder, MatrixFormat, Sequence};
use paceline::text::Tokenizer;
use paceline_kernels::{CacheFormat, QuantizedFormat};

use crate::support::{decoder_at, fixture, shared};

/// burn multiplies with the same rounded weights, but its activations are not rounded to 8 bits, which is all that may
/// differ: a matrix in another format, or at another place, would differ by as much as the logits themselves.
#[test]
fn kernels_agree_with_burn_on_the_same_integers() {
    let text: Vec<u32> = (0..21).map(|i| (i * 7 + 3) % 11).collect();
    for name in ["llama-tied", "llama-rope3", "mistral-window", "qwen2-bias", "qwen3-qknorm", "micro"] {
        let directory = fixture(name);
        let checkpoint = Checkpoint::open(&directory).unwrap();
        for format in [QuantizedFormat::Int8, QuantizedFormat::Int4] {
            let format = Some(MatrixFormat::Quantized(format));
            let flex = Compute::Burn(Device::flex());
            let composed = Decoder::load(&checkpoint, format, &flex, &mut |_, _| {}).unwrap();
            let logits = |decoder: Arc<Decoder>| Sequence::new(decoder, 64).verify(&text).into_logits();
            let ours = logits(decoder_at(&directory, 2, format, CacheFormat::F32));
            let theirs = logits(Arc::new(composed));
            let largest = theirs.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
            let squares: f32 = ours.iter().zip(&theirs).map(|(a, b)| (a - b).powi(2)).sum();
            let apart = (squares / ours.len() as f32).sqrt() / largest;
            println!("{name}, {format:?}: {apart}");
            assert!((1e-6..0.03).contains(&apart), "{name}, {format:?}: {apart}");
        }
    }
}

/// The costs that are aimed at: half a percent at int8, five at int4.
#[test]
fn integers_cost_little_perplexity() {
    let Some(models) = shared("models", "integers_cost_little_perplexity") else { return };
    let Some(text) = shared("data/text/tinystories.txt", "integers_cost_little_perplexity") else { return };
    let directory = models.join("stories-260k");
    let text = std::fs::read_to_string(text).unwrap();
    let end = text.floor_char_boundary(120_000);
    let mut tokens = Tokenizer::from_dir(&directory).unwrap().encode_chat(&text[..end]).unwrap();
    assert!(tokens.len() > 20_000);
    tokens.truncate(20_480);
    let of = |format: Option<QuantizedFormat>| {
        let decoder = decoder_at(&directory, 2, format.map(MatrixFormat::Quantized), CacheFormat::F32);
        perplexity(&decoder, &tokens, &mut |_| {})
    };
    let stored = of(None);
    for (format, most) in [(QuantizedFormat::Int8, 1.005), (QuantizedFormat::Int4, 1.05)] {
        let cost = of(Some(format)) / stored;
        println!("{format}: {cost}");
        assert!(cost < most, "{format}: {cost} times the perplexity of {stored}");
    }
}

//! Tokens and logits against transformers: every fixture, and the development models where they are.

use std::path::Path;
use std::sync::Arc;

use paceline::checkpoint::Checkpoint;
use paceline::drafters::exit::ExitDrafter;
use paceline::model::{Decoder, MatrixFormat, Sequence};
use paceline::sampling::SamplingConfig;
use paceline::speculation::DraftLength;
use paceline::text::Tokenizer;
use paceline_kernels::{CacheFormat, FloatFormat};
use serde::Deserialize;

use crate::support::{Task, decoder, decoder_at, fixture, shared};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    #[serde(default)]
    chat: Vec<Chat>,
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    prompt_ids: Vec<u32>,
    generated: Vec<u32>,
    min_margin: f64,
    #[serde(default)]
    logits_after_prompt: Vec<f64>,
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<paceline::Message>,
    rendered: String,
    ids: Vec<u32>,
}

fn golden(directory: &Path) -> Golden {
    serde_json::from_slice(&std::fs::read(directory.join("golden.json")).unwrap()).unwrap()
}

/// The decoder of a directory, with integers widened: transformers computes with what they stand for.
fn in_f32(directory: &Path) -> Arc<Decoder> {
    let is_gguf = Checkpoint::open(directory).unwrap().metadata().is_some();
    let format = is_gguf.then_some(MatrixFormat::Float(FloatFormat::F32));
    decoder_at(directory, 2, format, CacheFormat::F32)
}

/// Prompt ids, logits after the prompt within 1e-4 of the largest, and greedy tokens, plain and by early exit.
fn check(directory: &Path) {
    let shown = directory.display();
    let decoder = in_f32(directory);
    let tokenizer = Tokenizer::of_model(directory).unwrap();
    let mut worst: f64 = 0.0;
    for Case { prompt, prompt_ids, generated, min_margin, logits_after_prompt } in golden(directory).cases {
        assert_eq!(tokenizer.encode(&prompt).unwrap(), prompt_ids, "{shown}: ids of {prompt:?}");

        let mut sequence = Sequence::new(decoder.clone(), prompt_ids.len());
        let logits = sequence.next_logits(&prompt_ids);
        if !logits_after_prompt.is_empty() {
            assert_eq!(logits.len(), logits_after_prompt.len());
            let largest = logits_after_prompt.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
            let differences =
                logits.iter().zip(&logits_after_prompt).map(|(ours, theirs)| (f64::from(*ours) - theirs).abs());
            let relative = differences.fold(0.0, f64::max) / largest;
            assert!(relative < 1e-4, "{shown}: logits after {prompt:?} are off by {relative}");
            worst = worst.max(relative);
        }

        let task = Task { prompt: &prompt_ids, new_tokens: generated.len(), sampling: SamplingConfig::default() };
        let exit: Box<dyn paceline::drafters::Drafter> = Box::new(ExitDrafter::new(1, 1.0));
        for drafters in [vec![], vec![exit]] {
            let tokens = task.speculative(&decoder, drafters, DraftLength::Fixed(4)).tokens;
            if tokens != generated {
                let at = tokens.iter().zip(&generated).take_while(|(a, b)| a == b).count();
                assert!(min_margin < 1e-3, "{shown}: greedy tokens after {prompt:?} differ at {at}");
                println!("{shown}: differs from token {at} on, where two logits are within {min_margin} of each other");
            }
        }
    }
    println!("{shown}: logits after the prompt within {worst:.1e}");
}

fn check_all(folder: &Path) {
    let mut directories: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.retain(|path| path.join("golden.json").exists());
    directories.sort();
    assert!(!directories.is_empty());
    directories.iter().for_each(|directory| check(directory));
}

#[test]
fn fixtures_equal_transformers() {
    check_all(&fixture(""));
}

#[test]
fn development_models_equal_transformers() {
    for folder in ["goldens", "families", "models"] {
        if let Some(folder) = shared(folder, "development_models_equal_transformers") {
            check_all(&folder);
        }
    }
}

/// Blocks of integers are multiplied with activations that are rounded to 8 bits: logits move a little.
#[test]
fn blocks_as_stored_are_near_transformers() {
    for name in ["gguf-llama", "gguf-qwen2", "gguf-gemma3", "gguf-phi3", "gguf-granite"] {
        let directory = fixture(name);
        let decoder = decoder(&directory, 2);
        assert!(matches!(decoder.format(), MatrixFormat::Blocks(_)), "{:?}", decoder.format());
        for Case { prompt, prompt_ids, logits_after_prompt, .. } in golden(&directory).cases {
            let logits = Sequence::new(decoder.clone(), prompt_ids.len() + 1).next_logits(&prompt_ids);
            let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
            let off = square(&mut logits.iter().zip(&logits_after_prompt).map(|(a, b)| f64::from(*a) - b));
            let relative = (off / square(&mut logits_after_prompt.iter().copied())).sqrt();
            println!("{name}: logits after {prompt:?} are off by {relative:.4}");
            assert!(relative > 0.0 && relative < 0.05, "{name}: logits after {prompt:?} are off by {relative}");
        }
    }
}

#[test]
fn chats_render_and_tokenize_as_in_transformers() {
    for name in ["llama-tied", "gguf-llama"] {
        let directory = fixture(name);
        let template = paceline::text::ChatTemplate::of_model(&directory).unwrap().unwrap();
        let tokenizer = Tokenizer::of_model(&directory).unwrap();
        let chats = golden(&directory).chat;
        assert!(!chats.is_empty());
        for Chat { messages, rendered, ids } in chats {
            let ours = template.render(&messages, true).unwrap();
            assert_eq!(ours, rendered);
            assert_eq!(tokenizer.encode_chat(&ours).unwrap(), ids);
        }
    }
}

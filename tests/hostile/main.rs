//! Hostile files: whatever bytes a model's directory, a certificate, a learned state or a journal holds, reading them ends in a
//! result or in one sentence. Some hundred damaged inputs of each kind in a usual run, as many as are wished on demand
//! ([`driver`]). The bodies ([`readers`]) are those of the fuzz targets in `fuzz/`.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod driver;
mod mutate;
mod readers;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use paceline::Certificate;
use paceline::checkpoint::{Checkpoint, ExitConfig, ExitsConfig, exit_tensors};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use driver::{Kind, hold};
use mutate::Form;

/// Where the repository is.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A file of the repository.
fn file(path: &str) -> Vec<u8> {
    fs::read(Path::new(ROOT).join(path)).unwrap()
}

/// The file `name` of every fixture that has one.
fn of_fixtures(name: &str) -> Vec<Vec<u8>> {
    let folders = fs::read_dir(Path::new(ROOT).join("tests/fixtures")).unwrap();
    let mut paths: Vec<PathBuf> = folders.map(|folder| folder.unwrap().path().join(name)).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| fs::read(path).ok()).collect()
}

/// The configuration of the model that inputs lie beside, with some fields changed.
fn config(changes: &Value) -> Vec<u8> {
    let mut config: Value = serde_json::from_slice(&file("tests/fixtures/micro/config.json")).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string().into_bytes()
}

fn plain(name: &str, form: Form, seeds: Vec<Vec<u8>>, read: fn(&[u8]) -> readers::Outcome) {
    hold(&Kind { name, form, seeds, read, mend: |input| input });
}

#[test]
fn configurations() {
    let seeds = [
        json!({}),
        json!({"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 8}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 2, "truncate": false}}),
        json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
        json!({"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "partial_rotary_factor": 0.5, "rope_scaling": {
            "rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0]}, "original_max_position_embeddings": 32}),
        json!({"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1, 0], "use_sliding_window": true, "sliding_window": 4}),
        json!({"model_type": "granite", "architectures": ["GraniteForCausalLM"], "embedding_multiplier": 3.0, "residual_multiplier": 0.5}),
        json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
    ];
    plain("config", Form::Json, seeds.iter().map(config).collect(), readers::config);
}

#[test]
fn generation_configurations() {
    let seeds = vec![
        file("tests/fixtures/micro/generation_config.json"),
        br#"{"eos_token_id": [1, 2], "bos_token_id": 1}"#.to_vec(),
    ];
    plain("generation_config", Form::Json, seeds, readers::generation_config);
}

#[test]
fn weights() {
    plain("weights", Form::Safetensors, vec![file("tests/fixtures/micro/model.safetensors")], readers::weights);
}

#[test]
fn gguf_files() {
    let families = ["micro", "gemma2", "gemma3", "phi3", "smollm3", "granite"];
    let seeds = families.map(|family| file(&format!("tests/fixtures/gguf-{family}/model.gguf")));
    plain("gguf", Form::Gguf, seeds.into(), readers::gguf);
}

#[test]
fn indexes() {
    let weights = file("tests/fixtures/micro/model.safetensors");
    let length = usize::try_from(u64::from_le_bytes(weights[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&weights[8..8 + length]).unwrap();
    let names = header.as_object().unwrap().keys().filter(|name| *name != "__metadata__");
    let map: serde_json::Map<String, Value> = names.map(|name| (name.clone(), json!(readers::SHARD))).collect();
    let index = json!({"metadata": {"total_size": weights.len()}, "weight_map": map}).to_string();
    plain("index", Form::Json, vec![index.into_bytes()], readers::index);
}

#[test]
fn exits() {
    let checkpoint = Checkpoint::open(&Path::new(ROOT).join("tests/fixtures/micro")).unwrap();
    let hidden = checkpoint.config().hidden_size;
    let exits = ExitsConfig {
        model: ExitsConfig::model_of(checkpoint.fingerprint()),
        rank: 4,
        exits: vec![ExitConfig { depth: 1, temperature: 1.5, agreement: 0.7, calibration_error: 0.02 }],
    };
    let data = vec![0; 4 * 4 * hidden];
    let tensors = exit_tensors(1, exits.rank, hidden);
    let views = tensors.iter().map(|(name, shape)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), &data[..4 * shape.iter().product::<usize>()]).unwrap())
    });
    let metadata = HashMap::from([(ExitsConfig::KEY.to_owned(), serde_json::to_string(&exits).unwrap())]);
    let seed = safetensors::serialize(views, Some(metadata)).unwrap();
    plain("exits", Form::Safetensors, vec![seed], readers::exits);
}

#[test]
fn tokenizers() {
    let mut seeds = of_fixtures("tokenizer.json");
    seeds.extend(NORMALIZED.iter().map(|normalizer| {
        let mut tokenizer: Value = serde_json::from_slice(&file("tests/fixtures/micro/tokenizer.json")).unwrap();
        tokenizer["normalizer"] = serde_json::from_str(normalizer).unwrap();
        tokenizer.to_string().into_bytes()
    }));
    plain("tokenizer", Form::Json, seeds, readers::tokenizer);
}

/// Normalizers as models have them.
const NORMALIZED: &[&str] = &[
    r#"{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]}"#,
    r#"{"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}, {"type": "Strip", "strip_left": true, "strip_right": false}]}"#,
];

#[test]
fn tokenizer_configurations() {
    let mut seeds = of_fixtures("tokenizer_config.json");
    seeds.push(file("models/target/tokenizer_config.json"));
    plain("tokenizer_config", Form::Json, seeds, readers::tokenizer_config);
}

#[test]
fn draft_vocabularies() {
    plain("draft_vocabulary", Form::Json, vec![b"[0, 1, 2, 5]".to_vec()], readers::draft_vocabulary);
}

#[test]
fn special_tokens() {
    let mut seeds = of_fixtures("special_tokens_map.json");
    seeds.push(br#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}}"#.to_vec());
    plain("special_tokens", Form::Json, seeds, readers::special_tokens);
}

#[test]
fn prompts() {
    let row = json!({
        "id": 7, "level": "simple", "tools": [{"name": "f", "parameters": {"a": 1.5}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": null, "tool_calls": []}],
    });
    plain("prompt", Form::Json, vec![row.to_string().into_bytes(), br#"{"prompt": "a"}"#.to_vec()], readers::prompt);
}

#[test]
fn chat_templates() {
    let shipped: Value = serde_json::from_slice(&file("models/target/tokenizer_config.json")).unwrap();
    let mut seeds = of_fixtures("chat_template.jinja");
    seeds.extend(shipped["chat_template"].as_str().map(|template| template.as_bytes().to_vec()));
    plain("chat_template", Form::Text, seeds, readers::chat_template);
}

#[test]
fn routers() {
    plain("router", Form::Safetensors, vec![file("models/target/router.safetensors")], readers::router);
}

#[test]
fn certificates() {
    let folder = Path::new(ROOT).join("models/target/certificates");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let seeds = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    // One that was changed and given the checksum that belongs to it gets past the checksum.
    let mend = |input: Vec<u8>| {
        let read = serde_json::from_slice::<Certificate>(&input).ok();
        read.and_then(|certificate| certificate.to_json().ok()).map_or(input, String::into_bytes)
    };
    hold(&Kind { name: "certificate", form: Form::Json, seeds, read: readers::certificate, mend });
}

#[test]
fn learned_states() {
    let cell = json!({"evaluated": 40.0, "accepted": 30.0, "expected": 20.0});
    let state = json!({
        "of": readers::LEARNED_WITH,
        "cells": {"lookup": [cell, cell, cell], "exit:2": [cell, cell, cell]},
        "costs": {"machine": "here", "steps": [0.001, 0.002], "drafters": {"exit:2": {"token": 0.1, "share": 0.5, "reading": 0.0, "bytes": 0}}},
        "answers": 3,
    });
    let written = paceline_router::Online::new(readers::LEARNED_WITH).to_json().unwrap();
    let seeds = vec![state.to_string().into_bytes(), written.into_bytes()];
    plain("online_state", Form::Json, seeds, readers::online_state);
}

#[test]
fn journals() {
    let entry = json!({
        "at": 1_790_000_000_000_u64, "prompt_tokens": 12, "tokens": 20, "latency_ms": 40.5, "decode_ms": 30.0, "plain_step_ms": 2.5,
        "energy_wh": 0.01, "energy_source": "rapl", "drafter": "exit:2", "difficulty": "simple", "adapted": ["drafted"],
        "steps": 9, "evaluated": 14, "accepted": 11, "exact": true, "quality": 1.0,
    });
    let dropped = json!({"dropped": 7, "until": 1_780_000_000_000_u64});
    let seeds = vec![format!("{dropped}\n{entry}\n{entry}\n").into_bytes(), format!("{entry}\n").into_bytes()];
    plain("journal", Form::JsonLines, seeds, readers::journal);
}

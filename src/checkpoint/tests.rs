//! Tiny checkpoints in temporary directories, one thing wrong with each; and the reference models, where they
//! are at hand.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use safetensors::Dtype;

use super::layout::{layer_tensors, outer_tensors};
use super::*;

/// Two layers of a family with four query heads, two key heads and a width of 16.
fn config(family: &str) -> Value {
    json!({
        "model_type": family, "vocab_size": 10, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000, "sliding_window": null, "eos_token_id": 2, "hidden_act": "silu"
    })
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

fn parse(config: &Value) -> Result<ModelConfig, CheckpointError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    ModelConfig::read(dir.path())
}

fn refused(config: &Value) -> String {
    let message = parse(config).unwrap_err().to_string();
    assert!(message.ends_with('.') && !message.contains('\n') && message.contains("config.json"), "{message}");
    message
}

/// Name, dtype, shape.
type Listed = Vec<(String, Dtype, Vec<usize>)>;

/// The tensors that a configuration implies, as bf16.
fn tensors(config: &ModelConfig) -> Listed {
    let matrix = || vec![config.vocab_size, config.hidden_size];
    let mut names = vec![(EMBEDDING.to_owned(), matrix())];
    if !config.tied_embeddings {
        names.push((OUTPUT.to_owned(), matrix()));
    }
    names.extend(outer_tensors(config).into_iter().map(|(name, shape)| (name.to_owned(), shape)));
    for layer in 0..config.layers {
        names.extend(
            layer_tensors(config.layer(layer)).into_iter().map(|(name, shape)| (layer_name(layer, name), shape)),
        );
    }
    names.into_iter().map(|(name, shape)| (name, Dtype::BF16, shape)).collect()
}

fn write(path: &Path, tensors: &Listed) {
    let bytes = vec![0x3f; 8 * tensors.iter().map(|(_, _, shape)| shape.iter().product::<usize>()).max().unwrap_or(0)];
    let views = tensors.iter().map(|(name, dtype, shape)| {
        let length = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (name, TensorView::new(*dtype, shape.clone(), &bytes[..length]).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Opens a checkpoint whose tensors `change` has changed.
fn open(config: &Value, change: impl FnOnce(&mut Listed)) -> Result<Checkpoint, CheckpointError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut listed = tensors(&ModelConfig::read(dir.path()).unwrap());
    change(&mut listed);
    write(&dir.path().join("model.safetensors"), &listed);
    Checkpoint::open(dir.path())
}

#[test]
fn every_family_opens_with_the_tensors_it_needs() {
    let biased = with(with(config("llama"), "attention_bias", json!(true)), "mlp_bias", json!(true));
    for (config, per_layer) in [
        (config("llama"), 9),
        (biased, 16),
        (config("mistral"), 9),
        (config("qwen2"), 12),
        (config("qwen3"), 11),
        (with(config("qwen3"), "attention_bias", json!(true)), 15),
    ] {
        let checkpoint = open(&config, |_| {}).unwrap();
        assert_eq!(checkpoint.tensors.len(), 3 + 2 * per_layer, "{config}");
        assert_eq!(checkpoint.config().family.to_string(), config["model_type"]);
        assert_eq!(checkpoint.stored_format(), FloatFormat::Bf16.into());
        assert_eq!(checkpoint.weight_bytes(), 2 * checkpoint.parameters());
        assert_eq!(checkpoint.files().len(), 1);
        assert!(matches!(checkpoint.tensor("nothing"), Err(CheckpointError::Unknown { .. })));
    }
}

#[test]
fn a_tied_matrix_is_found_under_both_names() {
    let tied = with(config("llama"), "tie_word_embeddings", json!(true));
    let renamed = |tensors: &mut Listed| tensors[0].0 = OUTPUT.to_owned();
    let both = |tensors: &mut Listed| tensors.push((OUTPUT.to_owned(), Dtype::BF16, vec![10, 16]));
    for checkpoint in [open(&tied, |_| {}), open(&tied, renamed), open(&tied, both)] {
        let checkpoint = checkpoint.unwrap();
        let (embedding, output) = (checkpoint.tensor(EMBEDDING).unwrap(), checkpoint.tensor(OUTPUT).unwrap());
        assert_eq!((&embedding.bytes, embedding.format), (&output.bytes, FloatFormat::Bf16.into()));
        assert_eq!(embedding.to_f32().len(), 160);
        assert_eq!(checkpoint.parameters(), 160 + 16 + 2 * (2 * 16 + 2 * 256 + 2 * 128 + 3 * 384));
    }
    // The bytes of float32 are other numbers here than those of bfloat16.
    let other = |tensors: &mut Listed| tensors.push((OUTPUT.to_owned(), Dtype::F32, vec![10, 16]));
    let checkpoint = open(&tied, other).unwrap();
    assert!(!checkpoint.config().tied_embeddings);
    assert_eq!(checkpoint.tensor(OUTPUT).unwrap().format, FloatFormat::F32.into());
    assert!(checkpoint.notes()[0].contains("tie_word_embeddings"), "{:?}", checkpoint.notes());
    let without = |tensors: &mut Listed| _ = tensors.remove(0);
    assert!(
        matches!(open(&config("llama"), without), Err(CheckpointError::Missing { tensor, .. }) if tensor == EMBEDDING)
    );
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let message = |change: &dyn Fn(&mut Listed)| open(&config("llama"), change).unwrap_err().to_string();
    let found = message(&|tensors| tensors.truncate(20));
    assert!(found.contains("\"model.layers.1.mlp.down_proj.weight\" that"), "{found}");
    let found = message(&|tensors| tensors.push(("model.layers.2.mlp.up_proj.weight".into(), Dtype::F32, vec![1])));
    assert!(found.contains("\"model.layers.2.mlp.up_proj.weight\", which no part"), "{found}");
    let found = message(&|tensors| tensors[3].2 = vec![8, 32]);
    assert!(found.contains("has the shape [8, 32], but the configuration implies [16]"), "{found}");
    let found = message(&|tensors| tensors[0].1 = Dtype::I64);
    assert!(found.contains("is stored as I64"), "{found}");
    let ignored = |tensors: &mut Listed| {
        tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), Dtype::F64, vec![2]));
    };
    open(&config("llama"), ignored).unwrap();
    let many = with(config("llama"), "num_hidden_layers", json!(1_000_000_000_000u64));
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("model.safetensors"), &tensors(&parse(&config("llama")).unwrap()));
    fs::write(dir.path().join("config.json"), many.to_string()).unwrap();
    let found = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(found.contains("\"model.layers.2.input_layernorm.weight\" that"), "{found}");
}

#[test]
fn shards_hold_exactly_what_the_index_says() {
    let listed = tensors(&parse(&config("llama")).unwrap());
    let (first, second) = (listed[..9].to_vec(), listed[9..].to_vec());
    let map = |shards: [(&str, &Listed); 2]| -> Value {
        let names = shards
            .into_iter()
            .flat_map(|(file, tensors)| tensors.iter().map(move |(name, ..)| (name.clone(), json!(file))));
        json!({"metadata": {"total_size": 1}, "weight_map": Value::Object(names.collect())})
    };
    let good = map([("a.safetensors", &first), ("b.safetensors", &second)]);
    let open_with = |index: &Value, config: &Value| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        write(&dir.path().join("a.safetensors"), &first);
        write(&dir.path().join("b.safetensors"), &second);
        Checkpoint::open(dir.path())
    };
    let open = |index: &Value| open_with(index, &config("llama"));
    let checkpoint = open(&good).unwrap();
    assert_eq!(checkpoint.files().len(), 2);
    assert_eq!(checkpoint.tensors.len(), listed.len());
    let result = |change: &dyn Fn(&mut Value)| {
        let mut index = good.clone();
        change(&mut index["weight_map"]);
        open(&index)
    };
    let changed = |change: &dyn Fn(&mut Value)| result(change).unwrap_err().to_string();
    // Some converters leave entries of what they left out.
    let stale = result(&|map| map["model.layers.0.self_attn.rotary_emb.inv_freq"] = json!("b.safetensors")).unwrap();
    assert_eq!(stale.tensors.len(), listed.len());
    assert!(stale.notes()[0].contains("rotary_emb.inv_freq"), "{:?}", stale.notes());
    let mut incomplete = good.clone();
    incomplete["weight_map"]["model.layers.2.mlp.up_proj.weight"] = json!("b.safetensors");
    let message =
        open_with(&incomplete, &with(config("llama"), "num_hidden_layers", json!(3))).unwrap_err().to_string();
    assert!(message.contains("\"model.layers.2.input_layernorm.weight\""), "{message}");
    incomplete["weight_map"]["model.layers.2.input_layernorm.weight"] = json!("b.safetensors");
    let message =
        open_with(&incomplete, &with(config("llama"), "num_hidden_layers", json!(3))).unwrap_err().to_string();
    assert!(
        message.contains("b.safetensors does not hold the tensor") && message.contains("download that file"),
        "{message}"
    );
    for name in ["../a.safetensors", "/a", "x/a", "x\\a", "..", ".", "", "a/"] {
        let message = changed(&|map| map["new"] = json!(name));
        assert!(message.contains("not a plain file name"), "{name}: {message}");
    }
    assert!(changed(&|map| map["new"] = json!("c")).contains("c does not exist, one of 1 missing of the 3"));
    assert!(changed(&|map| _ = map.as_object_mut().unwrap().remove(OUTPUT)).contains("index does not list"));
    assert!(changed(&|map| map[OUTPUT] = json!("b.safetensors")).contains("index does not list"));
    assert!(changed(&|map| *map = json!([])).contains("file names by tensor name"));
}

#[test]
fn rope_is_read_in_old_and_new_spellings() {
    let rope = |key: &str, value: Value| parse(&with(config("llama"), key, value)).map(|config| config.rope);
    let linear = Rope { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 2.0 } };
    assert_eq!(rope("rope_scaling", json!({"type": "linear", "factor": 2})).unwrap(), linear);
    assert_eq!(rope("rope_scaling", json!({"rope_type": "linear", "type": "x", "factor": 2.0})).unwrap(), linear);
    assert_eq!(rope("rope_parameters", json!({"rope_type": "linear", "factor": 2.0})).unwrap(), linear);
    let plain = Rope { theta: 5e5, scaling: RopeScaling::None };
    assert_eq!(rope("rope_parameters", json!({"rope_type": "default", "rope_theta": 500000.0})).unwrap(), plain);
    assert_eq!(rope("rope_theta", json!(5e5)).unwrap(), plain);
    assert_eq!(rope("rope_scaling", Value::Null).unwrap().theta, 1e4);
    assert!(rope("rope_theta", Value::Null).is_err());
    let both = with(config("llama"), "rope_scaling", json!({}));
    assert_eq!(parse(&with(both, "rope_parameters", json!({"rope_theta": 7}))).unwrap().rope.theta, 7.0);
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32});
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 32 };
    assert_eq!(rope("rope_scaling", llama3.clone()).unwrap().scaling, scaling);
    for (value, said) in [
        (json!({"rope_type": "proportional", "factor": 2.0}), "\"rope_scaling.rope_type\" of"),
        (json!({"type": "axial"}), "is \"axial\", which is not supported"),
        (json!({"rope_type": "yarn"}), "\"rope_scaling.factor\" of"),
        (
            json!({"rope_type": "yarn", "factor": 2.0, "beta_fast": 1, "beta_slow": 2}),
            "must not be below the 2 of beta_slow",
        ),
        (json!({"rope_type": "yarn", "factor": 2.0, "attention_factor": 0}), "must be a number above zero"),
        (json!({"rope_type": "longrope", "factor": 2.0}), "\"rope_scaling.long_factor\" of"),
        (
            json!({"rope_type": "longrope", "factor": 2.0, "long_factor": [1], "short_factor": [1, 1]}),
            "\"rope_scaling.long_factor\" of",
        ),
        (
            json!({"rope_type": "longrope", "factor": 2.0, "long_factor": [1, 2], "short_factor": [1, 0]}),
            "must have 2 numbers above zero",
        ),
        (json!({"type": "dynamic"}), "\"rope_scaling.factor\" of"),
        (json!({"type": "linear"}), "\"rope_scaling.factor\" of"),
        (json!({"type": "linear", "factor": -1.0}), "must be a number above zero, not -1.0"),
        (with(llama3.clone(), "high_freq_factor", json!(1)), "must be above low_freq_factor"),
        (with(llama3, "original_max_position_embeddings", json!(0)), "must be a whole number above zero, not 0"),
        (json!({"full_attention": {"rope_theta": 1.0}}), "a rotation for one kind of layer alone"),
        (json!({"partial_rotary_factor": 0.5}), "a part of each head"),
        (json!([2.0]), "must be an object, not a list"),
    ] {
        let message = refused(&with(config("llama"), "rope_scaling", value));
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn windows_follow_each_family() {
    let windows = |config: &Value| -> Vec<Option<usize>> {
        let config = parse(config).unwrap();
        (0..3).map(|layer| config.window(layer)).collect()
    };
    let without = |family: &str| {
        let mut config = config(family);
        config.as_object_mut().unwrap().remove("sliding_window");
        config
    };
    assert_eq!(windows(&config("mistral")), [None; 3]);
    assert_eq!(windows(&without("mistral")), [Some(4096); 3]);
    assert_eq!(windows(&with(config("mistral"), "sliding_window", json!(5))), [Some(5); 3]);
    assert_eq!(windows(&with(config("llama"), "sliding_window", json!(64))), [None; 3]);
    assert!(refused(&with(config("llama"), "sliding_window", json!(5))).contains("llama has no window"));
    let listed = json!(["full_attention", "sliding_attention"]);
    let mixed = with(with(config("mistral"), "sliding_window", json!(5)), "layer_types", listed.clone());
    assert!(refused(&mixed).contains("must be sliding_attention for every layer"));
    assert!(refused(&with(config("qwen2"), "layer_types", listed)).contains("give no window"));
    let qwen = with(config("qwen2"), "sliding_window", json!(5));
    assert_eq!(windows(&qwen), [None; 3]);
    let used = with(qwen, "use_sliding_window", json!(true));
    assert_eq!(windows(&used), [None; 3]); // max_window_layers defaults to 28.
    assert_eq!(windows(&with(used.clone(), "max_window_layers", json!(1))), [None, Some(5), Some(5)]);
    let listed = with(used.clone(), "layer_types", json!(["sliding_attention", "full_attention"]));
    assert_eq!(windows(&listed), [Some(5), None, None]);
    assert!(refused(&with(used.clone(), "layer_types", json!(["full_attention"]))).contains("has 1 entries for the 2"));
    assert!(refused(&with(used, "layer_types", json!(["x", "y"]))).contains("sliding_attention only"));
}

/// Fingerprints of the families that have shipped stay as they are: their sizes and windows say all of their layers.
#[test]
fn fingerprints_add_nothing_for_known_families() {
    let windowed = |family: &str| with(config(family), "sliding_window", json!(5));
    let used = with(windowed("qwen2"), "use_sliding_window", json!(true));
    let biased = with(with(config("llama"), "attention_bias", json!(true)), "mlp_bias", json!(true));
    for config in [
        config("llama"),
        biased,
        config("mistral"),
        windowed("mistral"),
        config("qwen2"),
        used.clone(),
        with(used.clone(), "max_window_layers", json!(0)),
        with(used.clone(), "max_window_layers", json!(1)),
        with(used.clone(), "layer_types", json!(["sliding_attention", "full_attention"])),
        with(used, "layer_types", json!(["full_attention", "sliding_attention"])),
        with(config("qwen3"), "head_dim", json!(6)),
    ] {
        assert!(fingerprint::is_told_by_sizes(&parse(&config).unwrap()), "{config}");
    }
    let mut other = parse(&config("llama")).unwrap();
    other.specs = LayerSpecs::alike(LayerSpec { score_factor: 0.3, ..other.layer(0).clone() });
    assert!(!fingerprint::is_told_by_sizes(&other));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (key, value, said) in [
        (
            "model_type",
            json!("gemma"),
            "is \"gemma\", which is not supported; llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi3, smollm3, granite are",
        ),
        ("model_type", json!("gemma3"), "the text model alone is read"),
        ("model_type", json!("qwen3_moe"), "a mixture of experts, which none of those is"),
        ("model_type", Value::Null, "is missing"),
        ("architectures", json!(["LlamaForSequenceClassification"]), "names \"LlamaForSequenceClassification\""),
        ("pad_token_id", json!(10), "is 10, but the tokens of vocab_size end at 9"),
        ("hidden_act", json!("gelu\n"), "is \"gelu\\n\", which is not supported"),
        ("is_causal", json!(false), "only true is accepted"),
        ("quantization_config", json!({}), "take the unquantized checkpoint"),
        ("partial_rotary_factor", json!(0.5), "a part of each head"),
        ("num_hidden_layers", json!("2"), "must be a whole number, not \"2\""),
        ("hidden_size", Value::Null, "is null"),
        ("vocab_size", json!(-1), "must be a whole number, not -1"),
        ("intermediate_size", json!(0), "must be a whole number above zero"),
        ("num_key_value_heads", json!(3), "does not divide the 4"),
        ("head_dim", json!(5), "it must be even"),
        ("rms_norm_eps", json!(-1e-5), "must be a number above zero"),
        ("rope_theta", json!(1e300), "must be a number above zero"),
        ("tie_word_embeddings", json!("yes"), "must be true or false"),
        ("eos_token_id", json!([1, "2"]), "must be a token id or a list of token ids"),
        ("bos_token_id", json!([1, 2]), "one token id or null"),
        ("max_position_embeddings", json!(u64::MAX), "larger than this machine can address"),
        ("max_position_embeddings", json!(1u64 << 56), "larger than this machine can address"),
        ("hidden_size", json!(3u64 << 56), "larger than this machine can address"),
        ("num_hidden_layers", json!(u64::MAX), "larger than this machine can address"),
    ] {
        let message = refused(&with(config("llama"), key, value));
        assert!(message.contains(said), "{message}");
    }
    let mut odd = with(config("llama"), "hidden_size", json!(18));
    parse(&odd).unwrap();
    odd["head_dim"] = Value::Null;
    assert!(refused(&odd).contains("do not divide"));
}

#[test]
fn defaults_and_stop_tokens_are_those_of_transformers() {
    let mut short = config("llama");
    for key in ["num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "hidden_act", "eos_token_id"] {
        short.as_object_mut().unwrap().remove(key);
    }
    let parsed = parse(&short).unwrap();
    assert_eq!((parsed.kv_heads, parsed.head_dim, parsed.norm_eps, parsed.rope.theta), (4, 4, 1e-6, 1e4));
    assert!(parsed.stop_tokens == [2] && !parsed.tied_embeddings && parsed.bos_token == Some(1));
    let none = with(config("llama"), "eos_token_id", Value::Null);
    assert!(parse(&none).unwrap().stop_tokens.is_empty());
    let mut mistral = config("mistral");
    mistral["num_attention_heads"] = json!(8);
    mistral.as_object_mut().unwrap().remove("num_key_value_heads");
    assert_eq!(parse(&mistral).unwrap().kv_heads, 8);
    let mut qwen3 = config("qwen3");
    qwen3.as_object_mut().unwrap().remove("head_dim");
    assert_eq!(parse(&qwen3).unwrap().head_dim, 128);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), with(config("llama"), "eos_token_id", json!([7, 2])).to_string())
        .unwrap();
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [2, 9], "temperature": 0.6}"#).unwrap();
    assert_eq!(ModelConfig::read(dir.path()).unwrap().stop_tokens, [2, 9]);
    fs::write(dir.path().join("generation_config.json"), "{}").unwrap();
    assert_eq!(ModelConfig::read(dir.path()).unwrap().stop_tokens, [7, 2]);
}

#[test]
fn reference_models_open() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    for folder in ["goldens", "models"] {
        let Ok(models) = fs::read_dir(shared.join(folder)) else {
            println!("skipped: there is no {}", shared.join(folder).display());
            continue;
        };
        for dir in models.map(|entry| entry.unwrap().path()).filter(|path| path.join("config.json").exists()) {
            let checkpoint = Checkpoint::open(&dir).unwrap();
            assert_eq!(checkpoint.stored_format(), FloatFormat::F32.into());
            assert_eq!(checkpoint.weight_bytes(), 4 * checkpoint.parameters());
            let file = &checkpoint.files()[0];
            assert!(file.bytes > checkpoint.weight_bytes() && file.bytes < checkpoint.weight_bytes() + 10_000);
            assert!(checkpoint.tensor(OUTPUT).unwrap().to_f32().iter().all(|value| value.is_finite()));
            let windowed = dir.ends_with("mistral-window").then_some(24);
            assert_eq!(checkpoint.config().window(0), windowed);
            println!("{}: {} parameters", dir.display(), checkpoint.parameters());
        }
    }
}

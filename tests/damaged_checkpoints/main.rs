//! Damaged model directories: whatever is wrong with the files, opening them ends in `Ok` or in one sentence,
//! never in a panic, and takes memory in proportion to the files, not to what they claim.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod damage;
mod hostile;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use paceline::checkpoint::{Checkpoint, CheckpointError};
use paceline::text::{ChatTemplate, Message, TextError, Tokenizer};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use damage::{cut, damage, edit, edited};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The tests share the allocator's counters.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory that opening may take beyond `TIMES` the size of the files: buffers, a regular expression, error texts.
const CONSTANT: usize = 1 << 20;
const TIMES: usize = 8;

/// What `run` returns, after checking that it stayed within the memory that the files of `dir` justify.
fn measured<T>(dir: &Path, times: usize, run: impl FnOnce() -> T) -> T {
    let sizes =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.metadata().map_or(0, |data| data.len()));
    let allowed = CONSTANT + times * usize::try_from(sizes.sum::<u64>()).unwrap();
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = run();
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(taken <= allowed, "{taken} bytes were taken, {allowed} are allowed");
    result
}

fn sentence(message: &str) {
    let good = message.len() > 20 && message.ends_with(['.', '!', '?']) && !message.contains(char::is_control);
    assert!(good, "not a sentence: {message:?}");
}

/// Opens a directory and checks all that has to hold whatever is in it.
fn open(dir: &Path) -> Result<Checkpoint, CheckpointError> {
    let result = measured(dir, TIMES, || Checkpoint::open(dir));
    match &result {
        Err(error) => sentence(&error.to_string()),
        Ok(checkpoint) => {
            let config = checkpoint.config();
            for name in ["model.embed_tokens.weight", "lm_head.weight"] {
                let matrix = checkpoint.tensor(name).unwrap();
                assert_eq!(matrix.shape, [config.vocab_size, config.hidden_size]);
                assert_eq!(matrix.to_f32().len(), config.vocab_size * config.hidden_size);
            }
            for layer in 0..config.layers {
                let name = format!("model.layers.{layer}.self_attn.k_proj.weight");
                assert_eq!(
                    checkpoint.tensor(&name).unwrap().shape,
                    [config.kv_heads * config.head_dim, config.hidden_size]
                );
                let _ = config.window(layer);
            }
            for (_, spec) in config.specs.runs(config.layers) {
                let frequencies = config.rope_of(spec).frequencies(spec.rotated);
                assert_eq!(frequencies.inverse.len(), spec.rotated / 2);
            }
            assert!(checkpoint.parameters() > 0 && checkpoint.weight_bytes() > 0);
        }
    }
    result
}

fn config() -> Value {
    json!({
        "model_type": "qwen2", "vocab_size": 12, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}, "sliding_window": 8,
        "use_sliding_window": true, "layer_types": ["full_attention", "sliding_attention"], "hidden_act": "silu",
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": [2, 3], "torch_dtype": "bfloat16"
    })
}

/// Names and shapes of what the configuration implies.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let layer = [
        ("input_layernorm.weight", vec![16]),
        ("post_attention_layernorm.weight", vec![16]),
        ("self_attn.q_proj.weight", vec![16, 16]),
        ("self_attn.k_proj.weight", vec![8, 16]),
        ("self_attn.v_proj.weight", vec![8, 16]),
        ("self_attn.o_proj.weight", vec![16, 16]),
        ("self_attn.q_proj.bias", vec![16]),
        ("self_attn.k_proj.bias", vec![8]),
        ("self_attn.v_proj.bias", vec![8]),
        ("mlp.gate_proj.weight", vec![24, 16]),
        ("mlp.up_proj.weight", vec![24, 16]),
        ("mlp.down_proj.weight", vec![16, 24]),
    ];
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![12, 16]),
        ("lm_head.weight".to_owned(), vec![12, 16]),
        ("model.norm.weight".to_owned(), vec![16]),
    ];
    for index in 0..2 {
        tensors.extend(layer.iter().map(|(name, shape)| (format!("model.layers.{index}.{name}"), shape.clone())));
    }
    tensors
}

fn safetensors_of(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let data = vec![0x3c; 4096];
    let views = tensors.iter().map(|(name, shape)| {
        let length = 2 * shape.iter().product::<usize>();
        (name, TensorView::new(Dtype::BF16, shape.clone(), &data[..length]).unwrap())
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(metadata)).unwrap()
}

fn weights() -> Vec<u8> {
    safetensors_of(&tensors())
}

fn index() -> Value {
    let places = tensors()
        .into_iter()
        .enumerate()
        .map(|(number, (name, _))| (name, json!(format!("{}.safetensors", number % 2))));
    json!({"metadata": {"total_size": 1}, "weight_map": Value::Object(places.collect())})
}

fn tokenizer() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": {"type": "NFC"},
        "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3, "c": 4, "abc": 5}, "merges": [["a", "b"], ["ab", "c"]]}
    })
}

fn tokenizer_config() -> Value {
    json!({
        "bos_token": "<s>", "eos_token": {"content": "<s>"}, "add_bos_token": true, "tokenizer_class": "LlamaTokenizer",
        "chat_template": "{% for m in messages %}{{ bos_token + m.role }}: {{ m['content'].strip() }}\n{% endfor %}"
    })
}

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// Opens the configuration with these weights.
fn with_weights(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let dir = directory(&[("config.json", config().to_string().as_bytes()), ("model.safetensors", bytes)]);
    open(dir.path())
}

/// Opens a tokenizer's files and uses what opens.
fn read_text(dir: &Path) -> Result<(), TextError> {
    // The tokenizers crate reads JSON by way of a tree of values and builds several maps of the vocabulary.
    let tokenizer = measured(dir, 200, || Tokenizer::from_dir(dir));
    let template = measured(dir, 20, || ChatTemplate::from_dir(dir));
    let mut results = Vec::new();
    if let Ok(tokenizer) = &tokenizer {
        let ids = tokenizer.encode("abcab <s> c\u{301}");
        results.extend(ids.as_ref().map(|ids| tokenizer.decode(ids, true)));
        results.push(tokenizer.decode(&[0, 5, 3, 77, u32::MAX], false));
        assert!(tokenizer.same_vocabulary(tokenizer));
        results.extend(ids.map(|_| Ok(String::new())));
    }
    if let Ok(Some(template)) = &template {
        results.push(template.render(&[Message::new("user", " Hi\n")], true));
    }
    let mut end = Ok(());
    for result in results.into_iter().map(|result| result.map(drop)).chain([tokenizer.map(drop), template.map(drop)]) {
        if let Err(error) = result {
            sentence(&error.to_string());
            end = Err(error);
        }
    }
    end
}

/// The header of a weights file as JSON, and its data.
fn header(file: &[u8]) -> (Value, &[u8]) {
    let length = usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
    (serde_json::from_slice(&file[8..8 + length]).unwrap(), &file[8 + length..])
}

fn file_of(header: &str, length: u64, data: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), header.as_bytes(), data].concat()
}

/// A file whose header is changed by `change`.
fn reworded(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let file = weights();
    let (mut json, data) = header(&file);
    change(&mut json);
    let text = json.to_string();
    file_of(&text, text.len() as u64, data)
}

fn settings() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn weights_with_damaged_bytes(cuts in prop::collection::vec(cut(), 1..4), header_only in any::<bool>()) {
        let _alone = alone();
        let bytes = damage(weights(), &cuts, if header_only { 3000 } else { usize::MAX });
        if with_weights(&bytes).is_ok() {
            // What is accepted is sound for the format's reference implementation too.
            prop_assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
        }
    }

    #[test]
    fn weights_with_a_damaged_header(edits in prop::collection::vec(edit(), 1..4), length in prop::option::weighted(0.1, any::<u64>())) {
        let _alone = alone();
        let file = weights();
        let (json, data) = header(&file);
        let text = edited(json, &edits).to_string();
        let bytes = file_of(&text, length.unwrap_or(text.len() as u64), data);
        if with_weights(&bytes).is_ok() {
            prop_assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
        }
    }

    #[test]
    fn damaged_configuration(edits in prop::collection::vec(edit(), 0..4), cuts in prop::collection::vec(cut(), 0..2)) {
        let _alone = alone();
        let text = damage(edited(config(), &edits).to_string().into_bytes(), &cuts, usize::MAX);
        for name in ["config.json", "generation_config.json"] {
            let dir = directory(&[("config.json", config().to_string().as_bytes()), ("model.safetensors", &weights()), (name, &text)]);
            let _ = open(dir.path());
        }
    }

    #[test]
    fn damaged_index(edits in prop::collection::vec(edit(), 0..4), cuts in prop::collection::vec(cut(), 0..2)) {
        let _alone = alone();
        let text = damage(edited(index(), &edits).to_string().into_bytes(), &cuts, usize::MAX);
        let shard = |number| safetensors_of(&tensors().into_iter().skip(number).step_by(2).collect::<Vec<_>>());
        let dir = directory(&[
            ("config.json", config().to_string().as_bytes()),
            ("model.safetensors.index.json", &text),
            ("0.safetensors", &shard(0)),
            ("1.safetensors", &shard(1)),
        ]);
        let result = open(dir.path());
        if edits.is_empty() && cuts.is_empty() {
            prop_assert!(result.is_ok());
        }
    }

    #[test]
    fn damaged_tokenizer(
        edits in prop::collection::vec(edit(), 0..4),
        cuts in prop::collection::vec(cut(), 0..2),
        config_edits in prop::collection::vec(edit(), 0..3),
    ) {
        let _alone = alone();
        let text = damage(edited(tokenizer(), &edits).to_string().into_bytes(), &cuts, usize::MAX);
        let config = edited(tokenizer_config(), &config_edits).to_string();
        let dir = directory(&[("tokenizer.json", &text), ("tokenizer_config.json", config.as_bytes())]);
        let result = read_text(dir.path());
        if edits.is_empty() && cuts.is_empty() && config_edits.is_empty() {
            prop_assert!(result.is_ok());
        }
    }
}

#[test]
fn the_sound_checkpoint_opens() {
    let _alone = alone();
    let checkpoint = with_weights(&weights()).unwrap();
    assert_eq!(
        checkpoint.parameters(),
        tensors().iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum::<u64>()
    );
}

#[test]
fn missing_things_are_named() {
    let _alone = alone();
    let message = |dir: &Path| open(dir).unwrap_err().to_string();
    let config = config().to_string();
    let empty = directory(&[]);
    assert!(message(&empty.path().join("none")).contains("does not exist"));
    assert!(message(empty.path()).contains("has no config.json"));
    let dir = directory(&[("config.json", config.as_bytes())]);
    assert!(message(dir.path()).contains("holds no model.safetensors"));
    assert!(message(&dir.path().join("config.json")).contains("is not a directory"));
    assert!(message(&dir.path().join("config.json/x")).contains("is not a directory"));
    for (other, said) in [
        ("pytorch_model.bin", "convert pytorch_model.bin to safetensors"),
        ("model-q4.gguf", "model-q4.gguf is damaged: it ends at byte 0"),
    ] {
        let dir = directory(&[("config.json", config.as_bytes()), (other, b"")]);
        let message = message(dir.path());
        assert!(message.contains(said), "{message}");
    }
    let error = read_text(dir.path()).unwrap_err().to_string();
    assert!(error.contains("has no tokenizer.json"), "{error}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let _alone = alone();
    for name in ["config.json", "model.safetensors", "model.safetensors.index.json", "generation_config.json"] {
        let dir = directory(&[("config.json", config().to_string().as_bytes())]);
        let path = dir.path().join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        let message = open(dir.path()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("is not a plain file"), "{message}");
    }
    let dir = directory(&[("tokenizer.json", b"")]);
    fs::create_dir(dir.path().join("chat_template.jinja")).unwrap();
    assert!(ChatTemplate::from_dir(dir.path()).unwrap_err().to_string().contains("is not a plain file"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let dir = directory(&[("config.json", b"{}")]);
        let path = dir.path().join("config.json");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read(&path).is_ok() {
            println!("skipped: this user may read every file");
        } else {
            assert!(open(dir.path()).unwrap_err().to_string().contains("cannot be read"));
        }
    }
}

#[test]
fn damage_in_the_weights_is_described() {
    let _alone = alone();
    let file = weights();
    let q = "model.layers.0.self_attn.q_proj.weight";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "it has 0 bytes, which is less than a header"),
        (file[..5].to_vec(), "it has 5 bytes"),
        (file[..100].to_vec(), "bytes, but 92 follow"),
        (file[..file.len() - 1].to_vec(), ", but there are "),
        ([&file[..], b"x"].concat(), "1 bytes at its end belong to no tensor"),
        (file_of("{}", u64::MAX, b""), "its header claims 18446744073709551615 bytes, which is impossible"),
        (file_of("{}", 99_000_000, b""), "its header claims 99000000 bytes, but 2 follow"),
        (file_of("{\"a\"", 4, b""), "its header cannot be understood: EOF"),
        (file_of("[]", 2, b""), "an object of tensors"),
        (file_of("\u{fffd}", 1, b""), "its header is not UTF-8 at byte 8"),
        (reworded(|json| json[q]["shape"] = json!([16, 17])), "q_proj.weight\" do not fit its shape and format"),
        (reworded(|json| json[q]["shape"] = json!([1u64 << 63, 4])), "do not fit its shape"),
        (
            reworded(|json| json[q]["shape"] = json!([8, 32])),
            "has the shape [8, 32], but the configuration implies [16, 16]",
        ),
        (reworded(|json| json[q]["shape"] = json!(vec![1; 9])), "a list of at most 8 sizes"),
        (reworded(|json| json[q]["shape"] = json!([-1, 16])), "invalid value: integer `-1`"),
        (reworded(|json| json[q]["dtype"] = json!("F16")), "opened"),
        (reworded(|json| json[q]["dtype"] = json!("I16")), "q_proj.weight\" of "),
        (reworded(|json| json[q]["dtype"] = json!("X")), "q_proj.weight\" has the unknown dtype \"X\""),
        (reworded(|json| json[q]["data_offsets"] = json!([0, 512])), "overlaps the one before it"),
        (reworded(|json| json[q]["data_offsets"] = json!([9, 8])), "lies at 9 to 8"),
        (reworded(|json| json[q]["data_offsets"] = json!([0, u64::MAX])), "lies at 0 to 18446744073709551615"),
        (reworded(|json| json[q]["data_offsets"] = json!([0])), "no pair of data_offsets"),
        (reworded(|json| json[q]["data_offsets"] = json!([0, 1, 2])), "no pair of data_offsets"),
        (reworded(|json| _ = json[q].as_object_mut().unwrap().remove("dtype")), "has no dtype"),
        (reworded(|json| json[q]["more"] = json!(1)), "has the unknown field \"more\""),
        (reworded(|json| json["__metadata__"] = json!({"a": 1})), "expected a string"),
        (reworded(|json| _ = json.as_object_mut().unwrap().remove(q)), "there is a gap before"),
        (
            file_of(
                r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#,
                106,
                b"",
            ),
            "\"a\" is there twice",
        ),
    ];
    for (bytes, said) in cases {
        let message = with_weights(&bytes).map_or_else(|error| error.to_string(), |_| "opened".to_owned());
        assert!(message.contains(said), "{said}: {message}");
    }
    let mut less = tensors();
    less.pop();
    let message = with_weights(&safetensors_of(&less)).unwrap_err().to_string();
    assert!(message.contains("\"model.layers.1.mlp.down_proj.weight\" that"), "{message}");
    let mut more = tensors();
    more.push(("extra\nname".to_owned(), vec![1]));
    let message = with_weights(&safetensors_of(&more)).unwrap_err().to_string();
    assert!(message.contains("\"extra\\nname\", which no part"), "{message}");
}

#[test]
fn damage_in_the_configuration_is_described() {
    let _alone = alone();
    let message = |text: &[u8]| {
        let dir = directory(&[("config.json", text), ("model.safetensors", &weights())]);
        open(dir.path()).unwrap_err().to_string()
    };
    let with = |key: &str, value: Value| {
        let mut config = config();
        config[key] = value;
        message(config.to_string().as_bytes())
    };
    assert!(message(b"{\n\"model_type\": ").contains("line 2, column 14: EOF"));
    assert!(message(b"\xef\xbb\xbf{}").contains("byte order mark"));
    assert!(message(b"[]").contains("config.json cannot be understood at line 1"));
    assert!(
        with("model_type", json!("mamba"))
            .contains("\"mamba\", which is not supported; llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi3, smollm3, granite are")
    );
    assert!(with("rope_scaling", json!({"type": "axial"})).contains("\"axial\", which is not supported"));
    assert!(with("num_hidden_layers", json!(1_000_000_000_000u64)).contains("has 2 entries for the 1000000000000"));
    let mut many = config();
    many["num_hidden_layers"] = json!(1_000_000_000_000u64);
    many["layer_types"] = Value::Null;
    assert!(message(many.to_string().as_bytes()).contains("\"model.layers.2.input_layernorm.weight\" that"));
    assert!(with("vocab_size", json!(1u64 << 60)).contains("larger than this machine can address"));
    assert!(with("hidden_size", json!(32)).contains("has the shape [12, 16], but the configuration implies [12, 32]"));
}

#[test]
fn headers_made_of_numbers_or_names_do_not_cost_memory() {
    let _alone = alone();
    let list = "0,".repeat(500_000) + "0";
    let names: String = (0..100_000).map(|n| format!("\"{n}\":\"\",")).collect();
    let entries: String =
        (0..30_000).map(|n| format!("\"{n}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}},")).collect();
    for text in [
        format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{list}],\"data_offsets\":[0,0]}}}}"),
        format!("{{\"a\":[{list}]}}"),
        format!("{{\"__metadata__\":{{{names}\"a\":\"\"}}}}"),
        format!("{{{entries}\"a\":{{}}}}"),
        "[".repeat(1_000_000),
        format!("{{\"__metadata__\":{}", "{\"a\":".repeat(200_000)),
    ] {
        with_weights(&file_of(&text, text.len() as u64, b"")).unwrap_err();
    }
    let settings = format!("{{\"bos_token\":[{list}],\"x\":[{list}]}}");
    let dir = directory(&[
        ("tokenizer.json", tokenizer().to_string().as_bytes()),
        ("tokenizer_config.json", settings.as_bytes()),
    ]);
    let message = measured(dir.path(), TIMES, || ChatTemplate::from_dir(dir.path())).unwrap_err().to_string();
    assert!(message.contains("a token as a string"), "{message}");
}

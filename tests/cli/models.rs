//! Model directories: what `inspect` tells of good ones, and the sentence for damaged ones. The reading of
//! checkpoints has tests of its own; here each kind of damage goes once through the program.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Run, answer, fixture, generate, generate_from};

/// A copy of a fixture, to be damaged.
struct Model(TempDir);

impl Model {
    fn copy(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixture(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn directory(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        edit(&mut value);
        self.write(name, value.to_string());
    }

    fn config(&self, key: &str, value: Value) {
        self.edit_json("config.json", |config| config[key] = value);
    }

    /// Edits the header and the data of the weights.
    fn edit_weights(&self, edit: impl FnOnce(&mut Value, &mut Vec<u8>)) {
        let bytes = fs::read(self.path(WEIGHTS)).unwrap();
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
        let (mut header, mut data) = (serde_json::from_slice(header).unwrap(), data.to_vec());
        edit(&mut header, &mut data);
        let header = header.to_string();
        self.write(WEIGHTS, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat());
    }

    /// Makes all of a tensor of 32-bit floats one number.
    fn poison(&self, tensor: &str, number: f32) {
        self.edit_weights(|header, data| {
            let offsets = &header[tensor]["data_offsets"];
            let [start, end] = [0, 1].map(|i| usize::try_from(offsets[i].as_u64().unwrap()).unwrap());
            for value in data[start..end].chunks_exact_mut(4) {
                value.copy_from_slice(&number.to_le_bytes());
            }
        });
    }
}

const WEIGHTS: &str = "model.safetensors";
const NORM: &str = "model.norm.weight";

/// What is done to a model, and the words that the sentence about it has to hold.
type Damage = (fn(&Model), &'static [&'static str]);

#[test]
fn damaged_model_directories_are_told_in_a_sentence() {
    let damages: &[Damage] = &[
        (|m| m.remove("config.json"), &["config.json"]),
        (|m| m.remove(WEIGHTS), &[WEIGHTS]),
        (|m| m.write("config.json", "{\"a\":"), &["config.json", "line 1"]),
        (|m| m.write("config.json", "[1]"), &["config.json"]),
        (|m| m.write("config.json", b"\xff"), &["config.json", "UTF-8"]),
        (|m| m.write("generation_config.json", "{"), &["generation_config.json"]),
        (|m| m.config("model_type", json!("gpt2")), &["model_type", "gpt2", "llama"]),
        (|m| m.config("model_type", Value::Null), &["model_type"]),
        (|m| m.config("rope_parameters", json!({"rope_type": "axial", "rope_theta": 1e4})), &["rope_type", "axial"]),
        (|m| m.config("rope_scaling", json!({"type": "magic", "factor": 2.0})), &["magic"]),
        (|m| m.config("num_attention_heads", json!(0)), &["num_attention_heads"]),
        (|m| m.config("num_hidden_layers", json!(1_000_000_000_000_000_000u64)), &["larger"]),
        (|m| m.config("num_hidden_layers", json!(4)), &["model.layers.3"]),
        (|m| m.config("num_hidden_layers", json!(2)), &["model.layers.2", "configuration"]),
        (|m| m.config("vocab_size", json!(100)), &["embed_tokens", "[352, 32]", "[100, 32]"]),
        (|m| m.write(WEIGHTS, ""), &[WEIGHTS, "0 bytes"]),
        (|m| m.write(WEIGHTS, [0xff; 16]), &[WEIGHTS, "header"]),
        (|m| m.write(WEIGHTS, [&64u64.to_le_bytes()[..], &[b'{'; 64]].concat()), &[WEIGHTS, "header"]),
        (|m| m.edit_weights(|_, data| data.truncate(data.len() - 100)), &[WEIGHTS, NORM, "download"]),
        (|m| m.edit_weights(|header, _| header[NORM]["data_offsets"][1] = json!(1u64 << 40)), &[WEIGHTS, NORM]),
        (|m| m.edit_weights(|header, _| header[NORM]["data_offsets"] = json!([0, 128])), &[WEIGHTS, "overlaps"]),
        (|m| m.edit_weights(|header, _| header[NORM]["dtype"] = json!("I32")), &[NORM, "I32", "BF16"]),
        (|m| m.edit_weights(|header, _| header[NORM]["dtype"] = json!("F16")), &[NORM, "128 bytes"]),
        (|m| m.edit_weights(|header, _| header[NORM]["shape"] = json!([4, 8])), &[NORM, "[4, 8]", "[32]"]),
        (
            |m| {
                m.edit_weights(|header, data| {
                    header.as_object_mut().unwrap().remove(NORM);
                    data.truncate(data.len() - 128);
                });
            },
            &[NORM, "no weights file"],
        ),
        (
            |m| {
                m.edit_weights(|header, data| {
                    header["extra"] =
                        json!({"dtype": "F32", "shape": [1], "data_offsets": [data.len(), data.len() + 4]});
                    data.extend([0; 4]);
                });
            },
            &["extra", "configuration"],
        ),
        (
            |m| {
                m.remove(WEIGHTS);
                fs::create_dir(m.path(WEIGHTS)).unwrap();
            },
            &[WEIGHTS, "plain file"],
        ),
    ];
    for (damage, words) in damages {
        let model = Model::copy("llama-tied");
        damage(&model);
        let words = [*words, &[model.directory()]].concat();
        generate_from(model.directory(), &["--prompt", "A"]).fails(1, &words);
        Run::new(&["inspect", model.directory()]).fails(1, &words);
    }
}

#[test]
fn what_only_answers_need_stops_only_answers() {
    let damages: &[Damage] = &[
        (|m| m.remove("tokenizer.json"), &["tokenizer.json"]),
        (|m| m.write("tokenizer.json", "{}"), &["tokenizer.json", "cannot be used"]),
        (|m| m.write("tokenizer.json", b"\xff"), &["tokenizer.json", "UTF-8"]),
        (
            |m| m.edit_json("tokenizer_config.json", |config| config["chat_template"] = json!("{% for")),
            &["chat template", "tokenizer_config.json"],
        ),
    ];
    for (damage, words) in damages {
        let model = Model::copy("llama-tied");
        damage(&model);
        generate_from(model.directory(), &["--prompt", "A", "--chat"]).fails(1, words);
        let told = Run::new(&["inspect", model.directory()]).succeeds();
        assert!(words.iter().chain(&["unusable"]).all(|word| told.contains(word)), "{told}");
        let told: Value =
            serde_json::from_str(&Run::new(&["inspect", model.directory(), "--json"]).succeeds()).unwrap();
        // A tokenizer is of use without its chat template.
        let problem = match told["tokenizer"].get("chat_template_problem") {
            Some(problem) => problem,
            None => &told["tokenizer_problem"],
        };
        assert!(problem.as_str().unwrap().contains(words[0]), "{told}");
    }
}

#[test]
fn paths_that_hold_no_model_are_refused() {
    let file = fixture("llama-tied/config.json");
    for (path, words) in [
        ("/nowhere", &["/nowhere", "does not exist"][..]),
        ("/no\nwhere", &["/no\\nwhere", "does not exist"]),
        (&file, &["not a directory"]),
        (env!("CARGO_MANIFEST_DIR"), &["config.json"]),
    ] {
        generate_from(path, &["--prompt", "A"]).fails(1, words);
        Run::new(&["inspect", path]).fails(1, words);
    }
}

/// Public reports: an adapter or a pointer in place of a model, named as target, as draft or to look at.
#[test]
fn what_is_often_taken_for_a_model_gets_the_sentence_that_helps() {
    let target = Model::copy("llama-tied");
    let adapter = Model::copy("llama-tied");
    adapter.remove("config.json");
    adapter.remove(WEIGHTS);
    adapter.write("adapter_config.json", "{\"peft_type\": \"LORA\"}");
    let pointer = Model::copy("llama-tied");
    pointer.write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 792664\n");
    for (model, words) in [(&adapter, &["adapter", "merge it"]), (&pointer, &[WEIGHTS, "git lfs pull"])] {
        generate_from(model.directory(), &["--prompt", "A"]).fails(1, words);
        generate_from(target.directory(), &["--prompt", "A", "--draft", model.directory()]).fails(1, words);
        Run::new(&["inspect", model.directory()]).fails(1, words);
    }
}

#[test]
fn a_missing_shard_is_named() {
    let model = Model::copy("mistral-window");
    model.remove("model-00002-of-00003.safetensors");
    generate_from(model.directory(), &["--prompt", "A"]).fails(1, &["model-00002-of-00003.safetensors"]);
}

#[test]
fn weights_that_are_no_numbers_end_the_answer_whatever_drafts() {
    // Refused at loading if they are stored so; these are finite, and what they are multiplied with is not.
    let model = Model::copy("llama-tied");
    model.poison(NORM, f32::MAX);
    for more in [&["--drafter", "none"][..], &["--drafter", "exit:1"], &["--temperature", "1"], &[]] {
        let run = generate_from(model.directory(), &[&["--prompt", "A paceline is"], more].concat());
        run.fails(1, &["logit", "weights"]);
    }
    for number in [f32::NAN, f32::INFINITY] {
        let model = Model::copy("llama-tied");
        model.poison(NORM, number);
        generate_from(model.directory(), &["--prompt", "A paceline is"]).fails(1, &[NORM, "repair"]);
    }
}

#[test]
fn a_draft_whose_weights_are_no_numbers_changes_no_token() {
    let draft = Model::copy("llama-draft");
    draft.poison(NORM, f32::MAX);
    let plain = ["--prompt", "A paceline is", "--max-new-tokens", "30"];
    let tokens = |more: &[&str]| answer(&[&plain, more].concat())["tokens"].take();
    let expected = tokens(&["--drafter", "none"]);
    for drafter in ["model", "auto"] {
        assert_eq!(
            tokens(&["--draft", draft.directory(), "--drafter", drafter, "--draft-len", "4"]),
            expected,
            "{drafter}"
        );
    }
}

#[test]
fn a_prompt_token_outside_the_vocabulary_is_refused() {
    let model = Model::copy("micro");
    model.edit_json("tokenizer.json", |tokenizer| {
        tokenizer["added_tokens"].as_array_mut().unwrap().push(json!({"id": 12, "content": "Z", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": false}));
    });
    generate_from(model.directory(), &["--prompt", "abZ"]).fails(1, &["12", "vocabulary"]);
}

#[test]
fn an_answer_that_memory_cannot_hold_is_refused() {
    let model = Model::copy("llama-tied");
    model.config("max_position_embeddings", json!(1_000_000_000_000_000u64));
    let run = generate_from(model.directory(), &["--prompt", "A", "--max-new-tokens", "1000000000000000000"]);
    run.fails(1, &["memory", "fewer new tokens"]);
    generate_from(model.directory(), &["--prompt", "A", "--max-new-tokens", "3"]).succeeds();
}

#[test]
fn inspect_tells_what_a_model_is() {
    let directory = fixture("llama-tied");
    let told = Run::new(&["inspect", &directory]).succeeds();
    for fact in [
        "llama with 42.6 thousand parameters, stored as f32",
        "layers        3, 32 wide, feed-forward 76",
        "4 heads of 8, 2 key-value heads",
        "352, output tied to the embedding",
        "256 tokens, cache f32 384 B, f16 192 B a token",
        "[351, 347]",
        "bf16 87.2 kB",
        "int4 83.8 kB",
        "352 tokens, with a chat template",
        "exit:1 to exit:2",
        "self:int8, self:int4",
        "--search-skip",
    ] {
        assert!(told.contains(fact), "{fact} is missing: {told}");
    }
    let windowed = Run::new(&["inspect", &fixture("mistral-window")]).succeeds();
    assert!(windowed.contains("window 12") && windowed.contains("no chat template"), "{windowed}");
    assert!(Run::new(&["inspect", &fixture("micro")]).succeeds().contains("exit:1 (untrained)"));
}

#[test]
fn inspect_in_json_is_one_object_with_the_same_facts() {
    let directory = fixture("llama-tied");
    let out = Run::new(&["inspect", &directory, "--json"]).succeeds();
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(out.lines().count(), 1);
    let weights = Path::new(&directory).join(WEIGHTS);
    for (place, value) in [
        ("/directory", json!(directory)),
        ("/config/family", json!("llama")),
        ("/config/layers", json!(3)),
        ("/config/context", json!(256)),
        ("/parameters", json!(42592)),
        ("/stored_precision", json!("f32")),
        ("/files", json!([{"path": weights, "bytes": fs::metadata(&weights).unwrap().len()}])),
        ("/weight_bytes", json!({"f32": 173440, "bf16": 87168, "f16": 87168, "int8": 93952, "int4": 83840})),
        ("/cache_bytes_per_token", json!({"f32": 384, "f16": 192})),
        ("/tokenizer", json!({"vocabulary": 352, "chat_template": true, "chat_template_problem": null})),
        ("/tokenizer_problem", Value::Null),
        ("/exits", json!([1, 2])),
    ] {
        assert_eq!(told.pointer(place), Some(&value), "{place}");
    }
    // Every drafter that is listed can be named, and every exit.
    let draft = fixture("llama-draft");
    let named = told["drafters"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
    let exits = told["exits"].as_array().unwrap().iter().map(|depth| format!("exit:{depth}"));
    for drafter in named.chain(exits) {
        generate(&["--prompt", "A", "--max-new-tokens", "2", "--draft", &draft, "--drafter", &drafter]).succeeds();
    }
}

#[test]
fn a_search_tells_what_can_be_skipped_or_that_nothing_pays() {
    let model = Model::copy("llama-tied");
    for matrix in ["self_attn.o_proj", "mlp.down_proj"] {
        model.edit_weights(|header, data| {
            let at = &header[format!("model.layers.1.{matrix}.weight")]["data_offsets"];
            let at = |index: usize| usize::try_from(at[index].as_u64().unwrap()).unwrap();
            data[at(0)..at(1)].fill(0);
        });
    }
    let (_directory, text) = crate::file("The rider in front does the hard work. ".repeat(40));
    for (directory, source) in [(model.directory(), &[][..]), (&fixture("mistral-window"), &["--text", &text])] {
        let (_directory, out) = crate::file("");
        let common = ["inspect", "--model", directory, "--search-skip", "--threads", "1", "--skip-out", &out];
        let search = [&common[..], source].concat();
        let told: Value = serde_json::from_str(&Run::new(&[&search[..], &["--json"]].concat()).succeeds()).unwrap();
        let found = &told["skip_search"];
        assert!(found["positions"].as_u64().unwrap() > 100, "{found}");
        assert_eq!(found["text"].as_str(), source.get(1).copied());
        let steps = found["steps"].as_array().unwrap();
        for step in steps {
            let number = |key: &str| step[key].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&number("agreement")) && (0.0..1.0).contains(&number("cost")), "{step}");
            assert!((1.0..=8.0).contains(&number("draft_length")) && number("speedup") > 0.0, "{step}");
        }
        // Whether a plan pays depends on the machine; whether that is told does not.
        let best = steps.last().filter(|step| step["speedup"].as_f64().unwrap() > 1.0);
        let drafter = best.map(|step| format!("skip:{}", step["plan"].as_str().unwrap()));
        assert_eq!(found["drafter"].as_str(), drafter.as_deref());
        if let Some(drafter) = drafter {
            generate_from(directory, &["--prompt", "A", "--max-new-tokens", "5", "--drafter", &drafter]).succeeds();
        }
        // Pay or not, the best plan is in the file, which is as good as the plan.
        assert_eq!(fs::read_to_string(&out).unwrap(), format!("{}\n", steps.last().unwrap()["plan"].as_str().unwrap()));
        let drafter = format!("skip:file:{out}");
        generate_from(directory, &["--prompt", "A", "--max-new-tokens", "5", "--drafter", &drafter]).succeeds();
        let told = Run::new(&search).succeeds();
        assert!(told.contains("--drafter skip:") || told.contains("No plan pays"), "{told}");
        assert!(told.contains(source.get(1).copied().unwrap_or("a text that the model wrote")), "{told}");
    }
    let (_directory, short) = crate::file("A");
    let search = |path: &str| Run::new(&["inspect", model.directory(), "--search-skip", "--text", path]);
    search(&short).fails(1, &[&short, "fewer than two tokens"]);
    search("/nowhere").fails(1, &["/nowhere", "cannot be read"]);
    Run::new(&["inspect", model.directory(), "--text", &text]).fails(2, &["--search-skip"]);
    Run::new(&["inspect", model.directory(), "--skip-out", "x"]).fails(2, &["--search-skip"]);
    let nowhere = ["inspect", model.directory(), "--search-skip", "--skip-out", "/nowhere/plan"];
    Run::new(&nowhere).fails(1, &["/nowhere/plan", "cannot be written", "--skip-out"]);
    model.poison(NORM, f32::MAX);
    Run::new(&["inspect", model.directory(), "--search-skip"]).fails(1, &["logit", "NaN"]);
}

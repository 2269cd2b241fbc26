//! Models by name, in the folders of other programs, and the list of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Run, fixture};

/// A Hugging Face cache with one model of three files, and an Ollama folder with another.
fn folders() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let place = |path: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let copy = |from: &Path, to: &str| assert!(fs::copy(from, place(to)).unwrap() > 0);
    fs::write(place("hub/models--org--small/refs/main"), "abc").unwrap();
    for part in 1..=3 {
        let name = format!("model-{part:05}-of-00003.gguf");
        copy(&Path::new(&fixture("gguf-llama")).join(&name), &format!("hub/models--org--small/snapshots/abc/{name}"));
    }
    copy(&Path::new(&fixture("gguf-micro")).join("model.gguf"), "hub/models--org--broken/snapshots/def/model.gguf");
    let broken = root.path().join("hub/models--org--broken/snapshots/def/model.gguf");
    fs::write(&broken, &fs::read(&broken).unwrap()[..9000]).unwrap();
    copy(&Path::new(&fixture("gguf-micro")).join("model.gguf"), "ollama/blobs/sha256-aa");
    let manifest = r#"{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:aa"}]}"#;
    fs::write(place("ollama/manifests/registry.ollama.ai/library/tiny/latest"), manifest).unwrap();
    root
}

fn run(root: &TempDir, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paceline"));
    // Names that are none here are not asked for.
    command.env("HF_HUB_OFFLINE", "1");
    command.args(arguments).current_dir(root.path());
    command.env("HF_HUB_CACHE", root.path().join("hub")).env("OLLAMA_MODELS", root.path().join("ollama"));
    Run::of(command, b"")
}

#[test]
fn models_are_listed_with_their_drafts_and_problems() {
    let root = folders();
    let listed = run(&root, &["models"]).succeeds();
    for words in ["org/small", "tiny:latest", "org/broken", "llama", "can draft with", "cannot be used", "is damaged"] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    assert!(listed.contains("paceline generate --model org/small --draft tiny:latest"), "{listed}");
    let json: Value = serde_json::from_str(&run(&root, &["models", "--json"]).succeeds()).unwrap();
    let names: Vec<&str> = json.as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["org/broken", "org/small", "tiny:latest"]);
    assert_eq!(json[1]["drafts"], serde_json::json!(["tiny:latest"]));
    let below = run(&root, &["models", "hub"]).succeeds();
    assert!(below.contains("model-00001-of-00003.gguf") && !below.contains("00002-of"), "{below}");
    let nothing = tempfile::tempdir().unwrap();
    let said = run(&root, &["models", nothing.path().to_str().unwrap()]).succeeds();
    assert!(said.contains("No models in"), "{said}");
    run(&root, &["models", "nowhere"]).fails(1, &["nowhere is not a directory"]);
}

#[test]
fn models_answer_by_their_names() {
    let root = folders();
    let answer = |model: &str, more: &[&str]| {
        let arguments =
            ["generate", "--model", model, "--prompt", "A paceline is", "--max-new-tokens", "8", "--no-journal"];
        run(&root, &[&arguments, more].concat()).succeeds()
    };
    let plain = answer("org/small", &["--drafter", "none"]);
    assert!(!plain.is_empty());
    assert_eq!(answer("org/small:model-00001-of-00003.gguf", &[]), plain);
    assert_eq!(answer(&fixture("gguf-llama"), &[]), plain);
    // The draft is called as it was named, not by the hash of its file.
    assert_eq!(answer("org/small", &["--draft", "tiny", "--drafter", "model:tiny"]), plain);
    let inspected = run(&root, &["inspect", "tiny"]).succeeds();
    assert!(inspected.contains("metadata      general.architecture = llama"), "{inspected}");
    let absent = run(&root, &["generate", "--model", "org/none", "--prompt", "a"]);
    absent.fails(1, &["There is no model \"org/none\"", "hub", "ollama"]);
    run(&root, &["generate", "--model", "org/small:b.gguf", "--prompt", "a"]).fails(1, &["has no file \"b.gguf\""]);
}

#[test]
fn a_file_that_cannot_be_used_is_described_before_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    let bytes = fs::read(Path::new(&fixture("gguf-micro")).join("model.gguf")).unwrap();
    // Another architecture of as many letters, in the value and in the keys.
    let at = |from: &[u8], what: &[u8]| from.windows(what.len()).position(|found| found == what);
    let mut other = bytes;
    while let Some(place) = at(&other, b"llama") {
        other[place..place + 5].copy_from_slice(b"mamba");
    }
    fs::write(&model, other).unwrap();
    let run = Run::new(&["inspect", model.to_str().unwrap()]);
    assert_eq!(run.code, Some(1));
    assert!(run.out.contains("a GGUF file of version 3") && run.out.contains("types         Q8_0"), "{run:?}");
    run.says(&["is \"mamba\", which is not supported"]);
}

//! What happens where no model is named: the models that ship answer, from a place in the user's cache.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{Run, file, generate_from, quiet_command};

const PROMPT: &str = "Sort these words alphabetically: pear fig apple";

/// The command with this folder as the user's cache.
fn with_cache(cache: &Path, arguments: &[&str]) -> Run {
    let mut command = quiet_command(arguments);
    command.env("XDG_CACHE_HOME", cache);
    Run::of(command, b"")
}

/// The one answer on standard output.
#[track_caller]
fn tokens(run: Run) -> Value {
    let answer: Value = serde_json::from_str(&run.succeeds()).unwrap();
    answer["tokens"].clone()
}

#[test]
fn without_a_model_the_one_that_ships_answers_as_a_chat_model() {
    let cache = tempfile::tempdir().unwrap();
    let short = ["--prompt", PROMPT, "--max-new-tokens", "24", "--json"];
    let answered = tokens(with_cache(cache.path(), &[&["generate"][..], &short].concat()));

    let model = format!("{}/models/target", env!("CARGO_MANIFEST_DIR"));
    let plainly = tokens(generate_from(&model, &[&["--chat", "--drafter", "none"], &short[..]].concat()));
    assert_eq!(answered, plainly);

    let told = with_cache(cache.path(), &["inspect", "--json"]).succeeds();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(told["directory"].as_str().unwrap().starts_with(cache.path().to_str().unwrap()));
    assert_eq!(told["exits_problem"], Value::Null);
}

/// Certificates hold for the instruction set that they were made with; elsewhere the answer says so instead.
#[test]
fn its_certificates_come_with_it() {
    let cache = tempfile::tempdir().unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/target/certificates");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let certificates: Vec<_> = paths.filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect();
    assert!(!certificates.is_empty());
    for path in certificates {
        let certificate: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let floor = certificate["floor"].as_f64().unwrap();
        let made_for = certificate["conditions"]["instruction_set"].as_str().unwrap();
        let asked =
            ["generate", "--quality", "bounded", "--quality-floor", &floor.to_string(), "--prompt", PROMPT, "--json"];
        let run = with_cache(cache.path(), &asked);
        if run.code == Some(0) {
            let answer: Value = serde_json::from_str(&run.succeeds()).unwrap();
            let named = answer["report"]["adaptations"]["certificate"].as_str().unwrap();
            assert!(named.ends_with(&format!("floor-{floor}.json")) && answer["tokens"].as_array().unwrap().len() > 1);
        } else {
            run.fails(1, &["instruction set", made_for]);
        }
    }
}

#[test]
fn its_drafts_come_with_it() {
    let cache = tempfile::tempdir().unwrap();
    for drafter in ["model:small", "model:tiny"] {
        let arguments = ["generate", "--prompt", PROMPT, "--max-new-tokens", "8", "--json", "--drafter", drafter];
        tokens(with_cache(cache.path(), &arguments));
    }
    let others = ["generate", "--prompt", PROMPT, "--draft", "/nowhere"];
    with_cache(cache.path(), &others).fails(1, &["/nowhere", "does not exist"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (_directory, path) = file("no folder");
    let run = with_cache(Path::new(&path), &["generate", "--prompt", PROMPT]);
    run.fails(1, &["models that ship", &path, "XDG_CACHE_HOME", "--model"]);
}

#[test]
fn programs_that_start_at_once_do_not_disturb_each_other() {
    let cache = tempfile::tempdir().unwrap();
    let runs: Vec<_> = std::thread::scope(|scope| {
        let start = || with_cache(cache.path(), &["inspect", "--json"]);
        let started: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        started.into_iter().map(|run| run.join().unwrap().succeeds()).collect()
    });
    assert!(runs.iter().all(|run| *run == runs[0]));
    let places: Vec<_> =
        fs::read_dir(cache.path().join("paceline")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(places.len(), 1, "{places:?}");
    let left: Vec<_> = fs::read_dir(&places[0]).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "target" || name == "in-use.lock"), "{left:?}");
}

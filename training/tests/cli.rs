//! The command line: the steps from end to end, wrong usage, bad input and a disk without room.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod common;
#[cfg(unix)]
#[path = "../../tests/cli/examples.rs"]
mod examples;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Run;

/// A folder with a recipe and its text.
struct Place {
    dir: tempfile::TempDir,
}

const RECIPE: &str = "[tokenizer]\nvocabulary = 280\n[data]\ndocument_tokens = 64\n\
                      [[data.text]]\npath = \"${TEXT}/*.txt\"\nname = \"words\"\n";

impl Place {
    fn new(recipe: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("own.toml"), recipe).unwrap();
        let place = Self { dir };
        place.write_text(50);
        place
    }

    fn write_text(&self, paragraphs: usize) {
        let text = "The quick brown fox said to the lazy dog that there were 12 of them.\n\n".repeat(paragraphs);
        fs::write(self.path("a.txt"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a step on the recipe, behind `before` in a shell.
    fn step(&self, before: &str, step: &str) -> Run {
        let program = env!("CARGO_BIN_EXE_paceline-train");
        let line = format!("{before} exec {program} {step} own.toml --set TEXT=. --out made");
        Run::of(Command::new("sh").arg("-c").arg(line).current_dir(self.dir.path()))
    }
}

/// Runs the command with these arguments.
fn run(arguments: &[&str]) -> Run {
    Run::of(Command::new(env!("CARGO_BIN_EXE_paceline-train")).env("HF_HUB_OFFLINE", "1").args(arguments))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

const SHARDS: [&str; 2] = ["words.train.tokens", "words.validation.tokens"];

#[test]
fn wrong_usage_is_one_sentence_and_help_is_help() {
    run(&["tokenise"]).fails(2, &["unrecognized subcommand 'tokenise'", "'tokenizer'", "--help"]);
    run(&["tokens"]).fails(2, &["<RECIPE.toml>"]);
    run(&["tokens", "x.toml", "--set", "TEXT"]).fails(2, &["TEXT=my/texts"]);
    assert_eq!(run(&[]).code, Some(2));
    for (arguments, words) in [
        (&["--help"][..], ["Examples:", "tokenizer", "Exit codes"]),
        (&["tokenizer", "--help"], ["--set", "chat template", "vocabulary = 4096"]),
        (&["tokens", "--help"], ["--out", "document_tokens", "[[data.text]]"]),
    ] {
        let run = run(arguments);
        assert!(run.code == Some(0) && words.iter().all(|word| run.out.contains(word)), "{run:?}");
    }
}

#[test]
fn what_is_somebody_elses_is_not_replaced() {
    let place = Place::new(RECIPE);
    fs::create_dir_all(place.path("made/tokenizer/src")).unwrap();
    fs::write(place.path("made/tokenizer/src/thesis.rs"), "years").unwrap();
    place.step("", "tokenizer").fails(1, &["made holds tokenizer", "--out"]);
    assert_eq!(fs::read(place.path("made/tokenizer/src/thesis.rs")).unwrap(), b"years");
    assert_eq!(names(&place.path("made")), ["tokenizer"]);

    let file = place.path("config.json");
    let tasks = ["tasks", "--split", "test", "--count", "24", "--out", file.to_str().unwrap()];
    for foreign in ["{\"model_type\": \"llama\"}", "[1]\n", "text", "\n{\"id\": 1}"] {
        fs::write(&file, foreign).unwrap();
        run(&tasks).fails(1, &["config.json holds something else than tasks", "--out"]);
        assert_eq!(fs::read(&file).unwrap(), foreign.as_bytes());
    }
    fs::write(&file, "").unwrap();
    for _ in 0..2 {
        assert_eq!(run(&tasks).code, Some(0));
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 24);
    }
}

#[test]
fn the_steps_go_from_text_to_tokens_and_are_done_once() {
    let place = Place::new(RECIPE);
    place.step("", "tokens").fails(1, &["run `paceline-train tokenizer` first"]);
    place.step("", "tokenizer").succeeds(&["280 tokens in made/tokenizer"]);
    place.step("", "tokens").succeeds(&["tokens of words: 3,500 bytes"]);
    place.step("", "tokenizer").succeeds(&["done already"]);
    place.step("", "tokens").succeeds(&["done already"]);
    assert_eq!(names(&place.path("made/tokens")), SHARDS);
    // Other text: both are made again, and nothing that was made of the former is used.
    place.write_text(60);
    place.step("", "tokenizer").succeeds(&["280 tokens"]);
    place.step("", "tokens").succeeds(&["tokens of words: 4,200 bytes"]);
    let show = ["show", "own.toml", "--set", "TEXT=x"];
    let shown = Run::of(
        Command::new(env!("CARGO_BIN_EXE_paceline-train"))
            .env("HF_HUB_OFFLINE", "1")
            .args(show)
            .current_dir(place.dir.path()),
    );
    shown.succeeds(&[]);
    assert!(shown.out.contains("path = \"x/*.txt\"") && shown.out.contains("seed = 0"), "{shown:?}");
}

#[test]
fn bad_recipes_and_texts_are_one_sentence() {
    let typo = Place::new(&RECIPE.replace("vocabulary", "vocabulery"));
    typo.step("", "tokens").fails(1, &["Recipe `own.toml`, line 2: `vocabulery`", "did you mean `vocabulary`?"]);
    let place = Place::new(RECIPE);
    fs::write(place.path("b.txt"), b"good \xff bad").unwrap();
    place.step("", "tokenizer").fails(1, &["./b.txt is not UTF-8 at byte 6"]);
    for empty in ["a.txt", "b.txt"] {
        fs::write(place.path(empty), "\n").unwrap();
    }
    place.step("", "tokenizer").fails(1, &["is empty"]);
    for name in ["a.txt", "b.txt"] {
        fs::remove_file(place.path(name)).unwrap();
    }
    place.step("", "tokenizer").fails(1, &["There is no text at ./*.txt", "--set"]);
    let small = Place::new(&RECIPE.replace("280", "100"));
    small.step("", "tokenizer").fails(1, &["100 tokens is too small", "262 are needed", "raise `vocabulary`"]);
    assert!(!small.path("made/tokenizer").exists());
}

#[test]
fn an_unfinished_end_leaves_what_was_there() {
    let place = Place::new(RECIPE);
    place.step("", "tokenizer").succeeds(&[]);
    place.step("", "tokens").succeeds(&[]);
    let shard = place.path("made/tokens/words.train.tokens");
    let before = fs::read(&shard).unwrap();
    // No file may grow beyond 4 KiB: the same as a full disk, but for its name.
    place.write_text(5000);
    let full = "trap '' XFSZ; ulimit -f 8;";
    place.step(full, "tokens").fails(1, &["words.train.tokens cannot be written and stays as it was"]);
    assert_eq!(fs::read(&shard).unwrap(), before);
    assert_eq!(names(&place.path("made/tokens")), SHARDS);
    place.step(full, "tokenizer").fails(1, &["cannot be written and stays as it was"]);
    assert!(place.path("made/tokenizer/tokenizer.json").exists());
    // What a killed run leaves is removed, and the result is that of a run that nobody disturbed.
    fs::write(place.path("made/tokens/words.train.tokens.4000000-0.part"), "half").unwrap();
    place.step("", "tokenizer").succeeds(&[]);
    place.step("", "tokens").succeeds(&[]);
    let again = fs::read(&shard).unwrap();
    assert_eq!(names(&place.path("made/tokens")), SHARDS);
    fs::remove_dir_all(place.path("made")).unwrap();
    place.step("", "tokenizer").succeeds(&[]);
    place.step("", "tokens").succeeds(&[]);
    assert!(fs::read(&shard).unwrap() == again && again != before);
    assert_eq!(names(&place.path("made/tokens")), SHARDS);
}

#[test]
#[cfg(unix)]
fn documented_commands_are_understood() {
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    examples::are_understood("paceline-train", env!("CARGO_BIN_EXE_paceline-train"), repository);
}

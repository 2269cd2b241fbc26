//! Every command of the documents and of the examples in `--help` runs as it stands there, in a folder that has the files it names;
//! and where it asks a question that has an answer, the answer is right.
//!
//! The few commands that are not run are listed with the reason. A command that is neither run nor listed fails the test, and so
//! does one in the list that stands nowhere any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::examples::{in_blocks, in_documents, in_examples, in_helps};
use crate::{Run, fixture};

/// Prompts for the models that ship, with what their answers end in. An example for them asks one of these.
const QUESTIONS: [(&str, &str); 3] = [
    ("Find the result. We have 437 - 135 + 447 - 207. Answer on one line.", "-> 542"),
    ("Work out 319 + 577.", "result: 896"),
    ("Sort the list from a to z: cloud, paper, glass, boat, moon.", "1. boat\n2. cloud\n3. glass\n4. moon\n5. paper"),
];

/// Commands of the documents that are not run here, by their beginning, with the reason. Those of the other programs have their flags
/// checked by those programs' tests (`examples.rs`).
const NOT_RUN: [(&str, &str); 13] = [
    ("cargo test --release --workspace", "these tests are what it runs"),
    ("paceline-train tokenizer ", "training/tests/cli.rs checks its flags, and runs such a step on a small recipe"),
    ("paceline-train tokens ", "the same"),
    ("paceline-train speed ", "the same"),
    ("paceline-train pretrain ", "the same; a model takes hours"),
    ("paceline-train family ", "it takes a minute; training/tests/pipeline.rs runs its recipe"),
    ("paceline-eval run ", "it takes hours; eval/tests/runs.rs checks its flags and runs a small suite"),
    ("paceline-eval report ", "it needs a run; eval/tests/report.rs makes reports"),
    ("paceline-eval compare ", "it needs two runs; eval/tests/runs.rs compares some"),
    ("paceline-eval certify ", "it takes hours; eval/tests/certify.rs certifies a small model"),
    ("paceline generate --model smoke/", "it needs what `paceline-train family` makes"),
    ("paceline generate --model my-model/", "it needs what `paceline-train pretrain` makes"),
    (
        "paceline generate --model DIR --prompt \"Once upon a time\" --quality bounded ",
        "it needs a certificate for a model of the reader's, which takes hours",
    ),
];

/// A folder with every file that the commands name.
fn reader_s_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let link = |fixture_name: &str, name: &str| std::os::unix::fs::symlink(fixture(fixture_name), place(name)).unwrap();
    fs::create_dir_all(place("path/to/models")).unwrap();
    fs::create_dir_all(place("models")).unwrap();
    for name in ["path/to/model.gguf", "path/to/small.gguf", "path/to/models/a.gguf", "models/a.gguf"] {
        link("gguf-qwen2/model.gguf", name);
    }
    link("llama-tied", "path/to/model");
    link("llama-draft", "path/to/small-model");
    link("llama-tied", "DIR");
    link("llama-tied", "MODEL");
    link("llama-draft", "SMALL");
    let row = serde_json::json!({"id": 1, "prompt": QUESTIONS[1].0});
    fs::write(place("questions.jsonl"), format!("{row}\n")).unwrap();
    fs::write(place("prompts.jsonl"), format!("{row}\n")).unwrap();
    fs::write(place("settings.toml"), "model = \"DIR\"\nmax-new-tokens = 100\n").unwrap();
    folder
}

/// Runs a command as it stands, in a shell.
fn run(line: &str, folder: &Path) -> Run {
    let programs = Path::new(env!("CARGO_BIN_EXE_paceline")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env("PATH", path);
    command
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("HOME", folder);
    Run::of(command, b"What is a paceline?\n")
}

/// Checks what a command that was run as it stands has printed.
fn check(line: &str, run: &Run) {
    // Certificates are for one instruction set, and the program says so on another.
    if line.contains("--quality bounded") && run.err.contains("instruction set") {
        return;
    }
    assert_eq!(run.code, Some(0), "{line}: {run:?}");
    let is_of_the_family = line.contains("generate") && !line.contains("--model") && !line.contains("--config");
    let Some(prompt) = line.split("--prompt ").nth(1).filter(|_| is_of_the_family) else { return };
    let quote = &prompt[..1];
    let prompt = prompt[1..].split(quote).next().unwrap();
    let answer = QUESTIONS.iter().find(|(question, _)| *question == prompt);
    let (_, answer) = answer.unwrap_or_else(|| panic!("{line}: no right answer is known; add it to QUESTIONS"));
    let answer = if line.contains("--json") { answer.replace('\n', "\\n") } else { (*answer).to_owned() };
    assert!(run.out.contains(&answer), "{line} answers {:?} instead of {answer:?}", run.out);
}

#[test]
fn every_documented_command_runs_and_every_answer_is_right() {
    let (folder, empty) = (reader_s_folder(), tempfile::tempdir().unwrap());
    let mut left: BTreeSet<&str> = NOT_RUN.iter().map(|(beginning, _)| *beginning).collect();
    let readme = in_documents(env!("CARGO_MANIFEST_DIR"));
    let all: BTreeSet<String> = readme.into_iter().chain(in_helps(env!("CARGO_BIN_EXE_paceline"))).collect();
    // Those that keep a journal before the one that reads it.
    let (stats, others): (Vec<String>, _) = all.into_iter().partition(|line| line.starts_with("paceline stats"));
    for line in others.iter().chain(&stats) {
        if let Some((beginning, _)) = NOT_RUN.iter().find(|(beginning, _)| line.starts_with(beginning)) {
            left.remove(beginning);
            if line.starts_with("paceline ") {
                // Its flags are read, and then its files are missing.
                let found = run(line, empty.path());
                assert_eq!(found.code, Some(1), "{line}: {found:?}");
            }
            continue;
        }
        let own = line.strip_prefix("cargo run --release -- ").map(|rest| format!("paceline {rest}"));
        // What is timed is timed once, and a file that is to be named is the one that is there.
        let named = [
            ("paceline bench ", "paceline bench --repeats 1 "),
            ("--journal FILE", "--journal state/paceline/journal.jsonl"),
        ];
        let own = own.unwrap_or_else(|| line.clone());
        let own = named.iter().fold(own, |line, (from, to)| line.replace(from, to));
        let is_run = own.starts_with("paceline ") || own.starts_with("echo ");
        assert!(is_run, "The documents or `--help` says {own:?}, which no test runs");
        check(&own, &run(&own, folder.path()));
    }
    assert!(left.is_empty(), "no command begins like these any more: {left:?}");
}

#[test]
fn commands_are_found_in_documents_and_help() {
    let document = "text\n```sh\n# a comment\npaceline inspect  DIR      # what it is\npaceline x \\\n  --y   # z\n```\n```rust\nno\n```\n";
    assert_eq!(in_blocks(document), ["paceline inspect DIR", "paceline x --y"]);
    let help = "Usage: paceline x\nExamples:\n  A prompt:\n    paceline a --b 'c d'\n  paceline e   what\n  echo x | paceline y\n  [data]\n";
    assert_eq!(in_examples(help), ["paceline a --b 'c d'", "paceline e", "echo x | paceline y"]);
}

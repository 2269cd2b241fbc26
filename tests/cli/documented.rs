//! Every command of README.md and of the examples in `--help` runs as it stands there, in a folder that has the files it names;
//! and where it asks a question that has an answer, the answer is right.
//!
//! The few commands that only have their flags checked are listed with the reason. A command that is neither run nor listed fails
//! the test, and so does one in the list that stands nowhere any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Run, fixture};

/// Prompts for the models that ship, with what their answers end in. An example for them asks one of these.
const QUESTIONS: [(&str, &str); 3] = [
    ("Find the result. We have 437 - 135 + 447 - 207. Answer on one line.", "-> 542"),
    ("Work out 319 + 577.", "result: 896"),
    ("Sort the list from a to z: cloud, paper, glass, boat, moon.", "1. boat\n2. cloud\n3. glass\n4. moon\n5. paper"),
];

/// Commands of README.md and `--help` whose flags are read and that then end, as the files that they name are missing; by their
/// beginning, with the reason.
const ONLY_READ: [(&str, &str); 20] = [
    ("paceline-train tokenizer ", "training takes long; training/tests runs each step on small recipes"),
    ("paceline-train tokens ", "the same"),
    ("paceline-train speed ", "the same"),
    ("paceline-train pretrain ", "the same"),
    ("paceline-train distill ", "the same"),
    ("paceline-train exits ", "the same"),
    ("paceline-train draft-vocabulary ", "the same"),
    ("paceline-train traces ", "the same"),
    ("paceline-train router ", "the same"),
    ("paceline-train family ", "it takes a minute; training/tests/pipeline.rs runs its recipe, shortened"),
    ("paceline-train baseline ", "it needs a trained model"),
    ("paceline-train score ", "it answers thousands of prompts"),
    ("paceline-eval run ", "it takes hours; eval/tests/runs.rs runs a small suite"),
    ("paceline-eval report ", "it needs a run; eval/tests/report.rs makes one"),
    ("paceline-eval compare ", "it needs two runs; eval/tests/runs.rs makes them"),
    ("paceline-eval certify ", "it takes hours; eval/tests/certify.rs certifies a small model"),
    ("paceline-eval certify", "the same"),
    ("paceline generate --model smoke/", "it needs what `paceline-train family` makes"),
    ("paceline generate --model my-model/", "it needs what `paceline-train pretrain` makes"),
    (
        "paceline generate --model DIR --prompt \"Once upon a time\" --quality bounded ",
        "it needs a certificate for a model of the reader's, which takes hours",
    ),
];

/// Commands of cargo: these tests are what they build and run.
const OF_CARGO: [&str; 1] = ["cargo test --release --workspace"];

/// The lines of a text; one that ends in a backslash goes on.
fn lines(text: &str) -> Vec<String> {
    text.replace("\\\n", " ").lines().map(|line| line.trim().to_owned()).collect()
}

/// The commands in the shell blocks of a document, without comments.
fn in_blocks(document: &str) -> Vec<String> {
    let blocks = document.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines = blocks.flat_map(lines).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let bare = |line: String| line.split(" #").next().unwrap_or_default().to_owned();
    lines.map(bare).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The commands among the examples of a help text: those that begin with a program of ours, or feed one. What is said of a
/// command stands two spaces behind it.
fn in_examples(help: &str) -> Vec<String> {
    let Some(start) = help.find("Example") else { return Vec::new() };
    let lines = lines(&help[start..]).into_iter();
    let commands = lines.filter(|line| line.starts_with("paceline") || line.starts_with("echo "));
    commands.map(|line| line.split("  ").next().unwrap_or_default().to_owned()).collect()
}

/// A program of the workspace, beside the one that is tested; `None` where it was not built.
fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_paceline")).with_file_name(name);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: {name} was not built");
    None
}

/// All help texts of a program: its own and its commands'.
fn helps(name: &str) -> Vec<String> {
    let Some(path) = program(name) else { return Vec::new() };
    let help = |arguments: &[&str]| {
        let mut command = Command::new(&path);
        command.args(arguments);
        Run::of(command, b"").succeeds()
    };
    let overview = help(&["--help"]);
    let listed = overview.split_once("Commands:").unwrap().1.split_once("Options:").unwrap().0;
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(names.len() > 3, "{overview}");
    let commands = names.iter().filter(|name| *name != "help").map(|name| help(&[name, "--help"]));
    std::iter::once(overview.clone()).chain(commands).collect()
}

/// Everything that the documents tell a reader to type.
fn documented() -> BTreeSet<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut all: BTreeSet<String> = in_blocks(&readme).into_iter().collect();
    assert!(all.len() > 25, "{all:?}");
    for name in ["paceline", "paceline-train", "paceline-eval"] {
        for help in helps(name) {
            let examples = help.find("Example").map_or("", |start| &help[start..]);
            // A command that is broken over two lines cannot be copied.
            let broken = examples.lines().find(|line| line.trim_start().starts_with("--"));
            assert_eq!(broken, None, "write examples that fit into 100 columns: {examples}");
            all.extend(in_examples(&help));
        }
    }
    all
}

/// A folder with every file that the commands name.
fn reader_s_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let link = |fixture_name: &str, name: &str| std::os::unix::fs::symlink(fixture(fixture_name), place(name)).unwrap();
    fs::create_dir_all(place("path/to")).unwrap();
    link("llama-tied", "path/to/model");
    link("llama-draft", "path/to/small-model");
    link("llama-tied", "DIR");
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
    command.env("XDG_STATE_HOME", folder.join("state")).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
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
    let mut listed: BTreeSet<&str> = ONLY_READ.iter().map(|(beginning, _)| *beginning).collect();
    // Those that keep a journal before the one that reads it.
    let (stats, others): (Vec<String>, _) =
        documented().into_iter().partition(|line| line.starts_with("paceline stats"));
    for line in others.iter().chain(&stats) {
        let only_read = ONLY_READ.iter().find(|(beginning, _)| line.starts_with(beginning));
        if let Some((beginning, _)) = only_read.filter(|_| !line.ends_with("--help")) {
            listed.remove(beginning);
            if program(line.split(' ').next().unwrap()).is_some() {
                let found = run(line, empty.path());
                assert_eq!(found.code, Some(1), "{line} is to be understood and to miss its files: {found:?}");
            }
            continue;
        }
        let own = line.strip_prefix("cargo run --release -- ").map(|rest| format!("paceline {rest}"));
        let own = own.unwrap_or_else(|| line.clone());
        if own.starts_with("paceline ") || own.starts_with("echo ") || own.ends_with("--help") {
            let line = own.replace("--journal FILE", "--journal state/paceline/journal.jsonl");
            if program(own.split(' ').next().unwrap_or("")).is_some() || own.starts_with("echo ") {
                check(&line, &run(&line, folder.path()));
            }
        } else {
            assert!(OF_CARGO.contains(&own.as_str()), "README.md or `--help` says {own:?}, which no test runs");
        }
    }
    let is_built = |beginning: &&str| program(beginning.split(' ').next().unwrap()).is_some();
    let left: Vec<&str> = listed.into_iter().filter(is_built).collect();
    assert!(left.is_empty(), "no command begins like these any more: {left:?}");
}

#[test]
fn commands_are_found_in_documents_and_help() {
    let document = "text\n```sh\n# a comment\npaceline inspect  DIR      # what it is\npaceline x \\\n  --y   # z\n```\n```rust\nno\n```\n";
    assert_eq!(in_blocks(document), ["paceline inspect", "paceline x"]);
    let help = "Usage: paceline x\nExamples:\n  A prompt:\n    paceline a --b 'c d'\n  paceline e   what\n  echo x | paceline y\n  [data]\n";
    assert_eq!(in_examples(help), ["paceline a --b 'c d'", "paceline e", "echo x | paceline y"]);
}

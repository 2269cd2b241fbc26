//! Finds the commands that documents and help texts tell a reader to type. The tests of the other programs include this file.

#![allow(dead_code, reason = "each test crate uses a part")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The lines of a text; one that ends in a backslash goes on.
fn lines(text: &str) -> Vec<String> {
    text.replace("\\\n", " ").lines().map(|line| line.trim().to_owned()).collect()
}

/// The commands in the shell blocks of a document, without comments.
pub(crate) fn in_blocks(document: &str) -> Vec<String> {
    let blocks = document.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines = blocks.flat_map(lines).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let bare = |line: String| line.split(" #").next().unwrap_or_default().to_owned();
    lines.map(bare).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The commands among the examples of a help text: those that begin with a program of ours, or feed one. What is said of a
/// command stands two spaces behind it.
pub(crate) fn in_examples(help: &str) -> Vec<String> {
    let Some(start) = help.find("Example") else { return Vec::new() };
    let lines = lines(&help[start..]).into_iter();
    let commands = lines.filter(|line| line.starts_with("paceline") || line.starts_with("echo "));
    commands.map(|line| line.split("  ").next().unwrap_or_default().to_owned()).collect()
}

/// The examples of all help texts of a program: its own and its commands'.
pub(crate) fn in_helps(program: &str) -> BTreeSet<String> {
    let help = |arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let overview = help(&["--help"]);
    let listed = overview.split_once("Commands:").unwrap().1.split_once("Options:").unwrap().0;
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut found: BTreeSet<String> = in_examples(&overview).into_iter().collect();
    for name in names {
        let help = help(&[name, "--help"]);
        let examples = help.find("Example").map_or("", |start| &help[start..]);
        // A command that is broken over two lines cannot be copied.
        let broken = examples.lines().find(|line| line.trim_start().starts_with("--"));
        assert_eq!(broken, None, "write examples that fit into 100 columns: {examples}");
        found.extend(in_examples(&help));
    }
    assert!(found.len() > 4, "{found:?}");
    found
}

/// The commands of README.md, those in its tables included, and of the pages under `docs/`.
pub(crate) fn in_documents(repository: &str) -> BTreeSet<String> {
    let root = Path::new(repository);
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let mut found: BTreeSet<String> = in_blocks(&readme).into_iter().chain(in_tables(&readme)).collect();
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "md") {
            found.extend(in_blocks(&fs::read_to_string(path).unwrap()));
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

/// The commands in the tables of a document.
fn in_tables(document: &str) -> Vec<String> {
    let rows = document.lines().filter(|line| line.starts_with('|'));
    let code = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    code.filter(|code| code.starts_with("paceline") && code.contains(' ')).map(str::to_owned).collect()
}

/// Holds that a program understands every command of it in the documents and its help, in a folder without the files that
/// these name: each fails for that, with exit code 1, and help is shown.
pub(crate) fn are_understood(name: &str, program: &str, repository: &str) {
    let empty = tempfile::tempdir().unwrap();
    let folder = Path::new(program).parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let own = |line: &String| line.split(' ').next() == Some(name);
    let all: BTreeSet<String> = in_documents(repository).into_iter().chain(in_helps(program)).filter(own).collect();
    assert!(all.len() > 4, "{all:?}");
    for line in &all {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(empty.path()).env("PATH", &path).stdin(Stdio::null());
        // No models of whoever runs the tests, and none of the hub.
        command.env("HF_HUB_OFFLINE", "1");
        for variable in ["HOME", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS", "XDG_CACHE_HOME"] {
            command.env(variable, empty.path());
        }
        let output = command.output().unwrap();
        let needs_no_file = ["paceline models", "paceline models --json"].contains(&line.as_str());
        let expected = if line.ends_with("--help") || needs_no_file { 0 } else { 1 };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{line}: {said}");
    }
}

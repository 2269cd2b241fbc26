//! What `paceline-train` prints: told where nobody takes it, and harmless to a terminal.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![cfg(unix)]

#[path = "../../tests/cli/outputs.rs"]
mod outputs;
#[path = "../../tests/cli/typing.rs"]
mod typing;

use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_paceline-train");
const RECIPE: &str = "[tokenizer]\nvocabulary = 280\n[[data.text]]\npath = \"*.txt\"\nname = \"words\"\n";

#[test]
fn an_output_that_takes_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("own.toml"), RECIPE).unwrap();
    for arguments in [
        &["show", "own.toml"][..],
        &["tasks", "--split", "test", "--count", "2", "--out", "tasks.jsonl"],
        &["tasks", "--out", "all"],
    ] {
        outputs::are_told(PROGRAM, arguments, folder.path());
    }
    // What was asked for is there all the same.
    assert_eq!(fs::read_to_string(folder.path().join("tasks.jsonl")).unwrap().lines().count(), 2);
}

#[test]
fn names_of_files_give_a_terminal_no_orders() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("x\x1b]0;owned\x07\u{9b}2J\u{202e}.jsonl");
    let name = name.to_str().unwrap();
    let below = format!("{name}/below");
    for (arguments, code) in [
        (&["tasks", "--split", "test", "--count", "2", "--out", name][..], 0),
        (&["tasks", "--out", &below], 1),
        (&["tasks", "--split", "test", "--count", "2", "--out", &below], 1),
        (&["show", name], 1),
        (&["score", name], 1),
        (&["tokens", "--set", "x\x1b[2J"], 2),
    ] {
        let Some(found) = typing::session_of(&[&[PROGRAM], arguments].concat(), &[]) else { return };
        let is_order = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!found.shown.contains(is_order) && found.shown.contains("\\u{"), "{arguments:?} {:?}", found.shown);
        assert_eq!(found.code, Some(code), "{arguments:?} {:?}", found.shown);
        assert!(code == 0 || found.shown.trim_end().ends_with('.'), "{arguments:?} {:?}", found.shown);
    }
}

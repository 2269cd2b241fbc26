//! A conversation on a terminal. `script` lends a pseudo terminal: it types standard input into it, and
//! Ctrl-D at the end.

#![cfg(target_os = "linux")]

use std::process::Command;

use crate::{Run, fixture};

/// What the terminal shows when this is typed; `script` passes the program's exit code on.
fn typed(arguments: &str, input: &str) -> (Option<i32>, String) {
    let mut script = Command::new("script");
    let command = format!("'{}' generate {arguments}", env!("CARGO_BIN_EXE_paceline"));
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    let run = Run::of(script, input.as_bytes());
    (run.code, run.out.replace('\r', ""))
}

#[test]
fn a_line_is_a_turn_and_the_end_of_input_ends_it() {
    let model = fixture("llama-tied");
    let (code, shown) = typed(&format!("--model '{model}' --max-new-tokens 40"), "What is a paceline?\n\nAnd then?\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Write a message, or end with Ctrl-D.\n"), "{shown}");
    assert!(shown.contains("A row of riders who share the wind.\n[16 tokens"), "{shown}");
    assert_eq!(shown.matches(" per step;").count(), 2, "the empty line is no turn: {shown}");
}

#[test]
fn a_model_without_a_template_continues_texts() {
    let model = fixture("micro");
    let (code, shown) = typed(&format!("--model '{model}' --max-new-tokens 5"), "abc\n");
    assert!(code == Some(0) && shown.contains("no chat template; write a text to continue"), "{shown}");
    assert!(shown.contains("[5 tokens"), "{shown}");
    let (code, shown) = typed(&format!("--model '{model}' --chat"), "abc\n");
    assert!(code == Some(1) && shown.contains("paceline: The model has no chat template"), "{shown}");
}

#[test]
fn answers_in_json_have_the_turn_s_message() {
    let model = fixture("llama-tied");
    let (code, shown) = typed(&format!("--model '{model}' --json --max-new-tokens 40"), "What is a paceline?\n");
    let object =
        shown.lines().find_map(|line| serde_json::from_str::<serde_json::Value>(line.trim_start_matches("> ")).ok());
    let object = object.unwrap_or_else(|| panic!("no object: {shown}"));
    assert_eq!((code, object["prompt"].as_str()), (Some(0), Some("What is a paceline?")));
    assert_eq!(object["text"], "A row of riders who share the wind.");
}

#[test]
fn a_conversation_that_outgrows_the_context_starts_anew() {
    let turn = format!("{}\n", "one two ".repeat(9));
    let (code, shown) = typed(&format!("--model '{}' --max-new-tokens 30", fixture("llama-tied")), &turn.repeat(6));
    assert_eq!(code, Some(0), "{shown}");
    let (before, after) =
        shown.split_once("no longer fits into the model's context").unwrap_or_else(|| panic!("{shown}"));
    assert!(before.contains(" per step;") && after.contains(" per step;"), "{shown}");
}

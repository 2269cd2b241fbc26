//! What a model or a file says reaches a terminal as text alone, and a pipe byte for byte.

#![cfg(unix)]

use std::path::Path;

use paceline::visible;

use crate::{Run, fixture, generate, objects, session};

/// Sampled so hot that control characters are among the tokens.
const HOT: [&str; 9] =
    ["--prompt", "A", "--temperature", "9", "--max-new-tokens", "150", "--ignore-eos", "--seed", "3"];

fn is_order(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t' | '\r')
}

#[test]
fn answers_show_no_control_characters_on_a_terminal_and_keep_them_in_a_pipe() {
    let piped = generate(&HOT).out;
    assert!(piped.chars().any(is_order), "the fixture has to say some: {piped:?}");
    let model = fixture("llama-tied");
    let Some(shown) = session(&[&["generate", "--model", &model], &HOT[..]].concat(), &[]) else { return };
    let answer = visible::text(&piped);
    // The terminal puts a return before each line break.
    assert!(shown.shown.starts_with(answer.as_ref()), "{:?} is not {answer:?}", shown.shown);
    assert!(!shown.shown.chars().any(is_order), "{:?}", shown.shown);
}

#[test]
fn json_on_a_terminal_is_the_same_json() {
    let arguments = [&HOT[..], &["--json"]].concat();
    let piped: serde_json::Value = serde_json::from_str(&generate(&arguments).out).unwrap();
    let model = fixture("llama-tied");
    let Some(shown) = session(&[&["generate", "--model", &model], &arguments[..]].concat(), &[]) else { return };
    // On a busy machine progress shows, with an order of ours to clear it.
    assert!(!shown.shown.replace("\r\x1b[K", "").chars().any(is_order), "{:?}", shown.shown);
    assert_eq!(objects(&shown.shown)[0]["text"], piped["text"]);
}

#[test]
fn names_of_files_give_a_terminal_no_orders() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("a\x1b[2J\u{9b}2J\u{202e}model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(Path::new(&fixture("llama-tied"))).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let (model, journal) = (model.to_str().unwrap(), folder.path().join("x\x1b[31m"));
    let journal = journal.to_str().unwrap();
    for arguments in [
        &["inspect", model][..],
        &["inspect", model, "--json"],
        &["inspect", &format!("{model}-is-missing")],
        &["generate", "--model", model, "--prompt", "A", "--max-new-tokens", "2", "--journal", journal, "--json"],
        &["generate", "--model", model, "--prompt", "A", "--draft", &format!("{model}\x1b[1m")],
        &["generate", "--model", model, "--prompts", &format!("{model}/none")],
        &["generate", "--model", model, "--prompt", "A", "--stop\x1b[2J"],
        &["generate", "--drafter", "\x1b[2J"],
        &["stats", "--journal", journal],
        &["stats", "--period", "\x1b[2J"],
        &["bench", "--model", model, "--repeats", "1", "--threads", "1"],
    ] {
        let Some(shown) = session(arguments, &[]) else { return };
        let shown = shown.shown.replace("\r\x1b[K", "");
        let turns = |c: char| is_order(c) || c == '\u{202e}';
        assert!(!shown.chars().any(turns), "{arguments:?} {shown:?}");
        assert!(shown.len() > 20, "{arguments:?} {shown:?}");
    }
    // Sentences are one harmless line wherever they go.
    Run::new(&["inspect", &format!("{model}-is-missing")]).fails(1, &["\\u{1b}[2J\\u{9b}2J\\u{202e}model"]);
}

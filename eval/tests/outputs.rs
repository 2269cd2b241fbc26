//! What `paceline-eval` prints: told where nobody takes it, and harmless to a terminal.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![cfg(unix)]

#[path = "../../tests/cli/outputs.rs"]
mod outputs;
#[path = "../../tests/cli/typing.rs"]
mod typing;

use std::fs;
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_paceline-eval");

/// A suite of one prompt for a tiny model, and its run.
fn measure(folder: &Path, name: &str) {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/micro");
    fs::write(folder.join("prompts.jsonl"), "{\"id\": \"q\", \"prompt\": \"a b c\", \"answer\": \"x\"}\n").unwrap();
    let suite = format!(
        "name = \"{name}\"\nrepeats = 1\nwarm-up = 0\n[engine]\nmodel = \"{model}\"\nthreads = 1\n[answer]\nmax-new-tokens = 4\n\
         [[prompts]]\npath = \"prompts.jsonl\"\n[[plan]]\nname = \"plain\"\ndrafter = \"none\"\n"
    );
    fs::write(folder.join("suite.toml"), suite).unwrap();
    let mut run = Command::new(PROGRAM);
    run.current_dir(folder).env("XDG_STATE_HOME", folder.join("state")).args([
        "run",
        "suite.toml",
        "--out",
        "measured",
    ]);
    let done = run.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn an_output_that_takes_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    measure(folder.path(), "tiny");
    for arguments in
        [&["run", "suite.toml", "--out", "measured"][..], &["report", "measured"], &["compare", "measured", "measured"]]
    {
        outputs::are_told(PROGRAM, arguments, folder.path());
    }
}

#[test]
fn names_give_a_terminal_no_orders() {
    let folder = tempfile::tempdir().unwrap();
    measure(folder.path(), "x\\u001b]0;owned\\u0007\\u009b2J\\u202e");
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (suite, measured) = (place("suite.toml"), place("measured"));
    let odd = place("y\x1b[2J");
    for (arguments, code) in [
        (&["run", &suite, "--out", &measured][..], 0),
        (&["report", &measured, "--out", &odd], 0),
        (&["report", &odd], 1),
        (&["compare", &odd, &measured], 1),
        (&["run", &odd, "--out", &measured], 1),
        (&["certify", &odd, "--floor", "0.9"], 1),
        (&["report", "--title\x1b[2J"], 2),
    ] {
        let Some(found) = typing::session_of(&[&[PROGRAM], arguments].concat(), &[]) else { return };
        let shown = found.shown.replace("\r\x1b[K", "");
        let is_order = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(is_order) && shown.contains("\\u{"), "{arguments:?} {shown:?}");
        assert_eq!(found.code, Some(code), "{arguments:?} {shown:?}");
    }
}

//! A person at a terminal: a program that is typed into, step by step. Python lends the pseudo terminal; where it is
//! missing, tests say that they were skipped.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{STATE, fixture};

/// What a person does next.
pub(crate) enum Step<'a> {
    /// Waits until the terminal shows this, behind what was seen before.
    See(&'a str),
    /// Types this.
    Type(&'a str),
    /// Types this so many times.
    TypeTimes(&'a str, usize),
    /// Sends this signal to the program.
    Signal(i32),
}

/// What a terminal showed in the end, and the exit code.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) code: Option<i64>,
    pub(crate) shown: String,
}

/// Runs the program with these arguments on a terminal and follows the steps. `None`, and a line that says so, where that cannot
/// be done here.
#[track_caller]
pub(crate) fn session(arguments: &[&str], steps: &[Step<'_>]) -> Option<Session> {
    let known = Command::new("python3").args(["-c", "import pty"]).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        println!("skipped: there is no python3 here that lends a pseudo terminal");
        return None;
    }
    let steps: Vec<Value> = steps
        .iter()
        .map(|step| match step {
            Step::See(text) => json!(["see", text]),
            Step::Type(text) => json!(["type", text]),
            Step::TypeTimes(text, times) => json!(["type", text, times]),
            Step::Signal(number) => json!(["signal", number]),
        })
        .collect();
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/typing.py");
    let mut command = Command::new("python3");
    command.args([driver, &Value::from(steps).to_string(), env!("CARGO_BIN_EXE_paceline")]).args(arguments);
    let output = command.env("XDG_STATE_HOME", STATE).env("TERM", "xterm").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = found["shown"].as_str().unwrap().replace("\r\n", "\n");
    assert_eq!(found["missing"], Value::Null, "this never came: {shown}");
    Some(Session { code: found["code"].as_i64(), shown })
}

/// The everyday model with a context of so many tokens, for answers and prompts that take a while.
pub(crate) fn roomy(context: usize) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture("llama-tied")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let place = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&place).unwrap()).unwrap();
    config["max_position_embeddings"] = context.into();
    fs::write(&place, config.to_string()).unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    (folder, path)
}

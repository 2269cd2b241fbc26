//! A person at a terminal: a program that is typed into, step by step. Python lends the pseudo terminal; where it is
//! missing, tests say that they were skipped. The tests of the other programs include this file.

#![allow(dead_code, reason = "each test crate uses a part")]

use std::process::{Command, Stdio};

use serde_json::{Value, json};

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
    /// Waits until the program is stopped.
    Stopped,
    /// Continues it, in the foreground.
    Continue,
    /// Lets the program have no more memory than it has, on Linux.
    Starve,
    /// Notes how the terminal is set.
    Modes,
}

/// What a terminal showed in the end, and how the program ended.
#[derive(Debug)]
pub(crate) struct Session {
    /// The exit code; `None` after a signal's default action.
    pub(crate) code: Option<i64>,
    /// The signal that ended it.
    pub(crate) signal: Option<i64>,
    /// All that the terminal showed.
    pub(crate) shown: String,
    /// Whether the terminal collected lines and showed them by itself, as a shell leaves and expects it: at each
    /// [`Step::Stopped`] and [`Step::Modes`], and at the end.
    pub(crate) lines: Vec<bool>,
}

/// Runs a command on a terminal and follows the steps. `None`, and a line that says so, where that cannot be done here.
#[track_caller]
pub(crate) fn session_of(command: &[&str], steps: &[Step<'_>]) -> Option<Session> {
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
            Step::Stopped => json!(["stopped"]),
            Step::Continue => json!(["continue"]),
            Step::Starve => json!(["starve"]),
            Step::Modes => json!(["modes"]),
        })
        .collect();
    let mut python = Command::new("python3");
    python.args(["-c", include_str!("typing.py"), &Value::from(steps).to_string()]).args(command);
    let output = python.env("TERM", "xterm").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = found["shown"].as_str().unwrap().replace("\r\n", "\n");
    assert_eq!(found["missing"], Value::Null, "this never came: {shown}");
    let lines = found["lines"].as_array().unwrap().iter().map(|lines| lines.as_bool().unwrap()).collect();
    Some(Session { code: found["code"].as_i64(), signal: found["signal"].as_i64(), shown, lines })
}

//! The command line as a stranger meets it: the built program, run with good and bad input.
//!
//! What must hold for every bad input, in whichever table it stands: the exit code is the promised one (1 it
//! failed, 2 wrong usage), standard error has one line, a sentence with the words that say what is wrong,
//! standard output stays empty, and the program neither panics nor hangs. For good input: the tokens of the
//! reference, the promised JSON, and text that is the same streamed or not.
//!
//! [`Run`] starts the program and holds these checks; the modules hold one kind of input each.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod answers;
mod bench;
mod closed_output;
mod conversation;
#[cfg(unix)]
mod documented;
mod energy;
#[cfg(unix)]
mod examples;
mod local;
mod memory;
mod messages;
mod models;
mod outputs;
mod prompt_files;
mod shipped;
mod signals;
mod special_files;
mod stats;
mod terminal_state;
mod terminals;
mod typing;
mod usage;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use typing::{Session, Step, session_of};

/// Longer than any of these runs takes, even on a busy machine; a run that takes as long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where runs keep their journal, instead of the user's home, if a test says nothing else.
const STATE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/state");

/// Waits for the end of a program; `None` if it hangs and was killed.
fn ended(child: &mut Child) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a run of the program came to.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    /// Runs the program with these arguments and nothing on standard input.
    fn new<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        Self::with_input(arguments, b"")
    }

    fn with_input<S: AsRef<OsStr>>(arguments: &[S], input: &[u8]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline"));
        // Names that are none here are not asked for.
        command.env("HF_HUB_OFFLINE", "1");
        command.args(arguments);
        Self::of(command, input)
    }

    /// Runs a command with `input` on standard input. Its output goes through files, which never fill up as pipes do.
    fn of(mut command: Command, input: &[u8]) -> Self {
        if !command.get_envs().any(|(name, _)| name == "XDG_STATE_HOME") {
            command.env("XDG_STATE_HOME", STATE);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        File::create(path("in")).unwrap().write_all(input).unwrap();
        command.stdin(File::open(path("in")).unwrap());
        command.stdout(File::create(path("out")).unwrap());
        let code = Self::wait(&mut command, &path("err"));
        let read = |name| String::from_utf8(fs::read(path(name)).unwrap()).unwrap();
        Self { code, out: read("out"), err: read("err") }
    }

    /// Runs a command whose standard output is given, and tells its exit code.
    fn wait(command: &mut Command, err: &Path) -> Option<i32> {
        let mut child = command.stderr(File::create(err).unwrap()).spawn().unwrap();
        ended(&mut child).unwrap_or_else(|| panic!("{command:?} hangs")).code()
    }

    /// Checks that it failed as it should: this exit code, nothing on standard output, a sentence with these
    /// words on standard error.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        self.says(words);
    }

    /// Checks that standard error holds one line, a sentence with these words.
    #[track_caller]
    fn says(&self, words: &[&str]) {
        // Where an answer ends may be said as well.
        let ends = |line: &&str| line.contains(": The answer ends ");
        let others: Vec<&str> = self.err.split_inclusive('\n').filter(|line| !ends(line)).collect();
        let said = if others.is_empty() { self.err.clone() } else { others.concat() };
        let sentence = said.strip_prefix("paceline: ").and_then(|line| line.strip_suffix('\n'));
        let good = |s: &str| s.len() > 20 && s.ends_with(['.', '?', '!']) && !s.contains(char::is_control);
        assert!(sentence.is_some_and(good), "not one sentence: {self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing: {self:?}");
        }
    }

    /// Checks that it succeeded and had nothing to say but where answers end.
    #[track_caller]
    fn succeeds(self) -> String {
        let mut said = self.err.lines().filter(|line| !line.contains(": The answer ends "));
        assert_eq!((self.code, said.next()), (Some(0), None), "{self:?}");
        self.out
    }

    /// The objects on standard output, one a line.
    #[track_caller]
    fn objects(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// `generate` with the everyday model, and these arguments after it.
fn generate(arguments: &[&str]) -> Run {
    generate_from(&fixture("llama-tied"), arguments)
}

fn generate_from(model: &str, arguments: &[&str]) -> Run {
    Run::new(&[&["generate", "--model", model], arguments].concat())
}

/// The one answer of a run with `--json`.
#[track_caller]
fn answer(arguments: &[&str]) -> Value {
    let out = generate(&[arguments, &["--json"]].concat()).succeeds();
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

/// A file with this content, in a directory that goes when the test ends.
fn file(content: impl AsRef<[u8]>) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("file");
    fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

/// A command with nothing on standard input, for tests that choose its output.
fn quiet_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paceline"));
    // Names that are none here are not asked for.
    command.env("HF_HUB_OFFLINE", "1");
    command.args(arguments).stdin(Stdio::null()).env("XDG_STATE_HOME", STATE);
    command
}

/// Runs the program with these arguments on a terminal and follows the steps. `None`, and a line that says so, where that cannot
/// be done here.
#[track_caller]
fn session(arguments: &[&str], steps: &[Step<'_>]) -> Option<Session> {
    let state = format!("XDG_STATE_HOME={STATE}");
    session_of(&[&["env", &state, env!("CARGO_BIN_EXE_paceline")], arguments].concat(), steps)
}

/// The objects that a terminal showed, one a line.
fn objects(shown: &str) -> Vec<Value> {
    // What follows a progress line, once that is gone, begins behind the order to clear it.
    let lines = shown.lines().filter_map(|line| line.rsplit("\x1b[K").next()).filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The everyday model with a context of so many tokens, for answers and prompts that take a while.
fn roomy(context: usize) -> (tempfile::TempDir, String) {
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

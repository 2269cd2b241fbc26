//! Outputs that take nothing: a closed pipe, none at all, a full disk. The tests of the other programs include this file.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Outputs that take nothing, with what the system says of them.
const OUTPUTS: [(&str, &str); 3] = [
    ("a closed pipe", "Broken pipe"),
    ("none", "closed when the program was started"),
    ("a full disk", "No space left"),
];

/// Checks that a program that prints fails by a sentence, and exit code 1, where its output takes nothing. It runs in a folder.
#[track_caller]
pub(crate) fn are_told(program: &str, arguments: &[&str], folder: &Path) {
    let name = Path::new(program).file_name().unwrap().to_str().unwrap();
    for (kind, words) in OUTPUTS {
        let Some(Output { status, stderr, .. }) = run(kind, program, arguments, folder) else { continue };
        let said = String::from_utf8(stderr).unwrap();
        let begins = format!("{name}: Standard output can no longer be written to (");
        let told: Vec<&str> = said.lines().filter(|line| line.contains("Standard output")).collect();
        let is_sentence = |line: &&str| line.starts_with(&begins) && line.contains(words) && line.ends_with('.');
        let context = format!("{kind}: {arguments:?}: {said}");
        assert!(status.code() == Some(1) && told.len() == 1 && told.iter().all(is_sentence), "{context}");
        assert_eq!(said.matches(words).count(), 1, "{context}");
    }
}

/// Runs the program with such an output; `None` where this system has none.
fn run(kind: &str, program: &str, arguments: &[&str], folder: &Path) -> Option<Output> {
    let mut command = Command::new(program);
    match kind {
        "a closed pipe" => {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            command.stdout(writer);
        }
        "a full disk" if cfg!(target_os = "linux") => {
            command.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
        }
        // As `program .. >&-` starts it: the runtime opens `/dev/null` in its place.
        "none" if cfg!(target_os = "linux") => {
            command = Command::new("sh");
            command.args(["-c", "exec \"$@\" >&-", "sh", program]);
        }
        _ => return None,
    }
    command.args(arguments).current_dir(folder).env("XDG_STATE_HOME", folder.join("state")).stdin(Stdio::null());
    // Standard output is given; the rest is small.
    Some(command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap())
}

//! Output that nobody takes: a closed pipe, a full disk, no standard error.

use std::fs::{self, OpenOptions};

use crate::{Run, fixture, quiet_command};

/// Commands that print, and one that fails.
fn commands() -> [(Vec<String>, i32); 6] {
    let model = fixture("llama-tied");
    let words = |text: &str| text.split(' ').map(|word| word.replace("MODEL", &model)).collect();
    [
        (words("generate --model MODEL --prompt A"), 0),
        (words("generate --model MODEL --prompt A --json"), 0),
        (words("inspect MODEL"), 0),
        (words("inspect MODEL --json"), 0),
        (words("inspect /nowhere"), 1),
        (words("generate --foo"), 2),
    ]
}

#[test]
fn a_closed_pipe_ends_the_work_with_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, code) in commands().into_iter().filter(|(_, code)| *code == 0) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let err = directory.path().join("err");
        let closed = Run::wait(quiet_command(&arguments).stdout(writer), &err);
        let run = Run { code: closed, out: String::new(), err: fs::read_to_string(err).unwrap() };
        run.fails(code + 1, &["Standard output cannot be written", "Broken pipe"]);
        assert_eq!(run.err.matches("Broken pipe").count(), 1, "{run:?}");
    }
}

/// As `paceline .. >&-` starts it: the runtime opens `/dev/null` in its place.
#[test]
#[cfg(target_os = "linux")]
fn an_output_that_was_never_there_ends_the_work_with_a_sentence() {
    for (arguments, code) in commands().into_iter().filter(|(_, code)| *code == 0) {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec \"$@\" >&-", "sh", env!("CARGO_BIN_EXE_paceline")]).args(&arguments);
        Run::of(command, b"").fails(code + 1, &["Standard output cannot be written", "closed"]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_ends_the_work_with_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, code) in commands().into_iter().filter(|(_, code)| *code == 0) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let err = directory.path().join("err");
        let ended = Run::wait(quiet_command(&arguments).stdout(full), &err);
        let run = Run { code: ended, out: String::new(), err: fs::read_to_string(err).unwrap() };
        run.fails(code + 1, &["Standard output cannot be written", "No space left"]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_standard_error_that_cannot_be_written_changes_no_exit_code() {
    for (arguments, code) in commands() {
        let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = quiet_command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(std::process::Stdio::null())
            .stderr(full())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn help_that_nobody_reads_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = quiet_command(&["generate", "--help"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

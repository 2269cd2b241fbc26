//! Output that nobody takes: a closed pipe, a full disk, no standard error.

use std::fs::OpenOptions;

use crate::{fixture, outputs, quiet_command};

/// Commands that print, and one that fails.
fn commands() -> [(Vec<String>, i32); 7] {
    let model = fixture("llama-tied");
    let words = |text: &str| text.split(' ').map(|word| word.replace("MODEL", &model)).collect();
    [
        (words("generate --model MODEL --prompt A"), 0),
        (words("generate --model MODEL --prompt A --json"), 0),
        (words("inspect MODEL"), 0),
        (words("inspect MODEL --json"), 0),
        (words("bench --model MODEL --repeats 1 --threads 1"), 0),
        (words("inspect /nowhere"), 1),
        (words("generate --foo"), 2),
    ]
}

#[test]
fn an_output_that_takes_nothing_ends_the_work_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, _) in commands().into_iter().filter(|(_, code)| *code == 0) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        outputs::are_told(env!("CARGO_BIN_EXE_paceline"), &arguments, folder.path());
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

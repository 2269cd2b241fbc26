//! Memory that cannot be had: under any limit there is an answer, or one sentence, and never an abort.

use std::process::Command;

use crate::{Run, fixture};

/// Kilobytes of address space below which the system cannot load the program itself.
const LOADED: usize = 60_000;

/// Runs the command in so many kilobytes of address space.
fn within(kilobytes: usize, arguments: &[&str]) -> Run {
    let mut command = Command::new("sh");
    let line = format!("ulimit -c 0; ulimit -v {kilobytes}; exec \"$0\" \"$@\"");
    command.args(["-c", &line, env!("CARGO_BIN_EXE_paceline")]).args(arguments);
    Run::of(command, b"")
}

#[test]
#[cfg(target_os = "linux")]
fn under_every_limit_there_is_an_answer_or_a_sentence() {
    // `PACELINE_MEMORY_LIMITS=100` asks for so many limits instead of a few.
    let limits = std::env::var("PACELINE_MEMORY_LIMITS").ok().and_then(|text| text.parse().ok()).unwrap_or(12_usize);
    let tied = fixture("llama-tied");
    let runs: [(&[&str], usize); 2] = [
        (
            &[
                "generate",
                "--model",
                &tied,
                "--prompt",
                "a b",
                "--max-new-tokens",
                "8",
                "--threads",
                "2",
                "--no-journal",
            ],
            140_000,
        ),
        (
            &[
                "generate",
                "--prompt",
                "Sort these words: pear fig apple",
                "--max-new-tokens",
                "4",
                "--threads",
                "1",
                "--no-journal",
            ],
            700_000,
        ),
    ];
    for (arguments, enough) in runs {
        let (mut answers, mut sentences) = (0, 0);
        for step in 0..=limits {
            let kilobytes = LOADED + (enough - LOADED) * step / limits;
            let run = within(kilobytes, arguments);
            if run.code == Some(0) {
                answers += 1;
                continue;
            }
            sentences += 1;
            let is_sentence =
                run.err.lines().count() == 1 && run.err.starts_with("paceline: ") && run.err.ends_with(".\n");
            assert!(run.code == Some(1) && is_sentence, "{kilobytes} KB: {run:?}");
        }
        println!("{answers} answers and {sentences} sentences");
        assert!(answers > 0 && sentences > 0, "{answers} answers and {sentences} sentences");
    }
}

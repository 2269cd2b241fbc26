//! Hostile suites: whatever bytes they hold, reading them ends in a result or in one sentence.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

#[path = "../../../tests/hostile/driver.rs"]
mod driver;
#[path = "../../../tests/hostile/mutate.rs"]
#[allow(dead_code, reason = "this package's files are of one form")]
mod mutate;
mod reader;

use driver::{Kind, hold};
use mutate::Form;

#[test]
fn suites() {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/suites/tasks.toml")).unwrap();
    let seeds = vec![shipped.replace("../../datasets/tasks/test.jsonl", "prompts.jsonl").into_bytes(), SMALL.into()];
    hold(&Kind { name: "suite", form: Form::Text, seeds, read: reader::suite, mend: |input| input });
}

/// A suite with settings of other types.
const SMALL: &str = r#"name = "small"
repeats = 1
warm-up = 0
[engine]
model = "."
threads = 1
[answer]
max-new-tokens = 8
stop = ["\n"]
temperature = 0.5
seed = 7
[[prompts]]
path = "prompts.jsonl"
each = 1
[[plan]]
name = "a"
drafter = "exit:2"
draft-len = 3
hints = { turn = 1.0 }
[[plan]]
name = "b"
quality = "best-effort"
skip-layers = "late:1"
"#;

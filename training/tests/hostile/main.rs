//! Hostile recipes: whatever bytes they hold, reading them ends in a result or in one sentence.

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
fn recipes() {
    let recipes = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes");
    let text = |name: &str| std::fs::read_to_string(format!("{recipes}/{name}.toml")).unwrap();
    // A recipe's parameters have no values here.
    let read = |name: &str| text(name).replace("${DATA}", "data").into_bytes();
    let seeds = vec![read("smoke"), read("family")];
    hold(&Kind { name: "recipe", form: Form::Text, seeds, read: reader::recipe, mend: |input| input });
}

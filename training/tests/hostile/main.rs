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
    let read = |name: &str| std::fs::read(format!("{recipes}/{name}.toml")).unwrap();
    // Those that name no folder of the user's.
    let seeds = vec![read("smoke"), read("family")];
    hold(&Kind { name: "recipe", form: Form::Text, seeds, read: reader::recipe, mend: |input| input });
}

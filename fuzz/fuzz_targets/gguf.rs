//! Fuzz target of the reader `gguf`.

#![no_main]

#[path = "../../tests/hostile/readers.rs"]
#[allow(dead_code, reason = "a target has one of them")]
mod readers;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(readers::gguf(bytes)));

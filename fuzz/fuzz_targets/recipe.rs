//! Fuzz target of the reader `recipe`.

#![no_main]

#[path = "../../training/tests/hostile/reader.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(reader::recipe(bytes)));

//! Fuzz target of the reader `suite`.

#![no_main]

#[path = "../../eval/tests/hostile/reader.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(reader::suite(bytes)));

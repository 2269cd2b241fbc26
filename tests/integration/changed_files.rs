//! Weights files that other programs change while an engine uses them.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use paceline::checkpoint::CheckpointError;
use paceline::{Engine, EngineConfig, Error, GenerationConfig, Prompt};

use crate::support::fixture;

/// Nobody vouches for an answer whose weights were written to meanwhile. Where all weights were copied when they were loaded, as
/// those of a tied matrix are, the file may change as it likes.
#[test]
fn an_answer_from_weights_that_changed_is_an_error() {
    for (name, is_read) in [("llama-rope3", true), ("llama-tied", false)] {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixture(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        let weights = dir.path().join("model.safetensors");
        let engine = Engine::load(&EngineConfig { threads: 1, ..EngineConfig::new(dir.path()) }).unwrap();
        let settings = GenerationConfig { max_new_tokens: 6, ..GenerationConfig::default() };
        let ask = || engine.generate(Prompt::Tokens(vec![1, 2, 3]), &settings).unwrap().finish();
        let before = ask().unwrap();

        // Replaced by another file of the same name, as downloads and our own writers do it, it is the file that was opened.
        let copy = dir.path().join("copy");
        fs::copy(&weights, &copy).unwrap();
        fs::hard_link(&weights, dir.path().join("opened")).unwrap();
        fs::rename(&copy, &weights).unwrap();
        assert_eq!(ask().unwrap().tokens, before.tokens, "{name}");

        let writer = File::options().append(true).open(dir.path().join("opened")).unwrap();
        writer.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
        match ask() {
            Ok(answer) => assert!(!is_read && answer.tokens == before.tokens, "{name}"),
            Err(Error::Checkpoint(error @ CheckpointError::Changed { .. })) => {
                let said = error.to_string();
                assert!(is_read && said.contains("model.safetensors changed while it was in use"), "{said}");
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

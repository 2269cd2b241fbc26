//! Sources are held out as the recipe says, made once, and told by name where they cannot be used.

use std::fs;
use std::path::Path;

use paceline::files::{Fills, own_folder};

use super::*;
use crate::job::JobFlags;
use crate::tokenizer::{learn, save};
use crate::vocabulary;

const WORDS: &str = "the quick brown fox said to the lazy dog that there were 12 of them\n";

/// A recipe at work on a folder with `texts/` in it.
fn job(folder: &Path, recipe: &str) -> Job {
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
    let set = format!("TEXT={}", folder.join("texts").display());
    let flags =
        JobFlags { recipe: folder.join("recipe.toml"), out: Some(folder.join("out")), set: vec![set.parse().unwrap()] };
    Job::open(&flags).unwrap()
}

const RECIPE: &str = "[tokenizer]\nvocabulary = 280\n[data]\ndocument_tokens = 32\n[[data.text]]\npath = \"${TEXT}/*.txt\"\nvalidation = 0.25\n\
                      [[data.text]]\npath = \"${TEXT}/rows.jsonl\"\nweight = 3\nvalidation = 0\n[data.tasks]\ntrain = 9\n";

#[test]
fn sources_are_held_out_opened_and_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let texts = dir.path().join("texts");
    let tasks = dir.path().join("out/tasks");
    fs::create_dir_all(&texts).unwrap();
    for number in 0..8 {
        fs::write(texts.join(format!("{number}.txt")), WORDS.repeat(number + 2)).unwrap();
    }
    let rows = "{\"prompt\": \"the fox\", \"answer\": \"dog\"}\n".repeat(5);
    fs::write(texts.join("rows.jsonl"), &rows).unwrap();
    let job = job(dir.path(), RECIPE);
    let message = |result: Result<(), Failure>| result.unwrap_err().error.to_string();
    assert!(message(run(&job).map(drop)).contains("run `paceline-train tokenizer` first"));
    vocabulary::run(&job).unwrap();
    // The tasks were generated; shorter ones take their place.
    fs::write(tasks.join("train.jsonl"), rows.repeat(2)).unwrap();
    fs::write(tasks.join("validation.jsonl"), &rows).unwrap();
    run(&job).unwrap();
    let tokenizer = ChatTokenizer::open(&job.tokenizer()).unwrap();
    let found = open(&job, &tokenizer).unwrap();
    let counts: Vec<_> = found
        .iter()
        .map(|source| {
            let held_out = source.validation.as_ref().map(Shard::documents);
            (source.name.as_str(), source.weight, source.train.documents(), held_out)
        })
        .collect();
    // Every fourth of the files is held out: the third and the seventh, with 4 and 8 lines.
    assert_eq!(counts[1..], [("rows", 3.0, 5, None), ("tasks", 1.0, 10, Some(5))]);
    let lines = |shard: &Shard| {
        let ids = |index| shard.document(index).tokens.iter().map(|&id| u32::from(id)).collect::<Vec<u32>>();
        let words = (0..shard.documents()).map(|index| tokenizer.tokenizer().decode(&ids(index), true).unwrap());
        words.map(|words| words.matches("fox").count()).sum::<usize>()
    };
    assert_eq!((counts[0].0, lines(found[0].validation.as_ref().unwrap()), lines(&found[0].train)), ("texts", 12, 32));
    // Done once, and again when something changed.
    let written = |name: &str| fs::metadata(job.tokens().join(name)).unwrap().modified().unwrap();
    let before = ["texts.train.tokens", "rows.train.tokens"].map(written);
    run(&job).unwrap();
    assert_eq!(before, ["texts.train.tokens", "rows.train.tokens"].map(written));
    fs::write(texts.join("rows.jsonl"), &rows[..rows.len() / 5]).unwrap();
    run(&job).unwrap();
    assert_eq!(open(&job, &tokenizer).unwrap()[1].train.documents(), 1);
    assert_eq!(before[0], written("texts.train.tokens"));
}

#[test]
fn texts_that_cannot_be_used_are_told_by_name() {
    let recipe = "[tokenizer]\nvocabulary = 280\n[[data.text]]\npath = \"${TEXT}/rows.jsonl\"\nvalidation = 0\n[data]\ndocument_tokens = 16\n";
    for (text, said) in [
        ("", "The text rows is empty"),
        ("\n \n", "The text rows is empty"),
        (
            "{\"messages\": [{\"role\": \"robot\", \"content\": \"x\"}], \"answer\": \"y\"}",
            "a message is of the role robot",
        ),
        (
            "{\"prompt\": \"01234567890123456789\", \"answer\": \"y\"}",
            "All conversations of `rows` are longer than 16 tokens",
        ),
        ("\n{\"text\": 3}", "Line 2 of "),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("texts")).unwrap();
        own_folder(&dir.path().join("out"), Fills::All).unwrap();
        let folder = dir.path().join("out/tokenizer");
        fs::create_dir_all(&folder).unwrap();
        save(&learn(std::iter::once(WORDS.repeat(3)), 300).unwrap(), 64, &folder).unwrap();
        fs::write(dir.path().join("texts/rows.jsonl"), text).unwrap();
        let message = run(&job(dir.path(), recipe)).unwrap_err().error.to_string();
        assert!(message.to_lowercase().contains(&said.to_lowercase()), "{message}");
        assert!(!dir.path().join("out/tokens/rows.train.tokens").exists());
    }
}

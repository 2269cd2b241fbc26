//! The reader of suites as a function of bytes, for the driver and for the fuzz target.

use std::cell::RefCell;
use std::fs;

use paceline_eval::suite::Suite;

thread_local! {
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// What the suite asks.
const PROMPTS: &str = "{\"prompt\": \"What is 2 + 2?\", \"answer\": \"4\"}\n{\"prompt\": \"Say yes.\"}\n";

/// A suite, with a file of prompts beside it.
pub(crate) fn suite(bytes: &[u8]) -> Result<(), String> {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder for the inputs"));
        let path = folder.path().join("suite.toml");
        fs::write(folder.path().join("prompts.jsonl"), PROMPTS).expect("room for prompts");
        fs::write(&path, bytes).expect("room for an input");
        Suite::read(&path).map(drop).map_err(|error| error.to_string())
    })
}

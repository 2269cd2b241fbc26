//! The reader of recipes as a function of bytes, for the driver and for the fuzz target.

use std::cell::RefCell;
use std::fs;

use paceline_training::recipe::Recipe;

thread_local! {
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// A recipe.
pub(crate) fn recipe(bytes: &[u8]) -> Result<(), String> {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder for the inputs"));
        let path = folder.path().join("recipe.toml");
        fs::write(&path, bytes).expect("room for an input");
        Recipe::read(&path, &[]).map(drop).map_err(|error| error.to_string())
    })
}

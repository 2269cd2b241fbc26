//! Calls into the `tokenizers` crate, which panics on some contradictions in a damaged `tokenizer.json` (a
//! merge shorter than the subword prefix, an empty decoder) where it should fail.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// True while a panic of this thread would be turned into an error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// True if a panic of this thread would now be caught and become an error. The library leaves the process's panic hook
/// alone, so such a panic is reported by it like any other; a hook of the program's own can ask here and leave it out.
pub fn panic_is_caught() -> bool {
    GUARDED.get()
}

/// Runs a piece of the crate and turns a panic into an error. Nothing that a panic could leave half-done is used
/// afterwards but the crate's caches.
pub(super) fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(false);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its parts contradict each other".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_later_panics_are_reported_again() {
        assert_eq!(guarded::<()>(|| panic!("inside")), Err("its parts contradict each other".to_owned()));
        assert!(!GUARDED.get());
        assert_eq!(guarded(|| Ok(3)), Ok(3));
    }
}

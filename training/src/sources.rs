//! Training data as it lies in files: which files a source has, and the pieces of text and rows in them.
//!
//! Files are read piece by piece, so memory does not depend on their size. Line ends become `\n` and a byte order
//! mark at the beginning goes: neither says anything, and a small model should not have to learn them.

mod lines;
mod paragraphs;
mod rows;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use paceline::files::open_plain;

pub use self::paragraphs::Paragraphs;
pub use self::rows::{Row, Rows};
use crate::checksum::Checksum;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No file is where the recipe says.
    #[error(
        "There is no text at {path}: correct the `path` in the recipe, or the value of `--set` that it is made of."
    )]
    NoFiles {
        /// The path as the recipe gives it.
        path: String,
    },
    /// The recipe names nothing to learn from.
    #[error(
        "The recipe names nothing to learn from: give it a source, `[[data.text]]` with a `path`, or `[data.tasks]`."
    )]
    NoSources,
    /// A file or folder could not be read.
    #[error("The text {} cannot be read: {source}; check its name and its permissions.", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Bytes that are no text.
    #[error(
        "The text {} is not UTF-8 at byte {byte}: convert it (`iconv -t UTF-8`), or leave it out of the recipe.",
        path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first bad byte, from 1.
        byte: u64,
    },
    /// Nothing but white space.
    #[error("The text {path} is empty: give one with words in it, or leave it out of the recipe.")]
    Empty {
        /// The file, or the source's path.
        path: String,
    },
    /// A line of JSON lines that cannot be used.
    #[error("Line {line} of {} {reason}.", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The rest of the sentence.
        reason: String,
    },
}

/// The files at `path`, in which `*` in the last name stands for anything, sorted by name.
///
/// # Errors
/// When there are none, or the folder cannot be read.
pub fn files(path: &str) -> Result<Vec<PathBuf>, SourceError> {
    let none = || SourceError::NoFiles { path: path.to_owned() };
    let pattern = Path::new(path).file_name().and_then(|name| name.to_str()).ok_or_else(none)?;
    if !pattern.contains('*') {
        let file = PathBuf::from(path);
        return if file.is_file() { Ok(vec![file]) } else { Err(none()) };
    }
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(none());
    }
    let unreadable = |source| SourceError::Unreadable { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let fits = entry.file_name().to_str().is_some_and(|name| matches(pattern, name));
        if fits && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// True if `name` matches `pattern`, in which each `*` stands for any letters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, rest)) => name.strip_prefix(before).is_some_and(|name| {
            let starts = name.char_indices().map(|(start, _)| start).chain([name.len()]);
            starts.into_iter().any(|start| matches(rest, &name[start..]))
        }),
    }
}

/// True if a file has an object a line.
pub fn is_rows(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "jsonl")
}

/// The size of some files in bytes.
///
/// # Errors
/// When one cannot be looked at.
pub fn size(files: &[PathBuf]) -> Result<u64, SourceError> {
    let size = |path: &PathBuf| fs::metadata(path).map(|metadata| metadata.len());
    let unreadable = |path: &PathBuf, source| SourceError::Unreadable { path: path.clone(), source };
    files.iter().map(|path| size(path).map_err(|source| unreadable(path, source))).sum()
}

/// Adds what some files hold to a hash.
///
/// # Errors
/// When one cannot be read.
pub fn contents(files: &[PathBuf], hash: &mut Checksum) -> Result<(), SourceError> {
    let mut buffer = vec![0; 1 << 16];
    for path in files {
        let unreadable = |source| SourceError::Unreadable { path: path.clone(), source };
        let mut file = open_plain(path).map_err(|error| unreadable(error.into()))?;
        hash.text(&path.to_string_lossy());
        loop {
            match file.read(&mut buffer).map_err(unreadable)? {
                0 => break,
                length => hash.update(&buffer[..length]),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*.md", "a.md", true),
            ("*.md", "a.mdx", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("ü*", "üß", true),
            ("a", "b", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn files_are_found_in_order_and_missing_ones_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.md", "a.md", "c.txt"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("d.md")).unwrap();
        let find = |pattern: &str| files(&format!("{}/{pattern}", dir.path().display()));
        assert_eq!(find("*.md").unwrap(), [dir.path().join("a.md"), dir.path().join("b.md")]);
        assert_eq!(size(&find("*").unwrap()).unwrap(), 13);
        for none in ["*.rs", "a.rs", "x/*", "d.md"] {
            let message = find(none).unwrap_err().to_string();
            assert!(message.starts_with("There is no text at") && message.contains("--set"), "{message}");
        }
    }
}

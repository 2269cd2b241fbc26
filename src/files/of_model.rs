//! Reading the small JSON and text files of a model directory: plain files only, up to a size, in UTF-8
//! without a byte order mark; whatever is wrong is said with line and column.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::ReadError;
use crate::visible::{shown, shown_path};

/// Why a file of a model directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is not there.
    #[error("The file {} does not exist; the model directory is incomplete.", shown_path(.path))]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The system refused to read it.
    #[error("The file {} cannot be read: {}.", shown_path(.path), shown(&.source.to_string()))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is a directory, a device or a pipe.
    #[error("{} is not a plain file; replace it by the file of that name that came with the model.", shown_path(.path))]
    NotPlain {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than any real file of its kind.
    #[error(
        "The file {} is larger than the {limit} bytes that a file of its kind can have; it is not what its name says.",
        shown_path(.path)
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size that is read, in bytes.
        limit: u64,
    },
    /// It is not text in UTF-8, or starts with a byte order mark.
    #[error("The file {} {reason} at line {line}, column {column}; save it as UTF-8.", shown_path(.path))]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Description of the problem.
        reason: &'static str,
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// It is not JSON, or not of the form it should have.
    #[error(
        "The file {} cannot be understood at line {line}, column {column}: {}; repair it or download it again.",
        shown_path(.path),
        shown(.reason)
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
        /// The JSON reader's error message.
        reason: String,
    },
}

impl FileError {
    /// Why the file at `path` was not read.
    pub(crate) fn of(path: &Path, error: ReadError) -> Self {
        let path = path.to_owned();
        match error {
            ReadError::Absent => Self::Absent { path },
            ReadError::NotPlain(_) | ReadError::Deserted => Self::NotPlain { path },
            ReadError::TooLarge { most } => Self::TooLarge { path, limit: most },
            ReadError::NotText { line, column } => Self::Encoding { path, reason: "is not UTF-8", line, column },
            ReadError::System(source) => Self::Unreadable { path, source },
        }
    }
}

/// The text of the file at `path`, which may have `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, FileError> {
    super::read_text(path, limit).map_err(|error| FileError::of(path, error))
}

/// The text of the JSON file at `path`, which may have `limit` bytes.
pub(crate) fn read_json_text(path: &Path, limit: u64) -> Result<String, FileError> {
    let text = read_text(path, limit)?;
    if text.starts_with('\u{feff}') {
        let reason = "starts with a UTF-8 byte order mark, which JSON does not allow,";
        return Err(FileError::Encoding { path: path.to_owned(), reason, line: 1, column: 1 });
    }
    Ok(text)
}

/// The file at `path` read as JSON into `T`; it may have `limit` bytes.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T, FileError> {
    let text = read_json_text(path, limit)?;
    serde_json::from_str(&text).map_err(|error| json_error(path, &error))
}

/// As [`read_json`], `None` if there is no such file.
pub(crate) fn read_json_if_there<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<Option<T>, FileError> {
    match read_json(path, limit) {
        Ok(value) => Ok(Some(value)),
        Err(FileError::Absent { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Converts `error`, met in the file at `path`, with its place taken out of the text.
pub(crate) fn json_error(path: &Path, error: &serde_json::Error) -> FileError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let reason = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text).to_owned();
    FileError::Json { path: path.to_owned(), line, column, reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<serde_json::Value, FileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, bytes).unwrap();
        read_json(&path, 100)
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        assert_eq!(read(b"{\"a\": 1e-05}").unwrap()["a"], 1e-5);
        for (bytes, said) in [
            (&b"{\n  \"a\": 1,\n}"[..], "line 3, column 1: trailing comma"),
            (b"", "line 1, column 0: EOF while parsing"),
            (b"\xef\xbb\xbf{}", "byte order mark, which JSON does not allow, at line 1, column 1"),
            (b"{\n\"\xff\": 1}", "is not UTF-8 at line 2, column 2"),
            (&[b' '; 101], "larger than the 100 bytes"),
        ] {
            let message = read(bytes).unwrap_err().to_string();
            assert!(message.contains(said) && message.ends_with('.'), "{message}");
        }
    }

    #[test]
    fn a_directory_and_nothing_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read_text(dir.path(), 9), Err(FileError::NotPlain { .. })));
        assert!(matches!(read_text(&dir.path().join("none"), 9), Err(FileError::Absent { .. })));
        assert!(read_json_if_there::<serde_json::Value>(&dir.path().join("none"), 9).unwrap().is_none());
    }
}

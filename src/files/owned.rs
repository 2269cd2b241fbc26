//! Folders that a command fills with files of fixed names, such as `report.html`.
//!
//! A folder that a person names may hold such a file already, from somebody else. So a command marks the folders that it
//! fills, and replaces nothing in one that it did not mark.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{Kind, ReadError, WriteError, found, open_plain, patient_options, write_file};
use crate::visible::shown_path;

/// The file that marks a folder.
pub const MARK: &str = ".made-by-paceline";

const MARK_TEXT: &str = "Paceline fills this folder, and replaces files here that have the names it uses.\n";

/// Files that a command writes into a folder.
#[derive(Clone, Copy, Debug)]
pub enum Fills<'a> {
    /// Files and folders of any name.
    All,
    /// Those of these names.
    Names(&'a [&'a str]),
}

/// Why a folder is not filled.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// It cannot be made or written to.
    #[error("The folder {} cannot be used: {source}; name one that you may write with `--out`.", shown_path(.path))]
    System {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It holds something that would be replaced, or may be.
    #[error(
        "The folder {} holds {}, which may not be of this program: name a new folder with `--out`, or move it away.",
        shown_path(.path),
        shown_path(.name)
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The first name in it that stands in the way.
        name: PathBuf,
    },
}

/// Makes the folder at `path`, unless it is there, and marks it as one that this program fills.
///
/// # Errors
/// When that fails; and when it is not marked yet and holds something of the names that would be filled.
pub fn own_folder(path: &Path, fills: Fills<'_>) -> Result<(), OwnError> {
    let system = |source| OwnError::System { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(system)?;
    let mark = path.join(MARK);
    match found(&mark).map_err(system)?.map(|found| Kind::of(&found)) {
        Some(Kind::Plain) => return Ok(()),
        Some(_) => return Err(OwnError::Foreign { path: path.to_owned(), name: MARK.into() }),
        None => {}
    }
    if let Some(name) = foreign(path, fills).map_err(system)? {
        return Err(OwnError::Foreign { path: path.to_owned(), name });
    }
    let made = patient_options().write(true).create_new(true).open(&mark);
    match made.and_then(|mut file| file.write_all(MARK_TEXT.as_bytes())) {
        // Another process was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(system),
    }
}

/// The first thing in a folder that would be replaced.
fn foreign(folder: &Path, fills: Fills<'_>) -> io::Result<Option<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let is_filled = match fills {
            // No name that is filled is a hidden one.
            Fills::All => !name.as_encoded_bytes().starts_with(b"."),
            Fills::Names(names) => names.iter().any(|known| name == **known),
        };
        if is_filled {
            found.push(PathBuf::from(name));
        }
    }
    Ok(found.into_iter().min())
}

/// True if a file of ours may stand at `path`: nothing is there, an empty file is, or one whose beginning is known.
/// `is_ours` sees its first `most` bytes.
///
/// # Errors
/// When what is there cannot be read.
pub fn may_replace(path: &Path, most: u64, is_ours: impl FnOnce(&[u8]) -> bool) -> Result<bool, ReadError> {
    let file = match open_plain(path) {
        Err(ReadError::Absent) => return Ok(true),
        Err(ReadError::NotPlain(_)) => return Ok(false),
        opened => opened?,
    };
    let mut beginning = Vec::new();
    file.take(most).read_to_end(&mut beginning)?;
    Ok(beginning.is_empty() || is_ours(&beginning))
}

/// Puts a safetensors file with these `bytes`, which have `key` in their metadata, at `path`, and replaces only files
/// that have it too.
///
/// # Errors
/// When that fails, or another file is there; it is then as it was.
pub fn write_tensors(path: &Path, key: &str, bytes: &[u8]) -> Result<(), WriteError> {
    /// Bytes in which the key stands: the headers of our files are shorter.
    const LONGEST_HEADER: u64 = 1 << 20;
    let refused = |reason: &str| WriteError {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned()),
    };
    let has_key = |beginning: &[u8]| {
        let header = beginning.get(8..).unwrap_or_default();
        header.starts_with(b"{") && header.windows(key.len()).any(|name| name == key.as_bytes())
    };
    match may_replace(path, LONGEST_HEADER, has_key) {
        Ok(true) => write_file(path, bytes),
        Ok(false) => Err(refused("something else of that name is in the way")),
        Err(error) => Err(WriteError { path: path.to_owned(), source: error.into() }),
    }
}

//! Reading GGUF files (versions 2 and 3), the format of llama.cpp: metadata, the table of tensors, and where their bytes lie.
//!
//! The reader is our own for the reasons that the safetensors header has one: every count, length, offset and text is checked
//! against the file before it is used, and memory stays within a few times the header, whatever a damaged file claims.
//! The format is described in ggml's `docs/gguf.md`; what llama.cpp refuses is refused here.

mod config;
mod cursor;
mod ends;
mod location;
mod metadata;
mod model;
mod names;
mod tensors;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests;
mod types;
pub(crate) mod vocabulary;
#[cfg(test)]
#[allow(clippy::expect_used, reason = "a failing test may panic")]
pub(crate) mod writer;

use std::path::Path;
use std::sync::Arc;

use paceline_kernels::MappedFile;

use self::cursor::{Cursor, Reason};
pub use self::ends::end_of_generation;
#[cfg(feature = "download")]
pub(crate) use self::location::has_all_parts;
pub(super) use self::location::model_name;
pub(crate) use self::location::{find, models_in};
pub use self::metadata::{Metadata, Value};
pub(super) use self::model::Model;
pub(super) use self::names::{Dialect, from_gguf, to_gguf};
pub(super) use self::tensors::TensorInfo;
pub(super) use self::types::read_types;
use super::added_up;
use super::error::CheckpointError;
use crate::files;
use crate::files::of_model::FileError;

const MAGIC: [u8; 4] = *b"GGUF";
/// Offsets are multiples of this unless the file says otherwise.
const ALIGNMENT: usize = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// The metadata of the GGUF model that a path leads to; `None` where it leads to something else.
///
/// # Errors
/// As [`Gguf::open`], and if it is a directory with several GGUF models.
pub fn metadata_of(path: &Path) -> Result<Option<Metadata>, CheckpointError> {
    Ok(match find(path)? {
        Some(file) => Some(model::first(&file)?.metadata),
        None => None,
    })
}

/// A GGUF file, mapped, with its header checked.
#[derive(Debug)]
pub struct Gguf {
    /// The mapped file.
    pub file: Arc<MappedFile>,
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Values by key.
    pub metadata: Metadata,
    /// Tensors in the order of the file.
    pub(super) tensors: Vec<TensorInfo>,
}

impl Gguf {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// If it cannot be read, is of another version or byte order, or breaks the format.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = files::map(path).map_err(|error| FileError::of(path, error))?;
        Self::of(Arc::new(map), path)
    }

    /// Types of the tensors with the values that they hold, the largest part first.
    pub fn types(&self) -> Vec<(&'static str, u64)> {
        let values = |info: &TensorInfo| info.shape.iter().map(|size| *size as u64).product();
        added_up(self.tensors.iter().map(|info| (info.kind.name(), values(info))))
    }

    fn of(file: Arc<MappedFile>, path: &Path) -> Result<Self, CheckpointError> {
        let damaged = |reason: Reason| CheckpointError::Damaged { path: path.to_owned(), reason };
        let mut cursor = Cursor::new(&file);
        let version = version(&mut cursor).map_err(|problem| match problem {
            Problem::Foreign(reason) => CheckpointError::NotAModel { path: path.to_owned(), reason },
            Problem::Damaged(reason) => damaged(reason),
        })?;
        let read = |cursor: &mut Cursor<'_>| {
            // A tensor takes a name's length, dimensions, kind and offset; a value a key's length, kind and a byte.
            let tensors = cursor.count("tensors", 8 + 4 + 4 + 8)?;
            let values = cursor.count("values of metadata", 8 + 4 + 1)?;
            let metadata = Metadata::read(cursor, values, &file, path)?;
            let alignment = alignment(&metadata)?;
            let tensors = tensors::read(cursor, tensors, alignment)?;
            Ok((metadata, tensors))
        };
        let (metadata, tensors) = read(&mut cursor).map_err(damaged)?;
        Ok(Self { version, metadata, tensors, file })
    }
}

enum Problem {
    /// Another program's, or another version.
    Foreign(String),
    Damaged(Reason),
}

fn version(cursor: &mut Cursor<'_>) -> Result<u32, Problem> {
    let magic: [u8; 4] = cursor.array().map_err(Problem::Damaged)?;
    if magic != MAGIC {
        let old = [b"ggml", b"fmgg", b"tjgg", b"lmgg", b"ggjt", b"ggmf"].contains(&&magic);
        let reason = if old { "is a file of ggml from before GGUF" } else { "does not begin as a GGUF file" };
        return Err(Problem::Foreign(format!("{reason}; take a GGUF file of version 2 or 3")));
    }
    let version = cursor.u32().map_err(Problem::Damaged)?;
    match version {
        2 | 3 => Ok(version),
        other if (1..=0xFFFF).contains(&other.swap_bytes()) => Err(Problem::Foreign(
            "is a GGUF file for machines of the other byte order (big-endian); take the one for little-endian machines"
                .to_owned(),
        )),
        other => Err(Problem::Foreign(format!(
            "is a GGUF file of version {other}; versions 2 and 3 are read: convert the model again with a current llama.cpp"
        ))),
    }
}

fn alignment(metadata: &Metadata) -> Result<usize, Reason> {
    let stated = metadata.integer::<usize>(ALIGNMENT_KEY).map_err(|error| error.to_string())?.unwrap_or(ALIGNMENT);
    if !stated.is_power_of_two() {
        return Err(format!("its {ALIGNMENT_KEY} is {stated}, which is not a power of two"));
    }
    Ok(stated)
}

//! Packed weights kept on disk: a second start reads them instead of packing the model again.
//!
//! A file has the matrices as they lie in memory, one after the other, and behind them an index with the hash of each. It serves
//! a model whose weights files are those that it was made of, by the same version of the layout; any other one is made anew. A
//! matrix is hashed again before it is used, and where it is not what was written it is packed from the model. Whether a weights file is the same is told by what the system says of it
//! (size, times of its last changes, its number on the disk), as a version control system does, and where that differs, or is too
//! young to tell, by the hash of all of its bytes.
//!
//! The matrices are copied into memory and not computed with where they are mapped: huge pages, which a file has not, make
//! products faster, and nobody who writes to the file can change a token later on.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use paceline_kernels::{Kernels, MappedFile, MatrixFormat, PACKED_LAYOUT, PackedWeights, WeightArena};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::checksum::Checksum;
use crate::files::{AtomicFile, map, may_replace};
use crate::visible::shown_path;

/// What a file begins with: sixteen bytes.
const MARK: &[u8; 16] = b"paceline packed\n";
/// Bytes behind the index: its length and its hash.
const END: usize = 16;
/// The largest index that is read.
const LARGEST_INDEX: usize = 64 << 20;
/// A change of a file within this time before it was looked at may not show in its times.
const TICK: Duration = Duration::from_secs(2);
/// What stands behind the matrices.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    /// Who made it: [`version`].
    version: String,
    /// [`Checkpoint::fingerprint`] of the model, in hexadecimal digits.
    fingerprint: String,
    /// The model's weights files.
    sources: Vec<Seen>,
    /// When these were looked at, in nanoseconds since 1970.
    at: u64,
    matrices: Vec<Entry>,
}

/// What decides how a model's values lie in a file.
fn version() -> String {
    format!("{} {PACKED_LAYOUT}", env!("CARGO_PKG_VERSION"))
}

/// What a system says of a file.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    bytes: u64,
    /// Times of the last change of its bytes and of what is said of it, in nanoseconds since 1970, and the file's numbers; none where the
    /// system does not tell them.
    identity: Option<[u64; 4]>,
}

/// A matrix and where it lies.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    format: String,
    /// Outputs and inputs.
    sizes: (usize, usize),
    start: usize,
    bytes: usize,
    /// Hash of the bytes, in hexadecimal digits.
    hash: String,
}

impl Seen {
    fn of(found: &Metadata) -> Self {
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt;
            let time =
                |seconds: i64, nanos: i64| (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(nanos as u64);
            let (written, changed) = (time(found.mtime(), found.mtime_nsec()), time(found.ctime(), found.ctime_nsec()));
            Some([written, changed, found.ino(), found.dev()])
        };
        #[cfg(not(unix))]
        let identity = None;
        Self { bytes: found.len(), identity }
    }

    /// True if a change after it was looked at would have shown.
    fn is_settled(&self, at: u64) -> bool {
        self.identity
            .is_some_and(|[written, changed, ..]| written.max(changed).saturating_add(TICK.as_nanos() as u64) < at)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// What the system says of a checkpoint's weights files, in the order of their paths.
fn seen(checkpoint: &Checkpoint) -> io::Result<Vec<Seen>> {
    checkpoint.mapped_files().iter().map(|file| Ok(Seen::of(&file.metadata()?))).collect()
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// The hash of bytes: of four sequences of lines side by side, as each step of one waits for the step before.
fn hash(bytes: &[u8]) -> String {
    let mut lanes: [Checksum; 4] = Default::default();
    for (index, line) in bytes.chunks(64).enumerate() {
        lanes[index % lanes.len()].update(line);
    }
    let mut whole = Checksum::default();
    lanes.iter().for_each(|lane| whole.update(&lane.finish().to_le_bytes()));
    hex(whole.finish())
}

/// Where matrices of a checkpoint are kept, if they are.
#[derive(Default)]
pub(super) enum Kept {
    /// They are not.
    #[default]
    No,
    /// Those of a file.
    There(Packed),
    /// They are written while they are packed.
    Written(Writer),
    /// They could not be written: why.
    Failed(String),
}

/// A file of the right model.
pub(super) struct Packed {
    file: MappedFile,
    matrices: HashMap<String, Entry>,
    /// A matrix that is not what was written.
    damaged: Option<String>,
}

/// A file in the making.
pub(super) struct Writer {
    out: AtomicFile,
    at: usize,
    matrices: Vec<Entry>,
}

/// The file below `root` for a checkpoint in a format: its name says what it is of.
fn place(root: &Path, checkpoint: &Checkpoint, format: MatrixFormat) -> PathBuf {
    let path = std::path::absolute(checkpoint.path()).unwrap_or_else(|_| checkpoint.path().to_owned());
    let name =
        path.file_name().unwrap_or_default().to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let name: String = name.chars().take(80).collect();
    let mut of_path = Checksum::default();
    of_path.update(path.as_os_str().as_encoded_bytes());
    root.join(format!("{name}-{format}-{:08x}.packed", of_path.finish() as u32))
}

impl Kept {
    /// What is kept below `root` of a checkpoint in `format`, or the beginning of it.
    pub(super) fn open(root: &Path, checkpoint: &Checkpoint, format: MatrixFormat) -> Self {
        let place = place(root, checkpoint, format);
        if let Some(packed) = Packed::open(&place, checkpoint) {
            return Self::There(packed);
        }
        match Writer::begin(&place) {
            Ok(writer) => Self::Written(writer),
            Err(reason) => Self::Failed(reason),
        }
    }

    /// A kept matrix, if there is one that is what was written.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(super) fn take(
        &mut self,
        (name, format): (&str, MatrixFormat),
        sizes: (usize, usize),
        packer: &Kernels,
        arena: &mut WeightArena,
    ) -> io::Result<Option<PackedWeights>> {
        let Self::There(packed) = self else { return Ok(None) };
        let is_it = |entry: &&Entry| (entry.format.as_str(), entry.sizes) == (format.to_string().as_str(), sizes);
        let Some(entry) = packed.matrices.get(name).filter(is_it) else { return Ok(None) };
        let range = entry.start..entry.start.saturating_add(entry.bytes);
        let bytes =
            packed.file.get(range.clone()).filter(|bytes| bytes.len() as u64 == format.matrix_bytes(sizes.0, sizes.1));
        let matrix = bytes.map(|bytes| packer.packed_before(bytes, format, sizes, arena)).transpose()?;
        packed.file.release(range);
        // The copy is hashed: nobody can change it any more.
        let matrix = matrix.filter(|matrix| hash(matrix.as_bytes()) == entry.hash);
        if matrix.is_none() {
            packed.damaged = Some(name.to_owned());
        }
        Ok(matrix)
    }

    /// Adds a matrix to what is being written.
    pub(super) fn keep(&mut self, name: &str, packed: &PackedWeights) {
        if let Self::Written(writer) = self
            && let Err(error) = writer.add(name, packed)
        {
            *self = Self::Failed(writer.out.failed(error).to_string());
        }
    }

    /// Ends what is being written. Says why nothing is kept, where nothing is.
    pub(super) fn finish(self, checkpoint: &Checkpoint) -> Option<String> {
        match self {
            Self::No => None,
            Self::There(packed) => packed.end(),
            Self::Written(writer) => writer.finish(checkpoint).err(),
            Self::Failed(reason) => Some(reason),
        }
    }
}

impl Packed {
    /// The file at `place`, if it is whole and of this checkpoint.
    fn open(place: &Path, checkpoint: &Checkpoint) -> Option<Self> {
        let file = map(place).ok()?;
        let Index { version: made_by, fingerprint, sources, at, matrices } = index(&file)?;
        if made_by != version() {
            return None;
        }
        let is_as_before =
            seen(checkpoint).is_ok_and(|now| now == sources) && sources.iter().all(|file| file.is_settled(at));
        if !is_as_before && fingerprint != hex(checkpoint.fingerprint()) {
            return None;
        }
        let matrices = matrices.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        Some(Self { file, matrices, damaged: None })
    }

    /// Removes the file if it is damaged, so that the next start writes another.
    fn end(self) -> Option<String> {
        let path = self.file.path();
        let name = self.damaged?;
        let removed = match fs::remove_file(path) {
            Ok(()) => "it was removed, and the next start writes it anew".to_owned(),
            Err(error) => format!("it cannot be removed ({error}); remove it"),
        };
        Some(format!(
            "The packed weights in {} are damaged at `{name}`, which was packed from the model: {removed}.",
            shown_path(path)
        ))
    }
}

/// The index of a file of ours.
fn index(file: &[u8]) -> Option<Index> {
    let rest = file.strip_prefix(MARK)?;
    let (body, end) = rest.split_at_checked(rest.len().checked_sub(END)?)?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    let (length, expected) = (usize::try_from(number(&end[..8])?).ok()?, number(&end[8..])?);
    let index = &body[body.len().checked_sub(length.min(LARGEST_INDEX + 1))?..];
    let is_whole = length <= LARGEST_INDEX && Checksum::of(index) == expected;
    if is_whole { serde_json::from_slice(index).ok() } else { None }
}

impl Writer {
    /// Begins the file at `place`, if nothing else is there.
    fn begin(place: &Path) -> Result<Self, String> {
        match may_replace(place, MARK.len() as u64, |beginning| MARK.starts_with(beginning)) {
            Ok(true) => {}
            Ok(false) => {
                return Err(format!("The packed weights are not kept: {} is not one of our files.", shown_path(place)));
            }
            Err(error) => return Err(format!("The packed weights are not kept in {}: {error}.", shown_path(place))),
        }
        let mut out = AtomicFile::create(place).map_err(|error| error.to_string())?;
        out.write_all(MARK).map_err(|error| out.failed(error).to_string())?;
        Ok(Self { out, at: MARK.len(), matrices: Vec::new() })
    }

    fn add(&mut self, name: &str, packed: &PackedWeights) -> io::Result<()> {
        let bytes = packed.as_bytes();
        self.matrices.push(Entry {
            name: name.to_owned(),
            format: packed.format().to_string(),
            sizes: (packed.out_features(), packed.in_features()),
            start: self.at,
            bytes: bytes.len(),
            hash: hash(bytes),
        });
        self.at += bytes.len();
        self.out.write_all(bytes)
    }

    /// Writes the index and puts the file in its place; or says why not.
    fn finish(self, checkpoint: &Checkpoint) -> Result<(), String> {
        let Self { mut out, matrices, .. } = self;
        let write = |out: &mut AtomicFile| {
            let (at, sources) = (now(), seen(checkpoint)?);
            let fingerprint = hex(checkpoint.fingerprint());
            let index = serde_json::to_vec(&Index { version: version(), fingerprint, sources, at, matrices })?;
            out.write_all(&index)?;
            out.write_all(&(index.len() as u64).to_le_bytes())?;
            out.write_all(&Checksum::of(&index).to_le_bytes())
        };
        match write(&mut out) {
            Ok(()) => out.commit().map_err(|error| error.to_string()),
            Err(error) => Err(out.failed(error).to_string()),
        }
    }
}

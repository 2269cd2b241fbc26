//! The journal: a digest of each answer on disk, and what the answers of a period come to.
//!
//! It is JSON lines, an object an answer, with nothing of prompts and texts. Several processes may write to one: each
//! appends its line in one write, and where it grows too large one of them replaces it by its newer half while the others
//! wait. A journal serves answers and never fails them: what goes wrong is a warning in the report. A line that cannot be
//! read is left out and counted.

mod entry;
mod period;
mod stats;
#[cfg(test)]
mod tests;

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use entry::{Adaptation, Entry};
pub use period::{Period, PeriodError};
pub use stats::{AdaptationStats, Adapted, EnergyUsed, Group, QualityKept, TimeSaved};

use crate::files::{self, LockError, LockKind, ReadError, WriteError, lock_file_of, write_file};
use crate::visible::shown_path;
use entry::Line;

/// Bytes beyond which the older half goes: some ten thousand answers.
const LARGEST: u64 = 4 << 20;
/// Bytes that are read at most. Journals are smaller.
const MOST_READ: u64 = 16 << 20;
/// Bytes of a journal that is shortened at most: one that was put together by hand may be large.
const MOST_SHORTENED: u64 = 256 << 20;
/// Longest wait of an answer for another process that shortens the journal, which takes milliseconds.
const PATIENCE: Duration = Duration::from_millis(200);
/// Beginnings of the first line of a journal.
const BEGINNINGS: [&[u8]; 2] = [b"{\"at\":", b"{\"dropped\":"];

/// Problems with a journal, and what to do about them.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the variants and their fields mean")]
pub enum JournalError {
    #[error(
        "There is no journal at {}: answers are noted there as they are made; make one, or name another file with `--journal`.",
        shown_path(.path)
    )]
    Missing { path: PathBuf },
    #[error("The journal {} cannot be read: {source}; name a file that you may read with `--journal`.", shown_path(.path))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("The journal {} cannot be read: it has more than {MOST_READ} bytes, and journals are smaller; name another file with `--journal`.", shown_path(.path))]
    TooLarge { path: PathBuf },
    #[error("{} cannot be a journal: it is not a file; name one with `--journal`.", shown_path(.path))]
    NoFile { path: PathBuf },
    #[error(
        "The answer is not in the journal: {} cannot be written ({source}); make room there, name a file that you may write with `--journal`, or do without by `--no-journal`.",
        shown_path(.path)
    )]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(
        "The answer is not in the journal: another process keeps {} locked; end it, name another file with `--journal`, or do without by `--no-journal`.",
        shown_path(.path)
    )]
    Locked { path: PathBuf },
    #[error("{} is not a journal: no line of it is an answer's; name another file with `--journal`.", shown_path(.path))]
    NoEntries { path: PathBuf },
    #[error(
        "The answer is not in the journal: {} begins like none and was left alone; name another file with `--journal`.",
        shown_path(.path)
    )]
    Foreign { path: PathBuf },
    #[error("The journal has grown to {bytes} bytes and its older half should go. {source}")]
    NotShortened { bytes: u64, source: WriteError },
}

/// Milliseconds since 1970 by the system's clock.
fn now() -> u64 {
    // A clock before that year is as good as none.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Statistics of the answers of a period, by the journal in a file. Answers that the journal no longer holds, and lines
/// that are damaged, are in its warnings.
///
/// # Errors
/// If there is no such file, or it cannot be read.
pub fn adaptation_stats(journal: &Path, period: Period) -> Result<AdaptationStats, JournalError> {
    Journal::new(journal).stats(period, now())
}

/// A journal in a file.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
    largest: u64,
    patience: Duration,
    /// True if the last wait for the lock, in each of its kinds, was in vain.
    waited_in_vain: Arc<[AtomicBool; 2]>,
}

/// Contents of a journal.
#[derive(Debug, Default)]
struct Contents {
    entries: Vec<Entry>,
    /// Lines that cannot be read.
    damaged: u64,
    /// Answers that have gone with older halves, and when the last of them was done.
    dropped: Option<(u64, u64)>,
}

impl Journal {
    /// The journal in this file, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), largest: LARGEST, patience: PATIENCE, waited_in_vain: Arc::default() }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an answer. Makes file and folder where there are none.
    ///
    /// # Errors
    /// When it cannot be written, or the file is not a journal, and is then as it was; and when the journal became too large and
    /// cannot be shortened.
    pub fn append(&self, entry: &Entry) -> Result<(), JournalError> {
        let unwritable = |source| JournalError::Unwritable { path: self.path.clone(), source };
        let is_file = match fs::metadata(&self.path) {
            Ok(found) if found.is_file() => true,
            Ok(found) if is_device(&found) => false,
            // To open a pipe would be to wait for somebody who reads it.
            Ok(_) => return Err(JournalError::NoFile { path: self.path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(unwritable(error)),
        };
        let line = Line::Entry(Box::new(entry.clone())).to_bytes();
        if !is_file {
            let mut device = files::open_device(&self.path).map_err(unwritable)?;
            return device.write_all(&line).map_err(unwritable);
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
        folder.map_or(Ok(()), fs::create_dir_all).map_err(unwritable)?;
        let together = self.lock(LockKind::Shared).map_err(|_| JournalError::Locked { path: self.path.clone() })?;
        let bytes = self.write(line)?;
        drop(together);
        if bytes > self.largest { self.shorten(bytes) } else { Ok(()) }
    }

    /// Writes a line at the end of the file, which has so many bytes afterwards.
    fn write(&self, mut line: Vec<u8>) -> Result<u64, JournalError> {
        let mut write = || {
            let mut file = files::open_to_append(&self.path)?;
            let mut beginning = Vec::new();
            (&file).take(16).read_to_end(&mut beginning)?;
            let is_beginning = |known: &&[u8]| beginning.starts_with(&known[..known.len().min(beginning.len())]);
            if !BEGINNINGS.iter().any(is_beginning) {
                return Ok(None);
            }
            let mut last = [b'\n'];
            if !beginning.is_empty() {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            if last != [b'\n'] {
                // Somebody ended within a line, which is not to take this one with it.
                line.insert(0, b'\n');
            }
            // One write, so that lines of several processes do not mix.
            if file.write(&line)? < line.len() {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            Ok(Some(file.metadata()?.len()))
        };
        match write() {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(JournalError::Foreign { path: self.path.clone() }),
            Err(source) => Err(JournalError::Unwritable { path: self.path.clone(), source }),
        }
    }

    /// Takes the lock beside the journal, which appending processes share and one that shortens it has alone, if it is to be had
    /// within [`PATIENCE`]. Once that was in vain, further answers do not wait for it, until one of them gets it. Where there can
    /// be no lock, there is none.
    fn lock(&self, kind: LockKind) -> Result<Option<File>, LockError> {
        let in_vain = &self.waited_in_vain[kind as usize];
        let patience = if in_vain.load(Ordering::Relaxed) { Duration::ZERO } else { self.patience };
        let taken = files::lock(&lock_file_of(&self.path), kind, patience);
        in_vain.store(matches!(taken, Err(LockError::Held)), Ordering::Relaxed);
        files::if_possible(taken)
    }

    /// Replaces the journal by its newer half, and a line that says what has gone.
    fn shorten(&self, bytes: u64) -> Result<(), JournalError> {
        // Whoever has the lock shortens it, or appends to it and will.
        let Ok(_alone) = self.lock(LockKind::Alone) else { return Ok(()) };
        let unwritable = |source| JournalError::Unwritable { path: self.path.clone(), source };
        let text = files::read(&self.path, MOST_SHORTENED).map_err(|error| unwritable(error.into()))?;
        if text.len() as u64 <= self.largest {
            return Ok(());
        }
        let middle = text.len() / 2;
        let cut = text[middle..].iter().position(|&byte| byte == b'\n').map_or(text.len(), |place| middle + place + 1);
        let gone = Contents::of(&text[..cut]);
        let (before, since) = gone.dropped.unwrap_or_default();
        let line = Line::Dropped {
            dropped: before.saturating_add(gone.entries.len() as u64),
            until: gone.entries.iter().map(|entry| entry.at).max().unwrap_or(since),
        };
        let shorter = [&line.to_bytes(), &text[cut..]].concat();
        write_file(&self.path, &shorter).map_err(|source| JournalError::NotShortened { bytes, source })
    }

    /// Statistics of the answers of a period that ends now (milliseconds since 1970).
    fn stats(&self, period: Period, now: u64) -> Result<AdaptationStats, JournalError> {
        let contents = self.read()?;
        let since = match period {
            Period::All => 0,
            Period::Last(duration) => now.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        };
        let shown = shown_path(&self.path);
        let mut warnings = Vec::new();
        if contents.damaged > 0 {
            let lines = if contents.damaged == 1 { "line is" } else { "lines are" };
            warnings.push(format!("{} {lines} damaged in the journal {shown} and left out.", contents.damaged));
        }
        if let Some((dropped, _)) = contents.dropped.filter(|(_, until)| *until >= since) {
            warnings.push(format!(
                "The journal {shown} no longer holds all of this period: its {dropped} oldest answers went when it grew too large."
            ));
        }
        let entries: Vec<&Entry> = contents.entries.iter().filter(|entry| entry.at >= since).collect();
        Ok(AdaptationStats::of(&entries, shown, period, warnings))
    }

    fn read(&self) -> Result<Contents, JournalError> {
        let path = self.path.clone();
        match files::read(&self.path, MOST_READ) {
            Ok(text) => {
                let contents = Contents::of(&text);
                let is_begun = BEGINNINGS.iter().any(|known| text.starts_with(&known[..known.len().min(text.len())]));
                if contents.entries.is_empty() && contents.dropped.is_none() && !is_begun {
                    return Err(JournalError::NoEntries { path });
                }
                Ok(contents)
            }
            Err(ReadError::Absent) => Err(JournalError::Missing { path }),
            Err(ReadError::NotPlain(_)) => Err(JournalError::NoFile { path }),
            Err(ReadError::TooLarge { .. }) => Err(JournalError::TooLarge { path }),
            Err(error) => Err(JournalError::Unreadable { path, source: error.into() }),
        }
    }
}

/// True if it is a device, which takes what is written or says why not.
fn is_device(found: &Metadata) -> bool {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileTypeExt::is_char_device(&found.file_type())
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        false
    }
}

impl Contents {
    fn of(text: &[u8]) -> Self {
        let mut contents = Self::default();
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            match Line::parse(line) {
                Some(Line::Entry(entry)) => contents.entries.push(*entry),
                Some(Line::Dropped { dropped, until }) => contents.dropped = Some((dropped, until)),
                None => contents.damaged += 1,
            }
        }
        contents
    }
}

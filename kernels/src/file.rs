//! A read-only file mapping behind a safe face, and what it promises of files that others change.
//!
//! Mapping is `unsafe` because another process may change the file underneath. What that can do here:
//!
//! - *Overwritten in place*: the values that are read are unpredictable, and nothing else. No code relies on mapped bytes for
//!   memory safety: every reader treats them as plain numbers, and what has to be checked before it is used (text, offsets) is
//!   copied first and checked in the copy. [`MappedFile::has_changed`] tells afterwards that values cannot be vouched for, by
//!   the file's size and the time of its last change; a change within the same tick of the file system's clock, some
//!   milliseconds, or by somebody who sets that time back, is not noticed.
//! - *Cut short*: reading what is gone raises `SIGBUS`, which ends the process, as no instruction could go on. Programs call
//!   [`explain_bus_errors`](crate::explain_bus_errors), so that they end with a sentence and exit code 1; a library has no
//!   business with a process's signals, so one that does not call it dies by the signal.
//! - *Replaced by another file of the same name* or removed: nothing, the mapping is of the file that was opened.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::bus_error::Explained;

/// A whole file mapped for reading. Pages are read from disk when first touched and can be dropped again by the system.
#[derive(Debug)]
pub struct MappedFile {
    /// Goes before the mapping does.
    _explained: Explained,
    map: memmap2::Mmap,
    file: File,
    path: PathBuf,
    /// As it was before it was mapped.
    state: State,
}

/// Metadata of a file that differs after it was written to.
#[derive(Debug, PartialEq, Eq)]
struct State {
    bytes: u64,
    /// `None` where the system does not keep it.
    written: Option<SystemTime>,
}

impl State {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { bytes: found.len(), written: found.modified().ok() })
    }
}

impl MappedFile {
    /// Maps a file that was opened at `path`, which is for messages alone.
    ///
    /// # Errors
    /// The error from mapping it; a directory or another thing that is not a plain file is refused.
    pub fn new(file: File, path: &Path) -> io::Result<Self> {
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"));
        }
        let state = State::of(&file)?;
        // SAFETY: the mapping is read-only and private to this value; see the module's header for what
        // outside changes can do.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        let explained = Explained::new(&map, path);
        Ok(Self { _explained: explained, map, file, path: path.to_owned(), state })
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the system says of the file that was opened, now.
    ///
    /// # Errors
    /// The system's.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// True if the file was written to or truncated since it was mapped, so that what was read of it since cannot be
    /// vouched for. A file whose state cannot be queried counts as changed.
    pub fn has_changed(&self) -> bool {
        !State::of(&self.file).is_ok_and(|now| now == self.state)
    }

    /// A byte range as numbers of 16 bits, lowest byte first. None if it is not in the file, has an odd length or begins
    /// at an odd place, or if the machine orders bytes the other way round.
    pub fn u16s(&self, bytes: std::ops::Range<usize>) -> Option<&[u16]> {
        if cfg!(target_endian = "big") {
            return None;
        }
        let bytes = self.get(bytes)?;
        // SAFETY: any two bytes are a valid u16, and what does not lie at a multiple of two is left out of the middle.
        match unsafe { bytes.align_to::<u16>() } {
            ([], numbers, []) => Some(numbers),
            _ => None,
        }
    }

    /// Lets the pages of a byte range go from this process's memory; reading them again fetches them from the
    /// file. A range outside the file, or a system that has no such call, leaves everything as it is: this is
    /// advice, never a change of what is read.
    pub fn release(&self, bytes: std::ops::Range<usize>) {
        #[cfg(unix)]
        if bytes.start < bytes.end && bytes.end <= self.map.len() {
            // SAFETY: the mapping is file-backed and read-only, so dropped pages come back with the file's bytes.
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    bytes.start,
                    bytes.end - bytes.start,
                )
            };
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    /// A file of this test.
    fn file(name: &str, bytes: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("paceline-kernels-{}-{name}", std::process::id()));
        fs::write(&path, bytes).expect("the temporary folder can be written");
        path
    }

    fn map(path: &Path) -> MappedFile {
        MappedFile::new(File::open(path).expect("it was written"), path).expect("it can be mapped")
    }

    #[test]
    fn bytes_are_read_as_numbers_where_they_lie_right() {
        let path = file("numbers", &[1, 0, 2, 1, 9]);
        let file = map(&path);
        assert_eq!(file.u16s(0..4), Some(&[1, 258][..]));
        assert_eq!(file.u16s(2..2), Some(&[][..]));
        for wrong in [1..3, 0..3, 4..6, 0..100, 100..102] {
            assert_eq!(file.u16s(wrong.clone()), None, "{wrong:?}");
        }
        fs::remove_file(&path).expect("it was made");
    }

    #[test]
    fn only_plain_files_are_mapped() {
        let folder = std::env::temp_dir();
        let Ok(opened) = File::open(&folder) else {
            println!("This system opens no folders, so none was tried.");
            return;
        };
        let error = MappedFile::new(opened, &folder).expect_err("it is not a plain file");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }

    #[test]
    fn a_file_that_was_written_to_has_changed_and_one_that_was_replaced_has_not() {
        let path = file("changes", &[1, 2, 3, 4]);
        let former = SystemTime::now() - Duration::from_secs(60);
        let writer = File::options().append(true).open(&path).expect("it was written");
        // As if it had been made a minute ago, so that no clock is too coarse.
        writer.set_modified(former).expect("its owner may");
        let [overwritten, grown] = [0, 1].map(|_| map(&path));
        assert!(!overwritten.has_changed());
        writer.set_modified(SystemTime::now()).expect("its owner may");
        assert!(overwritten.has_changed());
        (&writer).write_all(&[5]).expect("there is room");
        writer.set_modified(former).expect("its owner may");
        assert!(grown.has_changed());
        drop(writer);

        let other = file("changes-other", &[9]);
        let mapped = map(&other);
        fs::rename(&path, &other).expect("it was made");
        assert!(!mapped.has_changed() && *mapped == [9]);
        fs::remove_file(&other).expect("it was made");
    }
}

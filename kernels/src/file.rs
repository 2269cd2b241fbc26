//! A read-only file mapping behind a safe face.
//!
//! Mapping is `unsafe` because another process may change the file underneath; that makes the *values* read
//! unpredictable (and a file cut short while mapped ends the process with a bus error), but no code here
//! relies on the bytes for memory safety: every reader treats them as plain numbers.

use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A whole file mapped for reading. Pages are read from disk when first touched and can be dropped again by the system.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// What opening or mapping it failed with; a directory or another thing that is not a plain file is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        let plain = |metadata: Metadata| match metadata.is_file() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")),
        };
        // Looked at before it is opened, as opening a pipe would wait for a writer; and after, as it may have
        // been replaced in between.
        plain(fs::metadata(path)?)?;
        let file = File::open(path)?;
        plain(file.metadata()?)?;
        // SAFETY: the mapping is read-only and private to this value; see the module's header for what
        // outside changes can do.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { map })
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
    use std::process::Command;

    use super::*;

    #[test]
    fn bytes_are_read_as_numbers_where_they_lie_right() {
        let path = std::env::temp_dir().join(format!("paceline-kernels-{}-numbers", std::process::id()));
        fs::write(&path, [1, 0, 2, 1, 9]).expect("the temporary folder can be written");
        let file = MappedFile::open(&path).expect("it was written");
        assert_eq!(file.u16s(0..4), Some(&[1, 258][..]));
        assert_eq!(file.u16s(2..2), Some(&[][..]));
        for wrong in [1..3, 0..3, 4..6, 0..100, 100..102] {
            assert_eq!(file.u16s(wrong.clone()), None, "{wrong:?}");
        }
        fs::remove_file(&path).expect("it was made");
    }

    #[test]
    fn only_plain_files_are_mapped() {
        let pipe = std::env::temp_dir().join(format!("paceline-kernels-{}-pipe", std::process::id()));
        let refused = |path: &Path| {
            let error = MappedFile::open(path).expect_err("it is not a plain file");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        };
        refused(&std::env::temp_dir());
        if !Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
            println!("There is no mkfifo here, so a pipe was not tried.");
            return;
        }
        // Nobody writes into the pipe, so opening it would never return.
        refused(&pipe);
        fs::remove_file(&pipe).expect("it was made");
    }
}

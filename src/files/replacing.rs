//! Files that are replaced whole or not at all.
//!
//! Data is written into a part beside its place, is brought to the disk, and is then moved there. Whoever reads the
//! place sees the former state or the new one: after a crash, a `kill -9` and on a full disk too. Every part has a name of
//! its own and is locked while its writer lives, so writers do not meddle with each other's, and a part that nobody has
//! locked was left by such an end and is removed.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{
    Kind, WriteError, found, give_to_owner_of, not_plain, parts, patient_options, sync_folder_of, where_it_leads,
};

/// A file that is being written and not yet in its place; dropped before [`commit`](Self::commit), it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    /// As it was named.
    path: PathBuf,
    /// Where that leads.
    place: PathBuf,
    part: PathBuf,
    out: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Begins a file that will stand at `path`, in a folder that is there. A plain file may be there and will be replaced;
    /// a symbolic link is followed and stays.
    ///
    /// # Errors
    /// When the place cannot be written to, or holds something that is no plain file: now, not after hours of work.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let open = || {
            let place = where_it_leads(path)?;
            let former = former(&place)?;
            parts::remove_stale(&place);
            let (part, file) = parts::new(&place, |part| patient_options().write(true).create_new(true).open(part))?;
            let out = Some(BufWriter::with_capacity(1 << 16, file));
            let begun = Self { path: path.to_owned(), place, part, out };
            if let Some(former) = former {
                give_to_owner_of(&former, &begun.part)?;
            }
            Ok(begun)
        };
        open().map_err(|source| WriteError { path: path.to_owned(), source })
    }

    /// The place it will stand at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A failed write to it, as a sentence.
    pub fn failed(&self, source: io::Error) -> WriteError {
        WriteError { path: self.path.clone(), source }
    }

    /// Brings it to the disk and moves it to its place.
    ///
    /// # Errors
    /// When that fails; the place is then as it was.
    pub fn commit(mut self) -> Result<(), WriteError> {
        let out = self.out.take();
        let finish = || {
            let file = out.map_or_else(|| Err(closed()), |out| out.into_inner().map_err(|error| error.into_error()))?;
            file.sync_all()?;
            // Something else may have come there meanwhile, which is not ours to replace.
            former(&self.place)?;
            // The lock on the part is held until it is in its place.
            fs::rename(&self.part, &self.place)?;
            drop(file);
            sync_folder_of(&self.place)
        };
        finish().map_err(|source| WriteError { path: self.path.clone(), source })
    }

    fn out(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.out.as_mut().ok_or_else(closed)
    }
}

/// The plain file that will be replaced, if there is one.
fn former(place: &Path) -> io::Result<Option<Metadata>> {
    match found(place)? {
        Some(found) if !found.is_file() => Err(not_plain(Kind::of(&found))),
        former => Ok(former),
    }
}

/// Cannot happen: only [`AtomicFile::commit`] closes a file, and it takes it along.
fn closed() -> io::Error {
    io::Error::other("it is closed already")
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out()?.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.out()?.seek(to)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // After a commit there is none any more. A part that stays behind is removed by the next writer.
        let _ = fs::remove_file(&self.part);
    }
}

/// Puts a file with these `bytes` at `path`.
///
/// # Errors
/// When that fails; the place is then as it was.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|error| file.failed(error))?;
    file.commit()
}

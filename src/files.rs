//! Files and folders that are replaced whole or not at all.
//!
//! What is written goes beside its place under the same name with `.part` behind it, is brought to the disk, and
//! is then moved there. Whoever reads the place sees the former state or the new one: after a crash, a `kill -9`
//! and on a full disk too. A part that such an end left behind is overwritten by the next attempt.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::shown_path;

/// Why something could not be put in its place, which is as it was before.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written and stays as it was: {source}; {}.", shown_path(.path), advice(.source))]
pub struct WriteError {
    /// The place.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// What to do about it.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space there and run the command again",
        io::ErrorKind::FileTooLarge => "allow larger files there (`ulimit -f`), or name another place",
        io::ErrorKind::NotFound => "make the folder first, or name another place",
        io::ErrorKind::IsADirectory => "a folder of that name is in the way; move it or name another place",
        _ => "name a place that you may write",
    }
}

/// `path` with `ending` behind its last name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Brings the names in the folder of `path` to the disk, where the system can.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        false => Ok(()),
    }
}

/// A file that is being written and not yet in its place; dropped before [`commit`](Self::commit), it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    part: PathBuf,
    out: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Begins a file that will stand at `path`, in a folder that is there.
    ///
    /// # Errors
    /// When the place cannot be written to: now, not after hours of work.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let part = beside(path, ".part");
        let open = || {
            if path.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            File::create(&part)
        };
        match open() {
            Ok(file) => Ok(Self { path: path.to_owned(), part, out: Some(BufWriter::with_capacity(1 << 16, file)) }),
            Err(source) => Err(WriteError { path: path.to_owned(), source }),
        }
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
            drop(file);
            fs::rename(&self.part, &self.path)?;
            sync_folder_of(&self.path)
        };
        finish().map_err(|source| WriteError { path: self.path.clone(), source })
    }

    fn out(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.out.as_mut().ok_or_else(closed)
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
        // After a commit there is none any more. A part that stays behind does no harm.
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

/// A folder that is being filled and not yet in its place; dropped before [`commit`](Self::commit), it leaves nothing.
///
/// No system call that is portable exchanges two folders, so a former one is moved aside (`.old`) for a moment. Should
/// the process end right then, [`AtomicFolder::recover`] brings it back.
#[derive(Debug)]
pub struct AtomicFolder {
    path: PathBuf,
    part: PathBuf,
}

impl AtomicFolder {
    /// Begins an empty folder that will stand at `path`.
    ///
    /// # Errors
    /// When the place cannot be written to.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        Self::recover(path)?;
        let part = beside(path, ".part");
        let make = || {
            remove_folder(&part)?;
            fs::create_dir_all(&part)
        };
        make().map_err(|source| WriteError { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), part })
    }

    /// Where to write its files meanwhile.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Brings its files to the disk and moves it to its place; a folder that stood there goes.
    ///
    /// # Errors
    /// When that fails; the place is then as it was.
    pub fn commit(self) -> Result<(), WriteError> {
        let old = beside(&self.path, ".old");
        let finish = || {
            sync_tree(&self.part)?;
            let replaced = self.path.exists();
            if replaced {
                remove_folder(&old)?;
                fs::rename(&self.path, &old)?;
            }
            if let Err(error) = fs::rename(&self.part, &self.path) {
                if replaced {
                    fs::rename(&old, &self.path)?;
                }
                return Err(error);
            }
            sync_folder_of(&self.path)?;
            remove_folder(&old)
        };
        finish().map_err(|source| WriteError { path: self.path.clone(), source })
    }

    /// Brings back the former folder of `path` if a process ended while it replaced it. Call it before reading.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn recover(path: &Path) -> Result<(), WriteError> {
        let old = beside(path, ".old");
        if path.exists() || !old.exists() {
            return Ok(());
        }
        fs::rename(&old, path).map_err(|source| WriteError { path: path.to_owned(), source })
    }
}

impl Drop for AtomicFolder {
    fn drop(&mut self) {
        // After a commit there is none any more. A part that stays behind does no harm.
        let _ = remove_folder(&self.part);
    }
}

/// Removes a folder with everything in it, if it is there.
fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Brings all files below `folder` to the disk.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { sync_tree(&path)? } else { File::open(&path)?.sync_all()? }
    }
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_as_before_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_file(&path, b"first").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        file.flush().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        drop(file);
        assert_eq!(names(path.parent().unwrap()), ["file"]);
        write_file(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(path.parent().unwrap()), ["file"]);
    }

    #[test]
    fn a_folder_is_as_before_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let fill = |text: &str| {
            let folder = AtomicFolder::create(&path).unwrap();
            fs::create_dir(folder.part().join("inner")).unwrap();
            fs::write(folder.part().join(text), text).unwrap();
            folder
        };
        fill("one").commit().unwrap();
        drop(fill("two"));
        assert_eq!((names(&path), names(dir.path())), (vec!["inner".into(), "one".into()], vec!["model".into()]));
        fill("three").commit().unwrap();
        assert_eq!((names(&path), names(dir.path())), (vec!["inner".into(), "three".into()], vec!["model".into()]));
    }

    #[test]
    fn what_a_sudden_end_leaves_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        // Ended between the two moves of a commit.
        fs::create_dir(dir.path().join("model.old")).unwrap();
        fs::create_dir(dir.path().join("model.part")).unwrap();
        fs::write(dir.path().join("model.old/weights"), "").unwrap();
        fs::write(dir.path().join("model.part/rest"), "").unwrap();
        AtomicFolder::recover(&path).unwrap();
        assert_eq!(names(&path), ["weights"]);
        let folder = AtomicFolder::create(&path).unwrap();
        assert!(names(folder.part()).is_empty());
        folder.commit().unwrap();
        assert!(names(&path).is_empty());
        // Ended after the second move.
        fs::create_dir(dir.path().join("model.old")).unwrap();
        AtomicFolder::create(&path).unwrap().commit().unwrap();
        assert_eq!(names(dir.path()), ["model"]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for (path, said) in [
            (dir.path().to_owned(), "a folder of that name is in the way"),
            (dir.path().join("file/in/it"), "name a place that you may write"),
            (dir.path().join("no/file"), "make the folder first"),
        ] {
            let message = AtomicFile::create(&path).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains("stays as it was"), "{message}");
        }
        assert!(AtomicFolder::create(&dir.path().join("file/in/it")).is_err());
        let full = WriteError { path: "x".into(), source: io::Error::from(io::ErrorKind::StorageFull) };
        assert!(full.to_string().contains("free some space"), "{full}");
    }
}

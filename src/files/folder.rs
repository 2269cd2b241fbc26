//! Folders that are replaced whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Kind, WriteError, folder_of, not_plain, parts, sync_folder_of, where_it_leads};

/// A folder that is being filled and not yet in its place; dropped before [`commit`](Self::commit), it leaves nothing.
///
/// Where the system can exchange two folders, that is how it comes to its place. Elsewhere a former one is moved aside
/// (`NAME.PID-NUMBER.old`) for a moment; should the process end right then, [`AtomicFolder::recover`] brings it back.
#[derive(Debug)]
pub struct AtomicFolder {
    /// As it was named.
    path: PathBuf,
    /// Where that leads.
    place: PathBuf,
    part: PathBuf,
    /// Keeps the part locked.
    _lock: File,
}

impl AtomicFolder {
    /// Begins an empty folder that will stand at `path`. A folder may be there and will be replaced; a symbolic link is
    /// followed and stays.
    ///
    /// # Errors
    /// When the place cannot be written to, or holds something that is no folder.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        Self::recover(path)?;
        let make = || {
            let place = where_it_leads(path)?;
            is_there(&place)?;
            fs::create_dir_all(folder_of(&place))?;
            parts::remove_stale(&place);
            let (part, lock) = parts::new(&place, |part| fs::create_dir(part).and_then(|()| File::open(part)))?;
            Ok(Self { path: path.to_owned(), place, part, _lock: lock })
        };
        make().map_err(|source| WriteError { path: path.to_owned(), source })
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
        let finish = || {
            sync_tree(&self.part)?;
            let _turn = turn(&self.place)?;
            if !is_there(&self.place)? {
                fs::rename(&self.part, &self.place)?;
            } else if !exchange(&self.part, &self.place)? {
                self.replace()?;
            }
            sync_folder_of(&self.place)
        };
        // What stood there before goes with the part, whose name it has now.
        finish().map_err(|source| WriteError { path: self.path.clone(), source })
    }

    /// Moves it to the place of another folder in two steps.
    pub(super) fn replace(&self) -> io::Result<()> {
        let old = parts::old_name(&self.place);
        fs::rename(&self.place, &old)?;
        if let Err(error) = fs::rename(&self.part, &self.place) {
            fs::rename(&old, &self.place)?;
            return Err(error);
        }
        sync_folder_of(&self.place)?;
        remove_folder(&old)
    }

    /// Brings back the former folder of `path` if a process ended while it replaced it. Call it before reading.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn recover(path: &Path) -> Result<(), WriteError> {
        let bring_back = || {
            let place = where_it_leads(path)?;
            if parts::old(&place).is_empty() {
                return Ok(());
            }
            let _turn = turn(&place)?;
            for old in parts::old(&place) {
                // One that was replaced goes.
                if is_there(&place)? { remove_folder(&old)? } else { fs::rename(&old, &place)? }
            }
            Ok(())
        };
        bring_back().map_err(|source| WriteError { path: path.to_owned(), source })
    }
}

/// Waits until no other process replaces a folder beside `place`, where the system has such locks.
fn turn(place: &Path) -> io::Result<File> {
    let folder = File::open(folder_of(place))?;
    let _ = folder.lock();
    Ok(folder)
}

impl Drop for AtomicFolder {
    fn drop(&mut self) {
        // After a commit it is the former folder that has the part's name, if there was one.
        let _ = remove_folder(&self.part);
    }
}

/// Whether a folder is there that will be replaced.
fn is_there(place: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(place).map(|found| Kind::of(&found)) {
        Ok(Kind::Folder) => Ok(true),
        Ok(Kind::Plain) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a file of that name is in the way")),
        Ok(kind) => Err(not_plain(kind)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Exchanges two folders in one step; `false` where the system cannot.
fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (one, other);
        Ok(false)
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
        let entry = entry?;
        match Kind::of(&entry.metadata()?) {
            Kind::Folder => sync_tree(&entry.path())?,
            Kind::Plain => File::open(entry.path())?.sync_all()?,
            _ => {}
        }
    }
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

//! Folders that are replaced whole or not at all.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Kind, LockKind, WriteError, folder_of, found, give_to_owner_of, if_possible, lock, parts, sync_folder_of};

/// A folder that is being filled and not yet in its place; dropped before [`commit`](Self::commit), it leaves nothing.
///
/// Where the system can exchange two folders, that is how it comes to its place. Elsewhere a former one is moved aside
/// (`NAME.PID-NUMBER.old`) for a moment; should the process end right then, [`AtomicFolder::recover`] brings it back.
#[derive(Debug)]
pub struct AtomicFolder {
    /// Where it will stand.
    path: PathBuf,
    part: PathBuf,
    /// Keeps the part locked.
    _lock: File,
}

impl AtomicFolder {
    /// Begins an empty folder that will stand at `path`. A folder may be there and will be replaced, with everything in
    /// it: `path` lies in a folder that is ours ([`own_folder`](super::own_folder)).
    ///
    /// # Errors
    /// When the place cannot be written to, or holds something that is no folder, such as a link to one.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        Self::recover(path)?;
        let make = || {
            is_there(path)?;
            fs::create_dir_all(folder_of(path))?;
            parts::remove_stale(path);
            let (part, lock) = parts::new(path, |part| fs::create_dir(part).and_then(|()| File::open(part)))?;
            Ok(Self { path: path.to_owned(), part, _lock: lock })
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
            let _turn = turn(&self.path)?;
            match is_there(&self.path)? {
                None => fs::rename(&self.part, &self.path)?,
                Some(former) => {
                    give_to_owner_of(&former, &self.part)?;
                    if !exchange(&self.part, &self.path)? {
                        self.replace()?;
                    }
                }
            }
            sync_folder_of(&self.path)
        };
        // What stood there before goes with the part, whose name it has now.
        finish().map_err(|source| WriteError { path: self.path.clone(), source })
    }

    /// Moves it to the place of another folder in two steps.
    pub(super) fn replace(&self) -> io::Result<()> {
        let old = parts::old_name(&self.path);
        fs::rename(&self.path, &old)?;
        if let Err(error) = fs::rename(&self.part, &self.path) {
            fs::rename(&old, &self.path)?;
            return Err(error);
        }
        sync_folder_of(&self.path)?;
        remove_folder(&old)
    }

    /// Brings back the former folder of `path` if a process ended while it replaced it. Call it before reading.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn recover(path: &Path) -> Result<(), WriteError> {
        let bring_back = || {
            if parts::old(path).is_empty() {
                return Ok(());
            }
            let _turn = turn(path)?;
            for old in parts::old(path) {
                // One that was replaced goes.
                if is_there(path)?.is_some() { remove_folder(&old)? } else { fs::rename(&old, path)? }
            }
            Ok(())
        };
        bring_back().map_err(|source| WriteError { path: path.to_owned(), source })
    }
}

/// Waits until no other process moves a folder beside `path`, which takes milliseconds. `None` where there can be no
/// locks.
fn turn(path: &Path) -> io::Result<Option<File>> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let taken = lock::wait(File::open(folder_of(path))?, LockKind::Alone, PATIENCE);
    if_possible(taken).map_err(|held| io::Error::new(io::ErrorKind::WouldBlock, held))
}

impl Drop for AtomicFolder {
    fn drop(&mut self) {
        // After a commit it is the former folder that has the part's name, if there was one.
        let _ = remove_folder(&self.part);
    }
}

/// The folder that will be replaced, if there is one.
fn is_there(path: &Path) -> io::Result<Option<Metadata>> {
    let in_the_way =
        |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{what} of that name is in the way")));
    let Some(found) = found(path)? else { return Ok(None) };
    match Kind::of(&found) {
        _ if found.is_symlink() => in_the_way("a symbolic link"),
        Kind::Folder => Ok(Some(found)),
        kind => in_the_way(&kind.to_string()),
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

//! Every file that a setting can name or that lies in a model's directory is read and written through this module.
//!
//! A path that we are given is not ours. So reading opens plain files alone, looks at them before and after they are
//! opened, never waits for somebody to write, and bounds what it takes by what it has read, not by what a file's size
//! claims ([`open_plain`], [`read`], [`read_text`], [`map`]; [`read_input`] and [`read_input_text`] also take the pipe
//! that a person named for one reading). Writing a file follows symbolic links and keeps them, replaces plain files
//! alone, and does so whole or not at all, whatever ends the process ([`AtomicFile`], [`AtomicFolder`]). Whether a file
//! that would be replaced is one of ours is for its format to say, and for the caller to ask before; files whose names
//! are fixed go into folders that are marked as ours ([`own_folder`]). Several writers of one file take turns by a lock
//! beside it ([`lock`]).

mod folder;
mod lock;
mod object;
pub mod of_model;
mod owned;
mod parts;
mod reading;
mod replacing;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
pub(crate) mod tests;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

pub use folder::AtomicFolder;
pub use lock::{LockError, LockKind, if_possible, lock, lock_file_of};
pub use object::Object;
pub use owned::{Fills, MARK, OwnError, may_replace, own_folder, write_tensors};
pub use reading::{ReadError, map, open_plain, read, read_input, read_input_text, read_text};
pub use replacing::{AtomicFile, write_file};

use crate::visible::shown_path;

/// Why something could not be put in its place, which is as it was before.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written and stays as it was: {source}; {}.", shown_path(.path), advice(.source))]
pub struct WriteError {
    /// The place.
    pub path: PathBuf,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

/// The remedy for an error.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space there and run the command again",
        io::ErrorKind::FileTooLarge => "allow larger files there (`ulimit -f`), or name another place",
        io::ErrorKind::NotFound => "make the folder first, or name another place",
        io::ErrorKind::IsADirectory => "a folder of that name is in the way; move it or name another place",
        io::ErrorKind::InvalidInput => "name another place",
        io::ErrorKind::WouldBlock => "wait for its end and run the command again",
        _ => "name a place that you may write",
    }
}

/// The names in a folder that are text, sorted; none where it cannot be read.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Kind of file at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plain file.
    Plain,
    /// A directory.
    Folder,
    /// A pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device.
    Device,
    /// Something that only some systems have.
    Other,
}

impl Kind {
    /// The kind of a thing that was looked at.
    pub fn of(found: &Metadata) -> Self {
        if found.is_file() {
            return Self::Plain;
        }
        if found.is_dir() {
            return Self::Folder;
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            let kind = found.file_type();
            match () {
                () if kind.is_fifo() => return Self::Pipe,
                () if kind.is_socket() => return Self::Socket,
                () if kind.is_char_device() || kind.is_block_device() => return Self::Device,
                () => {}
            }
        }
        Self::Other
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "a plain file",
            Self::Folder => "a directory",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Other => "something special",
        })
    }
}

/// Says that a thing is no plain file.
fn not_plain(kind: Kind) -> io::Error {
    let error = if kind == Kind::Folder { io::ErrorKind::IsADirectory } else { io::ErrorKind::InvalidInput };
    io::Error::new(error, format!("it is {kind}, not a plain file"))
}

/// Options that never wait for the other end of a pipe, and never make a terminal ours, should one have taken the place
/// of a plain file since it was looked at.
fn patient_options() -> OpenOptions {
    #[allow(unused_mut, reason = "only some systems have the flags")]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    }
    options
}

/// Opens a plain file with these options, which have [`patient_options`] as their base: what is there is looked at
/// before it is opened, as some devices act on being opened, and afterwards, as it may have been replaced in between.
/// Where nothing is, the options decide.
fn open_if_plain(path: &Path, options: &OpenOptions) -> io::Result<File> {
    match fs::metadata(path).map(|found| Kind::of(&found)) {
        Ok(Kind::Plain) => {}
        Ok(kind) => return Err(not_plain(kind)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = options.open(path)?;
    match Kind::of(&file.metadata()?) {
        Kind::Plain => Ok(file),
        kind => Err(not_plain(kind)),
    }
}

/// Opens a plain file to read it and to add to its end; begins it where there is none. It is as it was, whatever it holds.
///
/// # Errors
/// When it cannot be opened, or is no plain file, which is told without waiting for the other end of a pipe.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    open_if_plain(path, patient_options().read(true).append(true).create(true))
}

/// Opens a device, such as `/dev/null` or a terminal, to write to it.
///
/// # Errors
/// When it cannot be opened, or is no device.
pub(crate) fn open_device(path: &Path) -> io::Result<File> {
    let device = patient_options().append(true).open(path)?;
    match Kind::of(&device.metadata()?) {
        Kind::Device => Ok(device),
        kind => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, not a device"))),
    }
}

/// Opens a plain file to read and to change it in place; begins it where there is none. It is as it was, whatever it holds.
///
/// # Errors
/// As those of [`open_to_append`].
pub fn open_to_change(path: &Path) -> io::Result<File> {
    open_if_plain(path, patient_options().read(true).write(true).create(true).truncate(false))
}

/// Gives what is about to take the place of `former` its owner and group, as far as the system allows, and its
/// permissions: who may read the former state may read the new one, and nobody else.
fn give_to_owner_of(former: &Metadata, part: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, lchown};
        let made = fs::symlink_metadata(part)?;
        if (made.uid(), made.gid()) != (former.uid(), former.gid()) {
            // Only the administrator may give a file away; others may give it to a group that they are in.
            let _ = lchown(part, Some(former.uid()), Some(former.gid()))
                .or_else(|_| lchown(part, None, Some(former.gid())));
        }
    }
    fs::set_permissions(part, former.permissions())
}

/// Where the symbolic links at the end of a path lead, whether something is there or not: what is written to a link goes
/// there, and the link stays.
///
/// # Errors
/// When a link cannot be read, or they lead in a circle.
pub fn where_it_leads(path: &Path) -> io::Result<PathBuf> {
    /// As many as the system follows.
    const MOST_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if !found(&path)?.is_some_and(|found| found.is_symlink()) {
            return Ok(path);
        }
        // A relative link is relative to the folder that it is in.
        let target = fs::read_link(&path)?;
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "its symbolic links lead in a circle"))
}

/// The thing at `path` itself, a link included; `None` if nothing is there.
fn found(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// `path` with `ending` behind its last name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The folder that a path is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Brings the names in the folder of `path` to the disk, where the system can.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(folder_of(path))?.sync_all(),
        false => Ok(()),
    }
}

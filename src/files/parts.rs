//! Parts: files and folders that are being written beside the place where they will stand.
//!
//! A part is called `NAME.PID-NUMBER.part` and is locked as long as somebody writes it. One that nobody has locked was left
//! by a process that was ended.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Kind, beside, folder_of, patient_options};

/// File name suffix of parts.
const PART: &str = ".part";
/// Name suffix of a folder that was moved out of the way.
const OLD: &str = ".old";

/// A name beside `place` that this process has not used yet.
fn name(place: &Path, ending: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    beside(place, &format!(".{}-{}{ending}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// A name for the folder at `place` while another one takes its place.
pub(super) fn old_name(place: &Path) -> PathBuf {
    // Processes that count apart from each other, as in containers, may have one number.
    std::iter::repeat_with(|| name(place, OLD)).find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_default()
}

/// Folders that were moved out of the way of `place`.
pub(super) fn old(place: &Path) -> Vec<PathBuf> {
    called(place, OLD)
}

/// Makes and locks a part of `place`, under a name that nothing has.
///
/// # Errors
/// Those of `make`, which says `AlreadyExists` where something has the name.
pub(super) fn new(place: &Path, make: impl Fn(&Path) -> io::Result<File>) -> io::Result<(PathBuf, File)> {
    loop {
        let part = name(place, PART);
        match make(&part) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                // Where the system has no locks, nobody takes the part to be left over.
                let _ = file.lock();
                // Until it was locked, somebody may have done so.
                if fs::symlink_metadata(&part).is_ok() {
                    return Ok((part, file));
                }
            }
        }
    }
}

/// Removes the parts of `place` whose writers are gone. What cannot be removed stays, and does no harm.
pub(super) fn remove_stale(place: &Path) {
    for part in called(place, PART) {
        let _ = remove_if_stale(&part);
    }
}

/// Paths beside `place` with a name that [`name`] gives.
fn called(place: &Path, ending: &str) -> Vec<PathBuf> {
    let Some(name) = place.file_name() else { return Vec::new() };
    let entries = fs::read_dir(folder_of(place)).into_iter().flatten().flatten();
    entries.filter(|entry| is_called(&entry.file_name(), name, ending)).map(|entry| entry.path()).collect()
}

fn is_called(file: &OsStr, name: &OsStr, ending: &str) -> bool {
    let of_name = file.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
    let numbers = of_name.and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(ending.as_bytes()));
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let is_pair = |text: &[u8]| {
        let dash = text.iter().position(|&byte| byte == b'-');
        dash.is_some_and(|dash| is_number(&text[..dash]) && is_number(&text[dash + 1..]))
    };
    numbers.is_some_and(is_pair)
}

fn remove_if_stale(part: &Path) -> io::Result<()> {
    let kind = Kind::of(&fs::symlink_metadata(part)?);
    if !matches!(kind, Kind::Plain | Kind::Folder) {
        return Ok(());
    }
    let file = patient_options().read(true).open(part)?;
    if file.try_lock().is_err() {
        return Ok(());
    }
    // Removed while it is locked: a writer that made it just now finds it gone and makes another.
    if kind == Kind::Folder { fs::remove_dir_all(part) } else { fs::remove_file(part) }
}

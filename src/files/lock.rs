//! Locks by which the writers of one file take turns. The system lets go of them when a process ends, however it does.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{beside, open_plain, open_to_append, where_it_leads};

/// Interval between attempts at a lock that another process has.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// Sharing of a lock: whether others may have it at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// All who take it like this.
    Shared,
    /// Nobody.
    Alone,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another process keeps it locked")]
    Held,
    /// There can be none: the folder takes no file, something else has the lock's name, or the system has no locks.
    #[error("it cannot be locked ({0})")]
    Impossible(io::Error),
}

/// The file whose lock the writers of `path` take, beside where its links lead, so that two names of one file have one.
pub fn lock_file_of(path: &Path) -> PathBuf {
    beside(&where_it_leads(path).unwrap_or_else(|_| path.to_owned()), ".lock")
}

/// Takes the lock that the file at `path` stands for, and nothing else: it stays empty, and is made where it is not there.
/// Waits so long for others. The lock is held as long as the file that comes back.
///
/// # Errors
/// When it was not taken.
pub fn lock(path: &Path, kind: LockKind, patience: Duration) -> Result<File, LockError> {
    let file = open_to_append(path).or_else(|error| match error.kind() {
        // Another user made it; to lock it, it need not be written to.
        io::ErrorKind::PermissionDenied => Ok(open_plain(path)?),
        _ => Err(error),
    });
    wait(file.map_err(LockError::Impossible)?, kind, patience)
}

/// A lock that was taken, or `None` where there can be none: for those who work without one there, as what they write is
/// whole nevertheless.
///
/// # Errors
/// When another process has it.
pub fn if_possible(taken: Result<File, LockError>) -> Result<Option<File>, LockError> {
    match taken {
        Err(LockError::Impossible(_)) => Ok(None),
        taken => taken.map(Some),
    }
}

/// Takes the lock of an open file or folder.
pub(super) fn wait(file: File, kind: LockKind, patience: Duration) -> Result<File, LockError> {
    let started = Instant::now();
    loop {
        let taken = match kind {
            LockKind::Shared => file.try_lock_shared(),
            LockKind::Alone => file.try_lock(),
        };
        match taken {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(LockError::Impossible(error)),
            Err(TryLockError::WouldBlock) if started.elapsed() >= patience => return Err(LockError::Held),
            Err(TryLockError::WouldBlock) => sleep(ASK_EVERY),
        }
    }
}

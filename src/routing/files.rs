//! The files of routing: the router beside a target, and what is learned while serving, which several programs may share.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paceline_router::online::MOST_BYTES;
use paceline_router::router::{self, ROUTER};
use paceline_router::{Online, OnlineError, Router, RouterError};

use crate::checkpoint::side_file;
use crate::files::{self, AtomicFile, LockKind, ReadError, WriteError, lock_file_of, where_it_leads};
use crate::visible::shown_path;

/// Reads the router in a model directory; `None` if there is none.
///
/// # Errors
/// When the file cannot be read, is damaged or contradicts itself.
pub fn open_router(directory: &Path) -> Result<Option<Router>, RouterError> {
    let path = side_file(directory, ROUTER);
    match files::read(&path, router::MOST_BYTES) {
        Ok(bytes) => Router::read(&path, &bytes).map(Some),
        Err(ReadError::Absent) => Ok(None),
        Err(error) => Err(RouterError::Damaged { path, reason: error.to_string() }),
    }
}

/// Why what was learned cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the variants and their fields mean")]
pub enum StateError {
    #[error(transparent)]
    Content(#[from] OnlineError),
    #[error("The learned state {} cannot be read ({reason})", shown_path(.path))]
    Unreadable { path: PathBuf, reason: ReadError },
    #[error("The learned state {} is not written to, as another process keeps it locked", shown_path(.path))]
    Locked { path: PathBuf },
    #[error("{}", .0.to_string().trim_end_matches('.'))]
    Unwritable(#[from] WriteError),
}

/// Reads a state that was learned with predictions that `of` is a hash of. `None` where there is no such file, or an empty one.
///
/// # Errors
/// When it cannot be read, or not be used.
pub fn read_state(path: &Path, of: &str) -> Result<Option<Online>, StateError> {
    match files::read(path, MOST_BYTES) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => Ok(Some(Online::read(path, &bytes, of)?)),
        Err(ReadError::Absent) => Ok(None),
        // No state of ours ever is.
        Err(ReadError::TooLarge { .. }) => Err(OnlineError::Foreign { path: path.to_owned() }.into()),
        Err(reason) => Err(StateError::Unreadable { path: path.to_owned(), reason }),
    }
}

/// Longest wait for a damaged file, so that two programs do not both move it aside.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file that keeps what is learned while serving.
pub(super) struct StateFile {
    path: PathBuf,
    /// A hash of what predictions come from.
    of: String,
}

/// Result of taking up what a file holds.
#[derive(Default)]
pub(super) struct TakenUp {
    /// Where to keep what is learned, if that may be.
    pub(super) file: Option<StateFile>,
    /// State learned before.
    pub(super) known: Option<Online>,
    /// Sentences about what deserves attention.
    pub(super) warnings: Vec<String>,
}

impl StateFile {
    /// Takes up what a file holds. One that is not ours, or cannot be read, is left alone, and nothing is kept. One of ours that
    /// cannot be used is moved aside. With `frozen` nothing is ever changed.
    pub(super) fn take_up(path: &Path, of: &str, frozen: bool) -> TakenUp {
        let file = Self { path: path.to_owned(), of: of.to_owned() };
        let mut taken = TakenUp::default();
        match read_state(path, of) {
            Ok(known) => taken.known = known,
            Err(StateError::Content(OnlineError::Damaged { .. } | OnlineError::Other { .. })) if frozen => {
                taken.warnings.push(format!(
                    "The learned state {} cannot be used and is left alone; the router goes by its training.",
                    shown_path(path)
                ));
            }
            Err(error @ StateError::Content(OnlineError::Damaged { .. } | OnlineError::Other { .. })) => {
                match file.begin_anew() {
                    Ok((known, said)) => {
                        taken.known = known;
                        taken.warnings.extend(said.map(|aside| format!("{error}: {aside}, and learning begins anew.")));
                    }
                    Err(reason) => {
                        taken.warnings.push(format!("{error}: it could not be moved aside ({reason}). {NOT_KEPT}"));
                        return taken;
                    }
                }
            }
            Err(error) => {
                taken.warnings.push(format!("{error}. {NOT_KEPT}"));
                return taken;
            }
        }
        if !frozen {
            // Most programs end before the first time it is written: whether it can be is told now.
            if let Err(error) = AtomicFile::create(path) {
                taken.warnings.push(format!("What is learned while serving will not be kept. {error}"));
            }
            taken.file = Some(file);
        }
        taken
    }

    /// Moves the file aside, and says where to. Another program may have begun anew meanwhile: then its state is taken up.
    fn begin_anew(&self) -> io::Result<(Option<Online>, Option<String>)> {
        let _lock = self.lock(PATIENCE).map_err(io::Error::other)?;
        match read_state(&self.path, &self.of) {
            Ok(known) => return Ok((known, None)),
            Err(StateError::Content(OnlineError::Damaged { .. } | OnlineError::Other { .. })) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
        // A link that leads to it stays one.
        let place = where_it_leads(&self.path)?;
        let aside = free_name(&place);
        fs::rename(&place, &aside)?;
        Ok((None, Some(format!("it was moved to {}", shown_path(&aside)))))
    }

    fn lock(&self, patience: Duration) -> Result<Option<fs::File>, StateError> {
        let taken = files::lock(&lock_file_of(&self.path), LockKind::Alone, patience);
        files::if_possible(taken).map_err(|_| StateError::Locked { path: self.path.clone() })
    }

    /// Brings what was learned here to what the file holds by now, and gives both together. Waits so long for other programs that
    /// do the same, which takes milliseconds.
    ///
    /// # Errors
    /// When it cannot be written, or holds something else by now, which is left alone.
    pub(super) fn save(&self, learned: &Online, patience: Duration) -> Result<Online, StateError> {
        let _lock = self.lock(patience)?;
        let all = match read_state(&self.path, &self.of)? {
            Some(others) => learned.after(&others),
            None => learned.settled(),
        };
        files::write_file(&self.path, all.to_json().unwrap_or_default().as_bytes())?;
        Ok(all)
    }
}

const NOT_KEPT: &str = "Nothing that is learned while serving is kept: name another file with `--online-state`.";

/// A name beside `path` that nothing has yet.
fn free_name(path: &Path) -> PathBuf {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 0 { ".aside".to_owned() } else { format!(".aside-{number}") });
        PathBuf::from(name)
    };
    let is_free = |name: &PathBuf| fs::symlink_metadata(name).is_err();
    (0..).map(numbered).find(is_free).unwrap_or_else(|| numbered(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests;

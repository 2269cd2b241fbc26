//! Models that a command is given by path or name: one of the hub is downloaded where it is not on this machine.

use std::path::{Path, PathBuf};

use crate::local::LocateError;

/// The path of a model. A download is told on standard error, and how far it is shows on a terminal.
///
/// # Errors
/// If there is no such model, or it cannot be downloaded.
#[cfg(feature = "download")]
pub fn obtain(name: &Path) -> Result<PathBuf, LocateError> {
    use super::output::note;
    use super::progress::{self, Progress};

    let (mut progress, mut is_told) = (Progress::new(), false);
    let found = crate::local::obtain(name, &mut |stage| {
        if !is_told {
            is_told = true;
            note(&format!("Downloading {}, {} MB.", name.display(), stage.total.div_ceil(1_000_000)));
        }
        let in_megabytes = |bytes: u64| (bytes / 1_000_000) as usize;
        progress.show(&format!("MB of {}", stage.file), in_megabytes(stage.done), in_megabytes(stage.total));
    });
    progress::clear();
    found
}

/// As [`crate::local::locate`]: this program was built without downloads.
///
/// # Errors
/// If there is no such model.
#[cfg(not(feature = "download"))]
pub fn obtain(name: &Path) -> Result<PathBuf, LocateError> {
    crate::local::locate(name)
}

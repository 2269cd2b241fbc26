//! By what a router knows the drafters that it was trained with.

use std::path::{Path, PathBuf};

use paceline_router::router::{MOST_BYTES, ROUTER};

use crate::checkpoint::{Checkpoint, CheckpointError, side_file};
use crate::checksum::Checksum;
use crate::drafters::DrafterChoice;
use crate::files;
use crate::local::locate;

/// A fingerprint as it is written.
pub fn written(hash: u64) -> String {
    format!("{hash:016x}")
}

/// The hash of a draft model, with what limits its drafts.
///
/// # Errors
/// When it cannot be read.
pub fn of_draft(checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    let vocabulary = checkpoint.draft_vocabulary()?;
    Ok(written(Checksum::of(format!("{:016x} {vocabulary:?}", checkpoint.fingerprint()).as_bytes())))
}

/// The hash of a target's trained exits, with what limits their drafts; empty without trained ones.
///
/// # Errors
/// When they cannot be read.
pub fn of_exits(checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    let Some(exits) = checkpoint.exits()? else { return Ok(String::new()) };
    let mut hash = Checksum::default();
    hash.text(&format!("{:?} {:?}", exits.config(), checkpoint.draft_vocabulary()?));
    hash.update(exits.bytes());
    Ok(written(hash.finish()))
}

/// The hash of the router in a target's directory; empty without one.
pub fn of_router(directory: &Path) -> String {
    files::read(&side_file(directory, ROUTER), MOST_BYTES).map_or(String::new(), |bytes| written(Checksum::of(&bytes)))
}

/// The hash of the weights that a drafter of this name drafts with, among [`identities`].
pub fn identity_of(identities: &[(String, String)], drafter: &str) -> Option<String> {
    let weights = DrafterChoice::weights_of(drafter);
    identities.iter().find(|(name, _)| *name == weights).map(|(_, hash)| hash.clone())
}

/// The drafters of a target and of these directories that have weights of their own, with their hashes: `exit` stands for all exits.
///
/// # Errors
/// When one cannot be read.
pub fn identities(target: &Checkpoint, drafts: &[PathBuf]) -> Result<Vec<(String, String)>, CheckpointError> {
    let exits = DrafterChoice::weights_of(&DrafterChoice::Exit(1).to_string());
    let mut all = vec![(exits, of_exits(target)?)];
    for directory in drafts {
        let name = directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned();
        let place = locate(directory).unwrap_or_else(|_| directory.clone());
        all.push((DrafterChoice::Model(Some(name)).to_string(), of_draft(&Checkpoint::open(&place)?)?));
    }
    Ok(all)
}

//! Models that are brought from the hub of Hugging Face into its cache on this machine.
//!
//! The cache has the layout of the hub's own programs, which share it: `blobs` by checksum, `snapshots` of links to them, and
//! `refs`. A file is downloaded beside its place and moved there once its size, and its checksum where the hub names one, are
//! right. What was begun is resumed where it can be verified. A snapshot's links come when all files are there, and `main` last.

mod choice;
mod hub;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use self::hub::Hub;
use self::hub::{HubError, Remote};
use crate::files::{LockError, LockKind, if_possible, lock, write_file};
use crate::visible::{shown, shown_path};

/// Attempts in a row that bring no byte before a download is given up.
const ATTEMPTS: u32 = 5;
/// How long another process that downloads the same model is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a model could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The hub has no such model, or shows it to nobody who asks like this.
    #[error("{endpoint} has no model \"{}\", or keeps it private; check the name, or set HF_TOKEN to a token that may read it", shown(.name))]
    Unknown {
        /// The hub's address.
        endpoint: String,
        /// The model's name.
        name: String,
    },
    /// The model's makers want their terms accepted.
    #[error("{endpoint} wants the terms of \"{}\" accepted first; do so there, and set HF_TOKEN to your token", shown(.name))]
    Gated {
        /// The hub's address.
        endpoint: String,
        /// The model's name.
        name: String,
    },
    /// The hub could not be reached, or does not speak as one.
    #[error(
        "{endpoint} cannot be read ({reason}); check the network, HF_ENDPOINT and the proxy, then call again: what has come is kept"
    )]
    Network {
        /// The hub's address.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// Nothing of the model is of a kind that is read.
    #[error("\"{}\" has no file that is read: no GGUF file, and no config.json with safetensors; take another upload of the model", shown(.name))]
    NoModel {
        /// The model's name.
        name: String,
    },
    /// Several GGUF files, of which none was named.
    #[error("\"{}\" has {} GGUF files ({}); name one, as {}:FILE", shown(.name), .files.len(), super::listed(.files), shown(.name))]
    Several {
        /// The model's name.
        name: String,
        /// The files.
        files: Vec<String>,
    },
    /// The named file is not there.
    #[error("\"{}\" has no file \"{}\"; it has {}", shown(.name), shown(.file), super::listed(.files))]
    NoFile {
        /// The model's name.
        name: String,
        /// The file's.
        file: String,
        /// Its GGUF files.
        files: Vec<String>,
    },
    /// What came is not what the hub said that it is.
    #[error("\"{}\" came damaged and was removed; call again", shown(.file))]
    Damaged {
        /// The file's name.
        file: String,
    },
    /// Another process downloads this model.
    #[error("another process downloads \"{}\"; wait until it has ended", shown(.name))]
    Busy {
        /// The model's name.
        name: String,
    },
    /// The cache cannot be written to.
    #[error("{} cannot be written ({source}); make room or give it to this user, then call again: what has come is kept", shown_path(.path))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// How far a download is.
#[derive(Clone, Copy, Debug)]
pub struct Downloading<'a> {
    /// The file that comes.
    pub file: &'a str,
    /// Bytes of all files that are there.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// Downloads the model `name` (`org/name`), or of it the GGUF file `file`, into the hub's cache `folder`; what is there already
/// is not downloaded again.
///
/// # Errors
/// If the hub cannot be reached, has no such model, or the cache cannot be written to.
pub(super) fn download(
    hub: &Hub,
    folder: &Path,
    name: &str,
    file: Option<&str>,
    progress: &mut dyn FnMut(Downloading<'_>),
) -> Result<(), DownloadError> {
    let said = |error: HubError| error.about(hub, name);
    let info = repeated(hub, || hub.info(name)).map_err(said)?;
    let files = choice::files_of(name, &info.files, file)?;
    let model = folder.join(format!("models--{}", name.replace('/', "--")));
    for part in ["blobs", "refs"] {
        make_folder(&model.join(part))?;
    }
    let lock_file = model.join(".paceline.lock");
    let _alone = if_possible(lock(&lock_file, LockKind::Alone, PATIENCE)).map_err(|error| match error {
        LockError::Held => DownloadError::Busy { name: name.to_owned() },
        LockError::Impossible(source) => DownloadError::Write { path: lock_file.clone(), source },
    })?;
    let remote = |file: &String| repeated(hub, || hub.file(name, &info.commit, file)).map_err(said);
    let remotes = files.iter().map(remote);
    let remotes = remotes.collect::<Result<Vec<Remote>, _>>()?;
    let total = remotes.iter().map(|remote| remote.size).sum();
    let mut before = 0;
    for (file, remote) in files.iter().zip(&remotes) {
        let mut progress = |done| progress(Downloading { file, done: before + done, total });
        let part = Part { hub, name, commit: &info.commit, file, remote };
        part.bring(&model.join("blobs").join(&remote.etag), &mut progress)?;
        before += remote.size;
    }
    let snapshot = model.join("snapshots").join(&info.commit);
    // The configuration comes last: a snapshot without it is no model yet.
    let is_last = |file: &str| file == "config.json";
    let (last, first): (Vec<_>, Vec<_>) = files.iter().zip(&remotes).partition(|(file, _)| is_last(file));
    for (file, remote) in first.into_iter().chain(last) {
        link(&model, &snapshot.join(file), &remote.etag)?;
    }
    let main = model.join("refs/main");
    write_file(&main, info.commit.as_bytes())
        .map_err(|error| DownloadError::Write { path: main, source: io::Error::other(error.to_string()) })
}

fn make_folder(path: &Path) -> Result<(), DownloadError> {
    fs::create_dir_all(path).map_err(|source| DownloadError::Write { path: path.to_owned(), source })
}

/// Asks again while what failed may go better the next time.
fn repeated<T>(hub: &Hub, ask: impl Fn() -> Result<T, HubError>) -> Result<T, HubError> {
    let mut attempt = 1;
    loop {
        match ask() {
            Err(error) if error.may_pass() && attempt < ATTEMPTS => sleep(hub.pause * 2_u32.pow(attempt)),
            result => return result,
        }
        attempt += 1;
    }
}

/// Makes `place` in a snapshot a link to a blob, as the hub's programs do; where the system has no such links, another name of
/// the blob, or a copy.
fn link(model: &Path, place: &Path, etag: &str) -> Result<(), DownloadError> {
    if place.exists() {
        return Ok(());
    }
    let folder = place.parent().unwrap_or(model);
    make_folder(folder)?;
    let up = folder.strip_prefix(model).map_or(0, |path| path.components().count());
    let blob: PathBuf = std::iter::repeat_n("..", up).collect::<PathBuf>().join("blobs").join(etag);
    // A link to nothing, left by a blob that was removed.
    let _ = fs::remove_file(place);
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(&blob, place);
    #[cfg(not(unix))]
    let made = fs::hard_link(folder.join(&blob), place).or_else(|_| fs::copy(folder.join(&blob), place).map(drop));
    made.map_err(|source| DownloadError::Write { path: place.to_owned(), source })
}

/// A file that is to come.
struct Part<'a> {
    hub: &'a Hub,
    name: &'a str,
    commit: &'a str,
    file: &'a str,
    remote: &'a Remote,
}

impl Part<'_> {
    /// Brings the file to `blob`, and resumes what was begun.
    fn bring(&self, blob: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), DownloadError> {
        if fs::metadata(blob).is_ok_and(|found| found.len() == self.remote.size) {
            progress(self.remote.size);
            return Ok(());
        }
        let begun = blob.with_file_name(format!("{}.paceline-incomplete", self.remote.etag));
        let write = |source| DownloadError::Write { path: begun.clone(), source };
        if !is_checksum(&self.remote.etag) {
            // What is left of a crash could not be told from the right bytes.
            match fs::remove_file(&begun) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(write(error)),
                _ => (),
            }
        }
        let mut out = OpenOptions::new().create(true).append(true).open(&begun).map_err(write)?;
        let mut idle = 0;
        loop {
            let there = out.metadata().map_err(write)?.len();
            if there > self.remote.size {
                out.set_len(0).map_err(write)?;
                continue;
            }
            progress(there);
            if there == self.remote.size {
                break;
            }
            let result = self.resume(&mut out, there, progress);
            let came = out.metadata().map_err(write)?.len() > there;
            match result {
                Ok(()) if came => idle = 0,
                Err(Stopped::Writing(source)) => return Err(write(source)),
                Ok(()) | Err(Stopped::Reading(_)) => {
                    let early = || HubError::Interrupted("an answer ends early".to_owned());
                    let error = if let Err(Stopped::Reading(error)) = result { error } else { early() };
                    idle = if came { 0 } else { idle + 1 };
                    let stays = !error.may_be_resumed();
                    if stays && there > 0 {
                        // The hub has no such rest: the beginning is another file's.
                        out.set_len(0).map_err(write)?;
                    }
                    if idle >= ATTEMPTS || stays && there == 0 {
                        return Err(error.about(self.hub, self.name));
                    }
                    sleep(self.hub.pause * 2_u32.pow(idle));
                }
            }
        }
        out.sync_all().map_err(write)?;
        if !is_whole(&begun, &self.remote.etag).map_err(write)? {
            fs::remove_file(&begun).map_err(write)?;
            return Err(DownloadError::Damaged { file: self.file.to_owned() });
        }
        fs::rename(&begun, blob).map_err(|source| DownloadError::Write { path: blob.to_owned(), source })
    }

    /// Reads from byte `there` on, as far as one answer of the hub goes.
    fn resume(&self, out: &mut File, there: u64, progress: &mut dyn FnMut(u64)) -> Result<(), Stopped> {
        let (from_start, mut body) =
            self.hub.read(self.name, self.commit, self.file, there).map_err(Stopped::Reading)?;
        if from_start && there > 0 {
            // A hub that knows no ranges.
            out.set_len(0).map_err(Stopped::Writing)?;
        }
        let (mut done, mut buffer) = (if from_start { 0 } else { there }, vec![0; 1 << 16]);
        while done < self.remote.size {
            let read = body.read(&mut buffer).map_err(|error| Stopped::Reading(HubError::of_io(&error)))?;
            if read == 0 {
                break;
            }
            // More than was announced is the damage of another file.
            let read = read.min(usize::try_from(self.remote.size - done).unwrap_or(read));
            out.write_all(&buffer[..read]).map_err(Stopped::Writing)?;
            done += read as u64;
            progress(done);
        }
        Ok(())
    }
}

/// Which end of a download broke.
enum Stopped {
    Reading(HubError),
    Writing(io::Error),
}

/// True if a tag is a file's SHA-256, as those of large files are.
fn is_checksum(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// True if a file is what its tag says, where that is its checksum.
fn is_whole(path: &Path, etag: &str) -> io::Result<bool> {
    if !is_checksum(etag) {
        return Ok(true);
    }
    let (mut hash, mut file, mut buffer) = (Sha256::new(), File::open(path)?, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(found == etag)
}

/// True if a name from the hub stays below the folder that it is put into.
fn is_below(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', ':'])
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

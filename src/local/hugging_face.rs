//! The hub's cache of Hugging Face: `models--ORG--NAME` with `refs`, `snapshots` and `blobs`.

use std::path::{Path, PathBuf};

use super::LocateError;
use crate::checkpoint::{gguf_models_in, snapshots};
use crate::files::names;

const PREFIX: &str = "models--";

fn named(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())
}

/// The folder of the hub's programs: `HF_HOME`, or in the user's cache.
pub(super) fn home(user: Option<&Path>) -> Option<PathBuf> {
    let cache = || named("XDG_CACHE_HOME").or_else(|| Some(user?.join(".cache")));
    named("HF_HOME").or_else(|| Some(cache()?.join("huggingface")))
}

/// The cache: `HF_HUB_CACHE`, or `hub` in [`home`].
pub(super) fn folder(user: Option<&Path>) -> Option<PathBuf> {
    let cache = named("HF_HUB_CACHE").or_else(|| named("HUGGINGFACE_HUB_CACHE"));
    cache.or_else(|| Some(home(user)?.join("hub")))
}

/// The snapshot of a model that its `main` names, or else any.
pub(super) fn snapshot(folder: &Path, organization: &str, name: &str) -> Option<PathBuf> {
    snapshot_of(&folder.join(format!("{PREFIX}{organization}--{name}")))
}

fn snapshot_of(model: &Path) -> Option<PathBuf> {
    snapshots(model).into_iter().find(|snapshot| snapshot.is_dir())
}

/// The file of a snapshot, or the snapshot where it is a model by itself.
pub(super) fn file_in(snapshot: PathBuf, name: &str, file: Option<&str>) -> Result<PathBuf, LocateError> {
    let files = gguf_models_in(&snapshot);
    let Some(file) = file else {
        let is_directory = snapshot.join("config.json").exists();
        return match &*files {
            [_, _, ..] if !is_directory => Err(LocateError::Several { name: name.to_owned(), files }),
            _ => Ok(snapshot),
        };
    };
    // That of `main` goes before the others.
    let others = snapshot.parent().and_then(Path::parent).map(snapshots).unwrap_or_default();
    let places = std::iter::once(snapshot.clone()).chain(others).map(|place| place.join(file));
    if let Some(path) = places.into_iter().find(|path| path.exists()) {
        Ok(path)
    } else {
        Err(LocateError::NoFile { directory: snapshot, file: file.to_owned(), files })
    }
}

/// Every model of the cache by name, with its snapshot.
pub(super) fn all(folder: &Path) -> Vec<(String, PathBuf)> {
    let named = names(folder).into_iter().filter_map(|folder_name| {
        let name = folder_name.strip_prefix(PREFIX)?.replacen("--", "/", 1);
        Some((name, snapshot_of(&folder.join(&folder_name))?))
    });
    let mut models: Vec<(String, PathBuf)> = named.collect();
    models.sort();
    models
}

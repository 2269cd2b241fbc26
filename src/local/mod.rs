//! Models that are on this machine, and the names by which people know them: a path, `org/name` of the Hugging Face cache,
//! `org/name:FILE.gguf`, or `name:tag` of Ollama's folder.
//!
//! A path that is there is taken as it is. [`locate`] downloads nothing and writes nothing; [`obtain`] brings what is not there from
//! the hub into its cache.

#[cfg(feature = "download")]
mod download;
mod hugging_face;
mod listing;
mod ollama;

use std::path::{Path, PathBuf};

use paceline_kernels::MatrixFormat;

#[cfg(feature = "download")]
pub use self::download::{DownloadError, Downloading, Hub};
pub use self::listing::{LocalModel, models, models_below};
use crate::checkpoint::Checkpoint;
#[cfg(feature = "download")]
use crate::checkpoint::is_whole;
use crate::visible::{shown, shown_path};

/// Why a name leads to no model.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// Nothing of that name was found.
    #[error(
        "There is no model \"{}\": it is no file or directory here, and not in {}; download it first, or give the path of a \
         directory or GGUF file (`paceline models` lists what is on this machine).",
        shown(.name),
        places(.looked)
    )]
    Absent {
        /// The name.
        name: String,
        /// Folders that were looked into.
        looked: Vec<PathBuf>,
    },
    /// A model of Ollama that is more than one file.
    #[error("Ollama's model \"{}\" has an adapter over its weights, or weights in several files, which is not supported; merge them into one GGUF file and give its path.", shown(.name))]
    Composed {
        /// The name.
        name: String,
    },
    /// The hub was asked for it, and it did not come.
    #[cfg(feature = "download")]
    #[error("There is no model \"{}\" on this machine (not in {}), and it cannot be downloaded: {source}.", shown(.name), places(.looked))]
    Download {
        /// The name.
        name: String,
        /// Folders that were looked into.
        looked: Vec<PathBuf>,
        /// Why.
        source: Box<DownloadError>,
    },
    /// The model is there, and the file in it is not.
    #[error("The model {} has no file \"{}\"; it has {}.", shown_path(.directory), shown(.file), listed(.files))]
    NoFile {
        /// The snapshot.
        directory: PathBuf,
        /// The file's name.
        file: String,
        /// Its GGUF files.
        files: Vec<String>,
    },
    /// The model has several GGUF files.
    #[error("\"{}\" has {} GGUF files ({}); name one, as {}:FILE.", shown(.name), .files.len(), listed(.files), shown(.name))]
    Several {
        /// The name.
        name: String,
        /// The files.
        files: Vec<String>,
    },
}

fn places(looked: &[PathBuf]) -> String {
    let looked: Vec<String> = looked.iter().map(|path| shown_path(path)).collect();
    if looked.is_empty() { "any model folder, as you have no home folder".to_owned() } else { looked.join(" or ") }
}

fn listed(files: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<String> = files.iter().take(SHOWN).map(|name| shown(name)).collect();
    match files.len() {
        0 => return "no GGUF files".to_owned(),
        all if all > SHOWN => names.push(format!("{} more", all - SHOWN)),
        _ => (),
    }
    names.join(", ")
}

/// The folders in which other programs keep models.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// The hub's cache of Hugging Face: folders `models--ORG--NAME`.
    pub hugging_face: Option<PathBuf>,
    /// Ollama's: `manifests` and `blobs`.
    pub ollama: Vec<PathBuf>,
}

fn user_home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}

impl Folders {
    /// Those of the environment: `HF_HUB_CACHE`, `HF_HOME`, `OLLAMA_MODELS`, or where these programs put them otherwise.
    pub fn of_environment() -> Self {
        let home = user_home();
        Self { hugging_face: hugging_face::folder(home.as_deref()), ollama: ollama::folders(home.as_deref()) }
    }
}

/// The path of the model that a path or name stands for, looking into the folders of the environment.
///
/// # Errors
/// If there is no such model, or none that is the only one.
pub fn locate(name: &Path) -> Result<PathBuf, LocateError> {
    locate_in(&Folders::of_environment(), name)
}

/// As [`locate`], looking into `folders`. What cannot be a name is taken for a path, whether it is there or not.
///
/// # Errors
/// As [`locate`].
pub fn locate_in(folders: &Folders, path: &Path) -> Result<PathBuf, LocateError> {
    let name = path.to_string_lossy();
    let Some(parts) = Parts::of(&name).filter(|_| !path.exists()) else { return Ok(path.to_owned()) };
    let mut looked = Vec::new();
    if let (Some(folder), Some((organization, name))) = (&folders.hugging_face, parts.name.split_once('/')) {
        if let Some(snapshot) = hugging_face::snapshot(folder, organization, name) {
            return hugging_face::file_in(snapshot, parts.name, parts.detail);
        }
        looked.push(folder.clone());
    }
    for folder in &folders.ollama {
        match ollama::blob(folder, parts.name, parts.detail.unwrap_or("latest")) {
            Some(ollama::Found::Model(blob)) => return Ok(blob),
            Some(ollama::Found::Composed) => return Err(LocateError::Composed { name: name.into_owned() }),
            None => looked.push(folder.clone()),
        }
    }
    Err(LocateError::Absent { name: name.into_owned(), looked })
}

/// As [`locate`], and downloads a model `org/name` or `org/name:FILE` of the hub that is not on this machine, unless the hub's
/// offline mode is on (`HF_HUB_OFFLINE`).
///
/// # Errors
/// As [`locate`], and if it cannot be downloaded.
#[cfg(feature = "download")]
pub fn obtain(path: &Path, progress: &mut dyn FnMut(Downloading<'_>)) -> Result<PathBuf, LocateError> {
    let hub = Hub::of_environment(hugging_face::home(user_home().as_deref()).as_deref());
    obtain_from(hub.as_ref(), &Folders::of_environment(), path, progress)
}

/// As [`obtain`], from `hub` into `folders`.
///
/// # Errors
/// As [`obtain`].
#[cfg(feature = "download")]
pub fn obtain_from(
    hub: Option<&Hub>,
    folders: &Folders,
    path: &Path,
    progress: &mut dyn FnMut(Downloading<'_>),
) -> Result<PathBuf, LocateError> {
    let text = path.to_string_lossy();
    let found = locate_in(folders, path);
    let is_missing = match &found {
        Err(LocateError::Absent { .. } | LocateError::NoFile { .. }) => true,
        // Where other programs brought a part of the model alone.
        Ok(place) => folders.hugging_face.as_ref().is_some_and(|folder| place.starts_with(folder)) && !is_whole(place),
        Err(_) => false,
    };
    let parts = Parts::of(&text).filter(|parts| is_missing && parts.name.contains('/'));
    let (Some(hub), Some(folder), Some(parts)) = (hub, &folders.hugging_face, parts) else { return found };
    match download::download(hub, folder, parts.name, parts.detail, progress) {
        Ok(()) => locate_in(folders, path),
        Err(source) => {
            let looked =
                if let Err(LocateError::Absent { looked, .. }) = found { looked } else { vec![folder.clone()] };
            Err(LocateError::Download { name: text.into_owned(), looked, source: Box::new(source) })
        }
    }
}

/// The format of most weights of the model at a path or of a name; `None` where it cannot be opened, for which loading it
/// gives the reason.
pub fn stored_format(name: &Path) -> Option<MatrixFormat> {
    Some(Checkpoint::open(&locate(name).ok()?).ok()?.stored_format().into())
}

/// A name in two parts.
struct Parts<'a> {
    /// `org/name` or `name`.
    name: &'a str,
    /// A file or tag after a colon.
    detail: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// `None` for what cannot be a model's name: it is a path then.
    fn of(text: &'a str) -> Option<Self> {
        let (name, detail) = text.split_once(':').map_or((text, None), |(name, detail)| (name, Some(detail)));
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        let is_name = name.split('/').count() <= 2 && name.split('/').all(is_part);
        // A file may lie in a folder of its repository.
        let is_detail = detail.is_none_or(|detail| detail.split('/').all(is_part));
        // A file's name without a folder is a path: nobody's model is called so.
        let is_file = detail.is_none() && !name.contains('/') && name.to_ascii_lowercase().ends_with(".gguf");
        (is_name && is_detail && !is_file).then_some(Self { name, detail })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::fs;

    use super::*;

    /// A cache with one model of several files, one of a single one, and an Ollama folder with a model in two versions.
    fn folders(root: &Path) -> Folders {
        let hub = root.join("hub");
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let model = hub.join("models--org--many");
        write(model.join("refs/main"), "abc");
        for file in ["a.q4.gguf", "a.q8.gguf", "deep/b.gguf"] {
            write(model.join("snapshots/abc").join(file), "GGUF");
        }
        write(model.join("snapshots/old/a.q4.gguf"), "GGUF");
        write(hub.join("models--org--one/refs/main"), "def");
        write(hub.join("models--org--one/snapshots/def/config.json"), "{}");
        let ollama = root.join("ollama");
        let manifest = |digest: &str| {
            format!(
                r#"{{"layers": [{{"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:00"}},
                {{"mediaType": "application/vnd.ollama.image.model", "digest": "{digest}"}}]}}"#
            )
        };
        let manifests = ollama.join("manifests/registry.ollama.ai");
        write(manifests.join("library/llama3.2/latest"), &manifest("sha256:aa"));
        write(manifests.join("library/llama3.2/1b"), &manifest("sha256:bb"));
        write(manifests.join("me/mine/latest"), &manifest("sha256:aa"));
        write(manifests.join("library/evil/latest"), &manifest("sha256:../../secret"));
        let adapter = manifest("sha256:aa").replace("image.template", "image.adapter");
        write(manifests.join("library/adapted/latest"), &adapter);
        write(manifests.join("library/gone/latest"), &manifest("sha256:cc"));
        for blob in ["aa", "bb"] {
            write(ollama.join(format!("blobs/sha256-{blob}")), "GGUF");
        }
        Folders { hugging_face: Some(hub), ollama: vec![ollama] }
    }

    #[test]
    fn names_lead_to_files() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        let found = |name: &str| locate_in(&folders, Path::new(name)).unwrap();
        let many = root.path().join("hub/models--org--many/snapshots/abc");
        assert_eq!(found("org/many:a.q8.gguf"), many.join("a.q8.gguf"));
        assert_eq!(found("org/many:deep/b.gguf"), many.join("deep/b.gguf"));
        assert_eq!(found("org/one"), root.path().join("hub/models--org--one/snapshots/def"));
        let blobs = root.path().join("ollama/blobs");
        assert_eq!(found("llama3.2"), blobs.join("sha256-aa"));
        assert_eq!(found("llama3.2:1b"), blobs.join("sha256-bb"));
        assert_eq!(found("me/mine"), blobs.join("sha256-aa"));
        // What is a path stays one.
        for path in ["/nowhere/x", "./x", "../a/b", "a/b/c", "x.gguf", "a b", ""] {
            assert_eq!(found(path), Path::new(path));
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_the_places() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        let message = |name: &str| locate_in(&folders, Path::new(name)).unwrap_err().to_string();
        let absent = message("org/none");
        assert!(
            absent.contains("There is no model \"org/none\"") && absent.contains("hub") && absent.contains("ollama"),
            "{absent}"
        );
        assert!(message("org/many").contains("has 2 GGUF files (a.q4.gguf, a.q8.gguf); name one, as org/many:FILE."));
        assert!(message("org/many:c.gguf").contains("has no file \"c.gguf\"; it has a.q4.gguf, a.q8.gguf."));
        for name in ["llama3.2:7b", "evil", "gone", "nothing"] {
            assert!(message(name).contains("There is no model"), "{name}");
        }
        assert!(message("adapted").contains("has an adapter over its weights"));
        let nowhere = locate_in(&Folders::default(), Path::new("a/b")).unwrap_err().to_string();
        assert!(nowhere.contains("as you have no home folder"), "{nowhere}");
    }
}

//! The models that ship: in the program itself, so that it has them wherever it was installed.
//!
//! Models are opened as directories. So the files are written to the user's cache once, and again where they are no
//! longer what the program holds. Programs with other models have other places there: one never replaces what another
//! may be reading.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use paceline::checksum::Checksum;
use paceline::command::Failure;
use paceline::command::obtaining::obtain;
use paceline::files::{AtomicFolder, LockKind, if_possible, lock, read};

/// A model's name and files.
type Model = (&'static str, &'static [(&'static str, &'static [u8])]);

macro_rules! model {
    ($name:literal: $($file:literal),*) => {
        ($name, &[$(($file, include_bytes!(concat!("../../models/", $name, "/", $file)))),*])
    };
}

/// The model that answers where none is named.
const TARGET: Model = model!("target": "config.json", "generation_config.json", "model.safetensors", "exits.safetensors",
    "router.safetensors", "draft_vocabulary.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "certificates/floor-0.99.json", "certificates/floor-0.95.json", "certificates/floor-0.9.json");

/// Its draft models.
const DRAFTS: [Model; 2] = [
    model!("small": "config.json", "generation_config.json", "model.safetensors", "draft_vocabulary.json", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json"),
    model!("tiny": "config.json", "generation_config.json", "model.safetensors", "draft_vocabulary.json", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json"),
];

/// Longest wait for another program that writes the models.
const PATIENCE: Duration = Duration::from_secs(60);

/// The models to work with.
pub(super) struct Models {
    /// The target's directory.
    pub(super) target: PathBuf,
    /// Those of its draft models.
    pub(super) drafts: Vec<PathBuf>,
    /// True if the target is the one that ships: a chat model, whose prompts are meant to be rendered.
    pub(super) shipped: bool,
}

/// The models that were named; the target that ships where none was, and its drafts where none were either.
///
/// # Errors
/// When they cannot be written to the cache.
pub(super) fn or_shipped(target: Option<&Path>, drafts: &[PathBuf]) -> Result<Models, Failure> {
    let shipped = target.is_none();
    let drafts = match drafts {
        [] if shipped => DRAFTS.iter().map(|model| place(&cache(), model)).collect::<Result<_, _>>()?,
        named => {
            // They keep the names that they were given: where they lie may be a hash.
            named.iter().try_for_each(|draft| obtain(draft).map(drop))?;
            named.to_vec()
        }
    };
    let target = target.map_or_else(self::target, |named| Ok(obtain(named)?))?;
    Ok(Models { target, drafts, shipped })
}

/// The directory of the target that ships.
///
/// # Errors
/// When it cannot be written to the cache.
pub(super) fn target() -> Result<PathBuf, Failure> {
    place(&cache(), &TARGET)
}

/// Where programs keep what they can make again, and this one its models.
fn cache() -> PathBuf {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let all = named.or_else(|| Some(std::env::home_dir()?.join(".cache"))).unwrap_or_else(std::env::temp_dir);
    all.join("paceline").join(format!("{}-{:08x}", env!("CARGO_PKG_VERSION"), contents() as u32))
}

/// A number that other models would most likely not have: of their files' sizes and beginnings, as hashing all of them would
/// take longer than starting may. (Whether a directory holds them is a question for [`holds`], which looks at every byte.)
fn contents() -> u64 {
    const BEGINNING: usize = 1 << 16;
    let mut sum = Checksum::default();
    for (name, bytes) in std::iter::once(&TARGET).chain(&DRAFTS).flat_map(|model| model.1) {
        sum.text(name);
        sum.update(&(bytes.len() as u64).to_le_bytes());
        sum.update(&bytes[..bytes.len().min(BEGINNING)]);
    }
    sum.finish()
}

/// A model's directory in `folder`, which holds its files afterwards.
fn place(folder: &Path, model: &Model) -> Result<PathBuf, Failure> {
    let path = folder.join(model.0);
    if !holds(&path, model) {
        write(folder, &path, model).map_err(|error| {
            anyhow!(
                "The models that ship cannot be written to {}: {error}; make room there, name another place in the \
                 environment variable XDG_CACHE_HOME, or name a model of yours with `--model`.",
                path.display()
            )
        })?;
    }
    Ok(path)
}

/// Writes a model's directory, unless another program has done so meanwhile.
fn write(folder: &Path, path: &Path, model: &Model) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // Where there can be no lock, two programs write the same.
    let taken = lock(&folder.join("in-use.lock"), LockKind::Alone, PATIENCE);
    let _lock = if_possible(taken).map_err(io::Error::other)?;
    if holds(path, model) {
        return Ok(());
    }
    // A link in the cache goes; where it leads is not ours.
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        fs::remove_file(path)?;
    }
    let made = AtomicFolder::create(path).map_err(|error| error.source)?;
    for (name, bytes) in model.1 {
        let file = made.part().join(name);
        file.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(file, bytes)?;
    }
    made.commit().map_err(|error| error.source)
}

/// True if a directory holds a model's files and nothing else: loading would take up a chat template, an index or a
/// certificate that somebody left there.
fn holds(path: &Path, model: &Model) -> bool {
    let is_same =
        |(name, bytes): &(&str, &[u8])| read(&path.join(name), bytes.len() as u64).is_ok_and(|found| found == *bytes);
    let names: BTreeSet<&Path> = model.1.iter().map(|(name, _)| Path::new(name)).collect();
    model.1.iter().all(is_same) && has_only(path, path, &names).unwrap_or(false)
}

/// True if all files below `folder` are among those names, which are relative to `root`.
fn has_only(root: &Path, folder: &Path, names: &BTreeSet<&Path>) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let known = match path.strip_prefix(root) {
            // Links are none of ours, wherever they lead.
            Ok(name) if kind.is_file() => names.contains(name),
            Ok(name) if kind.is_dir() => {
                names.iter().any(|file| file.starts_with(name)) && has_only(root, &path, names)?
            }
            _ => false,
        };
        if !known {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_written_once_and_again_when_a_file_differs() {
        let folder = tempfile::tempdir().unwrap();
        let model: Model = ("small", &[("a", b"first"), ("folder/b", b"second")]);
        let path = place(folder.path(), &model).unwrap_or_else(|failure| panic!("{}", failure.error));
        assert_eq!(fs::read(path.join("folder/b")).unwrap(), b"second");
        let written = fs::metadata(path.join("a")).unwrap().modified().unwrap();

        place(folder.path(), &model).unwrap_or_else(|failure| panic!("{}", failure.error));
        assert_eq!(fs::metadata(path.join("a")).unwrap().modified().unwrap(), written);

        fs::write(path.join("folder/b"), "damaged").unwrap();
        place(folder.path(), &model).unwrap_or_else(|failure| panic!("{}", failure.error));
        assert_eq!(fs::read(path.join("folder/b")).unwrap(), b"second");

        // Nothing else may be there that loading would take up.
        for planted in ["chat_template.jinja", "folder/c", "more/a"] {
            fs::create_dir_all(path.join(planted).parent().unwrap()).unwrap();
            fs::write(path.join(planted), "planted").unwrap();
            place(folder.path(), &model).unwrap_or_else(|failure| panic!("{}", failure.error));
            assert!(!path.join(planted).exists() && holds(&path, &model), "{planted}");
        }
        #[cfg(unix)]
        {
            fs::rename(path.join("a"), folder.path().join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(folder.path().join("elsewhere"), path.join("a")).unwrap();
            place(folder.path(), &model).unwrap_or_else(|failure| panic!("{}", failure.error));
            assert!(fs::symlink_metadata(path.join("a")).unwrap().is_file());
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = place(file.path(), &("small", &[("a", b"first")])).unwrap_err();
        assert!(failure.error.to_string().contains(file.path().to_str().unwrap()), "{}", failure.error);
    }
}

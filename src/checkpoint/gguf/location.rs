//! Where a GGUF model lies: a file, the first of the files that it is split into, or a directory with one of these.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::MAGIC;
use crate::checkpoint::CheckpointError;
use crate::files::{names, open_plain};
use crate::visible::{shown, shown_path};

/// Weights in the Hugging Face layout; a directory that has them is read as such.
const OTHER_WEIGHTS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// A number of a file and of all files that a model is split into: `-00002-of-00003` before the ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// From 1.
    pub(super) number: usize,
    pub(super) count: usize,
}

impl Part {
    /// The name without its part and ending, and the part, where it has one.
    pub(super) fn of(name: &str) -> Option<(&str, Self)> {
        let name = strip_ending(name)?;
        let (name, count) = name.rsplit_once("-of-")?;
        let (name, number) = name.rsplit_once('-')?;
        let digits =
            |text: &str| (text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok());
        let (number, count) = (digits(number)??, digits(count)??);
        (1..=count).contains(&number).then_some((name, Self { number, count }))
    }

    /// The name of another part.
    pub(super) fn name(self, name: &str) -> String {
        format!("{name}-{:05}-of-{:05}.gguf", self.number, self.count)
    }
}

/// A file's name without its ending, and without the number of a part.
pub(in crate::checkpoint) fn model_name(name: &str) -> &str {
    Part::of(name).map(|(name, _)| name).or_else(|| strip_ending(name)).unwrap_or(name)
}

fn strip_ending(name: &str) -> Option<&str> {
    let (start, end) = name.split_at_checked(name.len().checked_sub(5)?)?;
    end.eq_ignore_ascii_case(".gguf").then_some(start)
}

/// True if a file begins as GGUF, whatever its name: Ollama's are named by their hashes.
fn begins_as_gguf(path: &Path) -> bool {
    let mut beginning = [0; MAGIC.len()];
    open_plain(path).is_ok_and(|mut file| file.read_exact(&mut beginning).is_ok()) && beginning == MAGIC
}

/// The GGUF file that a model's path leads to; `None` where it leads to something else, or to nothing.
///
/// # Errors
/// If it is a directory with several GGUF models.
pub(crate) fn find(path: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let Ok(found) = fs::metadata(path) else { return Ok(None) };
    if found.is_file() {
        let is_named = path.file_name().is_some_and(|name| strip_ending(&name.to_string_lossy()).is_some());
        return Ok((is_named || begins_as_gguf(path)).then(|| path.to_owned()));
    }
    if !found.is_dir() || OTHER_WEIGHTS.iter().any(|name| path.join(name).exists()) {
        return Ok(None);
    }
    let models = models_in(path);
    match &*models {
        [] => Ok(None),
        [only] => Ok(Some(path.join(only))),
        several => Err(several_models(path, several)),
    }
}

/// The GGUF models of a directory by name, of a split one its first part; without projectors of pictures, which are no models.
pub(crate) fn models_in(directory: &Path) -> Vec<String> {
    let is_model = |name: &String| {
        strip_ending(name).is_some()
            && !name.to_ascii_lowercase().starts_with("mmproj")
            && Part::of(name).is_none_or(|(_, part)| part.number == 1)
    };
    names(directory).into_iter().filter(is_model).collect()
}

/// True if all files are there that the GGUF model of a file is split into.
#[cfg(feature = "download")]
pub(crate) fn has_all_parts(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let is_there = |name: String| file.with_file_name(name).exists();
    match Part::of(&name) {
        Some((name, part)) => (1..=part.count).all(|number| is_there(Part { number, ..part }.name(name))),
        None => file.exists(),
    }
}

fn several_models(directory: &Path, models: &[String]) -> CheckpointError {
    const SHOWN: usize = 12;
    let mut names: Vec<String> = models.iter().take(SHOWN).map(|name| shown(name)).collect();
    if models.len() > SHOWN {
        names.push(format!("{} more", models.len() - SHOWN));
    }
    let example = models.first().map(|name| shown_path(&directory.join(name))).unwrap_or_default();
    let reason = format!("holds {} GGUF models ({}); name one, such as {example}", models.len(), names.join(", "));
    CheckpointError::NotAModel { path: directory.to_owned(), reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_their_names() {
        let part = |number, count| Some(("a-b", Part { number, count }));
        assert_eq!(Part::of("a-b-00001-of-00003.gguf"), part(1, 3));
        assert_eq!(Part::of("a-b-00003-of-00003.GGUF"), part(3, 3));
        for other in [
            "a-b.gguf",
            "a-1-of-3.gguf",
            "a-00004-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "00001-of-00003.gguf",
            ".gguf",
            "é",
        ] {
            assert_eq!(Part::of(other), None, "{other}");
        }
        assert_eq!(Part { number: 2, count: 3 }.name("a-b"), "a-b-00002-of-00003.gguf");
    }

    #[test]
    fn a_directory_with_one_model_is_that_model() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert_eq!(find(dir.path()).unwrap(), None);
        for name in ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj-m.gguf", "README.md"] {
            fs::write(path(name), "").unwrap();
        }
        assert_eq!(find(dir.path()).unwrap(), Some(path("m-00001-of-00002.gguf")));
        fs::write(path("other.gguf"), "").unwrap();
        let message = find(dir.path()).unwrap_err().to_string();
        assert!(message.contains("holds 2 GGUF models (m-00001-of-00002.gguf, other.gguf); name one"), "{message}");
        fs::write(path("model.safetensors"), "").unwrap();
        assert_eq!(find(dir.path()).unwrap(), None);
        assert_eq!(find(&path("other.gguf")).unwrap(), Some(path("other.gguf")));
        fs::write(path("sha256-0"), "GGUF").unwrap();
        assert_eq!(find(&path("sha256-0")).unwrap(), Some(path("sha256-0")));
        assert_eq!(find(&path("README.md")).unwrap(), None);
        assert_eq!(find(&path("absent.gguf")).unwrap(), None);
    }
}

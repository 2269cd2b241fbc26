//! Directories and files that are often taken for a model's, and what to name instead.
//!
//! Nothing here decides whether a model can be read; it finds the sentence that helps where one cannot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::CheckpointError;
use crate::files::names;
use crate::files::of_model::read_text;
use crate::visible::{shown, shown_path};

/// The files besides the weights that belong to a model.
const SIDE_FILES: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "exits.safetensors",
    "router.safetensors",
    "draft_vocabulary.json",
];

/// The pointers that Git leaves in place of large files are shorter than this.
const LONGEST_POINTER: u64 = 1024;

/// The error for a path that is no directory.
pub(super) fn not_a_directory(path: &Path) -> CheckpointError {
    let named = |end: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(end));
    if named("safetensors") {
        return wrong(path, "is one file of a model; give the directory that holds it and config.json");
    }
    CheckpointError::NotADirectory { path: path.to_owned() }
}

/// The error for a path at which nothing is.
pub(super) fn absent(path: &Path) -> CheckpointError {
    dangling(path).unwrap_or_else(|| CheckpointError::NoDirectory { path: path.to_owned() })
}

/// Refuses what makes another model of the directory than its files say, or keeps its small files from being read.
pub(super) fn check(dir: &Path) -> Result<(), CheckpointError> {
    SIDE_FILES.into_iter().try_for_each(|name| check_file(&dir.join(name)))?;
    if dir.join("config.json").exists() && dir.join("adapter_config.json").exists() {
        let reason = "holds an adapter (adapter_config.json) beside the model, which is not applied; merge it into the weights, or move its files away";
        return Err(wrong(dir, reason));
    }
    Ok(())
}

/// Refuses a file that was not downloaded: a link to nothing, or a pointer of Git LFS.
pub(super) fn check_file(path: &Path) -> Result<(), CheckpointError> {
    if let Some(error) = dangling(path) {
        return Err(error);
    }
    let is_small = fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() < LONGEST_POINTER);
    let begins_as_pointer = |text: String| text.starts_with("version https://git-lfs.github.com/");
    let is_pointer = || read_text(path, LONGEST_POINTER).is_ok_and(begins_as_pointer);
    if is_small && is_pointer() {
        return Err(wrong(path, "is a pointer of Git LFS, not the file itself; run `git lfs pull` in its directory"));
    }
    Ok(())
}

/// The error for a directory without `config.json`.
pub(super) fn without_config(dir: &Path) -> CheckpointError {
    let names = names(dir);
    let has = |name: &str| names.iter().any(|found| found == name);
    if names.is_empty() && fs::read_dir(dir).is_ok() {
        return wrong(
            dir,
            "is empty, so it has no config.json; give a directory with config.json, model.safetensors and tokenizer.json",
        );
    }
    if has("snapshots") {
        let advice = match snapshot(dir) {
            Some(snapshot) => format!("give {}", shown_path(&snapshot)),
            None => "its download holds no snapshot: download the model again".to_owned(),
        };
        return wrong(
            dir,
            &format!("is the root of a model in the hub's cache, whose files lie in snapshots; {advice}"),
        );
    }
    if let Some(model) = names.iter().find(|name| name.starts_with("models--")) {
        let advice = match snapshot(&dir.join(model)) {
            Some(snapshot) => format!("give a snapshot in it, such as {}", shown_path(&snapshot)),
            None => "give the directory of a snapshot in it".to_owned(),
        };
        return wrong(dir, &format!("is a cache of many models; {advice}"));
    }
    if has("adapter_config.json") {
        return wrong(
            dir,
            "holds an adapter (LoRA), not a model; merge it into its base model and give the directory of the result",
        );
    }
    if has("blobs") && has("manifests") {
        return wrong(
            dir,
            "is the store of Ollama; give a model's name, such as llama3.2:1b, or one of the files in blobs that is a GGUF file",
        );
    }
    if let Some(reason) = foreign_weights(&names) {
        return wrong(dir, &reason);
    }
    let inner: Vec<&String> = names.iter().filter(|name| dir.join(name).join("config.json").is_file()).collect();
    if let [inner] = *inner {
        return wrong(dir, &format!("has no config.json, but {} in it has; give that directory", shown(inner)));
    }
    CheckpointError::NoConfig { dir: dir.to_owned() }
}

/// The error for a directory with `config.json` and without weights.
pub(super) fn without_weights(dir: &Path) -> CheckpointError {
    let names = names(dir);
    if let Some(reason) = foreign_weights(&names) {
        return wrong(dir, &reason);
    }
    let shard = names.iter().find(|name| name.starts_with("model-") && name.contains("-of-") && is_safetensors(name));
    if let Some(shard) = shard {
        let reason = format!(
            "holds {} without model.safetensors.index.json, which lists the shards; download that file too",
            shown(shard)
        );
        return wrong(dir, &reason);
    }
    if let Some(name) = names.iter().find(|name| is_safetensors(name) && !is_ours(name)) {
        let reason =
            format!("holds weights under the name {}, which is not read; name the file model.safetensors", shown(name));
        return wrong(dir, &reason);
    }
    let other = names.into_iter().find(|name| [".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end)));
    CheckpointError::NoWeights { dir: dir.to_owned(), other }
}

/// True if a name is that of a file of ours that lies beside a model.
fn is_ours(name: &str) -> bool {
    [super::EXITS, "router.safetensors"].contains(&name)
}

fn is_safetensors(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// The rest of a sentence on weights in another program's layout.
fn foreign_weights(names: &[String]) -> Option<String> {
    names.iter().find(|name| name.starts_with("consolidated")).map(|name| {
        format!(
            "holds {}, the layout of the model's makers; download the same model in the Hugging Face layout, with config.json and model.safetensors",
            shown(name)
        )
    })
}

/// The snapshot that a model of the hub's cache stands at, or any.
fn snapshot(root: &Path) -> Option<PathBuf> {
    let snapshots = snapshots(root);
    let model = snapshots.iter().find(|snapshot| snapshot.join("config.json").exists());
    model.or(snapshots.first()).cloned()
}

/// The snapshots of a model of the hub's cache: first the one that `main` names, then the others by their names.
pub(crate) fn snapshots(root: &Path) -> Vec<PathBuf> {
    let folder = root.join("snapshots");
    let main = read_text(&root.join("refs/main"), LONGEST_POINTER).unwrap_or_default();
    let mut names = names(&folder);
    names.sort_by_key(|name| name != main.trim());
    names.into_iter().map(|name| folder.join(name)).collect()
}

fn dangling(path: &Path) -> Option<CheckpointError> {
    let target = fs::read_link(path).ok()?;
    let is_absent = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let reason = format!(
        "is a link to {}, which does not exist; its download was interrupted: download it again",
        shown_path(&target)
    );
    is_absent.then(|| wrong(path, &reason))
}

fn wrong(path: &Path, reason: &str) -> CheckpointError {
    CheckpointError::NotAModel { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use crate::checkpoint::Checkpoint;

    use super::*;

    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 792664\n";

    fn model() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama-tied")
    }

    /// A copy of a model without its weights.
    fn without_weights_in(dir: &Path) {
        for name in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
            fs::copy(model().join(name), dir.join(name)).unwrap();
        }
    }

    #[test]
    fn a_directory_that_is_often_taken_for_a_model_gets_the_sentence_that_helps() {
        type Make = fn(&Path);
        let cases: [(&str, Make, &str); 18] = [
            ("nothing", |_| {}, "is empty"),
            ("root", |dir| fs::create_dir_all(dir.join("snapshots/abc")).unwrap(), "snapshots/abc"),
            (
                "cache",
                |dir| fs::create_dir_all(dir.join("models--a--b/snapshots/abc")).unwrap(),
                "models--a--b/snapshots/abc",
            ),
            (
                "lora",
                |dir| fs::write(dir.join("adapter_config.json"), "{}").unwrap(),
                "adapter (LoRA), not a model; merge",
            ),
            (
                "gguf",
                |dir| ["m.GGUF", "n.gguf"].map(|name| fs::write(dir.join(name), "").unwrap()).into_iter().collect(),
                "holds 2 GGUF models (m.GGUF, n.gguf); name one, such as",
            ),
            (
                "consolidated",
                |dir| {
                    without_weights_in(dir);
                    fs::write(dir.join("consolidated.safetensors"), "").unwrap();
                },
                "the layout of the model's makers",
            ),
            (
                "original",
                |dir| fs::write(dir.join("consolidated.00.pth"), "").unwrap(),
                "the layout of the model's makers",
            ),
            (
                "ollama",
                |dir| {
                    fs::create_dir(dir.join("blobs")).unwrap();
                    fs::create_dir(dir.join("manifests")).unwrap();
                },
                "the store of Ollama",
            ),
            (
                "nested",
                |dir| {
                    fs::create_dir(dir.join("inner")).unwrap();
                    without_weights_in(&dir.join("inner"));
                },
                "inner in it has; give that directory",
            ),
            ("other", |dir| fs::write(dir.join("notes.txt"), "").unwrap(), "has no config.json"),
            (
                "shards",
                |dir| {
                    without_weights_in(dir);
                    fs::write(dir.join("model-00001-of-00002.safetensors"), "").unwrap();
                },
                "without model.safetensors.index.json",
            ),
            (
                "pytorch",
                |dir| {
                    without_weights_in(dir);
                    fs::write(dir.join("pytorch_model.bin"), "").unwrap();
                },
                "convert pytorch_model.bin to safetensors",
            ),
            (
                "named",
                |dir| {
                    without_weights_in(dir);
                    fs::write(dir.join("weights.safetensors"), "").unwrap();
                },
                "name the file model.safetensors",
            ),
            (
                "beside",
                |dir| {
                    without_weights_in(dir);
                    fs::copy(model().join("model.safetensors"), dir.join("model.safetensors")).unwrap();
                    fs::write(dir.join("adapter_config.json"), "{}").unwrap();
                },
                "an adapter (adapter_config.json) beside the model",
            ),
            (
                "lfs",
                |dir| {
                    without_weights_in(dir);
                    fs::write(dir.join("model.safetensors"), POINTER).unwrap();
                },
                "model.safetensors is a pointer of Git LFS",
            ),
            (
                "lfs-config",
                |dir| fs::write(dir.join("config.json"), POINTER).unwrap(),
                "config.json is a pointer of Git LFS",
            ),
            (
                "lfs-tokenizer",
                |dir| {
                    without_weights_in(dir);
                    fs::write(dir.join("tokenizer.json"), POINTER).unwrap();
                },
                "tokenizer.json is a pointer of Git LFS",
            ),
            (
                "lfs-shard",
                |dir| {
                    without_weights_in(dir);
                    let index = r#"{"weight_map": {"a": "x.safetensors"}}"#;
                    fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
                    fs::write(dir.join("x.safetensors"), POINTER).unwrap();
                },
                "x.safetensors is a pointer of Git LFS",
            ),
        ];
        for (name, make, said) in cases {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().join(name);
            fs::create_dir(&dir).unwrap();
            make(&dir);
            let message = Checkpoint::open(&dir).unwrap_err().to_string();
            assert!(message.contains(said) && message.ends_with('.') && !message.contains('\n'), "{name}: {message}");
        }
    }

    #[test]
    fn the_snapshot_that_main_names_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            let snapshot = dir.path().join("snapshots").join(name);
            fs::create_dir_all(&snapshot).unwrap();
            without_weights_in(&snapshot);
        }
        fs::create_dir(dir.path().join("refs")).unwrap();
        fs::write(dir.path().join("refs/main"), "two\n").unwrap();
        assert!(Checkpoint::open(dir.path()).unwrap_err().to_string().ends_with("snapshots/two."));
    }

    #[test]
    fn a_file_is_named_by_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes, said) in [
            ("m.gguf", &b""[..], "is damaged: it ends at byte 0"),
            ("n.gguf", b"PK\x03\x04", "does not begin as a GGUF file"),
            ("old.gguf", b"tjgg\x03\0\0\0", "is a file of ggml from before GGUF"),
            ("big.gguf", b"GGUF\0\0\0\x03", "of the other byte order"),
            ("v1.gguf", b"GGUF\x01\0\0\0", "of version 1; versions 2 and 3 are read"),
            ("sha256-0123", b"GGUF\x03", "is damaged: it ends at byte 4"),
            ("model.safetensors", b"", "is one file of a model"),
            ("config.json", b"{}", "is not a directory"),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let message = Checkpoint::open(&path).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_an_interrupted_download() {
        for name in SIDE_FILES.into_iter().chain(["model.safetensors"]) {
            let dir = tempfile::tempdir().unwrap();
            without_weights_in(dir.path());
            let _ = fs::remove_file(dir.path().join(name));
            std::os::unix::fs::symlink("../blobs/x", dir.path().join(name)).unwrap();
            let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
            assert!(
                message.contains(name) && message.contains("is a link to ../blobs/x, which does not exist"),
                "{message}"
            );
            let message = Checkpoint::open(&dir.path().join(name)).unwrap_err().to_string();
            assert!(message.contains("is a link to"), "{message}");
        }
    }
}

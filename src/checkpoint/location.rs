//! Where files lie that belong to a model and are not its own (exit heads, a router, a draft vocabulary, certificates), and
//! whether all of its own are there.

use std::path::{Path, PathBuf};

use super::gguf::model_name;

/// The place of the file or folder `name` of the model at `path`: in its directory, or beside a file, whose name it begins with
/// (without its ending, and of a split model without the number of the part).
pub fn side_file(path: &Path, name: &str) -> PathBuf {
    if !path.is_file() {
        return path.join(name);
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}.{name}", model_name(&file)))
}

/// True if the weights of a model are all there: its one file, all shards that its index lists, or all files that a GGUF model
/// is split into. Other programs bring a part of a model to the hub's cache, and downloads end early.
#[cfg(feature = "download")]
pub(crate) fn is_whole(path: &Path) -> bool {
    if !path.is_dir() {
        return super::gguf::has_all_parts(path);
    }
    let models = super::gguf::models_in(path);
    path.join("model.safetensors").exists()
        || super::shards::has_all(path)
        || !models.is_empty() && models.iter().all(|model| super::gguf::has_all_parts(&path.join(model)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn files_lie_in_a_directory_or_beside_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let heads = |name: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, "").unwrap();
            side_file(&file, "exits.safetensors").file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(heads("a-1.5b.q4_k_m.gguf"), "a-1.5b.q4_k_m.exits.safetensors");
        assert_eq!(heads("Llama-3.2-1B"), "Llama-3.2-1B.exits.safetensors");
        assert_eq!(heads("m-00001-of-00002.gguf"), heads("m-00002-of-00002.gguf"));
        assert_eq!(side_file(dir.path(), "exits.safetensors"), dir.path().join("exits.safetensors"));
    }
}

//! Where files lie that belong to a model and are not its own: exit heads, a router, a draft vocabulary, certificates.

use std::path::{Path, PathBuf};

/// The place of the file or folder `name` of the model at `path`: in its directory, or beside a file, whose name it begins with.
pub fn side_file(path: &Path, name: &str) -> PathBuf {
    if path.is_file() { path.with_extension(name) } else { path.join(name) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn files_lie_in_a_directory_or_beside_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a-1.5b.q4_k_m.gguf");
        std::fs::write(&file, "").unwrap();
        assert_eq!(side_file(dir.path(), "exits.safetensors"), dir.path().join("exits.safetensors"));
        assert_eq!(side_file(&file, "exits.safetensors"), dir.path().join("a-1.5b.q4_k_m.exits.safetensors"));
    }
}

//! Ollama's folder: manifests by name, and blobs, of which a model's is a GGUF file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::files::{names, read_text};

/// Manifests have a few hundred bytes.
const LARGEST_MANIFEST: u64 = 1 << 20;
const REGISTRY: &str = "manifests/registry.ollama.ai";
const MODEL: &str = "application/vnd.ollama.image.model";
const ADAPTER: &str = "application/vnd.ollama.image.adapter";

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
}

/// `OLLAMA_MODELS`, or where it keeps models of a user or of a service.
pub(super) fn folders(home: Option<&Path>) -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("OLLAMA_MODELS").filter(|named| !named.is_empty()) {
        return vec![named.into()];
    }
    let mut folders: Vec<PathBuf> = home.map(|home| home.join(".ollama/models")).into_iter().collect();
    folders.push("/usr/share/ollama/.ollama/models".into());
    folders
}

/// What a name leads to.
pub(super) enum Found {
    Model(PathBuf),
    /// A model with adapters over it, or in several files.
    Composed,
}

/// The file of a model, `None` if it is not there.
pub(super) fn blob(folder: &Path, name: &str, tag: &str) -> Option<Found> {
    let name = if name.contains('/') { PathBuf::from(name) } else { Path::new("library").join(name) };
    blob_of(folder, &folder.join(REGISTRY).join(name).join(tag))
}

fn blob_of(folder: &Path, manifest: &Path) -> Option<Found> {
    let manifest: Manifest = serde_json::from_str(&read_text(manifest, LARGEST_MANIFEST).ok()?).ok()?;
    let of_kind = |kind: &str| manifest.layers.iter().filter(|layer| layer.media_type == kind).count();
    if of_kind(ADAPTER) > 0 || of_kind(MODEL) > 1 {
        return Some(Found::Composed);
    }
    let model = manifest.layers.into_iter().find(|layer| layer.media_type == MODEL)?;
    let digest = model.digest.strip_prefix("sha256:")?;
    // A name in a file of others: nothing but a hash leads anywhere.
    let is_hash = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let blob = folder.join("blobs").join(format!("sha256-{digest}"));
    (is_hash && blob.is_file()).then_some(Found::Model(blob))
}

/// Every model of a folder by name and tag, with its file.
pub(super) fn all(folder: &Path) -> Vec<(String, PathBuf)> {
    let registry = folder.join(REGISTRY);
    let mut models = Vec::new();
    for owner in names(&registry) {
        for name in names(&registry.join(&owner)) {
            for tag in names(&registry.join(&owner).join(&name)) {
                if let Some(Found::Model(blob)) = blob_of(folder, &registry.join(&owner).join(&name).join(&tag)) {
                    let owner = if owner == "library" { String::new() } else { format!("{owner}/") };
                    models.push((format!("{owner}{name}:{tag}"), blob));
                }
            }
        }
    }
    models
}

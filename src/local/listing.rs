//! The models of this machine as a list: what each is, what lies beside it, and which of them could draft for it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Folders, hugging_face, ollama};
use crate::checkpoint::{Checkpoint, DRAFT_VOCABULARY, EXITS, gguf_models_in, metadata_of, side_file};
use crate::text::Tokenizer;

/// Folders below a named one that are looked into.
const DEEPEST: usize = 3;
/// A draft has at most so many of its target's parameters: a larger one costs nearly what it saves.
const LARGEST_DRAFT: f64 = 0.5;
/// What lies beside a model and was trained for it.
const HEADS: [(&str, &str); 3] =
    [(EXITS, "exit heads"), ("router.safetensors", "router"), (DRAFT_VOCABULARY, "draft vocabulary")];

/// A model that was found.
#[derive(Clone, Debug, Serialize)]
pub struct LocalModel {
    /// By which `--model` finds it: a name, or the path.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes of its weights files.
    pub bytes: u64,
    /// The architecture; `None` where it cannot be opened.
    pub family: Option<String>,
    /// The format that most of its weights have.
    pub stored: Option<String>,
    /// Its parameters.
    pub parameters: Option<u64>,
    /// What lies beside it that was trained for it.
    pub heads: Vec<&'static str>,
    /// Names of models in the list that share its vocabulary and are small enough to draft for it, the largest first.
    pub drafts: Vec<String>,
    /// Why it cannot be opened.
    pub problem: Option<String>,
    /// A hash of its tokens.
    #[serde(skip)]
    vocabulary: Option<u64>,
}

/// The models in the folders of other programs.
pub fn models(folders: &Folders) -> Vec<LocalModel> {
    let mut found = Vec::new();
    for (name, snapshot) in folders.hugging_face.iter().flat_map(|folder| hugging_face::all(folder)) {
        match &*gguf_models_in(&snapshot) {
            several @ [_, _, ..] => {
                found.extend(several.iter().map(|file| (format!("{name}:{file}"), snapshot.join(file))));
            }
            _ => found.push((name, snapshot)),
        }
    }
    found.extend(folders.ollama.iter().flat_map(|folder| ollama::all(folder)));
    looked_at(found)
}

/// The models below a directory, up to some folders deep: by path.
pub fn models_below(directory: &Path) -> Vec<LocalModel> {
    let mut found = Vec::new();
    collect(directory, DEEPEST, &mut found);
    looked_at(found.into_iter().map(|path| (path.to_string_lossy().into_owned(), path)).collect())
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if directory.join("config.json").exists() && directory.join("model.safetensors").exists()
        || directory.join("model.safetensors.index.json").exists()
    {
        found.push(directory.to_owned());
    }
    found.extend(gguf_models_in(directory).into_iter().map(|name| directory.join(name)));
    if depth == 0 {
        return;
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    // Links are not followed: they may lead in a circle.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = folders.collect();
    folders.sort();
    for folder in folders {
        collect(&folder, depth - 1, found);
    }
}

fn looked_at(found: Vec<(String, PathBuf)>) -> Vec<LocalModel> {
    let mut models: Vec<LocalModel> = found.into_iter().map(|(name, path)| look(name, path)).collect();
    let drafts: Vec<Vec<String>> = models.iter().map(|target| drafts_for(target, &models)).collect();
    for (model, drafts) in models.iter_mut().zip(drafts) {
        model.drafts = drafts;
    }
    models
}

fn look(name: String, path: PathBuf) -> LocalModel {
    let heads = HEADS.into_iter().filter(|(file, _)| side_file(&path, file).exists()).map(|(_, what)| what).collect();
    let nothing = LocalModel {
        name,
        bytes: 0,
        family: None,
        stored: None,
        parameters: None,
        heads,
        drafts: Vec::new(),
        problem: None,
        vocabulary: None,
        path,
    };
    match Checkpoint::open(&nothing.path) {
        Ok(checkpoint) => LocalModel {
            bytes: checkpoint.files().iter().map(|file| file.bytes).sum(),
            family: Some(checkpoint.config().family.to_string()),
            stored: Some(checkpoint.stored_format().to_string()),
            parameters: Some(checkpoint.parameters()),
            vocabulary: Tokenizer::with_metadata(&nothing.path, checkpoint.metadata())
                .ok()
                .map(|tokenizer| tokenizer.fingerprint()),
            ..nothing
        },
        Err(error) => {
            let family = metadata_of(&nothing.path).ok().flatten();
            let family = family.and_then(|metadata| metadata.text("general.architecture").ok()?.map(str::to_owned));
            let bytes = fs::metadata(&nothing.path).map_or(0, |found| if found.is_file() { found.len() } else { 0 });
            LocalModel { problem: Some(error.to_string()), family, bytes, ..nothing }
        }
    }
}

fn drafts_for(target: &LocalModel, models: &[LocalModel]) -> Vec<String> {
    let (Some(parameters), Some(vocabulary)) = (target.parameters, target.vocabulary) else { return Vec::new() };
    let most = (parameters as f64 * LARGEST_DRAFT) as u64;
    let fits = |draft: &&LocalModel| {
        draft.vocabulary == Some(vocabulary) && draft.parameters.is_some_and(|parameters| parameters <= most)
    };
    let mut drafts: Vec<&LocalModel> = models.iter().filter(fits).collect();
    drafts.sort_by_key(|draft| std::cmp::Reverse(draft.parameters));
    drafts.into_iter().map(|draft| draft.name.clone()).collect()
}

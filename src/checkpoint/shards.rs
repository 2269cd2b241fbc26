//! The weights files of a model directory: one `model.safetensors`, or the shards that
//! `model.safetensors.index.json` lists.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use paceline_kernels::{MappedFile, RowOrder, StoredFormat};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::directory;
use super::error::CheckpointError;
use super::gguf;
use super::header::{Entry, read_header};
use super::layout::is_stored_buffer;
use crate::files;
use crate::files::of_model::{FileError, read_json_if_there};
use crate::visible::shown;

/// Indexes of the largest models have about a megabyte.
const LARGEST_INDEX: u64 = 64 << 20;

/// A weights file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Names that tensors have in their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    HuggingFace,
    Gguf(gguf::Dialect),
}

impl Naming {
    /// The name in the file of a tensor that we know by its Hugging Face name.
    pub(crate) fn shown(self, name: &str) -> String {
        match self {
            Self::HuggingFace => name.to_owned(),
            Self::Gguf(dialect) => gguf::to_gguf(name, dialect),
        }
    }

    /// The formats of values that are read, and advice.
    pub(crate) fn read_formats(self) -> String {
        match self {
            Self::HuggingFace => {
                "F32, F16 and BF16 are read: take the unquantized checkpoint, a GGUF file of the model, or convert it"
                    .to_owned()
            }
            Self::Gguf(_) => format!("{} are read: take a file of one of these types", gguf::read_types()),
        }
    }
}

/// A tensor that a file holds.
#[derive(Debug)]
pub(crate) struct Found {
    /// The place of its file in the lists of [`Shards`].
    pub(crate) file: usize,
    /// The format of its values, or the name of one that is not read.
    pub(crate) format: Result<StoredFormat, String>,
    pub(crate) shape: Vec<usize>,
    /// In the file.
    pub(crate) bytes: Range<usize>,
    pub(crate) order: RowOrder,
}

impl Found {
    fn of(entry: Entry, file: usize) -> Self {
        Self { file, format: entry.format(), shape: entry.shape.into(), bytes: entry.bytes, order: RowOrder::Plain }
    }
}

/// All weights files, mapped.
pub(crate) struct Shards {
    pub(crate) files: Vec<WeightsFile>,
    pub(crate) maps: Vec<Arc<MappedFile>>,
    /// Every tensor by its Hugging Face name, or by its own where it has none.
    pub(crate) tensors: HashMap<String, Found>,
    pub(crate) naming: Naming,
    /// Tensors that the index lists and no file holds, with the place of the file that should. Harmless, unless the model
    /// needs one of them: some converters leave entries of what they left out.
    pub(crate) stale: HashMap<String, usize>,
}

impl Shards {
    /// No files yet.
    pub(super) fn none(naming: Naming) -> Self {
        Self { files: Vec::new(), maps: Vec::new(), tensors: HashMap::new(), naming, stale: HashMap::new() }
    }

    /// Maps the weights files of `dir` and reads their headers.
    pub(crate) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let mut shards = Self::none(Naming::HuggingFace);
        // As transformers does: a single file goes before an index.
        let single = dir.join("model.safetensors");
        directory::check_file(&single)?;
        match shards.add(single, None) {
            Err(CheckpointError::File(FileError::Absent { .. })) => {}
            result => return result.map(|()| shards),
        }
        let path = dir.join("model.safetensors.index.json");
        let Some(Index { weight_map }) = read_json_if_there(&path, LARGEST_INDEX)? else {
            return Err(directory::without_weights(dir));
        };
        check_names(&path, &weight_map)?;
        let places: Vec<PathBuf> = weight_map.files.iter().map(|name| dir.join(name)).collect();
        places.iter().try_for_each(|place| directory::check_file(place))?;
        let mut missing = places.iter().filter(|place| !place.exists());
        if let Some(first) = missing.next() {
            let (missing, listed) = (1 + missing.count(), places.len());
            return Err(CheckpointError::MissingShard { path: first.clone(), missing, listed });
        }
        for (number, place) in places.into_iter().enumerate() {
            shards.add(place, Some((number, &weight_map)))?;
        }
        let stale = weight_map.places.into_iter().filter(|(name, _)| !shards.tensors.contains_key(name));
        shards.stale = stale.collect();
        Ok(shards)
    }

    /// Adds a file; with an index, the file's number in it and the index.
    fn add(&mut self, path: PathBuf, index: Option<(usize, &WeightMap)>) -> Result<(), CheckpointError> {
        let map = files::map(&path).map_err(|error| FileError::of(&path, error))?;
        let entries = read_header(&path, &map)?;
        if let Some((number, index)) = index {
            let surplus = |(name, _): &(&String, &Entry)| {
                !is_stored_buffer(name) && index.places.get(*name).is_none_or(|&place| place != number)
            };
            if let Some(tensor) = entries.iter().filter(surplus).map(|(name, _)| name.clone()).min() {
                let reason = "the index does not list for this file";
                return Err(CheckpointError::Surplus { path, tensor, reason });
            }
        }
        let number = self.maps.len();
        self.tensors.extend(entries.into_iter().map(|(name, entry)| (name, Found::of(entry, number))));
        self.files.push(WeightsFile { bytes: u64::try_from(map.len()).unwrap_or(u64::MAX), path });
        self.maps.push(Arc::new(map));
        Ok(())
    }
}

/// True if there is an index in a directory, and all shards that it lists.
#[cfg(feature = "download")]
pub(super) fn has_all(dir: &Path) -> bool {
    let index = read_json_if_there(&dir.join("model.safetensors.index.json"), LARGEST_INDEX);
    let Ok(Some(Index { weight_map })) = index else { return false };
    weight_map.files.iter().all(|name| dir.join(name).exists())
}

/// Refuses an index that leads out of its directory.
fn check_names(path: &Path, weight_map: &WeightMap) -> Result<(), CheckpointError> {
    let is_plain = |name: &&String| {
        matches!(*Path::new(name).components().collect::<Vec<_>>(), [Component::Normal(_)])
            && !name.contains(['/', '\\'])
    };
    match weight_map.files.iter().find(|name| !is_plain(name)) {
        None => Ok(()),
        Some(name) => Err(CheckpointError::ShardName { path: path.to_owned(), shard: name.clone() }),
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// `weight_map` with every file's name kept once.
struct WeightMap {
    files: Vec<String>,
    /// The number of a tensor's file.
    places: HashMap<String, usize>,
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("file names by tensor name under \"weight_map\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut numbers = HashMap::new();
                let mut places = HashMap::new();
                while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                    let next = numbers.len();
                    let number = *numbers.entry(file).or_insert(next);
                    if places.get(&tensor).is_some_and(|&other| other != number) {
                        return Err(A::Error::custom(format!("\"{}\" is there twice", shown(&tensor))));
                    }
                    places.insert(tensor, number);
                }
                let mut files: Vec<(String, usize)> = numbers.into_iter().collect();
                files.sort_unstable_by_key(|(_, number)| *number);
                Ok(WeightMap { files: files.into_iter().map(|(name, _)| name).collect(), places })
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}

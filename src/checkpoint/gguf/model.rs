//! A model in GGUF: the file, or the files that it is split into, as a description and tensors by our names.

use std::path::{Path, PathBuf};

use paceline_kernels::RowOrder;

use super::config::{self, Described, RopeFactors, Tensors};
use super::location::Part;
use super::{Dialect, Gguf, Metadata, TensorInfo, from_gguf};
use crate::checkpoint::shards::{Found, Naming, Shards, WeightsFile};
use crate::checkpoint::{CheckpointError, ModelConfig, StoredTensor};

/// Factors of the rotation's frequencies: of all texts, of those within the context of pretraining, and of longer ones. Their
/// values are a part of the description.
const ROPE_FACTORS: [&str; 3] = ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];
/// Most values of one of these tensors.
const MOST_FACTORS: usize = 1 << 16;
const SPLIT_COUNT: &str = "split.count";
const SPLIT_NUMBER: &str = "split.no";

/// A model that was opened.
pub(in crate::checkpoint) struct Model {
    pub(in crate::checkpoint) config: ModelConfig,
    pub(in crate::checkpoint) shards: Shards,
    pub(in crate::checkpoint) notes: Vec<String>,
    pub(in crate::checkpoint) metadata: Metadata,
}

impl Model {
    /// Opens the model in `path`, or in the files of which it is one.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the model is not supported.
    pub(in crate::checkpoint) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let files = open_all(path)?;
        let shape = |name: &str| {
            files
                .iter()
                .flat_map(|(_, gguf)| &gguf.tensors)
                .find(|info| info.name == name)
                .map(|info| info.shape.clone())
        };
        let [all, short, long] = ROPE_FACTORS.map(|name| rope_factors(&files, name));
        let rope_factors = RopeFactors { all: all?, short: short?, long: long? };
        // `open_all` yields at least one.
        let Some((_, first)) = files.first() else {
            return Err(CheckpointError::NoDirectory { path: path.to_owned() });
        };
        let Described { config, architecture, notes } =
            config::read(&first.metadata, &Tensors { shape: &shape, rope_factors })?;
        let metadata = first.metadata.clone();
        let pairs = RowOrder::Pairs { head_dim: config.head_dim };
        let order = |name: &str| {
            let is_rotated = name.contains(".self_attn.q_proj.") || name.contains(".self_attn.k_proj.");
            if architecture.in_pairs && is_rotated { pairs } else { RowOrder::Plain }
        };
        let mut shards = Shards::none(Naming::Gguf(architecture.dialect));
        for (number, (path, gguf)) in files.into_iter().enumerate() {
            for info in gguf.tensors.into_iter().filter(|info| !ROPE_FACTORS.contains(&info.name.as_str())) {
                let Some(name) = from_gguf(&info.name, architecture.dialect) else {
                    let reason = "no part of the configured model uses";
                    return Err(CheckpointError::Surplus { path, tensor: info.name, reason });
                };
                let TensorInfo { kind, shape, bytes, .. } = info;
                let order = order(&name);
                let found = Found { file: number, format: kind.format(), shape, bytes, order };
                if shards.tensors.insert(name, found).is_some() {
                    let reason = format!("its tensor \"{}\" is in another part as well", info.name);
                    return Err(CheckpointError::Damaged { path, reason });
                }
            }
            shards.files.push(WeightsFile { bytes: u64::try_from(gguf.file.len()).unwrap_or(u64::MAX), path });
            shards.maps.push(gguf.file);
        }
        Ok(Self { config, shards, notes, metadata })
    }
}

/// The values of one of [`ROPE_FACTORS`], if the files have it.
fn rope_factors(files: &[(PathBuf, Gguf)], name: &str) -> Result<Option<Vec<f32>>, CheckpointError> {
    let all = files.iter().flat_map(|(path, gguf)| gguf.tensors.iter().map(move |info| (path, gguf, info)));
    let Some((path, gguf, info)) = all.into_iter().find(|(.., info)| info.name == name) else {
        return Ok(None);
    };
    let format = info.kind.format().map_err(|kind| CheckpointError::Format {
        path: path.clone(),
        tensor: name.to_owned(),
        kind,
        read: Naming::Gguf(Dialect::Plain).read_formats(),
    })?;
    // As many as half of a head: none has more.
    let count = info.shape.iter().product();
    if count > MOST_FACTORS {
        let reason = format!("its tensor \"{name}\" has {count} values");
        return Err(CheckpointError::Damaged { path: path.clone(), reason });
    }
    let (shape, order) = (vec![count], RowOrder::Plain);
    let tensor = StoredTensor { file: gguf.file.clone(), bytes: info.bytes.clone(), format, shape, order };
    Ok(Some(tensor.to_f32()))
}

/// Opens a file, or the first of the files of a split model, which has the metadata.
pub(super) fn first(path: &Path) -> Result<Gguf, CheckpointError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match Part::of(&name) {
        Some((name, part)) if part.number > 1 => {
            let first = path.with_file_name(Part { number: 1, ..part }.name(name));
            Gguf::open(if first.exists() { &first } else { path })
        }
        _ => Gguf::open(path),
    }
}

/// Opens a file, and the others of a split model: the one with the metadata first.
fn open_all(path: &Path) -> Result<Vec<(PathBuf, Gguf)>, CheckpointError> {
    let gguf = Gguf::open(path)?;
    let count = gguf.metadata.integer::<usize>(SPLIT_COUNT)?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![(path.to_owned(), gguf)]);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (name, part) = match Part::of(&name) {
        Some((name, part)) if part.count == count => (name.to_owned(), part),
        _ => {
            let reason = format!(
                "is {count}, but the file's name does not end as -00001-of-{count:05}.gguf; give the files the names that they were made with"
            );
            return Err(gguf.metadata.error(SPLIT_COUNT, reason));
        }
    };
    let (mut given, mut files) = (Some(gguf), Vec::new());
    for number in 1..=count {
        let (other, gguf) = match given.take_if(|_| number == part.number) {
            Some(gguf) => (path.to_owned(), gguf),
            None => {
                let other = path.with_file_name(Part { number, count }.name(&name));
                if !other.exists() {
                    let reason =
                        format!("does not exist, and the model is split into {count} files; download it again");
                    return Err(CheckpointError::NotAModel { path: other, reason });
                }
                let gguf = Gguf::open(&other)?;
                (other, gguf)
            }
        };
        let stated = gguf.metadata.integer::<usize>(SPLIT_NUMBER)?;
        if stated != Some(number - 1) || gguf.metadata.integer::<usize>(SPLIT_COUNT)? != Some(count) {
            let reason = format!(
                "is not part {number} of {count}, as its name says; give the files the names that they were made with"
            );
            return Err(gguf.metadata.error(SPLIT_NUMBER, reason));
        }
        files.push((other, gguf));
    }
    Ok(files)
}

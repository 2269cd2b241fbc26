//! A Llama-family decoder ready to run. Its layers are data ([`LayerSpec`](crate::checkpoint::LayerSpec)): families differ by
//! biases, norms on queries and keys, windows, scores and rotary frequencies, and no family is known by name here.
//!
//! [`Reference`] says what it computes, in burn tensors, and runs so on every device that burn knows. On the processor
//! [`Executor`] takes its place, which computes the same without tensors. Both are made of the same weights.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Tensor;
use paceline_kernels::{CacheFormat, Kernels, MatrixFormat, PackedWeights, WeightsError};

use super::device::Compute;
use super::executor::Executor;
use super::hidden::Hidden;
use super::memory;
use super::ops::{Operations, from_values};
use super::pool::KvPool;
use super::precision::weight_bytes;
use super::reference::{ExitHead, Reference};
use super::skip::{SkipPlan, Sublayer};
use super::step::{Backend, Vocabulary};
use super::weights::{ExitWeights, LayerOf, LayerWeights, Loader, OnDevice, Source};
use crate::checkpoint::{Checkpoint, CheckpointError, ExitConfig, Exits, ModelConfig};

/// Why a checkpoint could not become a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The checkpoint lacks or contradicts something.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A matrix does not fit its place.
    #[error("Tensor `{name}` cannot be used: {source}")]
    Weights {
        /// The tensor's name in the checkpoint.
        name: String,
        /// The reason why the matrix does not fit.
        source: WeightsError,
    },
    /// A value that nothing can be computed with.
    #[error(
        "Tensor `{name}` is infinite or NaN at row {row}, column {column}, when it is held in {format}: repair the checkpoint, or name another precision if the value is only too large for this one."
    )]
    NotFinite {
        /// The tensor's name in the checkpoint.
        name: String,
        /// Where: the row.
        row: usize,
        /// Where: the column.
        column: usize,
        /// In which format it was to be held.
        format: MatrixFormat,
    },
    /// There is not enough memory.
    #[error("Tensor `{name}` cannot be packed for want of memory ({source}): choose a smaller precision or model.")]
    Memory {
        /// The tensor's name in the checkpoint.
        name: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// There will not be enough memory.
    #[error(
        "The model's weights take {needed} bytes of memory and this process may take {left} more: choose a lower precision or a smaller model, or give it more memory."
    )]
    NoRoom {
        /// Bytes of the weights, as they would be held.
        needed: u64,
        /// Bytes that can be had.
        left: u64,
    },
    /// A thread could not be started.
    #[error("The weights cannot be packed, as a thread could not be started: {0}.")]
    Threads(std::io::Error),
    /// A cache format that only the processor has.
    #[error(
        "A key-value cache in {0} is there on the processor alone: choose `cpu` as the device, or f32 for the cache."
    )]
    CacheFormat(CacheFormat),
}

/// Refuses to begin what would end for want of memory, or have the system end other programs.
fn check_room(needed: u64, left: Option<u64>) -> Result<(), ModelError> {
    match left {
        Some(left) if left < needed => Err(ModelError::NoRoom { needed, left }),
        _ => Ok(()),
    }
}

/// A decoder ready to run: weights on their device and the way they are computed with. Shared by all sequences.
pub struct Decoder {
    config: ModelConfig,
    compute: Compute,
    loaded: Loaded,
    format: MatrixFormat,
    cache_format: CacheFormat,
    weight_bytes: u64,
    bytes_per_step: u64,
    /// Bytes of the matrices in attention and MLP, by layer.
    sublayer_bytes: Vec<[u64; 2]>,
    /// The trained exit heads, by rising depth, with their bytes.
    exits: Vec<(ExitConfig, u64)>,
    /// Bytes of the output matrix that a drafted token does not read, as drafts choose from a part of the vocabulary.
    spared_in_drafts: u64,
}

/// Bytes of a value in a tensor.
const F32_BYTES: u64 = 4;

/// The backend with its weights.
enum Loaded {
    Executor(Box<Executor>),
    Reference(Box<Reference>),
}

impl Decoder {
    /// Places the checkpoint's weights. `format` is the matrices' precision, `None` for each as it is stored. They
    /// are packed one by one, and the file's pages are let go as soon as they are read. `progress` hears the number of
    /// layers placed and their total.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load(
        checkpoint: &Checkpoint,
        format: Option<MatrixFormat>,
        compute: &Compute,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        Self::load_keeping(checkpoint, format, compute, None, progress).map(|(decoder, _)| decoder)
    }

    /// As [`Decoder::load`]. Where there is a folder `root` and a `format`, packed matrices are kept in a file below it, from which the next start takes them. A file that cannot be written or is damaged changes nothing that is computed:
    /// a sentence that comes with the decoder tells of it.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn load_keeping(
        checkpoint: &Checkpoint,
        format: Option<MatrixFormat>,
        compute: &Compute,
        root: Option<&Path>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(Self, Option<String>), ModelError> {
        let config = checkpoint.config().clone();
        if let Compute::Kernels(_) = compute {
            check_room(weight_bytes(format, checkpoint), memory::left())?;
        }
        let packer = packer(compute)?;
        let mut loader = Loader::new(checkpoint, format, &packer).keeping(root);
        let mut sublayer_bytes = Vec::with_capacity(config.layers);
        let (loaded, looked_up) = match compute {
            Compute::Kernels(kernels) => {
                let bytes = |matrix: &PackedWeights| matrix.bytes() as u64;
                let layers = read_layers(&mut loader, &config, bytes, &mut sublayer_bytes, progress)?;
                let head = loader.head()?;
                let looked_up = head.embedding.as_ref().map_or(0, |embedding| embedding.bytes() as u64);
                (Loaded::Executor(Box::new(Executor::new(Arc::clone(kernels), &config, layers, head))), looked_up)
            }
            Compute::Burn(device) => {
                let bytes = |matrix: &Tensor<2>| F32_BYTES * matrix.shape().num_elements() as u64;
                let mut source = OnDevice { loader: &mut loader, device };
                let layers = read_layers(&mut source, &config, bytes, &mut sublayer_bytes, progress)?;
                let head = source.head()?;
                let looked_up = head.embedding.as_ref().map_or(0, bytes);
                let reference = Reference::new(&config, layers, head, Operations::Composed, device);
                (Loaded::Reference(Box::new(reference)), looked_up)
            }
        };
        progress(config.layers, config.layers);
        let note = loader.finish();
        let weight_bytes = match compute {
            Compute::Kernels(_) => loader.bytes(),
            // burn's own operations hold their weights in f32.
            Compute::Burn(_) => F32_BYTES * loader.values(),
        };
        let decoder = Self {
            format: format.unwrap_or_else(|| checkpoint.stored_format().into()),
            cache_format: CacheFormat::F32,
            weight_bytes,
            bytes_per_step: weight_bytes - looked_up,
            sublayer_bytes,
            exits: Vec::new(),
            spared_in_drafts: 0,
            config,
            compute: compute.clone(),
            loaded,
        };
        Ok((decoder, note))
    }

    /// The same decoder with keys and values held in `format`, instead of f32.
    ///
    /// # Errors
    /// If it does not run on the processor and the format is not f32.
    pub fn with_cache_format(self, format: CacheFormat) -> Result<Self, ModelError> {
        match self.loaded {
            Loaded::Reference(_) if format != CacheFormat::F32 => Err(ModelError::CacheFormat(format)),
            _ => Ok(Self { cache_format: format, ..self }),
        }
    }

    /// The same decoder with trained exit heads of the `checkpoint` that it was loaded from.
    ///
    /// # Errors
    /// If a value is not finite, or there is not enough memory.
    pub fn with_exits(mut self, checkpoint: &Checkpoint, exits: &Exits) -> Result<Self, ModelError> {
        let packer = packer(&self.compute)?;
        let mut loader = Loader::new(checkpoint, None, &packer);
        match &mut self.loaded {
            Loaded::Executor(executor) => executor.set_exits(loader.exits(exits)?),
            Loaded::Reference(reference) => {
                let mut source = OnDevice { loader: &mut loader, device: &self.compute.device() };
                let heads = source.exits(exits)?.into_iter();
                let head = |weights: ExitWeights<Tensor<2>, Tensor<2>>| ExitHead::new(weights, self.config.norm_eps);
                reference.set_exits(heads.map(|(depth, weights)| (depth, head(weights))).collect());
            }
        }
        let bytes = match self.compute {
            Compute::Kernels(_) => loader.bytes(),
            Compute::Burn(_) => F32_BYTES * loader.values(),
        };
        let heads = &exits.config().exits;
        // All heads of a file have the same shape.
        self.exits = heads.iter().map(|head| (*head, bytes / heads.len() as u64)).collect();
        self.weight_bytes += bytes;
        Ok(self)
    }

    /// The same decoder with drafts that choose from `tokens` alone ([`Checkpoint::draft_vocabulary`]), of the `checkpoint`
    /// that it was loaded from, in `format`, as it was.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn with_draft_vocabulary(
        mut self,
        checkpoint: &Checkpoint,
        format: Option<MatrixFormat>,
        tokens: Vec<u32>,
    ) -> Result<Self, ModelError> {
        match &mut self.loaded {
            Loaded::Reference(reference) => reference.set_drafted(tokens),
            Loaded::Executor(executor) => {
                let packer = packer(&self.compute)?;
                let mut loader = Loader::new(checkpoint, format, &packer);
                let rows = loader.output_rows(&tokens)?;
                let whole = rows.bytes() as u64 * self.config.vocab_size as u64 / tokens.len().max(1) as u64;
                self.spared_in_drafts = whole.saturating_sub(rows.bytes() as u64);
                self.weight_bytes += loader.bytes();
                executor.set_drafted(tokens, rows);
            }
        }
        Ok(self)
    }

    /// The trained exit heads, by rising depth.
    pub fn exits(&self) -> impl Iterator<Item = &ExitConfig> {
        self.exits.iter().map(|(exit, _)| exit)
    }

    /// The depths of the trained exit heads, by rising depth.
    pub fn exit_depths(&self) -> Vec<usize> {
        self.exits().map(|exit| exit.depth).collect()
    }

    /// Divisor of an exit's logits, so that they say how sure it can be; 1 where no head was trained.
    pub fn exit_temperature(&self, depth: usize) -> f32 {
        self.exits().find(|exit| exit.depth == depth).map_or(1.0, |exit| exit.temperature)
    }

    /// Bytes of the weights that a step reads which leaves the model after `depth` layers: theirs, the output matrix, and
    /// the head that was trained for this exit, if one was. Of the output matrix only what drafts choose from.
    pub fn bytes_per_exit(&self, depth: usize) -> u64 {
        let above: u64 = self.sublayer_bytes.iter().skip(depth).flatten().sum();
        let head = self.exits.iter().find(|(exit, _)| exit.depth == depth).map_or(0, |(_, bytes)| *bytes);
        self.bytes_per_draft() - above + head
    }

    /// Bytes of the weights that a token reads which is drafted with this model.
    pub fn bytes_per_draft(&self) -> u64 {
        self.bytes_per_step - self.spared_in_drafts.min(self.bytes_per_step)
    }

    /// The model's shape and settings.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Compute backend that it runs on.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// The precision of its matrices (the prevailing one, where a checkpoint mixes them).
    pub fn format(&self) -> MatrixFormat {
        self.format
    }

    /// Storage format of keys and values in its caches.
    pub fn cache_format(&self) -> CacheFormat {
        self.cache_format
    }

    /// Bytes that a token takes in its caches.
    pub fn cache_bytes_per_token(&self) -> u64 {
        KvPool::bytes_per_token(&self.config, self.cache_format)
    }

    /// Bytes of its weights as they are held.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Bytes of the weights that a plain step reads: all of them but an embedding matrix that is only looked up.
    pub fn bytes_per_step(&self) -> u64 {
        self.bytes_per_step
    }

    /// Bytes of the weights that a step reads which leaves out what `skip` names, norms and biases apart.
    pub fn bytes_per_step_without(&self, skip: &SkipPlan) -> u64 {
        let bytes = |sublayer| match sublayer {
            Sublayer::Attention(layer) => self.sublayer_bytes.get(layer).map_or(0, |[attention, _]| *attention),
            Sublayer::Mlp(layer) => self.sublayer_bytes.get(layer).map_or(0, |[_, mlp]| *mlp),
        };
        self.bytes_per_step - skip.sublayers().map(bytes).sum::<u64>()
    }

    /// The formats of the matrices that a plain step reads, with their bytes, the most first; none where it does not run on the
    /// kernels.
    pub fn step_formats(&self) -> Vec<(MatrixFormat, u64)> {
        match &self.loaded {
            Loaded::Executor(executor) => executor.formats(),
            Loaded::Reference(_) => Vec::new(),
        }
    }

    /// Makes a step's products with the matrices of one format, of `rows` rows that mean nothing: to time them. Does nothing where
    /// it does not run on the kernels.
    pub fn multiply_all(&self, format: MatrixFormat, rows: usize) {
        if let Loaded::Executor(executor) = &self.loaded {
            executor.multiply_all(format, rows);
        }
    }

    /// Layers of the model.
    pub fn layer_count(&self) -> usize {
        self.config.layers
    }

    /// An empty pool for sequences of this model, which may have so many pages.
    pub fn new_pool(&self, most_pages: usize) -> KvPool {
        KvPool::new(&self.config, self.cache_format, &self.compute, most_pages)
    }

    /// The backend that computes its steps.
    pub(super) fn backend(&self) -> &dyn Backend {
        match &self.loaded {
            Loaded::Executor(executor) => &**executor,
            Loaded::Reference(reference) => &**reference,
        }
    }

    /// Hidden states of given values, `[rows, hidden]` row-major, where it computes.
    ///
    /// # Panics
    /// If they are not whole rows.
    pub fn hidden(&self, values: Vec<f32>) -> Hidden {
        let width = self.config.hidden_size;
        assert!(values.len().is_multiple_of(width), "states are rows of the model's width");
        match self.loaded {
            Loaded::Executor(_) => Hidden::of_values(values, width),
            Loaded::Reference(_) => {
                let rows = values.len() / width;
                Hidden::of_tensor(from_values(values, rows, width, &self.compute.device()))
            }
        }
    }

    /// Logits `[rows, vocabulary]`, row-major, of hidden states `[rows, hidden]` that left the last layer: the final norm
    /// and the output matrix.
    ///
    /// # Panics
    /// If they have another width.
    pub fn logits(&self, hidden: &Hidden) -> Vec<f32> {
        self.backend().logits(hidden, None, Vocabulary::Whole)
    }

    /// As [`Decoder::logits`], to draft from: minus infinity for tokens that drafts do not choose from.
    ///
    /// # Panics
    /// As [`Decoder::logits`].
    pub fn draft_logits(&self, hidden: &Hidden) -> Vec<f32> {
        self.backend().logits(hidden, None, Vocabulary::Drafted)
    }

    /// As [`Decoder::draft_logits`], of hidden states `[rows, hidden]` that left layer `depth - 1`: through the head that was
    /// trained for this exit, or, where none was, as if it were the last layer.
    ///
    /// # Panics
    /// If they have another width.
    pub fn exit_logits(&self, depth: usize, hidden: &Hidden) -> Vec<f32> {
        self.backend().logits(hidden, Some(depth), Vocabulary::Drafted)
    }
}

/// The kernels that pack the weights of a computation.
fn packer(compute: &Compute) -> Result<Arc<Kernels>, ModelError> {
    Ok(match compute {
        Compute::Kernels(kernels) => Arc::clone(kernels),
        Compute::Burn(_) => Arc::new(Kernels::new(1).map_err(ModelError::Threads)?),
    })
}

/// All layers, one by one; `sizes` gets the bytes of each one's matrices, in attention and MLP.
fn read_layers<S: Source>(
    source: &mut S,
    config: &ModelConfig,
    bytes: impl Fn(&S::Matrix) -> u64,
    sizes: &mut Vec<[u64; 2]>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<LayerOf<S>>, S::Error> {
    let mut layer = |index| {
        progress(index, config.layers);
        let layer = LayerWeights::read(source, config.layer(index), index)?;
        let attention = layer.attention().into_iter().map(&bytes).sum();
        sizes.push([attention, layer.mlp().into_iter().map(&bytes).sum()]);
        Ok(layer)
    };
    (0..config.layers).map(&mut layer).collect()
}

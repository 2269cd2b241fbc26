//! The Llama-family decoder, described once: Llama, Mistral, Qwen2 and Qwen3 differ by biases, by norms on
//! queries and keys, by attention windows and by rotary frequencies, all of them settings here and not
//! separate models.
//!
//! [`Composed`] is the description, in burn tensors; it runs on every device that burn knows. On the processor
//! [`Executor`] takes its place, which computes the same without tensors. Both are made of the same weights.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use paceline_kernels::{CacheFormat, Kernels, MatrixFormat, PackedWeights, WeightsError};

use super::cache::KvCache;
use super::device::Compute;
use super::executor::Executor;
use super::ops::{Embedding, Linear, RmsNorm, Rotation, attend, from_values, gated_silu, into_values};
use super::skip::{SkipPlan, Sublayer};
use super::weights::{HeadWeights, LayerWeights, LinearWeights, Loader};
use crate::checkpoint::{Checkpoint, CheckpointError, ModelConfig};

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
        /// What is wrong with it.
        source: WeightsError,
    },
    /// A value that nothing can be computed with.
    #[error(
        "Tensor `{name}` is infinite or no number at row {row}, column {column}, when it is held in {format}: repair the checkpoint, or name another precision if the value is only too large for this one."
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
        /// What the system says.
        source: std::io::Error,
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

/// A decoder ready to run: weights on their device and the way they are computed with. Shared by all sequences.
pub struct Decoder {
    config: ModelConfig,
    compute: Compute,
    body: Body,
    format: MatrixFormat,
    cache_format: CacheFormat,
    weight_bytes: u64,
    bytes_per_step: u64,
    /// Bytes of the matrices in attention and MLP, by layer.
    sublayer_bytes: Vec<[u64; 2]>,
}

enum Body {
    Executor(Box<Executor>),
    Composed(Box<Composed>),
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
        let config = checkpoint.config().clone();
        let packer = match compute {
            Compute::Kernels(kernels) => Arc::clone(kernels),
            Compute::Burn(_) => Arc::new(Kernels::new(1).map_err(ModelError::Threads)?),
        };
        let mut loader = Loader::new(checkpoint, format, &packer);
        let held = |matrix: &PackedWeights| match compute {
            Compute::Kernels(_) => matrix.bytes() as u64,
            Compute::Burn(_) => 4 * (matrix.in_features() * matrix.out_features()) as u64,
        };
        let mut sublayer_bytes = Vec::with_capacity(config.layers);
        let mut layer = |index| -> Result<_, ModelError> {
            progress(index, config.layers);
            let layer = loader.layer(index)?;
            let attention = layer.attention().into_iter().map(held).sum();
            sublayer_bytes.push([attention, layer.mlp().into_iter().map(held).sum()]);
            Ok(layer)
        };
        let (body, looked_up) = match compute {
            Compute::Kernels(kernels) => {
                let layers = (0..config.layers).map(layer).collect::<Result<_, _>>()?;
                let head = loader.head()?;
                let looked_up = head.embedding.as_ref().map_or(0, |embedding| embedding.bytes() as u64);
                (Body::Executor(Box::new(Executor::new(Arc::clone(kernels), &config, layers, head))), looked_up)
            }
            Compute::Burn(device) => {
                // Each layer is copied before the next is loaded.
                let layers = (0..config.layers).map(|index| Ok(Layer::new(layer(index)?, &config, device)));
                let layers = layers.collect::<Result<_, ModelError>>()?;
                let head = loader.head()?;
                let looked_up = head
                    .embedding
                    .as_ref()
                    .map_or(0, |embedding| 4 * (embedding.out_features() * embedding.in_features()) as u64);
                (Body::Composed(Box::new(Composed::new(&config, layers, head, device))), looked_up)
            }
        };
        progress(config.layers, config.layers);
        let weight_bytes = match compute {
            Compute::Kernels(_) => loader.bytes(),
            // burn's own operations hold their weights in f32.
            Compute::Burn(_) => 4 * loader.values(),
        };
        Ok(Self {
            format: format.unwrap_or_else(|| MatrixFormat::Float(checkpoint.stored_format())),
            cache_format: CacheFormat::F32,
            weight_bytes,
            bytes_per_step: weight_bytes - looked_up,
            sublayer_bytes,
            config,
            compute: compute.clone(),
            body,
        })
    }

    /// The same decoder with keys and values held in `format`, instead of f32.
    ///
    /// # Errors
    /// If it does not run on the processor and the format is not f32.
    pub fn with_cache_format(self, format: CacheFormat) -> Result<Self, ModelError> {
        match self.body {
            Body::Composed(_) if format != CacheFormat::F32 => Err(ModelError::CacheFormat(format)),
            _ => Ok(Self { cache_format: format, ..self }),
        }
    }

    /// The model's shape and settings.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How it computes.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// The precision of its matrices (the prevailing one, where a checkpoint mixes them).
    pub fn format(&self) -> MatrixFormat {
        self.format
    }

    /// How its caches hold keys and values.
    pub fn cache_format(&self) -> CacheFormat {
        self.cache_format
    }

    /// Bytes that a token takes in its caches.
    pub fn cache_bytes_per_token(&self) -> u64 {
        KvCache::bytes_per_token(&self.config, self.cache_format)
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

    /// Layers of the model.
    pub fn layer_count(&self) -> usize {
        self.config.layers
    }

    /// An empty cache with room for `capacity` positions.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        KvCache::new(&self.config, capacity, self.cache_format, &self.compute)
    }

    /// The tokens' embeddings, `[tokens, hidden]`: the input of layer 0.
    pub fn embed(&self, tokens: &[u32]) -> Tensor<2> {
        match &self.body {
            Body::Executor(executor) => self.tensor(executor.embed(tokens), tokens.len()),
            Body::Composed(composed) => composed.embedding.forward(tokens),
        }
    }

    /// Runs `layers`, without the sublayers that `skip` names, over `hidden` `[rows, hidden]` and appends their keys and
    /// values; a skipped attention appends nothing. The first row is at `position`, which is the number of positions that
    /// every layer whose attention runs has cached. The result is the last of these layers' output, `[rows, hidden]`.
    pub fn forward_layers(
        &self,
        layers: Range<usize>,
        position: usize,
        hidden: Tensor<2>,
        skip: Option<&SkipPlan>,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        match &self.body {
            Body::Executor(executor) => {
                let rows = hidden.dims()[0];
                let mut hidden = into_values(hidden);
                executor.forward_layers(layers, position, &mut hidden, skip, cache);
                self.tensor(hidden, rows)
            }
            Body::Composed(composed) => composed.forward_layers(layers, position, hidden, skip, cache),
        }
    }

    /// Logits `[rows, vocabulary]`, row-major, of hidden states `[rows, hidden]` that left the last layer, or, for an
    /// untrained exit, an earlier one: the final norm and the output matrix.
    pub fn logits(&self, hidden: Tensor<2>) -> Vec<f32> {
        match &self.body {
            Body::Executor(executor) => executor.logits(&into_values(hidden)),
            Body::Composed(composed) => into_values(composed.output.forward(composed.norm.forward(hidden))),
        }
    }

    fn tensor(&self, hidden: Vec<f32>, rows: usize) -> Tensor<2> {
        from_values(hidden, rows, self.config.hidden_size, &self.compute.device())
    }
}

/// The model in burn tensors.
struct Composed {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    output: Linear,
    inverse_frequencies: Vec<f32>,
    device: Device,
}

struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    /// Norms on the heads of queries and keys (Qwen3).
    head_norms: Option<(RmsNorm, RmsNorm)>,
    attention_output: Linear,
    mlp_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    window: Option<usize>,
    scale: f32,
}

impl Composed {
    fn new(config: &ModelConfig, layers: Vec<Layer>, head: HeadWeights, device: &Device) -> Self {
        let output = Linear::new(LinearWeights { matrix: head.output, bias: None }, device);
        let embedding = match head.embedding {
            Some(weights) => Embedding::new(&weights, device),
            None => Embedding::tied_to(&output),
        };
        Self {
            embedding,
            layers,
            norm: RmsNorm::new(head.norm, config.norm_eps, device),
            output,
            inverse_frequencies: config.rope.inverse_frequencies(config.head_dim),
            device: device.clone(),
        }
    }

    fn forward_layers(
        &self,
        layers: Range<usize>,
        position: usize,
        hidden: Tensor<2>,
        skip: Option<&SkipPlan>,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        if layers.is_empty() {
            return hidden;
        }
        let rows = hidden.dims()[0];
        let rotation = Rotation::new(&self.inverse_frequencies, position, rows, &self.device);
        layers.fold(hidden, |mut x, index| {
            let layer = &self.layers[index];
            if Sublayer::Attention(index).runs(skip) {
                x = x.clone() + layer.attend(layer.attention_norm.forward(x), &rotation, cache, index);
            }
            if Sublayer::Mlp(index).runs(skip) {
                x = x.clone() + layer.feed_forward(layer.mlp_norm.forward(x));
            }
            x
        })
    }
}

impl Layer {
    fn new(weights: LayerWeights, config: &ModelConfig, device: &Device) -> Self {
        let norm = |weight| RmsNorm::new(weight, config.norm_eps, device);
        let linear = |weights| Linear::new(weights, device);
        Self {
            attention_norm: norm(weights.attention_norm),
            query: linear(weights.query),
            key: linear(weights.key),
            value: linear(weights.value),
            head_norms: weights.head_norms.map(|(query, key)| (norm(query), norm(key))),
            attention_output: linear(weights.attention_output),
            mlp_norm: norm(weights.mlp_norm),
            gate: linear(weights.gate),
            up: linear(weights.up),
            down: linear(weights.down),
            window: weights.window,
            scale: (config.head_dim as f32).powf(-0.5),
        }
    }

    fn attend(&self, h: Tensor<2>, rotation: &Rotation, cache: &mut KvCache, index: usize) -> Tensor<2> {
        let mut queries = self.query.forward(h.clone());
        let mut keys = self.key.forward(h.clone());
        let values = self.value.forward(h);
        if let Some((query_norm, key_norm)) = &self.head_norms {
            (queries, keys) = (query_norm.forward(queries), key_norm.forward(keys));
        }
        let (queries, keys) = (rotation.apply(queries), rotation.apply(keys));
        let attended = attend(queries, keys, values, cache.device_mut(index), self.window, self.scale);
        self.attention_output.forward(attended)
    }

    fn feed_forward(&self, h: Tensor<2>) -> Tensor<2> {
        self.down.forward(gated_silu(self.gate.forward(h.clone()), self.up.forward(h)))
    }
}

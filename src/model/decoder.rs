//! The Llama-family decoder, described once: Llama, Mistral, Qwen2 and Qwen3 differ by biases, by norms on
//! queries and keys, by attention windows and by rotary frequencies, all of them settings here and not
//! separate models.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use paceline_kernels::{Kernels, MatrixFormat, PackedWeights, WeightArena, Weights, WeightsError};

use super::cache::KvCache;
use super::device::Compute;
use super::ops::{Embedding, Linear, RmsNorm, Rotation, attend, gated_silu};
use super::precision::matrix_format;
use crate::checkpoint::{Checkpoint, CheckpointError, ModelConfig, StoredTensor};

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
    /// A matrix to be quantized has values without a size.
    #[error(
        "Tensor `{name}` is infinite or no number at row {row}, column {column}, and cannot be quantized: repair the checkpoint, or use a float precision."
    )]
    NotFinite {
        /// The tensor's name in the checkpoint.
        name: String,
        /// Where: the row.
        row: usize,
        /// Where: the column.
        column: usize,
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
}

/// A decoder ready to run: weights on their device and the way they are computed with. Shared by all sequences.
pub struct Decoder {
    config: ModelConfig,
    compute: Compute,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    output: Linear,
    inverse_frequencies: Vec<f32>,
    format: MatrixFormat,
    weight_bytes: u64,
    /// Of them, those of a matrix that rows are only looked up in.
    looked_up_bytes: u64,
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
        let mut loader = Loader::new(checkpoint, format, compute)?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            progress(index, config.layers);
            layers.push(loader.layer(&config, index)?);
        }
        let norm = RmsNorm::new(loader.vector("model.norm.weight")?, config.norm_eps, compute);
        let output = Linear::new(loader.matrix("lm_head.weight")?, None, compute);
        // Quantized rows are not what a token's embedding should be.
        let quantized = matches!(format, Some(MatrixFormat::Quantized(_)));
        let (embedding, looked_up_bytes) = if config.tied_embeddings && !quantized {
            (Embedding::Tied(output.clone()), 0)
        } else {
            let weights = loader.stored("model.embed_tokens.weight")?;
            let bytes = loader.held_bytes(weights.bytes(), (weights.out_features(), weights.in_features()));
            (Embedding::new(weights, compute), bytes)
        };
        progress(config.layers, config.layers);
        Ok(Self {
            inverse_frequencies: config.rope.inverse_frequencies(config.head_dim),
            format: format.unwrap_or_else(|| MatrixFormat::Float(checkpoint.stored_format())),
            weight_bytes: loader.placed_bytes + looked_up_bytes,
            looked_up_bytes,
            config,
            compute: compute.clone(),
            embedding,
            layers,
            norm,
            output,
        })
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

    /// Bytes of its weights as they are held.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Bytes of the weights that a plain step reads: all of them but an embedding matrix that is only looked up.
    pub fn bytes_per_step(&self) -> u64 {
        self.weight_bytes - self.looked_up_bytes
    }

    /// Layers of the model.
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// An empty cache with room for `capacity` positions.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        let c = &self.config;
        KvCache::new(c.layers, c.kv_heads, c.head_dim, capacity, &self.compute)
    }

    /// The tokens' embeddings, `[tokens, hidden]`: the input of layer 0.
    pub fn embed(&self, tokens: &[u32]) -> Tensor<2> {
        self.embedding.forward(tokens)
    }

    /// Runs `layers` over `hidden` `[rows, hidden]`, whose rows follow what these layers have cached, and
    /// appends their keys and values. The result is the last of these layers' output, `[rows, hidden]`.
    pub fn forward_layers(&self, layers: Range<usize>, hidden: Tensor<2>, cache: &mut KvCache) -> Tensor<2> {
        if layers.is_empty() {
            return hidden;
        }
        let rotation = Rotation::new(&self.inverse_frequencies, cache.len(layers.start), hidden.dims()[0]);
        layers.fold(hidden, |hidden, index| self.forward_layer(index, hidden, &rotation, cache))
    }

    fn forward_layer(&self, index: usize, x: Tensor<2>, rotation: &Rotation, cache: &mut KvCache) -> Tensor<2> {
        let layer = &self.layers[index];

        let h = layer.attention_norm.forward(x.clone());
        let mut queries = layer.query.forward(h.clone());
        let mut keys = layer.key.forward(h.clone());
        let values = layer.value.forward(h);
        if let Some((query_norm, key_norm)) = &layer.head_norms {
            (queries, keys) = (query_norm.forward(queries), key_norm.forward(keys));
        }
        let queries = rotation.apply(queries, &self.compute);
        let keys = rotation.apply(keys, &self.compute);
        let scale = (self.config.head_dim as f32).powf(-0.5);
        let state = cache.layer_mut(index);
        let attended = attend(queries, keys, values, state, layer.window, scale, &self.compute);
        let x = x + layer.attention_output.forward(attended);

        let h = layer.mlp_norm.forward(x.clone());
        let gated = gated_silu(layer.gate.forward(h.clone()), layer.up.forward(h), &self.compute);
        x + layer.down.forward(gated)
    }

    /// Logits `[rows, vocabulary]` of hidden states `[rows, hidden]` that left the last layer, or, for an
    /// untrained exit, an earlier one: the final norm and the output matrix.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.output.forward(self.norm.forward(hidden))
    }
}

/// Takes tensors out of a checkpoint and places them.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    format: Option<MatrixFormat>,
    compute: &'a Compute,
    /// What matrices are packed with.
    packer: Arc<Kernels>,
    arena: WeightArena,
    placed_bytes: u64,
}

impl<'a> Loader<'a> {
    fn new(checkpoint: &'a Checkpoint, format: Option<MatrixFormat>, compute: &'a Compute) -> Result<Self, ModelError> {
        let packer = match compute {
            Compute::Kernels(kernels) => Arc::clone(kernels),
            Compute::Burn(_) => Arc::new(Kernels::new(1).map_err(ModelError::Threads)?),
        };
        Ok(Self { checkpoint, format, compute, packer, arena: WeightArena::default(), placed_bytes: 0 })
    }

    fn layer(&mut self, config: &ModelConfig, index: usize) -> Result<Layer, ModelError> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let attention = |part: &str| name(&format!("self_attn.{part}"));
        let mlp = |part: &str| name(&format!("mlp.{part}"));
        Ok(Layer {
            attention_norm: self.norm(&name("input_layernorm"), config)?,
            query: self.linear(&attention("q_proj"), config.qkv_bias)?,
            key: self.linear(&attention("k_proj"), config.qkv_bias)?,
            value: self.linear(&attention("v_proj"), config.qkv_bias)?,
            head_norms: if config.qk_norm {
                Some((self.norm(&attention("q_norm"), config)?, self.norm(&attention("k_norm"), config)?))
            } else {
                None
            },
            attention_output: self.linear(&attention("o_proj"), config.output_bias)?,
            mlp_norm: self.norm(&name("post_attention_layernorm"), config)?,
            gate: self.linear(&mlp("gate_proj"), config.mlp_bias)?,
            up: self.linear(&mlp("up_proj"), config.mlp_bias)?,
            down: self.linear(&mlp("down_proj"), config.mlp_bias)?,
            window: config.window(index),
        })
    }

    fn norm(&mut self, name: &str, config: &ModelConfig) -> Result<RmsNorm, ModelError> {
        Ok(RmsNorm::new(self.vector(&format!("{name}.weight"))?, config.norm_eps, self.compute))
    }

    fn linear(&mut self, name: &str, with_bias: bool) -> Result<Linear, ModelError> {
        let weights = self.matrix(&format!("{name}.weight"))?;
        let bias = if with_bias { Some(self.vector(&format!("{name}.bias"))?) } else { None };
        Ok(Linear::new(weights, bias, self.compute))
    }

    fn vector(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let values = self.checkpoint.tensor(name)?.to_f32();
        self.placed_bytes += 4 * values.len() as u64;
        Ok(values)
    }

    /// A matrix packed in the format that the loader's gives it, or in the one it is stored in.
    fn matrix(&mut self, name: &str) -> Result<PackedWeights, ModelError> {
        let weights = self.stored(name)?;
        let format = self.format.map_or(MatrixFormat::Float(weights.format()), |format| matrix_format(name, format));
        let memory = |source| ModelError::Memory { name: name.to_owned(), source };
        let packed = self.packer.pack(&weights, format, &mut self.arena).map_err(memory)?;
        if let Some(row) = packed.not_finite() {
            let mut values = vec![0.0_f32; weights.in_features()];
            weights.row_to_f32(row, &mut values);
            let column = values.iter().position(|value| !value.is_finite()).unwrap_or_default();
            return Err(ModelError::NotFinite { name: name.to_owned(), row, column });
        }
        let stored = self.checkpoint.tensor(name)?;
        stored.file.release(stored.bytes.clone());
        self.placed_bytes += self.held_bytes(packed.bytes(), (packed.out_features(), packed.in_features()));
        Ok(packed)
    }

    /// A matrix where it lies in the file.
    fn stored(&self, name: &str) -> Result<Weights, ModelError> {
        in_place(self.checkpoint.tensor(name)?).map_err(|source| ModelError::Weights { name: name.to_owned(), source })
    }

    /// Bytes of a matrix where it is computed with: burn's own operations hold their weights in f32.
    fn held_bytes(&self, bytes: usize, (rows, columns): (usize, usize)) -> u64 {
        match self.compute {
            Compute::Kernels(_) => bytes as u64,
            Compute::Burn(_) => 4 * (rows * columns) as u64,
        }
    }
}

fn in_place(stored: &StoredTensor) -> Result<Weights, WeightsError> {
    let (rows, columns) = match stored.shape[..] {
        [rows, columns] => (rows, columns),
        _ => (0, 0),
    };
    Weights::in_place(Arc::clone(&stored.file), stored.bytes.clone(), stored.format, rows, columns)
}

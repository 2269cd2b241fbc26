//! Weights as a checkpoint's tensors become them: on the host, in the precision asked for, not yet tied to a way of
//! computing. The processor computes with them as they are; elsewhere they are copied into tensors.

use std::sync::Arc;

use paceline_kernels::{FloatFormat, Kernels, MatrixFormat, PackedWeights, WeightArena, Weights, WeightsError};

use super::ModelError;
use super::precision::matrix_format;
use crate::checkpoint::{Checkpoint, StoredTensor};

/// The weights of `y = x W^T + b`.
pub(super) struct LinearWeights {
    /// W.
    pub(super) matrix: PackedWeights,
    /// b, where there is one.
    pub(super) bias: Option<Vec<f32>>,
}

/// The weights of a layer, and its window.
pub(super) struct LayerWeights {
    /// The norm before attention.
    pub(super) attention_norm: Vec<f32>,
    /// The product that makes queries.
    pub(super) query: LinearWeights,
    /// The product that makes keys.
    pub(super) key: LinearWeights,
    /// The product that makes values.
    pub(super) value: LinearWeights,
    /// Norms on the heads of queries and keys (Qwen3).
    pub(super) head_norms: Option<(Vec<f32>, Vec<f32>)>,
    /// The product after attention.
    pub(super) attention_output: LinearWeights,
    /// The norm before the feed-forward part.
    pub(super) mlp_norm: Vec<f32>,
    /// The product whose activation gates.
    pub(super) gate: LinearWeights,
    /// The product that is gated.
    pub(super) up: LinearWeights,
    /// The product back to the layer's width.
    pub(super) down: LinearWeights,
    /// Positions that attention sees at most, if not all.
    pub(super) window: Option<usize>,
}

impl LayerWeights {
    /// The matrices of its attention.
    pub(super) fn attention(&self) -> [&PackedWeights; 4] {
        [&self.query, &self.key, &self.value, &self.attention_output].map(|weights| &weights.matrix)
    }

    /// The matrices of its MLP.
    pub(super) fn mlp(&self) -> [&PackedWeights; 3] {
        [&self.gate, &self.up, &self.down].map(|weights| &weights.matrix)
    }
}

/// What comes before the first layer and after the last.
pub(super) struct HeadWeights {
    /// The final norm.
    pub(super) norm: Vec<f32>,
    /// The output matrix `[vocabulary, hidden]`.
    pub(super) output: PackedWeights,
    /// The embedding `[vocabulary, hidden]`, where it lies in the file, or none where the output matrix serves.
    pub(super) embedding: Option<Weights>,
}

/// Takes tensors out of a checkpoint, one after the other: what has been packed is let go by the mapped file at once,
/// so that stored and packed copies are never both resident as a whole.
pub(super) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    /// The precision of matrices, `None` for each as it is stored.
    format: Option<MatrixFormat>,
    /// What matrices are packed with, and where to.
    packer: &'a Kernels,
    arena: WeightArena,
    bytes: u64,
    values: u64,
}

impl<'a> Loader<'a> {
    /// A loader of `checkpoint`'s weights with matrices in `format`, `None` for each as it is stored.
    pub(super) fn new(checkpoint: &'a Checkpoint, format: Option<MatrixFormat>, packer: &'a Kernels) -> Self {
        Self { checkpoint, format, packer, arena: WeightArena::default(), bytes: 0, values: 0 }
    }

    /// Bytes of everything loaded so far, as it is held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Values in it.
    pub(super) fn values(&self) -> u64 {
        self.values
    }

    /// The weights of a layer.
    ///
    /// # Errors
    /// As [`Loader::embedding`].
    pub(super) fn layer(&mut self, index: usize) -> Result<LayerWeights, ModelError> {
        let config = self.checkpoint.config();
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let attention = |part: &str| name(&format!("self_attn.{part}"));
        let mlp = |part: &str| name(&format!("mlp.{part}"));
        Ok(LayerWeights {
            attention_norm: self.norm(&name("input_layernorm"))?,
            query: self.linear(&attention("q_proj"), config.qkv_bias)?,
            key: self.linear(&attention("k_proj"), config.qkv_bias)?,
            value: self.linear(&attention("v_proj"), config.qkv_bias)?,
            head_norms: if config.qk_norm {
                Some((self.norm(&attention("q_norm"))?, self.norm(&attention("k_norm"))?))
            } else {
                None
            },
            attention_output: self.linear(&attention("o_proj"), config.output_bias)?,
            mlp_norm: self.norm(&name("post_attention_layernorm"))?,
            gate: self.linear(&mlp("gate_proj"), config.mlp_bias)?,
            up: self.linear(&mlp("up_proj"), config.mlp_bias)?,
            down: self.linear(&mlp("down_proj"), config.mlp_bias)?,
            window: config.window(index),
        })
    }

    /// What comes before and after the layers. A model that ties output and embedding has two matrices all the same
    /// where the output's is quantized: quantized rows are not what a token's embedding should be.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub(super) fn head(&mut self) -> Result<HeadWeights, ModelError> {
        let norm = self.norm("model.norm")?;
        let name = "model.embed_tokens.weight";
        let tied = self.checkpoint.config().tied_embeddings;
        let output = self.matrix(if tied { name } else { "lm_head.weight" })?;
        if tied && matches!(output.format(), MatrixFormat::Float(_)) {
            return Ok(HeadWeights { norm, output, embedding: None });
        }
        let embedding = self.stored(name)?;
        if !tied {
            self.check_finite(name, &embedding, MatrixFormat::Float(embedding.format()))?;
            self.release(name)?;
        }
        self.count(embedding.bytes(), embedding.in_features() * embedding.out_features());
        Ok(HeadWeights { norm, output, embedding: Some(embedding) })
    }

    fn norm(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        self.vector(&format!("{name}.weight"))
    }

    fn linear(&mut self, name: &str, with_bias: bool) -> Result<LinearWeights, ModelError> {
        let matrix = self.matrix(&format!("{name}.weight"))?;
        let bias = if with_bias { Some(self.vector(&format!("{name}.bias"))?) } else { None };
        Ok(LinearWeights { matrix, bias })
    }

    fn vector(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let values = self.checkpoint.tensor(name)?.to_f32();
        if let Some(column) = values.iter().position(|value| !value.is_finite()) {
            let format = MatrixFormat::Float(FloatFormat::F32);
            return Err(ModelError::NotFinite { name: name.to_owned(), row: 0, column, format });
        }
        self.count(size_of_val(values.as_slice()), values.len());
        Ok(values)
    }

    /// A matrix packed in the format that the loader's gives it, or in the one it is stored in.
    fn matrix(&mut self, name: &str) -> Result<PackedWeights, ModelError> {
        let weights = self.stored(name)?;
        let format = self.format.map_or(MatrixFormat::Float(weights.format()), |format| matrix_format(name, format));
        self.check_finite(name, &weights, format)?;
        let memory = |source| ModelError::Memory { name: name.to_owned(), source };
        let packed = self.packer.pack(&weights, format, &mut self.arena).map_err(memory)?;
        self.release(name)?;
        self.count(packed.bytes(), packed.in_features() * packed.out_features());
        Ok(packed)
    }

    /// That all values are finite, and stay so in `format`.
    fn check_finite(&self, name: &str, weights: &Weights, format: MatrixFormat) -> Result<(), ModelError> {
        match self.packer.find_not_finite(weights, format) {
            Some((row, column)) => Err(ModelError::NotFinite { name: name.to_owned(), row, column, format }),
            None => Ok(()),
        }
    }

    /// Lets a tensor's pages go.
    fn release(&self, name: &str) -> Result<(), ModelError> {
        let stored = self.checkpoint.tensor(name)?;
        stored.file.release(stored.bytes.clone());
        Ok(())
    }

    fn count(&mut self, bytes: usize, values: usize) {
        self.bytes += bytes as u64;
        self.values += values as u64;
    }

    /// A matrix where it lies in the file.
    fn stored(&self, name: &str) -> Result<Weights, ModelError> {
        in_place(self.checkpoint.tensor(name)?).map_err(|source| ModelError::Weights { name: name.to_owned(), source })
    }
}

fn in_place(stored: &StoredTensor) -> Result<Weights, WeightsError> {
    let (rows, columns) = match stored.shape[..] {
        [rows, columns] => (rows, columns),
        _ => (0, 0),
    };
    Weights::in_place(Arc::clone(&stored.file), stored.bytes.clone(), stored.format, rows, columns)
}

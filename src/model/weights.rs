//! Weights as a checkpoint's tensors become them: on the host, in the precision asked for, not yet tied to a way of
//! computing. The processor computes with them as they are; elsewhere they are copied into tensors.

use std::sync::Arc;

use paceline_kernels::{QuantizedFormat, QuantizedWeights, Weights, WeightsError};

use super::ModelError;
use super::precision::MatrixFormat;
use crate::checkpoint::{Checkpoint, StoredTensor};

/// A matrix `[out, in]`.
pub(super) enum Matrix {
    /// Of floats.
    Float(Arc<Weights>),
    /// Of integers with scales.
    Quantized(QuantizedWeights),
}

impl Matrix {
    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Float(weights) => weights.bytes(),
            Self::Quantized(weights) => weights.bytes(),
        }
    }

    /// Values that a product with it takes and that it yields: `(in, out)`.
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Self::Float(weights) => (weights.in_features(), weights.out_features()),
            Self::Quantized(weights) => (weights.in_features(), weights.out_features()),
        }
    }

    /// All values in f32, row-major, rounded as they are held.
    pub(super) fn to_f32(&self) -> Vec<f32> {
        let (width, rows) = self.shape();
        let mut values = vec![0.0; rows * width];
        for (row, out) in values.chunks_exact_mut(width).enumerate() {
            match self {
                Self::Float(weights) => weights.row_to_f32(row, out),
                Self::Quantized(weights) => weights.row_to_f32(row, out),
            }
        }
        values
    }
}

/// The weights of `y = x W^T + b`.
pub(super) struct LinearWeights {
    /// W.
    pub(super) matrix: Matrix,
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

/// What comes after the last layer.
pub(super) struct HeadWeights {
    /// The final norm.
    pub(super) norm: Vec<f32>,
    /// The output matrix `[vocabulary, hidden]`, or none where the embedding's serves.
    pub(super) output: Option<Matrix>,
}

/// Takes tensors out of a checkpoint, one after the other: what has been read or converted is let go by the mapped
/// file at once, so that stored and converted copies are never both resident as a whole.
pub(super) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    /// The precision of matrices, `None` for each as it is stored.
    format: Option<MatrixFormat>,
    bytes: u64,
    values: u64,
}

impl<'a> Loader<'a> {
    /// A loader of `checkpoint`'s weights with matrices in `format`, `None` for each as it is stored.
    pub(super) fn new(checkpoint: &'a Checkpoint, format: Option<MatrixFormat>) -> Self {
        Self { checkpoint, format, bytes: 0, values: 0 }
    }

    /// Bytes of everything loaded so far, as it is held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Values in it.
    pub(super) fn values(&self) -> u64 {
        self.values
    }

    /// The embedding `[vocabulary, width]`, which is never quantized.
    ///
    /// # Errors
    /// If the tensor is missing or does not fit.
    pub(super) fn embedding(&mut self) -> Result<Arc<Weights>, ModelError> {
        let weights = self.float("model.embed_tokens.weight")?;
        self.count(weights.bytes(), weights.in_features() * weights.out_features());
        Ok(Arc::new(weights))
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

    /// What comes after the layers. A model that ties output and embedding has two matrices all the same where only
    /// the one is quantized.
    ///
    /// # Errors
    /// As [`Loader::embedding`].
    pub(super) fn head(&mut self) -> Result<HeadWeights, ModelError> {
        let norm = self.norm("model.norm")?;
        let tied = self.checkpoint.config().tied_embeddings;
        let output = match self.format {
            // The output matrix decides between tokens: four bits are too few for it.
            Some(MatrixFormat::Quantized(_)) => Some(MatrixFormat::Quantized(QuantizedFormat::Int8)),
            _ if tied => return Ok(HeadWeights { norm, output: None }),
            other => other,
        };
        Ok(HeadWeights { norm, output: Some(self.matrix("lm_head.weight", output)?) })
    }

    fn norm(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        self.vector(&format!("{name}.weight"))
    }

    fn linear(&mut self, name: &str, with_bias: bool) -> Result<LinearWeights, ModelError> {
        let matrix = self.matrix(&format!("{name}.weight"), self.format)?;
        let bias = if with_bias { Some(self.vector(&format!("{name}.bias"))?) } else { None };
        Ok(LinearWeights { matrix, bias })
    }

    fn vector(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let values = self.checkpoint.tensor(name)?.to_f32();
        self.count(size_of_val(values.as_slice()), values.len());
        Ok(values)
    }

    fn matrix(&mut self, name: &str, format: Option<MatrixFormat>) -> Result<Matrix, ModelError> {
        let weights = self.float(name)?;
        let matrix = match format {
            Some(MatrixFormat::Quantized(format)) => {
                check_finite(name, &weights)?;
                let quantized = QuantizedWeights::quantize(&weights, format);
                let stored = self.checkpoint.tensor(name)?;
                stored.file.release(stored.bytes.clone());
                Matrix::Quantized(quantized)
            }
            _ => Matrix::Float(Arc::new(weights)),
        };
        let (width, rows) = matrix.shape();
        self.count(matrix.bytes(), width * rows);
        Ok(matrix)
    }

    fn count(&mut self, bytes: usize, values: usize) {
        self.bytes += bytes as u64;
        self.values += values as u64;
    }

    /// A matrix as stored, or converted to the float format that was asked for.
    fn float(&self, name: &str) -> Result<Weights, ModelError> {
        let stored = self.checkpoint.tensor(name)?;
        let weights = in_place(stored).map_err(|source| ModelError::Weights { name: name.to_owned(), source })?;
        Ok(match self.format {
            Some(MatrixFormat::Float(format)) if format != stored.format => {
                let converted = weights.converted(format);
                stored.file.release(stored.bytes.clone());
                converted
            }
            _ => weights,
        })
    }
}

/// A scale cannot hold what is infinite or no number.
fn check_finite(name: &str, weights: &Weights) -> Result<(), ModelError> {
    let mut row = vec![0.0_f32; weights.in_features()];
    for index in 0..weights.out_features() {
        weights.row_to_f32(index, &mut row);
        if let Some(column) = row.iter().position(|value| !value.is_finite()) {
            return Err(ModelError::NotFinite { name: name.to_owned(), row: index, column });
        }
    }
    Ok(())
}

fn in_place(stored: &StoredTensor) -> Result<Weights, WeightsError> {
    let (rows, columns) = match stored.shape[..] {
        [rows, columns] => (rows, columns),
        _ => (0, 0),
    };
    Weights::in_place(Arc::clone(&stored.file), stored.bytes.clone(), stored.format, rows, columns)
}

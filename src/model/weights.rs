//! Weights as a checkpoint's tensors become them: on the host, in the precision asked for, not yet tied to a way of
//! computing. The processor computes with them as they are; elsewhere they are copied into tensors.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use paceline_kernels::{FloatFormat, Kernels, MatrixFormat, PackedWeights, WeightArena, Weights};

use super::ModelError;
use super::kept::Kept;
use super::ops::from_values;
use super::precision::{matrix_format, serves_look_ups};
use crate::checkpoint::{
    Checkpoint, EMBEDDING, Exits, FINAL_NORM, LayerSpec, OUTPUT, StoredTensor, exit_tensors, layer_name, mlp_norm,
};

/// The weights of `y = x W^T + b`.
pub(super) struct LinearWeights<M = PackedWeights, V = Vec<f32>> {
    /// W.
    pub(super) matrix: M,
    /// b, where there is one.
    pub(super) bias: Option<V>,
}

/// The weights of a layer, and how it computes with them.
pub(super) struct LayerWeights<M = PackedWeights, V = Vec<f32>> {
    /// Sizes and settings.
    pub(super) spec: LayerSpec,
    /// The norm before attention.
    pub(super) attention_norm: V,
    /// The product that makes queries.
    pub(super) query: LinearWeights<M, V>,
    /// The product that makes keys.
    pub(super) key: LinearWeights<M, V>,
    /// The product that makes values.
    pub(super) value: LinearWeights<M, V>,
    /// Norms on the heads of queries and keys, where the layer has them.
    pub(super) head_norms: Option<(V, V)>,
    /// The product after attention.
    pub(super) attention_output: LinearWeights<M, V>,
    /// Norms on the outputs of attention and of the feed-forward part, where the layer has them.
    pub(super) post_norms: Option<(V, V)>,
    /// The norm before the feed-forward part.
    pub(super) mlp_norm: V,
    /// The product whose activation gates.
    pub(super) gate: LinearWeights<M, V>,
    /// The product that is gated.
    pub(super) up: LinearWeights<M, V>,
    /// The product back to the layer's width.
    pub(super) down: LinearWeights<M, V>,
}

/// A layer as a source's weights.
pub(super) type LayerOf<S> = LayerWeights<<S as Source>::Matrix, <S as Source>::Vector>;

/// Where weights come from, by their names in Hugging Face files.
pub(super) trait Source {
    /// Type that holds a matrix.
    type Matrix;
    /// Type that holds a norm's weight or a bias.
    type Vector;
    /// Why one cannot be had.
    type Error;

    /// The matrix of a name.
    fn matrix(&mut self, name: &str) -> Result<Self::Matrix, Self::Error>;

    /// The vector of a name.
    fn vector(&mut self, name: &str) -> Result<Self::Vector, Self::Error>;

    /// The weight of the norm of a name: what is stored, plus what the model adds.
    fn norm(&mut self, name: &str) -> Result<Self::Vector, Self::Error>;
}

fn linear<S: Source>(
    source: &mut S,
    name: &str,
    with_bias: bool,
) -> Result<LinearWeights<S::Matrix, S::Vector>, S::Error> {
    let matrix = source.matrix(&format!("{name}.weight"))?;
    let bias = if with_bias { Some(source.vector(&format!("{name}.bias"))?) } else { None };
    Ok(LinearWeights { matrix, bias })
}

impl<M, V> LayerWeights<M, V> {
    /// The weights of layer `index`, which is as `spec` says.
    ///
    /// # Errors
    /// The source's.
    pub(super) fn read<S: Source<Matrix = M, Vector = V>>(
        source: &mut S,
        spec: &LayerSpec,
        index: usize,
    ) -> Result<Self, S::Error> {
        let norm = |part: &str| layer_name(index, &format!("{part}.weight"));
        let attention = |part: &str| layer_name(index, &format!("self_attn.{part}"));
        let mlp = |part: &str| layer_name(index, &format!("mlp.{part}"));
        Ok(Self {
            spec: spec.clone(),
            attention_norm: source.norm(&norm("input_layernorm"))?,
            query: linear(source, &attention("q_proj"), spec.qkv_bias)?,
            key: linear(source, &attention("k_proj"), spec.qkv_bias)?,
            value: linear(source, &attention("v_proj"), spec.qkv_bias)?,
            head_norms: if spec.qk_norm {
                Some((source.norm(&norm("self_attn.q_norm"))?, source.norm(&norm("self_attn.k_norm"))?))
            } else {
                None
            },
            attention_output: linear(source, &attention("o_proj"), spec.output_bias)?,
            post_norms: if spec.post_norms {
                Some((
                    source.norm(&norm("post_attention_layernorm"))?,
                    source.norm(&norm("post_feedforward_layernorm"))?,
                ))
            } else {
                None
            },
            mlp_norm: source.norm(&norm(mlp_norm(spec)))?,
            gate: linear(source, &mlp("gate_proj"), spec.mlp_bias)?,
            up: linear(source, &mlp("up_proj"), spec.mlp_bias)?,
            down: linear(source, &mlp("down_proj"), spec.mlp_bias)?,
        })
    }

    /// The matrices of its attention.
    pub(super) fn attention(&self) -> [&M; 4] {
        [&self.query, &self.key, &self.value, &self.attention_output].map(|weights| &weights.matrix)
    }

    /// The matrices of its MLP.
    pub(super) fn mlp(&self) -> [&M; 3] {
        [&self.gate, &self.up, &self.down].map(|weights| &weights.matrix)
    }
}

/// Weights before the first layer and after the last.
pub(super) struct HeadWeights<M = PackedWeights, V = Vec<f32>, E = Weights> {
    /// The final norm.
    pub(super) norm: V,
    /// The output matrix `[vocabulary, hidden]`.
    pub(super) output: M,
    /// The embedding `[vocabulary, hidden]`, or none where the output matrix serves. The processor has it where it lies
    /// in the file.
    pub(super) embedding: Option<E>,
}

/// The weights of a trained exit head, before the output matrix, which is the model's.
pub(super) struct ExitWeights<M = PackedWeights, V = Vec<f32>> {
    /// The norm `[hidden]`.
    pub(super) norm: V,
    /// `[rank, hidden]`.
    pub(super) down: M,
    /// `[hidden, rank]`.
    pub(super) up: M,
}

/// Exit heads by their depths.
pub(super) type ExitsByDepth<E> = BTreeMap<usize, E>;

/// Takes tensors out of a checkpoint, one after the other: what has been packed is let go by the mapped file at once,
/// so that stored and packed copies are never both resident as a whole.
pub(super) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    /// The precision of matrices, `None` for each as it is stored.
    format: Option<MatrixFormat>,
    /// Kernels that pack matrices into `arena`.
    packer: &'a Kernels,
    arena: WeightArena,
    /// Where packed matrices are kept.
    kept: Kept,
    bytes: u64,
    values: u64,
}

impl<'a> Loader<'a> {
    /// A loader of `checkpoint`'s weights with matrices in `format`, `None` for each as it is stored.
    pub(super) fn new(checkpoint: &'a Checkpoint, format: Option<MatrixFormat>, packer: &'a Kernels) -> Self {
        Self { checkpoint, format, packer, arena: WeightArena::default(), kept: Kept::No, bytes: 0, values: 0 }
    }

    /// The same, whose packed matrices are kept below `root` for the next time, or are those that were. Matrices in the formats that
    /// they are stored in are not: these are packed as fast as they are read.
    pub(super) fn keeping(self, root: Option<&Path>) -> Self {
        let kept = root.zip(self.format).map(|(root, format)| Kept::open(root, self.checkpoint, format));
        Self { kept: kept.unwrap_or_default(), ..self }
    }

    /// Ends the keeping. Says why nothing is kept, where something was to be.
    pub(super) fn finish(&mut self) -> Option<String> {
        std::mem::take(&mut self.kept).finish(self.checkpoint)
    }

    /// Bytes of everything loaded so far, as it is held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Values in it.
    pub(super) fn values(&self) -> u64 {
        self.values
    }

    /// Weights before and after the layers. A model that ties output and embedding has two matrices all the same
    /// where the output's is rounded to integers: such rows are not what a token's embedding should be.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub(super) fn head(&mut self) -> Result<HeadWeights, ModelError> {
        let norm = self.norm(FINAL_NORM)?;
        let name = EMBEDDING;
        let tied = self.checkpoint.config().tied_embeddings;
        let output = self.matrix(if tied { name } else { OUTPUT })?;
        if tied && serves_look_ups(output.format()) {
            return Ok(HeadWeights { norm, output, embedding: None });
        }
        let embedding = self.stored(name)?;
        if !tied {
            self.check_finite(name, &embedding, embedding.format().into())?;
            release(self.checkpoint.tensor(name)?);
        }
        self.count(embedding.bytes(), embedding.in_features() * embedding.out_features());
        Ok(HeadWeights { norm, output, embedding: Some(embedding) })
    }

    /// The rows of the output matrix that belong to `tokens`, in its format.
    ///
    /// # Errors
    /// If the tensor is missing or does not fit.
    pub(super) fn output_rows(&mut self, tokens: &[u32]) -> Result<PackedWeights, ModelError> {
        let name = if self.checkpoint.config().tied_embeddings { EMBEDDING } else { OUTPUT };
        let stored = self.stored(name)?;
        let tokens: Vec<usize> = tokens.iter().map(|&token| token as usize).collect();
        let chosen = stored.of_rows(&tokens);
        let chosen = chosen.map_err(|source| ModelError::Weights { name: name.to_owned(), source })?;
        release(self.checkpoint.tensor(name)?);
        let format = self.format.map_or(stored.format().into(), |format| matrix_format(name, format));
        let memory = |source| ModelError::Memory { name: name.to_owned(), source };
        let packed = self.packer.pack(&chosen, format, &mut self.arena).map_err(memory)?;
        self.count(packed.bytes(), packed.in_features() * packed.out_features());
        Ok(packed)
    }

    /// Trained exit heads, in the precision that they are stored in: they are too small for another to save anything.
    ///
    /// # Errors
    /// If a value is not finite, or there is not enough memory.
    pub(super) fn exits(&mut self, exits: &Exits) -> Result<ExitsByDepth<ExitWeights>, ModelError> {
        let hidden = self.checkpoint.config().hidden_size;
        let mut heads = BTreeMap::new();
        for exit in &exits.config().exits {
            let [norm, down, up] = exit_tensors(exit.depth, exits.config().rank, hidden).map(|(name, _)| name);
            let mut matrix = |name: &str| {
                let stored = exits.tensor(name)?;
                self.pack(name, stored, stored.format.into())
            };
            let (down, up) = (matrix(&down)?, matrix(&up)?);
            heads.insert(exit.depth, ExitWeights { norm: self.widened(&norm, exits.tensor(&norm)?)?, down, up });
        }
        Ok(heads)
    }

    /// That all values are finite, and stay so in `format`.
    fn check_finite(&self, name: &str, weights: &Weights, format: MatrixFormat) -> Result<(), ModelError> {
        match self.packer.find_not_finite(weights, format) {
            Some((row, column)) => Err(ModelError::NotFinite { name: name.to_owned(), row, column, format }),
            None => Ok(()),
        }
    }

    fn count(&mut self, bytes: usize, values: usize) {
        self.bytes += bytes as u64;
        self.values += values as u64;
    }

    /// A matrix where it lies in the file.
    fn stored(&self, name: &str) -> Result<Weights, ModelError> {
        named(name, self.checkpoint.tensor(name)?)
    }

    /// A tensor packed in `format`; its pages are let go.
    fn pack(&mut self, name: &str, stored: &StoredTensor, format: MatrixFormat) -> Result<PackedWeights, ModelError> {
        let weights = named(name, stored)?;
        let memory = |source| ModelError::Memory { name: name.to_owned(), source };
        let sizes = (weights.out_features(), weights.in_features());
        let kept = self.kept.take((name, format), sizes, self.packer, &mut self.arena).map_err(memory)?;
        let packed = match kept {
            Some(packed) => packed,
            None => {
                self.check_finite(name, &weights, format)?;
                let packed = self.packer.pack(&weights, format, &mut self.arena).map_err(memory)?;
                self.kept.keep(name, &packed);
                packed
            }
        };
        release(stored);
        self.count(packed.bytes(), packed.in_features() * packed.out_features());
        Ok(packed)
    }

    /// A tensor's values in f32.
    fn widened(&mut self, name: &str, stored: &StoredTensor) -> Result<Vec<f32>, ModelError> {
        let values = stored.to_f32();
        if let Some(column) = values.iter().position(|value| !value.is_finite()) {
            let format = MatrixFormat::Float(FloatFormat::F32);
            return Err(ModelError::NotFinite { name: name.to_owned(), row: 0, column, format });
        }
        self.count(size_of_val(values.as_slice()), values.len());
        Ok(values)
    }
}

/// Lets a tensor's pages go.
fn release(stored: &StoredTensor) {
    stored.file.release(stored.bytes.clone());
}

impl Source for Loader<'_> {
    type Matrix = PackedWeights;
    type Vector = Vec<f32>;
    type Error = ModelError;

    /// Packed in the format that the loader's gives it, or in the one it is stored in.
    fn matrix(&mut self, name: &str) -> Result<PackedWeights, ModelError> {
        let stored = self.checkpoint.tensor(name)?;
        let format = self.format.map_or(stored.format.into(), |format| matrix_format(name, format));
        self.pack(name, stored, format)
    }

    fn vector(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        self.widened(name, self.checkpoint.tensor(name)?)
    }

    fn norm(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let offset = self.checkpoint.config().norm_offset;
        let mut weight = self.vector(name)?;
        weight.iter_mut().for_each(|value| *value += offset);
        Ok(weight)
    }
}

/// A loader's weights as tensors: copied one by one, so that both copies are never there as a whole.
pub(super) struct OnDevice<'a, 'b> {
    /// Where they come from.
    pub(super) loader: &'a mut Loader<'b>,
    /// Where they go.
    pub(super) device: &'a Device,
}

impl OnDevice<'_, '_> {
    /// As [`Loader::head`].
    ///
    /// # Errors
    /// As [`Loader::head`].
    pub(super) fn head(&mut self) -> Result<HeadWeights<Tensor<2>, Tensor<2>, Tensor<2>>, ModelError> {
        let HeadWeights { norm, output, embedding } = self.loader.head()?;
        let stored = |weights: Weights| {
            let (rows, width) = (weights.out_features(), weights.in_features());
            self.place(rows, width, |index, row| weights.row_to_f32(index, row))
        };
        let embedding = embedding.map(stored);
        Ok(HeadWeights { norm: self.place_vector(norm), output: self.place_packed(&output), embedding })
    }

    /// As [`Loader::exits`].
    ///
    /// # Errors
    /// As [`Loader::exits`].
    pub(super) fn exits(
        &mut self,
        exits: &Exits,
    ) -> Result<ExitsByDepth<ExitWeights<Tensor<2>, Tensor<2>>>, ModelError> {
        let heads = self.loader.exits(exits)?.into_iter();
        let place = |(depth, ExitWeights { norm, down, up })| {
            let (down, up) = (self.place_packed(&down), self.place_packed(&up));
            (depth, ExitWeights { norm: self.place_vector(norm), down, up })
        };
        Ok(heads.map(place).collect())
    }

    fn place(&self, rows: usize, width: usize, row: impl Fn(usize, &mut [f32])) -> Tensor<2> {
        let mut values = vec![0.0; rows * width];
        for (index, out) in values.chunks_exact_mut(width).enumerate() {
            row(index, out);
        }
        from_values(values, rows, width, self.device)
    }

    fn place_packed(&self, matrix: &PackedWeights) -> Tensor<2> {
        self.place(matrix.out_features(), matrix.in_features(), |index, row| matrix.row_to_f32(index, row))
    }

    fn place_vector(&self, values: Vec<f32>) -> Tensor<2> {
        let width = values.len();
        from_values(values, 1, width, self.device)
    }
}

impl Source for OnDevice<'_, '_> {
    type Matrix = Tensor<2>;
    type Vector = Tensor<2>;
    type Error = ModelError;

    fn matrix(&mut self, name: &str) -> Result<Tensor<2>, ModelError> {
        let matrix = self.loader.matrix(name)?;
        Ok(self.place_packed(&matrix))
    }

    fn vector(&mut self, name: &str) -> Result<Tensor<2>, ModelError> {
        let values = self.loader.vector(name)?;
        Ok(self.place_vector(values))
    }

    fn norm(&mut self, name: &str) -> Result<Tensor<2>, ModelError> {
        let values = self.loader.norm(name)?;
        Ok(self.place_vector(values))
    }
}

/// A tensor as a matrix where it lies in the file.
fn named(name: &str, stored: &StoredTensor) -> Result<Weights, ModelError> {
    stored.matrix().map_err(|source| ModelError::Weights { name: name.to_owned(), source })
}

//! The model under autodiff: the runtime's own reference model, over batches, with parameters that have gradients.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use paceline_kernels::TrainingPrecision;

use super::ModelError;
use super::batch::Batch;
use super::device::Compute;
use super::ops::Operations;
use super::parameters::Parameters;
use super::reference::{ExitHead, Reference};
use super::skip::SkipPlan;
use super::weights::{ExitWeights, HeadWeights, LayerWeights, Source};
use crate::checkpoint::{Checkpoint, EMBEDDING, FINAL_NORM, ModelConfig, OUTPUT, exit_tensors, tensors_of};

/// A model's parameters by their names in Hugging Face files. Vectors are `[1, length]`.
///
/// On the processor operations are fused kernels with their own backward pass; elsewhere they are burn's.
pub struct Trainable {
    config: ModelConfig,
    operations: Operations,
    parameters: Parameters,
}

impl Trainable {
    /// A model of `config`'s shape whose values `initial` gives, by name and shape, row-major.
    ///
    /// # Panics
    /// If `initial` gives another number of values than the shape has.
    pub fn new(config: ModelConfig, compute: &Compute, initial: impl FnMut(&str, &[usize]) -> Vec<f32>) -> Self {
        let operations = match compute {
            Compute::Kernels(kernels) => {
                Operations::Fused { kernels: Arc::clone(kernels), products: TrainingPrecision::F32 }
            }
            Compute::Burn(_) => Operations::Composed,
        };
        let parameters = Parameters::new(tensors_of(&config), compute, initial);
        Self { config, operations, parameters }
    }

    /// The model of a checkpoint, its values widened to f32.
    ///
    /// # Errors
    /// If the checkpoint lacks something.
    pub fn open(checkpoint: &Checkpoint, compute: &Compute) -> Result<Self, ModelError> {
        let mut missing = None;
        let model = Self::new(checkpoint.config().clone(), compute, |name, shape| match checkpoint.tensor(name) {
            Ok(tensor) => tensor.to_f32(),
            Err(error) => {
                missing.get_or_insert(error);
                vec![0.0; shape.iter().product()]
            }
        });
        missing.map_or(Ok(model), |error| Err(error.into()))
    }

    /// The same with products of matrices, forward and backward, of inputs that are rounded to this precision. Parameters,
    /// sums and all other operations stay f32. On a device that is not the processor nothing changes.
    #[must_use]
    pub fn with_products(mut self, precision: TrainingPrecision) -> Self {
        if let Operations::Fused { products, .. } = &mut self.operations {
            *products = precision;
        }
        self
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The parameters, to be changed.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// The model as it is now, to be computed with. Of a frozen one no parameter has a gradient.
    pub fn model(&self, frozen: bool) -> Model {
        let mut source = WeightsOf { parameters: &self.parameters, norm_offset: self.config.norm_offset, frozen };
        let layers = (0..self.config.layers).map(|index| {
            let Ok(layer) = LayerWeights::read(&mut source, self.config.layer(index), index);
            layer
        });
        let layers = layers.collect();
        let (norm, embedding) = (source.get_norm(FINAL_NORM), source.get(EMBEDDING));
        let head = match self.config.tied_embeddings {
            true => HeadWeights { norm, output: embedding, embedding: None },
            false => HeadWeights { norm, output: source.get(OUTPUT), embedding: Some(embedding) },
        };
        let (operations, device) = (self.operations.clone(), self.parameters.device());
        Model {
            reference: Reference::new(&self.config, layers, head, operations, device),
            norm_eps: self.config.norm_eps,
        }
    }
}

/// Parameters as weights of a reference model.
struct WeightsOf<'a> {
    parameters: &'a Parameters,
    norm_offset: f32,
    frozen: bool,
}

impl WeightsOf<'_> {
    fn get(&self, name: &str) -> Tensor<2> {
        let tensor = self.parameters.get(name).expect("made for all names that a configuration implies").clone();
        // `detach` would leave it a parameter, and a graph that nobody goes back through would stay in memory.
        if self.frozen { tensor.inner().autodiff() } else { tensor }
    }

    fn get_norm(&self, name: &str) -> Tensor<2> {
        let weight = self.get(name);
        if self.norm_offset == 0.0 { weight } else { weight + self.norm_offset }
    }
}

impl Source for WeightsOf<'_> {
    type Matrix = Tensor<2>;
    type Vector = Tensor<2>;
    type Error = std::convert::Infallible;

    fn matrix(&mut self, name: &str) -> Result<Tensor<2>, Self::Error> {
        Ok(self.get(name))
    }

    fn vector(&mut self, name: &str) -> Result<Tensor<2>, Self::Error> {
        Ok(self.get(name))
    }

    fn norm(&mut self, name: &str) -> Result<Tensor<2>, Self::Error> {
        Ok(self.get_norm(name))
    }
}

/// A model over batches.
pub struct Model {
    reference: Reference,
    norm_eps: f32,
}

impl Model {
    /// The embeddings of a batch's tokens, `[rows, hidden]`: the input of layer 0.
    pub fn embed(&self, batch: &Batch) -> Tensor<2> {
        self.reference.embeddings(batch.tokens())
    }

    /// Runs `layers`, without the sublayers that `skip` names, over `hidden`, the rows of `batch`: `[rows, hidden]`.
    pub fn forward_layers(
        &self,
        layers: Range<usize>,
        batch: &Batch,
        hidden: Tensor<2>,
        skip: Option<&SkipPlan>,
    ) -> Tensor<2> {
        self.reference.forward_batch(layers, batch, hidden, skip)
    }

    /// Logits `[rows, vocabulary]` of hidden states `[rows, hidden]`: the final norm and the output matrix.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.reference.output_logits(hidden)
    }

    /// Outputs of the exit head of `depth` for hidden states `[rows, hidden]` that left layer `depth - 1`: the states
    /// that its norm is given, `[rows, hidden]`, and its logits `[rows, vocabulary]`. `heads` has its tensors by the
    /// names of [`exit_tensors`](crate::checkpoint::exit_tensors).
    ///
    /// # Panics
    /// If `heads` has no such head.
    pub fn exit(&self, heads: &Parameters, depth: usize, hidden: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let [norm, down, up] = exit_tensors(depth, 0, 0)
            .map(|(name, _)| heads.get(&name).unwrap_or_else(|| panic!("there is no `{name}`")).clone());
        let head = ExitHead::new(ExitWeights { norm, down, up }, self.norm_eps);
        self.reference.through_head(&head, hidden)
    }

    /// The sum over rows of `weight * -ln p(target)`, `[1, 1]`, for logits `[rows, vocabulary]`.
    ///
    /// # Panics
    /// If there are not as many targets and weights as rows, or a target is outside the vocabulary.
    pub fn cross_entropy(&self, logits: Tensor<2>, targets: &[u32], weights: &[f32]) -> Tensor<2> {
        self.reference.cross_entropy(logits, targets, weights)
    }

    /// Distillation loss against a teacher (Hinton et al. 2015): the sum over rows of `weight * T^2 * KL(q, p)` in
    /// nats, `[1, 1]`, of the softmax p of `logits / T` and the softmax q of `teacher_logits / T`, both `[rows, vocabulary]`.
    /// The teacher gets no gradient.
    ///
    /// # Panics
    /// If there are not as many weights as rows, or the shapes differ.
    pub fn soft_cross_entropy(
        &self,
        logits: Tensor<2>,
        teacher_logits: Tensor<2>,
        temperature: f32,
        weights: &[f32],
    ) -> Tensor<2> {
        self.reference.soft_cross_entropy(logits, teacher_logits, temperature, weights)
    }
}

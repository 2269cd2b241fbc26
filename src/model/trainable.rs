//! The model under autodiff: the runtime's own description, over batches, with parameters that have gradients.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::ModelError;
use super::batch::Batch;
use super::description::Description;
use super::device::Compute;
use super::ops::{Operations, from_values};
use super::skip::SkipPlan;
use super::weights::{HeadWeights, LayerWeights, Source};
use crate::checkpoint::{Checkpoint, EMBEDDING, FINAL_NORM, ModelConfig, OUTPUT, tensors_of};

/// A model's parameters by their names in Hugging Face files. Vectors are `[1, length]`.
///
/// On the processor operations are fused kernels with their own backward pass; elsewhere they are burn's.
pub struct Trainable {
    config: ModelConfig,
    operations: Operations,
    /// Where gradients are recorded.
    device: Device,
    parameters: BTreeMap<String, Tensor<2>>,
}

impl Trainable {
    /// A model of `config`'s shape whose values `initial` gives, by name and shape, row-major.
    ///
    /// # Panics
    /// If `initial` gives another number of values than the shape has.
    pub fn new(config: ModelConfig, compute: &Compute, mut initial: impl FnMut(&str, &[usize]) -> Vec<f32>) -> Self {
        let operations = match compute {
            Compute::Kernels(kernels) => Operations::Fused(Arc::clone(kernels)),
            Compute::Burn(_) => Operations::Composed,
        };
        let device = compute.device().autodiff();
        let mut parameters = BTreeMap::new();
        for (name, shape) in tensors_of(&config) {
            let values = initial(&name, &shape);
            let width = *shape.last().expect("shapes have one or two sizes");
            let rows = shape.iter().product::<usize>() / width;
            let leaf = from_values(values, rows, width, &device).require_grad();
            parameters.insert(name, leaf);
        }
        Self { config, operations, device, parameters }
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

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The parameters with their names, in order of these.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor<2>)> {
        self.parameters.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Replaces every parameter by what `f` makes of it, without gradients: `[rows, width]` as before.
    pub fn update(&mut self, mut f: impl FnMut(&str, Tensor<2>) -> Tensor<2>) {
        for (name, parameter) in &mut self.parameters {
            let before = std::mem::replace(parameter, Tensor::empty([1, 1], &self.device));
            *parameter = f(name, before.inner()).autodiff().require_grad();
        }
    }

    /// The model as it is now, to be computed with. Of a frozen one no parameter has a gradient.
    pub fn model(&self, frozen: bool) -> Model {
        let mut source = Parameters { parameters: &self.parameters, frozen };
        let layers = (0..self.config.layers).map(|index| {
            let Ok(layer) = LayerWeights::read(&mut source, &self.config, index);
            layer
        });
        let layers = layers.collect();
        let embedding = source.get(EMBEDDING);
        let head = match self.config.tied_embeddings {
            true => HeadWeights { norm: source.get(FINAL_NORM), output: embedding, embedding: None },
            false => {
                HeadWeights { norm: source.get(FINAL_NORM), output: source.get(OUTPUT), embedding: Some(embedding) }
            }
        };
        let operations = self.operations.clone();
        Model(Description::new(&self.config, layers, head, operations, &self.device))
    }
}

/// Parameters as weights of a description.
struct Parameters<'a> {
    parameters: &'a BTreeMap<String, Tensor<2>>,
    frozen: bool,
}

impl Parameters<'_> {
    fn get(&self, name: &str) -> Tensor<2> {
        let tensor = self.parameters.get(name).expect("made for all names that a configuration implies").clone();
        // `detach` would leave it a parameter, and a graph that nobody goes back through would stay in memory.
        if self.frozen { tensor.inner().autodiff() } else { tensor }
    }
}

impl Source for Parameters<'_> {
    type Matrix = Tensor<2>;
    type Vector = Tensor<2>;
    type Error = std::convert::Infallible;

    fn matrix(&mut self, name: &str) -> Result<Tensor<2>, Self::Error> {
        Ok(self.get(name))
    }

    fn vector(&mut self, name: &str) -> Result<Tensor<2>, Self::Error> {
        Ok(self.get(name))
    }
}

/// A model over batches.
pub struct Model(Description);

impl Model {
    /// The embeddings of a batch's tokens, `[rows, hidden]`: the input of layer 0.
    pub fn embed(&self, batch: &Batch) -> Tensor<2> {
        self.0.embed(batch.tokens())
    }

    /// Runs `layers`, without the sublayers that `skip` names, over `hidden`, the rows of `batch`: `[rows, hidden]`.
    pub fn forward_layers(
        &self,
        layers: Range<usize>,
        batch: &Batch,
        hidden: Tensor<2>,
        skip: Option<&SkipPlan>,
    ) -> Tensor<2> {
        self.0.forward_batch(layers, batch, hidden, skip)
    }

    /// Logits `[rows, vocabulary]` of hidden states `[rows, hidden]`: the final norm and the output matrix.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.0.logits(hidden)
    }

    /// The sum over rows of `weight * -ln p(target)`, `[1, 1]`, for logits `[rows, vocabulary]`.
    ///
    /// # Panics
    /// If there are not as many targets and weights as rows, or a target is outside the vocabulary.
    pub fn cross_entropy(&self, logits: Tensor<2>, targets: &[u32], weights: &[f32]) -> Tensor<2> {
        self.0.cross_entropy(logits, targets, weights)
    }

    /// The sum over rows of `weight * temperature^2 * -sum(q ln p)`, `[1, 1]`: p and q are the softmax of `logits /
    /// temperature` and of `teacher_logits / temperature`, both `[rows, vocabulary]`. The teacher has no gradient.
    ///
    /// # Panics
    /// If the teacher's logits have another shape, or there are not as many weights as rows.
    pub fn soft_cross_entropy(
        &self,
        logits: Tensor<2>,
        teacher_logits: Tensor<2>,
        temperature: f32,
        weights: &[f32],
    ) -> Tensor<2> {
        self.0.soft_cross_entropy(logits, teacher_logits, temperature, weights)
    }
}

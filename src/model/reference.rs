//! Reference model: the computation of a Llama-family decoder, described once, in burn tensors.
//!
//! Inference on devices other than the processor runs it over a pool ([`Backend`]), training runs it over
//! batches of sequences under autodiff ([`super::trainable`]), and tests hold the processor's own backend
//! ([`super::executor`]) to it.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use paceline_kernels::Activation;

use super::angles::{Place, Rotations, places};
use super::batch::{Batch, Masks};
use super::hidden::Hidden;
use super::ops::{
    Attention, Embedding, Linear, Operations, RmsNorm, Rotation, attend, attend_in_sequences, cross_entropy, gated,
    into_values, soft_capped, soft_cross_entropy,
};
use super::pool::{KvPool, SlotRun};
use super::skip::{SkipPlan, Sublayer};
use super::step::{Backend, Vocabulary};
use super::weights::{ExitWeights, ExitsByDepth, HeadWeights, LayerWeights, LinearWeights};
use crate::checkpoint::{LayerSpec, ModelConfig};

/// A model in burn tensors.
pub(super) struct Reference {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    output: Linear,
    exits: ExitsByDepth<ExitHead>,
    /// The tokens that drafts choose from; none for all of them.
    drafted: Option<Vec<u32>>,
    vocabulary: usize,
    rotations: Rotations,
    head_dim: usize,
    /// Factor of embeddings.
    embedding_factor: f32,
    /// Divisor of logits, and their cap.
    logit_divisor: f32,
    logit_cap: Option<f32>,
    operations: Operations,
    device: Device,
}

struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    /// Norms on the heads of queries and keys, where the layer has them.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    attention_output: Linear,
    /// Norms on the outputs of attention and MLP, where the layer has them.
    post_norms: Option<(RmsNorm, RmsNorm)>,
    mlp_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    attention: Attention,
    activation: Activation,
    /// Factor of what is added to the residual stream.
    residual_factor: f32,
}

/// Head before the output matrix at a trained exit: a residual of low rank, and a norm of its own.
pub(super) struct ExitHead {
    norm: RmsNorm,
    down: Linear,
    up: Linear,
}

impl ExitHead {
    /// A head of these weights.
    pub(super) fn new(weights: ExitWeights<Tensor<2>, Tensor<2>>, norm_eps: f32) -> Self {
        let linear = |matrix| Linear::new(LinearWeights { matrix, bias: None });
        Self { norm: RmsNorm::new(weights.norm, norm_eps), down: linear(weights.down), up: linear(weights.up) }
    }
}

/// Keys and values that rows attend to, beside their own.
enum Past<'a> {
    /// The sequences in a pool that they continue, to which they are appended.
    Pool(&'a mut KvPool, &'a [SlotRun]),
    /// Rows of the same batch.
    Batch(&'a Batch, Masks),
}

impl Reference {
    /// A model of `config`'s shape with weights on `device`.
    pub(super) fn new(
        config: &ModelConfig,
        layers: Vec<LayerWeights<Tensor<2>, Tensor<2>>>,
        head: HeadWeights<Tensor<2>, Tensor<2>, Tensor<2>>,
        operations: Operations,
        device: &Device,
    ) -> Self {
        Self {
            embedding: Embedding::new(head.embedding.unwrap_or_else(|| head.output.clone())),
            layers: layers.into_iter().map(Layer::new).collect(),
            norm: RmsNorm::new(head.norm, config.norm_eps),
            output: Linear::new(LinearWeights { matrix: head.output, bias: None }),
            exits: ExitsByDepth::new(),
            drafted: None,
            vocabulary: config.vocab_size,
            rotations: Rotations::new(config),
            head_dim: config.head_dim,
            embedding_factor: config.embedding_factor,
            logit_divisor: config.logit_divisor,
            logit_cap: config.logit_cap,
            operations,
            device: device.clone(),
        }
    }

    /// Gives it trained exit heads.
    pub(super) fn set_exits(&mut self, exits: ExitsByDepth<ExitHead>) {
        self.exits = exits;
    }

    /// Has drafts choose from these tokens alone, in rising order.
    pub(super) fn set_drafted(&mut self, tokens: Vec<u32>) {
        self.drafted = Some(tokens);
    }

    /// The tokens' embeddings, `[tokens, hidden]`.
    pub(super) fn embeddings(&self, tokens: &[u32]) -> Tensor<2> {
        let rows = self.embedding.forward(tokens, &self.operations);
        if self.embedding_factor == 1.0 { rows } else { rows * self.embedding_factor }
    }

    /// The rotations of rows, by the numbers of all there are.
    fn rotations_of(&self, runs: &[SlotRun]) -> Vec<Rotation> {
        self.rotations_at(&places(runs))
    }

    fn rotations_at(&self, places: &[Place]) -> Vec<Rotation> {
        let angles = self.rotations.angles(places).into_iter();
        angles.map(|angles| Rotation::new(angles, places.len(), self.head_dim, &self.device)).collect()
    }

    /// Runs `layers`, without what `skip` names, over `hidden` `[rows, hidden]`, the rows of `batch`.
    pub(super) fn forward_batch(
        &self,
        layers: Range<usize>,
        batch: &Batch,
        hidden: Tensor<2>,
        skip: Option<&SkipPlan>,
    ) -> Tensor<2> {
        let rotations = self.rotations_at(&batch.places(self.rotations.longest_short_text()));
        self.forward(layers, &rotations, hidden, skip, &mut Past::Batch(batch, Masks::default()))
    }

    fn forward(
        &self,
        layers: Range<usize>,
        rotations: &[Rotation],
        hidden: Tensor<2>,
        skip: Option<&SkipPlan>,
        past: &mut Past<'_>,
    ) -> Tensor<2> {
        let with = &self.operations;
        layers.fold(hidden, |mut x, index| {
            let (layer, rotation) = (&self.layers[index], &rotations[self.rotations.of(index)]);
            if Sublayer::Attention(index).runs(skip) {
                let normed = layer.attention_norm.forward(x.clone(), with);
                let delta = layer.attend(normed, rotation, past, index, with);
                x = x + layer.residual(delta, |(attention, _)| attention, with);
            }
            if Sublayer::Mlp(index).runs(skip) {
                let normed = layer.mlp_norm.forward(x.clone(), with);
                let delta = layer.feed_forward(normed, with);
                x = x + layer.residual(delta, |(_, mlp)| mlp, with);
            }
            x
        })
    }

    /// The sum over rows of `weight * -ln p(target)`, `[1, 1]`, for logits `[rows, vocabulary]`.
    pub(super) fn cross_entropy(&self, logits: Tensor<2>, targets: &[u32], weights: &[f32]) -> Tensor<2> {
        cross_entropy(logits, targets, weights, &self.operations)
    }

    /// As [`super::ops::soft_cross_entropy`].
    pub(super) fn soft_cross_entropy(
        &self,
        logits: Tensor<2>,
        teacher_logits: Tensor<2>,
        temperature: f32,
        weights: &[f32],
    ) -> Tensor<2> {
        soft_cross_entropy(logits, teacher_logits, temperature, weights, &self.operations)
    }

    /// Logits `[rows, vocabulary]` of hidden states `[rows, hidden]`: the final norm and the output matrix.
    pub(super) fn output_logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.logits_of(self.norm.forward(hidden, &self.operations))
    }

    /// Logits of normed states: the output matrix, and what the model does with its products.
    fn logits_of(&self, normed: Tensor<2>) -> Tensor<2> {
        let products = self.output.forward(normed, &self.operations);
        let logits = if self.logit_divisor == 1.0 { products } else { products / self.logit_divisor };
        match self.logit_cap {
            Some(cap) => soft_capped(logits, cap),
            None => logits,
        }
    }

    /// As [`Self::output_logits`], of hidden states that left layer `depth - 1`: through the head that was trained for it, or else
    /// the model's own.
    pub(super) fn exit_logits(&self, depth: usize, hidden: Tensor<2>) -> Tensor<2> {
        match self.exits.get(&depth) {
            Some(head) => self.through_head(head, hidden).1,
            None => self.output_logits(hidden),
        }
    }

    /// Outputs of a head for hidden states `[rows, hidden]`: `h + up (down h)`, `[rows, hidden]`, and its logits
    /// `[rows, vocabulary]`.
    pub(super) fn through_head(&self, head: &ExitHead, hidden: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let with = &self.operations;
        let residual = head.up.forward(head.down.forward(hidden.clone(), with), with);
        let states = hidden + residual;
        let logits = self.logits_of(head.norm.forward(states.clone(), with));
        (states, logits)
    }
}

impl Backend for Reference {
    fn embed(&self, tokens: &[u32]) -> Hidden {
        Hidden::of_tensor(self.embeddings(tokens))
    }

    fn run(
        &self,
        layers: Range<usize>,
        hidden: Hidden,
        runs: &[SlotRun],
        skip: Option<&SkipPlan>,
        kv: &mut KvPool,
    ) -> Hidden {
        let past = &mut Past::Pool(kv, runs);
        Hidden::of_tensor(self.forward(layers, &self.rotations_of(runs), hidden.into_tensor(), skip, past))
    }

    fn propagate(
        &self,
        layers: Range<usize>,
        hidden: &Hidden,
        runs: &[SlotRun],
        skip: Option<&SkipPlan>,
        kv: &mut KvPool,
    ) {
        let rotations = self.rotations_of(runs);
        let hidden = hidden.clone().into_tensor();
        for index in layers.filter(|index| Sublayer::Attention(*index).runs(skip)) {
            let layer = &self.layers[index];
            let normed = layer.attention_norm.forward(hidden.clone(), &self.operations);
            let rotation = &rotations[self.rotations.of(index)];
            let (keys, values) = layer.keys_and_values(normed, rotation, &self.operations);
            let mut first = 0;
            for run in runs {
                let part = |x: &Tensor<2>| x.clone().narrow(0, first, run.rows);
                kv.device_mut(run.slot, index).write(run.start, part(&keys), part(&values));
                first += run.rows;
            }
        }
    }

    fn logits(&self, hidden: &Hidden, exit: Option<usize>, vocabulary: Vocabulary) -> Vec<f32> {
        let hidden = hidden.clone().into_tensor();
        let mut logits = into_values(match exit {
            Some(depth) => self.exit_logits(depth, hidden),
            None => self.output_logits(hidden),
        });
        if let (Vocabulary::Drafted, Some(tokens)) = (vocabulary, &self.drafted) {
            for row in logits.chunks_exact_mut(self.vocabulary) {
                let left_out = row.iter_mut().zip(0_u32..).filter(|(_, token)| tokens.binary_search(token).is_err());
                left_out.for_each(|(logit, _)| *logit = f32::NEG_INFINITY);
            }
        }
        logits
    }
}

impl Layer {
    fn new(weights: LayerWeights<Tensor<2>, Tensor<2>>) -> Self {
        let LayerSpec { head_dim, norm_eps, window, activation, residual_factor, .. } = weights.spec;
        let scores = weights.spec.scores();
        let norm = |weight| RmsNorm::new(weight, norm_eps);
        Self {
            attention_norm: norm(weights.attention_norm),
            query: Linear::new(weights.query),
            key: Linear::new(weights.key),
            value: Linear::new(weights.value),
            head_norms: weights.head_norms.map(|(query, key)| (norm(query), norm(key))),
            attention_output: Linear::new(weights.attention_output),
            post_norms: weights.post_norms.map(|(attention, mlp)| (norm(attention), norm(mlp))),
            mlp_norm: norm(weights.mlp_norm),
            gate: Linear::new(weights.gate),
            up: Linear::new(weights.up),
            down: Linear::new(weights.down),
            attention: Attention { head_dim, window, scores },
            activation,
            residual_factor,
        }
    }

    /// What the output of a part, which has one of the norms on outputs, adds to the residual stream.
    fn residual(
        &self,
        delta: Tensor<2>,
        norm: impl Fn(&(RmsNorm, RmsNorm)) -> &RmsNorm,
        with: &Operations,
    ) -> Tensor<2> {
        let delta = match &self.post_norms {
            Some(norms) => norm(norms).forward(delta, with),
            None => delta,
        };
        if self.residual_factor == 1.0 { delta } else { delta * self.residual_factor }
    }

    fn attend(
        &self,
        h: Tensor<2>,
        rotation: &Rotation,
        past: &mut Past<'_>,
        index: usize,
        with: &Operations,
    ) -> Tensor<2> {
        let mut queries = self.query.forward(h.clone(), with);
        if let Some((norm, _)) = &self.head_norms {
            queries = norm.forward(queries, with);
        }
        let queries = rotation.apply(queries, with);
        let (keys, values) = self.keys_and_values(h, rotation, with);
        let attended = match past {
            Past::Pool(kv, runs) => {
                let mut first = 0;
                let of_run = |run: &SlotRun| {
                    let part = |x: &Tensor<2>| x.clone().narrow(0, first, run.rows);
                    let (queries, keys, values) = (part(&queries), part(&keys), part(&values));
                    first += run.rows;
                    let cache = kv.device_mut(run.slot, index);
                    attend(queries, keys, values, cache, run.start, &self.attention)
                };
                Tensor::cat(runs.iter().map(of_run).collect(), 0)
            }
            Past::Batch(batch, masks) => {
                attend_in_sequences(queries, keys, values, batch, masks, &self.attention, with)
            }
        };
        self.attention_output.forward(attended, with)
    }

    /// Cache entries of normed rows `[rows, hidden]`: keys and values, `[rows, kv_heads * head_dim]` each.
    fn keys_and_values(&self, h: Tensor<2>, rotation: &Rotation, with: &Operations) -> (Tensor<2>, Tensor<2>) {
        let mut keys = self.key.forward(h.clone(), with);
        if let Some((_, norm)) = &self.head_norms {
            keys = norm.forward(keys, with);
        }
        (rotation.apply(keys, with), self.value.forward(h, with))
    }

    fn feed_forward(&self, h: Tensor<2>, with: &Operations) -> Tensor<2> {
        let (gate, up) = (self.gate.forward(h.clone(), with), self.up.forward(h, with));
        self.down.forward(gated(self.activation, gate, up, with), with)
    }
}

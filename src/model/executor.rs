//! The decoder on the processor: the [`Backend`] for [`super::Compute::Kernels`].
//!
//! A step of a small model takes a few hundred microseconds, and going through tensors, an allocation and some
//! look-ups for each of a layer's fifteen operations, took more than a tenth of it. Here a layer is a handful of calls
//! on buffers that are kept from step to step.

mod matrices;
mod races;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use paceline_kernels::{
    HeadNorms, HeadTransform, Input, Kernels, Lap, LayerPages, PackedWeights, Product, Race, Residual, Run, Weights,
};

use self::races::{Races, Stretch};
use super::angles::{Angles, Place, Rotations, places};
use super::hidden::Hidden;
use super::layer_order::LayerOrder;
use super::pool::{KvPool, SlotRun};
use super::skip::{SkipPlan, Sublayer};
use super::step::{Backend, Vocabulary};
use super::weights::{ExitWeights, ExitsByDepth, HeadWeights, LayerWeights, LinearWeights};
use crate::checkpoint::{LayerSpec, ModelConfig};

/// A model's weights, and buffers to run them with.
pub(super) struct Executor {
    kernels: Arc<Kernels>,
    /// Where it is not the output matrix.
    embedding: Option<Weights>,
    layers: Vec<LayerWeights>,
    norm: Vec<f32>,
    output: LinearWeights,
    exits: ExitsByDepth<ExitWeights>,
    /// The tokens that drafts choose from, with their rows of the output matrix; none for all of them.
    drafted: Option<(Vec<u32>, LinearWeights)>,
    rotations: Rotations,
    /// Factor of embeddings.
    embedding_factor: f32,
    /// Divisor of logits, and their cap.
    logit_divisor: f32,
    logit_cap: Option<f32>,
    /// Number added to the mean square by the norms behind the layers.
    norm_eps: f32,
    widths: Widths,
    /// Memory that no call uses at the moment.
    spare: Mutex<Vec<Vec<f32>>>,
    /// Whether rows are cut.
    races: Races,
}

/// Values of a row in the buffers of layers.
#[derive(Clone, Copy)]
struct Widths {
    hidden: usize,
    queries: usize,
    keys: usize,
    inner: usize,
}

impl Widths {
    /// Widths with room for each of these layers, whose hidden states are `hidden` wide.
    fn of<'a>(hidden: usize, layers: impl Iterator<Item = &'a LayerSpec>) -> Self {
        layers.fold(Self { hidden, queries: 0, keys: 0, inner: 0 }, |widths, spec| Self {
            hidden,
            queries: widths.queries.max(spec.query_width()),
            keys: widths.keys.max(spec.key_width()),
            inner: widths.inner.max(spec.intermediate_size),
        })
    }
}

/// Working buffers of a layer, one row after the other.
struct Buffers<'a> {
    /// The residual stream, `[rows, hidden]`: the input of the layer, and its output once `delta` is added.
    x: &'a mut [f32],
    rows: usize,
    /// Output of the last part of a layer, which the next norm adds to `x`.
    delta: &'a mut [f32],
    /// What becomes of it before, if there was such a part already.
    residual: Option<Residual<'a>>,
    queries: &'a mut [f32],
    keys: &'a mut [f32],
    values: &'a mut [f32],
    attended: &'a mut [f32],
    gate: &'a mut [f32],
    up: &'a mut [f32],
}

/// Rows of the largest step that is cut by rows: with more, products are long beside what is handed over between them.
const MOST_BY_ROWS: usize = 34;

/// f32 values of a cache line, on which every buffer begins.
const LINE: usize = 16;

impl<'a> Buffers<'a> {
    /// Buffers for `rows` rows, carved out of `memory`, which grows where it is too small. What they hold is left from
    /// before.
    fn new(x: &'a mut [f32], rows: usize, widths: Widths, memory: &'a mut Vec<f32>) -> Self {
        let Widths { hidden, queries, keys, inner } = widths;
        let lengths = [hidden, queries, keys, keys, queries, inner, inner].map(|width| rows * width);
        let [delta, queries, keys, values, attended, gate, up] = carve(memory, lengths);
        Self { x, rows, delta, residual: None, queries, keys, values, attended, gate, up }
    }

    /// The same buffers in the widths of a layer, of which they are the largest of all layers.
    fn of(&mut self, spec: &LayerSpec) -> Buffers<'_> {
        let (queries, keys, inner) =
            (self.rows * spec.query_width(), self.rows * spec.key_width(), self.rows * spec.intermediate_size);
        Buffers {
            x: self.x,
            rows: self.rows,
            delta: self.delta,
            residual: self.residual,
            queries: &mut self.queries[..queries],
            keys: &mut self.keys[..keys],
            values: &mut self.values[..keys],
            attended: &mut self.attended[..queries],
            gate: &mut self.gate[..inner],
            up: &mut self.up[..inner],
        }
    }
}

/// Buffers of these lengths carved out of `memory`, which grows where it is too small. What they hold is left from before.
fn carve<const N: usize>(memory: &mut Vec<f32>, lengths: [usize; N]) -> [&mut [f32]; N] {
    let whole = LINE + lengths.iter().map(|length| length.next_multiple_of(LINE)).sum::<usize>();
    if memory.len() < whole {
        *memory = vec![0.0; whole];
    }
    // It may say that this is impossible; alignment is for speed alone.
    let start = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let mut rest = &mut memory[start..];
    lengths.map(|length| {
        let (buffer, others) = std::mem::take(&mut rest).split_at_mut(length.next_multiple_of(LINE));
        rest = others;
        &mut buffer[..length]
    })
}

impl Executor {
    /// A backend for a model of `config`'s shape.
    pub(super) fn new(
        kernels: Arc<Kernels>,
        config: &ModelConfig,
        layers: Vec<LayerWeights>,
        head: HeadWeights,
    ) -> Self {
        Self {
            kernels,
            embedding: head.embedding,
            norm: head.norm,
            output: LinearWeights { matrix: head.output, bias: None },
            exits: ExitsByDepth::new(),
            drafted: None,
            rotations: Rotations::new(config),
            embedding_factor: config.embedding_factor,
            logit_divisor: config.logit_divisor,
            logit_cap: config.logit_cap,
            norm_eps: config.norm_eps,
            widths: Widths::of(config.hidden_size, layers.iter().map(|layer| &layer.spec)),
            layers,
            spare: Mutex::default(),
            races: Races::default(),
        }
    }

    /// Gives it trained exit heads.
    pub(super) fn set_exits(&mut self, exits: ExitsByDepth<ExitWeights>) {
        self.exits = exits;
    }

    /// Has drafts choose from these tokens alone, whose rows of the output matrix are given.
    pub(super) fn set_drafted(&mut self, tokens: Vec<u32>, rows: PackedWeights) {
        self.drafted = Some((tokens, LinearWeights { matrix: rows, bias: None }));
    }

    /// Whether the rows of a step are cut into parts, each for a thread of its own, may be worth finding out. Mostly it is not:
    /// threads share every matrix, so that weights are read once. But where cores are far apart, handing activations over in every
    /// operation costs more than it brings, and if each core's cache holds the weights, every thread can read all of them: then
    /// what it computes stays with it, and threads meet once in a layer. What a core's own cache holds is not known: a system may
    /// report one that all cores of a processor share, and that is far from each. So both ways race.
    fn race(&self, layers: Range<usize>, rows: usize, skips: bool) -> Option<Arc<Race>> {
        let threads = self.kernels.threads();
        let may_pay = threads > 1 && (3 * threads..=MOST_BY_ROWS).contains(&rows);
        let is_far = may_pay && self.kernels.weights_fit_a_cache() && self.kernels.threads_are_far();
        is_far.then(|| self.races.of(Stretch { layers, rows, skips }))
    }

    /// Part number `part` of a step: some runs, through all of these layers.
    fn run_part(
        &self,
        part: usize,
        layers: Range<usize>,
        (runs, places): (&[Run<'_>], &[Place]),
        hidden: &mut [f32],
        skip: Option<&SkipPlan>,
        order: &LayerOrder<'_>,
    ) {
        let rows = hidden.len() / self.widths.hidden;
        let angles = self.rotations.angles(places);
        self.with_memory(|memory| {
            let mut buffers = Buffers::new(hidden, rows, self.widths, memory);
            for (place, index) in layers.enumerate() {
                let layer = &self.layers[index];
                if Sublayer::Attention(index).runs(skip) {
                    let mut b = buffers.of(&layer.spec);
                    self.project(layer, &mut b);
                    let angles = &angles[self.rotations.of(index)];
                    let attended = order.take(place, part, |cache| self.attend(layer, angles, runs, cache, &mut b));
                    if attended.is_none() {
                        return;
                    }
                    let jobs = [(&layer.attention_output, b.delta)];
                    products(&self.kernels, Input::Rows(b.attended), rows, jobs);
                    buffers.residual = Some(residual(layer, |(attention, _)| attention));
                }
                if Sublayer::Mlp(index).runs(skip) {
                    self.feed_forward(layer, &mut buffers.of(&layer.spec));
                    buffers.residual = Some(residual(layer, |(_, mlp)| mlp));
                }
            }
            let Buffers { x, delta, residual: Some(residual), .. } = buffers else { return };
            self.kernels.add_residual(x, delta, residual, self.widths.hidden);
        });
    }

    /// The queries, keys and values of a layer.
    fn project(&self, layer: &LayerWeights, b: &mut Buffers<'_>) {
        let jobs = [(&layer.query, &mut *b.queries), (&layer.key, &mut *b.keys), (&layer.value, &mut *b.values)];
        let input = normed(b.x, b.delta, b.residual, &layer.attention_norm, layer.spec.norm_eps);
        products(&self.kernels, input, b.rows, jobs);
    }

    /// The attention of a layer, whose cache gets its keys and values.
    fn attend(
        &self,
        layer: &LayerWeights,
        angles: &Angles,
        runs: &[Run<'_>],
        cache: &mut LayerPages,
        b: &mut Buffers<'_>,
    ) {
        let LayerSpec { heads, window, .. } = layer.spec;
        self.kernels.append_rotated(b.queries, b.keys, b.values, runs, head_transform(layer, angles), cache);
        self.kernels.attention(b.queries, heads, runs, cache, window, layer.spec.scores(), b.attended);
    }

    /// The feed-forward part of a layer, up to its residual sum.
    fn feed_forward(&self, layer: &LayerWeights, b: &mut Buffers<'_>) {
        let jobs = [(&layer.gate, &mut *b.gate), (&layer.up, &mut *b.up)];
        let input = normed(b.x, b.delta, b.residual, &layer.mlp_norm, layer.spec.norm_eps);
        products(&self.kernels, input, b.rows, jobs);
        let input = Input::Gated { gate: b.gate, up: b.up, activation: layer.spec.activation };
        products(&self.kernels, input, b.rows, [(&layer.down, &mut *b.delta)]);
    }

    /// Applies `outputs` to hidden states that left layer `depth - 1`, after the exit's head before the output matrix
    /// or, without one, the final norm.
    fn through_exit(
        &self,
        depth: usize,
        hidden: &[f32],
        outputs: impl FnOnce(Input<'_>, usize) -> Vec<f32>,
    ) -> Vec<f32> {
        let rows = hidden.len() / self.widths.hidden;
        let Some(ExitWeights { norm, down, up }) = self.exits.get(&depth) else {
            return outputs(self.final_norm(hidden), rows);
        };
        self.with_memory(|memory| {
            let [x, inner, delta] = carve(memory, [hidden.len(), rows * down.out_features(), hidden.len()]);
            x.copy_from_slice(hidden);
            self.kernels.matmul(x, rows, &mut [Product { weights: down, bias: None, out: inner }]);
            self.kernels.matmul(inner, rows, &mut [Product { weights: up, bias: None, out: delta }]);
            let residual = Residual::PLAIN;
            outputs(Input::AddNorm { x, delta, residual, weight: norm, eps: self.norm_eps }, rows)
        })
    }

    fn final_norm<'a>(&'a self, hidden: &'a [f32]) -> Input<'a> {
        Input::Norm { x: hidden, weight: &self.norm, eps: self.norm_eps }
    }

    /// The logits of rows: the products of an output matrix with them, divided and capped where the model does so.
    fn outputs(&self, input: Input<'_>, rows: usize, matrix: &LinearWeights) -> Vec<f32> {
        let mut logits = vec![0.0; rows * matrix.matrix.out_features()];
        products(&self.kernels, input, rows, [(matrix, &mut logits)]);
        if self.logit_divisor != 1.0 {
            logits.iter_mut().for_each(|logit| *logit /= self.logit_divisor);
        }
        if let Some(cap) = self.logit_cap {
            self.kernels.soft_cap(&mut logits, cap);
        }
        logits
    }

    /// The logits that drafts choose by, `[rows, vocabulary]`.
    fn draft_outputs(&self, input: Input<'_>, rows: usize) -> Vec<f32> {
        let Some((tokens, matrix)) = &self.drafted else { return self.outputs(input, rows, &self.output) };
        let chosen = self.outputs(input, rows, matrix);
        let vocabulary = self.output.matrix.out_features();
        let mut logits = vec![f32::NEG_INFINITY; rows * vocabulary];
        for (logits, chosen) in logits.chunks_exact_mut(vocabulary).zip(chosen.chunks_exact(tokens.len())) {
            tokens.iter().zip(chosen).for_each(|(&token, logit)| logits[token as usize] = *logit);
        }
        logits
    }

    /// Calls `f` with memory for its buffers, which is kept for the next call.
    fn with_memory<R>(&self, f: impl FnOnce(&mut Vec<f32>) -> R) -> R {
        // A panic while the lock is held leaves nothing half done.
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = spare().pop().unwrap_or_default();
        let result = f(&mut memory);
        spare().push(memory);
        result
    }
}

impl Backend for Executor {
    fn embed(&self, tokens: &[u32]) -> Hidden {
        let width = self.widths.hidden;
        let mut hidden = vec![0.0; tokens.len() * width];
        for (row, &token) in hidden.chunks_exact_mut(width).zip(tokens) {
            match &self.embedding {
                Some(embedding) => embedding.row_to_f32(token as usize, row),
                None => self.output.matrix.row_to_f32(token as usize, row),
            }
            if self.embedding_factor != 1.0 {
                row.iter_mut().for_each(|value| *value *= self.embedding_factor);
            }
        }
        Hidden::of_values(hidden, width)
    }

    fn run(
        &self,
        layers: Range<usize>,
        hidden: Hidden,
        runs: &[SlotRun],
        skip: Option<&SkipPlan>,
        kv: &mut KvPool,
    ) -> Hidden {
        let (width, rows, mut values) = (self.widths.hidden, hidden.rows(), hidden.into_values());
        let places = places(runs);
        let (caches, pages) = kv.host_mut(layers.clone(), runs);
        let runs: Vec<Run<'_>> = runs.iter().zip(pages).map(|(run, pages)| run.at(pages)).collect();
        let order = LayerOrder::new(caches.iter_mut());
        let race = self.race(layers.clone(), rows, skip.is_some());
        let lap = race.as_deref().map(Race::start);
        let is_cut = lap.as_ref().is_some_and(Lap::way);
        let parts = if is_cut { self.kernels.threads() } else { 1 };
        let first = |part: usize| rows * part / parts;
        let mut rest = values.as_mut_slice();
        let shares: Vec<(Vec<Run<'_>>, Mutex<&mut [f32]>)> = (0..parts)
            .map(|part| {
                let (own, others) = std::mem::take(&mut rest).split_at_mut((first(part + 1) - first(part)) * width);
                rest = others;
                (cut(&runs, first(part)..first(part + 1)), Mutex::new(own))
            })
            .collect();
        self.kernels.side_by_side(parts, &|part| {
            let _promise = order.promise();
            let (runs, hidden) = &shares[part];
            // Locked once: each part has its own.
            let hidden = &mut *hidden.lock().unwrap_or_else(PoisonError::into_inner);
            let places = &places[first(part)..first(part + 1)];
            self.run_part(part, layers.clone(), (runs, places), hidden, skip, &order);
        });
        drop(shares);
        if let (Some(race), Some(lap)) = (race, lap) {
            race.stop(lap);
        }
        Hidden::of_values(values, width)
    }

    fn is_settled(&self, rows: usize) -> bool {
        self.race(0..self.layers.len(), rows, false).is_none_or(|race| race.is_decided())
    }

    fn propagate(
        &self,
        layers: Range<usize>,
        hidden: &Hidden,
        runs: &[SlotRun],
        skip: Option<&SkipPlan>,
        kv: &mut KvPool,
    ) {
        let angles = self.rotations.angles(&places(runs));
        let (caches, pages) = kv.host_mut(layers.clone(), runs);
        let runs: Vec<Run<'_>> = runs.iter().zip(pages).map(|(run, pages)| run.at(pages)).collect();
        let (rows, hidden) = (hidden.rows(), hidden.values());
        self.with_memory(|memory| {
            let width = rows * self.widths.keys;
            let [keys, values] = carve(memory, [width, width]);
            for (index, cache) in layers.zip(caches) {
                if !Sublayer::Attention(index).runs(skip) {
                    continue;
                }
                let layer = &self.layers[index];
                let jobs = [(&layer.key, &mut *keys), (&layer.value, &mut *values)];
                let input = Input::Norm { x: hidden, weight: &layer.attention_norm, eps: layer.spec.norm_eps };
                products(&self.kernels, input, rows, jobs);
                let transform = head_transform(layer, &angles[self.rotations.of(index)]);
                self.kernels.append_rotated(&mut [], keys, values, &runs, transform, cache);
            }
        });
    }

    fn logits(&self, hidden: &Hidden, exit: Option<usize>, vocabulary: Vocabulary) -> Vec<f32> {
        let hidden = hidden.values();
        let outputs = |input: Input<'_>, rows: usize| match vocabulary {
            Vocabulary::Whole => self.outputs(input, rows, &self.output),
            Vocabulary::Drafted => self.draft_outputs(input, rows),
        };
        match exit {
            Some(depth) => self.through_exit(depth, hidden, outputs),
            None => outputs(self.final_norm(hidden), hidden.len() / self.widths.hidden),
        }
    }
}

impl SlotRun {
    /// As the kernels know it, with the slot's pages.
    fn at<'a>(&self, pages: &'a [u32]) -> Run<'a> {
        Run { pages, start: self.start, rows: self.rows }
    }
}

/// Transformation of a layer's heads, of rows at these angles.
fn head_transform<'a>(layer: &'a LayerWeights, angles: &'a Angles) -> HeadTransform<'a> {
    let norms = layer.head_norms.as_ref();
    HeadTransform {
        norms: norms.map(|(query, key)| HeadNorms { query, key, eps: layer.spec.norm_eps }),
        cos: &angles.cos,
        sin: &angles.sin,
    }
}

/// The parts of runs that lie within a range of their rows.
fn cut<'a>(runs: &[Run<'a>], range: Range<usize>) -> Vec<Run<'a>> {
    let mut first = 0;
    let mut within = Vec::with_capacity(runs.len());
    for run in runs {
        let (from, to) = (range.start.max(first), range.end.min(first + run.rows));
        if from < to {
            within.push(Run { start: run.start + from - first, rows: to - from, ..*run });
        }
        first += run.rows;
    }
    within
}

/// What becomes of the output of a part of a layer, which has one of its norms on outputs.
fn residual<'a>(layer: &'a LayerWeights, norm: impl Fn(&'a (Vec<f32>, Vec<f32>)) -> &'a Vec<f32>) -> Residual<'a> {
    let LayerSpec { norm_eps, residual_factor, .. } = layer.spec;
    let norm = layer.post_norms.as_ref().map(|norms| (norm(norms).as_slice(), norm_eps));
    Residual { norm, factor: residual_factor }
}

/// The norm of `x`, to which `delta` is added first where there was a part of a layer whose output it is.
fn normed<'a>(
    x: &'a mut [f32],
    delta: &'a [f32],
    residual: Option<Residual<'a>>,
    weight: &'a [f32],
    eps: f32,
) -> Input<'a> {
    match residual {
        Some(residual) => Input::AddNorm { x, delta, residual, weight, eps },
        None => Input::Norm { x, weight, eps },
    }
}

/// Products of the same rows with several matrices, each into its own `[rows, out]`.
fn products<const N: usize>(kernels: &Kernels, x: Input<'_>, rows: usize, jobs: [(&LinearWeights, &mut [f32]); N]) {
    let mut products = jobs.map(|(layer, out)| Product { weights: &layer.matrix, bias: layer.bias.as_deref(), out });
    kernels.matmul_of(x, rows, &mut products);
}

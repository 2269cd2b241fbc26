//! One batch: its loss, and what it says about the parameters.

use paceline::model::{Batch, SkipPlan, Sublayer, Trainable};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::optimizer::{Gradients, into_values};
use crate::settings::EarlyExits;

/// Rows to learn from.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The tokens.
    pub batch: Batch,
    /// For every row the token that follows.
    pub targets: Vec<u32>,
    /// For every row how much that is to be learned; 0 for not at all.
    pub weights: Vec<f32>,
}

/// What a step does for early exits.
#[derive(Debug, Clone)]
pub struct Exits {
    /// Layers that are left out.
    skipped: Option<SkipPlan>,
    /// The depth whose output is asked for, and the weight of its loss.
    exit: (usize, f64),
}

impl Exits {
    /// What step number `step` does, in a model of `layers`: one exit takes part, in turns, and layer `l` of `L` is left
    /// out with a probability of `dropout * (2^(l / (L - 1)) - 1)` (Elhoushi et al. 2024).
    pub fn of_step(recipe: &EarlyExits, seed: u64, step: u64, layers: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x6c61_7965_7273);
        random.set_stream(step);
        let skipped = (0..layers).filter(|&layer| {
            let depth = layer as f64 / (layers.max(2) - 1) as f64;
            random.random::<f64>() < recipe.dropout * (depth.exp2() - 1.0)
        });
        let sublayers = skipped.flat_map(|layer| [Sublayer::Attention(layer), Sublayer::Mlp(layer)]);
        let skipped = sublayers.fold(None, |plan: Option<SkipPlan>, sublayer| {
            Some(plan.map_or_else(|| SkipPlan::of(sublayer), |plan| plan.with(sublayer)))
        });
        let exit = 1 + (step % (layers.max(2) as u64 - 1)) as usize;
        Self { skipped, exit: (exit, recipe.loss) }
    }
}

/// The sum over rows of weight times cross-entropy in nats, and its gradients, to which an exit's loss is added.
pub fn gradients(model: &Trainable, sample: &Sample, exits: Option<&Exits>) -> (f64, Gradients) {
    let now = model.model(false);
    let layers = model.config().layers;
    let mut hidden = now.embed(&sample.batch);
    let mut exit_loss = None;
    let (exit, skipped) = (exits.map_or(0, |exits| exits.exit.0), exits.and_then(|exits| exits.skipped.as_ref()));
    if let Some(Exits { exit: (exit, weight), .. }) = exits {
        hidden = now.forward_layers(0..*exit, &sample.batch, hidden, skipped);
        let loss = now.cross_entropy(now.logits(hidden.clone()), &sample.targets, &sample.weights);
        exit_loss = Some(loss * *weight as f32);
    }
    hidden = now.forward_layers(exit..layers, &sample.batch, hidden, skipped);
    let loss = now.cross_entropy(now.logits(hidden), &sample.targets, &sample.weights);
    let whole = exit_loss.map_or_else(|| loss.clone(), |exit_loss| loss.clone() + exit_loss);
    let gradients = model.parameters().gradients(&whole);
    (f64::from(into_values(loss.inner())[0]), gradients)
}

/// The loss alone.
pub fn loss(model: &Trainable, sample: &Sample) -> f64 {
    let now = model.model(true);
    let hidden = now.forward_layers(0..model.config().layers, &sample.batch, now.embed(&sample.batch), None);
    f64::from(into_values(now.cross_entropy(now.logits(hidden), &sample.targets, &sample.weights).inner())[0])
}

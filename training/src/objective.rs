//! One batch: its loss, and what it says about the parameters.

use burn::tensor::Tensor;
use paceline::model::{Batch, Model, SkipPlan, Sublayer, Trainable};
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

/// What a training goes by.
pub enum Objective {
    /// The tokens that follow.
    NextToken,
    /// What another model says of them.
    Distillation(Box<Distillation>),
}

/// Learning from another model's distributions (Hinton et al. 2015).
pub struct Distillation {
    /// The other model, of the same vocabulary.
    pub teacher: Trainable,
    /// What both models' logits are divided by.
    pub temperature: f32,
    /// The share of the loss that is that of the tokens which follow, from 0 to 1.
    pub hard_labels: f32,
}

/// A batch with what is to be learned of it.
struct Lesson<'a> {
    sample: &'a Sample,
    /// A distillation with the teacher's logits `[rows, vocabulary]`.
    taught: Option<(&'a Distillation, Tensor<2>)>,
}

impl<'a> Lesson<'a> {
    fn new(objective: &'a Objective, sample: &'a Sample) -> Self {
        let taught = match objective {
            Objective::NextToken => None,
            Objective::Distillation(distillation) => {
                let teacher = distillation.teacher.model(true);
                let layers = 0..distillation.teacher.config().layers;
                let hidden = teacher.forward_layers(layers, &sample.batch, teacher.embed(&sample.batch), None);
                Some((&**distillation, teacher.logits(hidden)))
            }
        };
        Self { sample, taught }
    }

    /// The sum over rows of their weight times their loss, `[1, 1]`.
    fn loss(&self, now: &Model, logits: Tensor<2>) -> Tensor<2> {
        let Sample { targets, weights, .. } = self.sample;
        let Some((Distillation { temperature, hard_labels: hard, .. }, teacher)) = &self.taught else {
            return now.cross_entropy(logits, targets, weights);
        };
        let soft = |logits| now.soft_cross_entropy(logits, teacher.clone(), *temperature, weights);
        match *hard {
            0.0 => soft(logits),
            hard => soft(logits.clone()) * (1.0 - hard) + now.cross_entropy(logits, targets, weights) * hard,
        }
    }
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

/// The sum over rows of weight times loss in nats, and its gradients, to which an exit's loss is added.
pub fn gradients(model: &Trainable, objective: &Objective, sample: &Sample, exits: Option<&Exits>) -> (f64, Gradients) {
    let lesson = Lesson::new(objective, sample);
    let now = model.model(false);
    let layers = model.config().layers;
    let mut hidden = now.embed(&sample.batch);
    let mut exit_loss = None;
    let (exit, skipped) = (exits.map_or(0, |exits| exits.exit.0), exits.and_then(|exits| exits.skipped.as_ref()));
    if let Some(Exits { exit: (exit, weight), .. }) = exits {
        hidden = now.forward_layers(0..*exit, &sample.batch, hidden, skipped);
        exit_loss = Some(lesson.loss(&now, now.logits(hidden.clone())) * *weight as f32);
    }
    hidden = now.forward_layers(exit..layers, &sample.batch, hidden, skipped);
    let loss = lesson.loss(&now, now.logits(hidden));
    let whole = exit_loss.map_or_else(|| loss.clone(), |exit_loss| loss.clone() + exit_loss);
    let gradients = model.parameters().gradients(&whole);
    (f64::from(into_values(loss.inner())[0]), gradients)
}

/// What a model makes of a batch, summed over its rows by their weights.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    /// Of the rows.
    pub weight: f64,
    /// The loss in nats.
    pub loss: f64,
    /// Rows in which model and teacher think the same token the most likely; none where there is no teacher.
    pub agreed: Option<f64>,
}

/// Measures a model on a batch.
pub fn measure(model: &Trainable, objective: &Objective, sample: &Sample) -> Measured {
    let lesson = Lesson::new(objective, sample);
    let now = model.model(true);
    let hidden = now.forward_layers(0..model.config().layers, &sample.batch, now.embed(&sample.batch), None);
    let logits = now.logits(hidden);
    let agreed = lesson.taught.as_ref().map(|(_, teacher)| {
        let picks = picks(&logits).zip(self::picks(teacher)).zip(&sample.weights);
        picks.filter(|((own, teacher), _)| own == teacher).map(|(_, weight)| f64::from(*weight)).sum()
    });
    let weight = sample.weights.iter().map(|weight| f64::from(*weight)).sum();
    Measured { weight, loss: f64::from(into_values(lesson.loss(&now, logits).inner())[0]), agreed }
}

/// Every row's most likely token, the smallest of equals.
fn picks(logits: &Tensor<2>) -> impl Iterator<Item = usize> {
    let [_, vocabulary] = logits.dims();
    let values = into_values(logits.clone().inner());
    let [rows, _] = logits.dims();
    (0..rows).map(move |row| greatest(&values[row * vocabulary..][..vocabulary]))
}

/// The place of the greatest value, the first of equals.
pub fn greatest(logits: &[f32]) -> usize {
    let better = |best: usize, (place, logit): (usize, &f32)| if *logit > logits[best] { place } else { best };
    logits.iter().enumerate().fold(0, better)
}

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

/// The objective of a training.
pub enum Objective {
    /// The tokens that follow.
    NextToken,
    /// Another model's distributions over them.
    Distillation(Box<Distillation>),
}

/// Learning from another model's distributions (Hinton et al. 2015).
pub struct Distillation {
    /// The other model, of the same vocabulary.
    pub teacher: Trainable,
    /// The divisor of both models' logits.
    pub temperature: f32,
    /// The share of the loss that is that of the tokens which follow, from 0 to 1.
    pub hard_labels: f32,
}

/// A batch with what is to be learned of it.
struct Example<'a> {
    sample: &'a Sample,
    /// A distillation with the teacher's logits `[rows, vocabulary]`.
    taught: Option<(&'a Distillation, Tensor<2>)>,
}

impl<'a> Example<'a> {
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

/// A step's work for early exits.
#[derive(Debug, Clone)]
pub struct Exits {
    /// Layers that are left out.
    skipped: Option<SkipPlan>,
    /// The depth whose output is asked for, and the weight of its loss.
    exit: (usize, f64),
}

impl Exits {
    /// The exits of step number `step`, in a model of `layers`: one exit takes part, in turns, and layer `l` of `L` is
    /// left out with a probability of `dropout * (2^(l / (L - 1)) - 1)` (Elhoushi et al. 2024).
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
        let exit = match recipe.depths.as_slice() {
            [] => 1 + (step % (layers.max(2) as u64 - 1)) as usize,
            depths => depths[(step % depths.len() as u64) as usize],
        };
        Self { skipped, exit: (exit.min(layers - 1), recipe.loss) }
    }
}

/// The sum over rows of weight times loss in nats, and its gradients, to which an exit's loss is added.
pub fn gradients(model: &Trainable, objective: &Objective, sample: &Sample, exits: Option<&Exits>) -> (f64, Gradients) {
    let example = Example::new(objective, sample);
    let now = model.model(false);
    let layers = model.config().layers;
    let mut hidden = now.embed(&sample.batch);
    let mut exit_loss = None;
    let (exit, skipped) = (exits.map_or(0, |exits| exits.exit.0), exits.and_then(|exits| exits.skipped.as_ref()));
    if let Some(Exits { exit: (exit, weight), .. }) = exits {
        hidden = now.forward_layers(0..*exit, &sample.batch, hidden, skipped);
        exit_loss = Some(example.loss(&now, now.logits(hidden.clone())) * *weight as f32);
    }
    hidden = now.forward_layers(exit..layers, &sample.batch, hidden, skipped);
    let loss = example.loss(&now, now.logits(hidden));
    let whole = exit_loss.map_or_else(|| loss.clone(), |exit_loss| loss.clone() + exit_loss);
    let gradients = model.parameters().gradients(&whole);
    (f64::from(into_values(loss.inner())[0]), gradients)
}

/// A model's measurements on a batch, summed over its rows by their weights.
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
    let example = Example::new(objective, sample);
    let now = model.model(true);
    let hidden = now.forward_layers(0..model.config().layers, &sample.batch, now.embed(&sample.batch), None);
    let logits = now.logits(hidden);
    let agreed = example.taught.as_ref().map(|(_, teacher)| {
        let picks = picks(&logits).zip(self::picks(teacher)).zip(&sample.weights);
        picks.filter(|((own, teacher), _)| own == teacher).map(|(_, weight)| f64::from(*weight)).sum()
    });
    let weight = sample.weights.iter().map(|weight| f64::from(*weight)).sum();
    Measured { weight, loss: f64::from(into_values(example.loss(&now, logits).inner())[0]), agreed }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::sync::Arc;

    use paceline::model::Compute;
    use paceline_kernels::Kernels;

    use super::*;
    use crate::initial::initial;
    use crate::settings::ModelRecipe;

    /// A model of three layers, and its lowest ones alone.
    fn models(lower: usize) -> (Trainable, Trainable) {
        let compute = Compute::Kernels(Arc::new(Kernels::new(1).unwrap()));
        let config = |layers| ModelRecipe::smallest(layers).shape(20, 8);
        let whole = Trainable::new(config(3), &compute, initial(&config(3), 7));
        let values = whole.parameters().values();
        let lower = Trainable::new(config(lower), &compute, |name, _| values[name].clone());
        (whole, lower)
    }

    fn sample() -> Sample {
        let tokens: Vec<u32> = (0..16).map(|place| place * 7 % 20).collect();
        let targets = tokens.iter().map(|token| (token * 3 + 1) % 20).collect();
        Sample { batch: Batch::whole(tokens, 8), targets, weights: vec![0.25; 16] }
    }

    /// The loss of an exit is that of the model that ends there, with the same parameters.
    #[test]
    fn an_exits_gradients_are_those_of_the_model_that_ends_there() {
        let (whole, lower) = models(2);
        let exits = Exits { skipped: None, exit: (2, 0.5) };
        let objective = Objective::NextToken;
        let (loss, with_exit) = gradients(&whole, &objective, &sample(), Some(&exits));
        let (alone, of_whole) = gradients(&whole, &objective, &sample(), None);
        let (_, of_lower) = gradients(&lower, &objective, &sample(), None);
        assert_eq!(loss, alone, "the loss that is told is the last layer's");
        for (name, gradient) in &with_exit {
            let lower = of_lower.get(name).cloned().unwrap_or_else(|| vec![0.0; gradient.len()]);
            for ((sum, whole), lower) in gradient.iter().zip(&of_whole[name]).zip(lower) {
                assert!((sum - (whole + 0.5 * lower)).abs() < 1e-5, "{name}: {sum} {whole} {lower}");
            }
        }
    }

    #[test]
    fn a_layer_that_is_left_out_learns_nothing_and_changes_nothing() {
        let (whole, lower) = models(2);
        let last = SkipPlan::of(Sublayer::Attention(2)).with(Sublayer::Mlp(2));
        let exits = Exits { skipped: Some(last), exit: (1, 0.0) };
        let (loss, found) = gradients(&whole, &Objective::NextToken, &sample(), Some(&exits));
        let (expected, of_lower) = gradients(&lower, &Objective::NextToken, &sample(), None);
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
        for (name, gradient) in &found {
            let expected = of_lower.get(name).cloned().unwrap_or_else(|| vec![0.0; gradient.len()]);
            assert!(gradient.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
        }
    }

    #[test]
    fn exits_take_part_in_turns() {
        let depths = |depths: &[usize], layers| -> Vec<usize> {
            let recipe = EarlyExits { dropout: 0.0, loss: 0.5, depths: depths.to_vec() };
            (0..6).map(|step| Exits::of_step(&recipe, 3, step, layers).exit.0).collect()
        };
        assert_eq!(depths(&[], 4), [1, 2, 3, 1, 2, 3]);
        assert_eq!(depths(&[1, 3], 4), [1, 3, 1, 3, 1, 3]);
        // A model that has yet to grow.
        assert_eq!(depths(&[1, 3], 2), [1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn upper_layers_are_left_out_more_often_and_the_first_never() {
        let recipe = EarlyExits { dropout: 0.5, loss: 0.5, depths: Vec::new() };
        let mut skipped = [0_i32; 4];
        for step in 0..2000 {
            if let Some(plan) = Exits::of_step(&recipe, 3, step, 4).skipped {
                for (layer, skipped) in skipped.iter_mut().enumerate() {
                    *skipped += i32::from(plan.skips(Sublayer::Attention(layer)) && plan.skips(Sublayer::Mlp(layer)));
                }
            }
        }
        // dropout * (2^(layer / 3) - 1) of 2,000; three standard deviations are 67 at most.
        for (skipped, expected) in skipped.into_iter().zip([0, 260, 587, 1000]) {
            assert!((skipped - expected).abs() < 67, "{skipped} for {expected}");
        }
        assert_eq!(skipped[0], 0);
    }
}

//! The training of a model in a recipe: batches, curriculum, growth, and the settings that each of its steps has.

use std::collections::BTreeMap;

use paceline_kernels::TrainingPrecision;
use serde::{Deserialize, Serialize};

use super::early_exits::EarlyExits;
use super::optimizer::OptimizerSettings;
use super::phases::Phase;
use super::schedule::Schedule;

/// The training of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingRecipe {
    /// Steps of the optimizer, those of `phases` not counted.
    pub steps: u64,
    /// Sequences that are computed together.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// Batches whose gradients are added up before the optimizer steps.
    pub accumulate: usize,
    /// The precision that inputs of products with matrices are rounded to.
    pub products: Products,
    /// The weight of a prompt's tokens, where an answer's count 1.
    pub prompt_weight: f32,
    /// Short documents first.
    pub curriculum: Option<Curriculum>,
    /// The learning rate.
    pub schedule: Schedule,
    /// The optimizer.
    pub optimizer: OptimizerSettings,
    /// Steps between two validations; the last step is validated too.
    pub validate_every: u64,
    /// Sequences to validate on, of each source.
    pub validate_on: usize,
    /// Steps between two checkpoints.
    pub save_every: u64,
    /// Shallower models that the training begins with, each until a share of the steps is done.
    pub growth: Vec<Growth>,
    /// Training for early exits along with the rest.
    pub early_exits: Option<EarlyExits>,
    /// Further phases, after `steps`.
    pub phases: Vec<Phase>,
}

impl Default for TrainingRecipe {
    fn default() -> Self {
        Self {
            steps: 1000,
            sequences: 8,
            length: 512,
            accumulate: 1,
            products: Products::F32,
            prompt_weight: 0.1,
            curriculum: None,
            schedule: Schedule::default(),
            optimizer: OptimizerSettings::default(),
            validate_every: 200,
            validate_on: 16,
            save_every: 200,
            growth: Vec::new(),
            early_exits: None,
            phases: Vec::new(),
        }
    }
}

impl TrainingRecipe {
    /// The steps of all phases.
    pub fn total_steps(&self) -> u64 {
        self.steps + self.phases.iter().map(|phase| phase.steps).sum::<u64>()
    }

    /// The learning rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        match self.phase(step) {
            None => self.schedule.at(step, self.steps),
            Some((phase, first)) => phase.schedule.as_ref().unwrap_or(&self.schedule).at(step - first, phase.steps),
        }
    }

    /// The weights that a step gives to sources by name, instead of their own.
    pub fn weights(&self, step: u64) -> Option<&BTreeMap<String, f64>> {
        self.phase(step).map(|(phase, _)| &phase.weights)
    }

    /// The training for early exits that a step takes part in.
    pub fn early_exits(&self, step: u64) -> Option<&EarlyExits> {
        match self.phase(step) {
            None => self.early_exits.as_ref(),
            Some((phase, _)) => phase.early_exits.as_ref(),
        }
    }

    /// The further phases that have begun after so many steps.
    pub fn begun(&self, steps: u64) -> &[Phase] {
        let mut first = self.steps;
        let ended = self.phases.iter().take_while(|phase| {
            let begun = first < steps;
            first += phase.steps;
            begun
        });
        &self.phases[..ended.count()]
    }

    /// The further phase that a step lies in, and the step that it began with.
    fn phase(&self, step: u64) -> Option<(&Phase, u64)> {
        let (phase, before) = self.begun(step + 1).split_last()?;
        Some((phase, self.steps + before.iter().map(|phase| phase.steps).sum::<u64>()))
    }

    /// Checks what serde cannot, in the section `name` of a model of `layers`. An error is the rest of a sentence.
    pub(super) fn check(&self, name: &str, layers: usize) -> Result<(), String> {
        let TrainingRecipe { prompt_weight, curriculum, early_exits, .. } = self;
        let section = format!("{name}.training");
        self.optimizer.check(&section)?;
        self.schedule.check(&section)?;
        self.phases.iter().try_for_each(|phase| phase.check(&format!("{section}.phases"), layers))?;
        if !(prompt_weight.is_finite() && *prompt_weight >= 0.0) {
            return Err(format!("`prompt_weight` of [{section}] must be a number from 0 on"));
        }
        if curriculum.is_some_and(|curriculum| !(0.0..=1.0).contains(&curriculum.until)) {
            return Err(format!("`curriculum.until` of [{section}] must be a number from 0 to 1"));
        }
        early_exits.as_ref().map_or(Ok(()), |exits| exits.check(&section, layers))?;
        let mut before = (0, 0.0);
        for Growth { layers: stage, until, .. } in &self.growth {
            if *stage <= before.0 || *stage >= layers || !(*until > before.1 && *until < 1.0) {
                return Err(format!(
                    "`training.growth` of [{name}] must rise in `layers`, below {layers}, and in `until`, between 0 and 1"
                ));
            }
            before = (*stage, *until);
        }
        let last = self.steps - 1;
        if before.1 > last as f64 / self.steps as f64 {
            return Err(format!(
                "`training.growth` of [{name}] is not over in the last of {} steps: lower its last `until`",
                last + 1
            ));
        }
        Ok(())
    }
}

/// Short documents first (Bengio et al. 2009): the longest that is drawn grows in a line from `from` tokens to what a
/// sequence holds, until a share of the training is done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curriculum {
    /// The longest document at the beginning, in tokens.
    pub from: usize,
    /// The share of the steps after which all lengths are drawn.
    pub until: f64,
}

impl Curriculum {
    /// The longest document when a share `done` of the training is done; `length` in the end.
    pub fn longest(&self, length: usize, done: f64) -> usize {
        let grown = (length as f64 - self.from as f64) * (done / self.until.max(f64::MIN_POSITIVE)).min(1.0);
        (self.from as f64 + grown) as usize
    }
}

/// A precision of products with matrices, on the processor; parameters and sums are f32 in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// 32 bits.
    F32,
    /// 16 bits, rounded from f32: twice as fast where the processor has AVX-512 BF16, no faster elsewhere.
    Bf16,
}

impl From<Products> for TrainingPrecision {
    fn from(products: Products) -> Self {
        match products {
            Products::F32 => Self::F32,
            Products::Bf16 => Self::Bf16,
        }
    }
}

/// A stage with fewer layers, until a share of the steps is done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// The layers until then.
    pub layers: usize,
    /// The share of the steps, from 0 to 1.
    pub until: f64,
    /// The places of the layers that are added then.
    #[serde(default)]
    pub added: Added,
}

/// The places that new layers take in a model that grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Added {
    /// On top of those that it has, so that the lower ones alone go on to know what they knew: early exits live on that.
    #[default]
    OnTop,
    /// Behind the one that each is a copy of.
    Between,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other_with_rates_and_weights_of_their_own() {
        let schedule = |learning_rate| Schedule { learning_rate, warm_up: 0.0, floor: 0.0 };
        let phase = |steps, rate, source: &str| Phase {
            steps,
            schedule: (source == "a").then(|| schedule(rate)),
            weights: BTreeMap::from([(source.to_owned(), 1.0)]),
            early_exits: (source == "b").then_some(EarlyExits { dropout: 0.0, loss: 0.5, depths: vec![1] }),
        };
        let recipe = TrainingRecipe {
            early_exits: Some(EarlyExits { dropout: 0.5, loss: 1.0, depths: Vec::new() }),
            steps: 1000,
            schedule: schedule(1.0),
            phases: vec![phase(500, 3.0, "a"), phase(200, 1.0, "b")],
            ..TrainingRecipe::default()
        };
        assert_eq!(recipe.total_steps(), 1700);
        let near = |step, rate: f64| assert!((recipe.rate(step) - rate).abs() < 0.01, "{step}: {}", recipe.rate(step));
        for (step, rate) in [(0, 1.0), (999, 0.0), (1000, 3.0), (1249, 1.5), (1499, 0.0), (1500, 1.0), (1699, 0.0)] {
            near(step, rate);
        }
        for (steps, begun) in [(0, 0), (1000, 0), (1001, 1), (1500, 1), (1501, 2), (1700, 2)] {
            assert_eq!(recipe.begun(steps), &recipe.phases[..begun], "{steps}");
        }
        let named = |step| recipe.weights(step).map(|weights| weights.keys().next().unwrap().as_str());
        let named = [0, 999, 1000, 1499, 1500, 1699].map(named);
        assert_eq!(named, [None, None, Some("a"), Some("a"), Some("b"), Some("b")]);
        let losses = [0, 999, 1000, 1499, 1500, 1699].map(|step| recipe.early_exits(step).map(|exits| exits.loss));
        assert_eq!(losses, [Some(1.0), Some(1.0), None, None, Some(0.5), Some(0.5)]);
    }
}

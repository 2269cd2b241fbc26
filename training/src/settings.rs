//! What models look like and how they are trained: the sections of a recipe that say so.

use std::collections::BTreeMap;

use paceline::checkpoint::{Family, ModelConfig, Rope, RopeScaling, Windows};
use paceline_kernels::TrainingPrecision;
use serde::{Deserialize, Serialize};

use crate::optimizer::OptimizerSettings;
use crate::packing::Curriculum;
use crate::schedule::Schedule;
use crate::tokenizer::{BEGIN, ChatTokenizer};

/// A model: its shape, and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Inner width of the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; as many as query heads if nothing is said.
    pub kv_heads: Option<usize>,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// How it is trained.
    #[serde(default)]
    pub training: TrainingRecipe,
}

fn rope_theta() -> f64 {
    10_000.0
}

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingRecipe {
    /// Steps of the optimizer, those of `phases` not counted.
    pub steps: u64,
    /// Sequences that are computed together.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// How often that is done before the optimizer steps.
    pub accumulate: usize,
    /// What the inputs of products with matrices are rounded to.
    pub products: Products,
    /// How much is learned of a prompt's tokens, where an answer's count 1.
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
    /// What comes after `steps`.
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

/// A further phase of a training: the learning rate starts again (warm restarts, Loshchilov and Hutter 2017), and sources
/// can be drawn by other weights, as for what is not learned yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Its steps.
    pub steps: u64,
    /// The learning rate, over its steps; that of the steps before `phases`, begun anew, where there is none.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// The weights of sources by their names; the others keep theirs.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
    /// Training for early exits along with the rest; none where it is left out, whatever the steps before did.
    #[serde(default)]
    pub early_exits: Option<EarlyExits>,
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

    /// What a step does for early exits.
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

    /// What serde cannot check of the phases, in a model of `layers`.
    fn check_phases(&self, section: &str, layers: usize) -> Result<(), String> {
        for Phase { steps, schedule, weights, early_exits } in &self.phases {
            let section = format!("{section}.phases");
            if *steps == 0 {
                return Err(format!(
                    "`steps` of [[{section}]] must be above zero; leave the phase out to do without it"
                ));
            }
            schedule.as_ref().map_or(Ok(()), |schedule| schedule.check(&section))?;
            early_exits.as_ref().map_or(Ok(()), |exits| exits.check(&section, layers))?;
            if let Some((name, _)) = weights.iter().find(|(_, weight)| !(weight.is_finite() && **weight >= 0.0)) {
                return Err(format!("the weight of `{name}` in [[{section}]] must be a number from 0 on"));
            }
        }
        Ok(())
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

/// So many layers until a share of the steps is done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// The layers until then.
    pub layers: usize,
    /// The share of the steps, from 0 to 1.
    pub until: f64,
    /// Where the layers go that are added then.
    #[serde(default)]
    pub added: Added,
}

/// Where a model that grows gets its new layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Added {
    /// On top of those that it has, so that the lower ones alone go on to know what they knew: early exits live on that.
    #[default]
    OnTop,
    /// Behind the one that each is a copy of.
    Between,
}

/// LayerSkip's training (Elhoushi et al. 2024): upper layers are left out now and then, and the model's own output is
/// asked of lower layers too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyExits {
    /// How often the last layer is left out; lower ones less often, the first never.
    pub dropout: f64,
    /// The weight of an exit's loss, where the last layer's is 1. One exit takes part in a step, in turns.
    pub loss: f64,
    /// The layers whose output takes part; none stands for all but the last.
    #[serde(default)]
    pub depths: Vec<usize>,
}

impl EarlyExits {
    /// What serde cannot check, in a model of `layers`; the rest of a sentence.
    fn check(&self, section: &str, layers: usize) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.dropout) || self.loss.is_nan() || self.loss < 0.0 {
            return Err(format!("`early_exits` of [{section}] needs a `dropout` from 0 to 1 and a `loss` from 0 on"));
        }
        if let Some(depth) = self.depths.iter().find(|depth| !(1..layers).contains(*depth)) {
            return Err(format!(
                "`early_exits.depths` of [{section}] has {depth}, where only 1 to {} can be",
                layers - 1
            ));
        }
        Ok(())
    }
}

/// A draft model: what it looks like, and what of the target it is taught.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftRecipe {
    /// How many of the tasks to train on the target answers for it.
    #[serde(default)]
    pub answers: usize,
    /// How many texts of the recipe the target goes on with for it.
    #[serde(default)]
    pub continuations: usize,
    /// The share of the continued texts in what is learned, from 0 to 1.
    #[serde(default = "a_tenth")]
    pub continuations_weight: f64,
    /// The share of the recipe's own data in what is learned, from 0 to 1: much more of it can be had than of answers, since
    /// the target only says its distributions over it.
    #[serde(default)]
    pub data_weight: f64,
    /// The most tokens that the target answers.
    #[serde(default = "longest_answer")]
    pub longest_answer: usize,
    /// How many of the tasks that were held out the target answers, to measure the agreement with it.
    #[serde(default = "held_out")]
    pub held_out: usize,
    /// What both models' logits are divided by, before their distributions are compared.
    #[serde(default = "one")]
    pub temperature: f32,
    /// The share of the loss that is that of the target's tokens, from 0 to 1; the rest is that of its distributions.
    #[serde(default)]
    pub hard_labels: f32,
    /// Its shape, and how it is trained.
    pub model: ModelRecipe,
}

fn a_tenth() -> f64 {
    0.1
}

fn longest_answer() -> usize {
    256
}

fn held_out() -> usize {
    200
}

fn one() -> f32 {
    1.0
}

impl DraftRecipe {
    /// What serde cannot check.
    ///
    /// # Errors
    /// The rest of a sentence, for the section `name`. `tasks` and `texts` say what there is to train on.
    pub fn check(&self, name: &str, tasks: usize, texts: usize) -> Result<(), String> {
        if self.answers == 0 && self.continuations == 0 && self.data_weight == 0.0 {
            let hint = "give it `answers`, `continuations` of texts, or a `data_weight`";
            return Err(format!("[{name}] has nothing to learn from: {hint}"));
        }
        if self.answers > tasks {
            let (answers, hint) = (self.answers, "raise `train` of [data.tasks], or lower it");
            return Err(format!("`answers` of [{name}] is {answers}, and there are {tasks} tasks to train on; {hint}"));
        }
        if self.continuations > 0 && texts == 0 {
            return Err(format!("`continuations` of [{name}] needs texts: add [[data.text]], or leave it out"));
        }
        if !(0.0..=1.0).contains(&self.data_weight) {
            return Err(format!("`data_weight` of [{name}] must be a number from 0 to 1"));
        }
        if !(self.continuations_weight > 0.0 && self.continuations_weight < 1.0) {
            return Err(format!("`continuations_weight` of [{name}] must lie between 0 and 1"));
        }
        if self.longest_answer == 0 {
            return Err(format!("`longest_answer` of [{name}] must be above zero"));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!("`temperature` of [{name}] must be a number above 0"));
        }
        if !(0.0..=1.0).contains(&self.hard_labels) {
            return Err(format!("`hard_labels` of [{name}] must lie between 0 and 1"));
        }
        self.model.check(&format!("{name}.model"))
    }
}

impl ModelRecipe {
    /// What the recipe implies, with a tokenizer and for a context of so many tokens.
    pub fn config(&self, tokenizer: &ChatTokenizer, context: usize) -> ModelConfig {
        ModelConfig {
            stop_tokens: vec![u32::from(tokenizer.end())],
            bos_token: tokenizer.tokenizer().id_of(BEGIN),
            ..self.shape(tokenizer.tokenizer().vocab_size(), context)
        }
    }

    /// What the recipe implies without a tokenizer.
    pub fn shape(&self, vocab_size: usize, context: usize) -> ModelConfig {
        ModelConfig {
            family: Family::Llama,
            vocab_size,
            hidden_size: self.hidden,
            intermediate_size: self.intermediate,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads.unwrap_or(self.heads),
            head_dim: self.hidden / self.heads,
            norm_eps: 1e-5,
            rope: Rope { theta: self.rope_theta, scaling: RopeScaling::None },
            windows: Windows::None,
            context,
            tied_embeddings: true,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            stop_tokens: Vec::new(),
            bos_token: None,
        }
    }

    /// The smallest model that has everything, for tests.
    #[cfg(test)]
    pub fn smallest(layers: usize) -> Self {
        Self {
            layers,
            hidden: 16,
            intermediate: 24,
            heads: 2,
            kv_heads: None,
            rope_theta: 100.0,
            training: TrainingRecipe::default(),
        }
    }

    /// What serde cannot check.
    ///
    /// # Errors
    /// The rest of a sentence, for the section `name`.
    pub fn check(&self, name: &str) -> Result<(), String> {
        let sizes = [
            ("layers", self.layers),
            ("hidden", self.hidden),
            ("intermediate", self.intermediate),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads.unwrap_or(1)),
            ("training.sequences", self.training.sequences),
            ("training.length", self.training.length),
            ("training.accumulate", self.training.accumulate),
            ("training.steps", usize::try_from(self.training.steps).unwrap_or(usize::MAX)),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("`{key}` of [{name}] must be above zero"));
        }
        if !self.hidden.is_multiple_of(2 * self.heads) {
            let reason =
                format!("{} of [{name}] cannot be cut into {} heads of an even width", self.hidden, self.heads);
            return Err(format!("`hidden` = {reason}"));
        }
        if !self.heads.is_multiple_of(self.kv_heads.unwrap_or(self.heads)) {
            return Err(format!("`kv_heads` of [{name}] must divide its `heads`"));
        }
        let TrainingRecipe { prompt_weight, curriculum, early_exits, .. } = &self.training;
        let section = format!("{name}.training");
        self.training.optimizer.check(&section)?;
        self.training.schedule.check(&section)?;
        self.training.check_phases(&section, self.layers)?;
        if !(prompt_weight.is_finite() && *prompt_weight >= 0.0) {
            return Err(format!("`prompt_weight` of [{section}] must be a number from 0 on"));
        }
        if curriculum.is_some_and(|curriculum| !(0.0..=1.0).contains(&curriculum.until)) {
            return Err(format!("`curriculum.until` of [{section}] must be a number from 0 to 1"));
        }
        early_exits.as_ref().map_or(Ok(()), |exits| exits.check(&section, self.layers))?;
        let mut before = (0, 0.0);
        for Growth { layers, until, .. } in &self.training.growth {
            if *layers <= before.0 || *layers >= self.layers || !(*until > before.1 && *until < 1.0) {
                return Err(format!(
                    "`training.growth` of [{name}] must rise in `layers`, below {}, and in `until`, between 0 and 1",
                    self.layers
                ));
            }
            before = (*layers, *until);
        }
        let last = self.training.steps - 1;
        if before.1 > last as f64 / self.training.steps as f64 {
            return Err(format!(
                "`training.growth` of [{name}] is not over in the last of {} steps: lower its last `until`",
                last + 1
            ));
        }
        Ok(())
    }
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

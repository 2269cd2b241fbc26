//! `[router]`: the router that learns which plan suits a prompt.

use paceline_router::Group;
use serde::{Deserialize, Serialize};

use super::optimizer::OptimizerSettings;
use super::schedule::Schedule;

/// The router and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterRecipe {
    /// Queries by which it pools hidden states.
    pub queries: usize,
    /// Width of its hidden layer.
    pub inside: usize,
    /// Steps in which it learns to predict.
    pub steps: u64,
    /// Further steps in which it learns to decide: through the decision, the expected cost of what it chooses.
    pub decide: u64,
    /// Prompts of a step.
    pub batch: usize,
    /// Share of the first steps in which easy and short prompts come first.
    pub curriculum: f64,
    /// The sharpness of its decisions while it learns to decide: the cost, in units of plain decoding, that makes a plan `e` times as likely.
    pub sharpness: f64,
    /// Rounds of an answer that its predictions weigh as much as.
    pub rounds: f64,
    /// Groups of features that it is not told: where one brings nothing, as the ablation says, taking it costs every answer time.
    /// Only `uncertainty` costs any.
    pub leave_out: Vec<Group>,
    /// Trains it again without each group of features, to see what that costs.
    pub ablation: bool,
    /// The learning rate.
    pub schedule: Schedule,
    /// The optimizer.
    pub optimizer: OptimizerSettings,
    /// Steps between checkpoints.
    pub save_every: u64,
}

impl Default for RouterRecipe {
    fn default() -> Self {
        Self {
            queries: 2,
            inside: 32,
            steps: 1500,
            decide: 500,
            batch: 64,
            curriculum: 0.2,
            sharpness: 0.02,
            rounds: 40.0,
            leave_out: Vec::new(),
            ablation: true,
            schedule: Schedule { learning_rate: 3e-3, warm_up: 0.05, floor: 0.02 },
            optimizer: OptimizerSettings { weight_decay: 0.3, ..OptimizerSettings::default() },
            save_every: 500,
        }
    }
}

impl RouterRecipe {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub fn check(&self) -> Result<(), String> {
        let sizes = [("queries", self.queries), ("inside", self.inside), ("batch", self.batch)];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| !(1..=4096).contains(size)) {
            return Err(format!("`{key}` of [router] must be from 1 to 4096"));
        }
        if self.steps == 0 || self.save_every == 0 {
            return Err("`steps` and `save_every` of [router] must be above zero".to_owned());
        }
        if !(0.0..=1.0).contains(&self.curriculum) {
            return Err("`curriculum` of [router] must be a number from 0 to 1".to_owned());
        }
        if !(self.sharpness.is_finite() && self.sharpness > 0.0 && self.rounds.is_finite() && self.rounds >= 0.0) {
            return Err("`sharpness` of [router] must be a number above 0, and `rounds` one from 0 on".to_owned());
        }
        if self.leave_out.iter().any(|group| *group != Group::Uncertainty) {
            return Err(
                "`leave_out` of [router] can be `uncertainty`: the other groups cost next to nothing".to_owned()
            );
        }
        if self.optimizer.muon.is_some() {
            return Err("`optimizer.muon` is for models: leave it out of [router]".to_owned());
        }
        self.optimizer.check("router")?;
        self.schedule.check("router")
    }
}

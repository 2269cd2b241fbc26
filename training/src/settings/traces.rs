//! `[traces]`: the prompts, models and drafters that traces for the router are made with.

use std::path::PathBuf;

use paceline::{SelfDraft, SkipPlan};
use serde::{Deserialize, Serialize};

/// The prompts and drafters that the router learns from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesRecipe {
    /// The target's folder, if it is not the recipe's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// The drafts' folders, if they are not the recipe's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drafts: Option<Vec<PathBuf>>,
    /// Generated tasks to learn from.
    pub prompts: usize,
    /// Generated tasks, held out, to judge by.
    pub held_out: usize,
    /// Beginnings of texts to learn from; a tenth of them is held out.
    pub texts: usize,
    /// Tokens of an answer at most.
    pub longest_answer: usize,
    /// Temperatures, one of which each prompt is answered at.
    pub temperatures: Vec<f32>,
    /// Layers of the target that run before the states that the router reads: by default those of its first trained exit, or a
    /// sixth of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// The most tokens of a prompt whose states it reads, from its end.
    pub most_states: usize,
    /// Lower precisions, as drafters and for the target.
    pub lower: Vec<SelfDraft>,
    /// Skip plans, as drafters and for the target.
    pub skip: Vec<SkipPlan>,
}

impl Default for TracesRecipe {
    fn default() -> Self {
        Self {
            model: None,
            drafts: None,
            prompts: 4800,
            held_out: 600,
            texts: 0,
            longest_answer: 192,
            temperatures: vec![0.0],
            layer: None,
            most_states: 256,
            lower: Vec::new(),
            skip: Vec::new(),
        }
    }
}

impl TracesRecipe {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.prompts + self.texts == 0 {
            return Err("`prompts` and `texts` of [traces] are both 0, so nothing would be traced".to_owned());
        }
        if self.longest_answer == 0 || self.most_states == 0 {
            return Err("`longest_answer` and `most_states` of [traces] must be above zero".to_owned());
        }
        match self.temperatures.iter().all(|temperature| temperature.is_finite() && *temperature >= 0.0) {
            true if !self.temperatures.is_empty() => Ok(()),
            _ => Err("`temperatures` of [traces] needs numbers from 0 on, one at least".to_owned()),
        }
    }
}

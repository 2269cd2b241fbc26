//! A further phase of a training, after its first steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::early_exits::EarlyExits;
use super::schedule::Schedule;

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

impl Phase {
    /// Checks what serde cannot, in the section `name` of a model of `layers`. An error is the rest of a sentence.
    pub(super) fn check(&self, name: &str, layers: usize) -> Result<(), String> {
        let Self { steps, schedule, weights, early_exits } = self;
        if *steps == 0 {
            return Err(format!("`steps` of [[{name}]] must be above zero; leave the phase out to do without it"));
        }
        schedule.as_ref().map_or(Ok(()), |schedule| schedule.check(name))?;
        early_exits.as_ref().map_or(Ok(()), |exits| exits.check(name, layers))?;
        match weights.iter().find(|(_, weight)| !(weight.is_finite() && **weight >= 0.0)) {
            None => Ok(()),
            Some((source, _)) => Err(format!("the weight of `{source}` in [[{name}]] must be a number from 0 on")),
        }
    }
}

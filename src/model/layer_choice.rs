//! Which layers a target does without, by a rule: the least important ones, evenly spread ones, early or late ones.
//!
//! No rule takes the first or the last layer, without which little is left of a model; a plan that names layers may.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::skip::{SkipError, SkipPlan};

/// Layers to do without, as a user names them: `importance:N`, `uniform:N`, `early:N`, `late:N` for N whole layers, or a
/// plan like `a3,m3,5`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LayerChoice {
    /// So many layers by a rule.
    Rule(LayerRule, usize),
    /// These parts.
    Plan(SkipPlan),
}

/// Rule for choosing layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerRule {
    /// Those that change the hidden state least ([`super::importance`]).
    Importance,
    /// Evenly spread ones.
    Uniform,
    /// The ones after the first.
    Early,
    /// The ones before the last.
    Late,
}

impl LayerRule {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Importance, "importance"), (Self::Uniform, "uniform"), (Self::Early, "early"), (Self::Late, "late")];
}

/// Why layers cannot be chosen.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayerChoiceError {
    /// No rule has this name.
    #[error(
        "`{0}` is not a choice of layers: write importance:N, uniform:N, early:N or late:N, or a plan like a3,m3,5."
    )]
    Unknown(String),
    /// The number of layers is none.
    #[error("`{0}` needs a number of layers from 1 on after the colon, as in importance:2.")]
    Count(String),
    /// The model has too few layers.
    #[error("`{choice}` cannot be met: {}.", most_layers(*layers))]
    TooMany {
        /// The choice that was requested.
        choice: String,
        /// Layers of the model.
        layers: usize,
    },
    /// The plan is none, or none of this model.
    #[error(transparent)]
    Plan(#[from] SkipError),
}

fn most_layers(layers: usize) -> String {
    match layers {
        0..=2 => "the first and the last layer stay, and the model has no others".to_owned(),
        _ => format!("the first and the last of the model's {layers} layers stay, so write 1 to {}", layers - 2),
    }
}

impl LayerChoice {
    /// The plan that it comes to for a model of so many layers. `influence` is what each layer does to the hidden state
    /// ([`super::importance::block_influence`]); it is asked for where the rule needs it.
    ///
    /// # Errors
    /// If the model has not as many layers, or as those that are named.
    pub fn plan(&self, layers: usize, influence: &mut dyn FnMut() -> Vec<f64>) -> Result<SkipPlan, LayerChoiceError> {
        let (rule, count) = match self {
            Self::Plan(plan) => {
                plan.check(layers)?;
                return Ok(plan.clone());
            }
            Self::Rule(rule, count) => (rule, *count),
        };
        let inner = layers.saturating_sub(2);
        if count > inner {
            return Err(LayerChoiceError::TooMany { choice: self.to_string(), layers });
        }
        Ok(SkipPlan::of_layers(match rule {
            LayerRule::Early => (1..=count).collect(),
            LayerRule::Late => (layers - 1 - count..layers - 1).collect(),
            // The middles of as many equal parts.
            LayerRule::Uniform => (0..count).map(|index| 1 + (2 * index + 1) * inner / (2 * count)).collect(),
            LayerRule::Importance => {
                let influence = influence();
                let mut order: Vec<usize> = (1..layers - 1).collect();
                let of = |layer: usize| influence.get(layer).copied().unwrap_or(f64::INFINITY);
                order.sort_by(|a, b| of(*a).total_cmp(&of(*b)));
                order.truncate(count);
                order
            }
        }))
    }
}

impl FromStr for LayerChoice {
    type Err = LayerChoiceError;

    fn from_str(text: &str) -> Result<Self, LayerChoiceError> {
        let Some((name, count)) = text.split_once(':').filter(|(name, _)| *name != "file") else {
            let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic()) && text.len() > 1;
            return if is_word {
                Err(LayerChoiceError::Unknown(text.to_owned()))
            } else {
                Ok(Self::Plan(text.parse()?))
            };
        };
        let known = LayerRule::ALL.iter().find(|(_, known)| *known == name);
        let Some((rule, _)) = known else { return Err(LayerChoiceError::Unknown(text.to_owned())) };
        let digits = count.bytes().all(|byte| byte.is_ascii_digit());
        let count = count.parse().ok().filter(|count| digits && *count > 0);
        Ok(Self::Rule(*rule, count.ok_or_else(|| LayerChoiceError::Count(text.to_owned()))?))
    }
}

impl TryFrom<String> for LayerChoice {
    type Error = LayerChoiceError;

    fn try_from(text: String) -> Result<Self, LayerChoiceError> {
        text.parse()
    }
}

impl From<LayerChoice> for String {
    fn from(choice: LayerChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for LayerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(rule, _)| rule == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl fmt::Display for LayerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule, count) => write!(f, "{rule}:{count}"),
            Self::Plan(plan) => plan.fmt(f),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn plan(choice: &str, layers: usize) -> Result<String, String> {
        let mut influence = || vec![0.0, 0.4, 0.1, 0.3, 0.1, 0.2, 0.05, 0.0, 0.0, 0.0, 0.9, 0.0][..layers].to_vec();
        let choice: LayerChoice = choice.parse().map_err(|error: LayerChoiceError| error.to_string())?;
        choice.plan(layers, &mut influence).map(|plan| plan.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_choose_among_all_but_the_first_and_the_last() {
        for (choice, layers, expected) in [
            ("early:2", 12, "1,2"),
            ("late:3", 12, "8,9,10"),
            ("uniform:1", 12, "6"),
            ("uniform:2", 12, "3,8"),
            ("uniform:4", 12, "2,4,7,9"),
            ("uniform:10", 12, "1,2,3,4,5,6,7,8,9,10"),
            // Of the zeros at 7 to 9 and at the ends, the lowest inner ones; equal ones in order.
            ("importance:2", 12, "7,8"),
            ("importance:2", 7, "2,4"),
            ("importance:1", 3, "1"),
            ("late:1", 3, "1"),
            ("a0,11", 12, "11,a0"),
        ] {
            assert_eq!(plan(choice, layers), Ok(expected.to_owned()), "{choice}");
        }
    }

    #[test]
    fn what_cannot_be_chosen_gets_a_sentence() {
        for (choice, layers, word) in [
            ("importance", 12, "importance:N"),
            ("middle:2", 12, "`middle:2`"),
            ("early:0", 12, "from 1 on"),
            ("early:-1", 12, "from 1 on"),
            ("early:x", 12, "from 1 on"),
            ("late:99999999999999999999", 12, "from 1 on"),
            ("uniform:11", 12, "1 to 10"),
            ("uniform:1", 2, "no others"),
            ("late:1", 1, "no others"),
            ("12", 12, "12 layers"),
            ("", 12, "empty"),
            ("file:/nowhere", 12, "/nowhere"),
            ("0,1", 2, "everything"),
        ] {
            let told = plan(choice, layers);
            assert!(told.as_ref().is_err_and(|told| told.contains(word) && told.ends_with('.')), "{choice}: {told:?}");
        }
    }

    #[test]
    fn names_read_back_as_written() {
        for name in ["importance:3", "uniform:1", "early:2", "late:12", "2,a0,m1"] {
            assert_eq!(name.parse::<LayerChoice>().unwrap().to_string(), name);
        }
    }
}

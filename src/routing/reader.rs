//! Features of a prompt, taken while it is read: no further pass of the target is needed.

use std::str::FromStr;

use paceline_router::Features;
use paceline_router::decision::named_numbers;
use serde::{Deserialize, Serialize};

use super::surface::Surface;
use crate::model::{Decoder, Hidden};

/// Hints that a request gives about itself. All of them may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RequestHints {
    /// The turn of the conversation, from 1 on. Known of itself for prompts of messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<f32>,
    /// The share of drafted tokens that was accepted in this user's answers before, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub past_acceptance: Option<f32>,
    /// Fit of retrieved passages in the prompt to the question, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relevance: Option<f32>,
    /// Load of the machine, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f32>,
}

impl FromStr for RequestHints {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut hints = Self::default();
        for (name, value) in named_numbers(text)? {
            let hint = match name {
                "turn" => &mut hints.turn,
                "past-acceptance" => &mut hints.past_acceptance,
                "relevance" => &mut hints.relevance,
                "load" => &mut hints.load,
                _ => {
                    return Err(format!("`{name}` is not a hint: there are turn, past-acceptance, relevance and load"));
                }
            };
            *hint = Some(value as f32);
        }
        hints.check()?;
        Ok(hints)
    }
}

impl RequestHints {
    /// Reads hints as a flag has them, `turn=3`, or as an object.
    ///
    /// # Errors
    /// The end of a sentence.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, String> {
        match value {
            serde_json::Value::String(text) => text.parse(),
            table @ serde_json::Value::Object(_) => Self::deserialize(table).map_err(|error| error.to_string()),
            _ => Err("write a text like \"turn=3\", or a table like { turn = 3 }".to_owned()),
        }
    }

    /// Checks every hint against its range.
    ///
    /// # Errors
    /// The hint that cannot be.
    pub fn check(&self) -> Result<(), String> {
        let shares = [("past-acceptance", self.past_acceptance), ("relevance", self.relevance), ("load", self.load)];
        let wrong = shares.iter().find(|(_, share)| share.is_some_and(|share| !(0.0..=1.0).contains(&share)));
        match wrong {
            Some((name, Some(share))) => Err(format!("the hint `{name}` is {share}, and must be from 0 to 1")),
            _ if self.turn.is_some_and(|turn| !(turn.is_finite() && turn >= 1.0)) => {
                Err("the hint `turn` must be a number from 1 on".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// States and uncertainty that are looked at while a prompt is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Layers that run before the states.
    pub layer: usize,
    /// The most tokens whose states are kept, from the end of the prompt.
    pub most_states: usize,
    /// The exit whose uncertainty is measured, which is at that layer.
    pub exit: Option<usize>,
}

/// Collects the states of a prompt.
#[derive(Debug)]
pub struct Reader {
    watched: Watched,
    states: Vec<f32>,
    width: usize,
}

impl Reader {
    /// For a prompt of a target of this width.
    pub fn new(watched: Watched, width: usize) -> Self {
        Self { watched, states: Vec::new(), width }
    }

    /// Takes the states of some more tokens, `[rows, hidden]`.
    pub fn see(&mut self, hidden: Hidden) {
        self.states.extend(hidden.into_values());
        let surplus = (self.states.len() / self.width).saturating_sub(self.watched.most_states);
        self.states.drain(..surplus * self.width);
    }

    /// Forgets what it saw: it comes again.
    pub fn forget(&mut self) {
        self.states.clear();
    }

    /// The features of the whole prompt, whose states were seen but for the last token's, which is not read by then.
    pub fn features(
        self,
        target: &Decoder,
        surface: &Surface,
        prompt: &[u32],
        temperature: f32,
        hints: &RequestHints,
    ) -> Features {
        let Self { watched, states, width } = self;
        let mut features = Features::new(states, width);
        surface.count(prompt, &mut features);
        features.set("temperature", temperature);
        let told = [
            ("turn of the conversation", hints.turn),
            ("past acceptance", hints.past_acceptance),
            ("relevance of what was retrieved", hints.relevance),
            ("load", hints.load),
        ];
        for (name, value) in told {
            features.set(name, value.unwrap_or(f32::NAN));
        }
        if let Some(exit) = watched.exit {
            uncertainty(target, exit, &mut features);
        }
        features
    }
}

/// Fills in how sure an exit is of what follows the last token that was seen. Further tokens would say little more, and each is a
/// product with the output matrix.
fn uncertainty(target: &Decoder, exit: usize, features: &mut Features) {
    let width = features.width;
    let Some(last) = features.states.rchunks_exact(width).next() else { return };
    let (entropy, gap) = spread(&target.exit_logits(exit, &target.hidden(last.to_vec())));
    features.set("entropy at the exit", entropy);
    features.set("gap of the first two at the exit", gap);
}

/// The entropy of logits in nats, and the gap between the largest two.
fn spread(logits: &[f32]) -> (f32, f32) {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &logit in logits {
        if logit > first {
            (first, second) = (logit, first);
        } else if logit > second {
            second = logit;
        }
    }
    // What is this far below the largest adds nothing.
    let near = logits.iter().map(|logit| logit - first).filter(|below| *below > -20.0);
    let (sum, weighted) = near.fold((0.0, 0.0), |(sum, weighted), below| {
        let power = below.exp();
        (sum + power, weighted + power * below)
    });
    let entropy = sum.ln() - weighted / sum;
    if entropy.is_finite() && (first - second).is_finite() { (entropy, first - second) } else { (f32::NAN, f32::NAN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_known_distributions() {
        let (entropy, gap) = spread(&[0.0, 0.0, f32::NEG_INFINITY, 0.0, 0.0]);
        assert!((entropy - 4.0_f32.ln()).abs() < 1e-6 && gap == 0.0);
        let (entropy, gap) = spread(&[3.0, -40.0, 1.0]);
        let p = 1.0 / (1.0 + (-2.0_f32).exp());
        assert!((entropy + p * p.ln() + (1.0 - p) * (1.0 - p).ln()).abs() < 1e-5 && gap == 2.0);
        assert!(spread(&[f32::NAN; 3]).0.is_nan() && spread(&[]).0.is_nan());
    }

    #[test]
    fn only_the_last_states_are_kept() {
        let mut reader = Reader::new(Watched { layer: 1, most_states: 3, exit: None }, 2);
        reader.see(Hidden::of_values(vec![0.0, 0.0, 1.0, 1.0], 2));
        reader.see(Hidden::of_values(vec![2.0, 2.0, 3.0, 3.0], 2));
        assert_eq!(reader.states, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
    }
}

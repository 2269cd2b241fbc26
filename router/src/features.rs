//! Features of a prompt, as the router sees it.

use serde::{Deserialize, Serialize};

/// Where a feature comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Hidden states of an early layer of the target, pooled by learned attention.
    Attention,
    /// Confidence of an early exit in what comes after the prompt.
    Uncertainty,
    /// The prompt's tokens, counted.
    Surface,
    /// Properties stated by the request itself.
    Request,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Attention, Self::Uncertainty, Self::Surface, Self::Request];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Uncertainty => "uncertainty",
            Self::Surface => "surface",
            Self::Request => "request",
        }
    }
}

/// The features that are numbers, in order, with their groups. Shares are of all tokens of the prompt.
pub const NUMBERS: [(&str, Group); 16] = [
    ("tokens, logarithm", Group::Surface),
    ("share with digits", Group::Surface),
    ("share with marks of code", Group::Surface),
    ("share with line ends", Group::Surface),
    ("share with capitals", Group::Surface),
    ("share with other marks", Group::Surface),
    ("share of different tokens", Group::Surface),
    ("share of pairs that were there before", Group::Surface),
    ("share of triples that were there before", Group::Surface),
    ("entropy at the exit", Group::Uncertainty),
    ("gap of the first two at the exit", Group::Uncertainty),
    ("turn of the conversation", Group::Request),
    ("past acceptance", Group::Request),
    ("relevance of what was retrieved", Group::Request),
    ("load", Group::Request),
    ("temperature", Group::Request),
];

/// Features of a prompt, as the router sees it. A number that is not known is missing, which is no error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// Hidden states of the prompt's last tokens, `[tokens, width]`, row-major; empty for a prompt of one token.
    pub states: Vec<f32>,
    /// Their width.
    pub width: usize,
    /// The features that are numbers, in the order of [`NUMBERS`]; not a number where missing.
    pub numbers: [f32; NUMBERS.len()],
}

impl Features {
    /// Features of which nothing is known but the states, `[tokens, width]`.
    pub fn new(states: Vec<f32>, width: usize) -> Self {
        Self { states, width, numbers: [f32::NAN; NUMBERS.len()] }
    }

    /// Sets a number by its name in [`NUMBERS`].
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn set(&mut self, name: &str, value: f32) {
        let place = NUMBERS.iter().position(|(known, _)| *known == name).expect("a feature's name");
        self.numbers[place] = value;
    }

    /// Rows of the states.
    pub fn rows(&self) -> usize {
        self.states.len().checked_div(self.width).unwrap_or(0)
    }
}

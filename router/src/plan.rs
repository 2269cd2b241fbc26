//! Plans: ways to answer a prompt, as plain data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Rule for the length of a draft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LengthRule {
    /// For as long as the next token pays at the costs of the machine.
    #[default]
    WhileItPays,
    /// So many tokens.
    Fixed(usize),
}

/// Deviation of a plan from the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lossy {
    /// Tokens of an exit come out unverified where its calibrated confidence is at least the threshold.
    Exit {
        /// Layers that run.
        depth: usize,
        /// The least probability, calibrated, that the exit's pick is the target's.
        threshold: f64,
    },
    /// The target runs without these sublayers, as in `a3,m5`.
    Skip(String),
    /// The target runs in this precision.
    Precision(String),
}

impl fmt::Display for Lossy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit { depth, threshold } => write!(f, "exit:{depth} unverified from {threshold}"),
            Self::Skip(plan) => write!(f, "target without {plan}"),
            Self::Precision(precision) => write!(f, "target in {precision}"),
        }
    }
}

/// A way to answer a prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The drafter, as `--drafter` names it.
    pub drafter: String,
    /// Layers that an exit runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_depth: Option<usize>,
    /// The precision that the drafter computes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_precision: Option<String>,
    /// Rule for the length of its drafts.
    #[serde(default)]
    pub length: LengthRule,
    /// Deviation from the target; `None` in exact mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lossy: Option<Lossy>,
    /// A hash of what the drafter was when the router learned about it, in hexadecimal digits; empty where it has no weights of
    /// its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
}

impl Plan {
    /// A lossless plan that drafts with `drafter`.
    pub fn drafting(drafter: impl Into<String>) -> Self {
        Self { drafter: drafter.into(), ..Self::default() }
    }

    /// A plan that gives something up.
    pub fn lossy(lossy: Lossy) -> Self {
        Self { drafter: "none".to_owned(), lossy: Some(lossy), ..Self::default() }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.lossy {
            None => f.write_str(&self.drafter),
            Some(lossy) => lossy.fmt(f),
        }
    }
}

/// The plans that a router knows: first the lossless ones, each by its drafter, then the lossy ones. Plain decoding is not among
/// them, as nothing is to be learned about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSet {
    /// Plans that differ in their drafter alone.
    pub drafting: Vec<Plan>,
    /// Plans that give something up.
    #[serde(default)]
    pub lossy: Vec<Plan>,
}

impl PlanSet {
    /// The place of the plan with a drafter.
    pub fn place(&self, drafter: &str) -> Option<usize> {
        self.drafting.iter().position(|plan| plan.drafter == drafter)
    }
}

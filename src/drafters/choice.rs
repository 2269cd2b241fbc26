//! Which drafter was asked for, as written on the command line: `auto`, `none`, `lookup`, `model`,
//! `model:NAME`, `exit:E`, `self:int4`, `skip:PLAN`.

use std::fmt;
use std::str::FromStr;

use paceline_kernels::QuantizedFormat;
use serde::{Deserialize, Serialize};

use crate::model::{SkipError, SkipPlan};

/// A drafter as a user names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DrafterChoice {
    /// Whichever pays most, changing as the answer goes on.
    #[default]
    Auto,
    /// Plain decoding.
    None,
    /// Tokens that followed the same words earlier in the text.
    Lookup,
    /// A draft model: the one of this name, or the first given.
    Model(Option<String>),
    /// The target's lowest layers.
    Exit(usize),
    /// The target at a lower precision.
    SelfQuantized(QuantizedFormat),
    /// The target without some sublayers.
    Skip(SkipPlan),
}

/// Text that names no drafter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChoiceError {
    /// No drafter has this name.
    #[error(
        "`{0}` is not a drafter: choose auto, none, lookup, model, model:NAME, exit:E (E layers of the target run), self:int8, self:int4 or skip:PLAN."
    )]
    Unknown(String),
    /// The depth is not a number.
    #[error("`exit:{0}` needs a number of layers after the colon, as in exit:4.")]
    Depth(String),
    /// The target cannot draft for itself in this precision.
    #[error("`self:{0}` is not a lower precision of the target: write self:int8 or self:int4.")]
    Precision(String),
    /// The text after `skip:` is not a plan.
    #[error(transparent)]
    Skip(#[from] SkipError),
}

impl FromStr for DrafterChoice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let (kind, detail) = match text.split_once(':') {
            Some((kind, detail)) => (kind, Some(detail)),
            None => (text, None),
        };
        match (kind, detail) {
            ("auto", None) => Ok(Self::Auto),
            ("none", None) => Ok(Self::None),
            ("lookup", None) => Ok(Self::Lookup),
            ("model", None) => Ok(Self::Model(None)),
            ("model", Some(name)) if !name.is_empty() => Ok(Self::Model(Some(name.to_owned()))),
            ("exit", Some(depth)) => depth.parse().map(Self::Exit).map_err(|_| ChoiceError::Depth(depth.to_owned())),
            ("self", Some("int8")) => Ok(Self::SelfQuantized(QuantizedFormat::Int8)),
            ("self", Some("int4")) => Ok(Self::SelfQuantized(QuantizedFormat::Int4)),
            ("self", Some(precision)) => Err(ChoiceError::Precision(precision.to_owned())),
            ("skip", Some(plan)) => Ok(Self::Skip(plan.parse()?)),
            _ => Err(ChoiceError::Unknown(text.to_owned())),
        }
    }
}

impl DrafterChoice {
    /// Name of the weights that a drafter of this name drafts with: all exits share one file.
    pub fn weights_of(name: &str) -> String {
        match name.parse() {
            Ok(Self::Exit(_)) => "exit".to_owned(),
            _ => name.to_owned(),
        }
    }
}

impl TryFrom<String> for DrafterChoice {
    type Error = ChoiceError;

    fn try_from(text: String) -> Result<Self, ChoiceError> {
        text.parse()
    }
}

impl From<DrafterChoice> for String {
    fn from(choice: DrafterChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for DrafterChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Lookup => f.write_str("lookup"),
            Self::Model(None) => f.write_str("model"),
            Self::Model(Some(name)) => write!(f, "model:{name}"),
            Self::Exit(depth) => write!(f, "exit:{depth}"),
            Self::SelfQuantized(format) => write!(f, "self:{format}"),
            Self::Skip(plan) => write!(f, "skip:{plan}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_written() {
        for name in
            ["auto", "none", "lookup", "model", "model:small", "exit:3", "self:int8", "self:int4", "skip:2,a0,m1"]
        {
            assert_eq!(name.parse::<DrafterChoice>().map(|choice| choice.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn exits_share_their_weights() {
        let names = ["exit:3", "exit:x", "model:exit:3", "lookup"].map(DrafterChoice::weights_of);
        assert_eq!(names, ["exit", "exit:x", "model:exit:3", "lookup"]);
    }

    #[test]
    fn other_names_are_refused_with_a_sentence() {
        let exits = ["", "exit", "exit:", "exit:x", "exit:-1", "lookup:3", "model:", "AUTO"];
        let views = ["self", "self:", "self:bf16", "self:INT4", "skip", "skip:", "skip:x", "skip:a1,1", "skip:file:x"];
        for name in exits.into_iter().chain(views) {
            let error = name.parse::<DrafterChoice>().map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|sentence| sentence.ends_with('.')), "{name}: {error:?}");
        }
    }
}

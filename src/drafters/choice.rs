//! Which drafter was asked for, as written on the command line: `auto`, `none`, `lookup`, `model`,
//! `model:NAME`, `exit:E`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A drafter as a user names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DrafterChoice {
    /// Whichever pays most, changing as the answer goes on.
    #[default]
    Auto,
    /// Plain decoding.
    None,
    /// What followed the same words earlier in the text.
    Lookup,
    /// A draft model: the one of this name, or the first given.
    Model(Option<String>),
    /// The target's lowest layers.
    Exit(usize),
}

/// Text that names no drafter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChoiceError {
    /// No drafter has this name.
    #[error(
        "`{0}` names no drafter: choose auto, none, lookup, model, model:NAME or exit:E (E layers of the target run)."
    )]
    Unknown(String),
    /// The depth is not a number.
    #[error("`exit:{0}` needs a number of layers after the colon, as in exit:4.")]
    Depth(String),
    /// A drafter that is planned.
    #[error("Drafter `{0}` is not in this version: choose auto, none, lookup, model or exit:E.")]
    NotYet(String),
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
            ("self" | "skip", Some(_)) => Err(ChoiceError::NotYet(text.to_owned())),
            _ => Err(ChoiceError::Unknown(text.to_owned())),
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_written() {
        for name in ["auto", "none", "lookup", "model", "model:small", "exit:3"] {
            assert_eq!(name.parse::<DrafterChoice>().map(|choice| choice.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn other_names_are_refused_with_a_sentence() {
        for name in ["", "exit", "exit:", "exit:x", "exit:-1", "lookup:3", "model:", "self:int4", "skip:a3", "AUTO"] {
            let error = name.parse::<DrafterChoice>().map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|sentence| sentence.ends_with('.')), "{name}: {error:?}");
        }
    }
}

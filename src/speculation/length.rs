//! Draft length, as written on the command line or in a config file: `auto` or a number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::MAX_DRAFT;

/// Tokens to draft ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LengthText", into = "LengthText")]
pub enum DraftLength {
    /// As far as it pays, 0 included.
    #[default]
    Auto,
    /// Always this many tokens, `1..=MAX_DRAFT`.
    Fixed(usize),
}

/// A config file may hold a number or a word.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "write \"auto\" or a whole number from 1 to 16")]
enum LengthText {
    Number(i64),
    Text(String),
}

/// Text that is not a draft length.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a draft length: write auto or a number from 1 to {MAX_DRAFT} (`--drafter none` drafts nothing).")]
pub struct DraftLengthError(String);

impl FromStr for DraftLength {
    type Err = DraftLengthError;

    fn from_str(text: &str) -> Result<Self, DraftLengthError> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(length)) if (1..=MAX_DRAFT).contains(&length) => Ok(Self::Fixed(length)),
            _ => Err(DraftLengthError(text.to_owned())),
        }
    }
}

impl TryFrom<LengthText> for DraftLength {
    type Error = DraftLengthError;

    fn try_from(text: LengthText) -> Result<Self, DraftLengthError> {
        match text {
            LengthText::Number(number) => number.to_string().parse(),
            LengthText::Text(text) => text.parse(),
        }
    }
}

impl From<DraftLength> for LengthText {
    fn from(length: DraftLength) -> Self {
        match length {
            DraftLength::Auto => Self::Text("auto".to_owned()),
            DraftLength::Fixed(length) => Self::Number(length as i64),
        }
    }
}

impl fmt::Display for DraftLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(length) => write!(f, "{length}"),
        }
    }
}

//! Which sublayers of a decoder are left out: a skip plan, written as a list like `a3,m3,5`.
//!
//! A layer adds two things to its input, what its attention found and what its MLP made of that. Either can be left
//! out, and the rest still works: residual streams are that forgiving (Draft & Verify, Zhang et al. 2023; SWIFT, Xia
//! et al. 2024).

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::files::{ReadError, read_text};

/// The largest file that a list is read from, in bytes: room for every layer of any model.
const LARGEST_FILE: u64 = 1 << 16;

/// Half of a layer. Written `a3` or `m3`; layers are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sublayer {
    /// The attention of a layer, its norm included.
    Attention(usize),
    /// The MLP of a layer, its norm included.
    Mlp(usize),
}

impl Sublayer {
    /// The layer that it is a half of.
    pub fn layer(self) -> usize {
        match self {
            Self::Attention(layer) | Self::Mlp(layer) => layer,
        }
    }

    /// True if it runs where `skip`, if any, is left out.
    pub fn runs(self, skip: Option<&SkipPlan>) -> bool {
        skip.is_none_or(|skip| !skip.skips(self))
    }
}

/// Sublayers to leave out, at least one. Written as a comma list of `a3` (attention), `m3` (MLP) and `3` (both), or as
/// `file:PATH` of a file with such a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SkipPlan(BTreeSet<Sublayer>);

/// Why a skip plan cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SkipError {
    /// The list is empty.
    #[error(
        "The skip plan is empty, and with nothing skipped it would be the whole model: name sublayers, as in `a3,m3,5`."
    )]
    Nothing,
    /// The file of the list cannot be read.
    #[error("The skip plan in the file {path} cannot be read: {error}.")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        error: String,
    },
    /// A part of the list names no sublayer.
    #[error(
        "`{0}` in the skip plan is not a sublayer: write a3 for the attention of layer 3, m3 for its MLP, 3 for both."
    )]
    Unknown(String),
    /// A sublayer is named twice.
    #[error("`{0}` is in the skip plan twice: name each sublayer once.")]
    Twice(Sublayer),
    /// The model has no such layer.
    #[error("The skip plan names `{sublayer}`, but the model has {layers} layers: write 0 to {}.", layers - 1)]
    NoSuchLayer {
        /// The sublayer that is named.
        sublayer: Sublayer,
        /// Layers of the model.
        layers: usize,
    },
    /// No sublayer remains.
    #[error("The skip plan skips everything in the model's {0} layers, which leaves nothing of it: keep a sublayer.")]
    Everything(usize),
}

impl SkipPlan {
    /// A plan that skips one sublayer.
    pub fn of(sublayer: Sublayer) -> Self {
        Self(BTreeSet::from([sublayer]))
    }

    /// This plan with one more sublayer skipped.
    #[must_use]
    pub fn with(&self, sublayer: Sublayer) -> Self {
        let mut sublayers = self.0.clone();
        sublayers.insert(sublayer);
        Self(sublayers)
    }

    /// Union of two plans: the sublayers that either skips.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    /// A plan without these layers.
    pub fn of_layers(layers: impl IntoIterator<Item = usize>) -> Self {
        Self(layers.into_iter().flat_map(|layer| [Sublayer::Attention(layer), Sublayer::Mlp(layer)]).collect())
    }

    /// True if a sublayer is skipped.
    pub fn skips(&self, sublayer: Sublayer) -> bool {
        self.0.contains(&sublayer)
    }

    /// The sublayers that are skipped.
    pub fn sublayers(&self) -> impl Iterator<Item = Sublayer> + '_ {
        self.0.iter().copied()
    }

    /// Layers of which nothing is left.
    pub fn whole_layers(&self) -> usize {
        let attention = self.0.iter().filter(|sublayer| matches!(sublayer, Sublayer::Attention(_)));
        attention.filter(|sublayer| self.skips(Sublayer::Mlp(sublayer.layer()))).count()
    }

    /// Checks the plan against a model of so many layers.
    ///
    /// # Errors
    /// If it names a layer that is not there, or leaves nothing of the model.
    pub fn check(&self, layers: usize) -> Result<(), SkipError> {
        if let Some(sublayer) = self.sublayers().find(|sublayer| sublayer.layer() >= layers) {
            return Err(SkipError::NoSuchLayer { sublayer, layers });
        }
        if self.0.len() == 2 * layers { Err(SkipError::Everything(layers)) } else { Ok(()) }
    }
}

impl FromStr for SkipPlan {
    type Err = SkipError;

    /// Parses a list, or reads one from a file if the text is `file:PATH`.
    fn from_str(text: &str) -> Result<Self, SkipError> {
        let Some(path) = text.strip_prefix("file:") else { return Self::from_list(text) };
        let unreadable = |error: ReadError| SkipError::File { path: path.to_owned(), error: error.to_string() };
        let list = read_text(Path::new(path), LARGEST_FILE).map_err(unreadable)?;
        Self::from_list(list.trim())
    }
}

impl SkipPlan {
    fn from_list(text: &str) -> Result<Self, SkipError> {
        let mut sublayers = BTreeSet::new();
        if text.trim().is_empty() {
            return Err(SkipError::Nothing);
        }
        for part in text.split(',').map(str::trim) {
            let kind = part.chars().next().filter(char::is_ascii_alphabetic);
            let number = kind.map_or(part, |_| &part[1..]);
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            let layer = number.parse().ok().filter(|_| digits);
            let named = match (kind, layer) {
                (Some('a'), Some(layer)) => vec![Sublayer::Attention(layer)],
                (Some('m'), Some(layer)) => vec![Sublayer::Mlp(layer)],
                (None, Some(layer)) => vec![Sublayer::Attention(layer), Sublayer::Mlp(layer)],
                _ => return Err(SkipError::Unknown(part.to_owned())),
            };
            for sublayer in named {
                if !sublayers.insert(sublayer) {
                    return Err(SkipError::Twice(sublayer));
                }
            }
        }
        Ok(Self(sublayers))
    }
}

impl TryFrom<String> for SkipPlan {
    type Error = SkipError;

    fn try_from(text: String) -> Result<Self, SkipError> {
        text.parse()
    }
}

impl From<SkipPlan> for String {
    fn from(plan: SkipPlan) -> Self {
        plan.to_string()
    }
}

impl fmt::Display for Sublayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attention(layer) => write!(f, "a{layer}"),
            Self::Mlp(layer) => write!(f, "m{layer}"),
        }
    }
}

impl fmt::Display for SkipPlan {
    /// Whole layers first, then attention, then MLPs, each in order: a plan has one name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |layer| self.skips(Sublayer::Attention(layer)) && self.skips(Sublayer::Mlp(layer));
        let layers: BTreeSet<usize> = self.sublayers().map(Sublayer::layer).filter(|&layer| whole(layer)).collect();
        let halves = self.sublayers().filter(|sublayer| !whole(sublayer.layer()));
        let parts = layers.iter().map(usize::to_string).chain(halves.map(|half| half.to_string()));
        f.write_str(&parts.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sentence(text: &str, layers: usize) -> String {
        match text.parse::<SkipPlan>().and_then(|plan| plan.check(layers)) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_plan_has_one_name() {
        for (text, name) in
            [("a3,m3,5", "3,5"), ("m1 , a0", "a0,m1"), ("5,a2", "5,a2"), ("a10,a9", "a9,a10"), ("007", "7")]
        {
            assert_eq!(text.parse::<SkipPlan>().map(|plan| plan.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn bad_plans_get_a_sentence_that_names_what_is_wrong() {
        for (text, word) in [
            ("", "empty"),
            (" ", "empty"),
            (",", "``"),
            ("a3,", "``"),
            ("x3", "`x3`"),
            ("a", "`a`"),
            ("a-1", "`a-1`"),
            ("+1", "`+1`"),
            ("a1.5", "`a1.5`"),
            ("é", "`é`"),
            ("99999999999999999999", "`99999999999999999999`"),
            ("a1,m2,a1", "`a1`"),
            ("m2,2", "`m2`"),
            ("a5", "`a5`"),
            ("0,1,2,3,m4,a4", "everything"),
        ] {
            let told = sentence(text, 5);
            assert!(told.contains(word) && told.ends_with('.'), "{text:?}: {told}");
        }
        assert_eq!(sentence("0,1,2,3,m4", 5), "");
    }

    #[test]
    fn a_plan_is_read_from_a_file() {
        let file = tempfile::NamedTempFile::new().expect("the temporary folder can be written");
        let from_file = || format!("file:{}", file.path().display()).parse::<SkipPlan>();
        std::fs::write(file.path(), "a3,m3,5\n").expect("it can be written");
        assert_eq!(from_file().map(|plan| plan.to_string()), Ok("3,5".to_owned()));
        for (content, word) in [("", "empty"), ("x1", "`x1`"), ("file:y", "`file:y`")] {
            std::fs::write(file.path(), content).expect("it can be written");
            let told = from_file().map_err(|error| error.to_string());
            assert!(told.as_ref().is_err_and(|told| told.contains(word)), "{content}: {told:?}");
        }
        std::fs::write(file.path(), " ".repeat(LARGEST_FILE as usize - 2) + "a1").expect("it can be written");
        assert_eq!(from_file().map(|plan| plan.to_string()), Ok("a1".to_owned()));
        std::fs::write(file.path(), "a1".to_owned() + &" ".repeat(LARGEST_FILE as usize)).expect("it can be written");
        let told = from_file().map_err(|error| error.to_string());
        assert!(told.as_ref().is_err_and(|told| told.contains("more than the 65536 bytes")), "{told:?}");
        for path in ["/nowhere", "/"] {
            let told = format!("file:{path}").parse::<SkipPlan>().map_err(|error| error.to_string());
            assert!(told.as_ref().is_err_and(|told| told.contains(path) && told.ends_with('.')), "{told:?}");
        }
    }

    proptest! {
        #[test]
        fn plans_read_back_as_written(halves in prop::collection::btree_set((0_usize..40, any::<bool>()), 1..30)) {
            let sublayer = |(layer, attention)| {
                if attention { Sublayer::Attention(layer) } else { Sublayer::Mlp(layer) }
            };
            let plan = SkipPlan(halves.into_iter().map(sublayer).collect());
            prop_assert_eq!(plan.to_string().parse(), Ok(plan));
        }
    }
}

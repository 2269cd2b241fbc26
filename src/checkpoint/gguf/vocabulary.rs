//! The vocabulary of a GGUF file: its tokens in order of ids, the kind of each, and the ids that have a role.

use std::collections::{HashMap, HashSet};

use super::Metadata;
use crate::checkpoint::CheckpointError;
use crate::visible::shown;

pub(crate) const MODEL: &str = "tokenizer.ggml.model";
pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(crate) const SCORES: &str = "tokenizer.ggml.scores";
const KINDS: &str = "tokenizer.ggml.token_type";
pub(crate) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(crate) const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const PADDING: &str = "tokenizer.ggml.padding_token_id";
/// Spelled as the format spells it.
const SEPARATOR: &str = "tokenizer.ggml.seperator_token_id";
const CLASS: &str = "tokenizer.ggml.cls_token_id";
const MASK: &str = "tokenizer.ggml.mask_token_id";

/// The space of SentencePiece.
pub(crate) const SPACE: char = '▁';

/// The kinds of vocabularies that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tokens are spelled in GPT-2's letters for bytes, and built by merges.
    ByteLevel,
    /// Tokens are texts with `▁` for spaces, and built by merges or by scores.
    SentencePiece,
}

impl Form {
    /// The one that `tokenizer.ggml.model` names. `gemma4` is SentencePiece's form with its merges stored.
    pub(crate) fn of(metadata: &Metadata) -> Result<Self, CheckpointError> {
        match metadata.text(MODEL)? {
            Some("gpt2") => Ok(Self::ByteLevel),
            Some("llama" | "gemma4") => Ok(Self::SentencePiece),
            Some(other) => Err(metadata.error(
                MODEL,
                format!("is \"{}\", which is not supported: \"gpt2\", \"llama\" and \"gemma4\" are", shown(other)),
            )),
            None => {
                Err(metadata.error(MODEL, "is missing, so the file has no tokenizer; take one of a language model"))
            }
        }
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Steers the model and is no text, such as the end of an answer.
    Control,
    /// Text that is never cut.
    User,
    /// A single byte.
    Byte,
    /// Keeps an id, and never comes from a text.
    Unused,
}

impl Kind {
    fn of(number: i32) -> Option<Self> {
        Some(match number {
            // Undefined, and treated as text.
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::User,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// Tokens by id.
pub(crate) struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<Kind>,
    /// Of SentencePiece; the greater, the earlier a token is put together.
    pub(crate) scores: Option<Vec<f32>>,
    /// False where the file says nothing about kinds.
    pub(crate) has_kinds: bool,
}

impl Vocabulary {
    /// Reads the lists, which must agree in length, and no token may be there twice.
    pub(crate) fn read(metadata: &Metadata, form: Form) -> Result<Self, CheckpointError> {
        let mut tokens = metadata
            .texts(TOKENS)?
            .ok_or_else(|| metadata.error(TOKENS, "is missing, so the file has no vocabulary; convert it again"))?;
        let fits = u32::try_from(tokens.len()).is_ok();
        if tokens.is_empty() || !fits {
            return Err(metadata.error(TOKENS, format!("has {} tokens", tokens.len())));
        }
        let as_long = |key: &str| match metadata.length(key) {
            Some(length) if length != tokens.len() => {
                Err(metadata.error(key, format!("has {length} values, but there are {} tokens", tokens.len())))
            }
            _ => Ok(()),
        };
        as_long(KINDS)?;
        as_long(SCORES)?;
        let numbers = metadata.integers::<i32>(KINDS)?;
        let has_kinds = numbers.is_some();
        let kinds = match numbers {
            Some(numbers) => kinds(metadata, &numbers)?,
            None => vec![Kind::Normal; tokens.len()],
        };
        let scores = match form {
            Form::SentencePiece => scores(metadata)?,
            Form::ByteLevel => None,
        };
        let kinds = tokens.iter_mut().zip(kinds).map(|(token, kind)| settle(token, kind, form)).collect();
        let vocabulary = Self { tokens, kinds, scores, has_kinds };
        vocabulary.check_duplicates(metadata)?;
        Ok(vocabulary)
    }

    fn check_duplicates(&self, metadata: &Metadata) -> Result<(), CheckpointError> {
        let mut seen: HashMap<&str, u32> = HashMap::with_capacity(self.tokens.len());
        for (id, token, _) in self.used() {
            if let Some(first) = seen.insert(token, id) {
                let token = shown(token);
                return Err(metadata.error(TOKENS, format!("has the token \"{token}\" twice, as {first} and {id}")));
            }
        }
        Ok(())
    }

    /// The number of ids.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The token of an id.
    pub(crate) fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// Every id with its token and kind.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &str, Kind)> {
        (0..).zip(&self.tokens).zip(&self.kinds).map(|((id, token), &kind)| (id, token.as_str(), kind))
    }

    /// All but unused tokens.
    pub(crate) fn used(&self) -> impl Iterator<Item = (u32, &str, Kind)> {
        self.iter().filter(|(_, _, kind)| *kind != Kind::Unused)
    }

    /// The texts of unused tokens.
    pub(crate) fn unused(&self) -> HashSet<&str> {
        self.iter().filter(|(_, _, kind)| *kind == Kind::Unused).map(|(_, token, _)| token).collect()
    }
}

fn kinds(metadata: &Metadata, numbers: &[i32]) -> Result<Vec<Kind>, CheckpointError> {
    let kind = |(at, &number): (usize, &i32)| {
        Kind::of(number).ok_or_else(|| metadata.error(KINDS, format!("has the unknown kind {number} at {at}")))
    };
    numbers.iter().enumerate().map(kind).collect()
}

fn scores(metadata: &Metadata) -> Result<Option<Vec<f32>>, CheckpointError> {
    let Some(scores) = metadata.numbers(SCORES)? else { return Ok(None) };
    match scores.iter().position(|score| score.is_nan()) {
        Some(at) => Err(metadata.error(SCORES, format!("has NaN at {at}"))),
        None => Ok(Some(scores)),
    }
}

/// The kind that a token has in the end. Converters fill a vocabulary up to the rows of the weights with `[PAD7]`, of several
/// kinds over time, and write runs of `▁` that users have added (Gemma's) as spaces, which this undoes.
fn settle(token: &mut String, kind: Kind, form: Form) -> Kind {
    if token.is_empty() || kind != Kind::Normal && padding_number(token).is_some() {
        return Kind::Unused;
    }
    if form == Form::SentencePiece && kind == Kind::User && token.bytes().all(|byte| byte == b' ') {
        *token = SPACE.to_string().repeat(token.len());
    }
    if form == Form::SentencePiece && kind == Kind::Normal && is_byte(token) { Kind::Byte } else { kind }
}

/// The number of a token that only fills the vocabulary up, such as `[PAD7]`.
pub(crate) fn padding_number(token: &str) -> Option<u32> {
    token.strip_prefix("[PAD")?.strip_suffix(']')?.parse().ok()
}

/// True for `<0x0A>` and the like.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Ids with a role.
pub(crate) struct SpecialIds {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unknown: Option<u32>,
    pub(crate) padding: Option<u32>,
    pub(crate) separator: Option<u32>,
    pub(crate) class: Option<u32>,
    pub(crate) mask: Option<u32>,
}

impl SpecialIds {
    /// Those of the metadata. SentencePiece's defaults are those of llama.cpp, 1, 2 and 0; its 11 for the first and last token of
    /// byte-level vocabularies is Falcon's, and some ordinary token's elsewhere: not taken over.
    pub(crate) fn read(metadata: &Metadata, form: Form, size: usize) -> Result<Self, CheckpointError> {
        let or = |key: &str, default: u32| {
            let default = Some(default).filter(|&id| form == Form::SentencePiece && (id as usize) < size);
            Ok::<_, CheckpointError>(id(metadata, key, size)?.or(default))
        };
        Ok(Self {
            bos: or(BOS, 1)?,
            eos: or(EOS, 2)?,
            unknown: or(UNKNOWN, 0)?,
            padding: id(metadata, PADDING, size)?,
            separator: id(metadata, SEPARATOR, size)?,
            class: id(metadata, CLASS, size)?,
            mask: id(metadata, MASK, size)?,
        })
    }

    /// True if an id begins or ends a text, or stands for unknown ones.
    pub(crate) fn mark(&self, id: u32) -> bool {
        [self.bos, self.eos, self.unknown].contains(&Some(id))
    }
}

/// An id of the metadata. Some converters write -1 for none, as 4294967295.
pub(crate) fn id(metadata: &Metadata, key: &str, size: usize) -> Result<Option<u32>, CheckpointError> {
    const NONE: i128 = u32::MAX as i128;
    let in_size = |id: i128| u32::try_from(id).ok().filter(|id| (*id as usize) < size);
    match metadata.signed(key)? {
        None | Some(-1 | NONE) => Ok(None),
        Some(id) if in_size(id).is_some() => Ok(in_size(id)),
        Some(id) => Err(metadata.error(key, format!("is {id}, but there are {size} tokens"))),
    }
}

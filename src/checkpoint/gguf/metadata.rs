//! The metadata of a GGUF file: values by key, checked when the file is opened, and copied out when they are asked for.
//!
//! Lists stay in the mapped file (a vocabulary has megabytes), so that memory does not depend on what a file claims.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use paceline_kernels::MappedFile;

use super::cursor::{Cursor, Reason};
use crate::checkpoint::CheckpointError;
use crate::visible::shown;

/// The kinds of values, by their numbers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    U64,
    I64,
    F64,
}

impl Kind {
    fn of(number: u32) -> Result<Self, Reason> {
        Ok(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            9 => return Err("is a list of lists, which no reader of GGUF takes".to_owned()),
            other => return Err(format!("has the unknown kind {other}")),
        })
    }

    /// Bytes of a value, and of a text at least.
    fn least_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::Text | Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    fn read(self, from: &mut Cursor<'_>) -> Result<Value, Reason> {
        Ok(match self {
            Self::U8 => Value::Integer(u8::from_le_bytes(from.array()?).into()),
            Self::I8 => Value::Integer(i8::from_le_bytes(from.array()?).into()),
            Self::U16 => Value::Integer(u16::from_le_bytes(from.array()?).into()),
            Self::I16 => Value::Integer(i16::from_le_bytes(from.array()?).into()),
            Self::U32 => Value::Integer(from.u32()?.into()),
            Self::I32 => Value::Integer(i32::from_le_bytes(from.array()?).into()),
            Self::U64 => Value::Integer(from.u64()?.into()),
            Self::I64 => Value::Integer(i64::from_le_bytes(from.array()?).into()),
            Self::F32 => Value::Float(f32::from_le_bytes(from.array()?).into()),
            Self::F64 => Value::Float(f64::from_le_bytes(from.array()?)),
            Self::Bool => Value::Bool(from.array::<1>()? != [0]),
            Self::Text => {
                let at = from.at();
                let text = String::from_utf8(from.text()?.to_vec());
                Value::Text(
                    text.map_err(|error| {
                        format!("is not UTF-8 at byte {}", at + 8 + error.utf8_error().valid_up_to())
                    })?,
                )
            }
        })
    }
}

/// A value that is no list.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of any width and sign.
    Integer(i128),
    /// Single precision is widened.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// UTF-8.
    Text(String),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Text(_) => "a text",
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Text(value) => f.write_str(&shown(value)),
        }
    }
}

/// A list in the file, its texts' lengths checked.
#[derive(Clone, Debug)]
struct List {
    kind: Kind,
    count: usize,
    bytes: Range<usize>,
}

#[derive(Clone, Debug)]
enum Entry {
    Value(Value),
    List(List),
}

/// The metadata of a GGUF file. Names in messages are the file's keys.
#[derive(Clone, Debug)]
pub struct Metadata {
    file: Arc<MappedFile>,
    path: PathBuf,
    /// In the file.
    bytes: Range<usize>,
    entries: BTreeMap<String, Entry>,
}

impl Metadata {
    /// Reads `count` entries at the cursor, which stands in `file`.
    pub(super) fn read(
        from: &mut Cursor<'_>,
        count: usize,
        file: &Arc<MappedFile>,
        path: &Path,
    ) -> Result<Self, Reason> {
        let mut entries = BTreeMap::new();
        let start = from.at();
        for _ in 0..count {
            let key = from.name()?;
            let entry = read_entry(from).map_err(|reason| format!("the value of \"{}\" {reason}", shown(&key)))?;
            if entries.contains_key(&key) {
                return Err(format!("\"{}\" is there twice", shown(&key)));
            }
            entries.insert(key, entry);
        }
        let bytes = start..from.at();
        Ok(Self { file: Arc::clone(file), path: path.to_owned(), bytes, entries })
    }

    /// The file that holds it, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it, as it lies in the file.
    pub fn bytes(&self) -> &[u8] {
        self.file.get(self.bytes.clone()).unwrap_or_default()
    }

    /// Every key in order, with its value, or for a list its length.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Result<&Value, usize>)> {
        self.entries.iter().map(|(key, entry)| {
            let shown = match entry {
                Entry::Value(value) => Ok(value),
                Entry::List(list) => Err(list.count),
            };
            (key.as_str(), shown)
        })
    }

    /// The error for a value that cannot be used; `reason` is the rest of a sentence.
    pub fn error(&self, key: &str, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Config { path: self.path.clone(), key: key.to_owned(), reason: reason.into() }
    }

    fn value(&self, key: &str) -> Result<Option<&Value>, CheckpointError> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Entry::Value(value)) => Ok(Some(value)),
            Some(Entry::List(_)) => Err(self.error(key, "is a list, where one value is needed")),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// If the value is of another kind.
    pub fn text(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(key, format!("is {}, where a text is needed", other.kind()))),
        }
    }

    /// True or false.
    ///
    /// # Errors
    /// If the value is of another kind.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.error(key, format!("is {}, where true or false is needed", other.kind()))),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// If the value is of another kind.
    pub(crate) fn signed(&self, key: &str) -> Result<Option<i128>, CheckpointError> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value::Integer(value)) => Ok(Some(*value)),
            Some(other) => Err(self.error(key, format!("is {}, where a whole number is needed", other.kind()))),
        }
    }

    /// A whole number that is not negative and fits `T`.
    ///
    /// # Errors
    /// If the value is of another kind, or does not fit.
    pub fn integer<T: TryFrom<i128>>(&self, key: &str) -> Result<Option<T>, CheckpointError> {
        match self.signed(key)? {
            None => Ok(None),
            Some(value) if value >= 0 => {
                T::try_from(value).map(Some).map_err(|_| self.error(key, format!("is {value}, which is too large")))
            }
            Some(value) => Err(self.error(key, format!("is {value}, but must not be negative"))),
        }
    }

    /// A finite number.
    ///
    /// # Errors
    /// If the value is of another kind, infinite or NaN.
    pub fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value::Float(value)) if value.is_finite() => Ok(Some(*value)),
            Some(Value::Integer(value)) => Ok(Some(*value as f64)),
            Some(Value::Float(value)) => Err(self.error(key, format!("is {value}, where a number is needed"))),
            Some(other) => Err(self.error(key, format!("is {}, where a number is needed", other.kind()))),
        }
    }

    /// The length of a list, `None` where there is none.
    pub fn length(&self, key: &str) -> Option<usize> {
        match self.entries.get(key) {
            Some(Entry::List(list)) => Some(list.count),
            _ => None,
        }
    }

    /// The values of a list, one after the other.
    fn list<T>(
        &self,
        key: &str,
        wanted: &str,
        mut take: impl FnMut(Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, CheckpointError> {
        let list = match self.entries.get(key) {
            None => return Ok(None),
            Some(Entry::Value(_)) => {
                return Err(self.error(key, format!("is one value, where a list of {wanted} is needed")));
            }
            Some(Entry::List(list)) => list,
        };
        let bytes = self.file.get(list.bytes.clone()).unwrap_or_default();
        let mut cursor = Cursor::new(bytes);
        let mut values = Vec::with_capacity(list.count);
        for index in 0..list.count {
            let value =
                list.kind.read(&mut cursor).map_err(|reason| self.error(key, format!("{reason} (element {index})")))?;
            let value = take(value).ok_or_else(|| self.error(key, format!("does not have {wanted} at {index}")))?;
            values.push(value);
        }
        Ok(Some(values))
    }

    /// A list of texts.
    ///
    /// # Errors
    /// If it is not one, or a text is not UTF-8.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>, CheckpointError> {
        self.list(key, "texts", |value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    /// A list of whole numbers that fit `T`.
    ///
    /// # Errors
    /// If it is not one, or a number does not fit.
    pub fn integers<T: TryFrom<i128>>(&self, key: &str) -> Result<Option<Vec<T>>, CheckpointError> {
        self.list(key, "whole numbers", |value| match value {
            Value::Integer(value) => T::try_from(value).ok(),
            _ => None,
        })
    }

    /// A list of numbers, as they are stored: they may be infinite or NaN.
    ///
    /// # Errors
    /// If it is not one.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>, CheckpointError> {
        self.list(key, "numbers", |value| match value {
            Value::Float(value) => Some(value as f32),
            _ => None,
        })
    }
}

fn read_entry(from: &mut Cursor<'_>) -> Result<Entry, Reason> {
    const LIST: u32 = 9;
    let number = from.u32()?;
    if number != LIST {
        return Kind::of(number)?.read(from).map(Entry::Value);
    }
    let kind = Kind::of(from.u32()?)?;
    let count = from.count("values", kind.least_bytes())?;
    let start = from.at();
    if kind == Kind::Text {
        for _ in 0..count {
            from.text()?;
        }
    } else {
        // It has room, as was checked.
        from.bytes(count * kind.least_bytes())?;
    }
    Ok(Entry::List(List { kind, count, bytes: start..from.at() }))
}

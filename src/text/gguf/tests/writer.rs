//! Writes GGUF files of metadata alone.

use std::fs;

use crate::checkpoint::{CheckpointError, Gguf, Metadata};

/// A value of metadata.
#[derive(Clone)]
pub(super) enum Field {
    Text(String),
    Bool(bool),
    Integer(u32),
    Texts(Vec<String>),
    Integers(Vec<i32>),
    Numbers(Vec<f32>),
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Field {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Field {
    fn from(value: u32) -> Self {
        Self::Integer(value)
    }
}

impl<const N: usize> From<[&str; N]> for Field {
    fn from(texts: [&str; N]) -> Self {
        Self::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
    }
}

impl<const N: usize> From<[i32; N]> for Field {
    fn from(values: [i32; N]) -> Self {
        Self::Integers(values.to_vec())
    }
}

impl<const N: usize> From<[f32; N]> for Field {
    fn from(values: [f32; N]) -> Self {
        Self::Numbers(values.to_vec())
    }
}

impl Field {
    fn write(&self, to: &mut Vec<u8>) {
        let text = |to: &mut Vec<u8>, text: &str| {
            to.extend((text.len() as u64).to_le_bytes());
            to.extend(text.as_bytes());
        };
        let list = |to: &mut Vec<u8>, kind: u32, count: usize| {
            to.extend(9_u32.to_le_bytes());
            to.extend(kind.to_le_bytes());
            to.extend((count as u64).to_le_bytes());
        };
        match self {
            Self::Text(value) => {
                to.extend(8_u32.to_le_bytes());
                text(to, value);
            }
            Self::Bool(value) => {
                to.extend(7_u32.to_le_bytes());
                to.push((*value).into());
            }
            Self::Integer(value) => {
                to.extend(4_u32.to_le_bytes());
                to.extend(value.to_le_bytes());
            }
            Self::Texts(values) => {
                list(to, 8, values.len());
                values.iter().for_each(|value| text(to, value));
            }
            Self::Integers(values) => {
                list(to, 5, values.len());
                values.iter().for_each(|value| to.extend(value.to_le_bytes()));
            }
            Self::Numbers(values) => {
                list(to, 6, values.len());
                values.iter().for_each(|value| to.extend(value.to_le_bytes()));
            }
        }
    }
}

/// Fields by key; a later one replaces an earlier one.
#[derive(Clone, Default)]
pub(super) struct Fields(Vec<(String, Field)>);

impl Fields {
    /// Sets `tokenizer.KEY`.
    pub(super) fn with(self, key: &str, field: impl Into<Field>) -> Self {
        self.with_whole(&format!("tokenizer.{key}"), field)
    }

    /// Sets a key that is given in full.
    pub(super) fn with_whole(self, key: &str, field: impl Into<Field>) -> Self {
        let mut fields = self.0;
        fields.retain(|(known, _)| known != key);
        fields.push((key.to_owned(), field.into()));
        Self(fields)
    }

    /// Without `tokenizer.KEY`.
    pub(super) fn without(mut self, key: &str) -> Self {
        self.0.retain(|(known, _)| *known != format!("tokenizer.{key}"));
        self
    }

    /// A file that holds these.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend((self.0.len() as u64).to_le_bytes());
        for (key, field) in &self.0 {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.as_bytes());
            field.write(&mut bytes);
        }
        bytes
    }

    /// The metadata of that file.
    pub(super) fn read(&self) -> Metadata {
        metadata(&self.bytes()).expect("it is a GGUF file")
    }
}

/// The metadata of a file.
pub(super) fn metadata(bytes: &[u8]) -> Result<Metadata, CheckpointError> {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let path = dir.path().join("model.gguf");
    fs::write(&path, bytes).expect("it can be written");
    Gguf::open(&path).map(|gguf| gguf.metadata)
}

//! Writes small GGUF files, for tests.

use std::fs;

use super::{Gguf, Metadata};
use crate::checkpoint::CheckpointError;

/// A value of metadata.
#[derive(Clone)]
pub(crate) enum Field {
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
pub(crate) struct Fields(Vec<(String, Field)>, Vec<Tensor>);

/// A tensor: its name, its sizes as the file has them, the number of its type, and its bytes.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) sizes: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
    /// Where it is said to lie, instead of behind the one before it.
    pub(crate) offset: Option<u64>,
}

impl Fields {
    /// Sets `tokenizer.KEY`.
    pub(crate) fn with(self, key: &str, field: impl Into<Field>) -> Self {
        self.with_whole(&format!("tokenizer.{key}"), field)
    }

    /// Sets a key that is given in full.
    pub(crate) fn with_whole(self, key: &str, field: impl Into<Field>) -> Self {
        let mut fields = self.0;
        fields.retain(|(known, _)| known != key);
        fields.push((key.to_owned(), field.into()));
        Self(fields, self.1)
    }

    /// Adds a tensor.
    pub(crate) fn with_tensor(mut self, tensor: Tensor) -> Self {
        self.1.push(tensor);
        self
    }

    /// The tensors.
    pub(crate) fn tensors(&mut self) -> &mut Vec<Tensor> {
        &mut self.1
    }

    /// Without `tokenizer.KEY`.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.0.retain(|(known, _)| *known != format!("tokenizer.{key}"));
        self
    }

    /// A file that holds these.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend((self.1.len() as u64).to_le_bytes());
        bytes.extend((self.0.len() as u64).to_le_bytes());
        for (key, field) in &self.0 {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.as_bytes());
            field.write(&mut bytes);
        }
        let mut data: Vec<u8> = Vec::new();
        for Tensor { name, sizes, kind, data: own, offset } in &self.1 {
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend((sizes.len() as u32).to_le_bytes());
            sizes.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(own);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        if !self.1.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(32), 0);
        }
        bytes.extend(data);
        bytes
    }

    /// The metadata of that file.
    pub(crate) fn read(&self) -> Metadata {
        metadata(&self.bytes()).expect("it is a GGUF file")
    }
}

/// The metadata of a file.
pub(crate) fn metadata(bytes: &[u8]) -> Result<Metadata, CheckpointError> {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let path = dir.path().join("model.gguf");
    fs::write(&path, bytes).expect("it can be written");
    Gguf::open(&path).map(|gguf| gguf.metadata)
}

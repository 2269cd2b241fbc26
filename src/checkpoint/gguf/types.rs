//! The types of a GGUF file's tensors, by their numbers in ggml.

use std::fmt;

use paceline_kernels::{BlockFormat, FloatFormat, StoredFormat};

use super::cursor::Reason;

/// A type: how many values make a block, and how many bytes a block takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::checkpoint) struct TensorType {
    number: u32,
    name: &'static str,
    values: usize,
    bytes: usize,
}

const fn kind(number: u32, name: &'static str, values: usize, bytes: usize) -> TensorType {
    TensorType { number, name, values, bytes }
}

/// The types of ggml, so that those that are not read are refused by name.
const TYPES: &[TensorType] = &[
    kind(0, "F32", 1, 4),
    kind(1, "F16", 1, 2),
    kind(2, "Q4_0", 32, 18),
    kind(3, "Q4_1", 32, 20),
    kind(6, "Q5_0", 32, 22),
    kind(7, "Q5_1", 32, 24),
    kind(8, "Q8_0", 32, 34),
    kind(9, "Q8_1", 32, 36),
    kind(10, "Q2_K", 256, 84),
    kind(11, "Q3_K", 256, 110),
    kind(12, "Q4_K", 256, 144),
    kind(13, "Q5_K", 256, 176),
    kind(14, "Q6_K", 256, 210),
    kind(15, "Q8_K", 256, 292),
    kind(16, "IQ2_XXS", 256, 66),
    kind(17, "IQ2_XS", 256, 74),
    kind(18, "IQ3_XXS", 256, 98),
    kind(19, "IQ1_S", 256, 50),
    kind(20, "IQ4_NL", 32, 18),
    kind(21, "IQ3_S", 256, 110),
    kind(22, "IQ2_S", 256, 82),
    kind(23, "IQ4_XS", 256, 136),
    kind(24, "I8", 1, 1),
    kind(25, "I16", 1, 2),
    kind(26, "I32", 1, 4),
    kind(27, "I64", 1, 8),
    kind(28, "F64", 1, 8),
    kind(29, "IQ1_M", 256, 56),
    kind(30, "BF16", 1, 2),
    kind(34, "TQ1_0", 256, 54),
    kind(35, "TQ2_0", 256, 66),
    kind(39, "MXFP4", 32, 17),
    kind(40, "NVFP4", 64, 36),
];

impl TensorType {
    pub(super) fn of(number: u32) -> Result<Self, Reason> {
        let known = TYPES.iter().find(|kind| kind.number == number).copied();
        known.ok_or_else(|| format!("has the unknown type {number}, where {} are read", read_types()))
    }

    /// Bytes of a row of `values` values.
    pub(super) fn row_bytes(self, values: usize) -> Result<usize, Reason> {
        if !values.is_multiple_of(self.values) {
            return Err(format!(
                "has rows of {values} values, which are not blocks of {} as {self} needs",
                self.values
            ));
        }
        (values / self.values).checked_mul(self.bytes).ok_or_else(|| "is larger than memory".to_owned())
    }

    /// Its name in ggml.
    pub(super) fn name(self) -> &'static str {
        self.name
    }

    /// The format that weights of this type are held in; the type's name where it is not read.
    pub(in crate::checkpoint) fn format(self) -> Result<StoredFormat, String> {
        let float = match self.name {
            "F32" => Some(FloatFormat::F32),
            "F16" => Some(FloatFormat::F16),
            "BF16" => Some(FloatFormat::Bf16),
            _ => None,
        };
        let block = || BlockFormat::ALL.into_iter().find(|format| format.name() == self.name);
        float.map(StoredFormat::Float).or_else(|| block().map(StoredFormat::Blocks)).ok_or_else(|| self.name.to_owned())
    }
}

/// The names of the types that are read.
pub(in crate::checkpoint) fn read_types() -> String {
    let names: Vec<&str> = TYPES.iter().filter(|kind| kind.format().is_ok()).map(|kind| kind.name).collect();
    names.join(", ")
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

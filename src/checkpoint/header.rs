//! The header of a safetensors file, read with its own visitor.
//!
//! The `safetensors` crate checks the same things, but its header type goes through serde's buffering
//! (`flatten`): a header that is a long list of numbers costs it twenty-five times its size, and some of its
//! errors name no tensor. Here memory stays within a few times the file's size whatever the header says.
//! Of `__metadata__` at most one text is kept, if it is asked for.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use paceline_kernels::{FloatFormat, StoredFormat};
use safetensors::Dtype;
use serde::de::value::{Error as PlainError, StrDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::error::CheckpointError;
use crate::visible::shown;

/// As in the reference implementation.
const LARGEST_HEADER: usize = 100_000_000;
/// No tensor of a language model has more.
const MOST_DIMENSIONS: usize = 8;

/// Header entry of a tensor, checked against the file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Box<[usize]>,
    /// In the file.
    pub(crate) bytes: Range<usize>,
}

impl Entry {
    /// The format of the values, or the name of one that is not read.
    pub(crate) fn format(&self) -> Result<StoredFormat, String> {
        match self.dtype {
            Dtype::F32 => Ok(FloatFormat::F32.into()),
            Dtype::F16 => Ok(FloatFormat::F16.into()),
            Dtype::BF16 => Ok(FloatFormat::Bf16.into()),
            other => Err(other.to_string()),
        }
    }
}

/// A file's header.
#[derive(Debug, Default)]
pub(crate) struct Header {
    /// The tensors.
    pub(crate) tensors: HashMap<String, Entry>,
    /// The text of the metadata that was asked for, if it is there.
    pub(crate) text: Option<String>,
}

/// The tensors of the safetensors file `data`, which was read from `path`. Their bytes follow each other
/// without gap or overlap up to the end of the file, and are as many as dtype and shape need.
pub(crate) fn read_header(path: &Path, data: &[u8]) -> Result<HashMap<String, Entry>, CheckpointError> {
    read_header_with(path, data, None).map(|header| header.tensors)
}

/// As [`read_header`], with the text that the metadata has under `key`.
pub(crate) fn read_header_with(path: &Path, data: &[u8], key: Option<&str>) -> Result<Header, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged { path: path.to_owned(), reason };
    let Some((length, rest)) = data.split_first_chunk() else {
        return Err(damaged(format!("it has {} bytes, which is less than a header", data.len())));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().filter(|&length| length <= LARGEST_HEADER);
    let header = header.ok_or_else(|| damaged(format!("its header claims {length} bytes, which is impossible")))?;
    let Some((text, tensors)) = rest.split_at_checked(header) else {
        return Err(damaged(format!("its header claims {header} bytes, but {} follow", rest.len())));
    };
    let mut header = parse(text, key).map_err(damaged)?;
    check_layout(&header.tensors, tensors.len()).map_err(damaged)?;
    let start = data.len() - tensors.len();
    for entry in header.tensors.values_mut() {
        // Within the file, as was just checked.
        entry.bytes = start + entry.bytes.start..start + entry.bytes.end;
    }
    Ok(header)
}

fn parse(text: &[u8], key: Option<&str>) -> Result<Header, String> {
    // A copy: the bytes may be those of a mapped file, and another program may change them between the check and their use.
    let text = String::from_utf8(text.to_vec())
        .map_err(|error| format!("its header is not UTF-8 at byte {}", 8 + error.utf8_error().valid_up_to()))?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let header = json.deserialize_map(HeaderVisitor { key }).and_then(|header| json.end().map(|()| header));
    header.map_err(|error| format!("its header cannot be understood: {}", shown(&error.to_string())))
}

/// Checks that the tensors cover `0..available` without gap or overlap, each with the bytes that it needs.
fn check_layout(entries: &HashMap<String, Entry>, available: usize) -> Result<(), String> {
    let mut order: Vec<(&String, &Entry)> = entries.iter().collect();
    order.sort_unstable_by_key(|(name, entry)| (entry.bytes.start, entry.bytes.end, *name));
    let mut covered = 0;
    for (name, entry) in order {
        let (name, Range { start, end }) = (shown(name), entry.bytes.clone());
        if end > available || start > end {
            return Err(format!("the tensor \"{name}\" lies at {start} to {end}, but there are {available} bytes"));
        }
        if start < covered {
            return Err(format!("the tensor \"{name}\" overlaps the one before it"));
        }
        if start > covered {
            return Err(format!("there is a gap before the tensor \"{name}\""));
        }
        covered = end;
        let elements = entry.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let bits = elements.and_then(|elements| elements.checked_mul(entry.dtype.bitsize()));
        if bits.is_none_or(|bits| !bits.is_multiple_of(8) || bits / 8 != end - start) {
            let length = end - start;
            return Err(format!("the {length} bytes of the tensor \"{name}\" do not fit its shape and format"));
        }
    }
    if covered < available {
        return Err(format!("{} bytes at its end belong to no tensor", available - covered));
    }
    Ok(())
}

struct HeaderVisitor<'a> {
    /// The text of the metadata that is wanted.
    key: Option<&'a str>,
}

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = HashMap::new();
        let (mut metadata, mut text) = (false, None);
        while let Some(name) = map.next_key::<String>()? {
            let again = if name == "__metadata__" {
                text = map.next_value_seed(Metadata { key: self.key })?;
                std::mem::replace(&mut metadata, true)
            } else {
                let entry = map.next_value_seed(EntrySeed { name: &name })?;
                if entries.contains_key(&name) {
                    return Err(A::Error::custom(format!("\"{}\" is there twice", shown(&name))));
                }
                entries.insert(name, entry).is_some()
            };
            if again {
                return Err(A::Error::custom("\"__metadata__\" is there twice"));
            }
        }
        entries.shrink_to_fit();
        Ok(Header { tensors: entries, text })
    }
}

/// `__metadata__`: strings by name, or null, of which one at most is wanted.
struct Metadata<'a> {
    key: Option<&'a str>,
}

impl<'de> DeserializeSeed<'de> for Metadata<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strings by name under \"__metadata__\"")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut wanted = None;
        while let Some((name, text)) = map.next_entry::<String, String>()? {
            if self.key == Some(name.as_str()) {
                wanted = Some(text);
            }
        }
        Ok(wanted)
    }
}

/// A tensor's entry; its name is for messages.
struct EntrySeed<'a> {
    name: &'a str,
}

impl EntrySeed<'_> {
    fn error<E: Error>(&self, reason: impl fmt::Display) -> E {
        E::custom(format!("the tensor \"{}\" {reason}", shown(self.name)))
    }
}

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed<'_> {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dtype, shape and data_offsets of the tensor \"{}\"", shown(self.name))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = map.next_key::<String>()? {
            let again = match field.as_str() {
                "dtype" => {
                    let text = map.next_value::<String>()?;
                    let name: StrDeserializer<'_, PlainError> = text.as_str().into_deserializer();
                    let known = Dtype::deserialize(name);
                    let known = known.map_err(|_| self.error(format!("has the unknown dtype \"{}\"", shown(&text))))?;
                    dtype.replace(known).is_some()
                }
                "shape" => shape.replace(map.next_value::<Sizes>()?.0).is_some(),
                "data_offsets" => offsets.replace(map.next_value::<Sizes>()?.0).is_some(),
                _ => return Err(self.error(format!("has the unknown field \"{}\"", shown(&field)))),
            };
            if again {
                return Err(self.error(format!("has \"{field}\" twice")));
            }
        }
        let dtype = dtype.ok_or_else(|| self.error("has no dtype"))?;
        let shape = shape.ok_or_else(|| self.error("has no shape"))?;
        match offsets.as_deref() {
            Some(&[start, end]) => Ok(Entry { dtype, shape, bytes: start..end }),
            _ => Err(self.error("has no pair of data_offsets")),
        }
    }
}

/// A short list of sizes.
struct Sizes(Box<[usize]>);

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(SizesVisitor)
    }
}

struct SizesVisitor;

impl<'de> Visitor<'de> for SizesVisitor {
    type Value = Sizes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST_DIMENSIONS} sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sizes, A::Error> {
        let (mut sizes, mut count) = ([0; MOST_DIMENSIONS], 0);
        while let Some(size) = seq.next_element::<usize>()? {
            *sizes.get_mut(count).ok_or_else(|| A::Error::invalid_length(count + 1, &self))? = size;
            count += 1;
        }
        Ok(Sizes(sizes.get(..count).unwrap_or_default().into()))
    }
}

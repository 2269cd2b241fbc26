//! The table of tensors of a GGUF file, held against the file: bytes as many as shape and type need, in the file, without
//! overlap.

use std::collections::HashSet;
use std::ops::Range;

use super::cursor::{Cursor, Reason};
use super::types::TensorType;
use crate::visible::shown;

/// Most dimensions of a tensor, as in ggml.
const MOST_DIMENSIONS: u32 = 4;

/// Entry of a tensor, checked against the file.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct TensorInfo {
    pub(in crate::checkpoint) name: String,
    pub(in crate::checkpoint) kind: TensorType,
    /// Outermost first, as elsewhere here; the file has them the other way round.
    pub(in crate::checkpoint) shape: Vec<usize>,
    /// In the file.
    pub(in crate::checkpoint) bytes: Range<usize>,
}

/// Reads `count` entries at the cursor, which are the header's last part.
pub(super) fn read(from: &mut Cursor<'_>, count: usize, alignment: usize) -> Result<Vec<TensorInfo>, Reason> {
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..count {
        let entry = read_entry(from)?;
        if !names.insert(entry.name.clone()) {
            return Err(format!("the tensor \"{}\" is there twice", shown(&entry.name)));
        }
        entries.push(entry);
    }
    let end = from.at() + from.left();
    // Without tensors there may be no padding either.
    let start = from.at().next_multiple_of(alignment).min(end);
    place(&mut entries, start, end, alignment)?;
    Ok(entries)
}

/// An entry whose bytes are counted from the data's beginning.
fn read_entry(from: &mut Cursor<'_>) -> Result<TensorInfo, Reason> {
    let name = from.name()?;
    let failed = |reason: Reason| format!("the tensor \"{}\" {reason}", shown(&name));
    let dimensions = from.u32()?;
    if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
        return Err(failed(format!("claims {dimensions} dimensions")));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = from.u64()?;
        let size = usize::try_from(size).ok().filter(|size| *size > 0);
        shape.push(size.ok_or_else(|| failed("has a size of 0 or beyond memory".to_owned()))?);
    }
    // Quantized blocks lie along the first dimension of the file, the rows'.
    let row = shape.first().copied().unwrap_or(1);
    shape.reverse();
    let kind = TensorType::of(from.u32()?).map_err(failed)?;
    let offset = usize::try_from(from.u64()?).map_err(|_| failed("lies beyond memory".to_owned()))?;
    let row = kind.row_bytes(row).map_err(failed)?;
    let rows = shape.iter().rev().skip(1).try_fold(1usize, |rows, size| rows.checked_mul(*size));
    let end = rows.and_then(|rows| rows.checked_mul(row)).and_then(|bytes| bytes.checked_add(offset));
    let end = end.ok_or_else(|| failed("is larger than memory".to_owned()))?;
    Ok(TensorInfo { name, kind, shape, bytes: offset..end })
}

/// Moves the entries' bytes to where they lie in the file, whose data are `start..end`.
fn place(entries: &mut [TensorInfo], start: usize, end: usize, alignment: usize) -> Result<(), Reason> {
    for entry in entries.iter_mut() {
        let Range { start: first, end: last } = entry.bytes.clone();
        let failed = |reason: String| format!("the tensor \"{}\" {reason}", shown(&entry.name));
        if !first.is_multiple_of(alignment) {
            return Err(failed(format!("lies at {first}, which is not a multiple of {alignment}")));
        }
        if last > end - start {
            let available = end - start;
            return Err(failed(format!(
                "lies at {first} to {last} of the data, of which there are {available} bytes: the file is cut short"
            )));
        }
        entry.bytes = start + first..start + last;
    }
    let mut order: Vec<&TensorInfo> = entries.iter().collect();
    order.sort_unstable_by_key(|entry| entry.bytes.start);
    match order.windows(2).find(|pair| matches!(pair, [one, next] if one.bytes.end > next.bytes.start)) {
        Some([one, next]) => Err(format!("the tensors \"{}\" and \"{}\" overlap", shown(&one.name), shown(&next.name))),
        _ => Ok(()),
    }
}

//! Memory for packed weights, in pieces large enough for huge pages.
//!
//! A product streams its weights. On pages of 4 KB the processor's own prefetching stops at every page's end and
//! the translation cache holds a fraction of a layer; on pages of 2 MB neither matters, and a stream is up to a
//! tenth faster. Most matrices are smaller than such a page, so they share pieces.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;

/// Bytes of a piece, unless a matrix needs more: a few huge pages.
const PIECE: usize = 32 << 20;
/// Parts begin at multiples of this: a cache line.
const ALIGNMENT: usize = 64;

/// Where matrices are packed to. Those packed one after the other lie one after the other; a piece's memory is
/// given back when the last of its matrices, and the arena if it is the latest, is dropped.
#[derive(Default)]
pub struct WeightArena {
    piece: Option<Arc<Piece>>,
    used: usize,
}

struct Piece {
    map: MmapMut,
    /// The mapping's start, taken while nothing else referred to it.
    start: *mut u8,
}

// SAFETY: the mapping is plain memory; parts of it are written through a `&mut Part` alone, and parts do not overlap.
unsafe impl Sync for Piece {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Piece {}

impl Piece {
    fn new(len: usize) -> io::Result<Self> {
        let mut map = map_on_huge_pages(len)?;
        let start = map.as_mut_ptr();
        Ok(Self { map, start })
    }
}

fn map_on_huge_pages(len: usize) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(len.max(1))?;
    // Advice: without huge pages everything works the same, slower.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

/// Plain bytes in the kind of memory that packed weights lie in: what reading weights is to be compared with reads these.
pub struct PlainMemory(MmapMut);

impl PlainMemory {
    /// At least `len` bytes, of which each page was written.
    ///
    /// # Errors
    /// The system's error if it has no more memory.
    pub fn new(len: usize) -> io::Result<Self> {
        let mut map = map_on_huge_pages(len)?;
        map.fill(1);
        Ok(Self(map))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A part of a piece that nothing else refers to, zeroed.
pub(crate) struct Part {
    piece: Arc<Piece>,
    range: Range<usize>,
}

impl WeightArena {
    /// A part of `len` bytes.
    ///
    /// # Errors
    /// The system's error if it has no more memory.
    pub(crate) fn take(&mut self, len: usize) -> io::Result<Part> {
        let start = self.used.next_multiple_of(ALIGNMENT);
        let room = |piece: &&Arc<Piece>| start <= piece.map.len() && len <= piece.map.len() - start;
        if let Some(piece) = self.piece.as_ref().filter(room) {
            self.used = start + len;
            return Ok(Part { piece: Arc::clone(piece), range: start..start + len });
        }
        let piece = Arc::new(Piece::new(len.max(PIECE))?);
        (self.piece, self.used) = (Some(Arc::clone(&piece)), len);
        Ok(Part { piece, range: 0..len })
    }
}

impl Part {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: a range of the mapping, which is initialized and lives as long as the piece; it is written through
        // `as_mut_bytes` alone.
        unsafe { std::slice::from_raw_parts(self.piece.start.add(self.range.start), self.range.len()) }
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `take` gives each range out once, so the borrow of this part is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.piece.start.add(self.range.start), self.range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zeroed_aligned_and_apart() {
        let mut arena = WeightArena::default();
        let mut parts: Vec<Part> =
            [1, 100, 0, PIECE - 1000, 900, PIECE + 1, 64].iter().map(|len| arena.take(*len).expect("memory")).collect();
        for (index, part) in parts.iter_mut().enumerate() {
            assert!(part.as_bytes().iter().all(|byte| *byte == 0));
            assert!(part.as_bytes().is_empty() || part.as_bytes().as_ptr().align_offset(ALIGNMENT) == 0);
            part.as_mut_bytes().fill(index as u8 + 1);
        }
        drop(arena);
        for (index, part) in parts.iter().enumerate() {
            assert!(part.as_bytes().iter().all(|byte| *byte == index as u8 + 1));
        }
        assert_eq!(
            parts.iter().map(|part| part.as_bytes().len()).sum::<usize>(),
            2 * PIECE + 1 + 100 + 900 - 1000 + 1 + 64
        );
    }
}

//! The keys and values that attention looks back on, of one layer.

use std::fmt;

use crate::allocator::OutOfMemory;
use crate::buffer::{SharedMemory, SharedOutput};
use crate::isa::Isa;
use crate::simd::{LANES, Op, Simd};
use crate::stored::{Store, StoredF16, StoredF32};

/// Storage format of a cache's keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheFormat {
    /// As they were computed.
    #[default]
    F32,
    /// Rounded to the nearest f16, to even at ties, when they are appended, and widened exactly when they are read:
    /// half the memory, and half of what attention reads. Magnitudes above 65504 become infinite.
    F16,
}

impl CacheFormat {
    /// Bytes of a value.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl fmt::Display for CacheFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

/// Positions of a page. Attention goes through a text in blocks of as many, counted from position 0, which is part of its
/// definition: which pages a text lies in changes no bit of it.
pub const PAGE_POSITIONS: usize = 64;

/// Positions whose keys lie together, so that as many lanes hold their scores and no sum across lanes is needed.
const TOGETHER: usize = 16;

/// Keys and values of one layer, of any number of texts, in pages of [`PAGE_POSITIONS`] positions each. Which page holds what
/// is the caller's to know: a text is a list of pages ([`Run::pages`]), and texts may share some.
///
/// A page is `[kv_head][keys, values]`, with keys as `[4][head_dim][16]` and values as `[64][head_dim]`.
pub struct LayerPages {
    pages: Vec<SharedMemory>,
    format: CacheFormat,
    kv_heads: usize,
    head_dim: usize,
}

/// Rows of a step that are consecutive positions of one text.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The pages that hold the text, from position 0 on.
    pub pages: &'a [u32],
    /// The position of the first row.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
}

impl Run<'_> {
    /// The page of a position.
    #[inline(always)]
    pub(crate) fn page(&self, position: usize) -> usize {
        self.pages[position / PAGE_POSITIONS] as usize
    }
}

impl LayerPages {
    /// A layer without pages.
    ///
    /// # Panics
    /// Where a size is 0, or a page's size overflows.
    #[must_use]
    pub fn new(kv_heads: usize, head_dim: usize, format: CacheFormat) -> Self {
        assert!(kv_heads > 0 && head_dim > 0, "a cache needs heads and dimensions");
        let sizes = [kv_heads, head_dim, PAGE_POSITIONS, format.bytes()];
        let bytes = sizes.iter().try_fold(2_usize, |product, &size| product.checked_mul(size));
        assert!(bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok()), "a page's size overflows");
        Self { pages: Vec::new(), format, kv_heads, head_dim }
    }

    /// Sees to it that there are `pages` pages or more. Memory is taken as positions are written.
    ///
    /// # Errors
    /// The bytes that cannot be had; what there was stays.
    pub fn grow(&mut self, pages: usize) -> Result<(), OutOfMemory> {
        while self.pages.len() < pages {
            self.pages.push(SharedMemory::try_new(self.page_bytes())?);
        }
        Ok(())
    }

    /// Gives back the memory of all pages but the first `pages`.
    pub fn truncate(&mut self, pages: usize) {
        self.pages.truncate(pages);
    }

    /// Copies a page over another.
    ///
    /// # Panics
    /// Where there is no such page.
    pub fn copy(&mut self, from: u32, to: u32) {
        if from != to {
            let bytes = self.page_bytes();
            // SAFETY: borrowed alone, and another page than the one that is read.
            let to = unsafe { self.pages[to as usize].slice_mut(0, bytes) };
            to.copy_from_slice(self.pages[from as usize].slice(0, bytes));
        }
    }

    /// Appends rows; `keys` and `values` are `[rows, kv_heads, head_dim]`, the runs' rows one after the other.
    ///
    /// # Panics
    /// Where a length does not fit, or a run reaches past its pages.
    pub fn append(&mut self, keys: &[f32], values: &[f32], runs: &[Run<'_>]) {
        let width = self.kv_heads * self.head_dim;
        let rows: usize = runs.iter().map(|run| run.rows).sum();
        assert_eq!(keys.len(), rows * width, "keys are [rows, kv_heads, head_dim]");
        assert_eq!(values.len(), rows * width, "values are [rows, kv_heads, head_dim]");
        let mut keys = keys.to_vec();
        let keys = SharedOutput::new(&mut keys);
        let room = self.room(runs);
        for head in 0..room.cache.kv_heads {
            // SAFETY: each head once, on one thread.
            Isa::best().enter(unsafe { room.append(head, &keys, values) });
        }
    }

    /// Room for the rows of these runs, which threads fill head by head.
    pub(crate) fn room<'a>(&'a mut self, runs: &'a [Run<'a>]) -> Room<'a> {
        Room { cache: self, runs }
    }

    /// Storage format of keys and values.
    #[must_use]
    pub fn format(&self) -> CacheFormat {
        self.format
    }

    /// Heads of keys and values.
    #[must_use]
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Values of one head at one position.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.kv_heads * self.head_bytes()
    }

    /// Bytes of a head in a page, keys and values.
    #[inline(always)]
    fn head_bytes(&self) -> usize {
        2 * PAGE_POSITIONS * self.head_dim * self.format.bytes()
    }

    /// The keys of a head in a page as they are stored, `[4][head_dim][16]`, and its values, `[64, head_dim]`. What they hold at
    /// positions that were not written may be anything.
    #[inline(always)]
    pub(crate) fn head(&self, page: usize, head: usize) -> (&[u8], &[u8]) {
        let bytes = self.head_bytes();
        self.pages[page].slice(head * bytes, bytes).split_at(bytes / 2)
    }
}

/// Positions of a cache that are about to be written.
pub(crate) struct Room<'a> {
    cache: &'a LayerPages,
    runs: &'a [Run<'a>],
}

impl Room<'_> {
    /// A writer that appends a head of `keys` and `values`, `[rows, kv_heads, head_dim]`.
    ///
    /// # Safety
    /// While it lives, the same head must not be asked for again, and nobody else may have that head of `keys`.
    pub(crate) unsafe fn append<'a>(
        &'a self,
        head: usize,
        keys: &'a SharedOutput<'a>,
        values: &'a [f32],
    ) -> AppendHead<'a> {
        AppendHead { cache: self.cache, runs: self.runs, head, keys, values }
    }
}

/// Appends a head's keys and values.
pub(crate) struct AppendHead<'a> {
    /// Borrowed alone, but for this head's part, which is ours.
    cache: &'a LayerPages,
    runs: &'a [Run<'a>],
    head: usize,
    /// Of all heads, of which no other thread may change this one meanwhile.
    keys: &'a SharedOutput<'a>,
    /// Of all heads.
    values: &'a [f32],
}

impl Op for AppendHead<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.cache.format {
            CacheFormat::F32 => self.append::<S, StoredF32, 4>(s),
            CacheFormat::F16 => self.append::<S, StoredF16, 2>(s),
        }
    }
}

impl AppendHead<'_> {
    #[inline(always)]
    fn append<S: Simd, W: Store<BYTES>, const BYTES: usize>(self, s: S) {
        let mut row = 0;
        for run in self.runs {
            for position in run.start..run.start + run.rows {
                self.append_row::<S, W, BYTES>(s, row, run.page(position), position % PAGE_POSITIONS);
                row += 1;
            }
        }
    }

    /// Writes a row to a place in a page.
    #[inline(always)]
    fn append_row<S: Simd, W: Store<BYTES>, const BYTES: usize>(&self, s: S, row: usize, page: usize, place: usize) {
        let (dim, bytes) = (self.cache.head_dim, self.cache.head_bytes());
        let of_head = (row * self.cache.kv_heads + self.head) * dim;
        // SAFETY: this head is ours, as the field says.
        let keys = unsafe { self.keys.slice(of_head, dim) };
        // SAFETY: this head of the cache is ours, as the field says.
        let cached = unsafe { self.cache.pages[page].slice_mut(self.head * bytes, bytes) };
        let (cached_keys, cached_values) = cached.as_chunks_mut::<BYTES>().0.split_at_mut(PAGE_POSITIONS * dim);
        let cached = &mut cached_values[place * dim..(place + 1) * dim];
        for (to, values) in cached.chunks_mut(LANES).zip(self.values[of_head..of_head + dim].chunks(LANES)) {
            let stored = W::narrow(s, load(s, values));
            to.copy_from_slice(&stored[..to.len()]);
        }
        let (group, lane) = (place / TOGETHER, place % TOGETHER);
        let cached = &mut cached_keys[group * TOGETHER * dim..(group + 1) * TOGETHER * dim];
        for (to, keys) in cached.chunks_mut(TOGETHER * LANES).zip(keys.chunks(LANES)) {
            let stored = W::narrow(s, load(s, keys));
            for (to, stored) in to.chunks_exact_mut(TOGETHER).zip(stored) {
                to[lane] = stored;
            }
        }
    }
}

/// Up to sixteen values.
#[inline(always)]
fn load<S: Simd>(s: S, values: &[f32]) -> S::V {
    match values.try_into() {
        Ok(whole) => s.load(whole),
        Err(_) => s.load_tail(values),
    }
}

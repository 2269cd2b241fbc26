//! The keys and values that attention looks back on, of one layer.

use std::fmt;

use crate::allocator::OutOfMemory;
use crate::buffer::{AlignedBuffer, SharedOutput};
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

/// Positions whose keys lie together, so that as many lanes hold their scores and no sum across lanes is needed.
const TOGETHER: usize = 16;

/// Keys and values of one layer. Values are `[kv_head][capacity][head_dim]`, one head's positions one after the other;
/// keys are `[kv_head][capacity / 16][head_dim][16]`, the capacity rounded up.
pub struct LayerCache {
    keys: AlignedBuffer,
    values: AlignedBuffer,
    format: CacheFormat,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    len: usize,
}

impl LayerCache {
    /// An empty cache for `capacity` positions. Memory is taken as positions are written.
    ///
    /// # Panics
    /// Where the sizes are 0 (capacity may be), their product overflows, or there is no memory for it.
    #[must_use]
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize, format: CacheFormat) -> Self {
        Self::try_new(kv_heads, head_dim, capacity, format).expect("memory for a cache")
    }

    /// As [`LayerCache::new`], where memory may be short.
    ///
    /// # Errors
    /// The bytes that cannot be had.
    ///
    /// # Panics
    /// Where the sizes are 0 (capacity may be), or their product overflows.
    pub fn try_new(
        kv_heads: usize,
        head_dim: usize,
        capacity: usize,
        format: CacheFormat,
    ) -> Result<Self, OutOfMemory> {
        assert!(kv_heads > 0 && head_dim > 0, "a cache needs heads and dimensions");
        let floats = |positions: usize| {
            let sizes = [head_dim, positions, format.bytes()];
            let bytes = sizes.iter().try_fold(kv_heads, |product, &size| product.checked_mul(size));
            bytes.expect("a cache's size overflows").div_ceil(size_of::<f32>())
        };
        let rounded_up = capacity.checked_next_multiple_of(TOGETHER).expect("a cache's size overflows");
        Ok(Self {
            keys: AlignedBuffer::try_new(floats(rounded_up))?,
            values: AlignedBuffer::try_new(floats(capacity))?,
            format,
            kv_heads,
            head_dim,
            capacity,
            len: 0,
        })
    }

    /// Appends `rows` positions; `keys` and `values` are `[rows, kv_heads, head_dim]`.
    ///
    /// # Panics
    /// Where a length does not fit, or the positions exceed the capacity.
    pub fn append(&mut self, keys: &[f32], values: &[f32], rows: usize) {
        let width = self.kv_heads * self.head_dim;
        assert_eq!(keys.len(), rows * width, "keys are [rows, kv_heads, head_dim]");
        assert_eq!(values.len(), rows * width, "values are [rows, kv_heads, head_dim]");
        let mut keys = keys.to_vec();
        let keys = SharedOutput::new(&mut keys);
        let room = self.extend(rows);
        for head in 0..room.kv_heads {
            // SAFETY: each head once, on one thread.
            Isa::best().enter(unsafe { room.append(head, &keys, values) });
        }
    }

    /// Room for `rows` more positions, which are held from now on: every head must be appended.
    ///
    /// # Panics
    /// Where the positions exceed the capacity.
    pub(crate) fn extend(&mut self, rows: usize) -> Room<'_> {
        assert!(rows <= self.capacity - self.len, "{rows} more than {} of {} positions", self.len, self.capacity);
        let start = self.len;
        self.len += rows;
        let Self { format, kv_heads, head_dim, capacity, .. } = *self;
        let keys = SharedOutput::new(self.keys.as_mut_bytes());
        let values = SharedOutput::new(self.values.as_mut_bytes());
        Room { keys, values, format, kv_heads, head_dim, capacity, start }
    }

    /// Forgets all positions from `len` on, in constant time; does nothing if there are none.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Positions held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if it holds no position.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
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

    /// Bytes of the positions held, keys and values together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        2 * self.len * self.kv_heads * self.head_dim * self.format.bytes()
    }

    /// The keys of a head as they are stored, `[len / 16][head_dim][16]` with the length rounded up, and its values,
    /// `[len, head_dim]`. What the last sixteen keys hold beyond the length may be anything.
    pub(crate) fn head(&self, head: usize) -> (&[u8], &[u8]) {
        let bytes = self.head_dim * self.format.bytes();
        let of_head = |capacity: usize, len: usize| head * capacity * bytes..(head * capacity + len) * bytes;
        let keys = of_head(self.capacity.next_multiple_of(TOGETHER), self.len.next_multiple_of(TOGETHER));
        (&self.keys.as_bytes()[keys], &self.values.as_bytes()[of_head(self.capacity, self.len)])
    }
}

/// New positions of a cache, which threads fill head by head.
pub(crate) struct Room<'a> {
    keys: SharedOutput<'a, u8>,
    values: SharedOutput<'a, u8>,
    format: CacheFormat,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    /// The first of the positions.
    start: usize,
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
        let bytes = self.head_dim * self.format.bytes();
        let of_keys = self.capacity.next_multiple_of(TOGETHER) * bytes;
        // SAFETY: heads do not overlap, and each is taken once.
        let cached_keys = unsafe { self.keys.slice(head * of_keys, of_keys) };
        // SAFETY: as above.
        let cached_values = unsafe { self.values.slice(head * self.capacity * bytes, self.capacity * bytes) };
        let Self { format, kv_heads, head_dim, start, .. } = *self;
        AppendHead { cached_keys, cached_values, format, kv_heads, head_dim, start, head, keys, values }
    }
}

/// Appends a head's keys and values.
pub(crate) struct AppendHead<'a> {
    /// All that the cache holds of the head.
    cached_keys: &'a mut [u8],
    cached_values: &'a mut [u8],
    format: CacheFormat,
    kv_heads: usize,
    head_dim: usize,
    start: usize,
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
        match self.format {
            CacheFormat::F32 => self.append::<S, StoredF32, 4>(s),
            CacheFormat::F16 => self.append::<S, StoredF16, 2>(s),
        }
    }
}

impl AppendHead<'_> {
    #[inline(always)]
    fn append<S: Simd, W: Store<BYTES>, const BYTES: usize>(self, s: S) {
        let (dim, width) = (self.head_dim, self.kv_heads * self.head_dim);
        let cached_keys = self.cached_keys.as_chunks_mut::<BYTES>().0;
        let cached_values = self.cached_values.as_chunks_mut::<BYTES>().0;
        for (row, values) in self.values.chunks_exact(width).enumerate() {
            let (position, of_head) = (self.start + row, self.head * dim..(self.head + 1) * dim);
            // SAFETY: this head is ours, as the field says.
            let keys = unsafe { self.keys.slice(row * width + of_head.start, dim) };
            let cached = &mut cached_values[position * dim..(position + 1) * dim];
            for (to, values) in cached.chunks_mut(LANES).zip(values[of_head].chunks(LANES)) {
                let stored = W::narrow(s, load(s, values));
                to.copy_from_slice(&stored[..to.len()]);
            }
            let (group, lane) = (position / TOGETHER, position % TOGETHER);
            let cached = &mut cached_keys[group * TOGETHER * dim..(group + 1) * TOGETHER * dim];
            for (to, keys) in cached.chunks_mut(TOGETHER * LANES).zip(keys.chunks(LANES)) {
                let stored = W::narrow(s, load(s, keys));
                for (to, stored) in to.chunks_exact_mut(TOGETHER).zip(stored) {
                    to[lane] = stored;
                }
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

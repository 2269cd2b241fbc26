//! The keys and values that attention looks back on, of one layer.

use std::fmt;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::buffer::AlignedBuffer;

/// How a cache holds keys and values.
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

    /// Writes values to as many times [`CacheFormat::bytes`], little-endian.
    fn store(self, values: &[f32], to: &mut [u8]) {
        match self {
            Self::F32 => {
                for (to, value) in to.as_chunks_mut().0.iter_mut().zip(values) {
                    *to = value.to_le_bytes();
                }
            }
            Self::F16 => {
                let mut narrow = [f16::ZERO; 64];
                for (to, values) in to.chunks_mut(2 * narrow.len()).zip(values.chunks(narrow.len())) {
                    let narrow = &mut narrow[..values.len()];
                    narrow.convert_from_f32_slice(values);
                    for (to, value) in to.as_chunks_mut().0.iter_mut().zip(narrow) {
                        *to = value.to_le_bytes();
                    }
                }
            }
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
    /// A position's key as it is stored, before it is put in its place.
    key: Vec<u8>,
}

impl LayerCache {
    /// An empty cache for `capacity` positions. Memory is taken as positions are written.
    ///
    /// # Panics
    /// Where the sizes are 0 (capacity may be) or their product overflows.
    #[must_use]
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize, format: CacheFormat) -> Self {
        assert!(kv_heads > 0 && head_dim > 0, "a cache needs heads and dimensions");
        let floats = |positions: usize| {
            let sizes = [head_dim, positions, format.bytes()];
            let bytes = sizes.iter().try_fold(kv_heads, |product, &size| product.checked_mul(size));
            bytes.expect("a cache's size overflows").div_ceil(size_of::<f32>())
        };
        let rounded_up = capacity.checked_next_multiple_of(TOGETHER).expect("a cache's size overflows");
        Self {
            keys: AlignedBuffer::new(floats(rounded_up)),
            values: AlignedBuffer::new(floats(capacity)),
            format,
            kv_heads,
            head_dim,
            capacity,
            len: 0,
            key: vec![0; head_dim * format.bytes()],
        }
    }

    /// Appends `rows` positions; `keys` and `values` are `[rows, kv_heads, head_dim]`.
    ///
    /// # Panics
    /// Where a length does not fit, or the positions exceed the capacity.
    pub fn append(&mut self, keys: &[f32], values: &[f32], rows: usize) {
        let width = self.kv_heads * self.head_dim;
        assert_eq!(keys.len(), rows * width, "keys are [rows, kv_heads, head_dim]");
        assert_eq!(values.len(), rows * width, "values are [rows, kv_heads, head_dim]");
        assert!(rows <= self.capacity - self.len, "{rows} more than {} of {} positions", self.len, self.capacity);
        let bytes = self.head_dim * self.format.bytes();
        let place = |index: usize| (self.len + index / self.kv_heads, index % self.kv_heads);
        let buffer = self.values.as_mut_bytes();
        for (index, values) in values.chunks_exact(self.head_dim).enumerate() {
            let (position, head) = place(index);
            let at = (head * self.capacity + position) * bytes;
            self.format.store(values, &mut buffer[at..at + bytes]);
        }
        let (buffer, groups) = (self.keys.as_mut_bytes(), self.capacity.div_ceil(TOGETHER));
        for (index, key) in keys.chunks_exact(self.head_dim).enumerate() {
            let (position, head) = place(index);
            let group = head * groups + position / TOGETHER;
            let lanes = &mut buffer[group * TOGETHER * bytes..(group + 1) * TOGETHER * bytes];
            self.format.store(key, &mut self.key);
            match self.format {
                CacheFormat::F32 => scatter::<4>(&self.key, lanes, position % TOGETHER),
                CacheFormat::F16 => scatter::<2>(&self.key, lanes, position % TOGETHER),
            }
        }
        self.len += rows;
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

    /// Whether it holds no position.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How keys and values are held.
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

/// Puts values of `BYTES` bytes into one of sixteen lanes, `lanes` being `[values][16]`.
fn scatter<const BYTES: usize>(values: &[u8], lanes: &mut [u8], lane: usize) {
    let places = lanes.as_chunks_mut::<BYTES>().0.iter_mut().skip(lane).step_by(TOGETHER);
    for (place, value) in places.zip(values.as_chunks().0) {
        *place = *value;
    }
}

//! The keys and values that attention looks back on, of one layer.

use crate::buffer::AlignedBuffer;

/// Keys and values of one layer in f32, each `[kv_head][capacity][head_dim]`: one head's positions lie one
/// after the other.
pub struct LayerCache {
    keys: AlignedBuffer,
    values: AlignedBuffer,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    len: usize,
}

impl LayerCache {
    /// An empty cache for `capacity` positions. Memory is taken as positions are written.
    ///
    /// # Panics
    /// Where the sizes are 0 (capacity may be) or their product overflows.
    #[must_use]
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize) -> Self {
        assert!(kv_heads > 0 && head_dim > 0, "a cache needs heads and dimensions");
        let values = kv_heads.checked_mul(head_dim).and_then(|width| width.checked_mul(capacity));
        let values = values.expect("a cache's size overflows");
        Self {
            keys: AlignedBuffer::new(values),
            values: AlignedBuffer::new(values),
            kv_heads,
            head_dim,
            capacity,
            len: 0,
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
        for (buffer, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            let buffer = buffer.as_mut_slice();
            for (index, row) in new.chunks_exact(self.head_dim).enumerate() {
                let (position, head) = (self.len + index / self.kv_heads, index % self.kv_heads);
                let at = (head * self.capacity + position) * self.head_dim;
                buffer[at..at + self.head_dim].copy_from_slice(row);
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
        2 * self.len * self.kv_heads * self.head_dim * size_of::<f32>()
    }

    /// The keys and the values of a head, `[len, head_dim]` each.
    pub(crate) fn head(&self, head: usize) -> (&[f32], &[f32]) {
        let (at, len) = (head * self.capacity * self.head_dim, self.len * self.head_dim);
        (&self.keys.as_slice()[at..at + len], &self.values.as_slice()[at..at + len])
    }
}

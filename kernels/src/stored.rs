//! Reading and writing of a cache's values.

use crate::simd::{LANES, Simd};

/// A format of stored values.
pub(crate) trait Stored {
    const BYTES: usize;

    /// Sixteen values, widened.
    ///
    /// # Safety
    /// `16 * BYTES` bytes from `from` on must be readable.
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::V;
}

/// Conversion of values to a stored format of `BYTES` bytes.
pub(crate) trait Store<const BYTES: usize> {
    /// Sixteen values, rounded to the nearest, to even at ties, little-endian.
    fn narrow<S: Simd>(s: S, v: S::V) -> [[u8; BYTES]; LANES];
}

pub(crate) struct StoredF32;
pub(crate) struct StoredF16;

impl Stored for StoredF32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::V {
        // SAFETY: 64 readable bytes, by the caller; a byte array has no alignment.
        s.load_f32(unsafe { &*from.cast() })
    }
}

impl Stored for StoredF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::V {
        // SAFETY: 32 readable bytes, by the caller; a byte array has no alignment.
        s.load_f16(unsafe { &*from.cast() })
    }
}

impl Store<4> for StoredF32 {
    #[inline(always)]
    fn narrow<S: Simd>(s: S, v: S::V) -> [[u8; 4]; LANES] {
        let mut lanes = [0.0; LANES];
        s.store(v, &mut lanes);
        lanes.map(f32::to_le_bytes)
    }
}

impl Store<2> for StoredF16 {
    #[inline(always)]
    fn narrow<S: Simd>(s: S, v: S::V) -> [[u8; 2]; LANES] {
        let mut bytes = [0; 2 * LANES];
        s.store_f16(v, &mut bytes);
        let mut values = [[0; 2]; LANES];
        values.copy_from_slice(bytes.as_chunks().0);
        values
    }
}

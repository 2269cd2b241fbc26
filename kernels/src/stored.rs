//! How a cache's values are read.

use crate::simd::Simd;

/// A format of stored values.
pub(crate) trait Stored {
    const BYTES: usize;

    /// Sixteen values, widened.
    ///
    /// # Safety
    /// `16 * BYTES` bytes from `from` on must be readable.
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::V;
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

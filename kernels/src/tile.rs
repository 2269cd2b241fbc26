//! The inner loop: the dot products of a few rows with a few columns, held in registers.
//!
//! Whatever the tile's shape, one dot product is one accumulator of sixteen lanes, fed by fused multiply-adds
//! in order of k (the tail padded with zeros on both sides) and added up by one tree. So shapes may be chosen
//! for speed alone.

use crate::simd::{LANES, Simd};

/// How weights are stored, for the inner loop.
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

/// The last `count` (below 16) values of a row, padded with zeros.
///
/// # Safety
/// `count * BYTES` bytes from `from` on must be readable.
#[inline(always)]
unsafe fn load_stored_tail<S: Simd, W: Stored>(s: S, from: *const u8, count: usize) -> S::V {
    let mut padded = [0_u8; 4 * LANES];
    // SAFETY: readable by the caller, and shorter than the array.
    unsafe { std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), count * W::BYTES) };
    // SAFETY: the array holds sixteen of the widest values.
    unsafe { W::load(s, padded.as_ptr()) }
}

/// Accumulators of a tile: `[row][column]`.
pub(crate) type Sums<S, const ROWS: usize, const COLUMNS: usize> = [[<S as Simd>::V; COLUMNS]; ROWS];

/// Continues the sums of `ROWS` rows of activations with `COLUMNS` rows of weights by the next `k` values,
/// which must be a multiple of sixteen unless they are the last; `ahead` bytes past each weight is prefetched
/// where it is not 0.
///
/// # Safety
/// Every pointer of `x` must have `k` readable f32 values, aligned as such, every one of `w` `k * W::BYTES`
/// readable bytes.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices into arrays of constant length unroll, and the compiler then keeps them in registers
pub(crate) unsafe fn accumulate<S: Simd, W: Stored, const ROWS: usize, const COLUMNS: usize>(
    s: S,
    x: [*const f32; ROWS],
    w: [*const u8; COLUMNS],
    k: usize,
    ahead: usize,
    sums: &mut Sums<S, ROWS, COLUMNS>,
) {
    let whole = k - k % LANES;
    let mut i = 0;
    while i < whole {
        let mut rows = [s.splat(0.0); ROWS];
        for r in 0..ROWS {
            // SAFETY: i + 16 <= k.
            rows[r] = s.load(unsafe { &*x[r].add(i).cast() });
        }
        for c in 0..COLUMNS {
            // SAFETY: i + 16 <= k.
            let column = unsafe { w[c].add(i * W::BYTES) };
            if ahead != 0 {
                s.prefetch(column.wrapping_add(ahead));
            }
            // SAFETY: as above.
            let column = unsafe { W::load(s, column) };
            for r in 0..ROWS {
                sums[r][c] = s.fma(rows[r], column, sums[r][c]);
            }
        }
        i += LANES;
    }
    if whole < k {
        let count = k - whole;
        let mut rows = [s.splat(0.0); ROWS];
        for r in 0..ROWS {
            // SAFETY: the last `count` of k values.
            rows[r] = s.load_tail(unsafe { std::slice::from_raw_parts(x[r].add(whole), count) });
        }
        for c in 0..COLUMNS {
            // SAFETY: the last `count` of k values.
            let column = unsafe { load_stored_tail::<S, W>(s, w[c].add(whole * W::BYTES), count) };
            for r in 0..ROWS {
                sums[r][c] = s.fma(rows[r], column, sums[r][c]);
            }
        }
    }
}

/// Adds up the lanes of each accumulator.
#[inline(always)]
pub(crate) fn add_up<S: Simd, const ROWS: usize, const COLUMNS: usize>(
    s: S,
    sums: &Sums<S, ROWS, COLUMNS>,
) -> [[f32; COLUMNS]; ROWS] {
    let mut results = [[0.0; COLUMNS]; ROWS];
    for (results, sums) in results.iter_mut().zip(sums) {
        for (results, sums) in results.chunks_mut(4).zip(sums.chunks(4)) {
            let mut four = [s.splat(0.0); 4];
            four[..sums.len()].copy_from_slice(sums);
            results.copy_from_slice(&s.sum4(four)[..sums.len()]);
        }
    }
    results
}

/// The dot products of `ROWS` rows of activations with `COLUMNS` rows of weights.
///
/// # Safety
/// As for [`accumulate`].
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, W: Stored, const ROWS: usize, const COLUMNS: usize>(
    s: S,
    x: [*const f32; ROWS],
    w: [*const u8; COLUMNS],
    k: usize,
    ahead: usize,
) -> [[f32; COLUMNS]; ROWS] {
    let mut sums = [[s.splat(0.0); COLUMNS]; ROWS];
    // SAFETY: passed on from the caller.
    unsafe { accumulate::<S, W, ROWS, COLUMNS>(s, x, w, k, ahead, &mut sums) };
    add_up::<S, ROWS, COLUMNS>(s, &sums)
}

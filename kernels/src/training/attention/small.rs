//! Products of matrices that lie in the nearest cache.

use crate::simd::{LANES, Simd};

/// `sums[r][c] += sum over i < k of a[i * a_step.0 + r * a_step.1] * b[i * b_step + 16 c ..]`, in order of i.
///
/// # Panics
/// Where an element is not inside its slice.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices into arrays of constant length unroll, and the sums stay in registers
pub(super) fn multiply<S: Simd, const R: usize, const C: usize>(
    s: S,
    k: usize,
    a: &[f32],
    a_step: (usize, usize),
    b: &[f32],
    b_step: usize,
    sums: &mut [[S::V; C]; R],
) {
    if k == 0 {
        return;
    }
    assert!((k - 1) * a_step.0 + (R - 1) * a_step.1 < a.len(), "the left matrix has k by R elements");
    assert!((k - 1) * b_step + C * LANES <= b.len(), "the right matrix has k rows of C vectors");
    let (mut a, mut b) = (a.as_ptr(), b.as_ptr());
    for _ in 0..k {
        let mut columns = [s.splat(0.0); C];
        for c in 0..C {
            // SAFETY: inside, as was asserted.
            columns[c] = s.load(unsafe { &*b.add(c * LANES).cast() });
        }
        for r in 0..R {
            // SAFETY: as above.
            let value = s.splat(unsafe { *a.add(r * a_step.1) });
            for c in 0..C {
                sums[r][c] = s.fma(value, columns[c], sums[r][c]);
            }
        }
        // They may end behind their slices, where they are not used any more.
        (a, b) = (a.wrapping_add(a_step.0), b.wrapping_add(b_step));
    }
}

/// `R` rows of `C` vectors, `step` values apart.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as above
pub(super) fn load<S: Simd, const R: usize, const C: usize>(s: S, from: &[f32], step: usize) -> [[S::V; C]; R] {
    let mut rows = [[s.splat(0.0); C]; R];
    for r in 0..R {
        let row = from[r * step..].as_chunks::<LANES>().0;
        for c in 0..C {
            rows[r][c] = s.load(&row[c]);
        }
    }
    rows
}

/// Stores what [`load`] loads.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as above
pub(super) fn store<S: Simd, const R: usize, const C: usize>(s: S, rows: &[[S::V; C]; R], to: &mut [f32], step: usize) {
    for r in 0..R {
        let row = to[r * step..].as_chunks_mut::<LANES>().0;
        for c in 0..C {
            s.store(rows[r][c], &mut row[c]);
        }
    }
}

/// `sums[.., column ..] += a^T b`: a `[k][..]` with rows `a_step` values long, of which the columns up to `rows`, a
/// multiple of 4, count; b `[k][C vectors]`; sums `[rows][C vectors]`.
#[inline(always)]
pub(super) fn add_transposed<S: Simd, const R: usize, const C: usize>(
    s: S,
    k: usize,
    a: &[f32],
    a_step: usize,
    b: &[f32],
    rows: usize,
    sums: &mut [f32],
) {
    let mut row = 0;
    while row < rows {
        let sums = &mut sums[row * C * LANES..];
        match (rows - row).min(R) {
            4 => add_transposed_tile::<S, 4, C>(s, k, &a[row..], a_step, b, sums),
            8 => add_transposed_tile::<S, 8, C>(s, k, &a[row..], a_step, b, sums),
            _ => add_transposed_tile::<S, R, C>(s, k, &a[row..], a_step, b, sums),
        }
        row += R;
    }
}

#[inline(always)]
fn add_transposed_tile<S: Simd, const R: usize, const C: usize>(
    s: S,
    k: usize,
    a: &[f32],
    a_step: usize,
    b: &[f32],
    sums: &mut [f32],
) {
    let mut tile = load::<S, R, C>(s, sums, C * LANES);
    multiply(s, k, a, (a_step, 1), b, C * LANES, &mut tile);
    store(s, &tile, sums, C * LANES);
}

/// `sums += a b`: a `[R][k]`, b `[k][width]`, sums `[R][width]`, with a width of whole vectors.
#[inline(always)]
pub(super) fn add_plain<S: Simd, const R: usize, const C: usize>(
    s: S,
    k: usize,
    a: &[f32],
    b: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    let mut column = 0;
    while column + C * LANES <= width {
        let mut tile = load::<S, R, C>(s, &sums[column..], width);
        multiply(s, k, a, (1, k), &b[column..], width, &mut tile);
        store(s, &tile, &mut sums[column..], width);
        column += C * LANES;
    }
    while column < width {
        let mut tile = load::<S, R, 1>(s, &sums[column..], width);
        multiply(s, k, a, (1, k), &b[column..], width, &mut tile);
        store(s, &tile, &mut sums[column..], width);
        column += LANES;
    }
}

//! Attention of queries over a layer's cache.
//!
//! Every row and head is computed on its own by the online softmax (Milakov and Gimelshein 2018;
//! FlashAttention) over blocks of 64 positions counted from position 0, so the arithmetic depends on the
//! query, its position, the window and the visible keys and values alone. What a cache still holds at
//! positions that are not visible may be anything, and 0 times NaN is NaN: their values are not read, and their keys only
//! in lanes of their own, whose scores are dropped. Queries that share keys and values (heads of a group, or rows of a head)
//! are taken together, for speed; they do not mix.

use std::ops::Range;

use crate::buffer::SharedOutput;
use crate::cache::{CacheFormat, LayerPages, PAGE_POSITIONS, Run};
use crate::elementwise::capped;
use crate::math::exp;
use crate::simd::{LANES, Op, Simd};
use crate::stored::{Stored, StoredF16, StoredF32};

/// Positions in a block, a page. Part of the definition of the result: changing it changes bits.
const BLOCK: usize = PAGE_POSITIONS;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Queries that are taken together.
const TOGETHER: usize = 3;

/// Attention whose sizes have been checked: q and out `[rows, heads, head_dim]`, the runs' rows one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) heads: usize,
    pub(crate) cache: &'a LayerPages,
    pub(crate) runs: &'a [Run<'a>],
    pub(crate) window: Option<usize>,
    pub(crate) scores: Scores,
}

/// The scores of keys for a query, before the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// What the product of query and key is multiplied by.
    pub scale: f32,
    /// A cap c, by which a score x becomes `c * tanh(x / c)`, if there is one.
    pub cap: Option<f32>,
}

impl Scores {
    /// Products that are multiplied by `scale`.
    #[must_use]
    pub fn scaled(scale: f32) -> Self {
        Self { scale, cap: None }
    }
}

impl Attention<'_> {
    /// Rows of a run's unit: several where a head has keys and values of its own and all rows see the first position.
    fn rows_together(&self, run: &Run<'_>) -> usize {
        let all_see_the_first = self.window.is_none_or(|window| run.start + run.rows <= window);
        if self.heads == self.cache.kv_heads() && all_see_the_first { TOGETHER } else { 1 }
    }

    /// Units of one kv head in a run.
    fn units_of(&self, run: &Run<'_>) -> usize {
        run.rows.div_ceil(self.rows_together(run))
    }

    /// Units of one kv head.
    fn units_of_head(&self) -> usize {
        self.runs.iter().map(|run| self.units_of(run)).sum()
    }

    /// Units of the job.
    pub(crate) fn units(&self) -> usize {
        self.units_of_head() * self.cache.kv_heads()
    }

    /// The run of a kv head's unit, with the number of its first row and the unit's number in it.
    fn run_of(&self, mut unit: usize) -> (&Run<'_>, usize, usize) {
        let mut first_row = 0;
        for run in self.runs {
            let units = self.units_of(run);
            if unit < units {
                return (run, first_row, unit);
            }
            unit -= units;
            first_row += run.rows;
        }
        unreachable!("a unit belongs to a run")
    }
}

/// A range of a job's units: rows that are taken together, of one kv head after the other, with all the query heads that
/// share it.
pub(crate) struct Units<'a> {
    pub(crate) job: Attention<'a>,
    pub(crate) range: Range<usize>,
    pub(crate) out: &'a SharedOutput<'a>,
}

impl Op for Units<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.job.cache.format() {
            CacheFormat::F32 => self.look::<S, StoredF32>(s),
            CacheFormat::F16 => self.look::<S, StoredF16>(s),
        }
    }
}

impl Units<'_> {
    #[inline(always)]
    fn look<S: Simd, W: Stored>(&self, s: S) {
        let Attention { q, heads, cache, window, scores, .. } = self.job;
        let dim = cache.head_dim();
        let group = heads / cache.kv_heads();
        let units_of_head = self.job.units_of_head();
        // Sums of even and of odd positions, for the queries that are taken together.
        let padded = dim.next_multiple_of(LANES);
        let mut sums = vec![0.0; 2 * TOGETHER * padded];
        for unit in self.range.clone() {
            let kv_head = unit / units_of_head;
            let (run, run_row, of_run) = self.job.run_of(unit % units_of_head);
            let rows_together = self.job.rows_together(run);
            let unit_rows = of_run * rows_together..run.rows.min((of_run + 1) * rows_together);
            let first = run.start + unit_rows.start;
            let visible = window.map_or(0, |window| (first + 1).saturating_sub(window))..first + 1;
            // One row with many heads, or one head with many rows.
            let (queries, stride) = if rows_together == 1 { (group, dim) } else { (unit_rows.len(), heads * dim) };
            let mut query = 0;
            while query < queries {
                let count = if S::WIDE { (queries - query).min(TOGETHER) } else { 1 };
                let at = ((run_row + unit_rows.start) * heads + kv_head * group) * dim + query * stride;
                let rows_apart = usize::from(rows_together > 1);
                let look = Look {
                    cache,
                    run,
                    kv_head,
                    dim,
                    visible: visible.start..visible.end + query * rows_apart,
                    rows_apart,
                    scores,
                    is_first: query == 0 && (of_run == 0 || unit == self.range.start),
                };
                let (q, out) = (Strided { values: &q[at..], stride }, Place { out: self.out, at, stride });
                match count {
                    1 => look.queries::<S, W, 1>(s, q, &mut sums[..2 * padded], out),
                    2 => look.queries::<S, W, 2>(s, q, &mut sums[..4 * padded], out),
                    _ => look.queries::<S, W, TOGETHER>(s, q, &mut sums[..2 * TOGETHER * padded], out),
                }
                query += count;
            }
        }
    }
}

/// Queries at equal distances.
#[derive(Clone, Copy)]
struct Strided<'a> {
    values: &'a [f32],
    stride: usize,
}

/// Where the results of queries go, at the same distances. They belong to one unit alone, and units to one part.
struct Place<'a> {
    out: &'a SharedOutput<'a>,
    at: usize,
    stride: usize,
}

/// A block of keys and values, as [`LayerPages`] holds them.
#[derive(Clone, Copy)]
struct Block<'a> {
    keys: &'a [u8],
    values: &'a [u8],
    /// Its first position.
    start: usize,
}

/// Keys and values that queries taken together look at.
struct Look<'a> {
    cache: &'a LayerPages,
    run: &'a Run<'a>,
    kv_head: usize,
    dim: usize,
    /// Positions that the first of the queries sees.
    visible: Range<usize>,
    /// Number of positions more that each next query sees: 1 for rows, 0 for heads.
    rows_apart: usize,
    scores: Scores,
    /// True if these keys and values were not read just before, so that they come from far away.
    is_first: bool,
}

impl Look<'_> {
    /// Where what a query sees ends.
    #[inline(always)]
    fn end(&self, query: usize) -> usize {
        self.visible.end + query * self.rows_apart
    }

    /// `HEADS` queries; `sums` is `[HEADS][2][dim padded]`.
    #[inline(always)]
    fn queries<S: Simd, W: Stored, const HEADS: usize>(&self, s: S, q: Strided<'_>, sums: &mut [f32], out: Place<'_>) {
        let (dim, end) = (self.dim, self.end(HEADS - 1));
        let padded = sums.len() / (2 * HEADS);
        sums.fill(0.0);
        let mut greatest = [f32::NEG_INFINITY; HEADS];
        let mut total = [0.0_f32; HEADS];
        let mut first = self.visible.start;
        while first < end {
            let (keys, values) = self.cache.head(self.run.page(first), self.kv_head);
            let block = Block { keys, values, start: first / BLOCK * BLOCK };
            let positions = first..(block.start + BLOCK).min(end);
            let mut weights = [[f32::NEG_INFINITY; BLOCK]; HEADS];
            self.scores::<S, W, HEADS>(s, q, positions.clone(), block, &mut weights);
            // Whole groups past the last visible position weigh nothing, and add nothing to any bit.
            let groups = (positions.end - block.start).div_ceil(LANES);
            let (block_greatest, totals) = soften::<S, HEADS>(s, &mut weights, groups, &greatest);
            let mut fallen = [0.0; LANES];
            for h in 0..HEADS {
                fallen[h] = greatest[h] - block_greatest[h];
                greatest[h] = block_greatest[h];
            }
            let mut decays = [0.0; LANES];
            s.store(exp(s, s.load(&fallen)), &mut decays);
            let mut decay = [0.0; HEADS];
            decay.copy_from_slice(&decays[..HEADS]);
            for h in 0..HEADS {
                total[h] = total[h].mul_add(decay[h], totals[h]);
            }
            self.weigh::<S, W, HEADS>(s, &weights, decay, positions.clone(), block, sums, padded);
            first = positions.end;
        }
        for h in 0..HEADS {
            let (even, odd) = sums[2 * h * padded..][..2 * padded].split_at(padded);
            // SAFETY: this query's own, by what `Place` says.
            let out = unsafe { out.out.slice(out.at + h * out.stride, dim) };
            for ((out, even), odd) in out.iter_mut().zip(even).zip(odd) {
                *out = (even + odd) / total[h];
            }
        }
    }

    /// Scaled scores of `positions`, written where they stand in their block.
    #[inline(always)]
    fn scores<S: Simd, W: Stored, const HEADS: usize>(
        &self,
        s: S,
        q: Strided<'_>,
        positions: Range<usize>,
        block: Block<'_>,
        weights: &mut [[f32; BLOCK]; HEADS],
    ) {
        let mut group = (positions.start - block.start) / LANES;
        let groups = (positions.end - block.start).div_ceil(LANES);
        while group < groups {
            // As many groups at once as there are, so that several chains of additions hide the latency of one.
            group += match groups - group {
                1 => self.group_scores::<S, W, HEADS, 1>(s, q, group, &positions, block, weights),
                2 | 3 => self.group_scores::<S, W, HEADS, 2>(s, q, group, &positions, block, weights),
                _ => self.group_scores::<S, W, HEADS, 4>(s, q, group, &positions, block, weights),
            };
        }
    }

    /// [`Look::scores`] for `GROUPS` groups of sixteen positions, a lane for each: sums along the head's dimensions in
    /// order. Returns `GROUPS`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices unroll
    fn group_scores<S: Simd, W: Stored, const HEADS: usize, const GROUPS: usize>(
        &self,
        s: S,
        q: Strided<'_>,
        group: usize,
        positions: &Range<usize>,
        block: Block<'_>,
        weights: &mut [[f32; BLOCK]; HEADS],
    ) -> usize {
        let (dim, bytes) = (self.dim, self.dim * LANES * W::BYTES);
        let keys = &block.keys[group * bytes..(group + GROUPS) * bytes];
        if self.is_first {
            // The values that these scores will weigh come meanwhile.
            let values = block.values.as_ptr().wrapping_add(group * bytes);
            (0..GROUPS * bytes).step_by(LINE).for_each(|at| s.prefetch(values.wrapping_add(at)));
        }
        let mut sums = [[s.splat(0.0); GROUPS]; HEADS];
        for d in 0..dim {
            let mut lanes = [s.splat(0.0); GROUPS];
            for g in 0..GROUPS {
                // SAFETY: sixteen values of each of `dim` dimensions in each of `GROUPS` groups.
                lanes[g] = unsafe { W::load(s, keys.as_ptr().add(g * bytes + d * LANES * W::BYTES)) };
            }
            for h in 0..HEADS {
                let q = s.splat(q.values[h * q.stride + d]);
                for g in 0..GROUPS {
                    sums[h][g] = s.fma(q, lanes[g], sums[h][g]);
                }
            }
        }
        for g in 0..GROUPS {
            let first = block.start + (group + g) * LANES;
            for h in 0..HEADS {
                let visible = positions.start.max(first)..positions.end.min(first + LANES).min(self.end(h));
                if visible.is_empty() {
                    continue;
                }
                let scaled = s.mul(sums[h][g], s.splat(self.scores.scale));
                let scaled = match self.scores.cap {
                    Some(cap) => capped(s, scaled, cap),
                    None => scaled,
                };
                let mut scores = [0.0; LANES];
                s.store(scaled, &mut scores);
                if visible.len() < LANES {
                    for (lane, score) in scores.iter_mut().enumerate() {
                        *score = if visible.contains(&(first + lane)) { *score } else { f32::NEG_INFINITY };
                    }
                }
                // A whole vector: it is read as one.
                weights[h].as_chunks_mut::<LANES>().0[group + g] = scores;
            }
        }
        GROUPS
    }

    /// Decays the sums and adds the weighted values of `positions` to them, even and odd positions apart: two
    /// chains of additions hide the latency of one.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // all of one block
    fn weigh<S: Simd, W: Stored, const HEADS: usize>(
        &self,
        s: S,
        weights: &[[f32; BLOCK]; HEADS],
        decay: [f32; HEADS],
        positions: Range<usize>,
        block: Block<'_>,
        sums: &mut [f32],
        padded: usize,
    ) {
        let whole = self.dim / LANES * LANES;
        let mut d = 0;
        while d < whole {
            if S::WIDE && whole - d >= 4 * LANES {
                self.weigh_slice::<S, W, HEADS, 4>(s, weights, decay, positions.clone(), block, sums, padded, d, LANES);
                d += 4 * LANES;
            } else if whole - d >= 2 * LANES {
                self.weigh_slice::<S, W, HEADS, 2>(s, weights, decay, positions.clone(), block, sums, padded, d, LANES);
                d += 2 * LANES;
            } else {
                self.weigh_slice::<S, W, HEADS, 1>(s, weights, decay, positions.clone(), block, sums, padded, d, LANES);
                d += LANES;
            }
        }
        if d < self.dim {
            let tail = self.dim - d;
            self.weigh_slice::<S, W, HEADS, 1>(s, weights, decay, positions, block, sums, padded, d, tail);
        }
    }

    /// [`Look::weigh`] for `WIDTH` vectors of the head from dimension `d` on, the last of which has `last`
    /// values (16, or fewer where `WIDTH` is 1).
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // all of one block
    fn weigh_slice<S: Simd, W: Stored, const HEADS: usize, const WIDTH: usize>(
        &self,
        s: S,
        weights: &[[f32; BLOCK]; HEADS],
        decay: [f32; HEADS],
        positions: Range<usize>,
        block: Block<'_>,
        sums: &mut [f32],
        padded: usize,
        d: usize,
        last: usize,
    ) {
        let mut even = [[s.splat(0.0); WIDTH]; HEADS];
        let mut odd = [[s.splat(0.0); WIDTH]; HEADS];
        for h in 0..HEADS {
            let decay = s.splat(decay[h]);
            for v in 0..WIDTH {
                let at = 2 * h * padded + d + v * LANES;
                even[h][v] = s.mul(s.load_tail(&sums[at..at + LANES]), decay);
                odd[h][v] = s.mul(s.load_tail(&sums[at + padded..at + padded + LANES]), decay);
            }
        }
        let seen_by_all = positions.end.min(self.visible.end).max(positions.start);
        let mut position = positions.start;
        if position % 2 == 1 && position < seen_by_all {
            self.add_value::<S, W, HEADS, WIDTH, true>(s, weights, position, block, &mut odd, d, last);
            position += 1;
        }
        while position + 1 < seen_by_all {
            self.add_value::<S, W, HEADS, WIDTH, true>(s, weights, position, block, &mut even, d, last);
            self.add_value::<S, W, HEADS, WIDTH, true>(s, weights, position + 1, block, &mut odd, d, last);
            position += 2;
        }
        while position < positions.end {
            let sums = if position % 2 == 1 { &mut odd } else { &mut even };
            self.add_value::<S, W, HEADS, WIDTH, false>(s, weights, position, block, sums, d, last);
            position += 1;
        }
        for h in 0..HEADS {
            for v in 0..WIDTH {
                let at = 2 * h * padded + d + v * LANES;
                s.store_tail(even[h][v], &mut sums[at..at + LANES]);
                s.store_tail(odd[h][v], &mut sums[at + padded..at + padded + LANES]);
            }
        }
    }

    /// Adds a weighted value to the sums of the queries that see its position: of all of them, if `SEEN_BY_ALL`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, clippy::needless_range_loop)] // all of one block; indices unroll
    fn add_value<S: Simd, W: Stored, const HEADS: usize, const WIDTH: usize, const SEEN_BY_ALL: bool>(
        &self,
        s: S,
        weights: &[[f32; BLOCK]; HEADS],
        position: usize,
        block: Block<'_>,
        sums: &mut [[S::V; WIDTH]; HEADS],
        d: usize,
        last: usize,
    ) {
        let at = ((position - block.start) * self.dim + d) * W::BYTES;
        let value = &block.values[at..][..((WIDTH - 1) * LANES + last) * W::BYTES];
        let mut vectors = [s.splat(0.0); WIDTH];
        if last == LANES {
            for v in 0..WIDTH {
                // SAFETY: sixteen values from `16 * v` on are inside `value`, which holds `16 * WIDTH`.
                vectors[v] = unsafe { W::load(s, value.as_ptr().add(v * LANES * W::BYTES)) };
            }
        } else {
            let mut padded = [0_u8; 4 * LANES];
            padded[..value.len()].copy_from_slice(value);
            // SAFETY: the array holds sixteen of the widest values.
            vectors[0] = unsafe { W::load(s, padded.as_ptr()) };
        }
        for h in 0..HEADS {
            if !SEEN_BY_ALL && position >= self.end(h) {
                continue; // 0 times what is not a number would be none
            }
            let weight = s.splat(weights[h][(position - block.start) % BLOCK]);
            for v in 0..WIDTH {
                sums[h][v] = s.fma(weight, vectors[v], sums[h][v]);
            }
        }
    }
}

/// Turns `groups` vectors of each query's scores (minus infinity where nothing is visible) into `e^(score - greatest)`; returns
/// the greatest scores so far and the block's sums. Queries go side by side: each is a chain of operations that wait for each
/// other.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices unroll
fn soften<S: Simd, const HEADS: usize>(
    s: S,
    scores: &mut [[f32; BLOCK]; HEADS],
    groups: usize,
    before: &[f32; HEADS],
) -> ([f32; 4], [f32; 4]) {
    const { assert!(HEADS <= 4) };
    let mut greatest = [s.splat(0.0); 4];
    let mut totals = greatest;
    for h in 0..HEADS {
        greatest[h] = s.splat(before[h]);
        for vector in &scores[h].as_chunks::<LANES>().0[..groups] {
            greatest[h] = s.max(greatest[h], s.load(vector));
        }
    }
    let greatest = s.max4(greatest);
    for h in 0..HEADS {
        let all = s.splat(greatest[h]);
        for vector in &mut scores[h].as_chunks_mut::<LANES>().0[..groups] {
            let weight = exp(s, s.sub(s.load(vector), all));
            s.store(weight, vector);
            totals[h] = s.add(totals[h], weight);
        }
    }
    (greatest, s.sum4(totals))
}

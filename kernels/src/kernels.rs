//! The kernels' face: checks of sizes, and how work is split over threads.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::attention::{Attention, Units};
use crate::buffer::SharedOutput;
use crate::caches::largest_cache;
use crate::distance::Distance;
use crate::elementwise::{
    Activation, AddResidual, AddRmsNorm, Gated, HeadTransform, Heads, Residual, RmsNorm, SoftCap,
};
use crate::isa::Isa;
use crate::{InstructionSet, LayerPages, Run, Scores, ThreadPool};

/// Work, in values read or multiply-adds over sixteen, that is worth a part of its own: a few microseconds.
const PART: usize = 1 << 14;
/// Where a thread's share is cut, in sixteenths: it is soon too late to help with what has been begun, so parts become
/// smaller, and threads that began at different times end at about the same.
const CUTS: [usize; 5] = [0, 8, 12, 14, 16];
/// Values are split in multiples of this, a cache line of the output.
const COLUMN_GRAIN: usize = 16;

/// Distribution of items over threads: each begins with a share of its own, in parts.
#[derive(Clone, Copy)]
pub(crate) struct Shares {
    threads: usize,
}

impl Shares {
    pub(crate) fn parts(self) -> usize {
        if self.threads == 1 { 1 } else { self.threads * (CUTS.len() - 1) }
    }

    /// The items of a part, possibly none.
    pub(crate) fn range(self, part: usize, items: usize) -> Range<usize> {
        if self.threads == 1 {
            return 0..items;
        }
        let per_thread = CUTS.len() - 1;
        let (thread, part) = (part / per_thread, part % per_thread);
        let whole = self.threads * CUTS[per_thread];
        let bound = |cut: usize| items * (thread * CUTS[per_thread] + cut) / whole;
        bound(CUTS[part])..bound(CUTS[part + 1])
    }
}

/// Threads and an instruction set to compute with.
///
/// All matrices are row-major and flat. Wrong lengths are errors in the calling program and panic. Results
/// have the same bits for every number of threads, instruction set and number of rows; see the crate's
/// documentation.
pub struct Kernels {
    pool: ThreadPool,
    pub(crate) isa: Isa,
    /// Bytes of all packed weights that there are.
    pub(crate) packed: Arc<AtomicUsize>,
    /// Bytes of the largest cache.
    cache: usize,
    distance: Distance,
}

impl Kernels {
    /// Kernels on `threads` threads, the caller included, with the best instruction set of this machine.
    ///
    /// # Errors
    /// The error from starting the threads; `InvalidInput` for 0 threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        Ok(Self::of(ThreadPool::new(threads)?, Isa::best()))
    }

    /// As [`Kernels::new`], with threads bound to processors: see [`ThreadPool::pinned`].
    ///
    /// # Errors
    /// As for [`ThreadPool::pinned`].
    pub fn pinned(threads: usize) -> io::Result<Self> {
        Ok(Self::of(ThreadPool::pinned(threads)?, Isa::best()))
    }

    /// Kernels with a chosen instruction set.
    ///
    /// # Errors
    /// `Unsupported` where this machine does not have it, and as for [`Kernels::new`].
    pub fn with_instruction_set(threads: usize, set: InstructionSet) -> io::Result<Self> {
        let isa = Isa::of(set).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, format!("this machine does not have the instruction set {set}"))
        })?;
        Ok(Self::of(ThreadPool::new(threads)?, isa))
    }

    fn of(pool: ThreadPool, isa: Isa) -> Self {
        Self { pool, isa, packed: Arc::default(), cache: largest_cache(), distance: Distance::default() }
    }

    /// True if a cache has room for all weights that are packed; they are then expected to be there. Decides only the
    /// speed of products.
    #[must_use]
    pub fn weights_fit_a_cache(&self) -> bool {
        self.packed.load(Ordering::Relaxed) <= self.cache
    }

    /// Threads, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set in use.
    #[must_use]
    pub fn instruction_set(&self) -> InstructionSet {
        self.isa.name()
    }

    /// True if the threads run on cores that share no cache, by the most recent measurement. Decides only the speed of
    /// work.
    #[must_use]
    pub fn threads_are_far(&self) -> bool {
        self.distance.is_far(&self.pool)
    }

    /// From now on takes the threads to be far from each other, or near, without looking: to measure and to test both.
    pub fn assume_distance(&self, far: bool) {
        self.distance.assume(far);
    }

    /// Calls `f` with every number below `parts`, each on one of the threads: kernels that it calls run on that thread alone. A
    /// part may wait for those with smaller numbers, if there are no more parts than threads.
    ///
    /// # Panics
    /// With the first panic of `f`, after all parts have ended.
    pub fn side_by_side(&self, parts: usize, f: &(dyn Fn(usize) + Sync)) {
        match parts {
            // The one part has all threads.
            1 => f(0),
            _ => self.pool.run(parts, f),
        }
    }

    /// Calls `f` with ranges that cover `0..items`, split at multiples of `grain`, on as many threads as
    /// `work` is worth.
    pub(crate) fn split(&self, items: usize, grain: usize, work: usize, f: &(dyn Fn(Range<usize>) + Sync)) {
        let grains = items.div_ceil(grain);
        let shares = self.shares(work);
        self.run(shares, &|part| {
            let range = shares.range(part, grains);
            if !range.is_empty() {
                f(range.start * grain..(range.end * grain).min(items));
            }
        });
    }

    /// Calls `f` with every part.
    pub(crate) fn run(&self, shares: Shares, f: &(dyn Fn(usize) + Sync)) {
        self.pool.run(shares.parts(), f);
    }

    /// Distribution of `work` over threads: one part on one thread where it is not worth handing over.
    pub(crate) fn shares(&self, work: usize) -> Shares {
        Shares { threads: if work < 2 * PART { 1 } else { self.threads().min(work / PART) } }
    }

    /// `out = x / sqrt(mean(x^2) + eps) * weight` for every row: x and out `[rows, width]`, weight `[width]`.
    ///
    /// # Panics
    /// Where `x` is not whole rows, `weight` is empty, or `out` has another length than `x`.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let width = check_norm(x, weight, out);
        let out = SharedOutput::new(out);
        self.split(x.len() / width, 1, x.len(), &|range| {
            let (at, len) = (range.start * width, range.len() * width);
            // SAFETY: ranges do not overlap.
            let out = unsafe { out.slice(at, len) };
            self.isa.enter(RmsNorm { x: &x[at..at + len], weight, eps, out });
        });
    }

    /// `x += delta`, after what `residual` makes of it: all `[rows, width]`.
    ///
    /// # Panics
    /// Where `x` is not whole rows, `delta` has another length, or a norm's weight is not `[width]`.
    pub fn add_residual(&self, x: &mut [f32], delta: &[f32], residual: Residual<'_>, width: usize) {
        assert!(width > 0 && x.len().is_multiple_of(width), "x is rows of the width");
        check_residual(x, delta, residual, width);
        let rows = x.len() / width;
        let x = SharedOutput::new(x);
        self.split(rows, 1, 2 * delta.len(), &|range| {
            let (at, len) = (range.start * width, range.len() * width);
            // SAFETY: ranges do not overlap.
            let x = unsafe { x.slice(at, len) };
            self.isa.enter(AddResidual { x, delta: &delta[at..at + len], residual, width });
        });
    }

    /// [`Kernels::add_residual`], then `out` as [`Kernels::rms_norm`] of the sum: all `[rows, width]`, weight `[width]`.
    ///
    /// # Panics
    /// As [`Kernels::rms_norm`] and [`Kernels::add_residual`].
    pub fn add_rms_norm(
        &self,
        x: &mut [f32],
        delta: &[f32],
        residual: Residual<'_>,
        weight: &[f32],
        eps: f32,
        out: &mut [f32],
    ) {
        let width = check_norm(x, weight, out);
        check_residual(x, delta, residual, width);
        let rows = x.len() / width;
        let (x, out) = (SharedOutput::new(x), SharedOutput::new(out));
        self.split(rows, 1, 2 * delta.len(), &|range| {
            let (at, len) = (range.start * width, range.len() * width);
            // SAFETY: ranges do not overlap.
            let (x, out) = unsafe { (x.slice(at, len), out.slice(at, len)) };
            self.isa.enter(AddRmsNorm { x, delta: &delta[at..at + len], residual, weight, eps, out });
        });
    }

    /// Prepares rows for attention: transforms the heads of q `[rows, heads, head_dim]` and k `[rows, kv_heads, head_dim]` in
    /// place, then appends k and v to the cache where the runs say, whose rows are one after the other.
    ///
    /// # Panics
    /// Where more than `head_dim` values are to turn, a slice does not have its shape's length, or a run reaches past its pages.
    pub fn append_rotated(
        &self,
        q: &mut [f32],
        k: &mut [f32],
        v: &[f32],
        runs: &[Run<'_>],
        transform: HeadTransform<'_>,
        cache: &mut LayerPages,
    ) {
        let (dim, rows) = (cache.head_dim(), rows_of(runs));
        assert_eq!(k.len(), rows * cache.kv_heads() * dim, "k is [rows, kv_heads, head_dim]");
        let angles = transform.cos.len();
        assert!(rows == 0 || angles.is_multiple_of(rows) && 2 * angles <= rows * dim, "cos is [rows, rotated / 2]");
        assert_eq!(transform.sin.len(), angles, "sin has the shape of cos");
        let fits = |weight: &[f32]| weight.len() == dim;
        assert!(transform.norms.is_none_or(|n| fits(n.query) && fits(n.key)), "a head's norm is [head_dim]");
        if rows == 0 {
            return;
        }
        assert!(q.len().is_multiple_of(rows * dim), "q is [rows, heads, head_dim]");
        let (kv_heads, heads) = (cache.kv_heads(), q.len() / (rows * dim));
        assert!(heads.is_multiple_of(kv_heads), "query heads share kv heads evenly");
        assert_eq!(v.len(), k.len(), "v is [rows, kv_heads, head_dim]");
        let work = 4 * (q.len() + 2 * k.len());
        let room = cache.room(runs);
        let (shared_q, shared_k) = (SharedOutput::new(q), SharedOutput::new(k));
        // By heads: then a thread transforms what it computed before, and looks at what it appends.
        self.split(kv_heads, 1, work, &|range| {
            for head in range {
                let group = heads / kv_heads;
                let HeadTransform { norms, cos, sin } = transform;
                let norm = norms.map(|norms| (norms.query, norms.eps));
                let of = head * group..(head + 1) * group;
                self.isa.enter(Heads { x: &shared_q, heads, of, rows, dim, norm, cos, sin });
                let norm = norms.map(|norms| (norms.key, norms.eps));
                let of = head..head + 1;
                self.isa.enter(Heads { x: &shared_k, heads: kv_heads, of, rows, dim, norm, cos, sin });
                // SAFETY: a head belongs to one part, and its keys are ready.
                self.isa.enter(unsafe { room.append(head, &shared_k, v) });
            }
        });
    }

    /// `gate = f(gate) * up`, element by element, with the `activation` f.
    ///
    /// # Panics
    /// Where the lengths differ.
    pub fn gated(&self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up have one shape");
        let gate = SharedOutput::new(gate);
        self.split(up.len(), COLUMN_GRAIN, up.len(), &|range| {
            // SAFETY: ranges do not overlap.
            let gate = unsafe { gate.slice(range.start, range.len()) };
            self.isa.enter(Gated { gate, up: &up[range], activation });
        });
    }

    /// `x = cap * tanh(x / cap)`, element by element.
    pub fn soft_cap(&self, x: &mut [f32], cap: f32) {
        let (len, x) = (x.len(), SharedOutput::new(x));
        self.split(len, COLUMN_GRAIN, 2 * len, &|range| {
            // SAFETY: ranges do not overlap.
            let x = unsafe { x.slice(range.start, range.len()) };
            self.isa.enter(SoftCap { x, cap });
        });
    }

    /// Softmax attention over a layer's cache: q and out `[rows, heads, head_dim]`, the runs' rows one after the other.
    ///
    /// A row sees the positions of its own text up to its own, the last `window` of them where there is a window. Query head h
    /// looks at kv head `h / (heads / kv_heads)`. Scores are as `scores` says. What the cache holds at other positions has no
    /// influence.
    ///
    /// # Panics
    /// Where a slice does not have its shape's length, `heads` is not a multiple of the cache's, the window is 0, or a run
    /// reaches past its pages.
    #[allow(clippy::too_many_arguments)] // the operation has this many
    pub fn attention(
        &self,
        q: &[f32],
        heads: usize,
        runs: &[Run<'_>],
        cache: &LayerPages,
        window: Option<usize>,
        scores: Scores,
        out: &mut [f32],
    ) {
        let (kv_heads, dim) = (cache.kv_heads(), cache.head_dim());
        assert!(heads.is_multiple_of(kv_heads), "query heads share kv heads evenly");
        assert_eq!(q.len(), rows_of(runs) * heads * dim, "q is [rows, heads, head_dim]");
        assert_eq!(out.len(), q.len(), "out has the shape of q");
        assert!(window != Some(0), "a window holds at least the row's own position");
        let out = SharedOutput::new(out);
        let job = Attention { q, heads, cache, runs, window, scores };
        let seen = |run: &Run<'_>| window.map_or(run.start + run.rows, |window| window.min(run.start + run.rows));
        let work = runs.iter().map(|run| run.rows * seen(run)).sum::<usize>() * (heads + kv_heads) * dim / 2;
        self.split(job.units(), 1, work, &|range| self.isa.enter(Units { job, range, out: &out }));
    }
}

/// The rows of all runs.
fn rows_of(runs: &[Run<'_>]) -> usize {
    runs.iter().map(|run| run.rows).sum()
}

/// Checks that what is added has its shape.
fn check_residual(x: &[f32], delta: &[f32], residual: Residual<'_>, width: usize) {
    assert_eq!(delta.len(), x.len(), "delta has the shape of x");
    assert!(residual.norm.is_none_or(|(weight, _)| weight.len() == width), "a norm's weight is [width]");
}

/// The width of a norm.
fn check_norm(x: &[f32], weight: &[f32], out: &[f32]) -> usize {
    let width = weight.len();
    assert!(width > 0, "a norm needs a weight");
    assert!(x.len().is_multiple_of(width), "x is rows of the weight's length");
    assert_eq!(out.len(), x.len(), "out has the shape of x");
    width
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernels({}, {} threads)", self.instruction_set(), self.threads())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;
    use crate::{FloatFormat, MatrixFormat, WeightArena, Weights};

    #[test]
    fn packed_weights_count_as_long_as_they_live() {
        let kernels = Kernels::new(1).unwrap();
        let source = Weights::from_f32(vec![1.0; 40 * 70], 40, 70).unwrap();
        let mut arena = WeightArena::default();
        let mut pack = || kernels.pack(&source, MatrixFormat::Float(FloatFormat::F32), &mut arena).unwrap();
        let (first, second) = (pack(), pack());
        let packed = || kernels.packed.load(Ordering::Relaxed);
        assert_eq!(packed(), first.bytes() + second.bytes());
        drop(first);
        assert_eq!(packed(), second.bytes());
        drop(second);
        assert_eq!(packed(), 0);
    }
}

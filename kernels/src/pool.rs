//! A small thread pool for work of microseconds.
//!
//! A forward pass hands over a few hundred times per token, so a hand-over must cost about a microsecond
//! while a pass runs and nothing between passes: workers look for work in a short loop and then sleep.
//!
//! One word, the gate, carries the protocol: a generation, an open bit, and the number of workers inside. A
//! worker enters an open gate by compare-and-swap, takes parts, its own share first, until there are none, and leaves.
//! The caller takes parts too, closes the gate when they are gone, and waits until nobody is inside. A worker
//! that the system has not scheduled in time finds the gate closed and delays nobody.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::affinity::bind_to;

/// Time that a worker looks for work before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Looks between two readings of the clock.
const LOOKS: u32 = 64;

/// The gate's layout: workers inside in the low bits, then the open bit, then the generation.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const GENERATION: u64 = 1 << 32;

thread_local! {
    /// True while this thread runs a part: a job it starts then runs on it alone instead of waiting for itself.
    static IN_PART: Cell<bool> = const { Cell::new(false) };
}

type Work = dyn Fn(usize) + Sync;

struct Job {
    work: *const Work,
    parts: usize,
}

/// Something on cache lines of its own: two, as some processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Lines<T>(T);

impl<T> Deref for Lines<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The gate that a worker waits at, with the job that it finds after entering.
#[derive(Default)]
struct Gate {
    word: AtomicU64,
    job: UnsafeCell<Option<Job>>,
}

/// State shared with the workers. Fields that they poll all the time lie apart from those that the caller changes in
/// between.
struct Shared {
    gate: Lines<Gate>,
    /// For each thread, the next of the parts that it begins with.
    next: Vec<Lines<AtomicUsize>>,
    panic: Lines<Mutex<Option<Box<dyn Any + Send>>>>,
    sleepers: Lines<AtomicUsize>,
    bed: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
}

// SAFETY: `job` is written only by the caller that holds `ThreadPool::turn` while the gate is closed and
// nobody is inside, and read only by workers inside; the gate's release and acquire order the two. What `job`
// points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: nothing in it belongs to a thread; the pointer in `job` is used only as said above.
unsafe impl Send for Shared {}

/// Threads that run the parts of one job at a time, the calling thread among them.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

impl ThreadPool {
    /// A pool of `threads` threads, the caller of [`ThreadPool::run`] included: `threads - 1` are started.
    ///
    /// # Errors
    /// The error from starting a thread; `InvalidInput` for 0 threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        Self::start(threads, false)
    }

    /// As [`ThreadPool::new`], with each started thread bound to a processor of its own, as far as there are enough.
    /// The first processor is left to the caller, who is not bound.
    ///
    /// # Errors
    /// As for [`ThreadPool::new`], and what binding a thread failed with.
    pub fn pinned(threads: usize) -> io::Result<Self> {
        Self::start(threads, true)
    }

    fn start(threads: usize, pin: bool) -> io::Result<Self> {
        if threads == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a thread pool needs at least one thread"));
        }
        let shared = Arc::new(Shared {
            gate: Lines::default(),
            next: (0..threads).map(|_| Lines::default()).collect(),
            panic: Lines::default(),
            sleepers: Lines::default(),
            bed: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        // Built first, so that dropping it ends the threads already started when a later one fails to start.
        let mut pool = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        let (bound, results) = mpsc::channel();
        for index in 1..threads {
            let (shared, bound) = (Arc::clone(&pool.shared), bound.clone());
            let builder = std::thread::Builder::new().name(format!("paceline-{index}"));
            pool.workers.push(builder.spawn(move || {
                // The receiver waits for every thread's word.
                let _ = bound.send(if pin { bind_to(index) } else { Ok(()) });
                drop(bound);
                shared.work(index);
            })?);
        }
        drop(bound);
        results.iter().collect::<io::Result<()>>()?;
        Ok(pool)
    }

    /// Threads that take part in a job, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(0)` to `f(parts - 1)`, each once, in any order and on any of the threads, and returns when
    /// all have ended.
    ///
    /// Callers on several threads take turns. A job started inside a part runs on that part's thread alone.
    ///
    /// # Panics
    /// With the first panic of `f`, after all parts have ended; the other parts are run all the same.
    pub fn run(&self, parts: usize, f: &(dyn Fn(usize) + Sync)) {
        if parts <= 1 || self.workers.is_empty() || IN_PART.get() {
            let mut first = None;
            for part in 0..parts {
                keep_first(&mut first, attempt(f, part));
            }
            if let Some(panic) = first {
                resume_unwind(panic);
            }
            return;
        }
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        // SAFETY: only the lifetime is lengthened. The pointer is used by workers inside the gate, and this
        // function does not return or unwind between opening the gate and having seen it closed and empty.
        let work = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Work>(f) };
        // SAFETY: we hold the turn and the gate is closed and empty, so nobody else reads or writes the cell.
        unsafe { *shared.gate.job.get() = Some(Job { work, parts }) };
        for counter in &shared.next {
            counter.store(0, Ordering::Relaxed);
        }
        let generation = shared.gate.word.load(Ordering::Relaxed) & !(GENERATION - 1);
        // Sequentially consistent, like the two lines in `sleep` that it must not pass: either we see the
        // sleeper, or it sees the gate.
        shared.gate.word.store(generation.wrapping_add(GENERATION) | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.bed));
            shared.wake.notify_all();
        }
        shared.take_parts(f, parts, 0);
        shared.gate.word.fetch_and(!OPEN, Ordering::SeqCst);
        let mut looks = 0_u32;
        while shared.gate.word.load(Ordering::Acquire) & INSIDE != 0 {
            looks = looks.saturating_add(1);
            // A worker inside that is not running needs our core more than we do.
            if looks < 4096 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.bed));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panics are caught and handed to the caller of `run`; there is none left to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(generation) = self.enter(seen) {
            seen = generation;
            // SAFETY: we are inside, so the caller neither writes the cell nor returns before we leave.
            let job = unsafe { (*self.gate.job.get()).as_ref() };
            if let Some(job) = job {
                // SAFETY: as above, what it points to lives until we leave.
                self.take_parts(unsafe { &*job.work }, job.parts, thread);
            }
            self.gate.word.fetch_sub(1, Ordering::Release);
        }
    }

    /// Runs parts until there are none: first those of the thread's own share, in order, as neighbours often read
    /// neighbouring memory, then what is left of the others' shares.
    fn take_parts(&self, f: &(dyn Fn(usize) + Sync), parts: usize, thread: usize) {
        let threads = self.next.len();
        for owner in (thread..threads).chain(0..thread) {
            let (first, end) = (parts * owner / threads, parts * (owner + 1) / threads);
            let next = &self.next[owner];
            // Looked at first: a look leaves the counter in its owner's cache.
            while first + next.load(Ordering::Relaxed) < end {
                let part = first + next.fetch_add(1, Ordering::Relaxed);
                if part >= end {
                    break;
                }
                if let Err(panic) = attempt(f, part) {
                    keep_first(&mut lock(&self.panic), Err(panic));
                }
            }
        }
    }

    /// Waits for an open gate of another generation than `seen` and enters it; `None` when the pool is dropped.
    fn enter(&self, seen: u64) -> Option<u64> {
        loop {
            let since = Instant::now();
            while since.elapsed() < SPIN {
                for _ in 0..LOOKS {
                    let gate = self.gate.word.load(Ordering::Relaxed);
                    if is_new(gate, seen)
                        && self.gate.word.compare_exchange(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
                    {
                        return Some(gate / GENERATION);
                    }
                    std::hint::spin_loop();
                }
                if self.stop.load(Ordering::Relaxed) {
                    return None;
                }
            }
            self.sleep(seen);
        }
    }

    fn sleep(&self, seen: u64) {
        let mut bed = lock(&self.bed);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !is_new(self.gate.word.load(Ordering::SeqCst), seen) && !self.stop.load(Ordering::SeqCst) {
            bed = self.wake.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

fn is_new(gate: u64, seen: u64) -> bool {
    gate & OPEN != 0 && gate / GENERATION != seen
}

/// Nothing is left half done by a panic while one of these locks is held, so poisoning says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attempt(f: &(dyn Fn(usize) + Sync), part: usize) -> Result<(), Box<dyn Any + Send>> {
    let outer = IN_PART.replace(true);
    let result = catch_unwind(AssertUnwindSafe(|| f(part)));
    IN_PART.set(outer);
    result
}

/// Keeps the first panic and forgets later ones: dropping what they carry is the caller's code and may panic
/// itself, which would unwind out of `run` while workers still use its borrow, or out of a worker before it
/// has left the gate. A leak is the lesser evil.
fn keep_first(first: &mut Option<Box<dyn Any + Send>>, result: Result<(), Box<dyn Any + Send>>) {
    match result {
        Err(panic) if first.is_none() => *first = Some(panic),
        Err(panic) => std::mem::forget(panic),
        Ok(()) => {}
    }
}

//! Distance between the threads: whether they share a cache.
//!
//! Systems move threads between cores, and shared machines move cores, so this is looked at again and again while work goes
//! on. It decides how work is shared out and so how fast it is done, and never what comes out.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::ThreadPool;

/// Questions between two looks.
const BETWEEN: usize = 64;
/// Meetings of all threads in a look; the median counts.
const MEETINGS: usize = 15;
/// The longest that a meeting waits for a thread which the system does not run.
const PATIENCE: Duration = Duration::from_micros(20);
/// A meeting that takes longer, for every further thread, is between cores that share no cache: 0.57 to 1.13 us there, 0.13 to
/// 0.2 between others (EPYC, Zen 5, 2026-11-21).
const FAR: Duration = Duration::from_nanos(400);

/// The distance as last measured or assumed.
#[derive(Default)]
pub(crate) struct Distance {
    far: AtomicBool,
    asked: AtomicUsize,
    /// True if it was set by the caller instead of measured.
    assumed: AtomicBool,
}

impl Distance {
    /// True if the threads are far from each other, by the most recent measurement.
    pub(crate) fn is_far(&self, pool: &ThreadPool) -> bool {
        let due = self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(BETWEEN);
        if due && pool.threads() > 1 && !self.assumed.load(Ordering::Relaxed) {
            let took = look(pool);
            // Where the system lets the threads run in turns, nothing is learned.
            if took < PATIENCE {
                self.far.store(took > FAR * (pool.threads() - 1) as u32, Ordering::Relaxed);
            }
        }
        self.far.load(Ordering::Relaxed)
    }

    /// Is told instead of looking.
    pub(crate) fn assume(&self, far: bool) {
        self.far.store(far, Ordering::Relaxed);
        self.assumed.store(true, Ordering::Relaxed);
    }
}

/// Time until every thread knows that all have arrived, the median of some meetings.
fn look(pool: &ThreadPool) -> Duration {
    let mut meetings: Vec<Duration> = (0..MEETINGS).map(|_| meeting(pool)).collect();
    meetings.sort();
    meetings[MEETINGS / 2]
}

fn meeting(pool: &ThreadPool) -> Duration {
    let (threads, there) = (pool.threads(), AtomicUsize::new(0));
    let started = Instant::now();
    pool.run(threads, &|_| {
        there.fetch_add(1, Ordering::AcqRel);
        while there.load(Ordering::Acquire) < threads && started.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
    });
    started.elapsed()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_look_ends_and_one_thread_is_near_itself() {
        for threads in [1, 2, 5] {
            let pool = ThreadPool::new(threads).unwrap();
            let distance = Distance::default();
            let far = distance.is_far(&pool);
            assert!(threads > 1 || !far, "one thread is far from itself");
            // Between looks the answer stays.
            assert!((0..BETWEEN - 1).all(|_| distance.is_far(&pool) == far));
            for said in [true, false] {
                distance.assume(said);
                assert!((0..2 * BETWEEN).all(|_| distance.is_far(&pool) == said));
            }
        }
    }
}

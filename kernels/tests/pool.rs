//! The thread pool: every part runs once, whatever else happens.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use paceline_kernels::{InstructionSet, Kernels, ThreadPool};

fn counts(pool: &ThreadPool, parts: usize) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
    pool.run(parts, &|part| {
        counts[part].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_part_runs_once() {
    for threads in [1, 2, 3, 8] {
        let pool = ThreadPool::new(threads).expect("threads start");
        assert_eq!(pool.threads(), threads);
        for parts in [0, 1, 2, 3, 7, 100, 1000] {
            assert_eq!(counts(&pool, parts), vec![1; parts]);
        }
    }
}

#[test]
fn many_quick_runs() {
    let pool = ThreadPool::new(3).expect("threads start");
    let sum = AtomicUsize::new(0);
    for run in 0..20_000 {
        pool.run(1 + run % 5, &|part| {
            sum.fetch_add(part + 1, Ordering::Relaxed);
        });
    }
    // 1, 1+2, 1+2+3, ... for the five lengths.
    assert_eq!(sum.into_inner(), 4000 * (1 + 3 + 6 + 10 + 15));
}

#[test]
fn sleeping_workers_wake() {
    let pool = ThreadPool::new(2).expect("threads start");
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(3));
        // Each part waits for the other, so both threads are needed.
        let arrived = AtomicUsize::new(0);
        pool.run(2, &|_| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
        });
    }
}

#[test]
fn a_run_inside_a_part_runs_there() {
    let pool = ThreadPool::new(3).expect("threads start");
    let sum = AtomicUsize::new(0);
    pool.run(10, &|outer| {
        let here = std::thread::current().id();
        pool.run(10, &|inner| {
            assert_eq!(std::thread::current().id(), here);
            sum.fetch_add(outer * 10 + inner, Ordering::Relaxed);
        });
    });
    assert_eq!(sum.into_inner(), 4950);
}

#[test]
fn a_panic_reaches_the_caller_after_all_parts() {
    for threads in [1, 2, 4] {
        let pool = ThreadPool::new(threads).expect("threads start");
        for parts in [1, 2, 50] {
            let run = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(parts, &|part| {
                    run.fetch_add(1, Ordering::Relaxed);
                    assert!(part != 0, "part 0 fails");
                });
            }));
            let panic = result.expect_err("part 0 panics");
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"part 0 fails"));
            assert_eq!(run.into_inner(), parts);
            assert_eq!(counts(&pool, 20), [1; 20]);
        }
    }
}

/// What a panic may carry: dropping it panics again.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a panic's payload fails as it is dropped");
    }
}

#[test]
fn panics_whose_payloads_panic_do_no_harm() {
    for threads in [1, 2, 4] {
        let pool = ThreadPool::new(threads).expect("threads start");
        for parts in [2, 3, 50] {
            let run = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(parts, &|_| {
                    run.fetch_add(1, Ordering::Relaxed);
                    std::panic::panic_any(Bomb);
                });
            }));
            let panic = result.expect_err("every part panics").downcast::<Bomb>().expect("it is a part's panic");
            std::mem::forget(panic);
            assert_eq!(run.into_inner(), parts);
            assert_eq!(counts(&pool, 20), [1; 20]);
        }
    }
}

#[test]
fn callers_on_several_threads_take_turns() {
    let pool = ThreadPool::new(2).expect("threads start");
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert_eq!(counts(&pool, 6), [1; 6]);
                    pool.run(4, &|_| {
                        // Two threads work on one job, never more.
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        }
    });
}

#[test]
fn no_threads_is_an_error() {
    assert_eq!(ThreadPool::new(0).err().map(|e| e.kind()), Some(std::io::ErrorKind::InvalidInput));
    assert_eq!(Kernels::new(0).err().map(|e| e.kind()), Some(std::io::ErrorKind::InvalidInput));
}

#[test]
fn instruction_sets_are_what_the_machine_has() {
    let available = InstructionSet::available();
    assert_eq!(available.first(), Some(&InstructionSet::Scalar));
    assert_eq!(available.last(), Some(&InstructionSet::detect()));
    use InstructionSet::{Amx, Avx2, Avx512, AvxVnni, Scalar};
    for set in [Scalar, Avx2, AvxVnni, Avx512, Amx] {
        let kernels = Kernels::with_instruction_set(2, set);
        assert_eq!(kernels.is_ok(), available.contains(&set), "{set}");
        if let Ok(kernels) = kernels {
            assert_eq!((kernels.instruction_set(), kernels.threads()), (set, 2));
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn pinned_threads_do_the_same_work() {
    // More threads than processors share them.
    for threads in [1, 2, 5] {
        let pool = ThreadPool::pinned(threads).expect("Linux binds threads");
        assert_eq!(counts(&pool, 100), [1; 100]);
    }
    assert!(ThreadPool::pinned(0).is_err());
}

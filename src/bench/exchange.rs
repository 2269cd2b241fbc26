//! Time of a cache line from one thread to another and back.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

/// Times that the line goes there and back in a sample.
const TURNS: u32 = 2000;
/// Samples, of which the median counts: threads are moved and interrupted.
const SAMPLES: u32 = 9;
/// Looks in vain after which a thread lets others run: on a single processor the other could not answer before.
const PATIENCE: u32 = 1 << 14;

/// A line of its own, also where processors fetch lines in pairs.
#[repr(align(128))]
struct Ball(AtomicU32);

/// Seconds that a cache line takes from one thread to another and back, the median of some samples.
///
/// # Errors
/// The error of starting the second thread.
pub fn exchange() -> io::Result<f64> {
    let ball = Ball(AtomicU32::new(0));
    let mut samples = Vec::new();
    thread::scope(|scope| {
        // Odd numbers are the other thread's answers.
        thread::Builder::new().name("paceline-exchange".to_owned()).spawn_scoped(scope, || {
            (0..TURNS * SAMPLES).for_each(|turn| answer(&ball, 2 * turn + 1));
        })?;
        for sample in 0..SAMPLES {
            let started = Instant::now();
            for turn in sample * TURNS..(sample + 1) * TURNS {
                ball.0.store(2 * turn + 1, Ordering::Release);
                wait_for(&ball, 2 * turn + 2);
            }
            samples.push(started.elapsed().as_secs_f64() / f64::from(TURNS));
        }
        Ok::<(), io::Error>(())
    })?;
    Ok(super::Spread::of(samples).median)
}

fn answer(ball: &Ball, turn: u32) {
    wait_for(ball, turn);
    ball.0.store(turn + 1, Ordering::Release);
}

fn wait_for(ball: &Ball, value: u32) {
    let mut looks = 0_u32;
    while ball.0.load(Ordering::Acquire) != value {
        looks = looks.saturating_add(1);
        if looks < PATIENCE { std::hint::spin_loop() } else { thread::yield_now() }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_comes_back() {
        let seconds = super::exchange().expect("a thread starts");
        assert!(seconds > 0.0 && seconds < 0.1, "{seconds}");
    }
}

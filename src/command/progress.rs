//! Progress on standard error, and only where a person looks at it.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::output::say_raw;
use crate::visible;

/// Work shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// True while a progress line stands on the terminal.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// A line that says how far some work is.
pub struct Progress {
    visible: bool,
    started: Instant,
    drawn: Instant,
}

impl Progress {
    /// Starts to watch; shows nothing before the work has taken a moment.
    #[allow(clippy::new_without_default, reason = "a default value would not say that the clock starts")]
    pub fn new() -> Self {
        let now = Instant::now();
        Self { visible: std::io::stderr().is_terminal(), started: now, drawn: now }
    }

    /// Shows that `done` of `total` are done, with the time left.
    pub fn show(&mut self, what: &str, done: usize, total: usize) {
        let elapsed = self.started.elapsed();
        if !self.visible || elapsed < PATIENCE || self.drawn.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.drawn = Instant::now();
        let left = elapsed.as_secs_f64() * (total - done.min(total)) as f64 / done.max(1) as f64;
        draw(&format!("{what}: {done} of {total}, {left:.0} s left"));
    }
}

/// Puts `line` in the place of the progress line; for a terminal only.
pub fn draw(line: &str) {
    say_raw(&format!("\r\x1b[K{}", visible::line(line)));
    SHOWN.store(true, Ordering::Relaxed);
}

/// Takes the progress line away.
pub fn clear() {
    if SHOWN.swap(false, Ordering::Relaxed) {
        say_raw("\r\x1b[K");
    }
}

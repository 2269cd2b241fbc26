//! Progress of a long step: a line that is redrawn where a person looks at a terminal, and a plain line every half a
//! minute where standard error goes to a file, so that the log of a training of hours can be read.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use paceline::command::{output, progress};

/// Work shorter than this shows nothing on the way; longer work soon says how long it will take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two drawings on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// Between two lines of a log.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// The rate is that of the last of so much time: a step may get slower or faster on the way.
const WINDOW: Duration = Duration::from_secs(60);

/// Shows how far a step is. What is on the terminal goes when it is dropped.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    started: Instant,
    shown: Option<Instant>,
    meter: Meter,
}

impl Progress {
    /// Starts to watch `what` (`pretrain`, say), of which `done` of `total` `units` (`steps`) were done before.
    pub fn start(what: &str, units: &str, done: u64, total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, started: Instant::now(), shown: None, meter: Meter::new(what, units, done, total) }
    }

    /// Takes note that `done` are done. Shows it, with what `detail` says, if it is time.
    pub fn show(&mut self, done: u64, detail: impl FnOnce() -> String) {
        let now = Instant::now();
        let (since, pause) = match self.shown {
            None => (self.started, PATIENCE),
            Some(shown) if self.terminal => (shown, REDRAW),
            Some(shown) => (shown, LOG_EVERY),
        };
        if now.duration_since(since) < pause {
            return;
        }
        self.shown = Some(now);
        self.meter.observe(now.duration_since(self.started), done);
        let line = self.meter.line(&detail());
        if self.terminal { progress::draw(&line) } else { output::say(&format!("{line}\n")) }
    }

    /// Leaves a last line that stays, with the time it took: `what: all of it, in 3 min 2 s, detail`.
    pub fn finish(self, detail: &str) {
        progress::clear();
        let Meter { what, units, total, first, .. } = &self.meter;
        let done = total.saturating_sub(*first);
        let mut line = format!("{what}: {} {units} in {}", grouped(done), time(self.started.elapsed()));
        if !detail.is_empty() {
            let _ = write!(line, ", {detail}");
        }
        output::say(&format!("{line}\n"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            progress::clear();
        }
    }
}

/// Progress over time, without a clock of its own.
#[derive(Debug)]
struct Meter {
    what: String,
    units: String,
    /// Done before this run.
    first: u64,
    total: u64,
    /// Times since the start, with what was done by then; the first is about [`WINDOW`] old.
    seen: VecDeque<(Duration, u64)>,
}

impl Meter {
    fn new(what: &str, units: &str, done: u64, total: u64) -> Self {
        let seen = VecDeque::from([(Duration::ZERO, done)]);
        Self { what: what.to_owned(), units: units.to_owned(), first: done, total, seen }
    }

    fn observe(&mut self, now: Duration, done: u64) {
        while self.seen.len() > 1 && self.seen.get(1).is_some_and(|(time, _)| *time + WINDOW < now) {
            self.seen.pop_front();
        }
        self.seen.push_back((now, done));
    }

    /// Units a second over the window; none before anything was done.
    fn rate(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.seen.front()?, self.seen.back()?);
        let rate = after.saturating_sub(*before) as f64 / to.saturating_sub(*from).as_secs_f64();
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }

    fn line(&self, detail: &str) -> String {
        let Self { what, units, total, .. } = self;
        let done = self.seen.back().map_or(0, |(_, done)| *done).min(*total);
        let share = 100.0 * done as f64 / (*total).max(1) as f64;
        let mut line = format!("{what}: {} of {} {units} ({share:.1}%)", grouped(done), grouped(*total));
        // Writing into a string cannot fail.
        if let Some(rate) = self.rate() {
            let left = Duration::try_from_secs_f64((total - done) as f64 / rate).unwrap_or(Duration::MAX);
            let _ = write!(line, ", {} a second, {} left", significant(rate), time(left));
        }
        if !detail.is_empty() {
            let _ = write!(line, ", {detail}");
        }
        line
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number above 0 with about three digits.
fn significant(number: f64) -> String {
    match number {
        100.0.. => grouped(number.round() as u64),
        10.0.. => format!("{number:.1}"),
        0.1.. => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

/// `3 h 56 min`, `4 min 10 s`, `12 s`.
pub fn time(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_millis() >= 500);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours @ 0..48, minutes, _) => format!("{hours} h {minutes} min"),
        (hours, ..) => format!("{} days", grouped(hours / 24)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let mut meter = Meter::new("pretrain", "steps", 1000, 3000);
        assert_eq!(meter.line(""), "pretrain: 1,000 of 3,000 steps (33.3%)");
        meter.observe(seconds(20), 1100);
        assert_eq!(
            meter.line("loss 3.2"),
            "pretrain: 1,100 of 3,000 steps (36.7%), 5.00 a second, 6 min 20 s left, loss 3.2"
        );
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let mut meter = Meter::new("x", "steps", 0, 10_000);
        for second in 1..=600 {
            // Ten times slower after a minute.
            let done = if second <= 60 { 10 * second } else { 600 + (second - 60) };
            meter.observe(seconds(second), done);
        }
        assert_eq!(meter.rate(), Some(1.0));
        assert!(meter.seen.len() < 100);
    }

    #[test]
    fn impossible_counts_do_no_harm() {
        let mut meter = Meter::new("x", "steps", 5, 0);
        meter.observe(Duration::ZERO, 9);
        assert_eq!(meter.line(""), "x: 0 of 0 steps (0.0%)");
        meter.observe(seconds(1), 3);
        assert_eq!(meter.rate(), None);
    }

    #[test]
    fn numbers_and_times_are_readable() {
        let times = [0, 59, 61, 3600, 3661, 172_800, u64::MAX].map(|s| time(seconds(s)));
        assert_eq!(times[..5], ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 h 1 min"]);
        assert_eq!(times[5], "2 days");
        assert_eq!([7, 1000, 123_456, 1_234_567].map(grouped), ["7", "1,000", "123,456", "1,234,567"]);
        assert_eq!([0.01234, 2.71, 27.13, 1234.5].map(significant), ["0.0123", "2.71", "27.1", "1,235"]);
    }
}

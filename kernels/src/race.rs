//! Two ways of the same work, of which the faster one here and now is found by doing both.
//!
//! What is faster depends on caches, cores and neighbours that a system does not tell of, least of all a virtual one. So both ways
//! are timed while work goes on, in turns at first and seldom later on. It decides how soon work is done, and never what comes out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Runs of each way that count: the fastest of the last ones, as a run is delayed more often than it is sped up.
const COUNTED: usize = 3;
/// Runs of the faster way until the other one is tried again; twice as many each time that it has lost again.
const PAUSE: u32 = 64;
/// The longest such pause.
const LONGEST_PAUSE: u32 = 4096;

/// The two ways, with what they took.
#[derive(Debug, Default)]
pub struct Race(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The last times of each way, the latest first.
    times: [[Duration; COUNTED]; 2],
    /// Runs of each way that are still to be made before the ways are compared.
    trials: [u32; 2],
    is_decided: bool,
    /// The way that won.
    faster: bool,
    /// Runs of it since then, and how many there are to be.
    since: u32,
    pause: u32,
}

/// A run that is being timed.
#[derive(Debug)]
pub struct Lap {
    way: bool,
    started: Instant,
}

impl Lap {
    /// The way that the run is to take.
    #[must_use]
    pub fn way(&self) -> bool {
        self.way
    }
}

impl Race {
    /// True if a way has won, also while both are compared anew.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.with(|state| state.is_decided)
    }

    /// Begins a run.
    #[must_use]
    pub fn start(&self) -> Lap {
        Lap { way: self.with(State::next), started: Instant::now() }
    }

    /// Ends a run.
    pub fn stop(&self, lap: Lap) {
        let took = lap.started.elapsed();
        self.with(|state| state.note(lap.way, took));
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for State {
    fn default() -> Self {
        let times = [[Duration::ZERO; COUNTED]; 2];
        Self { times, trials: [COUNTED as u32; 2], is_decided: false, faster: false, since: 0, pause: 0 }
    }
}

impl State {
    fn next(&mut self) -> bool {
        match self.trials {
            [0, 0] => self.faster,
            // In turns, so that a machine whose speed drifts favours neither.
            [without, with] if without == with => !self.faster,
            [without, with] => with > without,
        }
    }

    /// Takes the time of a run. Runs may overlap: a way that was run more often than it was to be has not won by that.
    fn note(&mut self, way: bool, took: Duration) {
        let times = &mut self.times[usize::from(way)];
        times.rotate_right(1);
        times[0] = took;
        if self.trials == [0, 0] {
            self.since += 1;
            if self.since >= self.pause {
                self.trials = [COUNTED as u32; 2];
            }
            return;
        }
        let left = &mut self.trials[usize::from(way)];
        *left = left.saturating_sub(1);
        if self.trials == [0, 0] {
            self.decide();
        }
    }

    fn decide(&mut self) {
        let [without, with] = self.times.map(|times| times.into_iter().min());
        let faster = with < without;
        let has_stayed = self.pause > 0 && faster == self.faster;
        self.pause = if has_stayed { (2 * self.pause).min(LONGEST_PAUSE) } else { PAUSE };
        (self.faster, self.since, self.is_decided) = (faster, 0, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs that take what `cost` says by way; returns the ways taken.
    fn run(state: &mut State, runs: usize, cost: impl Fn(usize, bool) -> u64) -> Vec<bool> {
        (0..runs)
            .map(|run| {
                let way = state.next();
                state.note(way, Duration::from_micros(cost(run, way)));
                way
            })
            .collect()
    }

    #[test]
    fn the_faster_way_is_taken_and_the_other_seldom_tried() {
        for faster in [false, true] {
            let mut state = State::default();
            // Every fourth run is disturbed.
            let ways = run(&mut state, 10_000, |run, way| {
                (if way == faster { 100 } else { 120 }) + if run % 4 == 3 { 500 } else { 0 }
            });
            assert_eq!(ways[..6].iter().filter(|way| **way).count(), 3, "both are tried at first");
            let lost = ways.iter().filter(|way| **way != faster).count();
            assert!((6..=40).contains(&lost), "{lost} of 10,000 runs took the slower way");
        }
    }

    #[test]
    fn nothing_is_decided_by_runs_that_were_not_made() {
        let mut state = State::default();
        // Begun side by side, so that each was told the same way.
        let way = state.next();
        for _ in 0..20 {
            state.note(way, Duration::from_micros(100));
        }
        assert!(!state.is_decided && state.next() != way, "the other way has not run yet");
        for _ in 0..COUNTED {
            state.note(!way, Duration::from_micros(120));
        }
        assert!(state.is_decided && state.next() == way);
    }

    #[test]
    fn a_change_is_noticed() {
        let mut state = State::default();
        run(&mut state, 1000, |_, way| if way { 100 } else { 200 });
        assert!(state.faster);
        let ways = run(&mut state, 10_000, |_, way| if way { 300 } else { 200 });
        assert!(!state.faster);
        let late = ways.iter().skip(2000).filter(|way| **way).count();
        assert!(late <= 50, "{late} runs took what had become the slower way");
    }
}

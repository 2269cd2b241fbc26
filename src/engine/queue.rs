//! The requests that wait for the decode thread: a few at most, in the order they came.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Error;
use super::worker::Job;

/// Requests that may wait while one is answered. Each holds its prompt's tokens, so an endless queue would be memory
/// without a bound, and who waits behind that many answers is better told at once. Cancelled ones do not count: nobody waits
/// long for an answer without tokens, and who keeps one holds on to it.
pub(super) const MOST_WAITING: usize = 64;

/// A queue that [`Engine::generate`](super::Engine::generate) fills and the decode thread empties.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { jobs: VecDeque::new(), closed: false }), changed: Condvar::new() }
    }

    /// Adds a request.
    ///
    /// # Errors
    /// If too many wait already that were neither cancelled nor dropped; or if nobody takes requests any more.
    pub(super) fn push(&self, job: Job) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Stopped);
        }
        if state.jobs.len() >= MOST_WAITING {
            state.jobs.retain(|job| !job.events.is_closed());
        }
        if state.jobs.iter().filter(|job| !job.canceller.is_cancelled()).count() >= MOST_WAITING {
            return Err(Error::Busy { waiting: MOST_WAITING });
        }
        state.jobs.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the next request; `None` once the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next request, if one waits that may be taken now.
    pub(super) fn pop_if(&self, may_be_taken: impl FnOnce(&Job) -> bool) -> Option<Job> {
        let mut state = self.lock();
        state.jobs.pop_front_if(|job| may_be_taken(job))
    }

    /// Takes no more requests. Those that wait are still answered.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Forgets the requests that wait, whose receivers are told by the end of their channel.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock can leave the queue half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::config::GenerationConfig;
    use crate::engine::Canceller;
    use crate::engine::answer_report::Events;

    fn job(number: u32, events: Events) -> Job {
        let config = GenerationConfig::default();
        Job {
            prompt: vec![number],
            config,
            certified: None,
            warnings: Vec::new(),
            events,
            canceller: Canceller::default(),
        }
    }

    #[test]
    fn as_many_wait_as_may_and_in_order() {
        let (queue, (events, _answer)) = (Queue::new(), unbounded_channel());
        for number in 0..MOST_WAITING as u32 {
            queue.push(job(number, events.clone())).unwrap();
        }
        assert!(matches!(queue.push(job(99, events.clone())), Err(Error::Busy { waiting: MOST_WAITING })));
        assert_eq!(queue.pop().unwrap().prompt, [0]);
        queue.push(job(100, events.clone())).unwrap();
        queue.close();
        assert!(matches!(queue.push(job(101, events)), Err(Error::Stopped)));
        let rest: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|job| job.prompt[0]).collect();
        assert_eq!(rest, (1..MOST_WAITING as u32).chain([100]).collect::<Vec<_>>());
    }

    #[test]
    fn requests_that_were_dropped_make_room() {
        let (queue, (wanted, _answer)) = (Queue::new(), unbounded_channel());
        queue.push(job(0, wanted.clone())).unwrap();
        for number in 1..1000 {
            // Its receiver is dropped at once.
            queue.push(job(number, unbounded_channel().0)).unwrap();
        }
        queue.push(job(1000, wanted)).unwrap();
        let kept = std::iter::from_fn(|| queue.lock().jobs.pop_front());
        assert!(kept.filter(|job| !job.events.is_closed()).map(|job| job.prompt[0]).eq([0, 1000]));
    }

    /// Each still gets its answer, without tokens, in its turn.
    #[test]
    fn requests_that_were_cancelled_make_room_and_keep_their_place() {
        let (queue, (events, _answer)) = (Queue::new(), unbounded_channel());
        let first = job(0, events.clone());
        let canceller = first.canceller.clone();
        queue.push(first).unwrap();
        for number in 1..MOST_WAITING as u32 {
            queue.push(job(number, events.clone())).unwrap();
        }
        assert!(matches!(queue.push(job(99, events.clone())), Err(Error::Busy { .. })));
        canceller.cancel();
        queue.push(job(100, events.clone())).unwrap();
        assert!(matches!(queue.push(job(101, events)), Err(Error::Busy { waiting: MOST_WAITING })));
        queue.close();
        let all = std::iter::from_fn(|| queue.pop()).map(|job| job.prompt[0]);
        assert_eq!(all.collect::<Vec<_>>(), (0..MOST_WAITING as u32).chain([100]).collect::<Vec<_>>());
    }

    #[test]
    fn an_abandoned_queue_takes_nothing_and_lets_go() {
        let (queue, (events, mut answer)) = (Queue::new(), unbounded_channel());
        queue.push(job(0, events)).unwrap();
        queue.abandon();
        assert!(queue.pop().is_none() && answer.blocking_recv().is_none());
    }
}

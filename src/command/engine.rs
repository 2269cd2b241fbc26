//! An engine of a command, which says on standard error what no answer told any more, and answers that signals end.

use std::ops::Deref;

use super::output::note;
use super::signals::{OnSignal, on_signal};
use crate::engine::{Engine, Generation};

/// Has a signal end an answer early, which is kept as far as it got.
pub fn ended_by_signals(answer: &Generation) -> OnSignal {
    let canceller = answer.canceller();
    on_signal(move || canceller.cancel())
}

/// An engine that, when it is dropped, tells whether what was learned could be kept.
pub struct CommandEngine(Option<Engine>);

impl From<Engine> for CommandEngine {
    fn from(engine: Engine) -> Self {
        Self(Some(engine))
    }
}

impl Deref for CommandEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        self.0.as_ref().expect("it is taken only when this is dropped")
    }
}

impl Drop for CommandEngine {
    fn drop(&mut self) {
        for sentence in self.0.take().map(Engine::close).unwrap_or_default() {
            note(&sentence);
        }
    }
}

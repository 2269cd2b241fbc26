//! An answer as it is made: a stream of tokens with a final report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::UnboundedReceiver;

use super::Error;
use crate::answer::Answer;

/// Events while an answer is made.
#[derive(Clone, Debug)]
pub enum Event {
    /// The prompt is being read: so many of its tokens are done.
    Prefill {
        /// Tokens done.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token is certain.
    Token {
        /// Its id.
        id: u32,
        /// The text that became certain with it; may be empty, while a character is incomplete or may be the
        /// beginning of a stop text.
        text: String,
    },
    /// The answer is complete. `text` is what was still held back.
    Done {
        /// The last piece of text.
        text: String,
        /// The whole answer.
        answer: Box<Answer>,
    },
}

/// Ends an answer early, from any thread: see [`Generation::canceller`].
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// Ends the answer within a step, or a part of the prompt's prefill. What there is of it by then still comes, with
    /// [`FinishReason::Cancelled`] and its report. An answer that is complete stays as it is.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True if [`Canceller::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An answer in the making. Iterate over it from blocking code, or await [`Generation::recv`] from any async
/// runtime; iterating inside of tokio's panics.
///
/// Dropping it cancels the answer within a step, and nothing of it is kept; [`Generation::cancel`] ends it as early and
/// hands over what there is. Events that nobody takes wait in memory: one a token and one a part of the prompt, so
/// at most as many as the model's context has tokens.
pub struct Generation {
    events: UnboundedReceiver<Result<Event, Error>>,
    canceller: Canceller,
    over: bool,
}

impl Generation {
    pub(super) fn new(events: UnboundedReceiver<Result<Event, Error>>, canceller: Canceller) -> Self {
        Self { events, canceller, over: false }
    }

    /// Ends the answer early and keeps what there is: go on reading events until [`Event::Done`], whose answer has
    /// [`FinishReason::Cancelled`], or call [`Generation::finish`].
    ///
    /// ```no_run
    /// # use paceline::{Engine, EngineConfig, FinishReason, GenerationConfig, Prompt};
    /// # let engine = Engine::load(&EngineConfig::new("path/to/model"))?;
    /// let generation = engine.generate(Prompt::Text("Once upon a time".into()), &GenerationConfig::default())?;
    /// generation.cancel();
    /// assert_eq!(generation.finish()?.finish_reason, FinishReason::Cancelled);
    /// # Ok::<(), paceline::Error>(())
    /// ```
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// A handle that cancels this answer from elsewhere, while this thread waits for events.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// The error that ended the answer early.
    pub async fn recv(&mut self) -> Option<Result<Event, Error>> {
        if self.over {
            return None;
        }
        let event = self.events.recv().await;
        Some(self.note(event))
    }

    /// Waits for the whole answer. For blocking code.
    ///
    /// # Errors
    /// The error that ended the answer early.
    ///
    /// # Panics
    /// When called inside tokio's runtime, which it would block: await [`Generation::recv`] there.
    pub fn finish(mut self) -> Result<Answer, Error> {
        loop {
            match self.next() {
                Some(Ok(Event::Done { answer, .. })) => return Ok(*answer),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(Error::Stopped),
            }
        }
    }

    /// The stream is over after an answer, an error, or the unexpected end of the decode thread.
    fn note(&mut self, event: Option<Result<Event, Error>>) -> Result<Event, Error> {
        let event = event.unwrap_or(Err(Error::Stopped));
        self.over = matches!(event, Ok(Event::Done { .. }) | Err(_));
        event
    }
}

impl Iterator for Generation {
    type Item = Result<Event, Error>;

    /// Waits for the next event. For blocking code.
    ///
    /// # Panics
    /// When called inside tokio's runtime, which it would block: await [`Generation::recv`] there.
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let event = self.events.blocking_recv();
        Some(self.note(event))
    }
}

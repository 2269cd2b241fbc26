//! An answer as it is made: a stream of tokens with a final report.

use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error::Error;
use crate::report::Report;

/// What happens while an answer is made.
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

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token or a stop text.
    Stop,
    /// As many tokens as asked for, or as fit into the context.
    Length,
}

/// A whole answer.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The prompt's tokens.
    pub prompt_tokens: Vec<u32>,
    /// The new tokens, a final stop token included.
    pub tokens: Vec<u32>,
    /// The new text, without stop token or stop text.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What happened.
    pub report: Report,
}

/// An answer in the making. Iterate over it from blocking code, or await [`Generation::recv`] from any async
/// runtime; iterating inside of tokio's panics. Dropping it cancels the answer within a step.
pub struct Generation {
    events: UnboundedReceiver<Result<Event, Error>>,
    over: bool,
}

impl Generation {
    pub(super) fn new(events: UnboundedReceiver<Result<Event, Error>>) -> Self {
        Self { events, over: false }
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// What ended the answer early.
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
    /// What ended the answer early.
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

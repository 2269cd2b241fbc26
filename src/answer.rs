//! Prompts and answers, as plain data.

use serde::Serialize;

use crate::report::Report;
use crate::text::Message;

/// Prompt to answer.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// A text to continue, tokenized with the special tokens that the checkpoint's tokenizer adds.
    Text(String),
    /// A conversation, rendered with the checkpoint's chat template.
    Messages(Vec<Message>),
    /// Tokens as they are.
    Tokens(Vec<u32>),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token or a stop text.
    Stop,
    /// As many tokens as asked for, or as fit into the context.
    Length,
    /// [`Generation::cancel`](crate::Generation::cancel) or a [`Canceller`](crate::Canceller) ended it: what there was by then is the answer.
    Cancelled,
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
    /// Report on how the answer was made.
    pub report: Report,
}

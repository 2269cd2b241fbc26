//! Who hears what becomes of an answer.

use super::planner::Round;
use crate::model::Hidden;
use crate::sampling::SamplingError;

/// Decision of a token's receiver: to go on or to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More tokens.
    Continue,
    /// No more: a stop token, a stop string or the last token allowed.
    Stop,
}

/// Hears what becomes of an answer.
pub trait Listener {
    /// So many tokens of the prompt are read, and others are about to be.
    fn reading(&mut self, done: usize) {
        let _ = done;
    }
    /// States of the next tokens of the prompt after as many layers as were asked for, `[rows, hidden]`.
    fn states(&mut self, states: Hidden) {
        let _ = states;
    }
    /// The prompt is read again from its beginning: states that came so far come again.
    fn reading_again(&mut self) {}
    /// A step took so many seconds in which some of the prompt was read, for the first time or `again`, beside rows of so many
    /// other answers.
    fn read(&mut self, seconds: f64, company: usize, again: bool) {
        let _ = (seconds, company, again);
    }
    /// A token is certain.
    fn token(&mut self, token: u32) -> Flow;
    /// A round is over, in steps that so many other answers shared.
    fn round(&mut self, round: &Round, company: usize);
    /// So many tokens came out that the target did not verify, which took so many seconds.
    fn unverified(&mut self, tokens: usize, seconds: f64) {
        let _ = (tokens, seconds);
    }
    /// A drafter failed and is left out of the rest of the answer, which continues: a draft model whose logits are not
    /// finite must not change the output.
    fn drafter_failed(&mut self, candidate: usize, error: &SamplingError);
    /// True if the answer is no longer wanted. Asked between steps.
    fn is_cancelled(&self) -> bool {
        false
    }
}

//! The bound on what a template may do: steps, values and bytes are paid for before they are made or read, so neither
//! memory nor time can run out. Each operation pays in proportion to what it does: for a byte of the budget it takes a few
//! nanoseconds and a few bytes at most.

use std::cell::Cell;

use super::{Failure, Outcome};

/// Least budget of a template, in bytes. It is spent in a fraction of a second, and real templates take far less;
/// tests with many templates that spend all of it have less.
const LEAST: u64 = if cfg!(test) { 16 << 20 } else { 32 << 20 };
/// Largest budget of a template, in bytes.
const MOST: u64 = 1 << 30;
/// Budget for each byte of messages that it is given, in bytes: joining a conversation message by message copies what
/// came before each time.
const PER_BYTE_GIVEN: u64 = 256;
/// Cost of evaluating an expression or a statement.
pub(super) const STEP: usize = 24;
/// Cost of a value beside its own bytes.
pub(super) const ENTRY: usize = 48;

/// Remaining budget.
pub(super) struct Budget {
    left: Cell<u64>,
    /// The bytes at first, and the number of payments.
    #[cfg(test)]
    taken: (u64, Cell<u64>),
}

impl Budget {
    /// The budget for a template that is given so many bytes.
    pub(super) fn new(given: usize) -> Self {
        let left = PER_BYTE_GIVEN.saturating_mul(given as u64).saturating_add(LEAST).min(MOST);
        Self {
            left: Cell::new(left),
            #[cfg(test)]
            taken: (left, Cell::new(0)),
        }
    }

    /// The bytes that were taken, and how often some were.
    #[cfg(test)]
    pub(super) fn spent(&self) -> (u64, u64) {
        (self.taken.0 - self.left.get(), self.taken.1.get())
    }

    /// Takes `bytes`.
    pub(super) fn spend(&self, bytes: usize) -> Outcome<()> {
        #[cfg(test)]
        self.taken.1.set(self.taken.1.get() + 1);
        match self.left.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(Failure::new("it takes more steps or memory than a chat template may"))
            }
        }
    }

    /// Takes what looking for a name among `count` others costs.
    pub(super) fn spend_search(&self, name: &str, count: usize) -> Outcome<()> {
        self.spend(count.saturating_mul(1 + name.len() / 8))
    }

    /// Takes what `count` values cost.
    pub(super) fn spend_entries(&self, count: usize) -> Outcome<()> {
        self.spend(count.saturating_mul(ENTRY))
    }
}

/// Text that is being made, paid for as it grows.
pub(super) struct Text<'a> {
    text: String,
    budget: &'a Budget,
}

impl<'a> Text<'a> {
    pub(super) fn new(budget: &'a Budget) -> Self {
        Self { text: String::new(), budget }
    }

    pub(super) fn push(&mut self, text: &str) -> Outcome<()> {
        self.budget.spend(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub(super) fn push_char(&mut self, letter: char) -> Outcome<()> {
        self.budget.spend(letter.len_utf8())?;
        self.text.push(letter);
        Ok(())
    }

    pub(super) fn push_repeated(&mut self, letter: char, times: usize) -> Outcome<()> {
        self.budget.spend(times.saturating_mul(letter.len_utf8()))?;
        self.text.extend(std::iter::repeat_n(letter, times));
        Ok(())
    }

    pub(super) fn budget(&self) -> &'a Budget {
        self.budget
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

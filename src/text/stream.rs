//! Text from tokens as they come, and the stop strings that end it.
//!
//! The text of an answer is `decode(prompt + answer)` without `decode(prompt)`, with special tokens skipped.
//! A [`TextStream`] produces it piece by piece in time that does not grow with the answer: it decodes a short
//! window of tokens, whose first part is only there as context (tokenizers strip a leading space at the start
//! of a text) and whose text has been accounted for already. Three things hold text back:
//!
//! - a character whose bytes are spread over several tokens comes out when it is complete;
//! - text that may be the beginning of a stop string waits for the tokens that decide it;
//! - a run of byte-fallback tokens (`<0x41>`) waits for its end, because one invalid byte turns *all* characters of the
//!   run into U+FFFD, also those that were complete. Stop strings are looked for in the waiting text nevertheless.
//!
//! A stop text may spell special tokens, as in `<|im_end|>`, although the text has none: it is then looked for in the text with
//! the special tokens where they came, so `a<|im_end|>` stops where that token follows an `a`, and nowhere else.
//!
//! The text known after a token depends on the tokens up to it alone, so it is the same whether they came one
//! by one or as an accepted draft.

use std::borrow::Borrow;
use std::ops::RangeInclusive;

use tokenizers::Tokenizer;

use self::special::SpecialStops;
use super::guard::guarded;

mod special;

/// Character that the decoder writes for bytes that are not a character (yet).
const REPLACEMENT: char = '\u{FFFD}';

/// Tokens of the prompt that are kept as context. A character has at most four bytes, so a token that begins
/// in the middle of one sees all of it.
const PROMPT_CONTEXT: usize = 4;

/// Why text cannot be streamed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A stop string has no characters.
    #[error("Stop string number {position} is empty and would end every answer at once; leave it out.")]
    EmptyStop {
        /// Its place in the list, from 1.
        position: usize,
    },
    /// The tokenizer's decoder failed.
    #[error(
        "The tokenizer cannot decode the text around token {token}: {reason}. Check the decoder in tokenizer.json."
    )]
    Decode {
        /// The id of the token that was added last.
        token: u32,
        /// The tokenizer's error message.
        reason: String,
    },
}

/// Text that one token adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// Text that is certain now; often empty.
    pub text: String,
    /// The place in the list (from 0) of the stop string that ended the answer with this token or an earlier one.
    pub stopped: Option<usize>,
}

/// Turns the tokens of one answer into text, up to the first stop string.
///
/// `T` is a shared reference to the tokenizer, or an `Arc` of it where the stream has to move to another thread.
#[derive(Debug)]
pub struct TextStream<T> {
    tokenizer: T,
    byte_fallback: bool,
    stops: Vec<String>,
    longest_stop: usize,
    special: SpecialStops,
    stopped: Option<usize>,
    /// Text that has been decoded but not handed out.
    held: String,
    window: Window,
    run: ByteRun,
}

/// The tokens that are decoded together.
#[derive(Debug, Default)]
struct Window {
    ids: Vec<u32>,
    /// Number of `ids` that are only there for context; their text is accounted for.
    context: usize,
    /// `decode(ids)`, not updated inside a byte-fallback character.
    full: String,
    /// Number of bytes of `full` that are accounted for.
    seen: usize,
}

/// The run of byte-fallback tokens at the end of the answer, if it ends in one.
#[derive(Debug, Default)]
struct ByteRun {
    /// The answer's tokens in the run; 0 outside of a run, and where the answer has not continued the prompt's run.
    tokens: usize,
    /// The run's last token.
    last: u32,
    /// Where the run's text begins in `held`; used until the run is broken.
    start: usize,
    /// The bytes after the last complete character.
    partial: Vec<u8>,
    /// The run is no UTF-8 and cannot become it: each of its tokens is one U+FFFD.
    broken: bool,
}

impl<T: Borrow<Tokenizer>> TextStream<T> {
    /// A stream for the answer to `prompt` (token ids; the last few suffice), which ends before the first of `stops`.
    ///
    /// # Errors
    /// If a stop string is empty, or the tokenizer cannot decode the prompt's end.
    pub fn new(tokenizer: T, stops: &[String], prompt: &[u32]) -> Result<Self, StreamError> {
        if let Some(position) = stops.iter().position(String::is_empty) {
            return Err(StreamError::EmptyStop { position: position + 1 });
        }
        let byte_fallback = has_byte_fallback(tokenizer.borrow());
        let special = SpecialStops::new(tokenizer.borrow(), stops);
        let mut stream = Self {
            tokenizer,
            special,
            byte_fallback,
            longest_stop: stops.iter().map(String::len).max().unwrap_or(0),
            stops: stops.to_vec(),
            stopped: None,
            held: String::new(),
            window: Window::default(),
            run: ByteRun::default(),
        };
        if byte_fallback {
            stream.follow_bytes(prompt)?;
        } else {
            stream.follow(prompt)?;
        }
        Ok(stream)
    }

    /// Takes the end of the prompt as context.
    fn follow(&mut self, prompt: &[u32]) -> Result<(), StreamError> {
        let known = prompt.iter().rev().copied().filter(|&id| printable(self.tokenizer.borrow(), id).is_some());
        let mut ids: Vec<u32> = known.take(PROMPT_CONTEXT).collect();
        ids.reverse();
        self.restart(ids)
    }

    /// The same with byte fallback, where the prompt may end in a run of bytes that the answer continues.
    fn follow_bytes(&mut self, prompt: &[u32]) -> Result<(), StreamError> {
        let (mut before, mut ids, mut bytes) = (None, Vec::new(), Vec::new());
        for &id in prompt.iter().rev() {
            let Some(spelling) = printable(self.tokenizer.borrow(), id) else { continue };
            let Some(byte) = fallback_byte(&spelling) else {
                before = Some(id);
                break;
            };
            ids.push(id);
            bytes.push(byte);
        }
        ids.reverse();
        bytes.reverse();
        if before.is_none() && !ids.is_empty() {
            // The run itself would be a bad context, as it changes with what follows. An ASCII byte serves: it is valid
            // by itself and has no effect on what follows, but for that being not the start of the text.
            before = byte_token(self.tokenizer.borrow(), b'!'..=b'~');
        }
        self.restart(before.into_iter().collect())?;
        self.run.last = ids.last().copied().unwrap_or_default();
        if let Err(error) = std::str::from_utf8(&bytes) {
            self.run.broken = error.error_len().is_some();
            if !self.run.broken {
                self.run.partial = bytes.split_off(error.valid_up_to());
                self.window.ids.extend(ids.split_off(error.valid_up_to()));
            }
        }
        Ok(())
    }

    /// Adds the answer's next token. Special tokens, and ids that the tokenizer does not know, have no text.
    /// After a stop string nothing more comes out.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn push(&mut self, token: u32) -> Result<Piece, StreamError> {
        let Some(spelling) = printable(self.tokenizer.borrow(), token).filter(|_| self.stopped.is_none()) else {
            return self.push_silent(token);
        };
        let changed = match fallback_byte(&spelling).filter(|_| self.byte_fallback) {
            Some(byte) => self.push_byte(token, byte)?,
            None => {
                let changed = self.end_run()?;
                self.push_plain(token)?;
                changed
            }
        };
        let text = if self.find_stop(changed) { std::mem::take(&mut self.held) } else { self.take_certain() };
        Ok(Piece { text, stopped: self.stopped })
    }

    /// Adds a token that has no text, which may be part of a stop text.
    fn push_silent(&mut self, token: u32) -> Result<Piece, StreamError> {
        if self.stopped.is_some() || self.special.is_empty() {
            return Ok(Piece { text: String::new(), stopped: self.stopped });
        }
        let is_unfinished = self.window.seen < self.window.full.len() || !self.run.partial.is_empty();
        self.special.push(token, &self.held, is_unfinished);
        if let Some((start, stop)) = self.special.find(&self.held)
            && start == self.held.len()
        {
            // It ends before the token, so an unfinished character there is the answer's.
            self.end_run()?;
            self.account(self.window.full.len());
            self.stopped = Some(stop);
        }
        if self.stopped.is_some() {
            return Ok(Piece { text: std::mem::take(&mut self.held), stopped: self.stopped });
        }
        let text = if self.find_stop(self.held.len()) { std::mem::take(&mut self.held) } else { self.take_certain() };
        Ok(Piece { text, stopped: self.stopped })
    }

    /// The text that was still held back, for when no more tokens come. An incomplete character is U+FFFD, and a
    /// stop string with that in it may end the answer only here: [`TextStream::stopped`] then says so.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<String, StreamError> {
        if self.stopped.is_none() {
            let changed = self.end_run()?;
            self.account(self.window.full.len());
            // Only one with U+FFFD in it can be found here.
            self.find_stop(changed);
        }
        Ok(std::mem::take(&mut self.held))
    }

    /// The place in the list (from 0) of the stop string that ended the answer, if one has: after a token, as in
    /// [`Piece::stopped`], or in [`TextStream::finish`].
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// Adds a token that is not a byte-fallback token.
    fn push_plain(&mut self, token: u32) -> Result<(), StreamError> {
        let last = self.window.ids.last().copied();
        self.window.ids.push(token);
        let mut full = self.decode(&self.window.ids)?;
        if self.window.seen < self.window.full.len() {
            // A character is unfinished. The window cannot move on inside of it, and invalid bytes may go on for ever.
            // But if this token's text does not depend on what is before it, it does not continue a character: what was
            // one U+FFFD would otherwise have absorbed bytes that are one U+FFFD each when they stand alone.
            let alone = self.decode(&[token])?;
            if !alone.is_empty() && full.strip_prefix(self.window.full.as_str()) == Some(alone.as_str()) {
                self.account(self.window.full.len());
                self.restart(last.into_iter().collect())?;
                self.window.ids.push(token);
                full = self.decode(&self.window.ids)?;
            }
        }
        // With byte fallback an unfinished character is in a run of bytes; elsewhere it is at the end of the text.
        let settled = if self.byte_fallback { full.len() } else { full.trim_end_matches(REPLACEMENT).len() };
        let (whole, unchanged) = (settled == full.len(), full == self.window.full);
        self.replace_full(full);
        let added = self.account(settled);
        if whole && added {
            self.advance()?;
        } else if whole && unchanged && self.window.ids.len() > self.window.context + 1 {
            // The second token without text in a row. The first has to stay, it may be the space that is
            // stripped at the start; more of them add nothing.
            self.window.ids.pop();
        }
        Ok(())
    }

    /// Adds a byte-fallback token; returns from where on `held` has changed.
    fn push_byte(&mut self, token: u32, byte: u8) -> Result<usize, StreamError> {
        let before = self.held.len();
        if self.run.tokens == 0 {
            self.run.start = before;
        }
        self.run.tokens += 1;
        self.run.last = token;
        if self.run.broken {
            self.held.push(REPLACEMENT);
            return Ok(before);
        }
        self.window.ids.push(token);
        self.run.partial.push(byte);
        match std::str::from_utf8(&self.run.partial) {
            Ok(_) => {
                self.run.partial.clear();
                let full = self.decode(&self.window.ids)?;
                self.replace_full(full);
                self.account(self.window.full.len());
                self.advance()?;
                Ok(before)
            }
            Err(error) if error.error_len().is_none() => Ok(before),
            Err(_) => Ok(self.break_run()),
        }
    }

    /// Replaces the text of a run that is not UTF-8; returns where it begins.
    fn break_run(&mut self) -> usize {
        self.run.broken = true;
        self.held.truncate(self.run.start);
        self.held.extend(std::iter::repeat_n(REPLACEMENT, self.run.tokens));
        self.run.start
    }

    /// Ends the run of byte-fallback tokens, if there is one; returns from where on `held` has changed.
    fn end_run(&mut self) -> Result<usize, StreamError> {
        let mut changed = self.held.len();
        if !self.run.partial.is_empty() && !self.run.broken {
            changed = self.break_run();
        }
        if self.run.broken {
            self.restart(vec![self.run.last])?;
        }
        self.run = ByteRun::default();
        Ok(changed)
    }

    /// Sets the text of the window's tokens. What was accounted for changes only where the prompt ended inside a
    /// character; that character then counts as the answer's.
    fn replace_full(&mut self, full: String) {
        let accounted = &self.window.full[..self.window.seen];
        if !full.starts_with(accounted) {
            let same = accounted.chars().zip(full.chars()).take_while(|(old, new)| old == new);
            self.window.seen = same.map(|(old, _)| old.len_utf8()).sum();
        }
        self.window.full = full;
    }

    /// Moves the window's text up to byte `end` to `held`; false if that was done before.
    fn account(&mut self, end: usize) -> bool {
        let added = self.window.full.get(self.window.seen..end).unwrap_or_default();
        self.held.push_str(added);
        let any = !added.is_empty();
        self.window.seen = self.window.seen.max(end);
        any
    }

    /// Drops the context and makes the tokens after it the new context.
    fn advance(&mut self) -> Result<(), StreamError> {
        let ids = self.window.ids.split_off(self.window.context);
        self.restart(ids)
    }

    /// Starts a window with `ids` as context.
    fn restart(&mut self, ids: Vec<u32>) -> Result<(), StreamError> {
        let full = self.decode(&ids)?;
        self.window = Window { context: ids.len(), seen: full.len(), ids, full };
        Ok(())
    }

    fn decode(&self, ids: &[u32]) -> Result<String, StreamError> {
        let token = ids.last().copied().unwrap_or_default();
        guarded(|| self.tokenizer.borrow().decode(ids, true)).map_err(|reason| StreamError::Decode { token, reason })
    }

    /// Looks for a stop string that ends after byte `changed` of `held`; if there is one, cuts `held` before it.
    fn find_stop(&mut self, changed: usize) -> bool {
        let from = self.held.floor_char_boundary(changed.saturating_sub(self.longest_stop));
        let text = &self.held[from..];
        let found =
            self.stops.iter().enumerate().filter_map(|(stop, string)| Some((text.find(string.as_str())?, stop)));
        let found = found.map(|(start, stop)| (from + start, stop));
        let Some((start, stop)) = found.chain(self.special.find(&self.held)).min() else { return false };
        self.held.truncate(start);
        self.stopped = Some(stop);
        true
    }

    /// Takes the beginning of `held` that no later token can change and that is not part of a possible stop string.
    fn take_certain(&mut self) -> String {
        if self.run.tokens > 0 && !self.run.broken {
            // The run may still become U+FFFD. What was held before it may begin a stop string that goes on with that.
            return String::new();
        }
        let certain = self.possible_stop().min(self.special.possible(&self.held));
        let rest = self.held.split_off(certain);
        self.special.advance(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Where the longest end of `held` begins that is the beginning of a stop string; the length of `held` if none is.
    fn possible_stop(&self) -> usize {
        let text = &self.held;
        let longest = |stop: &String| {
            let lengths = 1..stop.len().min(text.len() + 1);
            lengths.rev().find(|&length| text.as_bytes().ends_with(&stop.as_bytes()[..length])).unwrap_or(0)
        };
        text.len() - self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

/// The spelling of a token that has text: known to the tokenizer and not special. `Tokenizer::decode` drops the others.
fn printable(tokenizer: &Tokenizer, id: u32) -> Option<String> {
    tokenizer.id_to_token(id).filter(|token| !tokenizer.get_added_vocabulary().is_special_token(token))
}

/// The byte of a byte-fallback token, by the rule of the `ByteFallback` decoder.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// True if the decoder turns tokens like `<0xFF>` into bytes; found by trying one that is no character by itself.
fn has_byte_fallback(tokenizer: &Tokenizer) -> bool {
    byte_token(tokenizer, 0x80..=0xFF)
        .and_then(|id| guarded(|| tokenizer.decode(&[id], false)).ok())
        .is_some_and(|text| text == REPLACEMENT.to_string())
}

/// The first byte-fallback token in a range of bytes that the vocabulary has.
fn byte_token(tokenizer: &Tokenizer, mut bytes: RangeInclusive<u8>) -> Option<u32> {
    bytes.find_map(|byte| tokenizer.token_to_id(&format!("<0x{byte:02X}>")))
}

#[cfg(test)]
mod tests;

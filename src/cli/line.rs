//! A line while it is typed: bytes of keys become a text and what the terminal shows of it.

use std::mem;

use paceline::visible;
use unicode_width::UnicodeWidthChar;

/// The longest line that is taken, in bytes; far longer than the context of any model.
pub(super) const LONGEST: usize = 16 << 20;

/// State of a line after some bytes: done or not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Every byte was taken, and the line is not done.
    More,
    /// It is done.
    Line(Vec<u8>),
    /// It is done, and longer than [`LONGEST`].
    TooLong,
    /// Ctrl-D where nothing was typed.
    End,
}

/// Where in a key's sequence of bytes the line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Plain,
    /// After an escape.
    Escape,
    /// After an escape and `O`.
    Single,
    /// After an escape and `[`.
    Sequence,
}

/// A place on the screen, counted from the row of the prompt.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    row: usize,
    column: usize,
}

/// A line while it is typed.
pub(super) struct Line {
    text: Vec<u8>,
    /// Bytes of it that are shown: all but a character that is not complete.
    shown: usize,
    key: Key,
    /// The numbers of a sequence.
    numbers: Vec<u8>,
    is_pasted: bool,
    is_too_long: bool,
    /// Columns of the prompt and of the terminal.
    prompt: usize,
    columns: usize,
    /// True if the terminal can move its cursor up.
    is_able: bool,
    place: Place,
}

impl Line {
    /// An empty line behind a prompt.
    pub(super) fn new(prompt: usize, columns: usize, is_able: bool) -> Self {
        Self {
            text: Vec::new(),
            shown: 0,
            key: Key::Plain,
            numbers: Vec::new(),
            is_pasted: false,
            is_too_long: false,
            prompt,
            columns,
            is_able,
            place: Place { row: 0, column: prompt },
        }
    }

    /// True if nothing was typed.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes bytes up to the end of the line and adds to `screen` what the terminal is to show. Says how many it took.
    pub(super) fn take(&mut self, bytes: &[u8], screen: &mut Vec<u8>) -> (usize, Step) {
        for (index, &byte) in bytes.iter().enumerate() {
            if let Some(step) = self.byte(byte, screen) {
                return (index + 1, step);
            }
        }
        (bytes.len(), Step::More)
    }

    fn byte(&mut self, byte: u8, screen: &mut Vec<u8>) -> Option<Step> {
        match (self.key, byte) {
            (Key::Plain, 0x1b) => self.key = Key::Escape,
            (Key::Plain, _) => return self.plain(byte, screen),
            (Key::Escape, b'[') => {
                self.key = Key::Sequence;
                self.numbers.clear();
            }
            (Key::Escape, b'O') => self.key = Key::Single,
            (Key::Single, b'A'..=b'Z' | b'a'..=b'z') => self.key = Key::Plain,
            // Keys of the Linux console: F1 is an escape and `[[A`.
            (Key::Sequence, b'[') if self.numbers.is_empty() => self.key = Key::Single,
            (Key::Sequence, 0x40..=0x7e) => {
                match (self.numbers.as_slice(), byte) {
                    (b"200", b'~') => self.is_pasted = true,
                    (b"201", b'~') => self.is_pasted = false,
                    // Arrows and the like: there is no cursor to move.
                    _ => {}
                }
                self.key = Key::Plain;
            }
            (Key::Sequence, 0x20..=0x3f) if self.numbers.len() < 16 => self.numbers.push(byte),
            (Key::Sequence, 0x20..=0x3f) => {}
            // No sequence that is known. Only the escape is dropped, not the character behind it: Escape and then a letter, and a
            // letter with Alt, send the same bytes. A letter too many is seen and can be deleted; one that is missing,
            // or half of one, spoils what was meant.
            (Key::Escape | Key::Single | Key::Sequence, _) => {
                self.key = Key::Plain;
                return self.byte(byte, screen);
            }
        }
        None
    }

    fn plain(&mut self, byte: u8, screen: &mut Vec<u8>) -> Option<Step> {
        match byte {
            b'\r' | b'\n' if self.is_pasted => self.push(b'\n', screen),
            b'\r' | b'\n' => {
                self.show_rest(screen);
                screen.push(b'\n');
                return Some(match self.is_too_long {
                    true => Step::TooLong,
                    false => Step::Line(mem::take(&mut self.text)),
                });
            }
            // Ctrl-D; a zero is what becomes of one that was typed before the terminal handed over its keys.
            0x04 | 0 if !self.is_pasted => {
                if self.text.is_empty() {
                    return Some(Step::End);
                }
            }
            // Backspace, Ctrl-W and Ctrl-U.
            0x08 | 0x7f if !self.is_pasted => self.erase(1, screen),
            0x17 if !self.is_pasted => self.erase(self.last_word(), screen),
            0x15 if !self.is_pasted => self.erase(usize::MAX, screen),
            b'\t' => self.push(byte, screen),
            // Other keys with Ctrl have no meaning here. What is pasted is taken as it is.
            0..0x20 if !self.is_pasted => {}
            _ => self.push(byte, screen),
        }
        None
    }

    fn push(&mut self, byte: u8, screen: &mut Vec<u8>) {
        if self.text.len() == LONGEST {
            self.is_too_long = true;
            return;
        }
        self.text.push(byte);
        loop {
            let text = self.text[self.shown..].to_vec();
            match std::str::from_utf8(&text) {
                Ok(text) => {
                    self.shown += text.len();
                    return self.show(text, screen);
                }
                Err(error) => {
                    let (whole, Some(bad)) = (error.valid_up_to(), error.error_len()) else { return };
                    self.show(&String::from_utf8_lossy(&text[..whole + bad]), screen);
                    self.shown += whole + bad;
                }
            }
        }
    }

    /// Shows what is left of a character that never became complete.
    fn show_rest(&mut self, screen: &mut Vec<u8>) {
        let rest = String::from_utf8_lossy(&self.text[self.shown..]).into_owned();
        self.shown = self.text.len();
        self.show(&rest, screen);
    }

    fn show(&mut self, text: &str, screen: &mut Vec<u8>) {
        for c in text.chars() {
            let before = self.place;
            self.place = self.after(before, c);
            let mut bytes = [0; 4];
            let c: &str = c.encode_utf8(&mut bytes);
            screen.extend_from_slice(visible::text(c).as_bytes());
            if self.place.column == 0 && before.column > 0 && c != "\n" {
                // At the edge a terminal waits for one more character before it begins a row.
                screen.extend_from_slice(b" \r");
            }
        }
    }

    /// Where the cursor is after a character; never behind the last column.
    fn after(&self, Place { mut row, mut column }: Place, c: char) -> Place {
        if c == '\n' {
            return Place { row: row + 1, column: 0 };
        }
        let mut bytes = [0; 4];
        for c in visible::text(c.encode_utf8(&mut bytes)).chars() {
            let width = if c == '\t' { 8 - column % 8 } else { c.width().unwrap_or(0) };
            if column + width > self.columns {
                (row, column) = (row + 1, if c == '\t' { 0 } else { width });
            } else {
                column += width;
            }
            if column == self.columns {
                (row, column) = (row + 1, 0);
            }
        }
        Place { row, column }
    }

    /// Characters of the last word and the spaces behind it.
    fn last_word(&self) -> usize {
        let text = String::from_utf8_lossy(&self.text);
        let word = text.trim_end().trim_end_matches(|c: char| !c.is_whitespace());
        text[word.len()..].chars().count()
    }

    /// Takes back so many characters.
    fn erase(&mut self, characters: usize, screen: &mut Vec<u8>) {
        self.show_rest(screen);
        let text = String::from_utf8_lossy(&self.text).into_owned();
        let count = text.chars().count();
        let kept: String = text.chars().take(count.saturating_sub(characters)).collect();
        if kept == text {
            return;
        }
        self.text.truncate(bytes_of(&self.text, kept.chars().count()));
        self.shown = self.text.len();
        let start = Place { row: 0, column: self.prompt };
        let place = kept.chars().fold(start, |place, c| self.after(place, c));
        if self.is_able {
            // The sequences take no count of 0.
            let moved = |count: usize, to: char| if count > 0 { format!("\x1b[{count}{to}") } else { String::new() };
            let (up, right) = (moved(self.place.row - place.row, 'A'), moved(place.column, 'C'));
            screen.extend_from_slice(format!("{up}\r{right}\x1b[J").as_bytes());
        } else if self.place.row == place.row {
            screen.extend(b"\x08 \x08".repeat(self.place.column - place.column));
        }
        self.place = place;
    }
}

/// The bytes of the first characters of a text, each piece that is not UTF-8 counted as one.
fn bytes_of(text: &[u8], characters: usize) -> usize {
    let pieces = text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(char::len_utf8);
        valid.chain(Some(chunk.invalid().len()).filter(|&length| length > 0))
    });
    pieces.take(characters).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    /// The line that these keys make and what the terminal shows, of 20 columns.
    fn typed(keys: &[u8]) -> (Step, String) {
        let (mut line, mut screen) = (Line::new(2, 20, true), Vec::new());
        let (used, step) = line.take(keys, &mut screen);
        assert!(used == keys.len() || step != Step::More);
        (step, String::from_utf8(screen).unwrap())
    }

    fn line(text: &str) -> Step {
        Step::Line(text.as_bytes().to_vec())
    }

    #[test]
    fn keys_make_a_line() {
        for (keys, text) in [
            (&b"hello\n"[..], "hello"),
            (b"hello\r", "hello"),
            ("grüße\u{1f600}\n".as_bytes(), "grüße\u{1f600}"),
            (b"helxx\x7f\x08lo\n", "hello"),
            ("ü\x7fab\n".as_bytes(), "ab"),
            (b"one two  \x17three\n", "one three"),
            (b"one\x15two\n", "two"),
            (b"\x7f\x17\x15a\n", "a"),
            (b"a\x1b[Ab\x1bOHc\x1b[1;5Cd\n", "abcd"),
            (b"a\x01\x0cb\tc\n", "ab\tc"),
            (b"a\x04b\n", "ab"),
            (b"\x1b[200~one\r\x04two\nthree\x1b[201~\n", "one\n\x04two\nthree"),
            (b"\n", ""),
        ] {
            assert_eq!(typed(keys).0, line(text), "{keys:?}");
        }
        assert_eq!(typed(b"\x04").0, Step::End);
        assert_eq!(typed(b"\0").0, Step::End);
        assert_eq!(typed(b"a\x7f\x04").0, Step::End);
        assert_eq!(typed(b"abc").0, Step::More);
    }

    #[test]
    fn an_escape_that_begins_no_sequence_takes_nothing_with_it() {
        for (keys, text) in [
            ("\x1b\u{fc} hallo\n", "\u{fc} hallo"),
            ("\x1b\u{1f600}\n", "\u{1f600}"),
            ("\x1bhello\n", "hello"),
            ("a\x1b\x1bb\n", "ab"),
            ("a\x1b\x1b[Ab\n", "ab"),
            ("ab\x1b\x7fc\n", "ac"),
            ("a\x1b\n", "a"),
            // Alt with O or [ is taken for the beginning of a sequence, up to what cannot be in one.
            ("a\x1bO\u{fc}\n", "a\u{fc}"),
            ("a\x1b[\u{fc}b\n", "a\u{fc}b"),
            ("a\x1b[1;\n", "a"),
            ("a\x1b[1\x1b[Ab\n", "ab"),
            ("a\x1bO\x1b[Ab\n", "ab"),
            // F1 on the Linux console.
            ("a\x1b[[Ab\n", "ab"),
            ("\x1b[200~a\x1b\x1b[201~\n", "a"),
        ] {
            assert_eq!(typed(keys.as_bytes()).0, line(text), "{keys:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept_and_deleted_one_by_one() {
        assert_eq!(typed(b"a\xffb\n").0, Step::Line(b"a\xffb".to_vec()));
        assert_eq!(typed(b"a\xff\x7fb\n").0, line("ab"));
        assert_eq!(typed(b"a\xc3\n").0, Step::Line(b"a\xc3".to_vec()));
        assert_eq!(typed(b"a\xc3\x7f\n").0, line("a"));
    }

    #[test]
    fn the_terminal_shows_what_was_typed_and_no_orders() {
        assert_eq!(typed("grüße\n".as_bytes()).1, "grüße\n");
        assert_eq!(typed(b"\x1b[200~a\x1b\x1b[201~\n").1.matches('\x1b').count(), 0);
        assert_eq!(typed("\u{9b}2J\n".as_bytes()).1, "\\u{9b}2J\n");
        // The edge of the row is at 20 columns, 2 of which the prompt has.
        assert_eq!(typed(&[b'x'; 18]).1, format!("{} \r", "x".repeat(18)));
        assert_eq!(typed(b"ab\x7f").1, "ab\r\x1b[3C\x1b[J");
        let over_the_edge = [&[b'x'; 18][..], b"y\x7f\x7f"].concat();
        assert_eq!(typed(&over_the_edge).1, format!("{} \ry\r\x1b[J\x1b[1A\r\x1b[19C\x1b[J", "x".repeat(18)));
    }

    #[test]
    fn a_long_line_is_whole_and_an_endless_one_is_refused() {
        let text = "0123456789".repeat(10_000);
        let keys = format!("{text}\nnext");
        let (mut long, mut screen) = (Line::new(2, 80, true), Vec::new());
        assert_eq!(long.take(keys.as_bytes(), &mut screen), (text.len() + 1, line(&text)));
        let keys = [vec![b'x'; LONGEST + 1], b"\n".to_vec()].concat();
        assert_eq!(Line::new(2, 80, true).take(&keys, &mut screen).1, Step::TooLong);
    }
}

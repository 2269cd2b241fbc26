//! What Python's texts do letter by letter.

use super::Outcome;
use super::budget::{Budget, Text};
use super::pystr::{is_printable, is_space};

/// The text as one of Python's methods without arguments makes it; `None` if there is no such method.
pub(super) fn changed(text: &str, name: &str, budget: &Budget) -> Outcome<Option<String>> {
    // A letter becomes at most three.
    budget.spend(text.len().saturating_mul(3))?;
    Ok(Some(match name {
        "upper" => text.to_uppercase(),
        "lower" | "casefold" => text.to_lowercase(),
        "capitalize" => capitalized(text),
        "title" => titled(text),
        "swapcase" => {
            let swap = |letter: char| -> String {
                if letter.is_uppercase() { letter.to_lowercase().collect() } else { letter.to_uppercase().collect() }
            };
            text.chars().map(swap).collect()
        }
        _ => return Ok(None),
    }))
}

pub(super) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(title_case).unwrap_or_default();
    first + &letters.as_str().to_lowercase()
}

/// A letter as the first of a word.
fn title_case(letter: char) -> String {
    let upper: String = letter.to_uppercase().collect();
    let mut letters = upper.chars();
    match letters.next() {
        // `ß` is `Ss` at the beginning of a word.
        Some(first) => std::iter::once(first).chain(letters.flat_map(char::to_lowercase)).collect(),
        None => upper,
    }
}

fn is_cased(letter: char) -> bool {
    letter.is_uppercase() || letter.is_lowercase()
}

fn titled(text: &str) -> String {
    let mut in_word = false;
    let mut result = String::with_capacity(text.len());
    for letter in text.chars() {
        if in_word {
            result.extend(letter.to_lowercase());
        } else {
            result.push_str(&title_case(letter));
        }
        in_word = is_cased(letter);
    }
    result
}

/// One of Python's questions about a text.
pub(super) fn is(text: &str, name: &str) -> bool {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    match name {
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isdigit" | "isdecimal" => all(|letter| letter.is_ascii_digit() || !letter.is_ascii() && is_digit(letter)),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(is_space),
        "isascii" => text.is_ascii(),
        "isprintable" => text.chars().all(is_printable),
        "islower" => !text.chars().any(char::is_uppercase) && text.chars().any(char::is_lowercase),
        "isupper" => !text.chars().any(char::is_lowercase) && text.chars().any(char::is_uppercase),
        "isidentifier" => {
            let mut letters = text.chars();
            letters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
                && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
        }
        "istitle" => text.chars().any(is_cased) && titled(text) == *text,
        _ => false,
    }
}

/// Whether a letter beyond ASCII is a decimal digit: those stand in rows of ten, which Unicode keeps together.
fn is_digit(letter: char) -> bool {
    const ZEROS: [u32; 20] = [
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
        0x1040, 0x17e0, 0x1810, 0xff10,
    ];
    ZEROS.iter().any(|zero| (*zero..zero + 10).contains(&u32::from(letter)))
}

/// The lines of a text by Python's `splitlines`.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let is_end = |letter: char| {
            matches!(letter, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
        };
        let Some(end) = rest.find(is_end) else {
            lines.push(rest);
            break;
        };
        let length =
            if rest[end..].starts_with("\r\n") { 2 } else { rest[end..].chars().next().map_or(1, char::len_utf8) };
        lines.push(&rest[..if keep_ends { end + length } else { end }]);
        rest = &rest[end + length..];
    }
    lines
}

pub(super) fn expand_tabs(text: &str, size: usize, out: &mut Text<'_>) -> Outcome<()> {
    let mut column = 0;
    for letter in text.chars() {
        match letter {
            '\t' if size == 0 => {}
            '\t' => {
                out.push_repeated(' ', size - column % size)?;
                column = 0;
            }
            _ => {
                out.push_char(letter)?;
                column = if matches!(letter, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(())
}

/// A bound of a slice, from the end if it is negative, within the length.
pub(super) fn clamp(bound: Option<i128>, length: usize, default: usize) -> usize {
    let Some(bound) = bound else { return default };
    let length = length as i128;
    let bound = if bound < 0 { bound.saturating_add(length) } else { bound };
    usize::try_from(bound.clamp(0, length)).unwrap_or(0)
}

/// The letters from `start` to `end`.
pub(super) fn slice(text: &str, start: usize, end: usize) -> &str {
    if text.is_ascii() {
        return text.get(start..end).unwrap_or_default();
    }
    let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte);
    text.get(byte(start)..byte(end)).unwrap_or_default()
}

//! Operations of Python's strings that work letter by letter.

use super::budget::{Budget, Text};
use super::pystr::{is_printable, is_space};
use super::unicode::{
    folded, is_cased, is_decimal, is_digit, is_letter, is_letter_or_number, is_numeric, is_title, title_case,
};
use super::{Failure, Outcome};

/// The text as one of Python's methods without arguments makes it; `None` if there is no such method.
pub(super) fn changed(text: &str, name: &str, budget: &Budget) -> Outcome<Option<String>> {
    // A letter becomes at most three.
    budget.spend(text.len().saturating_mul(3))?;
    Ok(Some(match name {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "casefold" => text.chars().map(folded).collect(),
        "capitalize" => capitalized(text),
        "title" => titled(text),
        "swapcase" => swapped(text),
        _ => return Ok(None),
    }))
}

/// Goes through the letters of a text, each with what it is in lower case: `Σ` ends a word as `ς`.
fn with_lower_case(text: &str, mut each: impl FnMut(char, &str)) {
    let lower = text.to_lowercase();
    let mut rest = lower.as_str();
    for letter in text.chars() {
        let length = letter.to_lowercase().map(char::len_utf8).sum();
        let (lower, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        each(letter, lower);
        rest = after;
    }
}

fn capitalized(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    with_lower_case(text, |letter, lower| match result.is_empty() {
        true => result.push_str(&title_case(letter)),
        false => result.push_str(lower),
    });
    result
}

fn titled(text: &str) -> String {
    let mut in_word = false;
    let mut result = String::with_capacity(text.len());
    with_lower_case(text, |letter, lower| {
        if in_word {
            result.push_str(lower);
        } else {
            result.push_str(&title_case(letter));
        }
        in_word = is_cased(letter);
    });
    result
}

fn swapped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    with_lower_case(text, |letter, lower| match letter {
        _ if letter.is_uppercase() => result.push_str(lower),
        _ if letter.is_lowercase() => result.extend(letter.to_uppercase()),
        _ => result.push(letter),
    });
    result
}

/// One of Python's questions about a text, which is paid for but for letters that are hard to tell.
pub(super) fn is(text: &str, name: &str, budget: &Budget) -> Outcome<bool> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    let any = |test: fn(char) -> bool| text.chars().any(test);
    Ok(match name {
        "isalpha" => all(is_letter),
        "isalnum" => all(is_letter_or_number),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(is_digit),
        "isnumeric" => all(is_numeric),
        "isspace" => all(is_space),
        "isascii" => text.is_ascii(),
        "isprintable" => {
            for letter in text.chars() {
                if !is_printable(letter, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        "islower" => any(char::is_lowercase) && !any(|letter| letter.is_uppercase() || is_title(letter)),
        "isupper" => any(char::is_uppercase) && !any(|letter| letter.is_lowercase() || is_title(letter)),
        "isidentifier" if !text.is_ascii() => {
            return Err(Failure::new("`isidentifier` of letters beyond ASCII is not supported"));
        }
        "isidentifier" => {
            all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
                && !text.starts_with(|c: char| c.is_ascii_digit())
        }
        "istitle" => is_titled(text),
        _ => false,
    })
}

fn is_titled(text: &str) -> bool {
    let (mut in_word, mut has_words) = (false, false);
    for letter in text.chars() {
        let begins = letter.is_uppercase() || is_title(letter);
        if begins && in_word || !begins && !in_word && letter.is_lowercase() {
            return false;
        }
        in_word = begins || letter.is_lowercase();
        has_words |= in_word;
    }
    has_words
}

/// Jinja's own `title`: a word begins after whitespace, a dash or an opening bracket.
pub(super) fn titled_by_jinja(text: &str) -> String {
    let ends = |letter: char| is_space(letter) || matches!(letter, '-' | '(' | '{' | '[' | '<');
    let mut result = String::with_capacity(text.len());
    for part in text.split_inclusive(ends) {
        let mut letters = part.chars();
        result.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        result.push_str(&letters.as_str().to_lowercase());
    }
    result
}

/// The lines of a text by Python's `splitlines`.
pub(super) fn lines(text: &str, keep_ends: bool) -> impl Iterator<Item = &str> {
    let is_end = |letter: char| {
        matches!(letter, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(end) = rest.find(is_end) else { return Some(std::mem::take(&mut rest)) };
        let length =
            if rest[end..].starts_with("\r\n") { 2 } else { rest[end..].chars().next().map_or(1, char::len_utf8) };
        let line = &rest[..if keep_ends { end + length } else { end }];
        rest = &rest[end + length..];
        Some(line)
    })
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

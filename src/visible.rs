//! Makes text that comes from elsewhere, a model or a file, harmless to a terminal.
//!
//! Control characters move the cursor, clear the screen, change titles or write to the clipboard; overrides of the writing
//! direction make text read as something else. Each such character is shown as its escape. They are replaced one by one,
//! so a sequence that is split over several pieces of text is as harmless.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

/// The embeddings, overrides and isolates of the bidirectional algorithm.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// True if a terminal must not get this character from elsewhere: control characters (C0, DEL and C1) but for line
/// break and tab, and those that turn the writing direction.
fn is_harmful(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t')) || turns_direction(c)
}

/// Text of several lines, with harmful characters shown as `\u{1b}`.
pub fn text(text: &str) -> Cow<'_, str> {
    replaced(text, is_harmful, |c, out| out.extend(c.escape_default()))
}

/// Text that is to stay on one line, as a name, with line breaks and tabs shown as `\n` and `\t` too.
pub fn line(text: &str) -> Cow<'_, str> {
    let breaks = |c: char| is_harmful(c) || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    replaced(text, breaks, |c, out| out.extend(c.escape_default()))
}

/// JSON, with harmful characters, which it has inside of strings alone, as `\u001b`: to a reader of JSON it is the same.
pub fn json(text: &str) -> Cow<'_, str> {
    replaced(text, is_harmful, |c, out| {
        // Writing into a string cannot fail. None of them is outside of the basic plane.
        let _ = write!(out, "\\u{:04x}", u32::from(c));
    })
}

/// A name from a file on one line, cut where it is long.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 160;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", line(&text[..end])),
        None => line(text).into_owned(),
    }
}

/// A path on one line; unlike other names it is given in full, as it is needed to find the file.
pub fn shown_path(path: &Path) -> String {
    line(&path.to_string_lossy()).into_owned()
}

fn replaced(text: &str, is_replaced: impl Fn(char) -> bool, replace: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(&is_replaced) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_replaced(c) { replace(c, &mut out) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    /// Every character that a terminal may take as an order, and nothing else, is replaced, by all three functions.
    #[test]
    fn no_control_character_and_no_override_is_left() {
        for c in ('\0'..=char::MAX).take(0x3000) {
            let number = u32::from(c);
            let control = number < 0x20 || (0x7f..0xa0).contains(&number);
            let turns = (0x202a..=0x202e).contains(&number) || (0x2066..=0x2069).contains(&number);
            let harmful = (control && c != '\n' && c != '\t') || turns;
            let given = format!("a{c}b");
            assert_eq!(text(&given) != given, harmful, "{number:x}");
            assert_eq!(line(&given) != given, control || turns || matches!(number, 0x2028 | 0x2029), "{number:x}");
            assert!(!harmful || !text(&given).contains(c) && !json(&given).contains(c), "{number:x}");
        }
        assert_eq!(text("ok\n\tü\u{1b}[2J\u{9b}1m"), "ok\n\tü\\u{1b}[2J\\u{9b}1m");
        assert_eq!(line("a\nb\rc\u{202e}"), "a\\nb\\rc\\u{202e}");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"text": "\u{1b}[2J\u{7f}\u{9b}\u{202e}\n\t\"", "\u{85}": 1});
        let shown = serde_json::to_string(&value).unwrap();
        let harmless = json(&shown);
        assert!(!harmless.chars().any(is_harmful), "{harmless}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&harmless).unwrap(), value);
    }

    #[test]
    fn names_from_files_stay_on_one_short_line() {
        let line = shown(&format!("a\nb\u{2028}{}", "x".repeat(10_000)));
        assert!(line.starts_with("a\\nb\\u{2028}xxx") && line.ends_with('…'), "{line}");
        assert!(line.chars().count() < 200);
        assert_eq!(shown_path(Path::new("/a\nb/ü")), "/a\\nb/ü");
    }
}

//! Messages of JSON and TOML readers about a wrong value, in words that do not need Rust.
//!
//! serde names types (`expected struct RequestHints`, `expected u64`); people write texts in quotes, whole numbers, lists and
//! tables. [`in_words`] says what to write instead.

use std::ops::Range;

use serde_json::{Map, Value};

/// Advice on what to write instead of a value that serde refused with `message`: the end of a sentence, without a full
/// stop.
pub fn in_words(message: &str) -> String {
    let message = on_one_line(message);
    let message = message.trim_end_matches('.');
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let names = |names: &[&str]| names.join(", ");
    match (message.split_once(", expected "), &*quoted) {
        _ if message.contains("$__toml_private") => {
            "write something else than a date; a text stands in quotes".to_owned()
        }
        (_, [unknown, known @ ..]) if message.starts_with("unknown field") => match known {
            [] => format!("leave `{unknown}` out, nothing belongs there"),
            known => format!("there is no `{unknown}`; there are {}", names(known)),
        },
        (_, [unknown, known @ ..]) if message.starts_with("unknown variant") => match known {
            [] => format!("`{unknown}` cannot be chosen"),
            known => format!("`{unknown}` cannot be chosen; write one of {}", names(known)),
        },
        (_, [missing, ..]) if message.starts_with("missing field") => format!("`{missing}` is missing"),
        // The TOML reader's own words.
        _ if message.starts_with("integer number overflowed") => format!("write {}", kind("u64")),
        _ if message.starts_with("floating-point number overflowed") => format!("write {}", kind("f64")),
        _ if of_a_word(message) => "write a word in quotes".to_owned(),
        (Some((start, expected)), _) if start.starts_with("invalid ") => format!("write {}", kind(expected)),
        _ => message.to_owned(),
    }
}

/// A reader's message of several lines on one.
pub fn on_one_line(message: &str) -> String {
    message.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// The line, from 1, of `text` that a reader's `span` of it begins on.
pub fn line_of(text: &str, span: &Range<usize>) -> usize {
    // By bytes, as an index from another crate might lie inside of a letter.
    let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// The key that line number `line`, from 1, of a TOML file sets.
pub fn key_on(text: &str, line: usize) -> Option<&str> {
    text.lines().nth(line.checked_sub(1)?)?.split_once('=').map(|(key, _)| key.trim())
}

/// True if `message` is about the value of a key, not about the form of the file.
pub fn is_about_a_value(message: &str) -> bool {
    let with_kind = ["invalid value", "invalid type", "invalid length", "unknown variant"];
    with_kind.iter().any(|start| message.starts_with(start) && message.contains(", expected "))
        || message.contains("number overflowed")
        || message.contains("$__toml_private")
        || of_a_word(message)
}

/// True if `message` is the TOML reader's where one of several words is needed.
fn of_a_word(message: &str) -> bool {
    ["wanted string or table", "expected empty ", "expected table with exactly"]
        .iter()
        .any(|start| message.starts_with(start))
}

/// A kind of value by serde's name for it.
fn kind(expected: &str) -> String {
    let end = expected.find(" at line ").unwrap_or(expected.len());
    let expected = expected.get(..end).unwrap_or(expected);
    let named = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 to 2^64 - 1",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number, like 0.7",
        "a boolean" => "true or false",
        "a string" | "string" | "path string" | "a borrowed string" | "a character" => "a text in quotes",
        "a sequence" => "a list in brackets, as in [\"a\", \"b\"]",
        "a map" => "a table, as in { name = 1 }",
        "string or map" | "string or table" => "a word in quotes",
        _ if expected.starts_with("struct ") => "a table, as in { name = 1 }",
        _ if expected.starts_with("enum ") || expected.starts_with("variant ") => "a word in quotes",
        _ if expected.starts_with("a nonzero ") => "a whole number above zero",
        _ if expected.contains(" element") || expected.contains("tuple") || expected.contains("array") => {
            "a list with as many entries as are needed"
        }
        other => other,
    };
    named.to_owned()
}

/// Why a value that came from TOML cannot be used anywhere: it is, or holds, a date, NaN or infinity.
pub fn odd_value(value: &Value) -> Option<&'static str> {
    match value {
        // serde makes null of numbers that JSON lacks.
        Value::Null => Some("is not a finite number: write one, like 0.7"),
        Value::Object(map) if map.contains_key("$__toml_private_datetime") => {
            Some("is a date, which no setting is: write a text in quotes, or a number")
        }
        Value::Object(map) => map.values().find_map(odd_value),
        Value::Array(values) => values.iter().find_map(odd_value),
        _ => None,
    }
}

/// Reads a table of settings one by one, so that a message can name the one that is wrong; `T` is known to have them all.
///
/// # Errors
/// A sentence without its full stop that names the setting and says what to write.
pub fn read_settings<T: serde::de::DeserializeOwned>(settings: &Map<String, Value>) -> Result<T, String> {
    for (key, value) in settings {
        if let Some(odd) = odd_value(value) {
            return Err(format!("The setting `{key}` {odd}"));
        }
        let single = Map::from_iter([(key.clone(), value.clone())]);
        serde_json::from_value::<T>(Value::Object(single)).map_err(|error| {
            format!("The setting `{key}` cannot be {}: {}", shown(value), in_words(&error.to_string()))
        })?;
    }
    serde_json::from_value(Value::Object(settings.clone())).map_err(|error| in_words(&error.to_string()))
}

/// A value as a message shows it, not too long.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The first word of `message` that only Rust has, for tests of messages.
pub fn rust_word(message: &str) -> Option<&'static str> {
    const WORDS: [&str; 22] = [
        "struct", "enum", "variant", "sequence", "newtype", "untagged", "tuple", "usize", "isize", "u8", "u16", "u32",
        "u64", "i8", "i16", "i32", "i64", "f32", "f64", "unit", "map", "Option",
    ];
    let mut words = message.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    // A precision is called f32 as well, among its like.
    let lists_precisions = message.contains("bf16") || message.contains("f32, f16");
    let found =
        words.find_map(|word| WORDS.into_iter().find(|known| *known == word && !(lists_precisions && word == "f32")));
    found.or(message.contains("$__").then_some("$__"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn serde_is_put_in_words() {
        for (message, words) in [
            ("invalid type: string \"x\", expected u64", "write a whole number from 0 to 2^64 - 1"),
            ("invalid value: integer `-1`, expected u32", "write a whole number from 0 to 4294967295"),
            ("invalid type: integer `1`, expected struct RequestHints", "write a table, as in { name = 1 }"),
            ("invalid type: map, expected a sequence\n", "write a list in brackets, as in [\"a\", \"b\"]"),
            ("invalid type: integer `3`, expected string or map", "write a word in quotes"),
            ("unknown variant `x`, expected one of `a`, `b`", "`x` cannot be chosen; write one of a, b"),
            ("unknown field `x`, expected `turn` or `load`", "there is no `x`; there are turn, load"),
            (
                "unknown field `$__toml_private_datetime`, expected `a`",
                "write something else than a date; a text stands in quotes",
            ),
            ("missing field `name`", "`name` is missing"),
            ("wanted string or table", "write a word in quotes"),
            ("integer number overflowed", "write a whole number from 0 to 2^64 - 1"),
            ("there is no drafter `x`.", "there is no drafter `x`"),
        ] {
            assert_eq!(in_words(message), words);
        }
    }

    #[test]
    fn dates_and_infinities_are_found_wherever_they_are() {
        assert!(
            odd_value(&json!({"a": [{"$__toml_private_datetime": "2026-01-01"}]}))
                .is_some_and(|said| said.contains("date"))
        );
        assert!(odd_value(&json!({"a": [1, null]})).is_some_and(|said| said.contains("finite")));
        assert_eq!(odd_value(&json!({"a": [1, "x", {}, true]})), None);
    }
}

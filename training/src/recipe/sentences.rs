//! What the TOML reader says of a recipe, as a sentence with the section and the nearest known setting.

use std::ops::Range;

/// The line of a reader's `message` about `span` of `text`, and the message as a sentence without its full stop.
pub(super) fn explain(text: &str, message: &str, span: Option<Range<usize>>) -> (usize, String) {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    // A byte index from another crate; lossy where it were inside of a letter.
    let line = text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count();
    let message = message.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let mut quoted = message.split('`').skip(1).step_by(2);
    let section = section(text, line);
    let reason = if message.starts_with("unknown field") {
        let key = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        format!("`{key}` is not a setting {}; {}", of(text, line, key, &section), suggestion(key, &known))
    } else if message.starts_with("missing field") {
        let named = if section.is_empty() { "the recipe" } else { &section };
        format!("{named} lacks the setting `{}`", quoted.next().unwrap_or_default())
    } else if ["invalid value", "invalid type", "invalid length", "unknown variant"]
        .iter()
        .any(|start| message.starts_with(start) && message.contains(", expected "))
    {
        match key_of(text, line) {
            Some(key) => format!("`{key}` cannot be used: {message}"),
            None => message,
        }
    } else {
        format!("this is no TOML: {message}")
    };
    (line + 1, reason.trim_end_matches('.').to_owned())
}

/// The header that line number `line` stands under, as it is written; empty for the top of a recipe.
fn section(text: &str, line: usize) -> String {
    let header = text.lines().take(line + 1).map(header).fold(None, |last, header| header.or(last));
    header.unwrap_or_default().to_owned()
}

/// The header that a line is, if it is one.
fn header(line: &str) -> Option<&str> {
    let line = line.trim();
    let end = line.rfind(']')?;
    line.starts_with('[').then(|| &line[..=end])
}

/// The key that a line sets.
fn key_of(text: &str, line: usize) -> Option<&str> {
    text.lines().nth(line)?.split_once('=').map(|(key, _)| key.trim())
}

/// What an unknown `key` in `line` does not belong to.
fn of(text: &str, line: usize, key: &str, section: &str) -> String {
    let own = text.lines().nth(line).unwrap_or_default();
    let plain = |name: &str| name.trim().trim_matches(['"', '\'']) == key;
    if header(own).is_some() {
        // The key is a part of the header itself: it does not belong to the parts before it.
        let path: Vec<&str> = own.trim().trim_matches(['[', ']']).split('.').collect();
        let before = path.iter().position(|&part| plain(part)).unwrap_or(0);
        match before {
            0 => "of a recipe".to_owned(),
            _ => format!("of [{}]", path[..before].join(".")),
        }
    } else if !key_of(text, line).is_some_and(plain) {
        // Inside of braces, or one of several names with dots.
        "there".to_owned()
    } else if section.is_empty() {
        "of a recipe".to_owned()
    } else {
        format!("of {section}")
    }
}

/// The nearest known setting, and all of them where none is near.
fn suggestion(key: &str, known: &[&str]) -> String {
    let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(key, known));
    match nearest {
        None => "it has no settings".to_owned(),
        Some(nearest) if 2 * strsim::damerau_levenshtein(key, nearest) <= nearest.len().max(key.len()) => {
            format!("did you mean `{nearest}`?")
        }
        Some(nearest) => format!("the nearest is `{nearest}`, and there are: {}", known.join(", ")),
    }
}

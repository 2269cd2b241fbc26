//! Messages of the TOML reader about a recipe, as sentences with the section and the nearest known setting.

use std::ops::Range;

use paceline::command::wording::{in_words, is_about_a_value, key_on, line_of, on_one_line};

/// The line of a reader's `message` about `span` of `text`, and the message as a sentence without its full stop.
pub(super) fn explain(text: &str, message: &str, span: Option<Range<usize>>) -> (usize, String) {
    let line = span.map_or(1, |span| line_of(text, &span));
    let message = on_one_line(message);
    let mut quoted = message.split('`').skip(1).step_by(2);
    let section = section(text, line);
    let reason = if is_about_a_value(&message) {
        match key_on(text, line) {
            Some(key) => format!("`{key}` cannot be used: {}", in_words(&message)),
            None => format!("this cannot be used: {}", in_words(&message)),
        }
    } else if message.starts_with("unknown field") {
        let key = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        format!("`{key}` is not a setting {}; {}", of(text, line, key, &section), suggestion(key, &known))
    } else if message.starts_with("missing field") {
        let named = if section.is_empty() { "the recipe" } else { &section };
        format!("{named} lacks the setting `{}`", quoted.next().unwrap_or_default())
    } else {
        format!("this is not TOML: {message}")
    };
    (line, reason.trim_end_matches('.').to_owned())
}

/// The header that line number `line`, from 1, stands under, as it is written; empty for the top of a recipe.
fn section(text: &str, line: usize) -> String {
    let header = text.lines().take(line).map(header).fold(None, |last, header| header.or(last));
    header.unwrap_or_default().to_owned()
}

/// The header that a line is, if it is one.
fn header(line: &str) -> Option<&str> {
    let line = line.trim();
    let end = line.rfind(']')?;
    line.starts_with('[').then(|| &line[..=end])
}

/// Names the section that an unknown `key` in `line` does not belong to.
fn of(text: &str, line: usize, key: &str, section: &str) -> String {
    let own = text.lines().nth(line - 1).unwrap_or_default();
    let plain = |name: &str| name.trim().trim_matches(['"', '\'']) == key;
    if header(own).is_some() {
        // The key is a part of the header itself: it does not belong to the parts before it.
        let path: Vec<&str> = own.trim().trim_matches(['[', ']']).split('.').collect();
        let before = path.iter().position(|&part| plain(part)).unwrap_or(0);
        match before {
            0 => "of a recipe".to_owned(),
            _ => format!("of [{}]", path[..before].join(".")),
        }
    } else if !key_on(text, line).is_some_and(plain) {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::path::Path;

    use paceline::command::wording::rust_word;
    use toml::Value;

    use super::super::Recipe;

    /// The paths of all values in a recipe, tables and lists included.
    fn paths(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        if !path.is_empty() {
            found.push(path.clone());
        }
        let inner: Vec<(String, &Value)> = match value {
            Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(values) => {
                values.iter().enumerate().map(|(place, value)| (place.to_string(), value)).collect()
            }
            _ => Vec::new(),
        };
        for (key, value) in inner {
            path.push(key);
            paths(value, path, found);
            path.pop();
        }
    }

    fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Value {
        path.iter().fold(value, |value, key| match value {
            Value::Array(values) => &mut values[key.parse::<usize>().unwrap()],
            Value::Table(table) => table.get_mut(key).unwrap(),
            _ => panic!("{path:?} ends early"),
        })
    }

    #[test]
    fn no_wrong_value_is_told_in_words_of_rust() {
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/smoke.toml");
        // With every default written out.
        let whole = Value::try_from(Recipe::read(&recipe, &[]).unwrap()).unwrap();
        let mut all = Vec::new();
        paths(&whole, &mut Vec::new(), &mut all);
        let wrong = "a = [\"x\", 5, -1, 1.5, nan, inf, true, 2026-01-01, [1], [\"x\"], [[1]], { a = 1 }, { a = { b = 2026-01-01 } }]";
        let wrong: Value = toml::from_str(wrong).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wrong.toml");
        let mut refused = 0;
        for place in &all {
            for value in wrong["a"].as_array().unwrap() {
                let mut changed = whole.clone();
                *at(&mut changed, place) = value.clone();
                std::fs::write(&path, toml::to_string(&changed).unwrap()).unwrap();
                let Err(error) = Recipe::read(&path, &[]) else { continue };
                let message = error.to_string();
                refused += 1;
                assert!(!message.contains('\n') && message.ends_with(['.', '?']), "{place:?} = {value}: {message}");
                assert_eq!(rust_word(&message), None, "{place:?} = {value}: {message}");
            }
        }
        assert!(all.len() > 100 && refused > 1000, "{} settings, {refused} refused", all.len());
    }
}

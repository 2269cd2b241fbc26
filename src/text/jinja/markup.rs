//! Texts that `escape` or `safe` marked as safe: what is added to them is escaped.

use super::Outcome;
use super::budget::{Budget, Text};
use super::pystr::to_str;
use super::value::Value;

/// The filters that take such a text: those that make the same of it as of any text, and those that keep it safe.
const FILTERS: [&str; 26] = [
    "attr",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "indent",
    "int",
    "join",
    "length",
    "list",
    "lower",
    "replace",
    "reverse",
    "safe",
    "string",
    "title",
    "tojson",
    "trim",
    "upper",
    "wordcount",
];

/// True if a filter does with a safe text what Jinja's does.
pub(super) fn takes_filter(name: &str) -> bool {
    FILTERS.contains(&name)
}

/// True if a filter makes a safe text of a safe text.
pub(super) fn is_kept_by(name: &str) -> bool {
    matches!(name, "capitalize" | "center" | "indent" | "lower" | "reverse" | "string" | "trim" | "upper")
}

/// The methods that do with a safe text what Python's do: those that only ask.
pub(super) fn takes_method(name: &str) -> bool {
    name.starts_with("is")
        || matches!(name, "startswith" | "endswith" | "find" | "rfind" | "index" | "rindex" | "count")
}

/// The methods that make a safe text of one.
pub(super) fn is_kept_by_method(name: &str) -> bool {
    matches!(name, "capitalize" | "casefold" | "lower" | "lstrip" | "rstrip" | "strip" | "swapcase" | "title" | "upper")
}

/// A value as HTML: safe texts as they are, and others escaped.
pub(super) fn escaped(value: &Value, budget: &Budget) -> Outcome<Value> {
    match value {
        Value::Markup(_) => Ok(value.clone()),
        other => force_escaped(other, budget),
    }
}

pub(super) fn force_escaped(value: &Value, budget: &Budget) -> Outcome<Value> {
    let mut out = Text::new(budget);
    write_escaped(&to_str(value, budget)?, &mut out)?;
    Ok(Value::Markup(out.finish().into()))
}

/// The sum of two texts of which one is safe; `None` for other values.
pub(super) fn sum(left: &Value, right: &Value, budget: &Budget) -> Outcome<Option<Value>> {
    let one_is_safe = matches!(left, Value::Markup(_)) || matches!(right, Value::Markup(_));
    if !one_is_safe || left.as_text().is_none() || right.as_text().is_none() {
        return Ok(None);
    }
    let mut out = Text::new(budget);
    for value in [left, right] {
        match value {
            Value::Text(text) => write_escaped(text, &mut out)?,
            other => out.push(other.as_text().map_or("", |text| text))?,
        }
    }
    Ok(Some(Value::Markup(out.finish().into())))
}

fn write_escaped(text: &str, out: &mut Text<'_>) -> Outcome<()> {
    out.budget().spend(text.len())?;
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '\'', '"']) {
        let (before, after) = rest.split_at(at);
        out.push(before)?;
        out.push(match after.as_bytes().first() {
            Some(b'&') => "&amp;",
            Some(b'<') => "&lt;",
            Some(b'>') => "&gt;",
            Some(b'\'') => "&#39;",
            _ => "&#34;",
        })?;
        rest = &after[1..];
    }
    out.push(rest)
}

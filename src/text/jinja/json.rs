//! Values from JSON, and JSON from values as Python's `json.dumps` writes it.

use std::sync::Arc;

use serde_json::Value as Json;

use super::budget::{Budget, Text};
use super::call::Call;
use super::pystr::{self, to_str};
use super::value::{Sequence, Value};
use super::{Failure, Outcome};

/// A value of what JSON says.
pub(super) fn from_json(json: &Json, budget: &Budget) -> Outcome<Value> {
    budget.spend_entries(1)?;
    match json {
        Json::Null => Ok(Value::None),
        Json::Bool(truth) => Ok(Value::Bool(*truth)),
        Json::Number(number) => {
            let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            Ok(whole.map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int))
        }
        Json::String(text) => {
            budget.spend(text.len())?;
            Ok(Value::text(text))
        }
        Json::Array(items) => {
            let items: Outcome<Vec<Value>> = items.iter().map(|item| from_json(item, budget)).collect();
            Value::list(items?, Sequence::List)
        }
        Json::Object(fields) => {
            let entries: Outcome<Vec<(Value, Value)>> = fields
                .iter()
                .map(|(key, value)| {
                    budget.spend(key.len())?;
                    Ok((Value::text(key), from_json(value, budget)?))
                })
                .collect();
            Value::dict(entries?)
        }
    }
}

/// Style of written JSON.
struct Style {
    ascii: bool,
    indent: Option<Arc<str>>,
    item_separator: Arc<str>,
    key_separator: Arc<str>,
    sorted: bool,
}

/// The filter `tojson` as transformers defines it.
pub(super) fn to_json(value: &Value, mut call: Call, budget: &Budget) -> Outcome<Value> {
    let ascii = call.take(0, "ensure_ascii").is_some_and(|value| value.truth());
    let indent = match call.take(1, "indent") {
        None | Some(Value::None) => None,
        Some(Value::Text(text) | Value::Markup(text)) => Some(text),
        Some(width) => {
            let width = width.as_int().ok_or_else(|| Failure::new("`indent` is neither a number nor a text"))?;
            let width = usize::try_from(width).unwrap_or(0);
            budget.spend(width)?;
            Some(" ".repeat(width).into())
        }
    };
    let separators = match call.take(2, "separators") {
        None | Some(Value::None) => None,
        Some(given) => Some(pair(&given).ok_or_else(|| Failure::new("`separators` is not a pair of texts"))?),
    };
    let sorted = call.take(3, "sort_keys").is_some_and(|value| value.truth());
    call.finish("tojson")?;
    let item_default = if indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) = separators.unwrap_or_else(|| (item_default.into(), ": ".into()));
    let style = Style { ascii, indent, item_separator, key_separator, sorted };
    let mut out = Text::new(budget);
    write(value, &style, &mut out, 0)?;
    Ok(Value::Text(out.finish().into()))
}

fn pair(value: &Value) -> Option<(Arc<str>, Arc<str>)> {
    let Value::List(list) = value else { return None };
    let [first, second] = &list.items[..] else { return None };
    first.as_text().cloned().zip(second.as_text().cloned())
}

fn write(value: &Value, style: &Style, out: &mut Text<'_>, level: usize) -> Outcome<()> {
    out.budget().spend(8)?;
    match value {
        Value::None => out.push("null"),
        Value::Bool(truth) => out.push(if *truth { "true" } else { "false" }),
        Value::Int(number) => out.push(&number.to_string()),
        Value::Float(number) => out.push(&float(*number)),
        Value::Text(text) | Value::Markup(text) => write_text(text, style, out),
        Value::List(list) if list.sequence == Sequence::List || list.is_tuple() => {
            if list.items.is_empty() {
                return out.push("[]");
            }
            out.push("[")?;
            for (index, item) in list.items.iter().enumerate() {
                begin_item(index, style, out, level + 1)?;
                write(item, style, out, level + 1)?;
            }
            end_items(style, out, level)?;
            out.push("]")
        }
        Value::Dict(dict) => {
            out.budget().spend_entries(dict.entries.len())?;
            let mut entries = dict.all().to_vec();
            if entries.is_empty() {
                return out.push("{}");
            }
            if style.sorted {
                let budget = out.budget();
                budget.spend_entries(entries.len().saturating_mul(2))?;
                let pairs =
                    entries.iter().enumerate().map(|(index, (key, _))| (key.clone(), Value::Int(index as i128)));
                let order = Value::sorted(pairs.collect(), false, budget)?;
                let index = |value: &Value| value.as_int().and_then(|index| usize::try_from(index).ok());
                entries = order.iter().filter_map(|value| entries.get(index(value)?).cloned()).collect();
            }
            out.push("{")?;
            for (index, (key, value)) in entries.iter().enumerate() {
                begin_item(index, style, out, level + 1)?;
                write_key(key, style, out)?;
                out.push(&style.key_separator)?;
                write(value, style, out, level + 1)?;
            }
            end_items(style, out, level)?;
            out.push("}")
        }
        other => Err(Failure::new(format!("a value of type {} cannot be written as JSON", other.type_name()))),
    }
}

fn begin_item(index: usize, style: &Style, out: &mut Text<'_>, level: usize) -> Outcome<()> {
    if index > 0 {
        out.push(&style.item_separator)?;
    }
    new_line(style, out, level)
}

fn end_items(style: &Style, out: &mut Text<'_>, level: usize) -> Outcome<()> {
    new_line(style, out, level)
}

fn new_line(style: &Style, out: &mut Text<'_>, level: usize) -> Outcome<()> {
    let Some(indent) = &style.indent else { return Ok(()) };
    out.push("\n")?;
    out.budget().spend(level)?;
    (0..level).try_for_each(|_| out.push(indent))
}

fn write_key(key: &Value, style: &Style, out: &mut Text<'_>) -> Outcome<()> {
    let text = match key {
        Value::Text(text) | Value::Markup(text) => return write_text(text, style, out),
        Value::None => "null".into(),
        Value::Bool(true) => "true".into(),
        Value::Bool(false) => "false".into(),
        Value::Float(number) => float(*number).into(),
        Value::Int(_) => to_str(key, out.budget())?,
        other => return Err(Failure::new(format!("a value of type {} cannot be a key in JSON", other.type_name()))),
    };
    write_text(&text, style, out)
}

fn float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => pystr::float(number),
    }
}

fn write_text(text: &str, style: &Style, out: &mut Text<'_>) -> Outcome<()> {
    out.push("\"")?;
    for letter in text.chars() {
        match letter {
            '"' => out.push("\\\"")?,
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\x08' => out.push("\\b")?,
            '\x0c' => out.push("\\f")?,
            '\0'..='\x1f' => out.push(&format!("\\u{:04x}", u32::from(letter)))?,
            ' '..='~' => out.push_char(letter)?,
            _ if !style.ascii => out.push_char(letter)?,
            _ => {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    out.push(&format!("\\u{unit:04x}"))?;
                }
            }
        }
    }
    out.push("\"")
}

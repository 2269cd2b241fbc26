//! Text as Python writes and reads it: `str()` and `repr()` of values, floats, and what letters are.

use super::budget::{Budget, Text};
use super::value::{DEEPEST_VALUE, Function, List, Sequence, Value};
use super::{Failure, Outcome};

/// Greatest nesting of namespaces in what is printed.
const DEEPEST_PRINTED: usize = 2 * DEEPEST_VALUE;

/// Whitespace by Python's `isspace`.
pub(super) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter)
}

/// Writes `str(value)`.
pub(super) fn write_str(value: &Value, out: &mut Text<'_>) -> Outcome<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Text(text) | Value::Markup(text) => out.push(text),
        other => write_repr(other, out, 0),
    }
}

/// `str(value)`.
pub(super) fn to_str(value: &Value, budget: &Budget) -> Outcome<std::sync::Arc<str>> {
    if let Some(text) = value.as_text() {
        return Ok(std::sync::Arc::clone(text));
    }
    let mut out = Text::new(budget);
    write_str(value, &mut out)?;
    Ok(out.finish().into())
}

/// Writes `repr(value)`.
pub(super) fn write_repr(value: &Value, out: &mut Text<'_>, level: usize) -> Outcome<()> {
    if level > DEEPEST_PRINTED {
        return Err(Failure::new("what is printed is nested too deeply"));
    }
    out.budget().spend(8)?;
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(truth) => out.push(if *truth { "True" } else { "False" }),
        Value::Int(number) => out.push(&number.to_string()),
        Value::Float(number) => out.push(&float(*number)),
        Value::Text(text) => write_quoted(text, out),
        Value::Markup(text) => {
            out.push("Markup(")?;
            write_quoted(text, out)?;
            out.push(")")
        }
        Value::List(list) => write_list(list, out, level),
        Value::Dict(dict) => write_entries(dict.all().iter().map(|(key, value)| (key, value)), out, level),
        Value::Namespace(namespace) => {
            out.push("<Namespace ")?;
            out.budget().spend_entries(namespace.fields.borrow().len().saturating_mul(2))?;
            // What is printed may be the namespace again, so its fields are not borrowed meanwhile.
            let fields = namespace.fields.borrow().clone();
            let fields: Vec<_> = fields.into_iter().map(|(name, value)| (Value::Text(name), value)).collect();
            write_entries(fields.iter().map(|(key, value)| (key, value)), out, level)?;
            out.push(">")
        }
        Value::Macro(known) => {
            out.push("<Macro ")?;
            write_quoted(&known.definition.name, out)?;
            out.push(">")
        }
        Value::Loop(state) => out.push(&format!("<LoopContext {}/{}>", state.index(), state.known_length()?)),
        Value::Function(Function::Range) => out.push("<class 'range'>"),
        Value::Function(_) | Value::Method(_) => Err(unprintable(value.type_name())),
    }
}

fn write_list(list: &List, out: &mut Text<'_>, level: usize) -> Outcome<()> {
    let (begin, end) = match list.sequence {
        Sequence::List => ("[", "]"),
        Sequence::Tuple | Sequence::Group => ("(", if list.items.len() == 1 { ",)" } else { ")" }),
        Sequence::Keys => ("dict_keys([", "])"),
        Sequence::Values => ("dict_values([", "])"),
        Sequence::Items => ("dict_items([", "])"),
        Sequence::Range => return write_range(&list.items, out),
        Sequence::Generator => return Err(unprintable("generator")),
    };
    out.push(begin)?;
    for (index, item) in list.items.iter().enumerate() {
        if index > 0 {
            out.push(", ")?;
        }
        write_repr(item, out, level + 1)?;
    }
    out.push(end)
}

/// A range by its ends, where its numbers show them.
fn write_range(numbers: &[Value], out: &mut Text<'_>) -> Outcome<()> {
    match numbers {
        [Value::Int(first), Value::Int(second), ..] if first + 1 == *second => {
            out.push(&format!("range({first}, {})", first + numbers.len() as i128))
        }
        _ => Err(unprintable("range")),
    }
}

fn unprintable(kind: &str) -> Failure {
    Failure::new(format!("a {kind} is printed as it is; use the filter `list`, or call it"))
}

fn write_entries<'v>(
    entries: impl Iterator<Item = (&'v Value, &'v Value)>,
    out: &mut Text<'_>,
    level: usize,
) -> Outcome<()> {
    out.push("{")?;
    for (index, (key, value)) in entries.enumerate() {
        if index > 0 {
            out.push(", ")?;
        }
        write_repr(key, out, level + 1)?;
        out.push(": ")?;
        write_repr(value, out, level + 1)?;
    }
    out.push("}")
}

/// A text in quotes, as `repr` writes it.
fn write_quoted(text: &str, out: &mut Text<'_>) -> Outcome<()> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push_char(quote)?;
    for letter in text.chars() {
        match letter {
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\\' => out.push("\\\\")?,
            _ if letter == quote => {
                out.push("\\")?;
                out.push_char(letter)?;
            }
            ' '..='~' => out.push_char(letter)?,
            _ if is_printable(letter, out.budget())? => out.push_char(letter)?,
            _ => {
                let code = u32::from(letter);
                out.push(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                })?;
            }
        }
    }
    out.push_char(quote)
}

/// Python's `isprintable` of a letter. Rust's `escape_debug` escapes the same ones beyond ASCII, behind the first.
pub(super) fn is_printable(letter: char, budget: &Budget) -> Outcome<bool> {
    if letter.is_ascii() {
        return Ok(matches!(letter, ' '..='~'));
    }
    budget.spend(8)?;
    let mut bytes = *b"a\0\0\0\0";
    let length = letter.encode_utf8(&mut bytes[1..]).len();
    let escaped = std::str::from_utf8(&bytes[..=length]).is_ok_and(|text| text.escape_debug().nth(1) == Some('\\'));
    Ok(!escaped)
}

/// A float as `repr` writes it: the fewest digits that are read back as the same.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

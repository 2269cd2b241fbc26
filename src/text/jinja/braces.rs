//! Python's `"{}".format(value)`.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use super::budget::{Budget, Text};
use super::call::Call;
use super::format::{Spec, digits, repr, write_float, write_int, write_text, wrong_type};
use super::pystr::to_str;
use super::value::{Dict, Value};
use super::{Failure, Outcome};

/// `text.format(..)`.
pub(super) fn format(text: &str, mut call: Call, budget: &Budget) -> Outcome<Value> {
    let values = call.rest();
    let named = call.named().into_iter().map(|(name, value)| (Value::Text(name), value)).collect();
    match Value::dict(named)? {
        Value::Dict(named) => fill(text, &values, &named, budget),
        _ => Err(Failure::new("a mapping is not a mapping")),
    }
}

/// `text` with its fields filled in.
pub(super) fn fill(text: &str, values: &[Value], named: &Dict, budget: &Budget) -> Outcome<Value> {
    budget.spend(text.len())?;
    let mut fields = Fields { values, named, automatic: 0, by_number: false };
    let mut out = Text::new(budget);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '{' | '}' if letters.next_if_eq(&letter).is_some() => out.push_char(letter)?,
            '{' => write_field(&field(&mut letters)?, &mut fields, &mut out)?,
            '}' => return Err(Failure::new("a text to be formatted has a single `}`")),
            other => out.push_char(other)?,
        }
    }
    Ok(Value::Text(out.finish().into()))
}

/// The field behind a `{`.
fn field(letters: &mut Peekable<Chars<'_>>) -> Outcome<String> {
    let mut field = String::new();
    loop {
        match letters.next() {
            Some('}') => return Ok(field),
            Some('{') => return Err(Failure::new("nested fields in `format` are not supported")),
            Some(letter) => field.push(letter),
            None => return Err(Failure::new("a text to be formatted has a single `{`")),
        }
    }
}

struct Fields<'v> {
    values: &'v [Value],
    named: &'v Dict,
    /// The fields without a name or number so far.
    automatic: usize,
    /// True if there were fields with numbers.
    by_number: bool,
}

impl Fields<'_> {
    fn value(&mut self, name: &str, budget: &Budget) -> Outcome<Value> {
        let index = match name {
            "" => {
                self.automatic += 1;
                Some(self.automatic - 1)
            }
            _ if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.by_number = true;
                Some(name.parse().unwrap_or(usize::MAX))
            }
            _ => None,
        };
        if self.automatic > 0 && self.by_number {
            return Err(Failure::new("a text to be formatted has fields with and without numbers"));
        }
        let found = match index {
            Some(index) => self.values.get(index),
            None => self.named.find(&Value::text(name), budget)?,
        };
        found.cloned().ok_or_else(|| Failure::new(format!("there is no value for `{{{name}}}`")))
    }
}

fn write_field(field: &str, fields: &mut Fields<'_>, out: &mut Text<'_>) -> Outcome<()> {
    let (name, spec) = field.split_once(':').unwrap_or((field, ""));
    let (name, conversion) = name.split_once('!').map_or((name, None), |(name, conversion)| (name, Some(conversion)));
    let budget = out.budget();
    let value = fields.value(name, budget)?;
    let value = match conversion {
        None => value,
        Some("s") => Value::Text(to_str(&value, budget)?),
        Some("r") => Value::Text(repr(&value, budget)?),
        Some(other) => return Err(Failure::new(format!("the conversion `!{other}` is not supported"))),
    };
    if spec.is_empty() {
        return out.push(&to_str(&value, budget)?);
    }
    write(&value, parse(spec)?, out)
}

/// Python's format specification.
fn parse(spec: &str) -> Outcome<Spec> {
    let mut result = Spec::default();
    let mut letters = spec.chars().peekable();
    let mut ahead = spec.chars();
    let (first, second) = (ahead.next(), ahead.next());
    let is_align = |letter: Option<char>| matches!(letter, Some('<' | '>' | '=' | '^'));
    if is_align(second) {
        (result.fill, result.align) = (first, second);
        letters.nth(1);
    } else if is_align(first) {
        result.align = letters.next();
    }
    result.sign = letters.next_if(|letter| matches!(letter, '+' | '-' | ' '));
    result.alternate = letters.next_if_eq(&'#').is_some();
    if letters.next_if_eq(&'0').is_some() && result.fill.is_none() {
        result.fill = Some('0');
    }
    result.width = digits(&mut letters)?.unwrap_or(0);
    result.grouping = letters.next_if(|letter| matches!(letter, ',' | '_'));
    if letters.next_if_eq(&'.').is_some() {
        result.precision = Some(digits(&mut letters)?.ok_or_else(|| Failure::new("a format ends in a point"))?);
    }
    result.kind = letters.next();
    if letters.next().is_some() {
        return Err(Failure::new(format!("the format {spec:?} is not supported")));
    }
    Ok(result)
}

/// A value by a specification that is not empty.
fn write(value: &Value, mut spec: Spec, out: &mut Text<'_>) -> Outcome<()> {
    let refused =
        |what: &str| Err(Failure::new(format!("{what} is not allowed in the format of {}", value.type_name())));
    if let (Some(text), None | Some('s')) = (value.as_text(), spec.kind) {
        return match spec {
            Spec { align: Some('='), .. } => refused("the alignment `=`"),
            Spec { sign: Some(_), .. } => refused("a sign"),
            Spec { alternate: true, .. } => refused("`#`"),
            Spec { grouping: Some(_), .. } => refused("a separator of thousands"),
            _ => write_text(text, &spec, out),
        };
    }
    // Zeros before a width go between the sign and the digits.
    if spec.fill == Some('0') && spec.align.is_none() {
        spec.align = Some('=');
    }
    match (value, spec.kind) {
        (Value::Bool(_) | Value::Int(_), None | Some('d' | 'n' | 'x' | 'X' | 'o' | 'b')) => match spec {
            Spec { precision: Some(_), .. } => refused("a precision"),
            Spec { grouping: Some(','), kind: Some('x' | 'X' | 'o' | 'b'), .. } => refused("`,`"),
            Spec { grouping: Some(_), kind: Some('n'), .. } => refused("a separator of thousands"),
            _ => write_int(value.as_int().unwrap_or(0), 0, &spec, out),
        },
        (Value::Bool(_) | Value::Int(_) | Value::Float(_), Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%'))
        | (Value::Float(_), None) => write_float(value.as_float().unwrap_or(0.0), &spec, out),
        (other, kind) => Err(wrong_type(kind.unwrap_or('s'), other)),
    }
}

/// The mapping that `format_map` takes.
pub(super) fn format_map(text: &Arc<str>, mapping: &Value, budget: &Budget) -> Outcome<Value> {
    match mapping {
        Value::Dict(dict) => fill(text, &[], dict, budget),
        other => Err(Failure::new(format!("`format_map` does not take {}", other.type_name()))),
    }
}

//! Python's `"%s" % value`.

use std::iter::Peekable;
use std::slice::Iter;
use std::str::Chars;
use std::sync::Arc;

use super::budget::{Budget, Text};
use super::format::{Spec, digits, repr, write_float, write_int, write_text, wrong_type};
use super::pystr::to_str;
use super::value::Value;
use super::{Failure, Outcome};

/// `text % values`.
pub(super) fn fill(text: &str, values: &Value, budget: &Budget) -> Outcome<Value> {
    budget.spend(text.len())?;
    let tuple = match values {
        Value::List(list) if list.is_tuple() => Some(list),
        _ => None,
    };
    let items = tuple.map_or(std::slice::from_ref(values), |list| &list.items);
    let mut filling = Filling { letters: text.chars().peekable(), values, next: items.iter(), out: Text::new(budget) };
    while let Some(letter) = filling.letters.next() {
        match letter {
            '%' => filling.field()?,
            other => filling.out.push_char(other)?,
        }
    }
    let may_be_left = tuple.is_none() && matches!(values, Value::List(_) | Value::Dict(_) | Value::Undefined(_));
    if !may_be_left && filling.next.next().is_some() {
        return Err(Failure::new("there are more values than `%` in the text"));
    }
    Ok(Value::Text(filling.out.finish().into()))
}

struct Filling<'v, 'b> {
    letters: Peekable<Chars<'v>>,
    values: &'v Value,
    next: Iter<'v, Value>,
    out: Text<'b>,
}

impl Filling<'_, '_> {
    /// A conversion, behind its `%`.
    fn field(&mut self) -> Outcome<()> {
        let named = self.named()?;
        let mut spec = self.flags();
        spec.width = self.number()?.unwrap_or(0);
        if self.letters.next_if_eq(&'.').is_some() {
            spec.precision = Some(self.number()?.unwrap_or(0));
        }
        let kind = self.letters.next().ok_or_else(|| Failure::new("a text ends in a single `%`"))?;
        if kind == '%' {
            return self.out.push("%");
        }
        let value = match named {
            Some(value) => value,
            None => self.next_value()?,
        };
        write(&value, kind, spec, &mut self.out)
    }

    fn next_value(&mut self) -> Outcome<Value> {
        self.next.next().cloned().ok_or_else(|| Failure::new("there are fewer values than `%` in the text"))
    }

    /// The value of `(name)`.
    fn named(&mut self) -> Outcome<Option<Value>> {
        if self.letters.next_if_eq(&'(').is_none() {
            return Ok(None);
        }
        let key: String = self.letters.by_ref().take_while(|&letter| letter != ')').collect();
        let Value::Dict(dict) = self.values else { return Err(Failure::new("`%(name)` needs a mapping")) };
        let found = dict.find(&Value::text(&key), self.out.budget())?.cloned();
        found.map(Some).ok_or_else(|| Failure::new(format!("there is no value for `%({key})`")))
    }

    fn flags(&mut self) -> Spec {
        let mut spec = Spec::default();
        while let Some(flag) = self.letters.next_if(|letter| matches!(letter, '-' | '0' | '+' | ' ' | '#')) {
            match flag {
                '-' => spec.align = Some('<'),
                '0' => spec.fill = Some('0'),
                '#' => spec.alternate = true,
                sign => spec.sign = Some(if spec.sign == Some('+') { '+' } else { sign }),
            }
        }
        spec
    }

    /// A width or a precision, which `*` takes from the values.
    fn number(&mut self) -> Outcome<Option<usize>> {
        if self.letters.next_if_eq(&'*').is_none() {
            return digits(&mut self.letters);
        }
        let number = self.next_value()?.as_int().and_then(|number| usize::try_from(number).ok());
        number.map(Some).ok_or_else(|| Failure::new("`*` in a text with `%` needs a whole number"))
    }
}

/// One value in its conversion.
fn write(value: &Value, kind: char, mut spec: Spec, out: &mut Text<'_>) -> Outcome<()> {
    let zeros = spec.fill.take() == Some('0') && spec.align.is_none();
    match kind {
        's' | 'r' | 'c' => {
            let budget = out.budget();
            let text = match kind {
                's' => to_str(value, budget)?,
                'r' => repr(value, budget)?,
                _ => character(value)?,
            };
            spec.precision = spec.precision.filter(|_| kind != 'c');
            spec.align = spec.align.or(Some('>'));
            write_text(&text, &spec, out)
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let number = match value {
                Value::Float(number) if matches!(kind, 'd' | 'i' | 'u') => whole(*number)?,
                other => other.as_int().ok_or_else(|| wrong_type(kind, other))?,
            };
            let least = spec.precision.take().unwrap_or(0);
            spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
            if zeros {
                (spec.fill, spec.align) = (Some('0'), Some('='));
            }
            write_int(number, least, &spec, out)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = value.as_float().ok_or_else(|| wrong_type(kind, value))?;
            spec.kind = Some(kind);
            if zeros {
                (spec.fill, spec.align) = (Some('0'), Some('='));
            }
            write_float(number, &spec, out)
        }
        other => Err(Failure::new(format!("`%{other}` is not supported"))),
    }
}

/// The character of `%c`: a text of one, or the one with a number.
fn character(value: &Value) -> Outcome<Arc<str>> {
    let text = match value.as_text() {
        Some(text) => Some(Arc::clone(text)).filter(|text| text.chars().nth(1).is_none() && !text.is_empty()),
        None => value
            .as_int()
            .and_then(|code| char::from_u32(u32::try_from(code).ok()?))
            .map(|letter| letter.to_string().into()),
    };
    text.ok_or_else(|| Failure::new("`%c` needs a character"))
}

fn whole(number: f64) -> Outcome<i128> {
    // Below 2^127.
    if number.abs() < 1.7e38 {
        return Ok(number as i128);
    }
    Err(Failure::new("a number has more than 127 bits"))
}

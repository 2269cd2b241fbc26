//! Python's two ways to fill in a text: `"%s" % value` and `"{}".format(value)`.

use std::sync::Arc;

use super::budget::{Budget, Text};
use super::call::Call;
use super::pystr::{float, to_str, write_repr};
use super::value::{Sequence, Value};
use super::{Failure, Outcome};

/// The most digits behind a point.
const MOST_DIGITS: usize = 400;

/// How a value is to be written.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// `text % values`.
pub(super) fn percent(text: &str, values: &Value, budget: &Budget) -> Outcome<Value> {
    let mut out = Text::new(budget);
    let list = match values {
        Value::List(list) if matches!(list.sequence, Sequence::Tuple | Sequence::Group) => list.items.clone(),
        other => vec![other.clone()],
    };
    budget.spend_entries(list.len())?;
    let mut next = list.iter();
    let missing = || Failure::new("there are fewer values than `%` in the text");
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push_char(letter)?;
            continue;
        }
        let mut named = None;
        if letters.next_if_eq(&'(').is_some() {
            let key: String = letters.by_ref().take_while(|&letter| letter != ')').collect();
            let Value::Dict(dict) = values else { return Err(Failure::new("`%(name)` needs a mapping")) };
            let found = dict.find(&Value::text(&key), budget)?.cloned();
            named = Some(found.ok_or_else(|| Failure::new(format!("there is no value for `%({key})`")))?);
        }
        let mut spec = Spec::default();
        while let Some(flag) = letters.next_if(|letter| matches!(letter, '-' | '0' | '+' | ' ' | '#')) {
            match flag {
                '-' => spec.align = Some('<'),
                '0' => spec.fill = Some('0'),
                '#' => spec.alternate = true,
                sign => spec.sign = Some(if spec.sign == Some('+') { '+' } else { sign }),
            }
        }
        let mut number = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| -> Outcome<Option<usize>> {
            if letters.next_if_eq(&'*').is_some() {
                let value = next.next().ok_or_else(missing)?;
                let number = value.as_int().and_then(|number| usize::try_from(number).ok());
                return number.map(Some).ok_or_else(|| Failure::new("`*` in a text with `%` needs a whole number"));
            }
            digits(letters)
        };
        spec.width = number(&mut letters)?.unwrap_or(0);
        if letters.next_if_eq(&'.').is_some() {
            spec.precision = Some(number(&mut letters)?.unwrap_or(0));
        }
        let kind = letters.next().ok_or_else(|| Failure::new("a text ends in a single `%`"))?;
        if kind == '%' {
            out.push("%")?;
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next.next().ok_or_else(missing)?.clone(),
        };
        percent_one(&value, kind, spec, &mut out)?;
    }
    let strict = matches!(values, Value::List(list) if matches!(list.sequence, Sequence::Tuple | Sequence::Group));
    let strict = strict || !matches!(values, Value::List(_) | Value::Dict(_) | Value::Undefined(_));
    if strict && next.next().is_some() {
        return Err(Failure::new("there are more values than `%` in the text"));
    }
    Ok(Value::Text(out.finish().into()))
}

/// One conversion of `%`.
fn percent_one(value: &Value, kind: char, mut spec: Spec, out: &mut Text<'_>) -> Outcome<()> {
    let zeros = spec.fill == Some('0');
    if zeros {
        spec.fill = None;
    }
    match kind {
        's' | 'r' | 'a' => {
            let budget = out.budget();
            let text = if kind == 's' { to_str(value, budget)? } else { repr(value, budget)? };
            spec.align = spec.align.or(Some('>'));
            write_text(&text, &spec, out)
        }
        'c' => {
            let text = match value {
                Value::Text(text) => Arc::clone(text),
                other => other
                    .as_int()
                    .and_then(|code| char::from_u32(u32::try_from(code).ok()?))
                    .map(|letter| letter.to_string().into())
                    .ok_or_else(|| Failure::new("`%c` needs a character"))?,
            };
            spec.align = spec.align.or(Some('>'));
            write_text(&text, &spec, out)
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let number = match value {
                Value::Float(number) if number.is_finite() && matches!(kind, 'd' | 'i' | 'u') => *number as i128,
                other => other.as_int().ok_or_else(|| wrong_type(kind, other))?,
            };
            let least = spec.precision.take().unwrap_or(0);
            spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
            if zeros && spec.align.is_none() {
                (spec.fill, spec.align) = (Some('0'), Some('='));
            }
            write_int(number, least, &spec, out)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = value.as_float().ok_or_else(|| wrong_type(kind, value))?;
            spec.kind = Some(kind);
            if zeros && spec.align.is_none() {
                (spec.fill, spec.align) = (Some('0'), Some('='));
            }
            write_float(number, &spec, out)
        }
        other => Err(Failure::new(format!("`%{other}` is unknown"))),
    }
}

fn wrong_type(kind: char, value: &Value) -> Failure {
    Failure::new(format!("the format `{kind}` does not take {}", value.type_name()))
}

fn repr(value: &Value, budget: &Budget) -> Outcome<Arc<str>> {
    let mut out = Text::new(budget);
    write_repr(value, &mut out, 0)?;
    Ok(out.finish().into())
}

fn digits(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Outcome<Option<usize>> {
    let mut number: Option<usize> = None;
    while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
        letters.next();
        let next = number.unwrap_or(0).checked_mul(10).and_then(|number| number.checked_add(digit as usize));
        number = Some(next.ok_or_else(|| Failure::new("a width is too large"))?);
    }
    Ok(number)
}

/// `text.format(..)`.
pub(super) fn braces(text: &str, mut call: Call, budget: &Budget) -> Outcome<Value> {
    let values = call.rest();
    let named = call.named();
    let mut out = Text::new(budget);
    let mut automatic = 0;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '{' if letters.next_if_eq(&'{').is_some() => out.push("{")?,
            '}' if letters.next_if_eq(&'}').is_some() => out.push("}")?,
            '}' => return Err(Failure::new("a text to be formatted has a single `}`")),
            '{' => {
                let field: String = letters.by_ref().take_while(|&letter| letter != '}').collect();
                budget.spend(field.len())?;
                if field.contains('{') {
                    return Err(Failure::new("nested fields in `format` are not supported"));
                }
                let (field, spec) = field.split_once(':').unwrap_or((&field, ""));
                let (name, conversion) = field.split_once('!').unwrap_or((field, ""));
                let found = match name {
                    "" => {
                        automatic += 1;
                        values.get(automatic - 1)
                    }
                    _ => match name.parse::<usize>() {
                        Ok(index) => values.get(index),
                        Err(_) => named.iter().find(|(known, _)| **known == *name).map(|(_, value)| value),
                    },
                };
                let value = found.ok_or_else(|| Failure::new(format!("there is no value for `{{{name}}}`")))?;
                let value = match conversion {
                    "" => value.clone(),
                    "s" => Value::Text(to_str(value, budget)?),
                    "r" => Value::Text(repr(value, budget)?),
                    other => return Err(Failure::new(format!("the conversion `!{other}` is not supported"))),
                };
                write_with(&value, &parse(spec)?, &mut out)?;
            }
            other => out.push_char(other)?,
        }
    }
    Ok(Value::Text(out.finish().into()))
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
        result.align = result.align.or(Some('='));
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

fn write_with(value: &Value, spec: &Spec, out: &mut Text<'_>) -> Outcome<()> {
    match (value, spec.kind) {
        (Value::Text(text), None | Some('s')) => write_text(text, spec, out),
        (Value::Bool(_), None) | (Value::Int(_), None | Some('d' | 'n')) => {
            if let (Value::Bool(truth), 0) = (value, spec.width) {
                return out.push(if *truth { "True" } else { "False" });
            }
            write_int(value.as_int().unwrap_or(0), 0, spec, out)
        }
        (Value::Bool(_) | Value::Int(_), Some('d' | 'x' | 'X' | 'o' | 'b')) => {
            write_int(value.as_int().unwrap_or(0), 0, spec, out)
        }
        (Value::Bool(_) | Value::Int(_) | Value::Float(_), Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%'))
        | (Value::Float(_), None) => write_float(value.as_float().unwrap_or(0.0), spec, out),
        (other, None) if spec.width == 0 && spec.precision.is_none() => out.push(&to_str(other, out.budget())?),
        (other, kind) => Err(wrong_type(kind.unwrap_or('s'), other)),
    }
}

fn write_text(text: &str, spec: &Spec, out: &mut Text<'_>) -> Outcome<()> {
    let cut: String = match spec.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    out.budget().spend(cut.len())?;
    padded("", &cut, spec, '<', out)
}

/// Writes a sign and what follows it in the width that is asked for.
fn padded(sign: &str, text: &str, spec: &Spec, default: char, out: &mut Text<'_>) -> Outcome<()> {
    let length = sign.chars().count() + text.chars().count();
    let space = spec.width.saturating_sub(length);
    let fill = spec.fill.unwrap_or(' ');
    let (before, between, after) = match spec.align.unwrap_or(default) {
        '<' => (0, 0, space),
        '^' => (space / 2, 0, space - space / 2),
        '=' => (0, space, 0),
        _ => (space, 0, 0),
    };
    out.push_repeated(fill, before)?;
    out.push(sign)?;
    out.push_repeated(fill, between)?;
    out.push(text)?;
    out.push_repeated(fill, after)
}

fn sign_of(negative: bool, spec: &Spec) -> &'static str {
    match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    }
}

fn write_int(number: i128, least_digits: usize, spec: &Spec, out: &mut Text<'_>) -> Outcome<()> {
    let size = number.unsigned_abs();
    let (prefix, mut digits) = match spec.kind {
        Some('x') => ("0x", format!("{size:x}")),
        Some('X') => ("0X", format!("{size:X}")),
        Some('o') => ("0o", format!("{size:o}")),
        Some('b') => ("0b", format!("{size:b}")),
        _ => ("", size.to_string()),
    };
    out.budget().spend(least_digits)?;
    if digits.len() < least_digits {
        digits = "0".repeat(least_digits - digits.len()) + &digits;
    }
    if let Some(separator) = spec.grouping {
        digits = grouped(&digits, separator);
    }
    let sign = sign_of(number < 0, spec).to_owned() + if spec.alternate { prefix } else { "" };
    padded(&sign, &digits, spec, '>', out)
}

fn grouped(digits: &str, separator: char) -> String {
    let mut result = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            result.push(separator);
        }
        result.push(digit);
    }
    result
}

fn write_float(number: f64, spec: &Spec, out: &mut Text<'_>) -> Outcome<()> {
    let digits = spec.precision.unwrap_or(6);
    if digits > MOST_DIGITS {
        return Err(Failure::new(format!("a number is asked for with more than {MOST_DIGITS} digits")));
    }
    let size = number.abs();
    let text = match spec.kind {
        _ if !number.is_finite() => float(size),
        Some('f' | 'F') => format!("{size:.digits$}"),
        Some('%') => format!("{:.digits$}%", size * 100.0),
        Some('e' | 'E') => scientific(size, digits),
        Some('g' | 'G') => general(size, digits.max(1)),
        _ => match spec.precision {
            None => float(size),
            Some(_) => return Err(Failure::new("a precision needs the format `f`, `e` or `g`")),
        },
    };
    let text = if matches!(spec.kind, Some('E' | 'G' | 'F')) { text.to_uppercase() } else { text };
    let text = match (spec.grouping, text.split_once('.')) {
        (Some(separator), Some((whole, rest))) => format!("{}.{rest}", grouped(whole, separator)),
        (Some(separator), None) => grouped(&text, separator),
        _ => text,
    };
    padded(sign_of(number.is_sign_negative() && !number.is_nan(), spec), &text, spec, '>', out)
}

fn scientific(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// The format `g`: so many digits, without zeros at the end.
fn general(number: f64, digits: usize) -> String {
    let text = scientific(number, digits - 1);
    let exponent: i32 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or_default();
    let without_zeros = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{exponent}", without_zeros(mantissa));
    }
    let behind = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
    without_zeros(&format!("{number:.behind$}"))
}

//! Texts and numbers in a width, with a precision, a sign and zeros, as Python's ways to fill in a text write them.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use super::budget::{Budget, Text};
use super::pystr::{float, write_repr};
use super::value::Value;
use super::{Failure, Outcome};

/// The most digits behind a point.
const MOST_DIGITS: usize = 400;

/// Format specification of a value.
#[derive(Default)]
pub(super) struct Spec {
    pub(super) fill: Option<char>,
    pub(super) align: Option<char>,
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) width: usize,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Spec {
    /// The digits that zeros fill up to, where they are grouped like digits, beside `others`.
    fn least_digits(&self, others: usize) -> usize {
        let groups_zeros = self.fill == Some('0') && self.align == Some('=');
        if groups_zeros { self.width.saturating_sub(others) } else { 0 }
    }
}

pub(super) fn wrong_type(kind: char, value: &Value) -> Failure {
    Failure::new(format!("the format `{kind}` does not take {}", value.type_name()))
}

pub(super) fn repr(value: &Value, budget: &Budget) -> Outcome<Arc<str>> {
    let mut out = Text::new(budget);
    write_repr(value, &mut out, 0)?;
    Ok(out.finish().into())
}

/// A number in decimal digits, if there is one.
pub(super) fn digits(letters: &mut Peekable<Chars<'_>>) -> Outcome<Option<usize>> {
    let mut number: Option<usize> = None;
    while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
        letters.next();
        let next = number.unwrap_or(0).checked_mul(10).and_then(|number| number.checked_add(digit as usize));
        number = Some(next.ok_or_else(|| Failure::new("a width is too large"))?);
    }
    Ok(number)
}

pub(super) fn write_text(text: &str, spec: &Spec, out: &mut Text<'_>) -> Outcome<()> {
    out.budget().spend(text.len())?;
    let end = spec.precision.and_then(|most| text.char_indices().nth(most)).map_or(text.len(), |(end, _)| end);
    padded("", &text[..end], spec, '<', out)
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

pub(super) fn write_int(number: i128, least_digits: usize, spec: &Spec, out: &mut Text<'_>) -> Outcome<()> {
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
    let sign = sign_of(number < 0, spec).to_owned() + if spec.alternate { prefix } else { "" };
    if let Some(separator) = spec.grouping {
        let size = if prefix.is_empty() { 3 } else { 4 };
        digits = grouped(&digits, separator, size, spec.least_digits(sign.len()), out.budget())?;
    }
    padded(&sign, &digits, spec, '>', out)
}

/// Digits in groups, filled up with zeros to `least` characters.
fn grouped(digits: &str, separator: char, size: usize, least: usize, budget: &Budget) -> Outcome<String> {
    budget.spend(least.max(digits.len()).saturating_mul(8))?;
    let mut reversed = Vec::with_capacity(2 * digits.len());
    let mut digits = digits.bytes().rev();
    let mut count = 0;
    loop {
        let digit = match digits.next() {
            Some(digit) => char::from(digit),
            None if reversed.len() < least => '0',
            None => break,
        };
        if count > 0 && count % size == 0 {
            reversed.push(separator);
        }
        reversed.push(digit);
        count += 1;
    }
    Ok(reversed.into_iter().rev().collect())
}

pub(super) fn write_float(number: f64, spec: &Spec, out: &mut Text<'_>) -> Outcome<()> {
    let digits = spec.precision.unwrap_or(6);
    if digits > MOST_DIGITS {
        return Err(Failure::new(format!("a number is asked for with more than {MOST_DIGITS} digits")));
    }
    if spec.alternate {
        return Err(Failure::new("`#` in the format of a float is not supported"));
    }
    // Zeros at the end are made before they are left out.
    out.budget().spend(digits)?;
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
    let mut text = if matches!(spec.kind, Some('E' | 'G' | 'F')) { text.to_uppercase() } else { text };
    let sign = sign_of(number.is_sign_negative() && !number.is_nan(), spec);
    if let (Some(separator), true) = (spec.grouping, number.is_finite()) {
        let (whole, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let least = spec.least_digits(sign.len() + rest.len());
        text = grouped(whole, separator, 3, least, out.budget())? + rest;
    }
    padded(sign, &text, spec, '>', out)
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

//! The filters that make numbers.

use super::budget::Budget;
use super::call::Call;
use super::operators;
use super::pystr::is_space;
use super::value::Value;
use super::{Failure, Outcome};

pub(super) fn filter(name: &str, value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    if let Some(text) = value.as_text() {
        // It is copied in lower case and without underscores.
        budget.spend(text.len().saturating_mul(3))?;
    }
    value.defined()?;
    match name {
        "int" => {
            let default = call.take(0, "default").unwrap_or(Value::Int(0));
            let base = call.int(1, "base")?.unwrap_or(10);
            Ok(to_int(value, base).unwrap_or(default))
        }
        "float" => {
            let default = call.take(0, "default").unwrap_or(Value::Float(0.0));
            Ok(to_float(value).map_or(default, Value::Float))
        }
        "abs" => match (value.as_int(), value) {
            (Some(number), _) if number < 0 => operators::negative(&Value::Int(number)),
            (Some(number), _) => Ok(Value::Int(number)),
            (None, Value::Float(number)) => Ok(Value::Float(number.abs())),
            (None, other) => Err(Failure::new(format!("`abs` takes a number and not {}", other.type_name()))),
        },
        _ => round(value, call, budget),
    }
}

/// Python's `int`, and where that fails `int(float(..))`.
fn to_int(value: &Value, base: i128) -> Option<Value> {
    if let Some(number) = value.as_int() {
        return Some(Value::Int(number));
    }
    if let Some(text) = value.as_text() {
        let text = text.trim_matches(is_space);
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let lower = digits.to_ascii_lowercase();
        let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find(|(begin, _)| lower.starts_with(begin));
        let (radix, digits) = match prefixed {
            Some((_, radix)) if base == 0 || base == i128::from(radix) => (radix, digits.get(2..)?),
            _ => (u32::try_from(if base == 0 { 10 } else { base }).ok()?, digits),
        };
        let underscores_fit = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
        let is_number = (2..=36).contains(&radix) && underscores_fit && !digits.starts_with(['+', '-']);
        let number = is_number.then(|| i128::from_str_radix(&digits.replace('_', ""), radix).ok()).flatten();
        if let Some(number) = number {
            return Some(Value::Int(if negative { -number } else { number }));
        }
    }
    let number = to_float(value)?;
    (number.is_finite() && number.abs() < 1e38).then_some(Value::Int(number as i128))
}

fn to_float(value: &Value) -> Option<f64> {
    let Some(text) = value.as_text() else { return value.as_float() };
    let text = text.trim_matches(is_space).to_ascii_lowercase();
    let underscores_fit = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    text.replace('_', "").parse().ok().filter(|_| underscores_fit)
}

/// Half to even, as Python rounds.
fn round(value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let precision = call.int(0, "precision")?.unwrap_or(0);
    let method = call.text(1, "method")?;
    let precision = i32::try_from(precision).ok().filter(|precision| (-300..=300).contains(precision));
    let precision = precision.ok_or_else(|| Failure::new("the precision of `round` is beyond 300 digits"))?;
    // So many digits are written, and read again.
    budget.spend(precision.unsigned_abs() as usize * 4)?;
    let number = value.as_float();
    let number = number.ok_or_else(|| Failure::new(format!("`round` does not take {}", value.type_name())))?;
    let scale = 10f64.powi(precision);
    let rounded = match method.as_deref() {
        Some("ceil") => (number * scale).ceil() / scale,
        Some("floor") => (number * scale).floor() / scale,
        None | Some("common") => match (value.as_int(), precision) {
            (Some(number), 0..) => return Ok(Value::Int(number)),
            // Written with so many digits, a float is rounded by its exact value.
            (None, 0..) => format!("{number:.*}", precision.unsigned_abs() as usize).parse().unwrap_or(number),
            (_, _) => (number * scale).round_ties_even() / scale,
        },
        Some(other) => return Err(Failure::new(format!("`round` knows no method {other:?}"))),
    };
    match value {
        Value::Float(_) => Ok(Value::Float(rounded)),
        _ if method.is_some_and(|method| &*method != "common") => Ok(Value::Float(rounded)),
        _ => Ok(Value::Int(rounded as i128)),
    }
}

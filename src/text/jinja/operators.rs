//! Python's operators on values, with every result paid for.

use super::ast::{Comparison, Operator};
use super::budget::{Budget, ENTRY, Text};
use super::markup;
use super::percent;
use super::pystr::write_str;
use super::value::{Sequence, Value};
use super::{Failure, Outcome};

pub(super) fn binary(operator: Operator, left: &Value, right: &Value, budget: &Budget) -> Outcome<Value> {
    if let (Operator::Remainder, Value::Text(text)) = (operator, left) {
        return percent::fill(text, right, budget);
    }
    left.defined()?;
    right.defined()?;
    if let (Some(left), Some(right)) = (left.as_int(), right.as_int()) {
        return integers(operator, left, right);
    }
    if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
        return floats(operator, left, right);
    }
    if operator == Operator::Add
        && let Some(sum) = markup::sum(left, right, budget)?
    {
        return Ok(sum);
    }
    match (operator, left, right) {
        (Operator::Add, Value::Text(left), Value::Text(right)) => {
            let mut out = Text::new(budget);
            out.push(left)?;
            out.push(right)?;
            Ok(Value::Text(out.finish().into()))
        }
        (Operator::Add, Value::List(first), Value::List(second)) => {
            let (left, right) = (plain_sequence(first.sequence), plain_sequence(second.sequence));
            match left.filter(|_| left == right) {
                Some(sequence) => {
                    budget.spend_entries(first.items.len() + second.items.len())?;
                    Value::list([first.items.as_slice(), &second.items].concat(), sequence)
                }
                None => Err(unsupported(operator, &Value::List(first.clone()), &Value::List(second.clone()))),
            }
        }
        (Operator::Multiply, sequence, times) | (Operator::Multiply, times, sequence)
            if matches!(sequence, Value::Text(_) | Value::Markup(_) | Value::List(_)) && times.as_int().is_some() =>
        {
            let times = usize::try_from(times.as_int().unwrap_or(0).max(0)).unwrap_or(usize::MAX);
            repeated(sequence, times, budget)
        }
        _ => Err(unsupported(operator, left, right)),
    }
}

fn plain_sequence(sequence: Sequence) -> Option<Sequence> {
    match sequence {
        Sequence::List => Some(Sequence::List),
        Sequence::Tuple | Sequence::Group => Some(Sequence::Tuple),
        _ => None,
    }
}

fn repeated(sequence: &Value, times: usize, budget: &Budget) -> Outcome<Value> {
    match sequence {
        Value::Text(text) | Value::Markup(text) => {
            budget.spend(text.len().saturating_mul(times))?;
            Ok(sequence.same_kind(&if text.is_empty() { String::new() } else { text.repeat(times) }))
        }
        Value::List(list) if plain_sequence(list.sequence).is_some() => {
            budget.spend(list.items.len().saturating_mul(times).saturating_mul(ENTRY))?;
            let items = list.items.iter().cycle().take(list.items.len().saturating_mul(times)).cloned();
            Value::list(items.collect(), plain_sequence(list.sequence).unwrap_or(list.sequence))
        }
        other => Err(unsupported(Operator::Multiply, other, &Value::Int(0))),
    }
}

fn unsupported(operator: Operator, left: &Value, right: &Value) -> Failure {
    let sign = match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Remainder => "%",
        Operator::Power => "**",
    };
    Failure::new(format!("`{sign}` does not take {} and {}", left.type_name(), right.type_name()))
}

fn integers(operator: Operator, left: i128, right: i128) -> Outcome<Value> {
    let whole = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide | Operator::FloorDivide | Operator::Remainder if right == 0 => {
            return Err(Failure::new("it divides by zero"));
        }
        Operator::Divide => return Ok(Value::Float(left as f64 / right as f64)),
        Operator::FloorDivide => {
            let quotient = left.checked_div(right);
            let inexact = left.checked_rem(right).is_some_and(|rest| rest != 0) && (left < 0) != (right < 0);
            quotient.and_then(|quotient| quotient.checked_sub(i128::from(inexact)))
        }
        Operator::Remainder => {
            left.checked_rem(right).map(|rest| if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest })
        }
        Operator::Power if right < 0 => return floats(operator, left as f64, right as f64),
        Operator::Power => match left {
            0 | 1 => Some(if right == 0 { 1 } else { left }),
            -1 => Some(if right % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(right).ok().and_then(|power| left.checked_pow(power)),
        },
    };
    whole.map(Value::Int).ok_or_else(|| Failure::new("a number has more than 127 bits"))
}

fn floats(operator: Operator, left: f64, right: f64) -> Outcome<Value> {
    let number = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide | Operator::FloorDivide | Operator::Remainder if right == 0.0 => {
            return Err(Failure::new("it divides by zero"));
        }
        Operator::Divide => left / right,
        Operator::FloorDivide => ((left - remainder(left, right)) / right).round(),
        Operator::Remainder => remainder(left, right),
        Operator::Power => {
            if left == 0.0 && right < 0.0 || left < 0.0 && right.fract() != 0.0 {
                return Err(Failure::new("a power is not a real number"));
            }
            left.powf(right)
        }
    };
    Ok(Value::Float(number))
}

/// The remainder with the sign of the divisor.
fn remainder(left: f64, right: f64) -> f64 {
    let rest = left % right;
    if rest != 0.0 && (rest < 0.0) != (right < 0.0) { rest + right } else { rest.abs().copysign(right) }
}

pub(super) fn negative(value: &Value) -> Outcome<Value> {
    value.defined()?;
    match (value.as_int(), value) {
        (Some(number), _) => Ok(Value::Int(number.checked_neg().unwrap_or(i128::MAX))),
        (None, Value::Float(number)) => Ok(Value::Float(-number)),
        _ => Err(Failure::new(format!("`-` does not take {}", value.type_name()))),
    }
}

pub(super) fn positive(value: &Value) -> Outcome<Value> {
    value.defined()?;
    match (value.as_int(), value) {
        (Some(number), _) => Ok(Value::Int(number)),
        (None, Value::Float(number)) => Ok(Value::Float(*number)),
        _ => Err(Failure::new(format!("`+` does not take {}", value.type_name()))),
    }
}

/// `~`.
pub(super) fn concat(values: &[Value], budget: &Budget) -> Outcome<Value> {
    let mut out = Text::new(budget);
    values.iter().try_for_each(|value| write_str(value, &mut out))?;
    Ok(Value::Text(out.finish().into()))
}

pub(super) fn compare(comparison: Comparison, left: &Value, right: &Value, budget: &Budget) -> Outcome<bool> {
    let order = |accepts: fn(std::cmp::Ordering) -> bool| Ok(left.order(right, budget)?.is_some_and(accepts));
    match comparison {
        Comparison::Equal => left.equals(right, budget),
        Comparison::Unequal => Ok(!left.equals(right, budget)?),
        Comparison::Less => order(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => order(std::cmp::Ordering::is_le),
        Comparison::Greater => order(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => order(std::cmp::Ordering::is_ge),
        Comparison::In => contains(right, left, budget),
        Comparison::NotIn => Ok(!contains(right, left, budget)?),
    }
}

/// `item in container`.
pub(super) fn contains(container: &Value, item: &Value, budget: &Budget) -> Outcome<bool> {
    match container {
        Value::Text(text) | Value::Markup(text) => match item {
            Value::Text(part) | Value::Markup(part) => {
                budget.spend(text.len() + part.len())?;
                Ok(text.contains(&**part))
            }
            other => Err(Failure::new(format!("`in` a text does not take {}", other.type_name()))),
        },
        Value::Dict(dict) => {
            item.hashable()?;
            Ok(dict.find(item, budget)?.is_some())
        }
        Value::List(list) => {
            let is_generator = list.sequence == Sequence::Generator;
            let start = if is_generator { list.taken()? } else { 0 };
            for (index, known) in list.items.iter().enumerate().skip(start) {
                if is_generator {
                    list.take_to(index + 1);
                }
                if known.equals(item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Undefined(_) => Ok(false),
        other => Err(Failure::new(format!("`in` does not take {}", other.type_name()))),
    }
}

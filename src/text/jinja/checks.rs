//! Jinja's tests: what stands behind `is`.

use super::ast::Comparison;
use super::budget::Budget;
use super::call::Call;
use super::letters;
use super::operators;
use super::pystr::to_str;
use super::sequences::item;
use super::value::{Sequence, Value};
use super::{Failure, Outcome, filters};

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Whether a value passes a test.
pub(super) fn test(name: &str, value: &Value, mut call: Call, budget: &Budget) -> Outcome<bool> {
    let compared = match name {
        "eq" | "equalto" | "==" => Some(Comparison::Equal),
        "ne" | "!=" => Some(Comparison::Unequal),
        "gt" | "greaterthan" | ">" => Some(Comparison::Greater),
        "ge" | ">=" => Some(Comparison::GreaterOrEqual),
        "lt" | "lessthan" | "<" => Some(Comparison::Less),
        "le" | "<=" => Some(Comparison::LessOrEqual),
        "in" => Some(Comparison::In),
        _ => None,
    };
    let result = if let Some(comparison) = compared {
        let other = call.need(0, if comparison == Comparison::In { "seq" } else { "other" })?;
        operators::compare(comparison, value, &other, budget)?
    } else {
        match name {
            "odd" => remainder(value, &Value::Int(2), budget)?.equals(&Value::Int(1), budget)?,
            "even" => remainder(value, &Value::Int(2), budget)?.equals(&Value::Int(0), budget)?,
            "divisibleby" => remainder(value, &call.need(0, "num")?, budget)?.equals(&Value::Int(0), budget)?,
            "defined" => !matches!(value, Value::Undefined(_)),
            "undefined" => matches!(value, Value::Undefined(_)),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "false" => matches!(value, Value::Bool(false)),
            "true" => matches!(value, Value::Bool(true)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => value.as_float().is_some(),
            "string" => matches!(value, Value::Text(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "lower" => letters::is(&to_str(value, budget)?, "islower"),
            "upper" => letters::is(&to_str(value, budget)?, "isupper"),
            "sequence" => match value {
                Value::List(list) => {
                    matches!(list.sequence, Sequence::List | Sequence::Tuple | Sequence::Group | Sequence::Range)
                }
                Value::Text(_) | Value::Dict(_) | Value::Undefined(_) => true,
                _ => false,
            },
            "iterable" => {
                matches!(value, Value::List(_) | Value::Text(_) | Value::Dict(_) | Value::Undefined(_) | Value::Loop(_))
            }
            // Jinja's undefined has a way to be called, which fails.
            "callable" => matches!(
                value,
                Value::Function(_) | Value::Macro(_) | Value::Method(_) | Value::Loop(_) | Value::Undefined(_)
            ),
            "sameas" => is_same(value, &call.need(0, "other")?, budget)?,
            "escaped" => false,
            "filter" => matches!(value, Value::Text(name) if filters::is_known(name)),
            "test" => matches!(value, Value::Text(name) if NAMES.contains(&&**name)),
            _ => return Err(Failure::new(format!("the test `{name}` is unknown"))),
        }
    };
    call.finish(name)?;
    Ok(result)
}

fn remainder(value: &Value, divisor: &Value, budget: &Budget) -> Outcome<Value> {
    operators::binary(super::ast::Operator::Remainder, value, divisor, budget)
}

/// Python's `is`, which asks for the same object; equal texts and numbers are taken for it.
fn is_same(value: &Value, other: &Value, budget: &Budget) -> Outcome<bool> {
    Ok(match (value, other) {
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Bool(_), _) | (_, Value::Bool(_)) => false,
        (Value::List(left), Value::List(right)) => std::rc::Rc::ptr_eq(left, right),
        (Value::Dict(left), Value::Dict(right)) => std::rc::Rc::ptr_eq(left, right),
        _ => value.type_name() == other.type_name() && value.equals(other, budget)?,
    })
}

/// The test of `select` and the like: of an item or its attribute, by name or by its truth.
pub(super) struct Selection {
    attribute: Option<Value>,
    name: Option<Value>,
    call: Call,
}

impl Selection {
    pub(super) fn new(mut call: Call, by_attribute: bool) -> Outcome<Self> {
        let attribute = if by_attribute { Some(call.need(0, "attribute")?) } else { None };
        let name = call.take(usize::from(by_attribute), "");
        let rest = call.rest().into_iter().map(Some).collect();
        Ok(Self { attribute, name, call: Call { positional: rest, keywords: call.keywords } })
    }

    pub(super) fn accepts(&self, value: &Value, budget: &Budget) -> Outcome<bool> {
        let value = match &self.attribute {
            Some(path) => by_path(value, path, None, budget)?,
            None => value.clone(),
        };
        match &self.name {
            None => Ok(value.truth()),
            Some(Value::Text(name)) => {
                budget.spend_entries(self.call.positional.len() + 1)?;
                test(name, &value, self.call.clone(), budget)
            }
            Some(other) => Err(Failure::new(format!("a test has no name but {}", other.type_name()))),
        }
    }
}

/// An attribute by its path, with points between the names; `default` where one is not there.
pub(super) fn by_path(value: &Value, path: &Value, default: Option<&Value>, budget: &Budget) -> Outcome<Value> {
    let or_default = |found: Value| match (found, default) {
        (Value::Undefined(_), Some(default)) => default.clone(),
        (found, _) => found,
    };
    let Value::Text(path) = path else { return item(value, path, budget).map(or_default) };
    budget.spend(path.len())?;
    let mut found = value.clone();
    for name in path.split('.') {
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let key = if is_number { name.parse().map(Value::Int).ok() } else { None };
        found = or_default(item(&found, &key.unwrap_or_else(|| Value::text(name)), budget)?);
    }
    Ok(found)
}

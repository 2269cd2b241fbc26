//! Jinja's tests: what stands behind `is`.

use std::rc::Rc;
use std::sync::Arc;

use super::ast::Comparison;
use super::budget::{Budget, STEP};
use super::call::Call;
use super::letters;
use super::operators;
use super::pystr::to_str;
use super::sequences::item;
use super::value::{Function, Sequence, Value};
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

/// The comparison that a test stands for.
fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "eq" | "equalto" | "==" => Comparison::Equal,
        "ne" | "!=" => Comparison::Unequal,
        "gt" | "greaterthan" | ">" => Comparison::Greater,
        "ge" | ">=" => Comparison::GreaterOrEqual,
        "lt" | "lessthan" | "<" => Comparison::Less,
        "le" | "<=" => Comparison::LessOrEqual,
        "in" => Comparison::In,
        _ => return None,
    })
}

/// True if a value passes a test.
pub(super) fn test(name: &str, value: &Value, mut call: Call, budget: &Budget) -> Outcome<bool> {
    let result = match (comparison(name), name) {
        (Some(comparison), _) => {
            let other = call.need(0, if comparison == Comparison::In { "seq" } else { "other" })?;
            operators::compare(comparison, value, &other, budget)?
        }
        (None, "odd") => remainder(value, &Value::Int(2), budget)?.equals(&Value::Int(1), budget)?,
        (None, "even") => remainder(value, &Value::Int(2), budget)?.equals(&Value::Int(0), budget)?,
        (None, "divisibleby") => remainder(value, &call.need(0, "num")?, budget)?.equals(&Value::Int(0), budget)?,
        (None, "sameas") => is_same(value, &call.need(0, "other")?, budget)?,
        (None, "lower" | "upper") => {
            let text = to_str(value, budget)?;
            budget.spend(text.len())?;
            letters::is(&text, if name == "lower" { "islower" } else { "isupper" }, budget)?
        }
        (None, "filter") => value.as_text().is_some_and(|name| filters::is_known(name)),
        (None, "test") => value.as_text().is_some_and(|name| NAMES.contains(&&**name)),
        (None, _) => is_of_kind(name, value).ok_or_else(|| Failure::new(format!("the test `{name}` is unknown")))?,
    };
    call.finish(name)?;
    Ok(result)
}

/// The tests of what kind a value is.
fn is_of_kind(name: &str, value: &Value) -> Option<bool> {
    Some(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.as_float().is_some(),
        "string" => value.as_text().is_some(),
        "escaped" => matches!(value, Value::Markup(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => match value {
            Value::List(list) => {
                matches!(list.sequence, Sequence::List | Sequence::Tuple | Sequence::Group | Sequence::Range)
            }
            Value::Text(_) | Value::Markup(_) | Value::Dict(_) | Value::Undefined(_) => true,
            _ => false,
        },
        "iterable" => {
            value.as_text().is_some()
                || matches!(value, Value::List(_) | Value::Dict(_) | Value::Undefined(_) | Value::Loop(_))
        }
        "callable" => match value {
            Value::Function(function) => *function != Function::Unsupported("self"),
            // Jinja's undefined has a way to be called, which fails.
            Value::Macro(_) | Value::Method(_) | Value::Loop(_) | Value::Undefined(_) => true,
            _ => false,
        },
        _ => return None,
    })
}

fn remainder(value: &Value, divisor: &Value, budget: &Budget) -> Outcome<Value> {
    operators::binary(super::ast::Operator::Remainder, value, divisor, budget)
}

/// Python's `is`, which asks for the same object. Whether equal texts and numbers are one is not known here.
fn is_same(value: &Value, other: &Value, budget: &Budget) -> Outcome<bool> {
    let is_equal = value.type_name() == other.type_name() && value.equals(other, budget)?;
    match (value, other) {
        (Value::List(left), Value::List(right)) => Ok(Rc::ptr_eq(left, right)),
        (Value::Dict(left), Value::Dict(right)) => Ok(Rc::ptr_eq(left, right)),
        _ if !is_equal => Ok(false),
        (Value::Text(left), Value::Text(right)) | (Value::Markup(left), Value::Markup(right))
            if Arc::ptr_eq(left, right) =>
        {
            Ok(true)
        }
        (Value::Text(_) | Value::Markup(_) | Value::Float(_) | Value::Undefined(_), _) => Err(not_known_as_same()),
        // Python has each small number once.
        (Value::Int(number), _) if !(-5..=256).contains(number) => Err(not_known_as_same()),
        _ => Ok(true),
    }
}

fn not_known_as_same() -> Failure {
    Failure::new("`sameas` of texts and numbers that are equal is not supported; use `==`")
}

/// The test of `select` and the like: of an item or its attribute, by name or by its truth.
pub(super) struct Selection {
    attribute: Option<Value>,
    name: Option<Value>,
    call: Call,
}

impl Selection {
    pub(super) fn new(call: &mut Call, by_attribute: bool) -> Outcome<Self> {
        let attribute = if by_attribute { Some(call.need(0, "attribute")?) } else { None };
        let name = call.take(usize::from(by_attribute), "");
        Ok(Self { attribute, name, call: call.left() })
    }

    pub(super) fn accepts(&self, value: &Value, budget: &Budget) -> Outcome<bool> {
        budget.spend_entries(self.call.count() + 1)?;
        let value = match &self.attribute {
            Some(path) => by_path(value, path, None, budget)?,
            None => value.clone(),
        };
        match &self.name {
            None => Ok(value.truth()),
            Some(Value::Text(name) | Value::Markup(name)) => test(name, &value, self.call.clone(), budget),
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
    let Some(path) = path.as_text() else { return item(value, path, budget).map(or_default) };
    budget.spend(path.len())?;
    let mut found = value.clone();
    for name in path.split('.') {
        budget.spend(STEP)?;
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let key = if is_number { name.parse().map(Value::Int).ok() } else { None };
        found = or_default(item(&found, &key.unwrap_or_else(|| Value::text(name)), budget)?);
    }
    Ok(found)
}

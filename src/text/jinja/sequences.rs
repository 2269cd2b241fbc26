//! Walking over values, and their parts: items, attributes, slices.

use std::rc::Rc;
use std::sync::Arc;

use super::budget::Budget;
use super::letters;
use super::methods;
use super::value::{List, Sequence, Value};
use super::{Failure, Outcome};

/// The items of a value as a list to walk over; of a generator they are not taken yet.
pub(super) fn walked(value: &Value, budget: &Budget) -> Outcome<Rc<List>> {
    match value {
        Value::List(list) => Ok(Rc::clone(list)),
        Value::Undefined(_) => List::new(Vec::new(), Sequence::List),
        Value::Text(text) | Value::Markup(text) => {
            budget.spend_entries(text.len().saturating_mul(2))?;
            let letters = text.chars().map(|letter| Value::text(letter.encode_utf8(&mut [0; 4])));
            List::new(letters.collect(), Sequence::List)
        }
        Value::Dict(dict) => {
            budget.spend_entries(dict.entries.len())?;
            List::new(dict.all().iter().map(|(key, _)| key.clone()).collect(), Sequence::List)
        }
        other => Err(Failure::new(format!("{} cannot be walked over", other.type_name()))),
    }
}

/// The items of a value; a generator has none of them afterwards.
pub(super) fn iterate(value: &Value, budget: &Budget) -> Outcome<Vec<Value>> {
    let list = walked(value, budget)?;
    let mut start = 0;
    if list.sequence == Sequence::Generator {
        start = list.taken()?;
        list.take_to(list.items.len());
    }
    let items = list.items.get(start..).unwrap_or_default();
    budget.spend_entries(items.len())?;
    Ok(items.to_vec())
}

/// The items of a value for a generator, which Jinja would make of them when they are asked for.
pub(super) fn iterate_for_generator(value: &Value, budget: &Budget) -> Outcome<Vec<Value>> {
    let items = iterate(value, budget)?;
    if let Value::List(list) = value {
        list.lend();
    }
    Ok(items)
}

/// Python's `len`.
pub(super) fn length(value: &Value, budget: &Budget) -> Outcome<usize> {
    match value {
        Value::Undefined(_) => Ok(0),
        Value::Text(text) | Value::Markup(text) => {
            budget.spend(text.len() / 8)?;
            Ok(text.chars().count())
        }
        Value::List(list) if list.sequence != Sequence::Generator => Ok(list.items.len()),
        Value::Dict(dict) => Ok(dict.entries.len()),
        Value::Loop(state) => state.known_length(),
        other => Err(Failure::new(format!("{} has no length", other.type_name()))),
    }
}

/// `value[key]`, which falls back to an attribute.
pub(super) fn item(value: &Value, key: &Value, budget: &Budget) -> Outcome<Value> {
    if let Some(found) = subscript(value, key, budget)? {
        return Ok(found);
    }
    match key.as_text() {
        Some(name) => Ok(own_attribute(value, name, budget)?.unwrap_or_else(|| Value::Undefined(Arc::clone(name)))),
        None => Ok(Value::Undefined(super::pystr::to_str(key, budget)?)),
    }
}

/// `value.name`, which falls back to an item.
pub(super) fn attribute(value: &Value, name: &Arc<str>, budget: &Budget) -> Outcome<Value> {
    if let Value::Undefined(known) = value {
        return Err(Failure::new(format!("`{known}` is undefined and has no `{name}`")));
    }
    if let Some(found) = own_attribute(value, name, budget)? {
        return Ok(found);
    }
    let found =
        if methods::is_mutator(value, name) { None } else { subscript(value, &Value::Text(Arc::clone(name)), budget)? };
    Ok(found.unwrap_or_else(|| Value::Undefined(Arc::clone(name))))
}

fn subscript(value: &Value, key: &Value, budget: &Budget) -> Outcome<Option<Value>> {
    match value {
        Value::Undefined(known) => Err(Failure::new(format!("`{known}` is undefined and has no items"))),
        Value::Dict(dict) => Ok(dict.find(key, budget)?.cloned()),
        Value::List(list) if is_indexed(list.sequence) => {
            Ok(index(key, list.items.len()).and_then(|index| list.items.get(index).cloned()))
        }
        Value::Text(text) | Value::Markup(text) => {
            budget.spend(text.len() / 8)?;
            let length = if text.is_ascii() {
                text.len()
            } else {
                budget.spend(text.len())?;
                text.chars().count()
            };
            Ok(index(key, length).map(|index| value.same_kind(letters::slice(text, index, index + 1))))
        }
        _ => Ok(None),
    }
}

fn is_indexed(sequence: Sequence) -> bool {
    matches!(sequence, Sequence::List | Sequence::Tuple | Sequence::Group | Sequence::Range)
}

fn index(key: &Value, length: usize) -> Option<usize> {
    let index = key.as_int()?;
    let index = if index < 0 { index.checked_add(length as i128)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

/// Attribute that Python finds.
fn own_attribute(value: &Value, name: &Arc<str>, budget: &Budget) -> Outcome<Option<Value>> {
    if methods::has_method(value, name) {
        return value.clone().method(name).map(Some);
    }
    if methods::is_unsupported(value, name) {
        return Err(Failure::new(format!("the attribute `{name}` of {} is not supported", value.type_name())));
    }
    Ok(match value {
        Value::Namespace(namespace) => {
            let fields = namespace.fields.borrow();
            budget.spend_search(name, fields.len())?;
            fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        }
        Value::Loop(_) => return Err(Failure::new(format!("`{name}` of a loop is only known as `loop.{name}`"))),
        Value::Bool(_) | Value::Int(_) => match &**name {
            "real" | "numerator" => value.as_int().map(Value::Int),
            "imag" => Some(Value::Int(0)),
            "denominator" => Some(Value::Int(1)),
            _ => None,
        },
        Value::Float(_) => match &**name {
            "real" => Some(value.clone()),
            "imag" => Some(Value::Float(0.0)),
            _ => None,
        },
        Value::List(list) if list.sequence == Sequence::Group => match &**name {
            "grouper" => list.items.first().cloned(),
            "list" => list.items.get(1).cloned(),
            _ => None,
        },
        Value::Macro(known) if &**name == "name" => Some(Value::Text(Arc::clone(&known.definition.name))),
        _ => None,
    })
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, bounds: [Value; 3], budget: &Budget) -> Outcome<Value> {
    value.defined()?;
    let [start, stop, step] = bounds;
    let bound = |bound: &Value| match bound {
        Value::None => Ok(None),
        other => match other.as_int() {
            Some(number) => Ok(Some(number)),
            None => Err(Failure::new("a slice's bounds are not whole numbers")),
        },
    };
    let (start, stop, step) = (bound(&start)?, bound(&stop)?, bound(&step)?.unwrap_or(1));
    // A step beyond any length picks one item, however long it is.
    let step = step.clamp(-(1 << 40), 1 << 40);
    if step == 0 {
        return Err(Failure::new("a slice has a step of 0"));
    }
    match value {
        Value::Text(text) | Value::Markup(text) => {
            budget.spend(text.len())?;
            if step == 1 {
                let length = text.chars().count();
                let (start, stop) = (letters::clamp(start, length, 0), letters::clamp(stop, length, length));
                return Ok(value.same_kind(letters::slice(text, start, stop.max(start))));
            }
            budget.spend(text.len().saturating_mul(4))?;
            let letters: Vec<char> = text.chars().collect();
            let picked = picked(letters.len(), (start, stop, step)).filter_map(|index| letters.get(index));
            Ok(value.same_kind(&picked.collect::<String>()))
        }
        Value::List(list) if is_indexed(list.sequence) => {
            budget.spend_entries(list.items.len())?;
            let picked =
                picked(list.items.len(), (start, stop, step)).filter_map(|index| list.items.get(index).cloned());
            let sequence = if list.sequence == Sequence::Group { Sequence::Tuple } else { list.sequence };
            Value::list(picked.collect(), sequence)
        }
        other => Err(Failure::new(format!("{} has no slices", other.type_name()))),
    }
}

/// The indices that a slice of so many items takes.
fn picked(length: usize, (start, stop, step): (Option<i128>, Option<i128>, i128)) -> impl Iterator<Item = usize> {
    let length = length as i128;
    let clamp = |bound: i128, least: i128, most: i128| {
        let bound = if bound < 0 { bound.saturating_add(length) } else { bound };
        bound.clamp(least, most)
    };
    let (from, to) = if step > 0 {
        (start.map_or(0, |bound| clamp(bound, 0, length)), stop.map_or(length, |bound| clamp(bound, 0, length)))
    } else {
        let last = length - 1;
        (start.map_or(last, |bound| clamp(bound, -1, last)), stop.map_or(-1, |bound| clamp(bound, -1, last)))
    };
    let distance = if step > 0 { (to - from).max(0) } else { (from - to).max(0) };
    let count = (distance + step.abs() - 1) / step.abs();
    (0..count).filter_map(move |index| usize::try_from(from + index * step).ok())
}

//! Walking over values, and their parts: items, attributes, slices.

use std::rc::Rc;
use std::sync::Arc;

use super::budget::Budget;
use super::letters;
use super::methods;
use super::value::{List, Sequence, Value};
use super::{Failure, Outcome};

/// What is left to walk over of a value: a list, and from where on.
pub(super) fn walk(value: &Value, budget: &Budget) -> Outcome<(Rc<List>, usize)> {
    let made = |items: Vec<Value>| {
        budget.spend_entries(items.len())?;
        match Value::list(items, Sequence::List)? {
            Value::List(list) => Ok((list, 0)),
            _ => Err(Failure::new("a list is not a list")),
        }
    };
    match value {
        Value::List(list) if list.sequence == Sequence::Generator => {
            Ok((Rc::clone(list), list.taken.replace(list.items.len())))
        }
        Value::List(list) => Ok((Rc::clone(list), 0)),
        Value::Undefined(_) => made(Vec::new()),
        Value::Text(text) => {
            budget.spend_entries(text.len())?;
            made(text.chars().map(|letter| Value::text(letter.encode_utf8(&mut [0; 4]))).collect())
        }
        Value::Dict(dict) => {
            budget.spend_entries(dict.entries.len())?;
            made(dict.all().iter().map(|(key, _)| key.clone()).collect())
        }
        Value::Loop(state) => {
            let rest = state.start + state.index.get() + 1;
            Ok((Rc::clone(&state.list), rest.min(state.list.items.len())))
        }
        other => Err(Failure::new(format!("{} cannot be walked over", other.type_name()))),
    }
}

/// The items of a value.
pub(super) fn iterate(value: &Value, budget: &Budget) -> Outcome<Vec<Value>> {
    let (list, start) = walk(value, budget)?;
    let items = list.items.get(start..).unwrap_or_default();
    budget.spend_entries(items.len())?;
    Ok(items.to_vec())
}

/// Python's `len`.
pub(super) fn length(value: &Value, budget: &Budget) -> Outcome<usize> {
    match value {
        Value::Undefined(_) => Ok(0),
        Value::Text(text) => {
            budget.spend(text.len() / 8)?;
            Ok(text.chars().count())
        }
        Value::List(list) if list.sequence != Sequence::Generator => Ok(list.items.len()),
        Value::Dict(dict) => Ok(dict.entries.len()),
        Value::Loop(state) => Ok(state.list.items.len() - state.start),
        other => Err(Failure::new(format!("{} has no length", other.type_name()))),
    }
}

/// `value[key]`, which falls back to an attribute.
pub(super) fn item(value: &Value, key: &Value, budget: &Budget) -> Outcome<Value> {
    if let Some(found) = subscript(value, key, budget)? {
        return Ok(found);
    }
    match key {
        Value::Text(name) => {
            Ok(own_attribute(value, name, budget)?.unwrap_or_else(|| Value::Undefined(Arc::clone(name))))
        }
        other => Ok(Value::Undefined(super::pystr::to_str(other, budget)?)),
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
        Value::Text(text) => {
            budget.spend(text.len() / 8)?;
            let length = if text.is_ascii() { text.len() } else { text.chars().count() };
            Ok(index(key, length).map(|index| Value::text(letters::slice(text, index, index + 1))))
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

/// What Python finds as an attribute.
fn own_attribute(value: &Value, name: &Arc<str>, budget: &Budget) -> Outcome<Option<Value>> {
    if methods::has_method(value, name) {
        return value.clone().method(name).map(Some);
    }
    Ok(match value {
        Value::Namespace(namespace) => {
            budget.spend(namespace.fields.borrow().len())?;
            namespace.fields.borrow().iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        }
        Value::Loop(state) => {
            let length = state.list.items.len() - state.start;
            let index = state.index.get();
            let number = |number: usize| Some(Value::Int(number as i128));
            let at = |index: Option<usize>| {
                let found = index.and_then(|index| state.list.items.get(state.start + index));
                Some(found.cloned().unwrap_or_else(|| Value::Undefined(Arc::clone(name))))
            };
            match &**name {
                "index" => number(index + 1),
                "index0" => number(index),
                "revindex" => number(length.saturating_sub(index)),
                "revindex0" => number(length.saturating_sub(index + 1)),
                "first" => Some(Value::Bool(index == 0)),
                "last" => Some(Value::Bool(index + 1 >= length)),
                "length" => number(length),
                "depth" => number(state.level + 1),
                "depth0" => number(state.level),
                "previtem" => at(index.checked_sub(1)),
                "nextitem" => at(index.checked_add(1)),
                _ => None,
            }
        }
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
    let pick = |length: usize| {
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
        let count = if step > 0 { (to - from).max(0) } else { (from - to).max(0) };
        let count = (count + step.abs() - 1) / step.abs();
        (0..count).filter_map(move |index| usize::try_from(from + index * step).ok())
    };
    match value {
        Value::Text(text) => {
            budget.spend(text.len())?;
            if step == 1 {
                let length = text.chars().count();
                let (start, stop) = (letters::clamp(start, length, 0), letters::clamp(stop, length, length));
                return Ok(Value::text(letters::slice(text, start, stop.max(start))));
            }
            budget.spend(text.len().saturating_mul(4))?;
            let letters: Vec<char> = text.chars().collect();
            let picked: String = pick(letters.len()).filter_map(|index| letters.get(index)).collect();
            Ok(Value::Text(picked.into()))
        }
        Value::List(list) if is_indexed(list.sequence) => {
            budget.spend_entries(list.items.len())?;
            let items = pick(list.items.len()).filter_map(|index| list.items.get(index).cloned()).collect();
            let sequence = if list.sequence == Sequence::Group { Sequence::Tuple } else { list.sequence };
            Value::list(items, sequence)
        }
        other => Err(Failure::new(format!("{} has no slices", other.type_name()))),
    }
}

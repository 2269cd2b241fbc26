//! The filters that sort, group and divide lists.

use super::ast::Operator;
use super::budget::Budget;
use super::call::Call;
use super::checks::by_path;
use super::sequences::{iterate, iterate_for_generator};
use super::value::{Sequence, Value};
use super::{Failure, Outcome, operators};

pub(super) fn filter(name: &str, value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    match name {
        "sort" => sort(value, call, budget),
        "unique" => unique(value, call, budget),
        "min" | "max" => extreme(name == "max", value, call, budget),
        "groupby" => group(value, call, budget),
        "dictsort" => sort_mapping(value, call, budget),
        "batch" => batch(value, call, budget),
        "slice" => divide(value, call, budget),
        "sum" => sum(value, call, budget),
        _ => reverse(value, budget),
    }
}

/// Sort key of a value: texts without regard to case, unless that is asked for.
fn folded(value: Value, case_sensitive: bool, budget: &Budget) -> Outcome<Value> {
    match value.as_text() {
        Some(text) if !case_sensitive => {
            budget.spend(text.len().saturating_mul(3))?;
            Ok(Value::Text(text.to_lowercase().into()))
        }
        _ => Ok(value),
    }
}

fn key(item: &Value, path: Option<&Value>, case_sensitive: bool, budget: &Budget) -> Outcome<Value> {
    let found = match path {
        Some(path) => by_path(item, path, None, budget)?,
        None => item.clone(),
    };
    folded(found, case_sensitive, budget)
}

fn path(call: &mut Call, index: usize) -> Option<Value> {
    call.take(index, "attribute").filter(|path| !matches!(path, Value::None))
}

fn sort(value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let (reverse, case_sensitive) = (call.truth(0, "reverse"), call.truth(1, "case_sensitive"));
    let mut paths = Vec::new();
    match path(call, 2) {
        Some(Value::Text(given) | Value::Markup(given)) => {
            for path in given.split(',') {
                budget.spend_entries(1)?;
                budget.spend(path.len())?;
                paths.push(Some(Value::text(path)));
            }
        }
        other => paths.push(other),
    }
    let mut keyed = Vec::new();
    for item in iterate(value, budget)? {
        budget.spend_entries(paths.len() + 1)?;
        let keys: Outcome<Vec<Value>> =
            paths.iter().map(|path| key(&item, path.as_ref(), case_sensitive, budget)).collect();
        keyed.push((Value::list(keys?, Sequence::List)?, item));
    }
    Value::list(Value::sorted(keyed, reverse, budget)?, Sequence::List)
}

fn unique(value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let case_sensitive = call.truth(0, "case_sensitive");
    let path = path(call, 1);
    let (mut seen, mut result): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for item in iterate_for_generator(value, budget)? {
        let key = key(&item, path.as_ref(), case_sensitive, budget)?;
        key.hashable()?;
        let mut known = false;
        for other in &seen {
            known |= key.equals(other, budget)?;
        }
        if !known {
            budget.spend_entries(1)?;
            seen.push(key);
            result.push(item);
        }
    }
    Value::list(result, Sequence::Generator)
}

fn extreme(largest: bool, value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let case_sensitive = call.truth(0, "case_sensitive");
    let path = path(call, 1);
    let mut best: Option<(Value, Value)> = None;
    for item in iterate(value, budget)? {
        let key = key(&item, path.as_ref(), case_sensitive, budget)?;
        let better = match &best {
            None => true,
            Some((known, _)) => {
                let order = key.order(known, budget)?;
                order.is_some_and(|order| if largest { order.is_gt() } else { order.is_lt() })
            }
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::Undefined(if largest { "max" } else { "min" }.into()), |(_, item)| item))
}

fn group(value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let path = call.need(0, "attribute")?;
    let default = call.take(1, "default").filter(|default| !matches!(default, Value::None));
    let case_sensitive = call.truth(2, "case_sensitive");
    let key = |item: &Value| by_path(item, &path, default.as_ref(), budget);
    let mut keyed = Vec::new();
    for item in iterate(value, budget)? {
        budget.spend_entries(1)?;
        keyed.push((folded(key(&item)?, case_sensitive, budget)?, item));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in Value::sorted(keyed, false, budget)? {
        let folded_key = folded(key(&item)?, case_sensitive, budget)?;
        match groups.last_mut() {
            Some((known, items)) if known.equals(&folded_key, budget)? => items.push(item),
            _ => {
                budget.spend_entries(8)?;
                groups.push((folded_key, vec![item]));
            }
        }
    }
    let mut result = Vec::new();
    for (_, items) in groups {
        let name = items.first().map_or(Ok(Value::None), &key)?;
        result.push(Value::list(vec![name, Value::list(items, Sequence::List)?], Sequence::Group)?);
    }
    Value::list(result, Sequence::List)
}

fn sort_mapping(value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let Value::Dict(dict) = value else {
        return Err(Failure::new(format!("`dictsort` takes a mapping and not {}", value.type_name())));
    };
    let case_sensitive = call.truth(0, "case_sensitive");
    let by_value = match call.text(1, "by")?.as_deref() {
        None | Some("key") => false,
        Some("value") => true,
        Some(other) => return Err(Failure::new(format!("`dictsort` sorts by key or value, and not by {other:?}"))),
    };
    let reverse = call.truth(2, "reverse");
    budget.spend_entries(dict.entries.len().saturating_mul(3))?;
    let mut keyed = Vec::new();
    for (key, value) in dict.all() {
        let sorted_by = folded(if by_value { value } else { key }.clone(), case_sensitive, budget)?;
        keyed.push((sorted_by, Value::list(vec![key.clone(), value.clone()], Sequence::Tuple)?));
    }
    Value::list(Value::sorted(keyed, reverse, budget)?, Sequence::List)
}

/// A count that is at least one.
fn count(call: &mut Call, name: &str) -> Outcome<usize> {
    let count = call.int(0, name)?.and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
    count.ok_or_else(|| Failure::new(format!("`{name}` is not a number above 0")))
}

fn batch(value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let count = count(call, "linecount")?;
    let fill = call.take(1, "fill_with").filter(|fill| !matches!(fill, Value::None));
    let mut batches = Vec::new();
    for items in iterate_for_generator(value, budget)?.chunks(count) {
        let mut items = items.to_vec();
        if let Some(fill) = &fill {
            budget.spend_entries(count - items.len())?;
            items.resize(count, fill.clone());
        }
        budget.spend_entries(items.len() + 1)?;
        batches.push(Value::list(items, Sequence::List)?);
    }
    Value::list(batches, Sequence::Generator)
}

fn divide(value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let slices = count(call, "slices")?;
    let fill = call.take(1, "fill_with").filter(|fill| !matches!(fill, Value::None));
    let items = iterate_for_generator(value, budget)?;
    budget.spend_entries(slices.saturating_mul(2).saturating_add(items.len()))?;
    let (each, longer) = (items.len() / slices, items.len() % slices);
    let mut rest = items.as_slice();
    let mut result = Vec::new();
    for index in 0..slices {
        let (slice, after) = rest.split_at(each + usize::from(index < longer));
        rest = after;
        let mut slice = slice.to_vec();
        slice.extend(fill.clone().filter(|_| index >= longer));
        result.push(Value::list(slice, Sequence::List)?);
    }
    Value::list(result, Sequence::Generator)
}

fn sum(value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let path = call.take(0, "attribute").filter(|path| !matches!(path, Value::None));
    let mut total = call.take(1, "start").unwrap_or(Value::Int(0));
    if total.as_text().is_some() {
        return Err(Failure::new("`sum` does not take texts"));
    }
    for item in iterate(value, budget)? {
        let item = match &path {
            Some(path) => by_path(&item, path, None, budget)?,
            None => item,
        };
        total = operators::binary(Operator::Add, &total, &item, budget)?;
    }
    Ok(total)
}

fn reverse(value: &Value, budget: &Budget) -> Outcome<Value> {
    if let Some(text) = value.as_text() {
        budget.spend(text.len())?;
        return Ok(Value::Text(text.chars().rev().collect::<String>().into()));
    }
    let mut items = iterate(value, budget)?;
    items.reverse();
    Value::list(items, Sequence::Generator)
}

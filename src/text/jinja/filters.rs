//! Jinja's filters: what stands behind `|`.

use std::sync::Arc;

use super::budget::{Budget, STEP, Text};
use super::call::Call;
use super::checks::{Selection, by_path};
use super::pystr::to_str;
use super::sequences::{iterate, iterate_for_generator, length};
use super::unicode::is_letter_or_number;
use super::value::{Sequence, Value};
use super::{Failure, Outcome, json, letters, markup, methods, percent};

/// Greatest depth of filters that name filters (`map('map', ..)`).
const DEEPEST: usize = 20;

const NAMES: [&str; 46] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "wordcount",
];

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// A value through a filter.
pub(super) fn filter(name: &str, value: &Value, mut call: Call, budget: &Budget, level: usize) -> Outcome<Value> {
    let is_safe = matches!(value, Value::Markup(_));
    if is_safe && is_known(name) && !markup::takes_filter(name) {
        return Err(Failure::new(format!("`{name}` of a text that a filter marked as safe is not supported")));
    }
    let result = match name {
        "tojson" => return json::to_json(value, call, budget),
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => {
            return picked(name, value, call, budget, level);
        }
        "default" | "d" => {
            let default = call.take(0, "default_value").unwrap_or_else(|| Value::text(""));
            let boolean = call.truth(1, "boolean");
            let missing = matches!(value, Value::Undefined(_)) || boolean && !value.truth();
            if missing { default } else { value.clone() }
        }
        "length" | "count" => Value::Int(length(value, budget)? as i128),
        "string" => Value::Text(to_str(value, budget)?),
        "safe" => Value::Markup(to_str(value, budget)?),
        "escape" | "e" => markup::escaped(value, budget)?,
        "forceescape" => markup::force_escaped(value, budget)?,
        "list" => Value::list(iterate(value, budget)?, Sequence::List)?,
        "join" => join(value, &mut call, budget)?,
        "first" => first(value, budget)?,
        "last" => last(value, budget)?,
        "items" => items(value, budget)?,
        "attr" => {
            let key = call.need_text(0, "name")?;
            match value {
                // A key of a mapping is not an attribute.
                Value::Dict(_) if !methods::has_method(value, &key) => Value::Undefined(key),
                _ => super::sequences::attribute(value, &key, budget)?,
            }
        }
        "sort" | "unique" | "min" | "max" | "groupby" | "dictsort" | "batch" | "slice" | "sum" | "reverse" => {
            super::collections::filter(name, value, &mut call, budget)?
        }
        "abs" | "int" | "float" | "round" => super::numbers::filter(name, value, &mut call, budget)?,
        _ => of_text(name, value, &mut call, budget)?,
    };
    call.finish(name)?;
    Ok(match result {
        Value::Text(text) if is_safe && markup::is_kept_by(name) => Value::Markup(text),
        other => other,
    })
}

fn join(value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let separator = to_str(&call.take(0, "d").unwrap_or_else(|| Value::text("")), budget)?;
    let mut items = iterate(value, budget)?;
    if let Some(path) = call.take(1, "attribute").filter(|path| !matches!(path, Value::None)) {
        items = items.iter().map(|item| by_path(item, &path, None, budget)).collect::<Outcome<_>>()?;
    }
    methods::join_any(&separator, &items, budget)
}

fn first(value: &Value, budget: &Budget) -> Outcome<Value> {
    if let Value::List(list) = value
        && list.sequence == Sequence::Generator
    {
        let index = list.taken()?;
        list.take_to((index + 1).min(list.items.len()));
        return Ok(list.items.get(index).cloned().unwrap_or_else(|| Value::Undefined("first".into())));
    }
    let items = iterate(value, budget)?;
    Ok(items.into_iter().next().unwrap_or_else(|| Value::Undefined("first".into())))
}

fn last(value: &Value, budget: &Budget) -> Outcome<Value> {
    match value {
        Value::List(list) if list.sequence == Sequence::Generator => {
            Err(Failure::new("`last` does not take a generator; put `|list` before it"))
        }
        other => Ok(iterate(other, budget)?.pop().unwrap_or_else(|| Value::Undefined("last".into()))),
    }
}

fn items(value: &Value, budget: &Budget) -> Outcome<Value> {
    match value {
        Value::Undefined(_) => Value::list(Vec::new(), Sequence::Generator),
        Value::Dict(dict) => {
            budget.spend_entries(dict.entries.len().saturating_mul(3))?;
            methods::items(dict.all(), Sequence::Generator)
        }
        other => Err(Failure::new(format!("`items` takes a mapping and not {}", other.type_name()))),
    }
}

/// Filters that go through a list item by item.
fn picked(name: &str, value: &Value, mut call: Call, budget: &Budget, level: usize) -> Outcome<Value> {
    if level > DEEPEST {
        return Err(Failure::new("filters name filters too deeply"));
    }
    let items = if value.truth() { iterate_for_generator(value, budget)? } else { Vec::new() };
    if items.iter().any(|item| matches!(item, Value::Namespace(_))) {
        // Jinja reads them when the item is asked for, and they may have changed by then.
        return Err(Failure::new(format!("`{name}` of namespaces is not supported")));
    }
    if name == "map" {
        return mapped(&items, call, budget, level);
    }
    let mut result = Vec::new();
    let selection = Selection::new(&mut call, name.ends_with("attr"))?;
    for item in items {
        if selection.accepts(&item, budget)? == name.starts_with("select") {
            result.push(item);
        }
    }
    Value::list(result, Sequence::Generator)
}

/// `map`: attributes of the items, or the items through a filter.
fn mapped(items: &[Value], mut call: Call, budget: &Budget, level: usize) -> Outcome<Value> {
    let mut result = Vec::new();
    if let Some(path) = call.take_named("attribute").filter(|_| call.positional.is_empty()) {
        let default = call.take_named("default").filter(|default| !matches!(default, Value::None));
        call.finish("map")?;
        for item in items {
            budget.spend_entries(1)?;
            result.push(by_path(item, &path, default.as_ref(), budget)?);
        }
    } else {
        let name = call.need_text(0, "filter")?;
        let call = call.left();
        for item in items {
            budget.spend_entries(call.count() + 1)?;
            result.push(filter(&name, item, call.clone(), budget, level + 1)?);
        }
    }
    Value::list(result, Sequence::Generator)
}

fn of_text(name: &str, value: &Value, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    if !is_known(name) {
        return Err(Failure::new(format!("the filter `{name}` is unknown")));
    }
    let text = to_str(value, budget)?;
    budget.spend(text.len())?;
    if matches!(name, "indent" | "truncate") && value.as_text().is_none() {
        return Err(Failure::new(format!("`{name}` takes a text and not {}", value.type_name())));
    }
    let made: Arc<str> = match name {
        "trim" => methods::stripped(&text, "strip", call.text(0, "chars")?.as_deref(), budget)?.into(),
        "upper" | "lower" | "capitalize" => letters::changed(&text, name, budget)?.unwrap_or_default().into(),
        "title" => {
            budget.spend(text.len().saturating_mul(3))?;
            letters::titled_by_jinja(&text).into()
        }
        "replace" => {
            let old = to_str(&call.need(0, "old")?, budget)?;
            let new = to_str(&call.need(1, "new")?, budget)?;
            let count = call.int(2, "count")?.and_then(|count| usize::try_from(count).ok());
            methods::replace(&text, &old, &new, count, budget)?
        }
        "center" => {
            let width = call.take(0, "width").unwrap_or(Value::Int(80));
            let mut call = Call { positional: vec![Some(width)], ..Call::default() };
            return methods::pad(&text, "center", &mut call, budget);
        }
        "indent" => indent(&text, call, budget)?,
        "truncate" => truncate(&text, call, budget)?,
        "wordcount" => {
            let words = text.split(|letter| !is_letter_or_number(letter) && letter != '_');
            return Ok(Value::Int(words.filter(|word| !word.is_empty()).count() as i128));
        }
        "format" => {
            let values = call.rest();
            let named = call.named();
            let values = if named.is_empty() {
                Value::list(values, Sequence::Tuple)?
            } else {
                Value::dict(named.into_iter().map(|(name, value)| (Value::Text(name), value)).collect())?
            };
            return percent::fill(&text, &values, budget);
        }
        _ => return Err(Failure::new(format!("the filter `{name}` is unknown"))),
    };
    Ok(Value::Text(made))
}

fn indent(text: &str, call: &mut Call, budget: &Budget) -> Outcome<Arc<str>> {
    let width = match call.take(0, "width") {
        Some(Value::Text(width)) => width,
        width => {
            let width = width.map_or(Some(4), |width| width.as_int());
            let width = width.ok_or_else(|| Failure::new("the width of `indent` is neither a number nor a text"))?;
            let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
            budget.spend(width)?;
            " ".repeat(width).into()
        }
    };
    let (first, blank) = (call.truth(1, "first"), call.truth(2, "blank"));
    budget.spend(text.len())?;
    let text = format!("{text}\n");
    let mut out = Text::new(budget);
    for (index, line) in letters::lines(&text, false).enumerate() {
        budget.spend(STEP)?;
        if index > 0 {
            out.push("\n")?;
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.push(&width)?;
        }
        out.push(line)?;
    }
    Ok(out.finish().into())
}

fn truncate(text: &Arc<str>, call: &mut Call, budget: &Budget) -> Outcome<Arc<str>> {
    let number = |value: Option<i128>, default: usize| match value {
        None => Ok(default),
        Some(value) => usize::try_from(value).map_err(|_| Failure::new("a length of `truncate` is negative")),
    };
    let most = number(call.int(0, "length")?, 255)?;
    let kill = call.truth(1, "killwords");
    let end = call.text(2, "end")?.unwrap_or_else(|| "...".into());
    let leeway = number(call.int(3, "leeway")?, 5)?;
    budget.spend(end.len())?;
    let end_length = end.chars().count();
    let kept = most.checked_sub(end_length).ok_or_else(|| Failure::new("`truncate` is shorter than its end"))?;
    if text.chars().count() <= most.saturating_add(leeway) {
        return Ok(Arc::clone(text));
    }
    let cut = text.char_indices().nth(kept).map_or(&**text, |(end, _)| &text[..end]);
    let cut = if kill { cut } else { cut.rsplit_once(' ').map_or(cut, |(cut, _)| cut) };
    let mut out = Text::new(budget);
    out.push(cut)?;
    out.push(&end)?;
    Ok(out.finish().into())
}

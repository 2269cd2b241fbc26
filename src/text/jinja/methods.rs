//! Python's methods of texts, lists and mappings.

use std::sync::Arc;

use super::budget::{Budget, Text};
use super::call::Call;
use super::format;
use super::letters;
use super::pystr::{is_space, to_str};
use super::value::{Sequence, Value};
use super::{Failure, Outcome};

/// The methods of a text that Python has and that are there.
const OF_TEXTS: [&str; 45] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
    "encode",
];

/// Whether a value has a method of this name, which goes before a key of a mapping.
pub(super) fn has_method(value: &Value, name: &str) -> bool {
    match value {
        Value::Text(_) => OF_TEXTS.contains(&name),
        Value::Dict(_) => matches!(name, "items" | "keys" | "values" | "get" | "copy"),
        Value::List(list) => match list.sequence {
            Sequence::List => matches!(name, "index" | "count" | "copy"),
            Sequence::Tuple | Sequence::Group | Sequence::Range => matches!(name, "index" | "count"),
            _ => false,
        },
        Value::Loop(_) => matches!(name, "cycle" | "changed"),
        _ => false,
    }
}

/// Whether a name is a method that changes a value: it is out of reach in chat templates, as in transformers.
pub(super) fn is_mutator(value: &Value, name: &str) -> bool {
    match value {
        Value::Dict(_) => matches!(name, "clear" | "pop" | "popitem" | "setdefault" | "update"),
        Value::List(list) => {
            let changes = ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"];
            list.sequence == Sequence::List && changes.contains(&name)
        }
        _ => false,
    }
}

pub(super) fn call(value: &Value, name: &str, mut call: Call, budget: &Budget) -> Outcome<Value> {
    match value {
        Value::Text(text) => of_text(text, name, call, budget),
        Value::Dict(dict) => {
            budget.spend_entries(dict.entries.len())?;
            let result = match name {
                "get" => {
                    let key = call.need(0, "key")?;
                    let default = call.take(1, "default").unwrap_or(Value::None);
                    Ok(dict.find(&key, budget)?.cloned().unwrap_or(default))
                }
                "items" => items(dict.all(), Sequence::Items),
                "keys" => Value::list(dict.all().iter().map(|(key, _)| key.clone()).collect(), Sequence::Keys),
                "values" => Value::list(dict.all().iter().map(|(_, value)| value.clone()).collect(), Sequence::Values),
                _ => Value::dict(dict.all().to_vec()),
            };
            call.finish(name)?;
            result
        }
        Value::List(list) if name == "copy" => {
            budget.spend_entries(list.items.len())?;
            Value::list(list.items.clone(), list.sequence)
        }
        Value::List(list) => {
            let wanted = call.need(0, "value")?;
            call.finish(name)?;
            let mut count = 0;
            for (index, item) in list.items.iter().enumerate() {
                if item.equals(&wanted, budget)? {
                    if name == "index" {
                        return Ok(Value::Int(index as i128));
                    }
                    count += 1;
                }
            }
            if name == "index" {
                Err(Failure::new("the value of `index` is not in the list"))
            } else {
                Ok(Value::Int(count))
            }
        }
        other => Err(Failure::new(format!("{} has no method `{name}`", other.type_name()))),
    }
}

/// The pairs of a mapping.
pub(super) fn items(entries: &[(Value, Value)], sequence: Sequence) -> Outcome<Value> {
    let pairs = entries.iter().map(|(key, value)| Value::list(vec![key.clone(), value.clone()], Sequence::Tuple));
    Value::list(pairs.collect::<Outcome<_>>()?, sequence)
}

fn of_text(text: &Arc<str>, name: &str, mut call: Call, budget: &Budget) -> Outcome<Value> {
    budget.spend(text.len())?;
    let result = match name {
        "strip" | "lstrip" | "rstrip" => Value::text(stripped(text, name, call.text(0, "chars")?.as_deref())),
        "split" | "rsplit" => split(text, name == "rsplit", &mut call, budget)?,
        "splitlines" => {
            let keep = call.truth(0, "keepends");
            texts(&letters::lines(text, keep), budget)?
        }
        "partition" | "rpartition" => partition(text, name == "rpartition", &mut call, budget)?,
        "startswith" | "endswith" => affix(text, name == "startswith", &mut call)?,
        "removeprefix" => {
            let prefix = call.need_text(0, "prefix")?;
            Value::text(text.strip_prefix(&*prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let suffix = call.need_text(0, "suffix")?;
            Value::text(text.strip_suffix(&*suffix).unwrap_or(text))
        }
        "replace" => {
            let (old, new) = (call.need_text(0, "old")?, call.need_text(1, "new")?);
            let count = call.int(2, "count")?.and_then(|count| usize::try_from(count).ok());
            Value::Text(replace(text, &old, &new, count, budget)?)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, &mut call, budget)?,
        "join" => {
            let value = call.need(0, "iterable")?;
            join(text, &value, budget)?
        }
        "center" | "ljust" | "rjust" | "zfill" => pad(text, name, &mut call, budget)?,
        "format" => return format::braces(text, call, budget),
        "format_map" => match call.need(0, "mapping")? {
            Value::Dict(dict) => {
                let named = dict.all().iter().filter_map(|(key, value)| match key {
                    Value::Text(key) => Some((Arc::clone(key), Some(value.clone()))),
                    _ => None,
                });
                let call = Call { positional: Vec::new(), keywords: named.collect() };
                return format::braces(text, call, budget);
            }
            other => return Err(Failure::new(format!("`format_map` does not take {}", other.type_name()))),
        },
        "expandtabs" => {
            let size = call.int(0, "tabsize")?.unwrap_or(8);
            let mut out = Text::new(budget);
            letters::expand_tabs(text, usize::try_from(size).unwrap_or(0), &mut out)?;
            Value::Text(out.finish().into())
        }
        "encode" => return Err(Failure::new("`encode` is not supported, as templates have no bytes")),
        _ => match letters::changed(text, name, budget)? {
            Some(changed) => Value::Text(changed.into()),
            None => Value::Bool(letters::is(text, name)),
        },
    };
    call.finish(name)?;
    Ok(result)
}

pub(super) fn stripped<'a>(text: &'a str, name: &str, chars: Option<&str>) -> &'a str {
    let matches = |letter: char| chars.map_or_else(|| is_space(letter), |chars| chars.contains(letter));
    match name {
        "lstrip" => text.trim_start_matches(matches),
        "rstrip" => text.trim_end_matches(matches),
        _ => text.trim_matches(matches),
    }
}

/// A list of texts.
fn texts<T: AsRef<str>>(parts: &[T], budget: &Budget) -> Outcome<Value> {
    budget.spend_entries(parts.len())?;
    budget.spend(parts.iter().map(|part| part.as_ref().len()).sum())?;
    Value::list(parts.iter().map(|part| Value::text(part.as_ref())).collect(), Sequence::List)
}

fn split(text: &str, from_end: bool, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let separator = call.text(0, "sep")?;
    let most = call.int(1, "maxsplit")?.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    // A text may have as many parts as bytes.
    let bound = most.min(text.len());
    match &separator {
        None => budget.spend(bound.min(text.len() / 2).saturating_mul(16))?,
        Some(separator) if separator.is_empty() => return Err(Failure::new("the separator of a split is empty")),
        Some(separator) => budget.spend(bound.min(text.len() / separator.len()).saturating_mul(16))?,
    }
    let parts: Vec<&str> = match (separator.as_deref(), from_end) {
        (Some(separator), false) => text.splitn(most.saturating_add(1), separator).collect(),
        (Some(separator), true) => {
            let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), separator).collect();
            parts.reverse();
            parts
        }
        (None, from_end) => words(text, from_end, most),
    };
    texts(&parts, budget)
}

/// The parts of a text between whitespace; what is left after `most` splits is one part.
fn words(text: &str, from_end: bool, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(is_space);
    while !rest.is_empty() && parts.len() < most {
        let cut = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(cut) = cut else { break };
        let (left, right) = rest.split_at(cut);
        if from_end {
            parts.push(right.trim_start_matches(is_space));
            rest = left.trim_end_matches(is_space);
        } else {
            parts.push(left);
            rest = right.trim_start_matches(is_space);
        }
    }
    if !rest.is_empty() {
        // Python strips only the side that it splits from where something is left over.
        parts.push(match (parts.len() == most, from_end) {
            (true, false) => text.get(text.len() - rest.len() - trailing(text)..).unwrap_or(rest),
            (true, true) => text.get(..leading(text) + rest.len()).unwrap_or(rest),
            _ => rest,
        });
    }
    if from_end {
        parts.reverse();
    }
    parts
}

fn trailing(text: &str) -> usize {
    text.len() - text.trim_end_matches(is_space).len()
}

fn leading(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_space).len()
}

fn partition(text: &str, from_end: bool, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let separator = call.need_text(0, "sep")?;
    if separator.is_empty() {
        return Err(Failure::new("the separator of a partition is empty"));
    }
    budget.spend(text.len())?;
    let found = if from_end { text.rsplit_once(&*separator) } else { text.split_once(&*separator) };
    let parts = match (found, from_end) {
        (Some((before, after)), _) => [before, &separator, after],
        (None, false) => [text, "", ""],
        (None, true) => ["", "", text],
    };
    Value::list(parts.iter().map(|part| Value::text(part)).collect(), Sequence::Tuple)
}

fn affix(text: &str, at_start: bool, call: &mut Call) -> Outcome<Value> {
    let matches = |affix: &str| if at_start { text.starts_with(affix) } else { text.ends_with(affix) };
    let result = match call.need(0, "prefix")? {
        Value::Text(affix) => matches(&affix),
        Value::List(list) if list.sequence == Sequence::Tuple => {
            list.items.iter().any(|item| matches!(item, Value::Text(affix) if matches(affix)))
        }
        other => return Err(Failure::new(format!("the beginning or end of a text is not {}", other.type_name()))),
    };
    Ok(Value::Bool(result))
}

/// `text` with the first `count` of `old` replaced, or all.
pub(super) fn replace(text: &str, old: &str, new: &str, count: Option<usize>, budget: &Budget) -> Outcome<Arc<str>> {
    budget.spend(text.len())?;
    let most = count.unwrap_or(usize::MAX);
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() }.min(most);
    budget.spend(found.saturating_mul(new.len()).saturating_add(text.len()))?;
    Ok(text.replacen(old, new, most).into())
}

fn search(text: &str, name: &str, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let wanted = call.need_text(0, "sub")?;
    let (start, end) = (call.int(1, "start")?, call.int(2, "end")?);
    budget.spend(text.len() + wanted.len())?;
    let length = text.chars().count();
    let (start, end) = (letters::clamp(start, length, 0), letters::clamp(end, length, length));
    let slice = letters::slice(text, start, end.max(start));
    let characters = |byte: usize| (start + slice.get(..byte).map_or(0, |before| before.chars().count())) as i128;
    if name == "count" {
        let count = if wanted.is_empty() { slice.chars().count() + 1 } else { slice.matches(&*wanted).count() };
        return Ok(Value::Int(count as i128));
    }
    let found = if name.starts_with('r') { slice.rfind(&*wanted) } else { slice.find(&*wanted) };
    match found {
        Some(byte) => Ok(Value::Int(characters(byte))),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => Err(Failure::new(format!("the text that `{name}` looks for is not there"))),
    }
}

/// `separator.join(value)`, whose items have to be texts.
fn join(separator: &str, value: &Value, budget: &Budget) -> Outcome<Value> {
    let items = super::sequences::iterate(value, budget)?;
    let mut out = Text::new(budget);
    for (index, item) in items.iter().enumerate() {
        let Value::Text(text) = item else {
            return Err(Failure::new(format!("`join` takes texts and not {}", item.type_name())));
        };
        if index > 0 {
            out.push(separator)?;
        }
        out.push(text)?;
    }
    Ok(Value::Text(out.finish().into()))
}

/// The filter `join`, whose items are written as texts.
pub(super) fn join_any(separator: &str, items: &[Value], budget: &Budget) -> Outcome<Value> {
    let mut out = Text::new(budget);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(separator)?;
        }
        out.push(&to_str(item, budget)?)?;
    }
    Ok(Value::Text(out.finish().into()))
}

pub(super) fn pad(text: &str, name: &str, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let width = call.int(0, "width")?.ok_or_else(|| Failure::new("the argument `width` is missing"))?;
    let fill = if name == "zfill" { None } else { call.text(1, "fillchar")? };
    let mut fill = fill.as_deref().unwrap_or(if name == "zfill" { "0" } else { " " }).chars();
    let (Some(letter), None) = (fill.next(), fill.next()) else {
        return Err(Failure::new(format!("what `{name}` fills with is not one character")));
    };
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let length = text.chars().count();
    let space = width.saturating_sub(length);
    let mut out = Text::new(budget);
    let before = match name {
        "ljust" => 0,
        "rjust" | "zfill" => space,
        // Where the space is odd, Python puts more of it before a text in an odd width.
        _ => space / 2 + (space & width & 1),
    };
    let sign = text.strip_prefix(['+', '-']).filter(|_| name == "zfill");
    let (sign, rest) = sign.map_or(("", text), |rest| (&text[..1], rest));
    out.push(sign)?;
    out.push_repeated(letter, before)?;
    out.push(rest)?;
    out.push_repeated(letter, space - before)?;
    Ok(Value::Text(out.finish().into()))
}

//! Python's methods of texts, lists and mappings.

use std::collections::HashSet;
use std::sync::Arc;

use super::braces;
use super::budget::{Budget, STEP, Text};
use super::call::Call;
use super::letters;
use super::markup;
use super::pystr::{is_space, to_str};
use super::value::{Dict, Function, List, Sequence, Value};
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

/// True if a value has a method of this name, which takes precedence over a key of a mapping.
pub(super) fn has_method(value: &Value, name: &str) -> bool {
    match value {
        Value::Text(_) | Value::Markup(_) => OF_TEXTS.contains(&name),
        Value::Dict(_) => matches!(name, "items" | "keys" | "values" | "get" | "copy"),
        Value::List(list) => match list.sequence {
            Sequence::List => matches!(name, "index" | "count" | "copy"),
            Sequence::Tuple | Sequence::Group | Sequence::Range => matches!(name, "index" | "count"),
            _ => false,
        },
        _ => false,
    }
}

/// True if a name is an attribute in Python that is not supported here.
pub(super) fn is_unsupported(value: &Value, name: &str) -> bool {
    let unsupported: &[&str] = match value {
        Value::Text(_) => &["maketrans", "translate"],
        Value::Markup(_) => &["maketrans", "translate", "escape", "striptags", "unescape"],
        Value::Bool(_) | Value::Int(_) => {
            &["as_integer_ratio", "bit_count", "bit_length", "conjugate", "from_bytes", "is_integer", "to_bytes"]
        }
        Value::Float(_) => &["as_integer_ratio", "conjugate", "fromhex", "hex", "is_integer"],
        Value::Dict(_) => &["fromkeys"],
        Value::List(list) => match list.sequence {
            Sequence::Range => &["start", "step", "stop"],
            Sequence::Keys | Sequence::Items => &["isdisjoint", "mapping"],
            Sequence::Values => &["mapping"],
            Sequence::Generator => &["close", "send", "throw"],
            Sequence::List | Sequence::Tuple | Sequence::Group => &[],
        },
        Value::Macro(_) => &["arguments", "caller", "catch_kwargs", "catch_varargs", "explicit_caller"],
        // A field of `self` is a block.
        Value::Function(Function::Unsupported(_)) => return true,
        _ => &[],
    };
    unsupported.contains(&name)
}

/// True if a name is a method that changes a value: it is out of reach in chat templates, as in transformers.
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

pub(super) fn call(value: &Value, name: &str, call: Call, budget: &Budget) -> Outcome<Value> {
    match value {
        Value::Text(text) => of_text(text, name, call, budget),
        Value::Markup(text) if markup::takes_method(name) => of_text(text, name, call, budget),
        Value::Markup(text) if markup::is_kept_by_method(name) => {
            let made = of_text(text, name, call, budget)?;
            Ok(made.as_text().cloned().map_or(made, Value::Markup))
        }
        Value::Markup(_) => {
            Err(Failure::new(format!("`{name}` of a text that a filter marked as safe is not supported")))
        }
        Value::Dict(dict) => of_mapping(dict, name, call, budget),
        Value::List(list) => of_list(list, name, call, budget),
        other => Err(Failure::new(format!("{} has no method `{name}`", other.type_name()))),
    }
}

fn of_mapping(dict: &Dict, name: &str, mut call: Call, budget: &Budget) -> Outcome<Value> {
    if name == "get" {
        let key = call.need(0, "key")?;
        let default = call.take(1, "default").unwrap_or(Value::None);
        call.finish(name)?;
        key.hashable()?;
        return Ok(dict.find(&key, budget)?.cloned().unwrap_or(default));
    }
    call.finish(name)?;
    budget.spend_entries(dict.entries.len().saturating_mul(3))?;
    match name {
        "items" => items(dict.all(), Sequence::Items),
        "keys" => Value::list(dict.all().iter().map(|(key, _)| key.clone()).collect(), Sequence::Keys),
        "values" => Value::list(dict.all().iter().map(|(_, value)| value.clone()).collect(), Sequence::Values),
        _ => Value::dict(dict.all().to_vec()),
    }
}

fn of_list(list: &List, name: &str, mut call: Call, budget: &Budget) -> Outcome<Value> {
    if name == "copy" {
        call.finish(name)?;
        budget.spend_entries(list.items.len())?;
        return Value::list(list.items.clone(), list.sequence);
    }
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
    match name {
        "index" => Err(Failure::new("the value of `index` is not in the list")),
        _ => Ok(Value::Int(count)),
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
        "strip" | "lstrip" | "rstrip" => {
            let chars = call.text(0, "chars")?;
            Value::text(stripped(text, name, chars.as_deref(), budget)?)
        }
        "split" | "rsplit" => split(text, name == "rsplit", &mut call, budget)?,
        "splitlines" => texts(letters::lines(text, call.truth(0, "keepends")), budget)?,
        "partition" | "rpartition" => partition(text, name == "rpartition", &mut call, budget)?,
        "startswith" | "endswith" => affix(text, name == "startswith", &mut call, budget)?,
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
        "join" => join(text, &call.need(0, "iterable")?, budget)?,
        "center" | "ljust" | "rjust" | "zfill" => pad(text, name, &mut call, budget)?,
        "format" => return braces::format(text, call, budget),
        "format_map" => braces::format_map(text, &call.need(0, "mapping")?, budget)?,
        "expandtabs" => {
            let size = call.int(0, "tabsize")?.unwrap_or(8);
            let mut out = Text::new(budget);
            letters::expand_tabs(text, usize::try_from(size).unwrap_or(0), &mut out)?;
            Value::Text(out.finish().into())
        }
        "encode" => return Err(Failure::new("`encode` is not supported, as templates have no bytes")),
        _ => match letters::changed(text, name, budget)? {
            Some(changed) => Value::Text(changed.into()),
            None => Value::Bool(letters::is(text, name, budget)?),
        },
    };
    call.finish(name)?;
    Ok(result)
}

/// A text without whitespace, or the letters of `chars`, at its ends. It is paid for but for `chars`.
pub(super) fn stripped<'a>(text: &'a str, name: &str, chars: Option<&str>, budget: &Budget) -> Outcome<&'a str> {
    let Some(chars) = chars else { return Ok(trimmed(text, name, is_space)) };
    budget.spend(chars.len().saturating_mul(8))?;
    let chars: HashSet<char> = chars.chars().collect();
    Ok(trimmed(text, name, |letter| chars.contains(&letter)))
}

fn trimmed<'a>(text: &'a str, name: &str, matches: impl Fn(char) -> bool) -> &'a str {
    match name {
        "lstrip" => text.trim_start_matches(matches),
        "rstrip" => text.trim_end_matches(matches),
        _ => text.trim_matches(matches),
    }
}

/// A list of texts.
fn texts<'a>(parts: impl Iterator<Item = &'a str>, budget: &Budget) -> Outcome<Value> {
    let mut list = Vec::new();
    for part in parts {
        budget.spend_entries(1)?;
        budget.spend(part.len())?;
        list.push(Value::text(part));
    }
    Value::list(list, Sequence::List)
}

fn split(text: &str, from_end: bool, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let separator = call.text(0, "sep")?;
    let most = call.int(1, "maxsplit")?.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let Some(separator) = separator else { return texts(words(text, from_end, most, budget)?.into_iter(), budget) };
    if separator.is_empty() {
        return Err(Failure::new("the separator of a split is empty"));
    }
    budget.spend(separator.len())?;
    let most = most.saturating_add(1);
    if !from_end {
        return texts(text.splitn(most, &*separator), budget);
    }
    // A text may have as many parts as bytes.
    budget.spend(most.min(text.len() / separator.len() + 1).saturating_mul(16))?;
    let parts: Vec<&str> = text.rsplitn(most, &*separator).collect();
    texts(parts.into_iter().rev(), budget)
}

/// The parts of a text between whitespace; what is left after `most` splits is one part.
fn words<'a>(text: &'a str, from_end: bool, most: usize, budget: &Budget) -> Outcome<Vec<&'a str>> {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(is_space);
    while !rest.is_empty() && parts.len() < most {
        budget.spend(STEP)?;
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
    Ok(parts)
}

fn trailing(text: &str) -> usize {
    text.len() - text.trim_end_matches(is_space).len()
}

fn leading(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_space).len()
}

fn partition(text: &str, from_end: bool, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let given = call.need(0, "sep")?;
    let separator = given.as_text().filter(|separator| !separator.is_empty());
    let separator = separator.ok_or_else(|| Failure::new("the separator of a partition is not a text, or empty"))?;
    budget.spend(text.len() + separator.len())?;
    let found = if from_end { text.rsplit_once(&**separator) } else { text.split_once(&**separator) };
    let parts = match (found, from_end) {
        (Some((before, after)), _) => vec![Value::text(before), given, Value::text(after)],
        (None, false) => vec![Value::text(text), Value::text(""), Value::text("")],
        (None, true) => vec![Value::text(""), Value::text(""), Value::text(text)],
    };
    Value::list(parts, Sequence::Tuple)
}

fn affix(text: &str, at_start: bool, call: &mut Call, budget: &Budget) -> Outcome<Value> {
    let matches = |affix: &Value| match affix.as_text() {
        Some(affix) => {
            budget.spend(8 + affix.len().min(text.len()) / 8)?;
            Ok(if at_start { text.starts_with(&**affix) } else { text.ends_with(&**affix) })
        }
        None => Err(Failure::new(format!("the beginning or end of a text is not {}", affix.type_name()))),
    };
    match call.need(0, "prefix")? {
        Value::List(list) if list.is_tuple() => {
            for item in &list.items {
                if matches(item)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        affix => matches(&affix).map(Value::Bool),
    }
}

/// `text` with the first `count` of `old` replaced, or all.
pub(super) fn replace(text: &str, old: &str, new: &str, count: Option<usize>, budget: &Budget) -> Outcome<Arc<str>> {
    budget.spend(text.len() + old.len())?;
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
        let text = item.as_text();
        let text = text.ok_or_else(|| Failure::new(format!("`join` takes texts and not {}", item.type_name())))?;
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

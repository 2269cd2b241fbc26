//! Transforms lists with the standard library.

use std::collections::BTreeMap;

use super::question::Form;

pub(crate) fn solve(ask: &str, data: &str, form: Form) -> Option<String> {
    let mut items: Vec<String> = data.split(", ").map(str::to_owned).collect();
    if items.iter().any(|item| item.is_empty() || !item.chars().all(char::is_alphanumeric)) {
        return None;
    }
    let mut results = Vec::new();
    for step in ask.split(" and then ") {
        let step = step.replace("the list", "it");
        let label = match step.as_str() {
            "sort it from a to z" | "put it in the order of the alphabet" => {
                items.sort();
                "sorted"
            }
            "sort it from small to large" => {
                items.sort_by_key(|item| item.parse::<u32>().unwrap());
                "sorted"
            }
            "reverse it" | "turn it around" => {
                items = items.into_iter().rev().collect();
                "reversed"
            }
            "remove the repeats from it" | "leave out the repeats in it" => {
                items = counts(&items).into_iter().map(|entry| entry.0).collect();
                "without repeats"
            }
            "count each word in it" | "say how often each word is in it" => {
                items = counts(&items).into_iter().map(|(item, count)| format!("{item} {count}")).collect();
                "counted"
            }
            _ => return None,
        };
        results.push((label, items.clone()));
    }
    let worded = results.into_iter().map(|(label, items)| match form {
        Form::Sentences => format!("{}{}, it is {}.", label[..1].to_uppercase(), &label[1..], items.join(", ")),
        Form::List => {
            let lines = items.iter().enumerate().map(|(index, item)| format!("\n{}. {item}", index + 1));
            format!("{label}:{}", lines.collect::<String>())
        }
        _ => format!("{label}: {}", items.join(", ")),
    });
    let worded: Vec<String> = worded.collect();
    Some(match form {
        Form::Sentences => format!("The list is {data}. {}", worded.join(" ")),
        Form::List => worded.join("\n"),
        _ => format!("{data} -> {}", worded.join(" -> ")),
    })
}

/// Each item with how often it comes, in the order of first places.
fn counts(items: &[String]) -> Vec<(String, usize)> {
    let mut places: BTreeMap<&String, (usize, usize)> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        places.entry(item).or_insert((index, 0)).1 += 1;
    }
    let mut counts: Vec<_> = places.into_iter().collect();
    counts.sort_by_key(|entry| entry.1.0);
    counts.into_iter().map(|(item, (_, count))| (item.clone(), count)).collect()
}

//! Follows a conversation and answers its last question.

use std::collections::BTreeMap;

use paceline::Message;

use super::question::{Form, and, items, join};

pub(crate) fn solve(messages: &[Message], ask: &str, form: Form) -> Option<String> {
    let earlier = &messages[..messages.len() - 1];
    let said = earlier.iter().filter(|turn| turn.role() == "user").map(|turn| turn.content());
    let said = said.collect::<Vec<_>>().join(" ");
    if ["read back my order", "repeat my order"].contains(&ask) {
        return order(&said, form);
    }
    let (mut name, mut known) = ("", BTreeMap::new());
    for sentence in said.strip_suffix('.')?.split(". ") {
        if let Some(greeted) = sentence.strip_prefix("Hello, I am ") {
            name = greeted;
        } else if let Some((kind, value)) = sentence.strip_prefix("My ").and_then(|rest| rest.split_once(" is ")) {
            known.insert(kind, value.trim_start_matches("now "));
        }
    }
    let mut parts = Vec::new();
    for kind in items(ask.strip_prefix("tell me ")?) {
        let kind = kind.strip_prefix("my ")?;
        let value = known.get(kind)?;
        parts.push(match form {
            Form::Sentences => format!("Your {kind} is {value}, {name}."),
            Form::List => format!("{kind}: {value}"),
            _ => format!("{kind} = {value}"),
        });
    }
    Some(join(&parts, form))
}

fn order(said: &str, form: Form) -> Option<String> {
    let mut ordered: Vec<(&str, &str)> = Vec::new();
    for sentence in said.strip_suffix('.')?.split(". ") {
        if let Some(list) = sentence.strip_prefix("I would like to order ") {
            for item in items(list) {
                ordered.push(item.split_once(' ')?);
            }
        } else if let Some(item) = sentence.strip_prefix("Please add ") {
            ordered.push(item.split_once(' ')?);
        } else if let Some(thing) = sentence.strip_prefix("I do not want the ") {
            ordered.retain(|item| item.1 != thing);
        } else {
            let (count, thing) = sentence.strip_prefix("Make it ")?.split_once(' ')?;
            ordered.iter_mut().find(|item| item.1 == thing)?.0 = count;
        }
    }
    let items: Vec<String> = ordered.iter().map(|(count, thing)| format!("{count} {thing}")).collect();
    Some(match form {
        Form::Sentences => format!("Your order is {}.", and(&items)),
        Form::List => {
            let lines = items.iter().enumerate().map(|(index, item)| format!("- number {}: {item}", index + 1));
            lines.collect::<Vec<_>>().join("\n")
        }
        _ => format!("order: {}", items.join(", ")),
    })
}

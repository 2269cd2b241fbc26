//! Finds the sentences of a passage that a question is about.

use super::question::{Form, items, join};

pub(crate) fn solve(ask: &str, data: &str, form: Form) -> Option<String> {
    let mut sentences = Vec::new();
    for sentence in data.strip_suffix('.')?.split(". ") {
        let words: Vec<&str> = sentence.split(' ').collect();
        // Who did how many of which colour of what at the where on when.
        let [_, _, _, _, _, "at", "the", _, "on", _] = words[..] else { return None };
        sentences.push(words);
    }
    let wanted: Vec<&Vec<&str>> = if let Some(condition) = ask.strip_prefix("find everything that happened ") {
        sentences.iter().filter(|words| words.join(" ").contains(&format!(" {condition}"))).collect()
    } else if let Some(people) = ask.strip_prefix("find what ").and_then(|rest| rest.strip_suffix(" did")) {
        let find = |name: &str| sentences.iter().find(|words| words[0] == name);
        items(people).into_iter().map(find).collect::<Option<_>>()?
    } else {
        let find = |thing: &str| sentences.iter().find(|words| thing.strip_prefix("the ") == Some(words[4]));
        items(ask.strip_prefix("find what happened to ")?).into_iter().map(find).collect::<Option<_>>()?
    };
    let parts = wanted.into_iter().map(|w| match form {
        Form::Sentences => format!("{}.", w.join(" ")),
        Form::List => format!("who: {}, what: {}, where: {}, when: {}", w[0], w[2..5].join(" "), w[7], w[9]),
        _ => format!("{} = {} / {} / {}", w[0], w[2..5].join(" "), w[7], w[9]),
    });
    Some(join(&Vec::from_iter(parts), form))
}

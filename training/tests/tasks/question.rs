//! Reads prompts back: which question they put, about what, and in which form they want the answer.

use paceline_training::tasks::{Category, Task};

/// What the last sentence about the form says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Sentences,
    List,
    Line,
    Whole,
    Body,
    Commented,
}

/// One way to read a prompt.
pub(crate) struct Question {
    pub(crate) ask: String,
    pub(crate) data: String,
    pub(crate) form: Form,
    /// Whether the phrasing is one of the test split alone.
    pub(crate) test_only: bool,
}

const FORMS: [(&str, Form); 6] = [
    ("Use full sentences.", Form::Sentences),
    ("Answer in full sentences.", Form::Sentences),
    ("Write a list.", Form::List),
    ("Answer with a list.", Form::List),
    ("Write one line.", Form::Line),
    ("Answer on one line.", Form::Line),
];
const EXTENTS: [(&str, Form); 3] = [
    ("Write the whole function.", Form::Whole),
    ("Write only the body.", Form::Body),
    ("Write only the body, with comments.", Form::Commented),
];

/// All ways to read a task's last message with its category's phrasings.
pub(crate) fn questions(task: &Task) -> Vec<Question> {
    let prompt = task.messages.last().unwrap().content();
    let phrasings = task.category.phrasings();
    let forms = if task.category == Category::Code { &EXTENTS[..] } else { &FORMS[..] };
    let mut found = Vec::new();
    for (phrasing, test_only) in
        phrasings.common.iter().map(|p| (p, false)).chain(phrasings.test_only.iter().map(|p| (p, true)))
    {
        for (text, form) in forms {
            let phrasing = phrasing.replace("{form}", text);
            for (ask, data) in read(&phrasing, prompt) {
                found.push(Question { ask, data, form: *form, test_only });
            }
        }
    }
    found
}

/// The ways to fill the places of a phrasing so that the prompt comes out: what to do, and with what.
fn read(phrasing: &str, prompt: &str) -> Vec<(String, String)> {
    let (ask, capital) = match phrasing.find("{ask}") {
        Some(place) => (place, false),
        None => (phrasing.find("{Ask}").unwrap(), true),
    };
    let lower = |text: &str| {
        if !capital {
            return text.to_owned();
        }
        text[..1].to_lowercase() + &text[1..]
    };
    let Some(data) = phrasing.find("{data}") else {
        let inner = prompt.strip_prefix(&phrasing[..ask]).and_then(|rest| rest.strip_suffix(&phrasing[ask + 5..]));
        return inner
            .filter(|inner| !inner.is_empty())
            .map(|inner| (lower(inner), String::new()))
            .into_iter()
            .collect();
    };
    // Lengths of the places' names: `{ask}` 5, `{data}` 6.
    let (first, first_end, second, second_end) =
        if ask < data { (ask, ask + 5, data, data + 6) } else { (data, data + 6, ask, ask + 5) };
    let outer = prompt.strip_prefix(&phrasing[..first]).and_then(|rest| rest.strip_suffix(&phrasing[second_end..]));
    let Some(inner) = outer else { return Vec::new() };
    let between = &phrasing[first_end..second];
    let mut found = Vec::new();
    for (place, _) in inner.match_indices(between) {
        let (left, right) = (&inner[..place], &inner[place + between.len()..]);
        let (ask, data) = if ask < data { (left, right) } else { (right, left) };
        if !ask.is_empty() {
            found.push((lower(ask), data.to_owned()));
        }
    }
    found
}

/// The items of `a, b and c`.
pub(crate) fn items(text: &str) -> Vec<&str> {
    text.split(", ").flat_map(|part| part.split(" and ")).collect()
}

/// `a, b and c`.
pub(crate) fn and(items: &[String]) -> String {
    match items.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => items.concat(),
    }
}

/// Parts in the form asked for.
pub(crate) fn join(parts: &[String], form: Form) -> String {
    match form {
        Form::List => parts.iter().map(|part| format!("- {part}")).collect::<Vec<_>>().join("\n"),
        Form::Line => parts.join("; "),
        _ => parts.join(" "),
    }
}

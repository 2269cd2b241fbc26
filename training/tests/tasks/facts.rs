//! The world as the answers tell it, which must not contradict itself.

use std::collections::BTreeMap;

use paceline_training::tasks::Task;

use super::question::{Form, and, items, join};

/// What is known: (subject, kind) to value.
pub(crate) struct World(BTreeMap<(String, String), String>);

const SENTENCES: [(&str, &str); 7] = [
    (" lives in ", "town"),
    (" works as a ", "job"),
    (" keeps a ", "animal"),
    (" likes the colour ", "colour"),
    (" lies on the river ", "river"),
    (" is in the ", "region"),
    (" is known for ", "good"),
];

/// A part of an answer as subject, kind and value; `None` for the conclusion.
fn fact(part: &str) -> Option<(String, String, String)> {
    let part = part.trim_start_matches("- ").trim_end_matches('.');
    let own = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
    if part.starts_with("So ") || part.starts_with("answer") {
        return None;
    }
    for (verb, kind) in SENTENCES {
        if let Some((subject, value)) = part.split_once(verb) {
            return own(subject, kind, value);
        }
    }
    let (left, value) = part.split_once(" = ").or_else(|| part.split_once(": ")).unwrap();
    let (subject, kind) = left.split_once(", ").or_else(|| left.split_once(' ')).unwrap();
    own(subject, kind, value)
}

impl World {
    /// Reads the facts in answers.
    pub(crate) fn learn<'a>(tasks: impl Iterator<Item = &'a Task>) -> Self {
        let mut facts: BTreeMap<(String, String), String> = BTreeMap::new();
        for task in tasks {
            for part in task.answer.split(['\n', ';']).flat_map(|line| line.split(". ")) {
                let Some((subject, kind, value)) = fact(part.trim()) else { continue };
                let known = facts.entry((subject, kind)).or_insert_with(|| value.clone());
                assert_eq!(*known, value, "{}", task.id);
            }
        }
        // 40 people with four facts each, 12 towns with three.
        assert_eq!(facts.len(), 40 * 4 + 12 * 3);
        Self(facts)
    }

    fn get(&self, subject: &str, kind: &str) -> Option<&str> {
        self.0.get(&(subject.to_owned(), kind.to_owned())).map(String::as_str)
    }

    fn worded(&self, subject: &str, kind: &str, form: Form) -> Option<String> {
        let value = self.get(subject, kind)?;
        let verb = SENTENCES.iter().find(|entry| entry.1 == kind)?.0;
        Some(match form {
            Form::Sentences => format!("{subject}{verb}{value}."),
            Form::List => format!("{subject}, {kind}: {value}"),
            _ => format!("{subject} {kind} = {value}"),
        })
    }
}

pub(crate) fn solve(ask: &str, form: Form, world: &World) -> Option<String> {
    let mut parts = Vec::new();
    if let Some((people, wanted)) = ask.strip_prefix("find who of ").and_then(|rest| rest.split_once(" lives ")) {
        let (kind, wanted) = match wanted.strip_prefix("on the river ") {
            Some(river) => ("river", river),
            None => ("region", wanted.strip_prefix("in the ")?),
        };
        if wanted.contains(' ') {
            return None;
        }
        let mut chosen = Vec::new();
        for person in items(people) {
            let town = world.get(person, "town")?;
            parts.extend([world.worded(person, "town", form)?, world.worded(town, kind, form)?]);
            if world.get(town, kind)? == wanted {
                chosen.push(person.to_owned());
            }
        }
        parts.push(match form {
            Form::Sentences => format!("So the answer is {}.", and(&chosen)),
            Form::List => format!("answer: {}", chosen.join(", ")),
            _ => format!("answer = {}", chosen.join(", ")),
        });
        return Some(join(&parts, form));
    }
    let (of_person, of_town) = match ask.strip_prefix("give the ")?.split_once(", and the ") {
        Some((first, second)) => (first, Some(second.strip_suffix(" of that town")?)),
        None => (ask.strip_prefix("give the ")?, None),
    };
    let (kinds, subjects) = of_person.split_once(" of ")?;
    for subject in subjects.split(" and of ") {
        for kind in items(kinds) {
            parts.push(world.worded(subject, kind, form)?);
        }
        for kind in of_town.map_or(Vec::new(), items) {
            parts.push(world.worded(world.get(subject, "town")?, kind, form)?);
        }
    }
    Some(join(&parts, form))
}

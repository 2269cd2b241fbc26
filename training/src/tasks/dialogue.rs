//! Questions about what was said earlier in a conversation.
//!
//! The level is the number of turns of the user and of changes to what was said first: 2 turns without a change, 3 turns
//! with one, 4 turns with four.

use super::forms::{Form, and, fill};
use super::picker::Picker;
use super::words::{ANIMALS, COLOURS, DAYS, FOODS, NAMES, PLACES, THINGS, WORK, number_words};
use super::{Draft, Level, turn};

pub(super) fn draft(picker: &mut Picker, level: Level, phrasing: &str) -> Draft {
    let (form, form_text) = Form::pick(picker);
    let changes: &[usize] = level.choose(&[], &[1], &[2, 2]);
    let talk = if picker.coin() { preferences(picker, level, changes, form) } else { order(picker, changes, form) };
    let mut messages = Vec::new();
    for said in &talk.said {
        messages.push(turn("user", said.clone()));
        messages.push(turn("assistant", picker.pick(&talk.replies).to_owned()));
    }
    let content = format!("{}\n{}", talk.said.join("\n"), talk.ask);
    messages.push(turn("user", fill(phrasing, &talk.ask, "", form_text)));
    Draft { content, messages, answer: form.join(&talk.parts) }
}

/// A conversation: what the user said before the last turn, what may have been replied, the question, the answer.
struct Talk {
    said: Vec<String>,
    replies: [&'static str; 3],
    ask: String,
    parts: Vec<String>,
}

/// Things that somebody may say about himself: what, the article of its values, its values.
const TRAITS: [(&str, &str, &[&str]); 6] = [
    ("favourite colour", "", &COLOURS),
    ("animal", "a ", &ANIMALS),
    ("free day", "", &DAYS),
    ("favourite food", "", &FOODS),
    ("meeting place", "the ", &PLACES),
    ("job", "", &WORK),
];

fn preferences(picker: &mut Picker, level: Level, changes: &[usize], form: Form) -> Talk {
    let name = picker.pick(&NAMES);
    let mut known: Vec<(&str, String)> = Vec::new();
    let traits = picker.sample(&TRAITS, level.choose(4, 5, 6));
    for (kind, article, values) in &traits {
        known.push((kind, format!("{article}{}", picker.pick(values))));
    }
    let told: Vec<String> = known.iter().map(|(kind, value)| format!("My {kind} is {value}.")).collect();
    let mut said = vec![format!("Hello, I am {name}. {}", told.join(" "))];
    for &count in changes {
        let indices: Vec<usize> = (0..known.len()).collect();
        let mut sentences = vec!["I changed my mind.".to_owned()];
        for index in picker.sample(&indices, count) {
            let (kind, article, values) = traits[index];
            let values = values.iter().map(|value| format!("{article}{value}"));
            let other: Vec<String> = values.filter(|value| *value != known[index].1).collect();
            known[index].1 = other[picker.below(other.len())].clone();
            sentences.push(format!("My {kind} is now {}.", known[index].1));
        }
        said.push(sentences.join(" "));
    }
    picker.shuffle(&mut known);
    let asked = &known[..level.choose(3, 4, 5)];
    let kinds: Vec<String> = asked.iter().map(|(kind, _)| format!("my {kind}")).collect();
    let parts = asked.iter().map(|(kind, value)| match form {
        Form::Sentences => format!("Your {kind} is {value}, {name}."),
        Form::List => format!("{kind}: {value}"),
        Form::Line => format!("{kind} = {value}"),
    });
    let replies = ["I will remember that.", "Thank you, I know that now.", "Good to know."];
    Talk { said, replies, ask: format!("tell me {}", and(&kinds)), parts: parts.collect() }
}

fn order(picker: &mut Picker, changes: &[usize], form: Form) -> Talk {
    let mut unused = picker.sample(&THINGS, THINGS.len());
    let mut order: Vec<(i64, &str)> = Vec::new();
    for thing in unused.split_off(unused.len() - 5) {
        order.push((picker.between(2, 9), thing));
    }
    let item = |(count, thing): (i64, &str)| format!("{} {thing}", number_words(count));
    let first: Vec<String> = order.iter().copied().map(item).collect();
    let mut said = vec![format!("I would like to order {}.", and(&first))];
    for &count in changes {
        let mut sentences = Vec::new();
        for _ in 0..count {
            let place = picker.below(order.len());
            let (before, thing) = order[place];
            match picker.below(3) {
                0 => {
                    // Nineteen were not ordered at first, and there are four changes at most.
                    order.push((picker.between(2, 9), unused.remove(0)));
                    sentences.push(format!("Please add {}.", item(order[order.len() - 1])));
                }
                1 if order.len() > 2 => {
                    order.remove(place);
                    sentences.push(format!("I do not want the {thing}."));
                }
                _ => {
                    // One of the seven other counts.
                    order[place].0 = 2 + (before - 2 + picker.between(1, 7)) % 8;
                    sentences.push(format!("Make it {}.", item(order[place])));
                }
            }
        }
        said.push(sentences.join(" "));
    }
    let items: Vec<String> = order.iter().copied().map(item).collect();
    let parts = match form {
        Form::Sentences => vec![format!("Your order is {}.", and(&items))],
        Form::List => (1..).zip(&items).map(|(number, item)| format!("number {number}: {item}")).collect(),
        Form::Line => vec![format!("order: {}", items.join(", "))],
    };
    let ask = picker.pick(&["read back my order", "repeat my order"]).to_owned();
    Talk { said, replies: ["I have noted that.", "Very well.", "It is on the list."], ask, parts }
}

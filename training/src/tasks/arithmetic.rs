//! Sums worked digit by digit, as one does on paper.
//!
//! The level is the number of digits to be worked: 2 without carry or borrow; 3 with at least one, or a product of one
//! digit and two; 9, in three sums of three digits after each other, each with what the one before gave.

use super::forms::{Form, capital, fill};
use super::picker::Picker;
use super::words::{NAMES, THINGS};
use super::{Draft, Level};

/// An operation on two numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Subtract,
    Multiply,
}

/// One of a chain of operations, on what the one before gave.
struct Link {
    left: i64,
    operation: Operation,
    right: i64,
}

/// The work on one digit.
struct Step {
    place: &'static str,
    text: String,
    carries: bool,
}

const PLACES: [&str; 3] = ["ones", "tens", "hundreds"];

impl Operation {
    fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Subtract => '-',
            Self::Multiply => 'x',
        }
    }
}

impl Link {
    fn result(&self) -> i64 {
        match self.operation {
            Operation::Add => self.left + self.right,
            Operation::Subtract => self.left - self.right,
            Operation::Multiply => self.left * self.right,
        }
    }

    fn equation(&self) -> String {
        format!("{} {} {} = {}", self.left, self.operation.sign(), self.right, self.result())
    }

    fn steps(&self) -> Vec<Step> {
        let (mut steps, mut carried) = (Vec::new(), 0);
        let (mut above, mut below) = (self.left, self.right);
        for place in PLACES {
            if above == 0 {
                break;
            }
            let (top, bottom) =
                (above % 10, if self.operation == Operation::Multiply { self.right } else { below % 10 });
            let step = step(self.operation, top, bottom, carried);
            (above, below, carried) = (above / 10, below / 10, step.1);
            let text = if above > 0 && carried > 0 {
                let word = if self.operation == Operation::Subtract { "borrow" } else { "carry" };
                format!("{}, {word} {carried}", step.0)
            } else {
                step.0
            };
            steps.push(Step { place, text, carries: carried > 0 });
        }
        steps
    }

    /// The steps and the result, worded.
    fn parts(&self, form: Form) -> Vec<String> {
        let steps = self.steps();
        match form {
            Form::Sentences => {
                let worded = steps.iter().map(|step| format!("{}: {}.", capital(step.place), step.text));
                worded.chain([format!("So {}.", self.equation())]).collect()
            }
            Form::List => {
                let worded = steps.iter().map(|step| format!("{}: {}", step.place, step.text));
                worded.chain([format!("result: {}", self.result())]).collect()
            }
            Form::Line => {
                let worded: Vec<_> = steps.iter().map(|step| step.text.as_str()).collect();
                vec![format!("{} -> {}", worded.join(", "), self.result())]
            }
        }
    }
}

/// The text of the work on one digit, and what is carried or borrowed.
fn step(operation: Operation, top: i64, bottom: i64, carried: i64) -> (String, i64) {
    let sign = operation.sign();
    match operation {
        Operation::Add => {
            let sum = top + bottom + carried;
            let more = if carried > 0 { " + 1" } else { "" };
            (format!("{top} {sign} {bottom}{more} = {sum}"), sum / 10)
        }
        Operation::Subtract => {
            let borrowed = i64::from(top < bottom + carried);
            let top = top + 10 * borrowed;
            let less = if carried > 0 { " - 1" } else { "" };
            (format!("{top} {sign} {bottom}{less} = {}", top - bottom - carried), borrowed)
        }
        Operation::Multiply => {
            let product = bottom * top;
            let sum = product + carried;
            let more = if carried > 0 { format!(", {product} + {carried} = {sum}") } else { String::new() };
            (format!("{bottom} {sign} {top} = {product}{more}"), sum / 10)
        }
    }
}

pub(super) fn draft(picker: &mut Picker, level: Level, phrasing: &str) -> Draft {
    let (form, form_text) = Form::pick(picker);
    let chain = match level {
        Level::Simple => vec![without_carry(picker)],
        Level::Medium => vec![with_carry(picker)],
        Level::Complex => three_sums(picker),
    };
    let mut content = chain[0].left.to_string();
    for link in &chain {
        content += &format!(" {} {}", link.operation.sign(), link.right);
    }
    let mut parts: Vec<String> = chain.iter().flat_map(|link| link.parts(form)).collect();
    let story = picker.coin();
    let prompt = if story {
        let (name, things) = (picker.pick(&NAMES), picker.pick(&THINGS));
        if form == Form::Sentences {
            let result = chain.last().map_or(0, Link::result);
            parts.push(format!("{name} has {result} {things}."));
        }
        let ask = format!("work out how many {things} {name} has");
        fill(phrasing, &ask, &tell(picker, &chain, name, things), form_text)
    } else {
        let ask = picker.pick(&["work out the result", "find the result"]);
        fill(phrasing, ask, &format!("We have {content}."), form_text)
    };
    Draft::new(content, prompt, form.join(&parts))
}

/// The chain as a little story.
fn tell(picker: &mut Picker, chain: &[Link], name: &str, things: &str) -> String {
    let mut sentences = vec![match &chain[0] {
        Link { left, operation: Operation::Multiply, right } => format!("{name} has {right} boxes of {left} {things}."),
        Link { left, .. } => format!("{name} has {left} {things}."),
    }];
    for link in chain {
        let deeds = match link.operation {
            Operation::Add => ["buys", "finds", "gets"],
            Operation::Subtract => ["sells", "loses", "drops"],
            Operation::Multiply => continue,
        };
        sentences.push(format!("{name} {} {} {things}.", picker.pick(&deeds), link.right));
    }
    sentences.join(" ")
}

fn without_carry(picker: &mut Picker) -> Link {
    let operation = picker.pick(&[Operation::Add, Operation::Subtract]);
    loop {
        let link = Link { left: picker.between(11, 99), operation, right: picker.between(11, 99) };
        if (11..100).contains(&link.result()) && link.steps().iter().all(|step| !step.carries) {
            return link;
        }
    }
}

fn with_carry(picker: &mut Picker) -> Link {
    if picker.below(3) == 0 {
        return Link { left: picker.between(12, 99), operation: Operation::Multiply, right: picker.between(2, 9) };
    }
    let operation = picker.pick(&[Operation::Add, Operation::Subtract]);
    loop {
        let link = sum(picker, operation, None);
        if link.steps().iter().any(|step| step.carries) {
            return link;
        }
    }
}

fn three_sums(picker: &mut Picker) -> Vec<Link> {
    let mut chain: Vec<Link> = Vec::new();
    while chain.len() < 3 {
        let before = chain.last().map(Link::result);
        let operation = match before {
            // So that a number of three digits is left to add or to take away.
            Some(..=249) => Operation::Add,
            Some(850..) => Operation::Subtract,
            _ => picker.pick(&[Operation::Add, Operation::Subtract]),
        };
        chain.push(sum(picker, operation, before));
    }
    chain
}

/// A sum or difference in which all numbers have three digits.
fn sum(picker: &mut Picker, operation: Operation, left: Option<i64>) -> Link {
    loop {
        let left = left.unwrap_or_else(|| picker.between(101, 999));
        let link = Link { left, operation, right: picker.between(101, 899) };
        if (100..1000).contains(&link.result()) {
            return link;
        }
    }
}

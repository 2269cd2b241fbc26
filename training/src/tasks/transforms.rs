//! Lists sorted, reversed, counted, freed of repeats.
//!
//! The level is the length of the list and the number of transforms: one of 5 words (6 with repeats), one of 8 words or
//! numbers, two after each other of 11.

use super::forms::{Form, capital, fill};
use super::picker::Picker;
use super::words::LISTED;
use super::{Draft, Level};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transform {
    Sort,
    Reverse,
    Distinct,
    Count,
}

impl Transform {
    /// The instruction, in one of two ways.
    fn ask(self, list: &str, numbers: bool, way: bool) -> String {
        match (self, way) {
            (Self::Sort, _) if numbers => format!("sort {list} from small to large"),
            (Self::Sort, true) => format!("sort {list} from a to z"),
            (Self::Sort, false) => format!("put {list} in the order of the alphabet"),
            (Self::Reverse, true) => format!("reverse {list}"),
            (Self::Reverse, false) => format!("turn {list} around"),
            (Self::Distinct, true) => format!("remove the repeats from {list}"),
            (Self::Distinct, false) => format!("leave out the repeats in {list}"),
            (Self::Count, true) => format!("count each word in {list}"),
            (Self::Count, false) => format!("say how often each word is in {list}"),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Sort => "sorted",
            Self::Reverse => "reversed",
            Self::Distinct => "without repeats",
            Self::Count => "counted",
        }
    }

    fn apply(self, items: &[String]) -> Vec<String> {
        let mut result = items.to_vec();
        match self {
            // Numbers have two digits each, so that their order is that of their letters.
            Self::Sort => result.sort(),
            Self::Reverse => result.reverse(),
            Self::Distinct => result = distinct(items),
            Self::Count => {
                let count = |item: &String| items.iter().filter(|other| *other == item).count();
                result = distinct(items).iter().map(|item| format!("{item} {}", count(item))).collect();
            }
        }
        result
    }
}

/// Each once, where it came first.
fn distinct(items: &[String]) -> Vec<String> {
    let mut result: Vec<String> = Vec::new();
    for item in items {
        if !result.contains(item) {
            result.push(item.clone());
        }
    }
    result
}

pub(super) fn draft(picker: &mut Picker, level: Level, phrasing: &str) -> Draft {
    use Transform::{Count, Distinct, Reverse, Sort};

    let (form, form_text) = Form::pick(picker);
    let transforms: Vec<Transform> = match level {
        Level::Simple | Level::Medium => vec![picker.pick(&[Sort, Reverse, Distinct, Count])],
        Level::Complex => picker.pick(&[[Distinct, Sort], [Distinct, Reverse], [Sort, Count]]).to_vec(),
    };
    let numbers = level != Level::Simple && !transforms.contains(&Count) && picker.below(3) == 0;
    let repeats = matches!(transforms[0], Distinct | Count) || level == Level::Complex;
    let (length, kinds) = match (level, repeats) {
        (Level::Simple, false) => (5, 5),
        (Level::Simple, true) => (6, 4),
        (Level::Medium, false) => (8, 8),
        (Level::Medium, true) => (8, 5),
        (Level::Complex, _) => (11, 7),
    };
    let items = list(picker, length, kinds, numbers);
    let way = picker.coin();
    let mut ask = transforms[0].ask("the list", numbers, way);
    if let Some(second) = transforms.get(1) {
        ask += &format!(" and then {}", second.ask("it", numbers, way));
    }
    let data = items.join(", ");
    let mut parts = match form {
        Form::Sentences => vec![format!("The list is {data}.")],
        Form::Line => vec![data.clone()],
        Form::List => Vec::new(),
    };
    let mut result = items;
    for transform in transforms {
        result = transform.apply(&result);
        parts.push(worded(transform, &result, form));
    }
    let separator = match form {
        Form::Sentences => " ",
        Form::Line => " -> ",
        Form::List => "\n",
    };
    Draft::new(data.clone(), fill(phrasing, &ask, &data, form_text), parts.join(separator))
}

/// A list of this length with this many different items, each of them at least once.
fn list(picker: &mut Picker, length: usize, kinds: usize, numbers: bool) -> Vec<String> {
    let kinds: Vec<String> = if numbers {
        let all: Vec<i64> = (10..100).collect();
        picker.sample(&all, kinds).iter().map(i64::to_string).collect()
    } else {
        picker.sample(&LISTED, kinds).iter().map(|&word| word.to_owned()).collect()
    };
    let mut items = kinds.clone();
    while items.len() < length {
        items.push(kinds[picker.below(kinds.len())].clone());
    }
    picker.shuffle(&mut items);
    items
}

fn worded(transform: Transform, result: &[String], form: Form) -> String {
    let label = transform.label();
    match form {
        Form::Sentences => format!("{}, it is {}.", capital(label), result.join(", ")),
        Form::Line => format!("{label}: {}", result.join(", ")),
        Form::List => {
            let numbered: Vec<String> = (1..).zip(result).map(|(number, item)| format!("{number}. {item}")).collect();
            format!("{label}:\n{}", numbered.join("\n"))
        }
    }
}

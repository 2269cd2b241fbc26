//! Structured passages made short.
//!
//! The level is the number of lines: 4, 6 or 9 lines of minutes, of which the decisions (2, 3 or 5) are kept, or of a log,
//! which is grouped by place (2, 2 or 3 of them); or 2, 4 or 6 orders, whose scattered fields become sentences, 6 of them
//! in the order of the days.

use super::forms::{Form, and, fill};
use super::picker::Picker;
use super::words::{CHORES, COLOURS, DAYS, NAMES, PLACES, THINGS, number_words};
use super::{Draft, Level};

pub(super) fn draft(picker: &mut Picker, level: Level, phrasing: &str) -> Draft {
    let (form, form_text) = Form::pick(picker);
    let (ask, lines, parts) = match picker.below(3) {
        0 => minutes(picker, level, form),
        1 => log(picker, level, form),
        _ => orders(picker, level, form),
    };
    let data = lines.join("\n");
    Draft::new(data.clone(), fill(phrasing, ask, &data, form_text), form.join(&parts))
}

/// The instruction, the lines to follow it with, the parts of the answer.
type Question = (&'static str, Vec<String>, Vec<String>);

fn minutes(picker: &mut Picker, level: Level, form: Form) -> Question {
    let length = level.choose(4, 6, 9);
    let names = picker.sample(&NAMES, length);
    let mut decided: Vec<bool> = (0..length).map(|index| index < level.choose(2, 3, 5)).collect();
    picker.shuffle(&mut decided);
    let (mut lines, mut parts) = (Vec::new(), Vec::new());
    for (name, decided) in names.into_iter().zip(decided) {
        if decided {
            let text =
                format!("{name} {} the {} on {}", picker.pick(&CHORES), picker.pick(&PLACES), picker.pick(&DAYS));
            lines.push(format!("Decision: {text}."));
            parts.push(match form {
                Form::Sentences => format!("It was decided that {text}."),
                Form::List | Form::Line => text,
            });
        } else if picker.coin() {
            lines.push(format!("Note: {name} has {} {}.", picker.pick(&COLOURS), picker.pick(&THINGS)));
        } else {
            lines.push(format!("Question: {name} asks about the {}.", picker.pick(&PLACES)));
        }
    }
    ("keep only the decisions", lines, parts)
}

fn log(picker: &mut Picker, level: Level, form: Form) -> Question {
    let names = picker.sample(&NAMES, level.choose(4, 6, 9));
    let places = picker.sample(&PLACES, level.choose(2, 2, 3));
    let visits: Vec<(&str, &str)> = names.into_iter().map(|name| (name, picker.pick(&places))).collect();
    let lines = visits.iter().map(|(name, place)| format!("{name}: {place}")).collect();
    // In the order in which the log names them first.
    let mut order: Vec<&str> = Vec::new();
    for (_, place) in &visits {
        if !order.contains(place) {
            order.push(place);
        }
    }
    let parts = order.into_iter().map(|place| {
        let there: Vec<_> = visits.iter().filter(|visit| visit.1 == place).map(|visit| visit.0).collect();
        let count = number_words(there.len() as i64);
        match form {
            Form::Sentences => format!("To the {place} went {}, {count} in all.", and(&there)),
            Form::List => format!("{place}: {} ({count})", there.join(", ")),
            Form::Line => format!("{place} = {} ({count})", there.join(", ")),
        }
    });
    ("group the log by place", lines, parts.collect())
}

fn orders(picker: &mut Picker, level: Level, form: Form) -> Question {
    let count = level.choose(2, 4, 6);
    let (names, things, days) =
        (picker.sample(&NAMES, count), picker.sample(&THINGS, count), picker.sample(&DAYS, count));
    let mut orders = Vec::new();
    for index in 0..count {
        let (name, things, day, number) = (names[index], things[index], days[index], picker.between(10, 99));
        let mut fields =
            [format!("buyer: {name}"), format!("item: {things}"), format!("count: {number}"), format!("day: {day}")];
        picker.shuffle(&mut fields);
        let part = match form {
            Form::Sentences => format!("{name} buys {number} {things} on {day}."),
            Form::List => format!("{name}, {number} {things}, {day}"),
            Form::Line => format!("{name} = {number} {things} / {day}"),
        };
        orders.push((DAYS.iter().position(|known| *known == day), fields.join(", "), part));
    }
    let lines = orders.iter().map(|order| order.1.clone()).collect();
    let by_day = level == Level::Complex;
    if by_day {
        orders.sort_by_key(|order| order.0);
    }
    let ask = if by_day { "sum up the orders from Monday to Sunday" } else { "sum up the orders" };
    (ask, lines, orders.into_iter().map(|order| order.2).collect())
}

//! From one notation into the other: number words, dates, times, units.
//!
//! The level is the number of items, their kinds and their digits: 3 of one kind (numbers below 100, times, dates); 4 of
//! mixed kinds (numbers of three digits, times, dates, lengths); 6 of mixed kinds (numbers of four digits, dates, lengths,
//! weights, durations).

use super::forms::{Form, fill};
use super::picker::Picker;
use super::words::{MONTHS, number_words};
use super::{Draft, Level};

/// The kind of an item.
#[derive(Clone, Copy)]
enum Kind {
    /// A number with at most so many digits.
    Number(u32),
    Time,
    Date,
    Length,
    Weight,
    Duration,
}

pub(super) fn draft(picker: &mut Picker, level: Level, phrasing: &str) -> Draft {
    let (form, form_text) = Form::pick(picker);
    let kinds = match level {
        Level::Simple => vec![picker.pick(&[Kind::Number(2), Kind::Number(2), Kind::Time, Kind::Date]); 3],
        Level::Medium => {
            let known = [Kind::Number(3), Kind::Number(3), Kind::Time, Kind::Date, Kind::Length];
            (0..4).map(|_| picker.pick(&known)).collect()
        }
        Level::Complex => {
            let known = [Kind::Number(4), Kind::Date, Kind::Length, Kind::Weight, Kind::Duration];
            (0..6).map(|_| picker.pick(&known)).collect()
        }
    };
    let items: Vec<(String, String)> = kinds.into_iter().map(|kind| item(picker, kind)).collect();
    let data = items.iter().map(|item| item.0.as_str()).collect::<Vec<_>>().join("; ");
    let parts: Vec<String> = items
        .iter()
        .map(|(from, to)| match form {
            Form::Sentences => format!("We write {from} as {to}."),
            Form::List => format!("{from}: {to}"),
            Form::Line => format!("{from} = {to}"),
        })
        .collect();
    let ask = picker.pick(&["write each in the other notation", "change the notation of each"]);
    Draft::new(data.clone(), fill(phrasing, ask, &data, form_text), form.join(&parts))
}

/// An item in one notation and in the other.
fn item(picker: &mut Picker, kind: Kind) -> (String, String) {
    let (first, second) = match kind {
        Kind::Number(digits) => {
            let low = if digits <= 2 { 1 } else { 10_i64.pow(digits - 1) };
            let number = picker.between(low, 10_i64.pow(digits) - 1);
            (number_words(number), number.to_string())
        }
        Kind::Time => time(picker),
        Kind::Date => {
            let (year, month, day) = (picker.between(1950, 2049), picker.below(12), picker.between(1, 28));
            (format!("{year}-{:02}-{day:02}", month + 1), format!("{day} {} {year}", MONTHS[month]))
        }
        // Two digits or three below the larger unit, so that none of them is a zero in front.
        Kind::Length => {
            let (metres, rest) = (picker.between(1, 9), picker.between(10, 99));
            (format!("{metres}{rest} cm"), format!("{metres} m {rest} cm"))
        }
        Kind::Weight => {
            let (kilograms, rest) = (picker.between(1, 9), picker.between(100, 999));
            (format!("{kilograms}{rest} g"), format!("{kilograms} kg {rest} g"))
        }
        Kind::Duration => {
            let (hours, rest) = (picker.between(1, 3), picker.between(1, 59));
            (format!("{} min", hours * 60 + rest), format!("{hours} h {rest} min"))
        }
    };
    if picker.coin() { (first, second) } else { (second, first) }
}

fn time(picker: &mut Picker) -> (String, String) {
    let hour = picker.between(1, 12);
    let (name, next) = (number_words(hour), number_words(hour % 12 + 1));
    let quarter = picker.below(4);
    let words = [
        format!("{name} o'clock"),
        format!("quarter past {name}"),
        format!("half past {name}"),
        format!("quarter to {next}"),
    ];
    (words[quarter].clone(), format!("{hour}:{:02}", quarter * 15))
}

//! Parts of a passage, found and copied.
//!
//! The level is the length of the passage in sentences and the number of these that are wanted: two of 4, three of 6, and
//! all that fit a condition (two to four) of 9.

use super::forms::{Form, and, fill};
use super::picker::Picker;
use super::words::{COLOURS, DAYS, DEEDS, NAMES, PLACES, THINGS, number_words};
use super::{Draft, Level};

/// The event that a sentence tells.
struct Event {
    who: &'static str,
    deed: &'static str,
    count: String,
    colour: &'static str,
    things: &'static str,
    place: &'static str,
    day: &'static str,
}

impl Event {
    fn sentence(&self) -> String {
        let Self { who, deed, count, colour, things, place, day } = self;
        format!("{who} {deed} {count} {colour} {things} at the {place} on {day}.")
    }

    fn worded(&self, form: Form) -> String {
        let Self { who, count, colour, things, place, day, .. } = self;
        match form {
            Form::Sentences => self.sentence(),
            Form::List => format!("who: {who}, what: {count} {colour} {things}, where: {place}, when: {day}"),
            Form::Line => format!("{who} = {count} {colour} {things} / {place} / {day}"),
        }
    }
}

pub(super) fn draft(picker: &mut Picker, level: Level, phrasing: &str) -> Draft {
    let (form, form_text) = Form::pick(picker);
    let events = passage(picker, level.choose(4, 6, 9));
    let (ask, wanted) = match level {
        Level::Simple => by_subject(picker, &events, 2),
        Level::Medium => by_subject(picker, &events, 3),
        Level::Complex => by_condition(picker, &events),
    };
    let text = events.iter().map(Event::sentence).collect::<Vec<_>>().join(" ");
    let parts: Vec<String> = wanted.iter().map(|&index| events[index].worded(form)).collect();
    Draft::new(text.clone(), fill(phrasing, &ask, &text, form_text), form.join(&parts))
}

/// Sentences about different people and different things.
fn passage(picker: &mut Picker, length: usize) -> Vec<Event> {
    let (names, things) = (picker.sample(&NAMES, length), picker.sample(&THINGS, length));
    // Few places and days in a passage: some of them twice or three times.
    let (places, days) = (picker.sample(&PLACES, 4), picker.sample(&DAYS, 4));
    let event = |(who, things)| Event {
        who,
        deed: picker.pick(&DEEDS),
        count: number_words(picker.between(2, 9)),
        colour: picker.pick(&COLOURS),
        things,
        place: picker.pick(&places),
        day: picker.pick(&days),
    };
    names.into_iter().zip(things).map(event).collect()
}

/// The deeds of some of the people, or the fates of some of the things, in the order of the question.
fn by_subject(picker: &mut Picker, events: &[Event], count: usize) -> (String, Vec<usize>) {
    let indices: Vec<usize> = (0..events.len()).collect();
    let wanted = picker.sample(&indices, count);
    let ask = if picker.coin() {
        let names: Vec<_> = wanted.iter().map(|&index| events[index].who).collect();
        format!("find what {} did", and(&names))
    } else {
        let things: Vec<_> = wanted.iter().map(|&index| format!("the {}", events[index].things)).collect();
        format!("find what happened to {}", and(&things))
    };
    (ask, wanted)
}

/// Everything that happened in a place or on a day, in the order of the passage; of the conditions that two to four
/// sentences fit, one.
fn by_condition(picker: &mut Picker, events: &[Event]) -> (String, Vec<usize>) {
    let mut conditions = Vec::new();
    for place in PLACES {
        conditions.push((format!("at the {place}"), fitting(events, |event| event.place == place)));
    }
    for day in DAYS {
        conditions.push((format!("on {day}"), fitting(events, |event| event.day == day)));
    }
    // Nine sentences share four places and four days: seldom does none of these have two to four.
    conditions.retain(|(_, wanted)| matches!(wanted.len(), 2..=4));
    if conditions.is_empty() {
        return by_subject(picker, events, 3);
    }
    let (condition, wanted) = conditions.swap_remove(picker.below(conditions.len()));
    (format!("find everything that happened {condition}"), wanted)
}

fn fitting(events: &[Event], fits: impl Fn(&Event) -> bool) -> Vec<usize> {
    (0..events.len()).filter(|&index| fits(&events[index])).collect()
}

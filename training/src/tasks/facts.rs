//! Recall of facts of the invented world.
//!
//! The level is the number of facts that have to be looked up: 3 about one person or town; 6, three of them about a
//! second subject; 10, two about each of five people, and then a choice among these.

use super::forms::{Form, and, fill};
use super::picker::Picker;
use super::world::{PEOPLE, Person, TOWNS, Town};
use super::{Draft, Level};

/// A fact: about whom, what kind of fact, what it says.
struct Fact {
    subject: &'static str,
    kind: Kind,
    value: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Town,
    Job,
    Animal,
    Colour,
    River,
    Region,
    Good,
}

const OF_PEOPLE: [Kind; 4] = [Kind::Town, Kind::Job, Kind::Animal, Kind::Colour];
const OF_TOWNS: [Kind; 3] = [Kind::River, Kind::Region, Kind::Good];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Town => "town",
            Self::Job => "job",
            Self::Animal => "animal",
            Self::Colour => "colour",
            Self::River => "river",
            Self::Region => "region",
            Self::Good => "good",
        }
    }
}

impl Fact {
    fn of_person(person: &Person, kind: Kind) -> Self {
        let value = match kind {
            Kind::Town => person.town,
            Kind::Job => person.job,
            Kind::Animal => person.animal,
            _ => person.colour,
        };
        Self { subject: person.name, kind, value }
    }

    fn of_town(town: &Town, kind: Kind) -> Self {
        let value = match kind {
            Kind::River => town.river,
            Kind::Region => town.region,
            _ => town.good,
        };
        Self { subject: town.name, kind, value }
    }

    fn worded(&self, form: Form) -> String {
        let Self { subject, kind, value } = self;
        match (form, kind) {
            (Form::List, _) => format!("{subject}, {}: {value}", kind.name()),
            (Form::Line, _) => format!("{subject} {} = {value}", kind.name()),
            (Form::Sentences, Kind::Town) => format!("{subject} lives in {value}."),
            (Form::Sentences, Kind::Job) => format!("{subject} works as a {value}."),
            (Form::Sentences, Kind::Animal) => format!("{subject} keeps a {value}."),
            (Form::Sentences, Kind::Colour) => format!("{subject} likes the colour {value}."),
            (Form::Sentences, Kind::River) => format!("{subject} lies on the river {value}."),
            (Form::Sentences, Kind::Region) => format!("{subject} is in the {value}."),
            (Form::Sentences, Kind::Good) => format!("{subject} is known for {value}."),
        }
    }
}

pub(super) fn draft(picker: &mut Picker, level: Level, phrasing: &str) -> Draft {
    let (form, form_text) = Form::pick(picker);
    let (ask, facts, result) = match level {
        Level::Simple => one_subject(picker),
        Level::Medium if picker.coin() => two_people(picker),
        Level::Medium => person_and_town(picker),
        Level::Complex => choice(picker),
    };
    let mut parts: Vec<String> = facts.iter().map(|fact| fact.worded(form)).collect();
    if let Some(names) = result {
        parts.push(match form {
            Form::Sentences => format!("So the answer is {}.", and(&names)),
            Form::List => format!("answer: {}", names.join(", ")),
            Form::Line => format!("answer = {}", names.join(", ")),
        });
    }
    let prompt = fill(phrasing, &ask, "", form_text);
    // The facts themselves are few and belong to all splits; so the whole prompt decides.
    Draft::new(prompt.clone(), prompt, form.join(&parts))
}

/// The instruction, the facts it needs, and the names that are chosen in the end, if any.
type Question = (String, Vec<Fact>, Option<Vec<&'static str>>);

fn one_subject(picker: &mut Picker) -> Question {
    if picker.below(4) == 0 {
        let town = &TOWNS[picker.below(TOWNS.len())];
        let kinds = picker.sample(&OF_TOWNS, 3);
        let ask = format!("give the {} of {}", named(&kinds), town.name);
        return (ask, kinds.iter().map(|&kind| Fact::of_town(town, kind)).collect(), None);
    }
    let person = &PEOPLE[picker.below(PEOPLE.len())];
    let kinds = picker.sample(&OF_PEOPLE, 3);
    let ask = format!("give the {} of {}", named(&kinds), person.name);
    (ask, kinds.iter().map(|&kind| Fact::of_person(person, kind)).collect(), None)
}

fn two_people(picker: &mut Picker) -> Question {
    let people = people(picker, 2);
    let kinds = picker.sample(&OF_PEOPLE, 3);
    let ask = format!("give the {} of {} and of {}", named(&kinds), people[0].name, people[1].name);
    let facts = people.iter().flat_map(|person| kinds.iter().map(|&kind| Fact::of_person(person, kind)));
    (ask, facts.collect(), None)
}

fn person_and_town(picker: &mut Picker) -> Question {
    let person = people(picker, 1)[0];
    let mut kinds = picker.sample(&OF_PEOPLE[1..], 2);
    kinds.push(Kind::Town);
    let of_town = picker.sample(&OF_TOWNS, 3);
    let ask = format!("give the {} of {}, and the {} of that town", named(&kinds), person.name, named(&of_town));
    let mut facts: Vec<Fact> = kinds.iter().map(|&kind| Fact::of_person(person, kind)).collect();
    facts.extend(of_town.iter().map(|&kind| Fact::of_town(person.home(), kind)));
    (ask, facts, None)
}

fn named(kinds: &[Kind]) -> String {
    and(&kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>())
}

fn choice(picker: &mut Picker) -> Question {
    let people = people(picker, 5);
    let kind = picker.pick(&[Kind::River, Kind::Region]);
    // What one of them has, so that the answer is never nobody.
    let wanted = Fact::of_town(people[picker.below(5)].home(), kind).value;
    let place = if kind == Kind::River { "on the river" } else { "in the" };
    let names: Vec<_> = people.iter().map(|person| person.name).collect();
    let ask = format!("find who of {} lives {place} {wanted}", and(&names));
    let facts =
        people.iter().flat_map(|person| [Fact::of_person(person, Kind::Town), Fact::of_town(person.home(), kind)]);
    let chosen = people.iter().filter(|person| Fact::of_town(person.home(), kind).value == wanted);
    (ask, facts.collect(), Some(chosen.map(|person| person.name).collect()))
}

fn people(picker: &mut Picker, count: usize) -> Vec<&'static Person> {
    picker.sample(&PEOPLE.each_ref(), count)
}

//! Reads each notation into a value, and writes the value in the other.

use super::question::{Form, join};

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(crate) fn solve(ask: &str, data: &str, form: Form) -> Option<String> {
    if !["write each in the other notation", "change the notation of each"].contains(&ask) {
        return None;
    }
    let mut parts = Vec::new();
    for item in data.split("; ") {
        let other = other(item)?;
        parts.push(match form {
            Form::Sentences => format!("We write {item} as {other}."),
            Form::List => format!("{item}: {other}"),
            _ => format!("{item} = {other}"),
        });
    }
    Some(join(&parts, form))
}

fn other(item: &str) -> Option<String> {
    let number = |text: &str| text.parse::<usize>().ok();
    let words: Vec<&str> = item.split(' ').collect();
    match words[..] {
        [value, "cm"] => Some(format!("{} m {} cm", number(value)? / 100, number(value)? % 100)),
        [m, "m", cm, "cm"] => Some(format!("{} cm", number(m)? * 100 + number(cm)?)),
        [value, "g"] => Some(format!("{} kg {} g", number(value)? / 1000, number(value)? % 1000)),
        [kg, "kg", g, "g"] => Some(format!("{} g", number(kg)? * 1000 + number(g)?)),
        [value, "min"] => Some(format!("{} h {} min", number(value)? / 60, number(value)? % 60)),
        [h, "h", min, "min"] => Some(format!("{} min", number(h)? * 60 + number(min)?)),
        [hour, "o'clock"] => Some(format!("{}:00", value(hour)?)),
        ["quarter", "past", hour] => Some(format!("{}:15", value(hour)?)),
        ["half", "past", hour] => Some(format!("{}:30", value(hour)?)),
        ["quarter", "to", hour] => Some(format!("{}:45", (value(hour)? + 10) % 12 + 1)),
        [day, month, year] if number(day).is_some() => {
            let month = MONTHS.iter().position(|known| *known == month)? + 1;
            Some(format!("{year}-{month:02}-{:02}", number(day)?))
        }
        [one] if one.contains(':') => {
            let (hour, minute) = one.split_once(':')?;
            let hour = number(hour)?;
            let text = match minute {
                "00" => format!("{} o'clock", SMALL[hour]),
                "15" => format!("quarter past {}", SMALL[hour]),
                "30" => format!("half past {}", SMALL[hour]),
                _ => format!("quarter to {}", SMALL[hour % 12 + 1]),
            };
            Some(text)
        }
        [one] if one.starts_with(|first: char| first.is_ascii_digit()) && one.contains('-') => {
            let parts: Vec<usize> = one.split('-').map(number).collect::<Option<_>>()?;
            let [year, month, day] = parts[..] else { return None };
            Some(format!("{day} {} {year}", MONTHS[month - 1]))
        }
        [one] if number(one).is_some() => (1..10_000).map(spell).nth(number(one)? - 1),
        _ => Some(value(item)?.to_string()),
    }
}

/// The value of number words.
fn value(text: &str) -> Option<usize> {
    let (mut sum, mut last) = (0, 0);
    for word in text.split([' ', '-']) {
        match word {
            "hundred" => (sum, last) = (sum + 100 * last, 0),
            "thousand" => (sum, last) = (sum + 1000 * last, 0),
            _ => match SMALL.iter().position(|known| *known == word) {
                Some(small) => last += small,
                None => last += 10 * (TENS.iter().position(|known| *known == word)? + 2),
            },
        }
    }
    Some(sum + last)
}

fn spell(number: usize) -> String {
    let below = |rest: usize, head: String| if rest == 0 { head } else { format!("{head} {}", spell(rest)) };
    match number {
        0..20 => SMALL[number].to_owned(),
        20..100 if number.is_multiple_of(10) => TENS[number / 10 - 2].to_owned(),
        20..100 => format!("{}-{}", TENS[number / 10 - 2], SMALL[number % 10]),
        100..1000 => below(number % 100, format!("{} hundred", SMALL[number / 100])),
        _ => below(number % 1000, format!("{} thousand", SMALL[number / 1000])),
    }
}

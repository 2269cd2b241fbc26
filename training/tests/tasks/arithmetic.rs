//! Evaluates the sum or the story as a whole, and checks every equation that the answer states.

use super::question::Form;

/// The answer itself, if it ends with the value, all its equations hold and its digits are worked in the given form.
pub(crate) fn solve(ask: &str, data: &str, form: Form, answer: &str) -> Option<String> {
    let (value, operations) = if ["work out the result", "find the result"].contains(&ask) {
        expression(data.strip_prefix("We have ")?.strip_suffix('.')?)?
    } else {
        let rest = ask.strip_prefix("work out how many ")?.strip_suffix(" has")?;
        let (things, name) = rest.split_once(' ')?;
        story(data, name, things)?
    };
    let stated = match form {
        Form::Sentences => answer.rsplit("So ").next()?.split_once('.')?.0.rsplit(' ').next()?,
        Form::List => answer.rsplit("- result: ").next()?,
        _ => answer.rsplit(" -> ").next()?,
    };
    let results = match form {
        Form::Sentences => answer.matches("So ").count(),
        Form::List => answer.matches("- result: ").count(),
        _ => answer.matches(" -> ").count(),
    };
    let right = stated.parse() == Ok(value) && results == operations && equations_hold(answer);
    right.then(|| answer.to_owned())
}

/// The value of a sum from left to right, and how many operations it has.
fn expression(text: &str) -> Option<(i64, usize)> {
    let words: Vec<&str> = text.split(' ').collect();
    let mut value: i64 = words.first()?.parse().ok()?;
    for pair in words[1..].chunks(2) {
        let [sign, right] = pair else { return None };
        value = apply(value, sign, right.parse().ok()?)?;
    }
    Some((value, words.len() / 2))
}

fn apply(left: i64, sign: &str, right: i64) -> Option<i64> {
    match sign {
        "+" => Some(left + right),
        "-" => Some(left - right),
        "x" => Some(left * right),
        _ => None,
    }
}

fn story(text: &str, name: &str, things: &str) -> Option<(i64, usize)> {
    let (mut value, mut operations) = (0, 0);
    for sentence in text.strip_suffix('.')?.split(". ") {
        let rest = sentence.strip_prefix(name)?.trim().strip_suffix(things)?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        match words[..] {
            ["has", boxes, "boxes", "of", each] => {
                value = boxes.parse::<i64>().ok()? * each.parse::<i64>().ok()?;
                operations += 1;
            }
            ["has", count] => value = count.parse().ok()?,
            ["buys" | "finds" | "gets", count] => {
                value += count.parse::<i64>().ok()?;
                operations += 1;
            }
            ["sells" | "loses" | "drops", count] => {
                value -= count.parse::<i64>().ok()?;
                operations += 1;
            }
            _ => return None,
        }
    }
    Some((value, operations))
}

/// Every `a + b - .. = c` in the answer.
fn equations_hold(answer: &str) -> bool {
    let mut count = 0;
    for part in answer.split(['\n', ',', '.', ';', ':']) {
        let part = part.split(" -> ").next().unwrap_or(part).trim().trim_start_matches("So ");
        let Some((left, right)) = part.split_once(" = ") else { continue };
        count += 1;
        if expression(left).map(|result| result.0) != right.parse().ok() {
            return false;
        }
    }
    count > 1
}

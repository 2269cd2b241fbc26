//! Makes structured passages short.

use std::collections::BTreeMap;

use super::question::{Form, and, join};

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const COUNTS: [&str; 10] = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

pub(crate) fn solve(ask: &str, data: &str, form: Form) -> Option<String> {
    let mut lines = Vec::new();
    for line in data.lines() {
        lines.push(line.split_once(": ")?);
    }
    let parts = match ask {
        "keep only the decisions" => decisions(&lines, form)?,
        "group the log by place" => groups(&lines, form),
        "sum up the orders" => orders(data, form)?.into_iter().map(|order| order.1).collect(),
        "sum up the orders from Monday to Sunday" => {
            let mut orders = orders(data, form)?;
            orders.sort();
            orders.into_iter().map(|order| order.1).collect()
        }
        _ => return None,
    };
    Some(join(&parts, form))
}

fn decisions(lines: &[(&str, &str)], form: Form) -> Option<Vec<String>> {
    let decided = lines.iter().filter(|line| line.0 == "Decision").map(|line| {
        let text = line.1.strip_suffix('.')?;
        Some(if form == Form::Sentences { format!("It was decided that {text}.") } else { text.to_owned() })
    });
    decided.collect()
}

fn groups(lines: &[(&str, &str)], form: Form) -> Vec<String> {
    let mut groups: BTreeMap<&str, (usize, Vec<String>)> = BTreeMap::new();
    for (index, (name, place)) in lines.iter().enumerate() {
        groups.entry(place).or_insert((index, Vec::new())).1.push((*name).to_owned());
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|group| group.1.0);
    let worded = groups.into_iter().map(|(place, (_, names))| {
        let count = COUNTS[names.len()];
        match form {
            Form::Sentences => format!("To the {place} went {}, {count} in all.", and(&names)),
            Form::List => format!("{place}: {} ({count})", names.join(", ")),
            _ => format!("{place} = {} ({count})", names.join(", ")),
        }
    });
    worded.collect()
}

fn orders(data: &str, form: Form) -> Option<Vec<(usize, String)>> {
    let mut orders = Vec::new();
    for line in data.lines() {
        let fields: BTreeMap<&str, &str> =
            line.split(", ").map(|field| field.split_once(": ")).collect::<Option<_>>()?;
        let (buyer, count, item, day) =
            (fields.get("buyer")?, fields.get("count")?, fields.get("item")?, fields.get("day")?);
        let text = match form {
            Form::Sentences => format!("{buyer} buys {count} {item} on {day}."),
            Form::List => format!("{buyer}, {count} {item}, {day}"),
            _ => format!("{buyer} = {count} {item} / {day}"),
        };
        orders.push((DAYS.iter().position(|known| known == day)?, text));
    }
    Some(orders)
}

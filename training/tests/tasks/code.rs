//! Runs the comment and the code, each with an interpreter of its own, and compares what they return.

use std::collections::BTreeMap;

use super::question::Form;

type Values = BTreeMap<String, i128>;

/// The answer itself, if it does what the comment says and is the part of the function that was asked for.
pub(crate) fn solve(ask: &str, data: &str, form: Form, answer: &str) -> Option<String> {
    let (said, head, mark) = match ask {
        "complete the Python function" => {
            let (head, said) = data.split_once('\n')?;
            (said.trim().strip_prefix("\"\"\"")?.strip_suffix("\"\"\"")?, head, "# ")
        }
        "complete the Rust function" => {
            let (said, head) = data.split_once('\n')?;
            (said.strip_prefix("/// ")?, head, "// ")
        }
        _ => return None,
    };
    let rust = mark == "// ";
    let mut lines: Vec<&str> = answer.lines().collect();
    if form == Form::Whole {
        let closed = !rust || lines.pop() == Some("}");
        if !closed || lines.remove(0) != head {
            return None;
        }
    }
    let comments: Vec<&str> = lines.iter().filter_map(|line| line.trim().strip_prefix(mark)).collect();
    let expected = if form == Form::Commented { said } else { "" };
    if comments.join(" ") != expected {
        return None;
    }
    let code: Vec<(usize, String)> = lines.into_iter().filter_map(|line| plain(line, mark)).collect();

    let inside = &head[head.find('(')? + 1..head.rfind(')')?];
    let names: Vec<&str> = inside.split(", ").map(|name| name.split(':').next().unwrap_or(name)).collect();
    for parameter in [-7, 0, 5, 12, 30, 60, 100] {
        for list in [&[][..], &[1, 2, 3, 4, 5, 6, 7, 8, 9], &[20, -3, 5], &[99]] {
            let mut values = Values::from([(names[0].to_owned(), parameter)]);
            let list = names.get(1).map(|_| list).unwrap_or_default();
            let wanted = follow(said, values.clone(), list)?;
            if execute(&code, &mut values, list)? != Some(wanted) {
                return None;
            }
        }
    }
    Some(answer.to_owned())
}

/// A line of either language as one of Python, with its indentation; `None` if nothing of it remains.
fn plain(line: &str, mark: &str) -> Option<(usize, String)> {
    let text = line.trim_start();
    let indentation = line.len() - text.len();
    if text == "}" || text.starts_with(mark) {
        return None;
    }
    let text = text.replace("let mut ", "").replace(" {", ":").replace(';', "");
    let alone = !text.contains(' ');
    Some((indentation, if alone { format!("return {text}") } else { text }))
}

fn value(word: &str, values: &Values) -> Option<i128> {
    word.parse().ok().or_else(|| values.get(word).copied())
}

fn holds(left: i128, sign: &str, right: i128) -> Option<bool> {
    match sign {
        ">" | "greater than" => Some(left > right),
        "<" | "less than" => Some(left < right),
        "==" | "equal to" => Some(left == right),
        _ => None,
    }
}

/// Runs a block: the outer `None` if it is not understood, the inner one if it does not return.
fn execute(code: &[(usize, String)], values: &mut Values, list: &[i128]) -> Option<Option<i128>> {
    let mut index = 0;
    while index < code.len() {
        let (indentation, line) = &code[index];
        let inner = code[index + 1..].iter().take_while(|other| other.0 > *indentation).count();
        let block = &code[index + 1..=index + inner];
        index += 1 + inner;
        let words: Vec<&str> = line.trim_end_matches(':').split(' ').collect();
        match words[..] {
            ["return", name] => return Some(Some(value(name, values)?)),
            ["if", left, sign, right] => {
                if holds(value(left, values)?, sign, value(right, values)?)? {
                    execute(block, values, list)?;
                }
            }
            ["for", name, "in", _] => {
                for &item in list {
                    values.insert(name.to_owned(), item);
                    execute(block, values, list)?;
                }
            }
            [name, "=", left, sign, right] => {
                let (left, right) = (value(left, values)?, value(right, values)?);
                let result = match sign {
                    "+" => left + right,
                    "-" => left - right,
                    _ => left * right,
                };
                values.insert(name.to_owned(), result);
            }
            [name, sign, right] => {
                let right = value(right, values)?;
                let changed = values.get_mut(name)?;
                match sign {
                    "+=" => *changed += right,
                    "-=" => *changed -= right,
                    "*=" => *changed = changed.wrapping_mul(right),
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    Some(None)
}

/// Does what a comment says, and gives what it returns.
fn follow(said: &str, mut values: Values, list: &[i128]) -> Option<i128> {
    for clause in said.strip_suffix('.')?.split(". ") {
        if let Some(rest) = clause.strip_prefix("Set ") {
            let words: Vec<&str> = rest.split(' ').collect();
            let [name, "to", left, word, right] = words[..] else { return None };
            let (left, right) = (value(left, &values)?, value(right, &values)?);
            let result = match word {
                "plus" => left + right,
                "minus" => left - right,
                "times" => left * right,
                _ => return None,
            };
            values.insert(name.to_owned(), result);
        } else if let Some(rest) = clause.strip_prefix("If ") {
            let (condition, change) = rest.split_once(", ")?;
            let (name, condition) = condition.split_once(" is ")?;
            if fits(value(name, &values)?, condition)? {
                modify(change, &mut values)?;
            }
        } else if let Some(rest) = clause.strip_prefix("For each ") {
            let (each, change) = rest.split_once(", ")?;
            let (name, each) = each.split_once(" in ")?;
            for &item in list {
                values.insert(name.to_owned(), item);
                let condition = each.split_once(" that is ").map(|parts| parts.1);
                if condition.is_none_or(|condition| fits(item, condition) == Some(true)) {
                    modify(change, &mut values)?;
                }
            }
        } else if let Some(name) = clause.strip_prefix("Return ") {
            return value(name, &values);
        } else {
            modify(clause, &mut values)?;
        }
    }
    None
}

fn fits(left: i128, condition: &str) -> Option<bool> {
    let (sign, right) = condition.rsplit_once(' ')?;
    holds(left, sign, right.parse().ok()?)
}

fn modify(clause: &str, values: &mut Values) -> Option<()> {
    let words: Vec<&str> = clause.split(' ').collect();
    let [verb, first, _, second] = words[..] else { return None };
    let (name, by) = if verb.to_lowercase() == "multiply" { (first, second) } else { (second, first) };
    let by = value(by, values)?;
    let changed = values.get_mut(name)?;
    match verb.to_lowercase().as_str() {
        "add" => *changed += by,
        "subtract" => *changed -= by,
        "multiply" => *changed = changed.wrapping_mul(by),
        _ => return None,
    }
    Some(())
}

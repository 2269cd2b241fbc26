//! Bodies of small Rust and Python functions, written after a comment that says what they do.
//!
//! The level is the number of statements that the comment asks for: 3 in a row; 5, one of them with a condition;
//! 7, with two conditions and a loop.

use super::forms::{capital, fill};
use super::picker::Picker;
use super::{Draft, Level};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Python,
    Rust,
}

/// Which part of the function the answer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Body,
    /// The body, with what each statement does above it.
    Commented,
}

/// A statement: what the comment says, and its lines without the indentation of the body, in each language.
struct Statement {
    said: String,
    python: Vec<String>,
    rust: Vec<String>,
}

const FUNCTIONS: [&str; 12] = [
    "adjust", "balance", "charge", "compute", "estimate", "grade", "measure", "price", "rate", "score", "update",
    "weigh",
];
const RESULTS: [&str; 8] = ["total", "value", "result", "amount", "level", "sum", "output", "cost"];
const PARAMETERS: [&str; 8] = ["size", "width", "speed", "count", "start", "weight", "length", "base"];
const LISTS: [(&str, &str); 6] = [
    ("item", "items"),
    ("number", "numbers"),
    ("mark", "marks"),
    ("entry", "entries"),
    ("step", "steps"),
    ("point", "points"),
];

pub(super) fn draft(picker: &mut Picker, level: Level, phrasing: &str) -> Draft {
    let language = picker.pick(&[Language::Python, Language::Rust]);
    let (extent, extent_text) = picker.pick(&[
        (Extent::Whole, "Write the whole function."),
        (Extent::Body, "Write only the body."),
        (Extent::Commented, "Write only the body, with comments."),
    ]);
    let (name, result, parameter) = (picker.pick(&FUNCTIONS), picker.pick(&RESULTS), picker.pick(&PARAMETERS));
    let (item, items) = picker.pick(&LISTS);

    let mut middle = Vec::new();
    match level {
        Level::Simple => middle.push(change(picker, result, parameter)),
        Level::Medium => {
            middle.push(change(picker, result, parameter));
            middle.push(change(picker, result, parameter));
            middle.push(condition(picker, result, parameter));
        }
        Level::Complex => {
            middle.push(change(picker, result, parameter));
            middle.push(change(picker, result, parameter));
            middle.push(condition(picker, result, parameter));
            middle.push(condition(picker, result, parameter));
            middle.push(each(picker, result, item, items));
        }
    }
    picker.shuffle(&mut middle);
    let mut statements = vec![beginning(picker, result, parameter)];
    statements.extend(middle);
    statements.push(Statement {
        said: format!("Return {result}."),
        python: vec![format!("return {result}")],
        rust: vec![result.to_owned()],
    });

    let said = statements.iter().map(|statement| statement.said.as_str()).collect::<Vec<_>>().join(" ");
    let list = level == Level::Complex;
    let (head, shown) = match language {
        Language::Python => {
            let head = format!("def {name}({parameter}{}):", if list { format!(", {items}") } else { String::new() });
            (head.clone(), format!("{head}\n    \"\"\"{said}\"\"\""))
        }
        Language::Rust => {
            let more = if list { format!(", {items}: Vec<i64>") } else { String::new() };
            let head = format!("fn {name}({parameter}: i64{more}) -> i64 {{");
            (head.clone(), format!("/// {said}\n{head}"))
        }
    };
    let ask = match language {
        Language::Python => "complete the Python function",
        Language::Rust => "complete the Rust function",
    };
    let answer = written(&statements, language, extent, &head);
    Draft::new(shown.clone(), fill(phrasing, ask, &shown, extent_text), answer)
}

fn written(statements: &[Statement], language: Language, extent: Extent, head: &str) -> String {
    let mut lines = Vec::new();
    if extent == Extent::Whole {
        lines.push(head.to_owned());
    }
    for statement in statements {
        if extent == Extent::Commented {
            let mark = if language == Language::Python { "#" } else { "//" };
            lines.push(format!("    {mark} {}", statement.said));
        }
        let code = if language == Language::Python { &statement.python } else { &statement.rust };
        lines.extend(code.iter().map(|line| format!("    {line}")));
    }
    if extent == Extent::Whole && language == Language::Rust {
        lines.push("}".to_owned());
    }
    lines.join("\n")
}

/// The first statement: the result gets its first value.
fn beginning(picker: &mut Picker, result: &str, parameter: &str) -> Statement {
    let (word, sign) = picker.pick(&[("plus", '+'), ("minus", '-'), ("times", '*')]);
    let number = picker.between(2, 9);
    Statement {
        said: format!("Set {result} to {parameter} {word} {number}."),
        python: vec![format!("{result} = {parameter} {sign} {number}")],
        rust: vec![format!("let mut {result} = {parameter} {sign} {number};")],
    }
}

/// A change of the result: in words, and in both languages without Rust's semicolon.
fn changed(picker: &mut Picker, result: &str, by: &str) -> (String, String) {
    match picker.below(3) {
        0 => (format!("add {by} to {result}"), format!("{result} += {by}")),
        1 => (format!("subtract {by} from {result}"), format!("{result} -= {by}")),
        _ => (format!("multiply {result} by {by}"), format!("{result} *= {by}")),
    }
}

fn number_or(picker: &mut Picker, name: &str) -> String {
    if picker.below(3) == 0 { name.to_owned() } else { picker.between(2, 9).to_string() }
}

fn change(picker: &mut Picker, result: &str, parameter: &str) -> Statement {
    let by = number_or(picker, parameter);
    let (said, code) = changed(picker, result, &by);
    Statement { said: format!("{}.", capital(&said)), rust: vec![format!("{code};")], python: vec![code] }
}

fn comparison(picker: &mut Picker) -> (&'static str, &'static str) {
    picker.pick(&[("greater than", ">"), ("less than", "<"), ("equal to", "==")])
}

fn condition(picker: &mut Picker, result: &str, parameter: &str) -> Statement {
    let (word, sign) = comparison(picker);
    let subject = picker.pick(&[result, parameter]);
    let (limit, by) = (picker.between(10, 99), number_or(picker, parameter));
    let (said, code) = changed(picker, result, &by);
    Statement {
        said: format!("If {subject} is {word} {limit}, {said}."),
        python: vec![format!("if {subject} {sign} {limit}:"), format!("    {code}")],
        rust: vec![format!("if {subject} {sign} {limit} {{"), format!("    {code};"), "}".to_owned()],
    }
}

fn each(picker: &mut Picker, result: &str, item: &str, items: &str) -> Statement {
    let (said, code) = changed(picker, result, item);
    let mut python = vec![format!("for {item} in {items}:")];
    let mut rust = vec![format!("for {item} in {items} {{")];
    if picker.coin() {
        python.push(format!("    {code}"));
        rust.extend([format!("    {code};"), "}".to_owned()]);
        return Statement { said: format!("For each {item} in {items}, {said}."), python, rust };
    }
    let ((word, sign), limit) = (comparison(picker), picker.between(2, 9));
    python.extend([format!("    if {item} {sign} {limit}:"), format!("        {code}")]);
    rust.extend([
        format!("    if {item} {sign} {limit} {{"),
        format!("        {code};"),
        "    }".to_owned(),
        "}".to_owned(),
    ]);
    Statement { said: format!("For each {item} in {items} that is {word} {limit}, {said}."), python, rust }
}

//! Templates against what transformers renders, and hostile ones against the bounds.
#![allow(clippy::unwrap_used, reason = "a test that fails here should stop here")]

mod hostile;
mod payments;

use std::fs;

use serde_json::{Map, Value as Json, json};

use super::interpreter::Interpreter;
use super::{Inputs, Template, Trouble, on_own_stack};
use crate::text::{ChatTemplate, Message};

/// A case that transformers rendered, or refused.
fn differences(cases: &str) -> (usize, Vec<String>) {
    let cases: Vec<Json> = serde_json::from_str(cases).unwrap();
    let mut different = Vec::new();
    for case in &cases {
        let dir = tempfile::tempdir().unwrap();
        let template = case["template"].as_str().unwrap();
        fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), r#"{"bos_token": "<s>", "eos_token": "</s>"}"#).unwrap();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let arguments: Map<String, Json> = serde_json::from_value(case["arguments"].clone()).unwrap();
        let template_read = ChatTemplate::from_dir(dir.path()).map(Option::unwrap);
        let found = template_read.and_then(|template| template.render_with(&messages, &arguments));
        let found = found.map(|rendered| rendered.text).map_err(|error| error.to_string());
        match (&found, case.get("expected").map(|expected| expected.as_str().unwrap())) {
            (Ok(found), Some(expected)) if found == expected => {}
            (Err(_), None) => {}
            (found, expected) => {
                different.push(format!("{template:?}\n  gives    {found:?}\n  and should {expected:?}"));
            }
        }
    }
    (cases.len(), different)
}

#[test]
fn templates_are_rendered_as_transformers_renders_them() {
    let (count, different) = differences(include_str!("../../../tests/fixtures/templates.json"));
    assert!(count > 200, "{count} cases");
    assert!(different.is_empty(), "{} of {count}:\n{}", different.len(), different.join("\n"));
}

/// Further cases, in the form of `templates.json`, in a file that this variable names.
#[test]
fn templates_of_a_file_are_rendered_as_transformers_renders_them() {
    let Ok(path) = std::env::var("PACELINE_TEMPLATE_CASES") else {
        println!("skipped: PACELINE_TEMPLATE_CASES names no file");
        return;
    };
    let (count, different) = differences(&fs::read_to_string(path).unwrap());
    assert!(different.is_empty(), "{} of {count}:\n{}", different.len(), different.join("\n"));
}

/// A rendering: its text or why it failed, and its price.
struct Rendering {
    text: Result<String, String>,
    /// Bytes of the budget.
    spent: u64,
    /// Payments, however small.
    payments: u64,
}

fn reason(trouble: Trouble) -> String {
    match trouble {
        Trouble::NoThread(_, error) => panic!("{error}"),
        Trouble::Failed(failure) => failure.reason,
    }
}

/// Renders a template on a message with this content: who gives more may spend more.
fn render_on(source: &str, content: &str) -> Rendering {
    let messages = [json!({"role": "user", "content": content, "tool_calls": [{"a": [1, 2, {"b": null}]}]})];
    let template = match Template::parse(source) {
        Ok(template) => template,
        Err(trouble) => return Rendering { text: Err(reason(trouble)), spent: 0, payments: 0 },
    };
    let rendering = on_own_stack(|| {
        let variables = vec![("tools", Json::Null), ("bos_token", json!("<s>"))];
        let interpreter = Interpreter::new(&Inputs { messages: &messages, variables })?;
        let text = interpreter.run(&template.body).map(|rendered| rendered.text).map_err(|failure| failure.reason);
        let (spent, payments) = interpreter.budget.spent();
        Ok(Rendering { text, spent, payments })
    });
    rendering.unwrap()
}

fn render(source: &str) -> Rendering {
    render_on(source, "hello")
}

/// Templates that Python renders and this refuses, rather than render something else.
#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (source, name) in [
        ("{% autoescape true %}{% endautoescape %}", "autoescape"),
        ("{% for m in messages %}{% block b %}{% endblock %}{% endfor %}", "block"),
        ("{% include 'x' %}", "include"),
        ("{{ joiner() }}", "joiner"),
        ("{{ cycler('a')() }}", "cycler"),
        ("{{ self.block() }}", "block"),
        ("{{ joiner }}", "joiner"),
        ("{{ ('a'|e) % 1 }}", "Markup"),
        ("{{ ('a'|e).replace('a', 'b') }}", "replace"),
        ("{{ ('a'|e).join(['b']) }}", "join"),
        ("{{ ('a'|e)|truncate(3) }}", "truncate"),
        ("{{ ('a'|e)|format(1) }}", "format"),
        ("{{ (5).bit_length() }}", "bit_length"),
        ("{{ 5.5.is_integer() }}", "is_integer"),
        ("{{ dict(**{('a'|safe): 1}) }}", "name"),
        ("{{ 'a'.translate({}) }}", "translate"),
        ("{{ {}.fromkeys is defined }}", "fromkeys"),
        ("{{ range(3).stop }}", "stop"),
        ("{% macro f() %}{% endmacro %}{{ f.arguments }}", "arguments"),
        ("{{ 'é'.isidentifier() }}", "isidentifier"),
        ("{{ '%a' % 'é' }}", "%a"),
        ("{{ '%d' % 10.0 ** 40 }}", "127 bits"),
        ("{{ '%#.0f' % 1.0 }}", "#"),
        ("{{ '{:#.0f}'.format(1.0) }}", "#"),
        ("{{ '{:.1}'.format(1.5) }}", "precision"),
        ("{{ '{:c}'.format(65) }}", "`c`"),
        ("{{ '{a.b}'.format(a=1) }}", "a.b"),
        ("{{ '{:{w}}'.format(1, w=2) }}", "nested"),
        ("{{ [namespace(x=1)]|map(attribute='x')|list }}", "namespaces"),
        ("{{ 'a' is sameas 'a' }}", "sameas"),
        ("{{ 1000 is sameas 1000 }}", "sameas"),
        ("{{ missing is sameas missing }}", "sameas"),
        ("{% set g = [1]|select %}{% set h = g|map('string') %}{{ g|list }}{{ h|list }}", "generator"),
        ("{% set g = [1]|select %}{% for x in g %}{% set h = g|batch(2) %}{% endfor %}", "generator"),
        ("{% for x in [1] %}{{ loop|list }}{% endfor %}", "LoopContext"),
        ("{% for x in [1] %}{{ loop|attr('index') }}{% endfor %}", "loop.index"),
        ("{% for x in [1] if x %}{{ loop }}{% endfor %}", "loop.length"),
    ] {
        let reason = render(source).text.expect_err(source);
        assert!(reason.contains(name), "{source}: {reason}");
    }
}

//! Templates against what transformers renders, and hostile ones against the bounds.
#![allow(clippy::unwrap_used, reason = "a test that fails here should stop here")]

use std::fs;

use serde_json::{Map, Value as Json, json};
use std::fmt::Write as _;

use super::{Inputs, Template, Trouble};
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

/// Renders a hostile template; it may fail, and has to come back.
fn survive(source: &str) -> Result<String, String> {
    survive_on(source, "hello")
}

/// The same on a message with this content: who gives more may spend more.
fn survive_on(source: &str, content: &str) -> Result<String, String> {
    let messages = [json!({"role": "user", "content": content, "tool_calls": [{"a": [1, 2, {"b": null}]}]})];
    let variables = vec![("tools", Json::Null), ("bos_token", json!("<s>"))];
    let rendered =
        Template::parse(source).and_then(|template| template.render(&Inputs { messages: &messages, variables }));
    rendered.map(|rendered| rendered.text).map_err(|trouble| match trouble {
        Trouble::NoThread(_, error) => panic!("{error}"),
        Trouble::Failed(failure) => failure.reason,
    })
}

/// What must fail, because it would take all memory, all time or all of the stack.
#[test]
fn hostile_templates_fail_and_leave_the_process_alone() {
    let grow = |step: &str| {
        format!(
            "{{% set ns = namespace(x='aaaaaaaa', l=[1, 2], d={{'a': 1}}, t=(1,)) %}}{{% for i in range(100000) %}}{step}{{% endfor %}}"
        )
    };
    let mut hostile: Vec<String> = [
        // Text that doubles.
        "{% set ns.x = ns.x ~ ns.x %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% set ns.x = ns.x * 2 %}",
        "{% set ns.x = [ns.x, ns.x]|join %}",
        "{% set ns.x = ns.x|replace('a', 'aa') %}",
        "{% set ns.x = ns.x.replace('', ns.x) %}",
        "{% set ns.x = '%s%s' % (ns.x, ns.x) %}",
        "{% set ns.x = '{0}{0}'.format(ns.x) %}",
        "{% set ns.x = ns.x.join([ns.x, ns.x]) %}",
        "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}",
        "{% set ns.x = [ns.x, ns.x]|tojson %}",
        "{% set ns.x = [ns.x, ns.x]|string %}",
        "{% set ns.x = ns.x|format|e ~ '&' ~ ns.x %}",
        "{% set ns.x = (ns.x ~ '\n')|indent(ns.x|length) %}",
        "{% set ns.x = ns.x.ljust(ns.x|length * 2) %}",
        "{% set ns.x = ns.x|center(ns.x|length * 2) %}",
        "{% set ns.x = (ns.x ~ '\t').expandtabs(ns.x|length * 2) %}",
        // Lists and mappings that double, or that are nested ever deeper.
        "{% set ns.l = ns.l + ns.l %}",
        "{% set ns.l = ns.l * 2 %}",
        "{% set ns.l = (ns.l ~ ns.l)|list %}",
        "{% set ns.l = [ns.l, ns.l] %}",
        "{% set ns.l = [ns.l] %}",
        "{% set ns.l = (ns.l,) %}",
        "{% set ns.l = {'a': ns.l} %}",
        "{% set ns.l = [ns.l]|map('list')|list %}",
        "{% set ns.l = [ns.l]|batch(2)|list %}",
        "{% set ns.l = [1] | select %}{% set ns.t = [ns.t, ns.l] %}",
        "{% set ns.d = dict(ns.d, a=ns.d) %}",
        "{% set ns.l = {'k': ns.l}|dictsort %}",
        "{% set ns.l = [{'a': ns.l}]|groupby('a') %}",
        "{% set ns.l = ns.d.items() %}{% set ns.d = {1: ns.l} %}",
        "{% for j in [ns.l] %}{% set ns.l = [loop] %}{% endfor %}",
        // Time.
        "{% for j in range(100000) %}{% for k in range(100000) %}{% endfor %}{% endfor %}",
        "{{ range(100000)|list|unique|list|length }}",
        "{{ range(100000)|sum in range(100000) }}",
        "{% set ns.n = range(100000)|list|sort|map('string')|join %}",
        "{{ ('a' * 100000).count('a') }}{{ ('a' * 100000) in ('a' * 99999) }}",
    ]
    .iter()
    .map(|step| grow(step))
    .collect();
    hostile.extend(
        [
            "{% set x = namespace() %}{% set x.y = x %}{{ x }}",
            "{% set x = namespace() %}{% set x.y = [x] %}{{ x|string }}",
            "{% set x = namespace() %}{% set y = namespace(x=x) %}{% set x.y = {'a': (y,)} %}{{ y }}",
            "{{ 'a' * 10**9 }}",
            "{{ [1] * 10**9 }}",
            "{{ 'a' * 10**30 }}",
            "{{ 'a'.ljust(10**9) }}",
            "{{ 'a'.center(10**30) }}",
            "{{ '%1000000000d' % 1 }}",
            "{{ '{:1000000000}'.format(1) }}",
            "{{ '%.1000000000f' % 1.0 }}",
            "{{ '%.1000000000d' % 1 }}",
            "{{ '%*d' % (10**9, 1) }}",
            "{{ '1'.zfill(10**9) }}",
            "{{ 'a\nb'|indent(10**9) }}",
            "{{ [1]|batch(10**9, 1)|list }}",
            "{{ [1]|slice(10**9)|list }}",
            "{{ range(10**9) }}",
            "{{ [1]|tojson(indent=10**9) }}",
            "{{ '\t'.expandtabs(10**9) }}",
            "{{ 10 ** 10 ** 10 }}",
            "{{ 2 ** 127 }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% macro f(n) %}{{ f([n]) }}{% endmacro %}{{ f(1) }}",
            "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}",
            "{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}",
            "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
            "{{ [1]|map('map', 'map', 'map', 'map', *range(90000)|map('string')) }}",
            "{{ [[1]]|map(*(['map'] * 100000))|list }}",
            "{% set ns = namespace() %}{% macro f() %}{% set ns.f = f %}{{ ns.f() }}{% endmacro %}{{ f() }}",
        ]
        .map(str::to_owned),
    );
    assert!(hostile.len() >= 60, "{}", hostile.len());
    for source in &hostile {
        let result = survive(source);
        assert!(
            result.as_ref().is_err_and(|reason| !reason.is_empty()),
            "{source}: {:?}",
            result.map(|text| text.len())
        );
    }
}

/// Chains and circles that are no trouble but while they are dropped.
#[test]
fn chains_of_any_length_are_dropped_without_recursion() {
    for source in [
        "{% set ns = namespace() %}{% for i in range(100000) %}{% set n = namespace(p=ns.p) %}{% set ns.p = n %}{% endfor %}",
        "{% set ns = namespace() %}{% for i in range(100000) %}{% set n = namespace(p=[ns.p]) %}{% set ns.p = n %}{% endfor %}",
        "{% set ns = namespace() %}{% for i in range(50000) %}{% set q = ns.p %}{% macro m() %}{{ q }}{% endmacro %}{% set ns.p = m %}{% endfor %}",
        "{% set ns = namespace() %}{% for i in range(50000) %}{% for j in [1] %}{{ loop.changed(ns.p) }}{% set ns.p = loop %}{% endfor %}{% endfor %}",
        "{% set ns = namespace() %}{% for i in range(50000) %}{% for j in [1] recursive %}{% set ns.p = [loop, ns.q] %}{% set ns.q = namespace(p=ns.p) %}{% endfor %}{% endfor %}",
        "{% set x = namespace() %}{% set x.y = x %}{% set z = [x] %}",
        "{% for i in [1, 2] %}{{ loop.changed(loop) }}{% endfor %}",
    ] {
        let result = survive_on(source, &"x".repeat(1 << 19));
        assert!(result.is_ok(), "{source}: {result:?}");
    }
}

/// Random compositions of everything that can grow, nest, recur or hold itself.
#[test]
fn random_hostile_templates_come_back() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = move |count: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % count
    };
    let atoms = [
        "ns.a",
        "ns.b",
        "ns.c",
        "ns",
        "m",
        "loop",
        "messages",
        "'ab'",
        "7",
        "1.5",
        "none",
        "range(99)",
        "{'k': ns.a}",
        "[ns.b, ns.a]",
        "(ns.c,)",
        "missing",
        "i",
        "10**12",
        "m(ns.a)",
    ];
    let wraps = [
        "X ~ Y",
        "X + Y",
        "X * Y",
        "[X, Y]",
        "{'a': X, 1: Y}",
        "(X, Y)",
        "X % Y",
        "X|string",
        "X|list",
        "X|tojson",
        "X|join(Y)",
        "X|length",
        "X.replace('a', Y)",
        "X|replace('', Y|string)",
        "X|map('string')|list",
        "X|batch(3, Y)|list",
        "X[Y]",
        "X[::-1]",
        "X|sort",
        "X|unique|list",
        "X in Y",
        "X == Y",
        "X < Y",
        "X|center(Y)",
        "'%s' % X",
        "'{:>99}'.format(X)",
        "X if Y else X",
        "X or Y",
        "X.items()",
        "X|groupby('a')",
        "dict(a=X)",
        "namespace(a=X)",
        "X.split('a')",
        "X|indent(Y)",
        "X|reverse|list",
        "X|sum",
        "X ** Y",
        "X|first",
        "X.y",
        "loop.changed(X)",
        "X|select|list",
        "X|string|list",
        "X|dictsort",
        "m(X)",
        "X is sameas Y",
        "X|default(Y)",
        "X|int",
        "X|round(Y)",
        "X|truncate(3)",
        "X.join([Y, X])",
        "X.format(Y)",
        "X.zfill(Y)",
    ];
    let mut failed = 0;
    for _ in 0..1000 {
        let mut body = String::new();
        for _ in 0..1 + pick(4) {
            let mut expr = atoms[pick(atoms.len())].to_owned();
            for _ in 0..pick(4) {
                let other = atoms[pick(atoms.len())];
                expr = format!("({})", wraps[pick(wraps.len())]).replace('X', &expr).replace('Y', other);
            }
            let name = ["a", "b", "c"][pick(3)];
            let statement = match pick(8) {
                0 => format!("{{{{ {expr} }}}}"),
                1 => format!("{{% set ns.{name} %}}{{{{ {expr} }}}}{{% endset %}}"),
                2 => format!("{{% for i in {expr} %}}{{% set ns.{name} = [i, ns.{name}] %}}{{% endfor %}}"),
                3 => format!("{{% macro m(x) %}}{{% set ns.{name} = {expr} %}}{{{{ x }}}}{{% endmacro %}}"),
                _ => format!("{{% set ns.{name} = {expr} %}}"),
            };
            write!(body, "{statement}").unwrap();
        }
        let source = format!(
            "{{% set ns = namespace(a='x', b=[1], c={{'k': 2}}) %}}{{% macro m(x) %}}{{{{ x }}}}{{% endmacro %}}{{% for i in range({}) %}}{body}{{% endfor %}}",
            [3, 30, 300][pick(3)]
        );
        failed += usize::from(survive(&source).is_err());
    }
    assert!((100..1000).contains(&failed), "{failed} of 1000 failed, so they do not try much");
}

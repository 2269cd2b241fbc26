//! Templates that would take all memory, all time or all of the stack.

use std::fmt::Write as _;

use super::{Rendering, render, render_on};

/// Templates that must fail, because they would take all memory, all time or all of the stack.
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
            "{% set ns = namespace() %}{% for i in range(60) %}{% for (((j,),),), k in [('x', ns.l)] if j %}{% set ns.l = loop %}{% endfor %}{% set ns.m = [ns.l] %}{% endfor %}",
            "{% set ns = namespace() %}{% macro f() %}{% set ns.f = f %}{{ ns.f() }}{% endmacro %}{{ f() }}",
        ]
        .map(str::to_owned),
    );
    assert!(hostile.len() >= 60, "{}", hostile.len());
    for source in &hostile {
        let result = render(source).text;
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
        "{% set ns = namespace() %}{% for i in range(30000) %}{% for j in [1, 2] if j %}{% set ns.p = [loop, loop.nextitem, ns.q] %}{% set ns.q = namespace(p=ns.p) %}{% endfor %}{% set q = ns.p %}{% endfor %}",
        "{% set x = namespace() %}{% set x.y = x %}{% set z = [x] %}",
        "{% for i in [1, 2] %}{{ loop.changed(loop) }}{% endfor %}",
    ] {
        let result = render_on(source, &"x".repeat(1 << 19)).text;
        assert!(result.is_ok(), "{source}: {result:?}");
    }
}

/// The start of each random template: a macro, and values of which some would be endless if they were printed.
const BEFORE: &str = "{% macro m(x) %}{{ x }}{% endmacro %}{% set ns = namespace(a='x', b=[1], c={'k': 2}, doubled=[1], tuple=(1,)) %}
{%- for i in range(60) %}{% set ns.doubled = [ns.doubled, ns.doubled] %}{% set ns.tuple = (ns.tuple, ns.tuple) %}{% endfor %}";

/// Values in random templates.
const ATOMS: [&str; 24] = [
    "ns.a",
    "ns.b",
    "ns.c",
    "ns.doubled",
    "ns.tuple",
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
    "'ab' * 99999",
    "('ab',) * 9999",
    "'é' * 9999 ~ 'b'",
];

/// Expressions around a value `X` and another one.
const WRAPS: [&str; 79] = [
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
    "X.strip(Y)",
    "X.lstrip(Y ~ 'b')",
    "X|string|trim(Y|string)",
    "X.startswith(Y)",
    "X.endswith((Y, X))",
    "{X: Y, Y: X}",
    "{X: Y}[X]",
    "X in {Y: X}",
    "X is in(seq=Y)",
    "dict(a=X, b=Y)",
    "'{a}{b}'.format(a=X, b=Y)",
    "'{a}'.format_map({'a': X})",
    "[X, Y]|map('default', default_value=Y, boolean=X)|list",
    "[X]|map('format', a=Y, b=X)|list",
    "X|string|truncate(length=99, killwords=Y, end=Y|string)",
    "X|tojson(indent=Y, separators=(',', Y|string))",
    "X|sort(attribute=Y)",
    "X|string|e + Y",
    "X is lower",
    "X.casefold()",
    "X.isprintable()",
    "m(x=X)",
    "m(X, y=Y)",
    "(X, X)",
    "{X: 1}|length",
    "X in {}",
    "[X, Y]|unique|list",
];

/// Templates that once took minutes, or never ended. They end soon, whether they fail or not.
#[test]
fn what_was_not_paid_for_comes_back() {
    let doubled = "{% set ns = namespace(t=(1,)) %}{% for i in range(60) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}";
    let arguments: Vec<String> = (1..7500).map(|index| format!("a{index}=1")).collect();
    for source in [
        format!("{doubled}{{{{ {{ns.t: 1}}|length }}}}"),
        format!("{doubled}{{{{ {{ns.t: 1}} }}}}"),
        format!("{doubled}{{{{ ns.t in {{}} }}}}"),
        format!("{doubled}{{{{ [ns.t]|unique|list|length }}}}"),
        format!("{doubled}{{% set t = ns.t %}}{doubled}{{{{ t == ns.t }}}}"),
        format!("{doubled}{{% set t = ns.t %}}{doubled}{{{{ [t, ns.t]|sort }}}}"),
        "{{ ('a' * 1000000).lstrip('b' * 1000000 ~ 'a')|length }}".to_owned(),
        "{% set t = 'a' * 4000000 %}{{ (t ~ 'b').startswith(((t ~ 'c'),) * 100000) }}".to_owned(),
        format!("{{{{ (['x']*100000)|map('format', {})|list|length }}}}", arguments.join(", ")),
        "{% set i = 'a' * 4000000 %}{% for j in range(99999) %}{% set x = 1|tojson(indent=i) %}{% endfor %}".to_owned(),
        "{% set i = 'a' * 4000000 %}{% for j in range(99999) %}{% set x = 'a'|truncate(9**9, true, i) %}{% endfor %}".to_owned(),
        "{% set i = 'a' * 4000000 %}{% set ns = namespace(**{i ~ 'b': 1}) %}{% set k = i ~ 'c' %}{% for j in range(99999) %}{% set x = ns[k] %}{% endfor %}".to_owned(),
        "{% set i = 'a' * 4000000 %}{% for j in range(99999) %}{% if i is lower %}{% endif %}{% endfor %}".to_owned(),
    ] {
        let Rendering { spent, payments, .. } = render(&source);
        assert!(payments <= spent, "{payments} payments of {spent} bytes: {source:.200}");
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
    let mut failed = 0;
    for _ in 0..1000 {
        let mut body = String::new();
        for _ in 0..1 + pick(4) {
            let name = ["a", "b", "c"][pick(3)];
            // What is made of itself grows.
            let mut expr = if pick(2) == 0 { format!("ns.{name}") } else { ATOMS[pick(ATOMS.len())].to_owned() };
            for _ in 0..pick(4) {
                let other = ATOMS[pick(ATOMS.len())];
                expr = format!("({})", WRAPS[pick(WRAPS.len())]).replace('X', &expr).replace('Y', other);
            }
            let statement = match pick(11) {
                0 => format!("{{{{ {expr} }}}}"),
                1 => format!("{{% set ns.{name} %}}{{{{ {expr} }}}}{{% endset %}}"),
                2 => format!("{{% for i in {expr} %}}{{% set ns.{name} = [i, ns.{name}] %}}{{% endfor %}}"),
                3 => format!("{{% macro m(x) %}}{{% set ns.{name} = {expr} %}}{{{{ x }}}}{{% endmacro %}}"),
                4 => format!(
                    "{{% for i in [1, 2, 3] if {expr} %}}{{% set ns.{name} = [loop.last, loop] %}}{{% else %}}{{% set ns.{name} = {expr} %}}{{% endfor %}}"
                ),
                5 => format!(
                    "{{% for i in {expr} %}}{{{{ loop.length }}}}{{% if i %}}{{% break %}}{{% endif %}}{{% endfor %}}"
                ),
                6 => format!("{{% call(x) m({expr}) %}}{{{{ x }}}}{{% endcall %}}"),
                _ => format!("{{% set ns.{name} = {expr} %}}"),
            };
            write!(body, "{statement}").unwrap();
        }
        let source = format!("{BEFORE}{{% for i in range({}) %}}{body}{{% endfor %}}", [3, 30, 300][pick(3)]);
        let rendering = render(&source);
        failed += usize::from(rendering.text.is_err());
        // Each step pays at least a byte, but for a few; so the budget bounds the steps.
        let Rendering { spent, payments, .. } = rendering;
        assert!(payments <= spent, "{payments} payments of {spent} bytes: {source}");
    }
    assert!((100..1000).contains(&failed), "{failed} of 1000 failed, so they do not try much");
}

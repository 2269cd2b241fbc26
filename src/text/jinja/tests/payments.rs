//! Payments of operations: for the bytes that they read or make, and the values that they visit.

use super::render;

/// Texts of 100,000 bytes, alike but for their ends, and what else the operations below take.
const SETUP: &str = "{% set t = 'a' * 99999 ~ 'b' %}{% set u = 'a' * 99999 ~ 'c' %}{% set e = 'é' * 50000 %}
{%- set many = (u,) * 1000 %}{% set items = ['x'] * 1000 %}{% set named = namespace(**{t: 1}) %}
{%- set pairs = dict(range(200)|batch(2)) %}{% set dots = 'a.' * 1000 ~ 'a' %}{% set commas = ',' * 1000 %}{% set lines = '\n' * 1000 %}{% set key = {t: 1} %}";

/// The price of an expression behind `setup`; both have to work.
fn paid(setup: &str, expression: &str) -> u64 {
    let before = render(setup);
    let after = render(&format!("{setup}{{% set result = {expression} %}}"));
    assert!(before.text.is_ok() && after.text.is_ok(), "{expression}: {:?}, {:?}", before.text, after.text);
    after.spent - before.spent
}

#[test]
fn what_an_operation_reads_and_makes_is_paid_for() {
    let operations = [
        // Letters that are looked for, and texts that are compared.
        ("t.strip(u)", 200_000),
        ("t.lstrip(u)", 200_000),
        ("t.rstrip(u)", 200_000),
        ("t|trim(u)", 200_000),
        ("t.startswith(many)", 1000 * 100_000 / 8),
        ("u.endswith((t,) * 1000)", 1000 * 100_000 / 8),
        ("'a'.replace(t, '')", 100_000),
        ("'a'|replace(t, '')", 100_000),
        ("'a'.split(t)", 100_000),
        ("'a'.rsplit(t)", 100_000),
        ("'a'.partition(t)", 100_000),
        ("'a'.find(t)", 100_000),
        ("t in 'a'", 100_000),
        ("t == u", 100_000 / 8),
        ("t < u", 100_000 / 8),
        ("t is lower", 100_000),
        ("t is upper", 100_000),
        ("t.islower()", 100_000),
        ("e[5]", 100_000),
        ("e[-1]", 100_000),
        ("e|length", 100_000 / 8),
        ("e.isprintable()", 600_000),
        ("[e]|string", 400_000),
        ("named[u]", 100_000 / 8),
        ("key[u]", 100_000 / 8),
        ("u in key", 100_000 / 8),
        // Texts that are made, or read letter by letter.
        ("'a'|truncate(1000000, true, t)", 100_000),
        ("t|truncate(50000, true)", 150_000),
        ("('%(' ~ t ~ ')s') % key", 200_000),
        ("'%.400g' % 1.0", 400),
        ("'{:.400g}'.format(1.0)", 400),
        ("1.5|round(300)", 1200),
        ("'{:.9}'.format(t)", 100_000),
        ("t|e", 200_000),
        ("t.upper()", 400_000),
        ("t.casefold()", 400_000),
        ("t|title", 200_000),
        ("t|wordcount", 100_000),
        ("t|int", 100_000),
        ("t|reverse", 100_000),
        ("t[::2]", 100_000),
        // Values that are visited or made.
        ("[1]|sort(attribute=commas)", 1000 * 48),
        ("[]|sort(attribute=commas)", 1000 * 48),
        ("[{}]|map(attribute=dots, default={})|list", 1000 * 24),
        ("items|map(attribute=0)|list", 1000 * 24),
        ("items|select('in', 'x')|list", 1000 * (3 * 48 + 24 + 16)),
        ("items|sort", 1000 * (3 * 48 + 10 * 8)),
        ("lines.splitlines()", 1000 * 48),
        ("lines|indent", 1000 * 24),
        ("t|list", 100_000 * 48),
        ("items|unique|list", 1000 * 8),
        ("items|batch(1)|list", 1000 * 48),
        ("items|groupby(0)", 1000 * (2 * 48 + 10 * 8)),
        ("[[[[[[[[[[items]]]]]]]]]]|tojson(indent=0)", 1000 * 20),
        ("items|tojson(indent=2)", 1000 * 8),
        ("items * 2", 2000 * 48),
        ("items|map('int')|list", 1000),
        ("('a ' * 1000).split()", 1000 * (48 + 24)),
        ("t|float", 300_000),
        ("pairs.keys()", 100 * 48 * 3),
        ("pairs.items()", 100 * 48 * 3),
        ("pairs.copy()", 100 * 48 * 3),
        ("pairs|tojson(sort_keys=true)", 100 * 48 * 5),
        ("[t]|unique|list", 300_000),
    ];
    let paid = operations.map(|(expression, least)| (expression, paid(SETUP, expression), least));
    let too_little: Vec<_> = paid.iter().filter(|(_, paid, least)| paid < least).collect();
    assert!(too_little.is_empty(), "(operation, what it pays, what it does): {too_little:#?}");
}

/// Arguments `a0='x', a1='x'` and so on.
fn keywords(count: usize) -> String {
    (0..count).map(|index| format!("a{index}='x'")).collect::<Vec<_>>().join(", ")
}

#[test]
fn arguments_with_names_are_paid_for() {
    let many = keywords(100);
    let formatted = paid(SETUP, &format!("items|map('format', {many})|list"));
    assert!(formatted >= 1000 * 100 * 48, "{formatted}");

    let fields: String = (0..1000).map(|index| format!("{{a{}}}", index % 100)).collect();
    let filled = paid("", &format!("{fields:?}.format({many})"));
    assert!(filled >= 1000 * 50 * 8, "{filled}");

    let parameters = (0..100).map(|index| format!("a{index}")).collect::<Vec<_>>().join(", ");
    let setup = format!("{{% macro f({parameters}) %}}{{% endmacro %}}");
    let called = paid(&setup, &format!("f({many})"));
    assert!(called >= 100 * 100, "{called}");
}

#[test]
fn long_names_are_paid_for() {
    let name = |end: usize| format!("{}{end:02}", "a".repeat(1_998));
    let list = |item: &dyn Fn(String) -> String| (0..20).map(|end| item(name(end))).collect::<Vec<_>>();
    let variables = list(&|name| format!("{{% set {name} = 1 %}}")).concat();
    let fields = format!("{{% set ns = namespace({}) %}}", list(&|name| format!("{name}=1")).join(", "));
    let macro_of =
        |parameters: &[String]| format!("{{% macro f({}) %}}{{{{ kwargs }}}}{{% endmacro %}}", parameters.join(", "));
    let (all, other) = (list(&|name| name), name(99));
    let keywords = list(&|name| format!("{name}=1")).join(", ");
    // Each is compared with twenty others; those of a list among each other with half of them.
    let search = 20 * 2_000 / 8;
    for (what, setup, statement, least) in [
        ("reading a variable", &variables, format!("{{% if {other} %}}{{% endif %}}"), search),
        ("setting a variable", &variables, format!("{{% set {other} = 1 %}}"), search),
        ("reading a field", &fields, format!("{{% if ns.{other} %}}{{% endif %}}"), search),
        ("setting a field", &fields, format!("{{% set ns.{other} = 1 %}}"), search),
        ("arguments", &macro_of(&[]), format!("{{% if f({keywords}) %}}{{% endif %}}"), 9 * search),
        ("parameters", &macro_of(&all), format!("{{% if f({keywords}) %}}{{% endif %}}"), (9 + 20 + 9) * search),
    ] {
        let (before, after) = (render(setup), render(&format!("{setup}{statement}")));
        assert!(before.text.is_ok() && after.text.is_ok(), "{what}: {:?}", after.text);
        let paid = after.spent - before.spent;
        assert!(paid >= least, "{what} pays {paid}, and it does {least}");
    }
}

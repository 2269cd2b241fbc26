//! Tokenizers and chat templates that were made to take all memory or all time: they are refused, or do what they do within
//! bounds.

use std::fs;

use paceline::text::{ChatTemplate, Message, Tokenizer};
use serde_json::{Value, json};

use crate::{alone, directory, measured, sentence, tokenizer, tokenizer_config};

fn replace(pattern: &Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

fn chain(name: &str, parts: &[Value]) -> Value {
    json!({"type": "Sequence", name: parts})
}

#[test]
fn tokenizers_that_would_take_all_memory_are_refused() {
    let _alone = alone();
    let doubling = vec![replace(&json!({"String": "a"}), "aa"); 40];
    for (part, value, said) in [
        ("normalizer", chain("normalizers", &doubling), "4096 times"),
        ("decoder", chain("decoders", &doubling), "4096 times"),
        ("normalizer", chain("normalizers", &vec![replace(&json!({"Regex": ""}), "xxxxxxxx"); 12]), "4096 times"),
        (
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "/////wAAAAAAAAAA"}),
            "longer than the table",
        ),
        ("normalizer", json!({"type": "Prepend", "prepend": "x".repeat(10_000)}), "4096 times"),
    ] {
        let mut file = tokenizer();
        file[part] = value;
        let dir = directory(&[("tokenizer.json", file.to_string().as_bytes())]);
        let message = measured(dir.path(), 200, || Tokenizer::from_dir(dir.path())).unwrap_err().to_string();
        sentence(&message);
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn a_text_that_would_become_too_long_is_refused() {
    let _alone = alone();
    let mut file = tokenizer();
    file["normalizer"] = chain("normalizers", &vec![replace(&json!({"String": "a"}), "aa"); 11]);
    let dir = directory(&[("tokenizer.json", file.to_string().as_bytes())]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    // With the token that begins every text.
    assert_eq!(tokenizer.encode("a").unwrap().len(), 1 + 2048);
    let message = tokenizer.encode(&"a".repeat(1 << 20)).unwrap_err().to_string();
    sentence(&message);
    // The pre-tokenizer may double it once more.
    assert!(message.contains("4096 times as long"), "{message}");
}

#[test]
fn chat_templates_that_would_take_all_memory_or_time_fail_within_bounds() {
    let _alone = alone();
    for template in [
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{% set x = namespace() %}{% set x.y = x %}{{ x }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ] {
        let mut settings = tokenizer_config();
        settings["chat_template"] = template.into();
        let dir = directory(&[("tokenizer_config.json", settings.to_string().as_bytes())]);
        let read = measured(dir.path(), 40, || ChatTemplate::from_dir(dir.path())).unwrap().unwrap();
        // What a template may spend, and what values take beside what they say.
        fs::write(dir.path().join("room"), vec![0; 1 << 20]).unwrap();
        let message = measured(dir.path(), 512, || read.render(&[Message::new("user", "a")], true)).unwrap_err();
        sentence(&message.to_string());
    }
}

//! From messages to tokens: nothing that a request gives is lost without a word, whatever its template is.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Run, file, fixture, generate_from};

/// The small fixture with another template.
fn with_template(template: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture("llama-tied")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    (dir, path)
}

/// The text of the prompt that a line becomes, and the report's warnings.
fn prompt_of(model: &str, line: &str, more: &[&str]) -> (String, Vec<String>) {
    let (_dir, path) = file(format!("{line}\n"));
    let run = generate_from(model, &[&["--prompts", &path, "--json", "--max-new-tokens", "1"], more].concat());
    let object = run.objects().remove(0);
    let tokens: Vec<u32> =
        serde_json::from_value(object["prompt_tokens"].clone()).unwrap_or_else(|_| panic!("{object}"));
    let warnings = serde_json::from_value(object["report"]["warnings"].clone()).unwrap();
    let tokenizer = paceline::text::Tokenizer::from_dir(Path::new(model)).unwrap();
    (tokenizer.decode(&tokens, false).unwrap(), warnings)
}

const WHOLE: &str =
    "{% for m in messages %}{{ m|tojson }}\r\n{% endfor %}{{ tools|tojson }}{{ documents }}{{ enable_thinking }}";

#[test]
fn all_of_a_message_and_its_settings_reach_the_template() {
    let (_dir, model) = with_template(WHOLE);
    let line = r#"{"messages":[{"content":null,"role":"assistant","tool_calls":[{"a":1.50}],"name":"n"},{"role":"user","content":[{"type":"text","text":"t"}]}],"tools":[{"b":true}],"chat_template_kwargs":{"enable_thinking":false},"documents":[{"title":"d"}]}"#;
    let (text, warnings) = prompt_of(&model, line, &["--template-args", r#"{"enable_thinking": true}"#]);
    let expected = "{\"role\": \"assistant\", \"tool_calls\": [{\"a\": 1.5}], \"name\": \"n\"}\n{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"t\"}]}\n[{\"b\": true}][{'title': 'd'}]False";
    assert_eq!((text.as_str(), warnings), (expected, vec![]));
    let (text, _) =
        prompt_of(&model, r#"{"messages":[{"role":"user"}]}"#, &["--template-args", r#"{"enable_thinking": 1e2}"#]);
    assert!(text.ends_with("}\nnullNone100.0"), "{text}");
}

#[test]
fn what_a_template_ignores_is_said() {
    let (_dir, model) = with_template("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
    let line = r#"{"messages":[{"role":"user","content":"a","name":"Ann","x":null},{"role":"assistant","content":"b","reasoning_content":"r"}],"tools":[{"b":1}],"template_args":{"enable_thinking":false},"temperature":1,"mesages":[]}"#;
    let (text, warnings) = prompt_of(&model, line, &[]);
    assert_eq!(text, "user: a\nassistant: b\n");
    let [template, first, second] = &warnings[..] else { panic!("{warnings:?}") };
    for named in
        ["`tools`", "`enable_thinking`", "`name` of message 1", "`reasoning_content` of message 2", "does not look at"]
    {
        assert!(template.contains(named), "{template}");
    }
    assert!(
        !template.contains("`x`") && first.contains("`temperature`") && second.contains("is `messages` meant?"),
        "{warnings:?}"
    );
    let (_, warnings) = prompt_of(&model, r#"{"prompt":"a","tools":[{"b":1}]}"#, &[]);
    assert!(warnings[0].contains("not made by a chat template"), "{warnings:?}");
}

#[test]
fn what_cannot_be_given_to_a_template_is_refused_by_name() {
    let (_dir, model) = with_template(WHOLE);
    for (line, words) in [
        (r#"{"messages":[["user","hello"]]}"#, &["`messages`", "as an object"][..]),
        (r#"{"messages":[{"content":"x"}]}"#, &["no `role`"]),
        (r#"{"messages":[]}"#, &["empty"]),
        (r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#, &["image_url", "message 1"]),
        (
            r#"{"messages":[{"role":"user","content":"x","n":12345678901234567890123}]}"#,
            &["12345678901234567890123", "in quotes"],
        ),
        (r#"{"messages":[{"role":"user","content":"x"}],"tools":{"a":1}}"#, &["`tools`", "list of objects"]),
        (r#"{"messages":[{"role":"user","content":"x"}],"template_args":[1]}"#, &["`template_args`", "object"]),
        (
            r#"{"messages":[{"role":"user","content":"x","n":18446744073709551616}]}"#,
            &["18446744073709551616", "in quotes"],
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"continue_final_message":true,"add_generation_prompt":true}"#,
            &["keep one"],
        ),
        (r#"{"prompt":"x","prompt":"y"}"#, &["`prompt` is there twice"]),
        (r#"{"prompt":"x","hints":[0.5]}"#, &["`hints`", "object"]),
    ] {
        let (_file, path) = file(format!("{line}\n"));
        generate_from(&model, &["--prompts", &path, "--json"]).says(&[words, &["Line 1 of"]].concat());
    }
    generate_from(&model, &["--prompt", "x", "--template-args", "[1]"]).fails(2, &["template-args", "object"]);
    for (number, said) in [("98765432109876543210987", "beyond 64 bits"), ("-0", "write 0")] {
        let arguments = format!("{{\"x\": [{number}]}}");
        generate_from(&model, &["--prompt", "x", "--template-args", &arguments]).fails(2, &["template-args", said]);
    }
}

#[test]
fn fields_that_are_not_ours_come_back_as_they_were_written() {
    let line = r#"{"prompt":"a","id":12345678901234567890123,"n":9007199254740993.0,"w":1e400,"s":"\ud800\u00e9","s":[1.0, -0],"z":{"b":1,"a":2}}"#;
    let (_file, path) = file(format!("{line}\n"));
    let run = generate_from(&fixture("llama-tied"), &["--prompts", &path, "--json", "--max-new-tokens", "1"]);
    assert!(run.out.starts_with(&line[..line.len() - 1]), "{}", run.out);
    let (_file, path) = file(format!("{}\n", line.replace("\"prompt\":\"a\"", "\"prompt\":3")));
    let run = generate_from(&fixture("llama-tied"), &["--prompts", &path, "--json"]);
    assert!(
        run.out.contains(r#""id":12345678901234567890123,"n":9007199254740993.0,"w":1e400,"s":"\ud800\u00e9""#),
        "{}",
        run.out
    );
}

#[test]
fn a_hostile_template_costs_a_sentence_where_it_is_asked_for_and_nothing_elsewhere() {
    for (template, words) in [
        ("{% set x = namespace() %}{% set x.y = x %}{{ x }}", "nested too deeply"),
        (
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "more steps or memory",
        ),
        ("{{ 'a' * 10**9 }}", "more steps or memory"),
        ("{% if %}", "cannot be understood"),
    ] {
        let (_dir, model) = with_template(template);
        generate_from(&model, &["--prompt", "a", "--max-new-tokens", "1"]).succeeds();
        generate_from(&model, &["--prompt", "a", "--chat"]).fails(1, &["chat template", words]);
    }
    let (_dir, model) = with_template("{% if %}");
    let inspected = Run::new(&["inspect", &model]).succeeds();
    assert!(inspected.contains("chat template unusable"), "{inspected}");
}

/// The places of a token in an answer, which the stop text that it spells has to end.
#[test]
fn a_stop_text_that_is_a_special_token_stops_there() {
    let model = fixture("llama-tied");
    let tokenizer = paceline::text::Tokenizer::from_dir(Path::new(&model)).unwrap();
    let ask = |more: &[&str]| {
        let whole =
            ["--prompt", "The riders", "--ignore-eos", "--temperature", "4", "--max-new-tokens", "200", "--json"];
        generate_from(&model, &[&whole, more].concat()).objects().remove(0)
    };
    let free = ask(&[]);
    let tokens: Vec<u32> = serde_json::from_value(free["tokens"].clone()).unwrap();
    let place =
        tokens.iter().position(|&token| tokenizer.is_special(token)).expect("at this temperature every token comes");
    let special = tokenizer.decode(&tokens[place..=place], false).unwrap();
    let stopped = ask(&["--stop", &special]);
    assert_eq!(stopped["tokens"], json!(tokens[..=place]));
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"], Value::from(tokenizer.decode(&tokens[..place], true).unwrap().as_str()));
    let streamed = generate_from(
        &model,
        &[
            "--prompt",
            "The riders",
            "--ignore-eos",
            "--temperature",
            "4",
            "--max-new-tokens",
            "200",
            "--stop",
            &special,
        ],
    );
    assert_eq!(streamed.succeeds(), format!("{}\n", stopped["text"].as_str().unwrap()));
}

//! Files of prompts: order, fields that come back, seeds of rows, and rows that cannot be answered.

use serde_json::{Value, json};

use crate::{Run, answer, file, fixture, generate};

fn run(content: impl AsRef<[u8]>, more: &[&str]) -> Run {
    let (_directory, path) = file(content);
    generate(&[&["--max-new-tokens", "6", "--prompts", &path], more].concat())
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn answers_come_in_order_with_the_fields_of_their_rows() {
    let rows = [
        json!({"id": 9, "prompt": "A paceline is", "category": "x", "level": {"b": [1, null], "a": 0.5}}),
        json!({"messages": [{"role": "user", "content": "What is a paceline?"}], "answer": "a row"}),
        json!({"prompt": "Each rider", "id": "a", "seed": 18446744073709551615u64}),
        json!({"id": 9, "prompt": "", "seed": null, "messages": null}),
    ];
    let run = run(lines(&rows), &["--json"]);
    let objects = run.objects();
    run.succeeds();
    assert_eq!(objects.len(), rows.len());
    for (object, row) in objects.iter().zip(&rows) {
        for (key, value) in row.as_object().unwrap() {
            assert_eq!(&object[key], value, "{key}");
        }
        assert_eq!(object["tokens"].as_array().unwrap().len(), 6);
        if let Some(prompt) = row["prompt"].as_str() {
            assert_eq!(object["tokens"], answer(&["--prompt", prompt, "--max-new-tokens", "6"])["tokens"]);
        }
    }
    let chat = answer(&["--prompt", "What is a paceline?", "--chat", "--max-new-tokens", "6"]);
    assert_eq!((&objects[1]["prompt_tokens"], &objects[1]["text"]), (&chat["prompt_tokens"], &chat["text"]));
}

#[test]
fn a_row_s_seed_goes_before_the_common_one() {
    let rows = [json!({"prompt": "Each"}), json!({"prompt": "Each", "seed": 5}), json!({"prompt": "Each", "seed": 4})];
    let objects = run(lines(&rows), &["--json", "--temperature", "2", "--seed", "4"]).objects();
    let alone = |seed| answer(&["--prompt", "Each", "--max-new-tokens", "6", "--temperature", "2", "--seed", seed]);
    assert_eq!(objects[0]["tokens"], alone("4")["tokens"]);
    assert_eq!(objects[1]["tokens"], alone("5")["tokens"]);
    assert_eq!(objects[2]["tokens"], objects[0]["tokens"]);
    assert_ne!(objects[1]["tokens"], objects[0]["tokens"]);
}

#[test]
fn a_row_that_cannot_be_answered_leaves_an_error_in_its_place() {
    let long = json!({"id": 1, "prompt": "one two ".repeat(400)}).to_string();
    for (row, words) in [
        (&b"nonsense"[..], &["no JSON object", "column"][..]),
        (b"[1]", &["no JSON object"]),
        (b"{\"prompt\": \"x\"} {}", &["no JSON object", "trailing"]),
        (b"{\"prompt\": \"\xff\"}", &["UTF-8", "byte 13"]),
        (b"{}", &["neither `prompt` nor `messages`"]),
        (b"{\"prompt\": 3}", &["`prompt`", "not text"]),
        (b"{\"prompt\": \"x\", \"messages\": []}", &["both"]),
        (b"{\"messages\": \"x\"}", &["`messages`", "role"]),
        (b"{\"messages\": [{\"role\": \"wizard\", \"content\": \"x\"}]}", &["chat template", "wizard"]),
        (b"{\"prompt\": \"x\", \"seed\": -1}", &["seed -1", "2^64 - 1"]),
        (b"{\"prompt\": \"x\", \"seed\": 1.5}", &["seed 1.5"]),
        (b"{\"prompt\": \"x\", \"seed\": 18446744073709551616}", &["seed"]),
        (long.as_bytes(), &["context", "256"]),
    ] {
        let content = [b"{\"prompt\": \"A\", \"id\": 1}\n", row, b"\n{\"prompt\": \"B\", \"id\": 3}\n"].concat();
        let run = run(content, &["--json"]);
        assert_eq!(run.code, Some(1), "{run:?}");
        run.says(&[words, &["Line 2 of"]].concat());
        let objects = run.objects();
        let sentence = run.err.strip_prefix("paceline: ").unwrap().trim_end();
        assert_eq!((objects.len(), objects[1]["error"].as_str()), (3, Some(sentence)));
        assert!(objects[1].get("tokens").is_none() && objects[0]["text"].is_string() && objects[2]["text"].is_string());
        assert_eq!((&objects[0]["id"], &objects[2]["id"]), (&1.into(), &3.into()));
        if let Ok(Value::Object(fields)) = serde_json::from_slice(row) {
            assert!(fields.iter().all(|(key, value)| &objects[1][key] == value), "{:?}", objects[1]);
        }
    }
}

#[test]
fn without_json_texts_go_out_and_errors_say_their_line() {
    let run = run("{\"prompt\": \"A paceline is\"}\n{}\n{\"prompt\": \"Each rider\"}\n", &[]);
    assert_eq!(run.code, Some(1));
    run.says(&["Line 2 of", "neither"]);
    let alone = |prompt| generate(&["--max-new-tokens", "6", "--prompt", prompt]).succeeds();
    assert_eq!(run.out, alone("A paceline is") + &alone("Each rider"));
}

#[test]
fn line_ends_empty_lines_and_a_byte_order_mark_do_no_harm() {
    let plain = "{\"prompt\": \"A\", \"id\": 1}\n{\"prompt\": \"B\", \"id\": 2}\n";
    let facts = |content: &str| {
        let run = run(content, &["--json"]);
        let facts: Vec<_> = run.objects().iter().map(|o| (o["id"].clone(), o["tokens"].clone())).collect();
        run.succeeds();
        facts
    };
    let expected = facts(plain);
    assert_eq!(expected.len(), 2);
    for content in
        [plain.trim_end(), &plain.replace('\n', "\r\n"), &plain.replace('\n', "\n \n\n"), &format!("\u{feff}{plain}")]
    {
        assert_eq!(facts(content), expected, "{content:?}");
    }
}

#[test]
fn a_file_without_prompts_is_refused() {
    for content in ["", "\n \r\n\n", "\u{feff}"] {
        run(content, &["--json"]).fails(1, &["holds no prompts", "object a line"]);
    }
}

/// A pipe that has ended before it was opened again by its name.
#[cfg(target_os = "linux")]
#[test]
fn an_empty_pipe_holds_no_prompts() {
    let line = format!(
        "printf '' | {} generate --model {} --prompts /dev/stdin",
        env!("CARGO_BIN_EXE_paceline"),
        fixture("llama-tied")
    );
    let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("/dev/stdin holds no prompts"), "{told}");
}

#[test]
fn answers_can_be_asked_again_without_their_old_results() {
    let first = run("{\"prompt\": \"A\", \"id\": 1}\n{\"id\": 2}\n", &["--json"]);
    let again = run(first.out.replace("\"id\":2", "\"id\":2,\"prompt\":\"B\""), &["--json"]);
    let (before, after) = (first.objects(), again.objects());
    again.succeeds();
    assert_eq!(after[0]["tokens"], before[0]["tokens"]);
    assert!(before[1]["error"].is_string() && after[1].get("error").is_none() && after[1]["tokens"].is_array());
}

/// However many are made at once, answers come in the order of their rows, with the same tokens, and so do errors.
#[test]
fn answers_that_are_made_at_once_are_those_that_are_made_one_by_one() {
    let prompts = ["A paceline is", "Each rider", "", "The wind", "What is a paceline?"];
    let mut rows: Vec<Value> = (0..20).map(|index| json!({"id": index, "prompt": prompts[index % 5]})).collect();
    rows[7] = json!({"id": 7});
    for more in [&["--drafter", "lookup"][..], &["--temperature", "1"]] {
        let alone = run(lines(&rows), &[&["--json"], more].concat());
        let (expected, sentences) = (alone.objects(), alone.err.clone());
        for settings in [&["--parallel", "3"][..], &["--parallel", "64"], &["--parallel", "5", "--kv-pool", "256"]] {
            let together = run(lines(&rows), &[&["--json"], more, settings].concat());
            assert_eq!(together.code, alone.code, "{settings:?}");
            assert_eq!(together.err.contains("Line 8"), sentences.contains("Line 8"), "{settings:?}");
            for (found, expected) in together.objects().iter().zip(&expected) {
                for key in ["id", "prompt", "tokens", "text", "finish_reason"] {
                    assert_eq!(found[key], expected[key], "{settings:?}");
                }
                assert_eq!(found["error"].is_null(), expected["error"].is_null(), "{settings:?}");
            }
            assert_eq!(together.objects().len(), rows.len());
        }
    }
}

#[test]
fn what_the_pool_cannot_hold_is_refused_row_by_row() {
    let rows = [json!({"prompt": "A paceline is"}), json!({"prompt": "A paceline is ".repeat(14)})];
    let run = run(lines(&rows), &["--json", "--kv-pool", "128", "--parallel", "2"]);
    let objects = run.objects();
    assert_eq!(objects[0]["tokens"].as_array().unwrap().len(), 6);
    let error = objects[1]["error"].as_str().unwrap();
    assert!(error.contains("Line 2") && error.contains("the pool holds 128"), "{error}");
}

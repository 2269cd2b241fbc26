//! `paceline bench`: the table and the object, and that every drafter is there with the tokens of plain decoding.

use serde_json::Value;

use crate::{Run, fixture};

#[test]
fn every_row_count_and_every_drafter_is_measured() {
    let (target, draft) = (fixture("llama-tied"), fixture("llama-draft"));
    let (_directory, text) = crate::file("The rider in front does the hard work. ".repeat(40));
    let common = ["bench", "--model", &target, "--draft", &draft, "--prompt", "A paceline is"];
    let small =
        ["--max-new-tokens", "24", "--repeats", "2", "--precision", "auto", "--precision", "int8", "--text", &text];
    let out = Run::new(&[&common[..], &small, &["--json"]].concat()).succeeds();
    let measured: Value = serde_json::from_str(&out).unwrap();
    let precisions: Vec<&str> =
        measured["steps"].as_array().unwrap().iter().map(|s| s["precision"].as_str().unwrap()).collect();
    assert_eq!(precisions, ["f32", "int8"]);
    let perplexity = |index: usize| measured["perplexity"][index]["perplexity"].as_f64().unwrap();
    assert!(perplexity(0) > 1.0 && (perplexity(1) / perplexity(0) - 1.0).abs() < 0.02, "{}", measured["perplexity"]);
    for steps in measured["steps"].as_array().unwrap() {
        let rows: Vec<u64> = steps["rows"].as_array().unwrap().iter().map(|row| row[0].as_u64().unwrap()).collect();
        assert_eq!(rows, (1..=17).collect::<Vec<u64>>());
        assert!(steps["rows"][0][1]["median"].as_f64().unwrap() > 0.0);
        assert!(steps["read_bytes_per_second"].as_f64().unwrap() > 0.0);
    }
    let drafters = measured["drafters"].as_array().unwrap();
    let names: Vec<&str> = drafters.iter().map(|row| row["drafter"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "auto", "lookup", "model:llama-draft", "exit:1", "exit:2"]);
    assert!(drafters.iter().all(|row| row["same_tokens"] == Value::Bool(true)));
    assert_eq!(drafters[0]["speedup"].as_f64(), Some(1.0));

    assert_eq!(measured["kv_cache"], "f32");

    let out = Run::new(&[&common[..], &small, &["--kv-cache", "f16"]].concat()).succeeds();
    for word in [
        "cache in f16",
        "f32: a plain step reads",
        "int8: a plain step reads",
        "model:llama-draft",
        "exit:2",
        "same tokens",
        "int8: perplexity",
    ] {
        assert!(out.contains(word), "{word} is not in {out}");
    }
}

#[test]
fn what_cannot_be_timed_gets_a_sentence() {
    let target = fixture("llama-tied");
    for (arguments, code, word) in [
        (&["bench"][..], 2, "--model"),
        (&["bench", "--model", &target, "--precision", "int3"], 2, "--precision"),
        (&["bench", "--model", &target, "--kv-cache", "f64"], 2, "--kv-cache"),
        (&["bench", "--model", &target, "--repeats", "0"], 2, "--repeats"),
        (&["bench", "--model", "nowhere"], 1, "nowhere"),
        (&["bench", "--model", &target, "--repeats", "1", "--text", "nowhere"], 1, "nowhere"),
        (
            &["bench", "--model", &target, "--prompt", "x", "--max-new-tokens", "0", "--repeats", "1"],
            1,
            "max-new-tokens",
        ),
    ] {
        Run::new(arguments).fails(code, &[word]);
    }
}

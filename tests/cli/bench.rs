//! `paceline bench`: the table and the object, and that every drafter is there with the tokens of plain decoding.

use std::path::Path;

use serde_json::Value;

use crate::{Run, fixture};

#[test]
fn every_row_count_and_every_drafter_is_measured() {
    let (target, draft) = (fixture("llama-tied"), fixture("llama-draft"));
    let (_directory, text) = crate::file("The rider in front does the hard work. ".repeat(40));
    let common = ["bench", "--model", &target, "--draft", &draft, "--prompt", "A paceline is"];
    let small =
        ["--max-new-tokens", "24", "--repeats", "2", "--precision", "auto", "--precision", "int8", "--text", &text];
    let views = ["--self-draft", "int8", "--skip-plan", "m2,a0"];
    let out = Run::new(&[&common[..], &small, &views, &["--json"]].concat()).succeeds();
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
        assert!(steps["share_of_read"]["median"].as_f64().unwrap() > 0.0);
        let whole = |key: &str| steps[key].as_u64().unwrap();
        // Keys and values of 3 layers with 2 heads of 8 values in f32.
        assert_eq!((whole("context"), whole("prefill_tokens"), whole("cache_bytes_per_token")), (64, 256, 384));
    }
    check_loads(&measured);
    let drafters = measured["drafters"].as_array().unwrap();
    let names: Vec<&str> = drafters.iter().map(|row| row["drafter"].as_str().unwrap()).collect();
    let (plain, exits) = (["none", "auto", "lookup", "model:llama-draft"], ["skip:a0,m2", "exit:1", "exit:2"]);
    // A target of int8 has no lower one that was asked for.
    assert_eq!(names, [&plain[..], &["self:int8"], &exits, &plain, &exits].concat());
    let at: Vec<&str> = drafters.iter().map(|row| row["precision"].as_str().unwrap()).collect();
    assert_eq!(at, [vec!["f32"; 8], vec!["int8"; 7]].concat());
    assert!(drafters.iter().all(|row| row["same_tokens"] == Value::Bool(true)));
    assert_eq!(measured["exchange_seconds"].as_array().unwrap().len(), 2);

    assert_eq!(measured["kv_cache"], "f32");

    let out = Run::new(&[&common[..], &small, &["--kv-cache", "f16"]].concat()).succeeds();
    for word in [
        "cache in f16",
        "f32: loaded in",
        "int8: loaded in",
        "first token after",
        "a plain step reads",
        "tokens in the cache, which takes",
        "model:llama-draft",
        "exit:2",
        "same tokens",
        "at int8",
        "there and back",
        "int8: perplexity",
    ] {
        assert!(out.contains(word), "{word} is not in {out}");
    }
}

/// Loading, memory and idleness of each precision, where the system tells of them.
fn check_loads(measured: &Value) {
    let loads = measured["loads"].as_array().unwrap();
    let precisions: Vec<&str> = loads.iter().map(|load| load["precision"].as_str().unwrap()).collect();
    assert_eq!(precisions, ["f32", "int8"]);
    for load in loads {
        let number = |key: &str| load[key].as_f64().unwrap();
        assert!(0.0 < number("seconds_to_load") && number("seconds_to_load") < number("seconds_to_first_token"));
        // A prompt of one token and an answer of one.
        assert_eq!(number("cache_bytes"), 2.0 * measured["steps"][0]["cache_bytes_per_token"].as_f64().unwrap());
        if cfg!(target_os = "linux") {
            let pages = |key: &str, kind: &str| load[key][kind].as_u64().unwrap();
            // The program itself is in both.
            assert!(pages("resident_before", "file") > 100_000 && pages("resident", "file") > 100_000, "{load}");
            assert!(pages("resident", "anonymous") as f64 > number("weight_bytes"), "{load}");
        }
        if Path::new("/proc/self/schedstat").exists() {
            // A thread that looks for work all the time would have a share near 1.
            assert!((0.0..0.3).contains(&number("idle_share")), "{load}");
        }
    }
    let bytes = |index: usize| loads[index]["weight_bytes"].as_u64().unwrap();
    assert!(bytes(1) < bytes(0));
}

/// The keys that programs rely on are those that the help lists.
#[test]
fn the_help_lists_every_key_of_the_object() {
    let (target, (_directory, text)) = (fixture("llama-tied"), crate::file("The rider in front does the hard work."));
    let flags = ["--repeats", "1", "--max-new-tokens", "2", "--prompt", "A paceline", "--text", &text, "--json"];
    let out = Run::new(&[&["bench", "--model", &target][..], &flags].concat()).succeeds();
    let measured: Value = serde_json::from_str(&out).unwrap();
    let help = Run::new(&["bench", "--help"]).succeeds();
    let (_, listed) = help.split_once("The object of --json").unwrap();
    let listed: Vec<&str> = listed.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut keys: Vec<&String> = measured.as_object().unwrap().keys().collect();
    for list in ["loads", "steps", "perplexity", "drafters"] {
        keys.extend(measured[list][0].as_object().unwrap().keys());
    }
    for key in keys {
        assert!(listed.contains(&key.as_str()), "{key} is not in {help}");
    }
}

#[test]
fn what_cannot_be_timed_gets_a_sentence() {
    let target = fixture("llama-tied");
    let directory = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(format!("{target}/{name}"), directory.path().join(name)).unwrap();
    }
    let untold = directory.path().to_str().unwrap().to_owned();
    for (arguments, code, word) in [
        (&["bench", "--model", &target, "--precision", "int3"][..], 2, "--precision"),
        (&["bench", "--model", &target, "--kv-cache", "f64"], 2, "--kv-cache"),
        (&["bench", "--model", &target, "--repeats", "0"], 2, "--repeats"),
        (&["bench", "--model", "nowhere"], 1, "nowhere"),
        (&["bench", "--model", &untold], 1, "tokenizer.json"),
        (&["bench", "--model", &target, "--repeats", "1", "--text", "nowhere"], 1, "nowhere"),
        (
            &["bench", "--model", &target, "--prompt", "x", "--max-new-tokens", "0", "--repeats", "1"],
            1,
            "max-new-tokens",
        ),
        (&["bench", "--model", &target, "--draft", "nowhere", "--prompt", "x"], 1, "nowhere"),
        (&["bench", "--model", &target, "--draft", &target], 1, "--prompt"),
        (&["bench", "--model", &target, "--self-draft", "int8", "--precision", "int4", "--prompt", "x"], 1, "int8"),
    ] {
        Run::new(arguments).fails(code, &[word]);
    }
}

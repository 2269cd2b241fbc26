//! Answers: the reference's tokens whatever drafts, the promised object, the same text streamed or not; and
//! prompts that have no answer.

use std::fs;

use serde_json::Value;

use crate::{Run, answer, file, fixture, generate, generate_from};

fn golden() -> Value {
    serde_json::from_str(&fs::read_to_string(fixture("llama-tied/golden.json")).unwrap()).unwrap()
}

#[test]
fn every_drafter_gives_the_reference_s_tokens() {
    let golden = golden();
    let draft = fixture("llama-draft");
    for case in golden["cases"].as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        for (drafter, length) in [
            ("none", "auto"),
            ("lookup", "4"),
            ("exit:1", "1"),
            ("exit:2", "16"),
            ("self:int8", "4"),
            ("self:int4", "1"),
            ("skip:a0,m1", "8"),
            ("model", "4"),
            ("model:llama-draft", "auto"),
            ("auto", "2"),
            ("auto", "auto"),
        ] {
            let drafting = ["--drafter", drafter, "--draft-len", length, "--draft", &draft];
            let found =
                answer(&[&["--prompt", prompt, "--max-new-tokens", "64", "--ignore-eos"], &drafting[..]].concat());
            assert_eq!(found["prompt_tokens"], case["prompt_ids"], "{drafter}");
            assert_eq!(found["tokens"], case["generated"], "{drafter}");
            assert_eq!(found["text"], case["text"], "{drafter}");
            let drafted = found["report"]["speculation"]["drafted"].as_u64().unwrap();
            assert!(length == "auto" || drafted > 0, "{drafter} drafted nothing: {found}");
        }
    }
}

#[test]
fn sampled_tokens_depend_on_the_seed_and_on_nothing_that_drafts() {
    let draft = fixture("llama-draft");
    let sampled = |drafter: &str, length: &str, seed: &str, threads: &str| {
        let settings = ["--prompt", "Each rider", "--max-new-tokens", "40", "--temperature", "2", "--top-k", "200"];
        let drafting = ["--drafter", drafter, "--draft-len", length, "--draft", &draft];
        answer(&[&settings[..], &drafting[..], &["--seed", seed, "--threads", threads]].concat())["tokens"].take()
    };
    let plain = sampled("none", "auto", "7", "1");
    for (drafter, length, threads) in [
        ("lookup", "4", "1"),
        ("exit:1", "1", "2"),
        ("exit:2", "16", "1"),
        ("self:int4", "4", "2"),
        ("skip:a0,m1", "3", "1"),
        ("model", "auto", "2"),
        ("model", "5", "3"),
        ("auto", "auto", "0"),
    ] {
        assert_eq!(sampled(drafter, length, "7", threads), plain, "{drafter} {length} {threads}");
    }
    assert_ne!(sampled("none", "auto", "8", "1"), plain);
}

#[test]
fn the_object_of_an_answer_has_the_promised_shape() {
    let draft = fixture("llama-draft");
    let plan = ["--drafter", "model", "--draft", &draft, "--draft-len", "3"];
    let found = answer(&[&["--prompt", "A paceline is", "--max-new-tokens", "20"], &plan[..]].concat());
    let keys = |value: &Value| value.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&found), "prompt prompt_tokens tokens text finish_reason report");
    assert_eq!((&found["prompt"], &found["finish_reason"]), (&"A paceline is".into(), &"length".into()));
    assert_eq!(found["tokens"].as_array().unwrap().len(), 20);
    let report = &found["report"];
    for (part, promised) in [
        (
            "",
            "latency_ms time_to_first_token_ms energy_wh energy_net_wh energy_source energy_doubt plan speculation adaptations quality_metrics",
        ),
        ("/plan", "drafter draft_length exit_depth draft_precision target_precision layers_skipped difficulty why"),
        ("/speculation", "steps drafted evaluated accepted unverified tokens_per_step accepted_by_position"),
        ("/adaptations", "precision layers_skipped context_used batch_size"),
        ("/quality_metrics", "estimated_perplexity_delta confidence"),
    ] {
        let part = report.pointer(part).unwrap().as_object().unwrap();
        for key in promised.split(' ') {
            assert!(part.contains_key(key), "{key} is missing: {part:?}");
        }
    }
    assert!(report["latency_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(report["plan"]["drafter"], "model:llama-draft");
    assert_eq!(report["adaptations"]["context_used"], 20 + found["prompt_tokens"].as_array().unwrap().len());
    // A token takes 384 bytes; the last one of the answer has not gone through the model.
    let held = report["adaptations"]["context_used"].as_u64().unwrap() - 1;
    assert_eq!((&report["kv_cache"], report["kv_cache_bytes"].as_u64()), (&"f32".into(), Some(384 * held)));
    let speculation = &report["speculation"];
    let count = |key: &str| speculation[key].as_u64().unwrap();
    assert!(count("accepted") > 0 && count("accepted") <= count("evaluated") && count("evaluated") <= count("drafted"));
    let by_position = speculation["accepted_by_position"].as_array().unwrap();
    assert_eq!(by_position.iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), count("accepted"));
    assert_eq!(report["energy_wh"].is_null(), report["energy_source"] == "unavailable");
}

/// Both spellings of the consent; each thing that it allows, and that the report tells.
#[test]
fn what_is_given_up_is_in_the_report() {
    let model = format!("{}/models/target", env!("CARGO_MANIFEST_DIR"));
    let ask = |arguments: &[&str]| {
        let fixed = ["--prompt", "Sort these words: pear fig apple", "--chat", "--json"];
        let out = generate_from(&model, &[&fixed[..], arguments].concat()).succeeds();
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let told = |found: &Value, place: &str| found["report"].pointer(place).unwrap().clone();
    let plain = ask(&["--drafter", "none"]);
    assert_eq!(told(&plain, "/exactness"), "bit-identical to plain decoding");
    for consent in ["best-effort", "best_effort"] {
        // Where nothing is named the router chooses, from what there is.
        let chosen = ask(&["--quality", consent]);
        assert_eq!(told(&chosen, "/exactness"), "lossy: the target answered in int8 instead of bf16");
        assert!(
            told(&chosen, "/quality_metrics/confidence").as_f64().is_some_and(|share| (0.0..=1.0).contains(&share))
        );
        let found = ask(&["--quality", consent, "--no-router"]);
        assert_eq!((&found["tokens"], told(&found, "/exactness")), (&plain["tokens"], told(&plain, "/exactness")));
    }
    for (arguments, words, changed) in [
        (
            &["--exit-threshold", "0.9"][..],
            "left the target after layer 9 without verification",
            ("/plan/exit_depth", 9),
        ),
        (&["--exit-threshold", "0.9", "--drafter", "exit:6"], "after layer 6", ("/plan/exit_depth", 6)),
        (&["--skip-layers", "uniform:2"], "did without 3,8", ("/adaptations/layers_skipped", 2)),
        (&["--skip-layers", "importance:1"], "did without ", ("/adaptations/layers_skipped", 1)),
        (&["--skip-layers", "a5"], "did without a5", ("/adaptations/layers_skipped", 0)),
        (&["--lower-precision", "int8"], "answered in int8 instead of bf16", ("/adaptations/layers_skipped", 0)),
    ] {
        let found = ask(&[&["--quality", "best-effort"], arguments].concat());
        let exactness = told(&found, "/exactness");
        assert!(
            exactness.as_str().is_some_and(|text| text.starts_with("lossy: ") && text.contains(words)),
            "{exactness}"
        );
        assert_eq!(told(&found, changed.0), changed.1, "{arguments:?}");
        let leaves = arguments[0] == "--exit-threshold";
        assert_eq!(told(&found, "/speculation/unverified").as_u64().unwrap() > 0, leaves, "{found}");
        assert!(told(&found, "/layer_evaluations").as_u64() < told(&plain, "/layer_evaluations").as_u64() || !leaves);
    }
}

#[test]
fn streamed_text_is_the_answer_s_text_and_a_line_break() {
    for arguments in [
        &["--prompt", "A paceline is", "--max-new-tokens", "64"][..],
        &["--prompt", "A paceline is", "--stop", "rider in"],
        &["--prompt", "é – 漢字", "--max-new-tokens", "200", "--temperature", "2", "--ignore-eos"],
        &["--prompt", "What is a paceline?", "--chat"],
        &["--prompt", "- a prompt may start with a dash", "--stop", "--"],
        &["--prompt", ""],
    ] {
        let streamed = generate(arguments).succeeds();
        assert_eq!(streamed, format!("{}\n", answer(arguments)["text"].as_str().unwrap()), "{arguments:?}");
    }
}

#[test]
fn an_answer_ends_at_stop_tokens_at_stop_texts_at_the_length_and_with_the_context() {
    let stop_tokens = [347, 351].map(Value::from);
    let last = |found: &Value| found["tokens"].as_array().unwrap().last().unwrap().clone();

    let found = answer(&["--prompt", "What is a paceline?", "--chat"]);
    assert_eq!(found["text"], "A row of riders who share the wind.");
    assert_eq!(found["finish_reason"], "stop");
    assert!(stop_tokens.contains(&last(&found)), "`tokens` includes the stop token: {found}");

    let found = answer(&["--prompt", "A paceline is", "--stop", "nothing", "--stop", "rider in"]);
    assert_eq!(
        (&found["text"], &found["finish_reason"]),
        (&" a row of riders who share the wind. The ".into(), &"stop".into())
    );

    for huge in ["1000000000000000000", "18446744073709551615"] {
        let found = answer(&["--prompt", "A paceline is", "--max-new-tokens", huge, "--ignore-eos"]);
        assert_eq!(
            (&found["report"]["adaptations"]["context_used"], &found["finish_reason"]),
            (&256.into(), &"length".into())
        );
    }
}

#[test]
fn chat_prompts_go_through_the_template() {
    let golden = golden();
    let case = &golden["chat"][0];
    let content = case["messages"][0]["content"].as_str().unwrap();
    assert_eq!(answer(&["--prompt", content, "--chat", "--max-new-tokens", "1"])["prompt_tokens"], case["ids"]);
}

#[test]
fn standard_input_is_a_prompt_without_its_last_line_break() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model, "--max-new-tokens", "8"];
    let expected = generate(&["--prompt", "The road\nis long", "--max-new-tokens", "8"]).succeeds();
    for input in ["The road\nis long", "The road\nis long\n", "The road\nis long\r\n"] {
        assert_eq!(Run::with_input(&arguments, input.as_bytes()).succeeds(), expected, "{input:?}");
    }
    Run::with_input(&arguments, b"\xff\xfe").fails(1, &["standard input", "UTF-8"]);
}

#[test]
fn prompts_without_an_answer_are_refused() {
    let long = "one two ".repeat(400);
    generate(&["--prompt", &long]).fails(1, &["context", "256", "shorten"]);
    let micro = fixture("micro");
    generate_from(&micro, &["--prompt", ""]).fails(1, &["empty"]);
    generate_from(&micro, &[]).fails(1, &["empty"]);
    generate_from(&micro, &["--prompt", "a", "--chat"]).fails(1, &["chat template"]);
    let penalty = ["--prompt", "x", "--repetition-penalty", "1e-40"];
    generate(&penalty).fails(1, &["repetition penalty"]);

    // With --json the sentence is in the object, too.
    let run = generate(&["--prompt", &long, "--json"]);
    assert_eq!(run.code, Some(1));
    run.says(&["context", "256"]);
    let object = run.objects().remove(0);
    assert_eq!(format!("paceline: {}\n", object["error"].as_str().unwrap()), run.err);
    assert_eq!(object["prompt"], long);
}

/// The text alone does not tell a reader that there was more to come.
#[test]
fn a_text_that_ends_early_says_so_and_json_has_the_reason() {
    let run = generate(&["--prompt", "A paceline is", "--max-new-tokens", "9"]);
    run.says(&["The answer ends at the limit of 9 tokens", "`--max-new-tokens 18`"]);
    assert_eq!(run.code, Some(0));
    let run = generate(&["--prompt", "A paceline is", "--max-new-tokens", "9999", "--ignore-eos"]);
    run.says(&["The answer ends after ", "the model's context of 256 tokens", "shorten the prompt"]);
    // A stop text that is the beginning of the answer leaves nothing of it.
    let text = answer(&["--prompt", "A paceline is", "--max-new-tokens", "9"])["text"].as_str().unwrap().to_owned();
    let first = text.chars().take(3).collect::<String>();
    let run = generate(&["--prompt", "A paceline is", "--max-new-tokens", "9", "--stop", &first]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "\n"));
    run.says(&["The answer is empty", "stop text"]);

    let run = generate(&["--prompt", "A paceline is", "--max-new-tokens", "9", "--json"]);
    assert_eq!((run.err.as_str(), run.objects()[0]["finish_reason"].as_str()), ("", Some("length")));
    // An answer that its model ended says nothing.
    let run = generate(&["--prompt", "What is a paceline?", "--chat"]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
}

/// What is advised at the limit of a bounded answer can be done; with more tokens the certificate would refuse it.
#[test]
fn more_tokens_than_a_certificate_allows_are_not_advised() {
    let ask = |arguments: &[&str]| {
        let prompt = "a".repeat(29);
        let fixed = ["generate", "--no-journal", "--quality-floor", "0.9", "--prompt", &prompt];
        Run::new(&[&fixed[..], arguments].concat())
    };
    let short = ask(&["--quality", "bounded", "--max-new-tokens", "200"]);
    if short.err.contains("instruction set") {
        println!("skipped: the certificates that ship are for another processor");
        return;
    }
    short.says(&["at the limit of 200 tokens: allow more with `--max-new-tokens 256`"]);
    let whole = ask(&["--quality", "bounded"]);
    whole
        .says(&["limit of 256 tokens, the most that its certificate allows", "`--quality exact --max-new-tokens 512`"]);
    let longer = ask(&["--quality", "exact", "--max-new-tokens", "512"]);
    assert!(longer.code == Some(0) && longer.out.len() > whole.out.len(), "{longer:?}");
}

/// Of a file with several prompts each sentence says whose it is.
#[test]
fn texts_of_a_prompts_file_say_which_ended_early() {
    let (_directory, path) = file("{\"prompt\": \"A paceline is\"}\n{\"prompt\": \"Each rider\"}\n");
    let run = generate(&["--prompts", &path, "--max-new-tokens", "3"]);
    let said: Vec<&str> = run.err.lines().collect();
    assert!(said.len() == 2 && said[0].starts_with("paceline: Line 1 of") && said[1].contains("Line 2 of"), "{run:?}");
}

#[test]
fn standard_input_without_end_is_refused() {
    let words = ["prompt on standard input", "more than the 67108864 bytes"];
    let arguments = ["generate", "--model", &fixture("llama-tied")];
    Run::with_input(&arguments, &vec![b'x'; (64 << 20) + 1]).fails(1, &words);
}

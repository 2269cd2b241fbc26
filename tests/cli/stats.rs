//! `paceline stats`: what answers left in the journal, from the place where the command line keeps it or another.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{Run, file, fixture, generate, quiet_command};

/// The command with this folder for the user's state.
fn at_home(home: &Path, arguments: &[&str]) -> Run {
    let mut command = quiet_command(arguments);
    command.env("XDG_STATE_HOME", home);
    Run::of(command, b"")
}

/// The object of `stats` for a journal.
#[track_caller]
fn stats(journal: &str, period: &str) -> Value {
    let out = Run::new(&["stats", "--journal", journal, "--period", period, "--json"]).succeeds();
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn answers_are_journalled_at_home_and_told() {
    let home = tempfile::tempdir().unwrap();
    let model = fixture("llama-tied");
    let prompt = "A paceline is a secret";
    let answer = ["generate", "--model", &model, "--prompt", prompt, "--max-new-tokens", "20", "--json"];
    let drafting = ["--drafter", "exit:1", "--draft-len", "4"];
    let none = at_home(home.path(), &["stats"]);
    none.fails(1, &["There is no journal", home.path().to_str().unwrap(), "--journal"]);

    for more in [&drafting[..], &["--drafter", "none"], &["--drafter", "none", "--no-journal"]] {
        at_home(home.path(), &[&answer[..], more].concat()).succeeds();
    }
    let journal = home.path().join("paceline/journal.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(!text.contains("secret") && !text.contains("riders"), "prompts and texts stay private: {text}");

    let found = at_home(home.path(), &["stats", "--json"]).succeeds();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((&found["period"], &found["journal"]), (&"24h".into(), &journal.to_str().unwrap().into()));
    assert_eq!((&found["answers"], &found["tokens"], &found["adapted"]), (&2.into(), &40.into(), &1.into()));
    assert_eq!((&found["adapted_share"], &found["adaptations"]["drafted"]), (&0.5.into(), &1.into()));
    assert_eq!((&found["quality"]["exact"], &found["quality"]["mean"]), (&2.into(), &1.0.into()));
    let drafters: Vec<&String> = found["by_drafter"].as_object().unwrap().keys().collect();
    assert_eq!(drafters, ["exit:1", "none"]);
    assert_eq!(found["by_difficulty"]["unjudged"]["answers"], 2);
    let time = &found["by_drafter"]["none"]["time"];
    let [saved, decoding, plain] =
        ["saved_share", "decode_ms", "plain_ms"].map(|name| time[name].as_f64().expect("a number"));
    assert!(decoding > 0.0 && plain > 0.0 && (saved - (1.0 - decoding / plain)).abs() < 1e-9, "{found}");
    assert_eq!(found["warnings"], Value::Array(vec![]));

    let told = at_home(home.path(), &["stats", "--period", "7d"]).succeeds();
    for words in
        ["Answers in the last 7d", "2 with 40 tokens", "adapted     1 (50%)", "plain decoding", "exit:1", "unjudged"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn what_was_given_up_is_judged_by_the_router() {
    let (_folder, journal) = file("");
    let model = format!("{}/models/target", env!("CARGO_MANIFEST_DIR"));
    let ask = |arguments: &[&str]| {
        let fixed = ["--prompt", "Sort these words: pear fig apple", "--chat", "--json", "--journal", &journal];
        let out = crate::generate_from(&model, &[&fixed[..], arguments].concat()).succeeds();
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let lower = ask(&["--quality", "best-effort", "--lower-precision", "int8"]);
    let confidence = lower["report"]["quality_metrics"]["confidence"].as_f64().unwrap();
    ask(&["--quality", "best-effort", "--skip-layers", "late:1"]);
    ask(&["--quality", "best-effort", "--exit-threshold", "0.9"]);
    ask(&[]);
    let found = stats(&journal, "all");
    let counts = |of: &str, names: [&str; 3]| names.map(|name| found[of][name].as_u64().unwrap());
    assert_eq!(counts("adaptations", ["early_exit", "layers_skipped", "lower_precision"]), [1, 1, 1]);
    assert_eq!(counts("quality", ["exact", "judged", "unknown"]), [1, 1, 2]);
    let mean = found["quality"]["mean"].as_f64().unwrap();
    assert!((mean - f64::midpoint(1.0, confidence)).abs() < 1e-9, "{found}");
    assert!(found["by_difficulty"].as_object().unwrap().keys().any(|level| level != "unjudged"), "{found}");
    let told = Run::new(&["stats", "--journal", &journal]).succeeds();
    for words in ["left early 1, layers skipped 1, lower precision 1", "1 by the router's judgement", "2 not known"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn damaged_lines_are_left_out_with_a_warning() {
    let (_folder, journal) = file("");
    generate(&["--prompt", "A", "--max-new-tokens", "3", "--journal", &journal]).succeeds();
    let whole = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, format!("{whole}{}\n{whole}", &whole[..30])).unwrap();
    let run = Run::new(&["stats", "--journal", &journal]);
    assert!(run.code == Some(0) && run.out.contains("2 with 6 tokens"), "{run:?}");
    run.says(&["1 line is damaged", &journal, "left out"]);
    let found = stats(&journal, "all");
    assert_eq!((&found["answers"], found["warnings"].as_array().unwrap().len()), (&2.into(), 1));

    // A name from the file does nothing to a terminal.
    fs::write(&journal, whole.replace("\"drafter\":\"", "\"drafter\":\"\\u001b[2J")).unwrap();
    let told = Run::new(&["stats", "--journal", &journal]).succeeds();
    assert!(told.contains("\\u{1b}[2J") && !told.contains('\x1b'), "{told}");
}

#[test]
fn a_period_without_answers_is_no_failure() {
    let (_folder, journal) = file("");
    let told = Run::new(&["stats", "--journal", &journal, "--period", "15m"]).succeeds();
    assert_eq!(told, format!("Answers in the last 15m, from {journal}: none.\n"));
    assert_eq!(stats(&journal, "15m")["adapted_share"], Value::Null);
}

#[test]
fn a_journal_that_cannot_be_read_is_told() {
    let folder = fixture("llama-tied");
    for (journal, words) in [
        ("/nowhere/journal.jsonl", &["There is no journal at /nowhere/journal.jsonl", "--journal"][..]),
        (&folder, &["llama-tied", "not a file"]),
        ("/dev/null", &["/dev/null", "not a file"]),
        ("/no\nwhere", &["/no\\nwhere"]),
    ] {
        Run::new(&["stats", "--journal", journal]).fails(1, words);
    }
}

#[test]
fn a_journal_that_cannot_be_written_fails_no_answer() {
    let (_folder, notes) = file("Dear diary,\n");
    let inside = format!("{notes}/journal.jsonl");
    let asked = ["--prompt", "A paceline is", "--max-new-tokens", "8"];
    let expected = generate(&asked).succeeds();
    let mut places = vec![(notes.as_str(), "begins like none"), (inside.as_str(), "cannot be written")];
    if cfg!(target_os = "linux") {
        places.push(("/dev/full", "No space left"));
    }
    for (journal, words) in places {
        let run = generate(&[&asked[..], &["--journal", journal]].concat());
        assert_eq!((run.code, &run.out), (Some(0), &expected), "{run:?}");
        run.says(&["The answer is not in the journal", words, "--journal"]);
        let object = generate(&[&asked[..], &["--journal", journal, "--json"]].concat()).objects().remove(0);
        let warnings = object["report"]["warnings"].as_array().unwrap();
        assert!(warnings.iter().any(|warning| warning.as_str().unwrap().contains(words)), "{warnings:?}");
    }
    assert_eq!(fs::read_to_string(&notes).unwrap(), "Dear diary,\n");
    // Told once for many prompts, not for each.
    let (_other, prompts) = file("{\"prompt\": \"A\"}\n{\"prompt\": \"B\"}\n{\"prompt\": \"C\"}\n");
    let run = generate(&["--prompts", &prompts, "--max-new-tokens", "2", "--journal", &inside]);
    let told = run.err.lines().filter(|line| line.contains("not in the journal"));
    assert_eq!(told.count(), 1, "{run:?}");
    // What a home cannot take is told in the same way.
    let model = fixture("llama-tied");
    let run = at_home(Path::new(&notes), &[&["generate", "--model", &model], &asked[..]].concat());
    assert_eq!((run.code, &run.out), (Some(0), &expected), "{run:?}");
    run.says(&["not in the journal", "--no-journal"]);
}

#[test]
fn programs_that_answer_at_once_share_a_journal() {
    let (_folder, journal) = file("");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| generate(&["--prompt", "A", "--max-new-tokens", "2", "--journal", &journal]).succeeds());
        }
    });
    let found = stats(&journal, "all");
    assert_eq!((&found["answers"], &found["warnings"]), (&3.into(), &Value::Array(vec![])));
}

#[test]
fn a_config_file_may_name_the_journal_or_keep_none() {
    let (_folder, journal) = file("");
    for (text, lines) in
        [(format!("journal = '{journal}'"), 1), (format!("journal = '{journal}'\nno-journal = true"), 1)]
    {
        let (_other, config) = file(text);
        generate(&["--prompt", "A", "--max-new-tokens", "2", "--config", &config]).succeeds();
        assert_eq!(fs::read_to_string(&journal).unwrap().lines().count(), lines);
    }
}

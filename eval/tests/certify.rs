//! The command `certify` as a stranger meets it: certificates that the runtime takes up, runs that were ended, and sentences.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use paceline::certificate::Certificate;
use paceline::files::{self, LockKind};
use paceline::{Engine, EngineConfig, GenerationConfig, Message, Prompt, Quality, SelfDraft};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn shipped() -> String {
    root().join("models/target").to_str().unwrap().to_owned()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_paceline-eval"))
        .env("HF_HUB_OFFLINE", "1")
        .arg("certify")
        .args(arguments)
        .output()
        .unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code, nothing on standard output, and a line on standard error that ends as a sentence does.
#[track_caller]
fn fails(arguments: &[&str], code: i32, words: &[&str]) {
    let output = run(arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{told}");
    assert!(told.starts_with("paceline-eval: ") && told.ends_with(".\n") && told.lines().count() == 1, "{told}");
    assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
}

/// Every so-many-th row of a split, in a file.
fn some_rows(folder: &Path, split: &str, step: usize) -> (String, Vec<Value>) {
    let text = fs::read_to_string(root().join(format!("datasets/tasks/{split}.jsonl"))).unwrap();
    let lines: Vec<&str> = text.lines().step_by(step).collect();
    let path = folder.join(format!("{split}.jsonl"));
    fs::write(&path, lines.join("\n")).unwrap();
    let rows = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    (path.to_str().unwrap().to_owned(), rows)
}

#[test]
fn certificates_are_made_checked_and_followed_and_an_ended_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (calibration, rows) = some_rows(folder.path(), "calibration", 61);
    let out = folder.path().join("out");
    let model = shipped();
    let made = |out: &Path| {
        let plans = ["--bundle", "int8", "--bundle", "exit:9@0.9", "--bundle", "int4"];
        let floors = ["--floor", "0.7", "--floor", "0.6", "--delta", "0.4", "--threads", "1", "--max-new-tokens", "64"];
        let place = [calibration.as_str(), "--model", &model, "--out", out.to_str().unwrap()];
        succeeds(&[&place[..], &plans, &floors].concat())
    };
    let page = made(&out);
    assert!(page.contains("floor-0.7.json") && page.contains("| simple |") && page.contains("int4"), "{page}");
    let losses = fs::read_to_string(out.join("losses.csv")).unwrap();
    assert_eq!(losses.lines().count(), rows.len() + 2);
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let before = [read("floor-0.7.json"), read("floor-0.6.json"), losses.clone()];

    // Ended in the middle of a line.
    fs::write(out.join("losses.csv"), &losses[..losses.len() / 2]).unwrap();
    assert_eq!(made(&out), page);
    assert_eq!([read("floor-0.7.json"), read("floor-0.6.json"), read("losses.csv")], before);

    // What is written is what was counted.
    let certificate = Certificate::read(&out.join("floor-0.6.json")).unwrap();
    assert_eq!((certificate.claims, certificate.calibration.n), (6, rows.len()));
    assert_eq!(certificate.levels.iter().map(|level| level.n).sum::<usize>(), rows.len());
    let of_level = |name: &str, column: usize| -> f64 {
        let rows = losses.lines().skip(2).map(|line| line.split(',').collect::<Vec<_>>());
        rows.filter(|row| row[1] == name).map(|row| row[3 + column].parse::<f64>().unwrap()).sum()
    };
    let mut plans = 0;
    for level in &certificate.levels {
        for (place, test) in level.tested.iter().enumerate() {
            assert_eq!(test.losses, of_level(&level.level, place), "{level:?}");
        }
        plans += usize::from(level.plan.is_some());
    }
    assert!(plans > 0, "something passes at these floors");

    // The runtime follows it.
    let path = out.join("floor-0.6.json");
    let config = EngineConfig {
        certificate: vec![path.clone()],
        self_draft: vec![SelfDraft::Int8, SelfDraft::Int4],
        threads: 1,
        ..EngineConfig::new(&model)
    };
    let engine = Engine::load(&config).unwrap();
    let bounded = GenerationConfig {
        quality: Quality::Bounded,
        quality_floor: Some(0.55),
        max_new_tokens: 64,
        ..GenerationConfig::default()
    };
    for row in rows.iter().step_by(7) {
        let messages: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
        let answer = engine.generate(Prompt::Messages(messages), &bounded).unwrap().finish().unwrap();
        assert_eq!(answer.report.adaptations.certificate.as_deref(), path.to_str());
    }

    // On other prompts, and by random halves.
    let (tasks, others) = some_rows(folder.path(), "test", 101);
    let check = ["--check", path.to_str().unwrap(), "--model", &model, "--tasks", &tasks, "--draws", "5"];
    let page = succeeds(&[&check[..], &["--threads", "1", "--max-new-tokens", "64"]].concat());
    assert!(page.contains(&format!("| 0.6 | all |  | {} |", others.len())), "{page}");
    assert!(page.contains("| 0.6 | 5 |") && page.contains("levels not in full, of 3"), "{page}");
    // On the prompts that it was calibrated on, the policy loses what the certificate says, to the prompt.
    let check = ["--check", path.to_str().unwrap(), "--model", &model, "--tasks", &calibration];
    let page = succeeds(&[&check[..], &["--threads", "1", "--max-new-tokens", "64"]].concat());
    for level in &certificate.levels {
        let lost = format!("| {} | {:.2}% |", level.n, 100.0 * level.risk);
        let line = page.lines().find(|line| line.contains(&format!("| {} |", level.level))).unwrap();
        assert!(line.contains(&lost), "{lost}: {line}");
    }

    // Random halves are not made of a part of the losses, which stays as it is.
    let part = &losses[..losses.len() / 2];
    fs::write(out.join("losses.csv"), part).unwrap();
    let check = ["--check", path.to_str().unwrap(), "--model", &model, "--tasks", &tasks, "--draws", "5"];
    fails(&check, 1, &["losses.csv", &format!("and {} were to be measured", rows.len())]);
    assert_eq!(fs::read_to_string(out.join("losses.csv")).unwrap(), part);
    fs::write(out.join("losses.csv"), &losses).unwrap();

    // A copy is for the same floor, and an engine would follow one of them twice.
    let copy = folder.path().join("copy.json");
    fs::copy(&path, &copy).unwrap();
    let twice = ["--check", path.to_str().unwrap(), "--check", copy.to_str().unwrap(), "--model", &model];
    fails(&twice, 1, &["floor-0.6.json", "copy.json", "one at a time"]);

    // A floor that comes later is shown together with those that are there, of the same losses and not of new ones.
    let plans = ["--bundle", "int8", "--bundle", "exit:9@0.9", "--bundle", "int4"];
    let settings = ["--threads", "1", "--max-new-tokens", "64", "--floor", "0.5"];
    let place = [calibration.as_str(), "--model", &model, "--out", out.to_str().unwrap()];
    fails(&[&place[..], &plans, &settings].concat(), 1, &["floor-0.6.json", "--delta 0.4"]);
    let output = run(&[&place[..], &plans, &settings, &["--delta", "0.4"]].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("a floor of 0.6 and 0.7: they are made anew"), "{told}");
    for floor in ["0.7", "0.6", "0.5"] {
        let together = Certificate::read(&out.join(format!("floor-{floor}.json"))).unwrap();
        assert_eq!((together.claims, together.calibration.n), (9, rows.len()), "{floor}");
    }
    assert_eq!(read("losses.csv"), losses);

    // Other plans do not go into the same file.
    let other = [&place[..], &["--bundle", "int4", "--delta", "0.4", "--max-new-tokens", "64"]].concat();
    fails(&other, 1, &["losses.csv", "--out"]);
}

#[test]
fn what_cannot_be_certified_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (few, _) = some_rows(folder.path(), "calibration", 300);
    let empty = folder.path().join("empty.jsonl");
    fs::write(&empty, "").unwrap();
    let (model, out) = (shipped(), folder.path().join("out"));
    let (out, empty) = (out.to_str().unwrap(), empty.to_str().unwrap());
    let without_router = root().join("models/small");
    let cases: [(&[&str], i32, &[&str]); 9] = [
        (&[&few, "--floor", "1"], 2, &["--floor", "below 1"]),
        (&[&few, "--floor", "x"], 2, &["--floor"]),
        (&[&few, "--delta", "0"], 2, &["--delta", "above 0"]),
        (&[&few, "--bundle", "int3"], 2, &["int3", "exit:9@0.99"]),
        (&["/nowhere.jsonl", "--model", &model, "--out", out], 1, &["/nowhere.jsonl", "cannot be read"]),
        (&[empty, "--model", &model, "--out", out], 1, &["are empty"]),
        (
            &[&few, "--model", without_router.to_str().unwrap(), "--out", out],
            1,
            &["no router", "paceline-train router"],
        ),
        (
            &[&few, "--model", &model, "--out", out, "--bundle", "int8"],
            1,
            &["prompts", "even if nothing is lost", "--delta"],
        ),
        (&["--check", "/nowhere.json", "--model", &model], 1, &["/nowhere.json", "cannot be read"]),
    ];
    for (arguments, code, words) in cases {
        fails(arguments, code, words);
    }

    // Claims that are published together are counted together, so one command at a time publishes in a folder.
    let lock = files::lock_file_of(&Path::new(out).join("losses.csv"));
    let held = files::lock(&lock, LockKind::Alone, Duration::ZERO).unwrap();
    let arguments = [&few, "--model", &model, "--out", out, "--bundle", "int8"];
    fails(&arguments, 1, &["Another command certifies in", out]);
    drop(held);
    fails(&arguments, 1, &["even if nothing is lost"]);
}

/// A certificate may be a link to where somebody keeps it.
#[cfg(unix)]
#[test]
fn links_to_certificates_stay_and_other_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("floor-0.5.json"), "{\"mine\": 1}").unwrap();
    let (rows, _) = some_rows(folder.path(), "calibration", 61);
    let model = shipped();
    let settings = [
        "--model",
        &model,
        "--out",
        out.to_str().unwrap(),
        "--max-new-tokens",
        "2",
        "--floor",
        "0.5",
        "--delta",
        "0.4",
    ];
    let arguments = [&[rows.as_str()][..], &settings, &["--bundle", "int8", "--threads", "1"]].concat();
    fails(&arguments, 1, &["floor-0.5.json is not a certificate and was left alone"]);
    fs::remove_file(out.join("floor-0.5.json")).unwrap();
    fs::write(folder.path().join("real.json"), "").unwrap();
    std::os::unix::fs::symlink("../real.json", out.join("floor-0.5.json")).unwrap();
    succeeds(&arguments);
    assert!(fs::symlink_metadata(out.join("floor-0.5.json")).unwrap().is_symlink());
    assert!(fs::read_to_string(folder.path().join("real.json")).unwrap().contains("\"floor\": 0.5"));
}

/// Only what is lower than the target's own precision is loaded and tested; where nothing is, its exits are.
#[test]
fn plans_are_those_of_a_target_of_the_precision_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (few, _) = some_rows(folder.path(), "calibration", 600);
    for (precision, plans) in [("int8", "int4"), ("int4", "exit:9@0.999,exit:9@0.99")] {
        let out = folder.path().join(precision);
        let place = [few.as_str(), "--model", &shipped(), "--out", out.to_str().unwrap()].map(str::to_owned);
        let settings = ["--precision", precision, "--max-new-tokens", "8", "--threads", "1"].map(str::to_owned);
        let arguments = [&place[..], &settings].concat();
        // They are too few to show anything, but were measured.
        fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 1, &["even if nothing is lost"]);
        let losses = fs::read_to_string(out.join("losses.csv")).unwrap();
        assert!(losses.lines().nth(1).unwrap().starts_with(&format!("id,level,right,{plans}")), "{losses}");
        assert!(!losses.contains("int8") && losses.contains("int4") == (plans == "int4"), "{losses}");
    }
}

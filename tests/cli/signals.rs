//! Ctrl-C, SIGTERM and a hangup: the answer so far is kept, and the exit code says what ended the program.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::typing::Step::{See, Signal, Type};
use crate::{PATIENCE, ended, file, fixture, objects, quiet_command, roomy, session};

const HANGUP: i32 = 1;
const INTERRUPT: i32 = 2;
const TERMINATE: i32 = 15;

/// More tokens than are generated while a test runs, but for one that hangs.
const ENDLESS: &str = "190000";

fn send(child: &Child, signal: i32) {
    let status = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits for the end and tells the exit code; `None` is the default action of a signal.
fn code(child: &mut Child) -> Option<i32> {
    ended(child).expect("it ends").code()
}

fn start(arguments: &[&str]) -> Child {
    quiet_command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn rest(child: &mut Child) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (out, err)
}

#[test]
fn a_signal_ends_an_answer_which_is_printed_and_in_the_journal() {
    let (folder, model) = roomy(200_000);
    for (signal, expected) in [(INTERRUPT, 130), (TERMINATE, 143), (HANGUP, 129)] {
        let journal = folder.path().join(format!("journal-{signal}"));
        let mut child = start(&[
            "generate",
            "--model",
            &model,
            "--prompt",
            "A paceline is",
            "--ignore-eos",
            "--max-new-tokens",
            ENDLESS,
            "--journal",
            journal.to_str().unwrap(),
        ]);
        let mut first = [0; 200];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        send(&child, signal);
        let (out, err) = rest(&mut child);
        assert_eq!(code(&mut child), Some(expected), "{err}");
        assert!(out.ends_with('\n') && err.contains("The answer was cancelled after "), "{err}");
        let entry: Value = serde_json::from_str(&fs::read_to_string(journal).unwrap()).unwrap();
        let told = format!("cancelled after {} tokens", entry["tokens"]);
        assert!(err.contains(&told) && entry["tokens"].as_u64() > Some(10), "{told}: {err}");
    }
}

/// The first row is answered and stays; of the second, which a terminal shows to be written, there is what was written by then;
/// the third is not begun.
#[test]
fn in_json_what_was_answered_is_printed_and_the_rest_not_begun() {
    let (_folder, model) = roomy(200_000);
    let short = "{\"id\":1,\"messages\":[{\"role\":\"user\",\"content\":\"What is a paceline?\"}]}\n";
    let endless = ["2", "3"].map(|id| format!("{{\"id\":{id},\"prompt\":\"A paceline is\"}}\n"));
    let (_directory, prompts) = file(format!("{short}{}", endless.concat()));
    let arguments = ["generate", "--model", &model, "--prompts", &prompts, "--json", "--ignore-eos"];
    // So the first answer begins; the others do not have it in their first 30,000 tokens, which take most of a minute.
    let limits = ["--max-new-tokens", ENDLESS, "--stop", "A row of riders"];
    for (signal, expected) in [(INTERRUPT, 130), (TERMINATE, 143)] {
        let steps = [See("{\"id\":1,"), See("writing the answer: tokens"), Signal(signal)];
        let Some(found) = session(&[&arguments[..], &limits].concat(), &steps) else { return };
        assert_eq!(found.code, Some(expected), "{}", found.shown);
        let rows = objects(&found.shown);
        let of_rows = |name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
        assert_eq!(
            (of_rows("id"), of_rows("finish_reason")),
            (vec![1.into(), 2.into()], vec!["stop".into(), "cancelled".into()])
        );
        assert!(rows[1]["tokens"].as_array().unwrap().len() > 1 && !rows[1]["text"].as_str().unwrap().is_empty());
        assert!(found.shown.contains("paceline: 1 of 3 prompts were not answered.\n"), "{}", found.shown);
    }
}

/// Of answers that are made at once, all that were begun are printed, as far as they got; the others are not begun.
#[test]
fn a_signal_ends_all_answers_that_were_begun() {
    let (_folder, model) = roomy(200_000);
    let rows: String = (0..12).map(|id| format!("{{\"id\":{id},\"prompt\":\"A paceline is\"}}\n")).collect();
    let (_directory, prompts) = file(rows);
    let arguments = ["generate", "--model", &model, "--prompts", &prompts, "--json", "--ignore-eos"];
    let limits = ["--max-new-tokens", ENDLESS, "--parallel", "3"];
    let steps = [See("writing the answer: tokens"), Signal(INTERRUPT)];
    let Some(found) = session(&[&arguments[..], &limits].concat(), &steps) else { return };
    assert_eq!(found.code, Some(130), "{}", found.shown);
    let rows = objects(&found.shown);
    assert_eq!(rows.iter().map(|row| row["id"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert!(rows.iter().all(|row| row["finish_reason"] == "cancelled"));
    assert!(rows[..3].iter().all(|row| !row["tokens"].as_array().unwrap().is_empty()));
    assert!(found.shown.contains("paceline: 6 of 12 prompts were not answered.\n"), "{}", found.shown);
}

/// A terminal shows that the prompt is being read; its answer has no tokens then.
#[test]
fn a_signal_ends_the_reading_of_a_prompt() {
    let (folder, model) = roomy(200_000);
    let prompt = folder.path().join("prompts.jsonl");
    fs::write(&prompt, serde_json::json!({"prompt": "0123456789".repeat(15_000)}).to_string()).unwrap();
    let arguments = ["generate", "--model", &model, "--prompts", prompt.to_str().unwrap(), "--json"];
    for (signal, expected) in [(INTERRUPT, 130), (TERMINATE, 143)] {
        let Some(found) = session(&arguments, &[See("reading the prompt"), Signal(signal)]) else { return };
        assert_eq!(found.code, Some(expected));
        let answer = objects(&found.shown).remove(0);
        assert_eq!((&answer["finish_reason"], &answer["tokens"]), (&"cancelled".into(), &Value::Array(Vec::new())));
    }
}

#[test]
fn in_a_conversation_a_signal_ends_the_answer_and_a_second_one_the_program() {
    let (_folder, model) = roomy(200_000);
    let arguments = ["generate", "--model", &model, "--ignore-eos", "--max-new-tokens", ENDLESS];
    let answered = [See("> "), Type("What is a paceline?\n"), See("riders"), See("the")];
    for (step, second, expected) in [
        (Type("\x03"), Type("\x03"), 130),
        (Signal(INTERRUPT), Signal(INTERRUPT), 130),
        (Signal(TERMINATE), Signal(TERMINATE), 143),
    ] {
        let [a, b, c, d] = &answered;
        let (See(a), Type(b), See(c), See(d)) = (a, b, c, d) else { panic!("steps") };
        let again = [See("cancelled after"), See("> "), Type("And then?\n"), See("the"), Type("\x03")];
        let steps = [See(a), Type(b), See(c), See(d), step];
        let steps: Vec<_> = steps.into_iter().chain(again).chain([See("cancelled after"), See("> "), second]).collect();
        let Some(found) = session(&arguments, &steps) else { return };
        assert_eq!(found.code, Some(expected), "{}", found.shown);
    }
}

#[test]
fn ctrl_c_on_a_line_that_was_begun_drops_the_line() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model, "--json", "--max-new-tokens", "3"];
    let steps = [See("> "), Type("wrong"), See("wrong"), Type("\x03"), See("> "), Type("right\n"), See("{"), See("> ")];
    let steps: Vec<_> = steps.into_iter().chain([Type("\x04")]).collect();
    let Some(found) = session(&arguments, &steps) else { return };
    assert!(found.code == Some(0) && found.shown.contains("\"prompt\":\"right\""), "{}", found.shown);
}

/// Nobody reads the answer, so the first signal finds a program that waits for its reader.
#[test]
fn a_second_signal_ends_the_program_at_once() {
    let (_folder, model) = roomy(200_000);
    let arguments = ["generate", "--model", &model, "--prompt", "A paceline is", "--ignore-eos", "--max-new-tokens"];
    let mut child = start(&[&arguments[..], &[ENDLESS]].concat());
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let started = Instant::now();
    let status = loop {
        send_if_alive(&child, INTERRUPT);
        std::thread::sleep(Duration::from_millis(20));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < PATIENCE, "it does not end");
    };
    assert_eq!(status.code(), Some(130));
}

fn send_if_alive(child: &Child, signal: i32) {
    let _ = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).stderr(Stdio::null()).status();
}

/// Where there is nothing to keep, a sentence and the exit code.
#[test]
fn a_signal_before_there_is_an_answer_ends_the_program() {
    for (signal, expected, name) in [(INTERRUPT, 130, "SIGINT"), (TERMINATE, 143, "SIGTERM"), (HANGUP, 129, "SIGHUP")] {
        let mut command = quiet_command(&["generate", "--model", &fixture("llama-tied")]);
        // The prompt never comes.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        wait_until_heard(&child, signal);
        send(&child, signal);
        assert_eq!(code(&mut child), Some(expected));
        let (out, err) = rest(&mut child);
        assert!(out.is_empty() && err == format!("paceline: Ended by {}.\n", full(name)), "{err}");
        drop(stdin);
    }
}

fn full(name: &str) -> String {
    if name == "SIGINT" { "SIGINT (Ctrl-C)".to_owned() } else { name.to_owned() }
}

/// Waits until the program has a handler for the signal.
fn wait_until_heard(child: &Child, signal: i32) {
    let started = Instant::now();
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        if u64::from_str_radix(caught, 16).unwrap() >> (signal - 1) & 1 == 1 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "it never listens");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `nohup` has a hangup ignored, and so it stays.
#[test]
fn a_signal_that_was_to_be_ignored_is() {
    let mut command = Command::new("sh");
    let script =
        format!("trap '' HUP; exec '{}' generate --model '{}'", env!("CARGO_BIN_EXE_paceline"), fixture("llama-tied"));
    command.args(["-c", &script]).env("XDG_STATE_HOME", crate::STATE);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until_heard(&child, TERMINATE);
    send(&child, HANGUP);
    send(&child, TERMINATE);
    assert_eq!(code(&mut child), Some(143));
}

#[test]
fn what_was_learned_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("learned.json");
    let model = format!("{}/models/target", env!("CARGO_MANIFEST_DIR"));
    let prompts = format!("{}/datasets/tasks/test.jsonl", env!("CARGO_MANIFEST_DIR"));
    let arguments = ["generate", "--model", &model, "--prompts", &prompts, "--json", "--no-journal"];
    let mut child = start(&[&arguments[..], &["--online-state", state.to_str().unwrap()]].concat());
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut lines = 0;
    let mut line = String::new();
    while lines < 5 && out.read_line(&mut line).unwrap() > 0 {
        lines += 1;
    }
    let before = fs::read(&state).unwrap_or_default();
    send(&child, TERMINATE);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(code(&mut child), Some(143));
    let after = fs::read(&state).unwrap();
    assert!(
        serde_json::from_slice::<Value>(&after).is_ok() && after != before,
        "what the last answers taught is missing"
    );
}

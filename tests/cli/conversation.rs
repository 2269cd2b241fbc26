//! A conversation on a terminal.

#![cfg(unix)]

use serde_json::Value;

use crate::typing::Step::{See, Type, TypeTimes};
use crate::typing::{Session, Step};
use crate::{fixture, objects, roomy, session};

const END: Step<'_> = Type("\x04");

#[test]
fn a_line_is_a_turn_and_the_end_of_input_ends_it() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model, "--max-new-tokens", "40"];
    let steps = [See("> "), Type("What is a paceline?\n\n"), See("[16 tokens"), See("> "), Type("And then?\n"), END];
    let Some(Session { code, shown, .. }) = session(&arguments, &steps) else { return };
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Write a message, or end with Ctrl-D.\n"), "{shown}");
    assert!(shown.contains("A row of riders who share the wind.\n[16 tokens"), "{shown}");
    assert_eq!(shown.matches(" per step;").count(), 2, "the empty line is no turn: {shown}");
}

/// All at once, before the program has begun to read.
#[test]
fn what_is_typed_ahead_is_not_lost() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model, "--max-new-tokens", "40"];
    let steps = [Type("What is a paceline?\nAnd then?\n"), END];
    let Some(Session { code, shown, .. }) = session(&arguments, &steps) else { return };
    assert_eq!((code, shown.matches(" per step;").count()), (Some(0), 2), "{shown}");
}

#[test]
fn a_model_without_a_template_continues_texts() {
    let model = fixture("micro");
    let arguments = ["generate", "--model", &model, "--max-new-tokens", "5"];
    let Some(Session { code, shown, .. }) = session(&arguments, &[See("> "), Type("abc\n"), See("[5 tokens"), END])
    else {
        return;
    };
    assert!(code == Some(0) && shown.contains("no chat template; write a text to continue"), "{shown}");
    let Some(Session { code, shown, .. }) = session(&["generate", "--model", &model, "--chat"], &[]) else { return };
    assert!(code == Some(1) && shown.contains("paceline: The model has no chat template"), "{shown}");
}

#[test]
fn answers_in_json_have_the_turn_s_message() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model, "--json", "--max-new-tokens", "40"];
    let Some(shown) = session(&arguments, &[See("> "), Type("What is a paceline?\n"), See("{"), See("> "), END]) else {
        return;
    };
    let objects = objects(&shown.shown);
    assert_eq!((shown.code, objects.len(), &objects[0]["prompt"]), (Some(0), 1, &"What is a paceline?".into()));
    assert_eq!(objects[0]["text"], "A row of riders who share the wind.");
}

/// Terminals that collect lines by themselves cut them at 4,095 bytes.
#[test]
fn a_long_line_is_one_message_to_its_last_word() {
    let (_folder, model) = roomy(16384);
    let arguments = ["generate", "--model", &model, "--json", "--max-new-tokens", "2"];
    let steps = [See("> "), TypeTimes("x", 6000), Type(" and what is the question?\n"), See("{"), See("> "), END];
    let Some(shown) = session(&arguments, &steps) else { return };
    let objects = objects(&shown.shown);
    let prompt = objects[0]["prompt"].as_str().unwrap();
    assert_eq!((shown.code, objects.len(), prompt.len()), (Some(0), 1, 6026));
    assert!(prompt.ends_with(" and what is the question?"));
}

#[test]
fn keys_edit_the_line_and_a_paste_is_one_message() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model, "--json", "--max-new-tokens", "1"];
    let pasted = Type("\x1b[200~one\ntwo\x1b[201~ \x1b[A\u{fc}\u{fc}\x7f!\n");
    let steps = [See("> "), pasted, See("{"), See("> "), Type("wrong\x15right\n"), See("{"), See("> "), END];
    let Some(shown) = session(&arguments, &steps) else { return };
    let prompts: Vec<_> = objects(&shown.shown).iter().map(|object| object["prompt"].clone()).collect();
    assert_eq!(prompts, ["one\ntwo \u{fc}!", "right"]);
}

/// The message is too long by itself: the advice can be followed, and the conversation before it stays.
#[test]
fn a_message_longer_than_the_context_is_refused_and_the_conversation_kept() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model, "--json", "--max-new-tokens", "10"];
    let told = "shorten its 100000 characters to about ";
    let steps = [
        See("> "),
        Type("What is a paceline?\n"),
        See("{"),
        See("> "),
        TypeTimes("0123456789", 10_000),
        Type("\n"),
        See(told),
        See("> "),
        Type("And then?\n"),
        See("{"),
        See("> "),
        END,
    ];
    let Some(shown) = session(&arguments, &steps) else { return };
    let objects = objects(&shown.shown);
    assert_eq!((shown.code, objects.len()), (Some(0), 2), "{}", shown.shown);
    assert!(shown.shown.contains("The conversation before it is kept."), "{}", shown.shown);
    let tokens = |answer: &Value| answer["prompt_tokens"].as_array().unwrap().len();
    assert!(tokens(&objects[1]) > tokens(&objects[0]) + 10, "the second prompt has the first exchange in it");

    // A message as long as the advice says has room.
    let characters: usize = shown.shown.split(told).nth(1).unwrap().split('.').next().unwrap().parse().unwrap();
    let short = "0123456789".repeat(characters / 10);
    let steps = [See("> "), Type(&short), Type("\n"), See("{"), See("> "), END];
    let Some(shown) = session(&arguments, &steps) else { return };
    assert_eq!(shown.code, Some(0), "{}", shown.shown);
}

#[test]
fn a_conversation_that_outgrows_the_context_forgets_its_beginning_and_answers() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model, "--json", "--max-new-tokens", "30"];
    let turn = format!("{}\n", "one two ".repeat(9));
    let mut steps = vec![See("> ")];
    for _ in 0..6 {
        steps.extend([Type(&turn), See("{\"prompt\""), See("> ")]);
    }
    steps.push(END);
    let Some(shown) = session(&arguments, &steps) else { return };
    let objects = objects(&shown.shown);
    assert_eq!((shown.code, objects.len()), (Some(0), 6), "every message is answered: {}", shown.shown);
    let forgotten = "no longer fits into the model's context of 256 tokens: the first exchange";
    assert!(shown.shown.contains(forgotten) || shown.shown.contains("the first 2 exchanges"), "{}", shown.shown);
    let tokens = |answer: &Value| answer["prompt_tokens"].as_array().unwrap().len();
    let most = objects.iter().map(tokens).max().unwrap();
    assert!(most < 256 && tokens(&objects[5]) > tokens(&objects[0]), "something before the last message is kept");
}

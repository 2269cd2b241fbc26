//! However a conversation ends or is stopped, the terminal is left as it was found: it collects lines and shows them.

#![cfg(unix)]

use crate::typing::Step::{Continue, Modes, See, Signal, Stopped, Type};
#[cfg(target_os = "linux")]
use crate::typing::Step::{Starve, TypeTimes};
use crate::{fixture, session};

const INTERRUPT: i32 = 2;
const QUIT: i32 = 3;
const ABORT: i32 = 6;
const TERMINATE: i32 = 15;
/// SIGTSTP, as Linux numbers it.
#[cfg(target_os = "linux")]
const STOP: i32 = 20;
#[cfg(not(target_os = "linux"))]
const STOP: i32 = 18;

/// Asks the terminal to put what is pasted into brackets, and no longer.
const BRACKETS: [&str; 2] = ["\x1b[?2004h", "\x1b[?2004l"];

#[test]
fn every_end_leaves_the_terminal_as_it_was() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model];
    for (end, code, signal) in [
        (Type("\x04"), Some(0), None),
        (Type("\x03"), Some(130), None),
        (Type("\x1c"), None, Some(QUIT)),
        (Signal(INTERRUPT), Some(130), None),
        (Signal(QUIT), None, Some(QUIT)),
        (Signal(ABORT), None, Some(ABORT)),
        (Signal(TERMINATE), Some(143), None),
    ] {
        let Some(found) = session(&arguments, &[See("> "), Modes, end]) else { return };
        assert_eq!((found.code, found.signal.map(|number| number as i32)), (code, signal), "{}", found.shown);
        assert_eq!(found.lines, [false, true], "{code:?} {signal:?}: {}", found.shown);
        assert_eq!(BRACKETS.map(|order| found.shown.matches(order).count()), [1, 1], "{:?}", found.shown);
    }
}

/// Ctrl-Z gives the shell a terminal that it can use, and `fg` takes it again, with what was typed before.
#[test]
fn a_stopped_conversation_gives_the_terminal_back_and_goes_on() {
    let model = fixture("llama-tied");
    let arguments = ["generate", "--model", &model, "--json", "--max-new-tokens", "2"];
    let stop = |how| [See("> "), Type("abc"), See("abc"), how, Stopped, Continue, See(BRACKETS[0])];
    for how in [Type("\x1a"), Signal(STOP)] {
        let go_on = [Modes, Type("def\n"), See("{"), See("> "), Type("\x04")];
        let steps: Vec<_> = stop(how).into_iter().chain(go_on).collect();
        let Some(found) = session(&arguments, &steps) else { return };
        assert!(found.code == Some(0) && found.shown.contains("{\"prompt\":\"abcdef\""), "{}", found.shown);
        assert_eq!(found.lines, [true, false, true], "{}", found.shown);
    }
}

/// A message is typed that needs more memory than there is left.
#[test]
#[cfg(target_os = "linux")]
fn memory_that_runs_out_leaves_the_terminal_as_it_was() {
    // A chat template would ask for memory that it can do without.
    let model = fixture("micro");
    let arguments = ["generate", "--model", &model, "--max-new-tokens", "2"];
    // After an answer every thread has begun, which would fail otherwise.
    let begin = [See("> "), Type("A\n"), See("[2 tokens"), See("> "), Modes];
    let end = [Starve, TypeTimes("x", 1_000_000), Type("\n"), See(": Memory ran out: ")];
    let steps: Vec<_> = begin.into_iter().chain(end).collect();
    let Some(found) = session(&arguments, &steps) else { return };
    assert_eq!((found.code, found.lines), (Some(1), vec![false, true]));
    assert_eq!(BRACKETS.map(|order| found.shown.matches(order).count()), [1, 1]);
}

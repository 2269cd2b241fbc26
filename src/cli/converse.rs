//! A conversation on the terminal: a line is a turn; models without a chat template continue each line by itself.

use anyhow::anyhow;
use paceline::command::fields::Fields;
use paceline::command::output::{note, say};
use paceline::command::signals::{Keeping, Signal, received};
use paceline::{Engine, Error, GenerationConfig, Message, Prompt};

use super::generate::{AnswerError, answer, finish};
#[cfg(unix)]
use super::line::LONGEST;
#[cfg(not(unix))]
use super::terminal::LONGEST;
use super::terminal::{Terminal, Typed};

/// The share of the context that stays free for the answer when the beginning of a conversation is forgotten.
const ROOM: f64 = 0.25;

/// Answers line after line until the end of input, or a signal where no answer is being written.
pub(super) fn converse(
    engine: &Engine,
    generation: &GenerationConfig,
    json: bool,
    mut terminal: Terminal,
    keeping: &Keeping,
) -> Result<(), anyhow::Error> {
    let chat = engine.can_chat();
    let mut messages: Vec<Message> = Vec::new();
    let what = if chat { "Write a message" } else { "This model has no chat template; write a text to continue" };
    say(&format!("{what}, or end with Ctrl-D.\n"));
    while let Some(line) = next_line(&mut terminal, keeping)? {
        let fields = Fields::of("prompt", &line);
        let prompt = if chat {
            messages.push(Message::new("user", line));
            if let Err(error) = fit(engine, generation, &mut messages) {
                note(&error);
                messages.pop();
                continue;
            }
            Prompt::Messages(messages.clone())
        } else {
            Prompt::Text(line)
        };
        match answer(engine, prompt, generation, !json) {
            Ok(answer) => {
                finish(engine, generation, &answer, fields, json, None)?;
                if chat && answer.tokens.is_empty() {
                    // Cancelled before it began: as if nothing was asked.
                    messages.pop();
                } else if chat {
                    messages.push(Message::new("assistant", answer.text));
                }
            }
            Err(AnswerError::Output(error)) => return Err(error.into()),
            Err(AnswerError::Engine(error)) => {
                note(&error.to_string());
                messages.pop();
            }
        }
        // A signal has ended the answer, and the conversation goes on; unless there is nobody to have it with.
        if received() == Some(Signal::Hangup) {
            return Ok(());
        }
        keeping.answered();
    }
    say("\n");
    Ok(())
}

/// The next line that is not empty; `None` where the conversation ends.
fn next_line(terminal: &mut Terminal, keeping: &Keeping) -> Result<Option<String>, anyhow::Error> {
    loop {
        let line = match terminal.read("> ").map_err(|error| anyhow!("The terminal cannot be read: {error}."))? {
            Typed::Line(line) => line,
            Typed::TooLong => {
                note(&format!("That message has more than the {LONGEST} bytes that are read: write a shorter one."));
                continue;
            }
            Typed::Signal { begun: true } if received() == Some(Signal::Interrupt) => {
                keeping.answered();
                continue;
            }
            Typed::Signal { .. } | Typed::End => return Ok(None),
        };
        match String::from_utf8(line) {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => return Ok(Some(line)),
            Err(_) => note("That line is not UTF-8: write it again."),
        }
    }
}

/// Forgets the beginning of a conversation that has outgrown the context, turn by turn, until there is room for an answer again
/// or its last message stands alone. Says so.
///
/// # Errors
/// A sentence, if even that message is too long; the conversation stays as it was.
fn fit(engine: &Engine, generation: &GenerationConfig, messages: &mut Vec<Message>) -> Result<(), String> {
    let tokens = |messages: &[Message]| engine.prompt_tokens(Prompt::Messages(messages.to_vec()), generation);
    let context = match tokens(messages) {
        Err(Error::PromptTooLong { context, .. }) => context,
        // What else is wrong is told when it is answered.
        _ => return Ok(()),
    };
    let last = messages.len() - 1;
    if let Err(Error::PromptTooLong { tokens, .. }) = tokens(&messages[last..]) {
        let most = context - 1;
        let characters = messages[last].content().chars().count();
        // By what this message's own characters come to, and a little less.
        let allowed = (characters as f64 * 0.95 * most as f64 / tokens as f64) as usize;
        let kept = if last > 0 { " The conversation before it is kept." } else { "" };
        return Err(format!(
            "This message has {tokens} tokens by itself, and the model's context holds {context}, one of them for the answer: \
             shorten its {characters} characters to about {allowed}.{kept}"
        ));
    }
    let room = generation.max_new_tokens.min((context as f64 * ROOM) as usize);
    let fits = |messages: &[Message]| tokens(messages).is_ok_and(|tokens| tokens.len() + room <= context);
    // Turns are of two messages.
    let begin = (2..last).step_by(2).find(|&begin| fits(&messages[begin..])).unwrap_or(last);
    let (forgotten, kept) = (begin / 2, (last - begin) / 2);
    note(&format!(
        "The conversation no longer fits into the model's context of {context} tokens: the first {} forgotten, {} and your message \
         is answered.",
        if forgotten == 1 { "exchange is".to_owned() } else { format!("{forgotten} exchanges are") },
        match kept {
            0 => "nothing before your message is kept,".to_owned(),
            1 => "the last one is kept,".to_owned(),
            kept => format!("the last {kept} are kept,"),
        },
    ));
    messages.drain(..begin);
    Ok(())
}

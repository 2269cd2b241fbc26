//! `paceline generate`: answers one prompt, a file of prompts, or a conversation on the terminal.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use paceline::{Answer, Engine, Error, Event, GenerationConfig, Message, Prompt};
use serde_json::{Map, Value};

use super::Failure;
use super::flags::{GenerateFlags, resolve};
use super::progress::{self, Progress};
use super::prompts::{self, Task};

/// Runs the command.
pub(super) fn generate(flags: &GenerateFlags) -> Result<ExitCode, Failure> {
    let (engine_config, generation) = resolve(flags)?;
    let from_terminal = flags.prompt.is_none() && flags.prompts.is_none() && io::stdin().is_terminal();
    let tasks = match (&flags.prompt, &flags.prompts) {
        (Some(text), _) => vec![Task::new(text, flags.chat)],
        (None, Some(path)) => prompts::from_file(path, flags.chat)?,
        (None, None) if from_terminal => Vec::new(),
        (None, None) => vec![prompts::from_standard_input(flags.chat)?],
    };

    let mut progress = Progress::new();
    let engine = Engine::load_with_progress(&engine_config, &mut |stage| {
        progress.show(&format!("loading {}", stage.directory.display()), stage.done, stage.total);
    })?;
    progress::clear();

    if from_terminal {
        converse(&engine, &generation)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = false;
    for task in tasks {
        failed |= !run(&engine, &generation, task, flags.json)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Answers one prompt; whether it could be answered. A prompt that cannot leaves its error in its place.
fn run(engine: &Engine, generation: &GenerationConfig, task: Task, json: bool) -> Result<bool, anyhow::Error> {
    let Task { prompt, seed, mut fields } = task;
    let mut config = generation.clone();
    config.sampling.seed = seed.unwrap_or(config.sampling.seed);
    let answer = prompt.and_then(|prompt| match answer(engine, prompt, &config, !json) {
        Ok(answer) => Ok(answer),
        Err(AnswerError::Output(error)) => Err(error.into()),
        Err(AnswerError::Engine(error)) => Err(error.into()),
    });
    match answer {
        Ok(answer) if json => {
            fields.extend(as_map(&answer)?);
            print_line(&serde_json::to_string(&fields)?)?;
        }
        Ok(answer) => {
            print_line("")?;
            summarize(&answer);
        }
        Err(error) if error.is::<OutputClosed>() => return Err(error),
        Err(error) if json => {
            fields.insert("error".into(), format!("{error:#}").into());
            print_line(&serde_json::to_string(&fields)?)?;
            return Ok(false);
        }
        Err(error) => {
            progress::clear();
            eprintln!("paceline: {error:#}");
            return Ok(false);
        }
    }
    Ok(true)
}

fn as_map(answer: &Answer) -> Result<Map<String, Value>, anyhow::Error> {
    match serde_json::to_value(answer)? {
        Value::Object(map) => Ok(map),
        _ => anyhow::bail!("An answer is no JSON object; please report this."),
    }
}

/// A conversation: a line is a turn; models without a chat template continue each line by itself.
fn converse(engine: &Engine, generation: &GenerationConfig) -> Result<(), anyhow::Error> {
    let chat = engine.can_chat();
    let mut messages: Vec<Message> = Vec::new();
    let what = if chat { "Write a message" } else { "This model has no chat template; write a text to continue" };
    eprintln!("{what}, or end with Ctrl-D.");
    let mut lines = io::stdin().lock().lines();
    loop {
        eprint!("> ");
        let Some(line) = lines.next() else { break };
        let line = line.context("The line cannot be read")?;
        if line.trim().is_empty() {
            continue;
        }
        let prompt = if chat {
            messages.push(Message { role: "user".into(), content: line });
            Prompt::Messages(messages.clone())
        } else {
            Prompt::Text(line)
        };
        match answer(engine, prompt, generation, true) {
            Ok(answer) => {
                print_line("")?;
                summarize(&answer);
                messages.push(Message { role: "assistant".into(), content: answer.text });
            }
            Err(AnswerError::Output(error)) => return Err(error.into()),
            Err(AnswerError::Engine(error)) => {
                eprintln!("paceline: {error}");
                messages.pop();
            }
        }
    }
    eprintln!();
    Ok(())
}

/// Nobody reads the answer any more.
#[derive(Debug, thiserror::Error)]
#[error("Standard output was closed before the answer was complete ({0}); the rest was not generated.")]
struct OutputClosed(io::Error);

enum AnswerError {
    Engine(Error),
    Output(OutputClosed),
}

/// Generates an answer, streaming its text to standard output if `stream` says so.
fn answer(engine: &Engine, prompt: Prompt, config: &GenerationConfig, stream: bool) -> Result<Answer, AnswerError> {
    let mut progress = Progress::new();
    let mut out = io::stdout().lock();
    let mut print = |text: &str| {
        if !stream || text.is_empty() {
            return Ok(());
        }
        progress::clear();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| AnswerError::Output(OutputClosed(error)))
    };
    for event in engine.generate(prompt, config).map_err(AnswerError::Engine)? {
        match event.map_err(AnswerError::Engine)? {
            Event::Prefill { done, total } => progress.show("reading the prompt: tokens", done, total),
            Event::Token { text, .. } => print(&text)?,
            Event::Done { text, answer } => {
                print(&text)?;
                progress::clear();
                return Ok(*answer);
            }
        }
    }
    Err(AnswerError::Engine(Error::Stopped))
}

fn print_line(line: &str) -> Result<(), OutputClosed> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(OutputClosed)
}

/// What a person at the terminal wants to know.
fn summarize(answer: &Answer) {
    let report = &answer.report;
    for warning in &report.warnings {
        eprintln!("paceline: {warning}");
    }
    if !io::stderr().is_terminal() {
        return;
    }
    let tokens = answer.tokens.len();
    let decode_ms = report.draft_ms + report.verify_ms;
    let rate = 1e3 * tokens as f64 / decode_ms.max(1e-9);
    eprintln!(
        "[{tokens} tokens, {rate:.0} a second, {:.2} per step; {}]",
        report.speculation.tokens_per_step, report.plan.why
    );
}

//! `paceline generate`: answers one prompt, a file of prompts, or a conversation on the terminal.

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use paceline::certificate::needed_precisions;
use paceline::command::Failure;
use paceline::command::fields::Fields;
use paceline::command::output::{OutputFailed, note, print, print_line, say};
use paceline::command::progress::{self, Progress};
use paceline::{Answer, Engine, Error, Event, GenerationConfig, Message, Prompt, Quality};
use serde_json::{Map, Value};

use super::flags::{GenerateFlags, Settings, resolve};
use super::prompts::{self, Task};
use super::shipped;
use super::stats;

/// Runs the command.
pub(super) fn generate(flags: &GenerateFlags) -> Result<ExitCode, Failure> {
    let Settings { engine: mut engine_config, mut generation, names_limit } = resolve(flags)?;
    let models = shipped::or_shipped(engine_config.model.as_deref(), &engine_config.draft)?;
    let chat = flags.chat || models.shipped;
    (engine_config.model, engine_config.draft) = (Some(models.target), models.drafts);
    engine_config.journal = engine_config.journal.or_else(stats::default_journal);
    if generation.quality == Quality::Bounded && generation.quality_floor.is_some_and(|floor| floor < 1.0) {
        // Who asks for what certificates allow wants it loaded.
        engine_config.self_draft.extend(needed_precisions(&engine_config));
    }
    let from_terminal = flags.prompt.is_none() && flags.prompts.is_none() && io::stdin().is_terminal();
    let tasks = match (&flags.prompt, &flags.prompts) {
        (Some(text), _) => vec![Task::new(text, chat)?],
        (None, Some(path)) => prompts::from_file(path, chat)?,
        (None, None) if from_terminal => Vec::new(),
        (None, None) => vec![prompts::from_standard_input(chat)?],
    };

    let mut progress = Progress::new();
    let engine = Engine::load_with_progress(&engine_config, &mut |stage| {
        progress.show(&format!("loading {}", stage.directory.display()), stage.done, stage.total);
    })?;
    progress::clear();
    if let (Quality::Bounded, Some(floor), false) = (generation.quality, generation.quality_floor, names_limit) {
        // Who names no limit gets the one that was calibrated.
        generation.max_new_tokens = engine.calibrated_tokens(floor).unwrap_or(generation.max_new_tokens);
    }

    if from_terminal {
        if chat && !engine.can_chat() {
            let problem = engine.chat_problem().map(|problem| Error::ChatTemplate(problem.to_owned()));
            return Err(problem.unwrap_or(Error::NoChatTemplate).into());
        }
        converse(&engine, &generation, flags.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = false;
    for task in tasks {
        failed |= !run(&engine, &generation, task, flags.json)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Answers one prompt; whether it could be answered. A prompt that cannot is told on standard error, and
/// leaves its error in its place.
fn run(engine: &Engine, generation: &GenerationConfig, task: Task, json: bool) -> Result<bool, anyhow::Error> {
    let Task { prompt, settings, warnings, fields, place } = task;
    let mut config = generation.clone();
    settings.lay_over(&mut config);
    let answer = prompt.and_then(|prompt| match answer(engine, prompt, &config, !json) {
        Ok(answer) => Ok(answer),
        Err(AnswerError::Output(error)) => Err(error.into()),
        Err(AnswerError::Engine(error)) => Err(error.into()),
    });
    let error = match answer {
        Ok(mut answer) => {
            answer.report.warnings.extend(warnings);
            finish(&answer, fields, json)?;
            return Ok(true);
        }
        Err(error) if error.is::<OutputFailed>() => return Err(error),
        Err(error) => error,
    };
    let sentence = place.map_or_else(|| error.to_string(), |place| format!("{place}: {error}"));
    if json {
        let error = Map::from_iter([("error".to_owned(), sentence.clone().into())]);
        print_line(&fields.object_with(&error)?)?;
    }
    note(&sentence);
    Ok(false)
}

/// Ends an answer: with its object, or with a line break and what a person wants to know.
fn finish(answer: &Answer, fields: Fields, json: bool) -> Result<(), anyhow::Error> {
    if !json {
        print_line("")?;
        summarize(answer);
        return Ok(());
    }
    match serde_json::to_value(answer)? {
        Value::Object(map) => Ok(print_line(&fields.object_with(&map)?)?),
        _ => anyhow::bail!("An answer is no JSON object; please report this."),
    }
}

/// A conversation: a line is a turn; models without a chat template continue each line by itself.
fn converse(engine: &Engine, generation: &GenerationConfig, json: bool) -> Result<(), anyhow::Error> {
    let chat = engine.can_chat();
    let mut messages: Vec<Message> = Vec::new();
    let what = if chat { "Write a message" } else { "This model has no chat template; write a text to continue" };
    say(&format!("{what}, or end with Ctrl-D.\n"));
    let mut lines = io::stdin().lock().lines();
    loop {
        say("> ");
        let line = match lines.next() {
            None => break,
            Some(Ok(line)) if line.trim().is_empty() => continue,
            Some(Ok(line)) => line,
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                note("That line is not UTF-8: write it again.");
                continue;
            }
            Some(Err(error)) => anyhow::bail!("The terminal cannot be read: {error}."),
        };
        let fields = Fields::of("prompt", &line)?;
        let prompt = if chat {
            messages.push(Message::new("user", line));
            Prompt::Messages(messages.clone())
        } else {
            Prompt::Text(line)
        };
        match answer(engine, prompt, generation, !json) {
            Ok(answer) => {
                finish(&answer, fields, json)?;
                if chat {
                    messages.push(Message::new("assistant", answer.text));
                }
            }
            Err(AnswerError::Output(error)) => return Err(error.into()),
            Err(AnswerError::Engine(Error::PromptTooLong { context, .. })) if messages.len() > 1 => {
                note(&format!(
                    "The conversation no longer fits into the model's context of {context} tokens and starts anew: write your message again."
                ));
                messages.clear();
            }
            Err(AnswerError::Engine(error)) => {
                note(&error.to_string());
                messages.pop();
            }
        }
    }
    say("\n");
    Ok(())
}

enum AnswerError {
    Engine(Error),
    Output(OutputFailed),
}

/// Generates an answer, streaming its text to standard output if `stream` says so.
fn answer(engine: &Engine, prompt: Prompt, config: &GenerationConfig, stream: bool) -> Result<Answer, AnswerError> {
    let mut progress = Progress::new();
    let show = |text: &str| {
        if !stream || text.is_empty() {
            return Ok(());
        }
        progress::clear();
        print(text).map_err(AnswerError::Output)
    };
    for event in engine.generate(prompt, config).map_err(AnswerError::Engine)? {
        match event.map_err(AnswerError::Engine)? {
            Event::Prefill { done, total } => progress.show("reading the prompt: tokens", done, total),
            Event::Token { text, .. } => show(&text)?,
            Event::Done { text, answer } => {
                show(&text)?;
                progress::clear();
                return Ok(*answer);
            }
        }
    }
    Err(AnswerError::Engine(Error::Stopped))
}

/// What a person at the terminal wants to know.
fn summarize(answer: &Answer) {
    let report = &answer.report;
    for warning in &report.warnings {
        note(warning);
    }
    if !io::stderr().is_terminal() {
        return;
    }
    let tokens = answer.tokens.len();
    let decode_ms = report.draft_ms + report.verify_ms;
    let rate = 1e3 * tokens as f64 / decode_ms.max(1e-9);
    say(&format!(
        "[{tokens} tokens, {rate:.0} a second, {:.2} per step; {}]\n",
        report.speculation.tokens_per_step, report.plan.why
    ));
}

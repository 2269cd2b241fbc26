//! `paceline generate`: answers one prompt, a file of prompts, or a conversation on the terminal.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::anyhow;
use paceline::certificate::needed_precisions;
use paceline::command::Failure;
use paceline::command::engine::{CommandEngine, ended_by_signals};
use paceline::command::fields::Fields;
use paceline::command::output::{OutputFailed, note, print, print_json, print_line, say};
use paceline::command::progress::{self, Progress};
use paceline::command::signals::{Keeping, OnSignal, received};
use paceline::{Answer, Engine, EngineConfig, Error, Event, Generation, GenerationConfig, Prompt, Quality};
use serde_json::{Map, Value};

use super::converse::converse;
use super::endings;
use super::flags::GenerateFlags;
use super::prompts::{self, Task};
use super::settings::{Settings, resolve};
use super::shipped;
use super::stats;
use super::terminal::Terminal;

/// Runs the command.
pub(super) fn generate(flags: &GenerateFlags) -> Result<ExitCode, Failure> {
    let Settings { mut engine, mut generation, names_limit } = resolve(flags)?;
    let models = shipped::or_shipped(engine.model.as_deref(), &engine.draft)?;
    let chat = flags.chat || models.shipped;
    (engine.model, engine.draft) = (Some(models.target), models.drafts);
    engine.journal = engine.journal.or_else(stats::default_journal);
    if generation.quality == Quality::Bounded && generation.quality_floor.is_some_and(|floor| floor < 1.0) {
        // Who asks for what certificates allow wants it loaded.
        engine.self_draft.extend(needed_precisions(&engine));
    }
    let asked = Asked::of(flags, chat)?;
    // Twice as many as are made at once: when one is done, the next has its prompt here already.
    let ahead = if engine.parallel > 1 { (2 * engine.parallel).min(MOST_AHEAD) } else { 1 };
    let engine = load(&engine)?;
    if let (Quality::Bounded, Some(floor), false) = (generation.quality, generation.quality_floor, names_limit) {
        // Who names no limit gets the one that was calibrated.
        generation.max_new_tokens = engine.calibrated_tokens(floor).unwrap_or(generation.max_new_tokens);
    }

    // From here on there are answers, and what they taught, to be kept.
    let keeping = Keeping::begin();
    let answered = match asked {
        Asked::Terminal(_) if chat && !engine.can_chat() => {
            let problem = engine.chat_problem().map(|problem| Error::ChatTemplate(problem.to_owned()));
            Err(problem.unwrap_or(Error::NoChatTemplate).into())
        }
        Asked::Terminal(terminal) => converse(&engine, &generation, flags.json, terminal, &keeping).map(|()| true),
        Asked::Prompts(tasks) => answer_all(&engine, &generation, tasks, ahead, flags.json),
    };
    // Writes what was learned.
    drop(engine);
    let answered = answered?;
    Ok(match (received(), answered) {
        (Some(signal), _) => signal.exit_code(),
        (None, true) => ExitCode::SUCCESS,
        (None, false) => ExitCode::FAILURE,
    })
}

/// Answers that are asked for at once, at most: no more may wait in an engine.
const MOST_AHEAD: usize = 64;

/// Where prompts come from.
enum Asked {
    /// All of them are known.
    Prompts(Vec<Task>),
    /// They are typed, one after the other.
    Terminal(Terminal),
}

impl Asked {
    /// Reads the prompts, or takes over the terminal: before anything that takes time, so that what is typed meanwhile is not cut.
    fn of(flags: &GenerateFlags, chat: bool) -> Result<Self, anyhow::Error> {
        Ok(match (&flags.prompt, &flags.prompts) {
            (Some(text), _) => Self::Prompts(vec![Task::new(text, chat)]),
            (None, Some(path)) => Self::Prompts(prompts::from_file(path, chat)?),
            (None, None) if io::stdin().is_terminal() => {
                Self::Terminal(Terminal::open().map_err(|error| anyhow!("The terminal cannot be used: {error}."))?)
            }
            (None, None) => Self::Prompts(vec![prompts::from_standard_input(chat)?]),
        })
    }
}

/// Loads an engine; its progress shows on a terminal.
fn load(config: &EngineConfig) -> Result<CommandEngine, Error> {
    let mut progress = Progress::new();
    let engine = Engine::load_with_progress(config, &mut |stage| {
        progress.show(&format!("loading {}", stage.directory.display()), stage.done, stage.total);
    })?;
    progress::clear();
    Ok(engine.into())
}

/// Answers prompts in their order, of which so many are asked for at once, until a signal comes; whether all of them could be
/// answered.
fn answer_all(
    engine: &Engine,
    generation: &GenerationConfig,
    tasks: Vec<Task>,
    ahead: usize,
    json: bool,
) -> Result<bool, anyhow::Error> {
    let total = tasks.len();
    let (mut answered, mut left, mut tasks) = (true, total, tasks.into_iter());
    let mut begun: VecDeque<Begun> = VecDeque::new();
    loop {
        while begun.len() < ahead && received().is_none() {
            let Some(task) = tasks.next() else { break };
            begun.push_back(Begun::new(engine, generation, task));
        }
        let Some(next) = begun.pop_front() else { break };
        answered &= next.end(engine, json)?;
        left -= 1;
    }
    if left > 0 {
        note(&format!("{left} of {total} prompts were not answered."));
    }
    Ok(answered)
}

/// A prompt whose answer was asked for.
struct Begun {
    config: GenerationConfig,
    /// The answer, which a signal ends early.
    generation: Result<(Generation, OnSignal), anyhow::Error>,
    warnings: Vec<String>,
    fields: Fields,
    place: Option<String>,
}

impl Begun {
    fn new(engine: &Engine, generation: &GenerationConfig, task: Task) -> Self {
        let Task { prompt, settings, warnings, fields, place } = task;
        let mut config = generation.clone();
        settings.lay_over(&mut config);
        let generation = prompt.and_then(|prompt| {
            let generation = engine.generate(prompt, &config)?;
            let on_signal = ended_by_signals(&generation);
            Ok((generation, on_signal))
        });
        Self { config, generation, warnings, fields, place }
    }

    /// Waits for the answer; whether there is one. A prompt that cannot be answered is told on standard error, and leaves its error
    /// in its place.
    fn end(self, engine: &Engine, json: bool) -> Result<bool, anyhow::Error> {
        let Self { config, generation, warnings, fields, place } = self;
        let answer = generation.and_then(|(generation, _on_signal)| match follow(generation, &config, !json) {
            Ok(answer) => Ok(answer),
            Err(AnswerError::Output(error)) => Err(error.into()),
            Err(AnswerError::Engine(error)) => Err(error.into()),
        });
        let error = match answer {
            Ok(mut answer) => {
                answer.report.warnings.extend(warnings);
                finish(engine, &config, &answer, fields, json, place.as_deref())?;
                return Ok(true);
            }
            Err(error) if error.is::<OutputFailed>() => return Err(error),
            Err(error) => error,
        };
        let sentence = place.map_or_else(|| error.to_string(), |place| format!("{place}: {error}"));
        if json {
            let error = Map::from_iter([("error".to_owned(), sentence.clone().into())]);
            print_json(&fields.object_with(&error))?;
        }
        note(&sentence);
        Ok(false)
    }
}

/// Ends an answer: with its object, or with a line break and what a person wants to know. `place` is where its prompt stands, if
/// that is a line of many.
pub(super) fn finish(
    engine: &Engine,
    config: &GenerationConfig,
    answer: &Answer,
    fields: Fields,
    json: bool,
    place: Option<&str>,
) -> Result<(), anyhow::Error> {
    if !json {
        print_line("")?;
        let ending = endings::sentence(engine, config, answer);
        summarize(answer, ending, place);
        return Ok(());
    }
    match serde_json::to_value(answer)? {
        Value::Object(map) => Ok(print_json(&fields.object_with(&map))?),
        _ => anyhow::bail!("An answer is not a JSON object; please report this."),
    }
}

/// Why there is no answer.
pub(super) enum AnswerError {
    Engine(Error),
    Output(OutputFailed),
}

/// Generates an answer, streaming its text to standard output if `stream` says so; else its progress shows on a terminal. A signal
/// ends it early.
pub(super) fn answer(
    engine: &Engine,
    prompt: Prompt,
    config: &GenerationConfig,
    stream: bool,
) -> Result<Answer, AnswerError> {
    let generation = engine.generate(prompt, config).map_err(AnswerError::Engine)?;
    let _on_signal = ended_by_signals(&generation);
    follow(generation, config, stream)
}

/// Follows an answer to its end, as [`answer`].
fn follow(mut generation: Generation, config: &GenerationConfig, stream: bool) -> Result<Answer, AnswerError> {
    let mut progress = Progress::new();
    let (mut begun, mut tokens) = (false, 0);
    while let Some(event) = generation.next() {
        let (text, answer) = match event.map_err(|error| broken_off(error, begun))? {
            Event::Prefill { done, total } => {
                progress.show("reading the prompt: tokens", done, total);
                continue;
            }
            Event::Token { text, .. } => {
                tokens += 1;
                if !stream {
                    progress.show("writing the answer: tokens, of those allowed", tokens, config.max_new_tokens);
                }
                (text, None)
            }
            Event::Done { text, answer } => (text, Some(answer)),
        };
        if let Err(error) = show(&text, stream) {
            give_up(generation);
            return Err(AnswerError::Output(error));
        }
        begun |= stream && !text.is_empty();
        if let Some(answer) = answer {
            progress::clear();
            return Ok(*answer);
        }
    }
    Err(AnswerError::Engine(Error::Stopped))
}

/// An error that ended an answer. Text that was shown of it gets its line break, so that the sentence has a line of its own.
fn broken_off(error: Error, begun: bool) -> AnswerError {
    match if begun { print_line("") } else { Ok(()) } {
        Ok(()) => AnswerError::Engine(error),
        Err(failed) => AnswerError::Output(failed),
    }
}

fn show(text: &str, stream: bool) -> Result<(), OutputFailed> {
    if !stream || text.is_empty() {
        return Ok(());
    }
    progress::clear();
    print(text)
}

/// Ends an answer that nobody reads, so that it is in the journal as far as it got.
fn give_up(generation: Generation) {
    generation.cancel();
    // The reader has gone, which is told; what else goes wrong concerns nobody any more.
    let _ = generation.finish();
}

/// Prints a summary for a person at the terminal, and first `ending`: where an answer ended that is not complete.
fn summarize(answer: &Answer, ending: Option<String>, place: Option<&str>) {
    let report = &answer.report;
    if let Some(sentence) = ending {
        note(&place.map_or_else(|| sentence.clone(), |place| format!("{place}: {sentence}")));
    }
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

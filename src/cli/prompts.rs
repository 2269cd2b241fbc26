//! Prompts from a flag, a file of JSON lines or standard input.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{anyhow, bail};
use paceline::{Message, Prompt, RequestHints};
use serde_json::{Map, Value};

/// What an answer's object holds besides the fields of its prompt's line. A line that has them (an answer
/// from an earlier run, say) does not get them back: an old error beside a new answer would mislead.
const ANSWER_FIELDS: [&str; 6] = ["prompt_tokens", "tokens", "text", "finish_reason", "report", "error"];

/// The largest prompts file that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 30;

/// The largest prompt on standard input, in bytes; far longer than the context of any model.
const LARGEST_INPUT: u64 = 64 << 20;

/// A prompt and what came with it.
pub(super) struct Task {
    /// What to answer, or why that cannot be told.
    pub(super) prompt: Result<Prompt, anyhow::Error>,
    /// The prompt's own seed.
    pub(super) seed: Option<u64>,
    /// What its line says for the router.
    pub(super) hints: Option<RequestHints>,
    /// The fields of its line, which come back with the answer.
    pub(super) fields: Map<String, Value>,
    /// Its line, if it is one of a file.
    pub(super) place: Option<String>,
}

impl Task {
    /// A prompt by itself.
    pub(super) fn new(text: &str, chat: bool) -> Self {
        let fields = Map::from_iter([("prompt".to_owned(), Value::from(text))]);
        Self { prompt: Ok(prompt(text, chat)), seed: None, hints: None, fields, place: None }
    }

    /// A line of a prompts file.
    fn from_line(line: &[u8], place: String, chat: bool) -> Self {
        match object(line) {
            Err(error) => Self { prompt: Err(error), seed: None, hints: None, fields: Map::new(), place: Some(place) },
            Ok(mut fields) => {
                fields.retain(|key, _| !ANSWER_FIELDS.contains(&key.as_str()));
                let settings = seed_of(&fields).and_then(|seed| Ok((seed, hints_of(&fields)?)));
                let ((seed, hints), prompt) = match settings {
                    Ok(settings) => (settings, prompt_of(&fields, chat)),
                    Err(error) => ((None, None), Err(error)),
                };
                Self { prompt, seed, hints, fields, place: Some(place) }
            }
        }
    }
}

/// The object on a line.
fn object(line: &[u8]) -> Result<Map<String, Value>, anyhow::Error> {
    let text = std::str::from_utf8(line)
        .map_err(|error| anyhow!("not UTF-8 at byte {}: save the file as UTF-8.", error.valid_up_to() + 1))?;
    serde_json::from_str(text).map_err(|error| {
        let (column, message) = (error.column(), error.to_string());
        // The reader sees a line at a time, so that its line number is always 1.
        let reason = message.strip_suffix(&format!(" at line 1 column {column}")).unwrap_or(&message);
        anyhow!("no JSON object ({reason}, column {column}): write one object a line, like {{\"prompt\": \"..\"}}.")
    })
}

/// A field that is there; `null` is how some programs write that it is not.
fn field<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.get(key).filter(|value| !value.is_null())
}

fn seed_of(fields: &Map<String, Value>) -> Result<Option<u64>, anyhow::Error> {
    match field(fields, "seed") {
        None => Ok(None),
        Some(seed) => match seed.as_u64() {
            Some(seed) => Ok(Some(seed)),
            None => bail!("the seed {seed} cannot be used: write a whole number from 0 to 2^64 - 1."),
        },
    }
}

fn hints_of(fields: &Map<String, Value>) -> Result<Option<RequestHints>, anyhow::Error> {
    let Some(hints) = field(fields, "hints") else { return Ok(None) };
    let read: Result<RequestHints, String> = serde_json::from_value(hints.clone()).map_err(|error| error.to_string());
    let checked = read.and_then(|hints| hints.check().map(|()| hints));
    checked
        .map(Some)
        .map_err(|reason| anyhow!("`hints` cannot be used ({reason}): write an object like {{\"load\": 0.5}}."))
}

fn prompt_of(fields: &Map<String, Value>, chat: bool) -> Result<Prompt, anyhow::Error> {
    match (field(fields, "prompt"), field(fields, "messages")) {
        (Some(_), Some(_)) => bail!("both `prompt` and `messages` are there: keep one of them."),
        (Some(Value::String(text)), None) => Ok(prompt(text, chat)),
        (Some(_), None) => bail!("`prompt` is no text: write it in quotes."),
        (None, Some(messages)) => serde_json::from_value(messages.clone()).map(Prompt::Messages).map_err(|error| {
            anyhow!("`messages` cannot be used ({error}): write a list of objects with the texts `role` and `content`.")
        }),
        (None, None) => bail!("neither `prompt` nor `messages` is there: give one of them."),
    }
}

fn prompt(text: &str, chat: bool) -> Prompt {
    if chat {
        Prompt::Messages(vec![Message { role: "user".into(), content: text.into() }])
    } else {
        Prompt::Text(text.into())
    }
}

/// The prompts of a file, one JSON object a line; empty lines are passed over. A line that cannot be used
/// becomes a task that says why.
pub(super) fn from_file(path: &Path, chat: bool) -> Result<Vec<Task>, anyhow::Error> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
    let length = read.map_err(|error| {
        anyhow!("The prompts file {shown} cannot be read: {error}; check its name and its permissions.")
    })?;
    if length as u64 > LARGEST_FILE {
        bail!("The prompts file {shown} has more than the {LARGEST_FILE} bytes that are read; split it.");
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    let tasks: Vec<Task> = lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| Task::from_line(line, format!("Line {} of {shown}", index + 1), chat))
        .collect();
    if tasks.is_empty() {
        bail!("The prompts file {shown} holds no prompts: write an object a line, like {{\"prompt\": \"..\"}}.");
    }
    Ok(tasks)
}

/// Standard input as one prompt, without its last line break.
pub(super) fn from_standard_input(chat: bool) -> Result<Task, anyhow::Error> {
    let mut bytes = Vec::new();
    let length = std::io::stdin()
        .take(LARGEST_INPUT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| anyhow!("Standard input cannot be read: {error}; give the prompt with `--prompt`."))?;
    if length as u64 > LARGEST_INPUT {
        bail!("The prompt on standard input has more than the {LARGEST_INPUT} bytes that are read; shorten it.");
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to() + 1;
        anyhow!("The prompt on standard input is not UTF-8 at byte {byte}: convert it first.")
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Task::new(text.strip_suffix('\r').unwrap_or(text), chat))
}

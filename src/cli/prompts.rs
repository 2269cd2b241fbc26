//! Prompts from a flag, a file of JSON lines or standard input.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use paceline::{Message, Prompt};
use serde_json::{Map, Value};

/// A prompt and what came with it.
pub(super) struct Task {
    /// What to answer, or why that cannot be told.
    pub(super) prompt: Result<Prompt, anyhow::Error>,
    /// The prompt's own seed.
    pub(super) seed: Option<u64>,
    /// The other fields of its line, which come back with the answer.
    pub(super) fields: Map<String, Value>,
}

impl Task {
    /// A prompt by itself.
    pub(super) fn new(text: &str, chat: bool) -> Self {
        let fields = Map::from_iter([("prompt".to_owned(), Value::from(text))]);
        Self { prompt: Ok(prompt(text, chat)), seed: None, fields }
    }

    /// A line of a prompts file.
    fn from_line(line: &str, place: &str, chat: bool) -> Self {
        match serde_json::from_str::<Map<String, Value>>(line) {
            Err(error) => Self {
                prompt: Err(anyhow::anyhow!("{place} is no JSON object ({error}): write one object a line.")),
                seed: None,
                fields: Map::new(),
            },
            Ok(mut fields) => {
                let seed = match fields.remove("seed") {
                    None => Ok(None),
                    Some(seed) => seed.as_u64().map(Some).ok_or_else(|| {
                        anyhow::anyhow!("{place} has the seed {seed}: write a whole number from 0 to 2^64 - 1.")
                    }),
                };
                let prompt = seed.as_ref().map_or_else(|error| Err(anyhow::anyhow!("{error}")), |_| {
                    prompt_of(&fields, place, chat)
                });
                Self { prompt, seed: seed.ok().flatten(), fields }
            }
        }
    }
}

fn prompt(text: &str, chat: bool) -> Prompt {
    if chat {
        Prompt::Messages(vec![Message { role: "user".into(), content: text.into() }])
    } else {
        Prompt::Text(text.into())
    }
}

fn prompt_of(fields: &Map<String, Value>, place: &str, chat: bool) -> Result<Prompt, anyhow::Error> {
    match (fields.get("prompt"), fields.get("messages")) {
        (Some(_), Some(_)) => anyhow::bail!("{place} has both `prompt` and `messages`: keep one of them."),
        (Some(Value::String(text)), None) => Ok(prompt(text, chat)),
        (Some(_), None) => anyhow::bail!("{place} has a `prompt` that is no text."),
        (None, Some(messages)) => serde_json::from_value(messages.clone())
            .map(Prompt::Messages)
            .map_err(|error| anyhow::anyhow!("{place} has `messages` that are not a list of role and content: {error}.")),
        (None, None) => anyhow::bail!("{place} has neither `prompt` nor `messages`: give one of them."),
    }
}

/// The prompts of a file, one JSON object a line; empty lines are passed over.
pub(super) fn from_file(path: &Path, chat: bool) -> Result<Vec<Task>, anyhow::Error> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("The prompts file {shown} cannot be read"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    Ok(lines.map(|(index, line)| Task::from_line(line, &format!("Line {} of {shown}", index + 1), chat)).collect())
}

/// Standard input as one prompt, without its last line break.
pub(super) fn from_standard_input(chat: bool) -> Result<Task, anyhow::Error> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("The prompt on standard input cannot be read")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Task::new(text.strip_suffix('\r').unwrap_or(text), chat))
}

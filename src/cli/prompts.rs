//! Prompts from a flag, a file of JSON lines or standard input.

use std::io::Read;
use std::path::Path;

use anyhow::{anyhow, bail};
use paceline::command::fields::{self, Fields};
use paceline::command::wording::in_words;
use paceline::files::{ReadError, read_input};
use paceline::{GenerationConfig, Message, Prompt, RequestHints};
use serde_json::{Map, Value};

/// Fields of an answer's object besides those of its prompt's line. A line that has them (an answer from an earlier
/// run, say) does not get them back: an old error beside a new answer would mislead.
const ANSWER_FIELDS: [&str; 6] = ["prompt_tokens", "tokens", "text", "finish_reason", "report", "error"];

/// The largest prompts file that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 30;

/// The largest prompt on standard input, in bytes; far longer than the context of any model.
const LARGEST_INPUT: u64 = 64 << 20;

/// A prompt and what came with it.
pub(super) struct Task {
    /// The prompt to answer, or why it cannot be told.
    pub(super) prompt: Result<Prompt, anyhow::Error>,
    /// Settings of its line.
    pub(super) settings: LineSettings,
    /// Sentences about its line, for the report.
    pub(super) warnings: Vec<String>,
    /// The fields of its line, which come back with the answer.
    pub(super) fields: Fields,
    /// Its line, if it is one of a file.
    pub(super) place: Option<String>,
}

/// Settings that a line makes for its own answer.
#[derive(Debug, Default)]
pub(super) struct LineSettings {
    /// The prompt's own seed.
    seed: Option<u64>,
    /// Hints of its line for the router.
    hints: Option<RequestHints>,
    /// Arguments of its line for the chat template.
    template_args: Map<String, Value>,
}

impl LineSettings {
    /// Lays them over the settings of all answers.
    pub(super) fn lay_over(self, config: &mut GenerationConfig) {
        config.sampling.seed = self.seed.unwrap_or(config.sampling.seed);
        config.hints = self.hints.unwrap_or(config.hints);
        config.template_args.extend(self.template_args);
    }
}

/// The fields of a line that are read.
const READ_FIELDS: [&str; 10] = [
    "prompt",
    "messages",
    "seed",
    "hints",
    "tools",
    "documents",
    "template_args",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
];

impl Task {
    /// A prompt by itself.
    pub(super) fn new(text: &str, chat: bool) -> Self {
        Self { fields: Fields::of("prompt", text), ..Self::with(Ok(prompt(text, chat)), None) }
    }

    fn with(prompt: Result<Prompt, anyhow::Error>, place: Option<String>) -> Self {
        Self { prompt, settings: LineSettings::default(), warnings: Vec::new(), fields: Fields::default(), place }
    }

    /// A line of a prompts file.
    fn from_line(line: &[u8], place: String, chat: bool) -> Self {
        match object(line) {
            Err(error) => Self::with(Err(error), Some(place)),
            Ok(mut fields) => {
                fields.remove(&ANSWER_FIELDS);
                let warnings = names_that_do_nothing(&fields);
                let (settings, prompt) = match settings_of(&fields) {
                    Ok(settings) => (settings, prompt_of(&fields, chat)),
                    Err(error) => (LineSettings::default(), Err(error)),
                };
                Self { prompt, settings, warnings, fields, place: Some(place) }
            }
        }
    }
}

/// The object on a line.
fn object(line: &[u8]) -> Result<Fields, anyhow::Error> {
    let text = std::str::from_utf8(line)
        .map_err(|error| anyhow!("not UTF-8 at byte {}: save the file as UTF-8.", error.valid_up_to() + 1))?;
    fields::read(text)
        .map_err(|error| anyhow!("no JSON object ({error}): write one object a line, like {{\"prompt\": \"..\"}}."))
}

/// Sentences about fields that look as if they were to set something, and do not: flags, and names that are mistyped.
fn names_that_do_nothing(fields: &Fields) -> Vec<String> {
    let flags = [
        "max_new_tokens",
        "max_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "stop",
        "ignore_eos",
        "drafter",
        "draft_len",
        "quality",
        "quality_floor",
        "profile",
        "weights",
    ];
    let sentence = |name: String| {
        let known = name.replace('-', "_");
        if READ_FIELDS.contains(&known.as_str()) {
            return None;
        }
        if flags.contains(&known.as_str()) {
            return Some(format!(
                "The field `{name}` of its line sets nothing: settings like it are flags of the whole run."
            ));
        }
        let meant = READ_FIELDS.iter().chain(&flags).find(|meant| meant.len() > 4 && is_one_edit_away(&known, meant));
        meant.map(|meant| format!("The field `{name}` of its line does nothing; is `{meant}` meant?"))
    };
    fields.names().filter_map(sentence).collect()
}

/// True if one letter more, less, other or swapped makes one text of the other.
fn is_one_edit_away(one: &str, other: &str) -> bool {
    // Names may have any length, and the distance takes their product.
    one.len().abs_diff(other.len()) <= 1 && strsim::generic_damerau_levenshtein(one.as_bytes(), other.as_bytes()) == 1
}

fn settings_of(fields: &Fields) -> Result<LineSettings, anyhow::Error> {
    let seed = match fields.text("seed")? {
        None => None,
        Some(text) => match serde_json::from_str(text) {
            Ok(seed) => Some(seed),
            Err(_) => bail!("the seed {text} cannot be used: write a whole number from 0 to 2^64 - 1."),
        },
    };
    let mut template_args = Map::new();
    for name in ["chat_template_kwargs", "template_args"] {
        let given = fields.value::<Map<String, Value>>(name);
        template_args.extend(
            given
                .map_err(|error| anyhow!("{error}: write an object, like {{\"enable_thinking\": false}}."))?
                .into_iter()
                .flatten(),
        );
    }
    for name in ["tools", "documents", "add_generation_prompt", "continue_final_message"] {
        template_args.extend(fields.value(name)?.map(|value| (name.to_owned(), value)));
    }
    Ok(LineSettings { seed, hints: hints_of(fields)?, template_args })
}

fn hints_of(fields: &Fields) -> Result<Option<RequestHints>, anyhow::Error> {
    let Some(text) = fields.text("hints")? else { return Ok(None) };
    let read = serde_json::from_str(text).map_err(|error| error.to_string());
    let read = read.and_then(|hints| RequestHints::from_json(&hints)).map_err(|reason| in_words(&reason));
    let checked = read.and_then(|hints| hints.check().map(|()| hints));
    checked
        .map(Some)
        .map_err(|reason| anyhow!("`hints` cannot be used ({reason}): write an object like {{\"load\": 0.5}}."))
}

fn prompt_of(fields: &Fields, chat: bool) -> Result<Prompt, anyhow::Error> {
    match (fields.text("prompt")?, fields.text("messages")?) {
        (Some(_), Some(_)) => bail!("both `prompt` and `messages` are there: keep one of them."),
        (Some(text), None) => match serde_json::from_str::<String>(text) {
            Ok(text) => Ok(prompt(&text, chat)),
            Err(_) if text.starts_with('"') => {
                bail!("`prompt` is not text that Unicode allows: half of a surrogate pair is not a character.")
            }
            Err(_) => bail!("`prompt` is not text: write it in quotes."),
        },
        (None, Some(_)) => match fields.value::<Vec<Message>>("messages") {
            Ok(Some(messages)) if !messages.is_empty() => Ok(Prompt::Messages(messages)),
            Ok(_) => bail!("`messages` is empty: write a list of objects with the texts `role` and `content`."),
            // Some say themselves what to do.
            Err(error) if error.to_string().ends_with('.') => bail!("{error}"),
            Err(error) => bail!("{error}: write a list of objects with the texts `role` and `content`."),
        },
        (None, None) => bail!("neither `prompt` nor `messages` is there: give one of them."),
    }
}

fn prompt(text: &str, chat: bool) -> Prompt {
    if chat { Prompt::Messages(vec![Message::new("user", text)]) } else { Prompt::Text(text.into()) }
}

/// The prompts of a file, one JSON object a line; empty lines are passed over. A line that cannot be used
/// becomes a task that says why.
pub(super) fn from_file(path: &Path, chat: bool) -> Result<Vec<Task>, anyhow::Error> {
    let shown = path.display();
    let bytes = read_input(path, LARGEST_FILE).map_err(|error| match error {
        ReadError::TooLarge { most } => {
            anyhow!("The prompts file {shown} has more than the {most} bytes that are read; split it.")
        }
        error => anyhow!("The prompts file {shown} cannot be read: {error}; check its name and its permissions."),
    })?;
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

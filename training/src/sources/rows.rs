//! JSON lines: an object a line, with a conversation and its answer, or with text.

use std::path::{Path, PathBuf};

use paceline::Message;
use serde_json::{Map, Value};

use super::SourceError;
use super::lines::Lines;
use crate::settings::Fields;

/// A line may have so many bytes.
const LONGEST: usize = 16 << 20;

/// The content of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A conversation, and what the assistant is to answer.
    Answer {
        /// The messages before.
        messages: Vec<Message>,
        /// The answer.
        answer: String,
    },
    /// Text, learned as a whole.
    Text(String),
}

impl Row {
    /// All words in it, for a vocabulary to be learned from.
    pub fn words(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Answer { messages, answer } => {
                let contents = messages.iter().map(Message::content);
                contents.chain([answer.as_str()]).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// The rows of a file. Blank lines are passed over.
#[derive(Debug)]
pub struct Rows {
    path: PathBuf,
    lines: Lines,
    line: u64,
    fields: Fields,
}

impl Rows {
    /// Opens the JSON lines at `path`, whose fields are called as `fields` says.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, fields: &Fields) -> Result<Self, SourceError> {
        Ok(Self { path: path.to_owned(), lines: Lines::open(path, LONGEST)?, line: 0, fields: fields.clone() })
    }

    /// Bytes of the file read so far.
    pub fn read(&self) -> u64 {
        self.lines.read()
    }

    /// The row that came last, for messages.
    pub fn place(&self) -> String {
        format!("Line {} of {}", self.line, self.path.display())
    }

    /// An error about the row that came last.
    fn refuse(&self, reason: String) -> SourceError {
        SourceError::Row { path: self.path.clone(), line: self.line, reason }
    }

    fn advance(&mut self) -> Result<Option<Row>, SourceError> {
        loop {
            let Some(line) = self.lines.next()? else { return Ok(None) };
            self.line += 1;
            if line.len() + 4 > LONGEST {
                return Err(self.refuse(format!("has more than the {LONGEST} bytes that are read; split it")));
            }
            if !line.trim().is_empty() {
                return row(line.trim(), &self.fields).map(Some).map_err(|reason| self.refuse(reason));
            }
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Row, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// The row on a line, or the rest of a sentence that begins with the line.
fn row(line: &str, fields: &Fields) -> Result<Row, String> {
    let mut object: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
        let (column, message) = (error.column(), error.to_string());
        let reason = message.strip_suffix(&format!(" at line 1 column {column}")).unwrap_or(&message);
        format!("is not a JSON object ({reason}, column {column}); write one object a line")
    })?;
    let mut text = |key: &str| match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        // As in plain text.
        Some(Value::String(text)) => Ok(Some(text.replace("\r\n", "\n"))),
        Some(other) => Err(format!("has a `{key}` that is not text ({}); write it in quotes", kind(&other))),
    };
    let (whole, answer) = (text(&fields.text), text(&fields.answer));
    let prompt = text(&fields.prompt);
    let messages = match object.remove(&fields.messages) {
        None | Some(Value::Null) => None,
        Some(messages) => Some(serde_json::from_value(messages).map_err(|error| {
            format!(
                "has `{}` that cannot be used ({error}); write a list of objects with the texts `role` and `content`",
                fields.messages
            )
        })?),
    };
    let user = |content: String| vec![Message::new("user", content)];
    let messages: Option<Vec<Message>> = match (messages, prompt?) {
        (Some(_), Some(_)) => {
            return Err(format!("has both `{}` and `{}`; keep one of them", fields.messages, fields.prompt));
        }
        (messages, prompt) => messages.or(prompt.map(user)),
    };
    match (messages, answer?, whole?) {
        (Some(messages), Some(answer), _) if !messages.is_empty() => Ok(Row::Answer { messages, answer }),
        (None, None, Some(text)) => Ok(Row::Text(text)),
        (Some(_), Some(_), _) => Err(format!("has empty `{}`; write what the user says", fields.messages)),
        _ => Err(format!(
            "has neither `{}` or `{}` with `{}`, nor `{}`; name the fields with `fields = {{ .. }}` in the recipe if \
             they are called otherwise",
            fields.messages, fields.prompt, fields.answer, fields.text
        )),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn read(text: &str, fields: &Fields) -> Result<Vec<Row>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let rows = Rows::open(file.path(), fields).unwrap().collect::<Result<Vec<Row>, SourceError>>();
        rows.map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
    }

    fn message(role: &str, content: &str) -> Message {
        Message::new(role, content)
    }

    #[test]
    fn conversations_prompts_and_texts_are_read() {
        let text = r#"{"id": 1, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "answer": "a\r\nb"}

{"prompt": "p", "answer": "a", "text": null}
{"text": "t"}"#;
        let rows = read(text, &Fields::default()).unwrap();
        let answer = |messages: Vec<Message>, answer: &str| Row::Answer { messages, answer: answer.into() };
        let messages = vec![message("system", "s"), message("user", "u")];
        let expected = [answer(messages, "a\nb"), answer(vec![message("user", "p")], "a"), Row::Text("t".into())];
        assert_eq!(rows, expected);
        assert_eq!(rows[0].words(), "s\nu\na\nb");
        let fields = Fields { prompt: "text".into(), answer: "code".into(), text: "-".into(), ..Fields::default() };
        let rows = read("{\"text\": \"p\", \"code\": \"c\", \"test\": [1]}", &fields).unwrap();
        assert_eq!(rows, [answer(vec![message("user", "p")], "c")]);
    }

    #[test]
    fn rows_that_cannot_be_used_are_told_with_their_line() {
        for (line, said) in [
            ("{", "is not a JSON object (EOF while parsing an object, column 1)"),
            ("[]", "is not a JSON object"),
            ("{}", "has neither `messages` or `prompt` with `answer`, nor `text`"),
            ("{\"prompt\": \"p\"}", "has neither"),
            ("{\"answer\": \"p\", \"text\": \"t\"}", "has neither"),
            ("{\"prompt\": 3, \"answer\": \"a\"}", "has a `prompt` that is not text (a number)"),
            ("{\"messages\": \"m\", \"answer\": \"a\"}", "has `messages` that cannot be used"),
            ("{\"messages\": [], \"answer\": \"a\"}", "has empty `messages`"),
            ("{\"messages\": [], \"prompt\": \"p\", \"answer\": \"a\"}", "has both `messages` and `prompt`"),
        ] {
            let message = read(&format!("\n{{\"text\": \"t\"}}\n{line}\n"), &Fields::default()).unwrap_err();
            assert!(message.starts_with("Line 3 of FILE ") && message.contains(said), "{message}");
            assert!(message.ends_with('.') && !message.contains('\n'), "{message}");
        }
        let long = format!("{{\"text\": \"{}\"}}", "x".repeat(LONGEST));
        assert!(read(&long, &Fields::default()).unwrap_err().contains("more than the"));
    }
}

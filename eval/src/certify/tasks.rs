//! Calibration prompts, and what an answer to one loses.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{anyhow, bail};
use paceline::certificate::{Loss, Rendering};
use paceline::checksum::Checksum;
use paceline::files::{self, Object};
use paceline::routing::identity::written;
use paceline::{Answer, Message, Prompt};
use serde::Deserialize;

use crate::prompts::{Check, LARGEST_PROMPTS};

/// A prompt with what makes an answer to it right.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name.
    pub id: String,
    /// The prompt.
    pub prompt: Prompt,
    /// The one right answer and how it is compared, where there is one.
    pub check: Option<Check>,
}

/// A line of the file. Other fields are left alone.
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    category: String,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    answer: Option<String>,
}

/// The prompts of a file of JSON lines, and the file's hash. Plain prompts are turns of a conversation where `chat` says so.
///
/// # Errors
/// When the file cannot be read, or a line is no prompt: a certificate is of all prompts, so none is left out. And when a prompt
/// comes twice, as each counts as drawn by itself.
pub fn read_tasks(path: &Path, chat: bool) -> Result<(Vec<Task>, String), anyhow::Error> {
    let shown = path.display();
    let text = files::read_input_text(path, LARGEST_PROMPTS).map_err(|error| {
        anyhow!("The prompts {shown} cannot be read ({error}): name a file of JSON lines like datasets/tasks/calibration.jsonl.")
    })?;
    let mut tasks: Vec<Task> = Vec::new();
    let mut lines = HashMap::new();
    for (place, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |reason: String| {
            anyhow!(
                "Line {place} of the prompts {shown} cannot be used ({reason}): a line needs `prompt` or `messages`, and best `id`, `category` and `answer`."
            )
        };
        let Object(row): Object<Row> = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        let task = task(row, place, chat).map_err(bad)?;
        if let Some(earlier) = lines.insert(format!("{:?}", task.prompt), place) {
            bail!(
                "Lines {earlier} and {place} of the prompts {shown} are the same prompt, and certificates count each as one drawn by itself: leave one of them out."
            );
        }
        tasks.push(task);
    }
    if tasks.is_empty() {
        bail!("The prompts {shown} are empty: name a file with a prompt in every line.");
    }
    Ok((tasks, written(Checksum::of(text.as_bytes()))))
}

/// The way prompts become tokens.
pub fn rendering(tasks: &[Task]) -> Rendering {
    let are_messages = |task: &Task| matches!(task.prompt, Prompt::Messages(_));
    match (tasks.iter().all(are_messages), tasks.iter().any(are_messages)) {
        (true, _) => Rendering::Messages,
        (false, true) => Rendering::Both,
        (false, false) => Rendering::Text,
    }
}

/// The definition of their loss ([`Task::loss`]).
pub fn loss(tasks: &[Task]) -> Loss {
    let is_known = |task: &Task| task.check.is_some();
    match (tasks.iter().all(is_known), tasks.iter().any(is_known)) {
        (true, _) => Loss::Answers,
        (false, true) => Loss::Both,
        (false, false) => Loss::Tokens,
    }
}

fn task(row: Row, place: usize, chat: bool) -> Result<Task, String> {
    let prompt = match (row.prompt, row.messages) {
        (Some(content), None) if chat => Prompt::Messages(vec![Message::new("user", content)]),
        (Some(text), None) => Prompt::Text(text),
        (None, Some(messages)) => Prompt::Messages(messages),
        (Some(_), Some(_)) => return Err("it has both `prompt` and `messages`".to_owned()),
        (None, None) => return Err("it has neither `prompt` nor `messages`".to_owned()),
    };
    let check = row.answer.map(|answer| Check::of_task(&row.category, answer));
    // A line of the losses is a row, whatever a prompt is called.
    let id = row.id.map_or_else(|| place.to_string(), |id| id.replace(char::is_control, " "));
    Ok(Task { id, prompt, check })
}

impl Task {
    /// True if an answer is right; `None` where no right one is known.
    pub fn is_right(&self, answer: &Answer) -> Option<bool> {
        self.check.as_ref().map(|check| check.is_right(&answer.text))
    }

    /// The loss of an answer against the target's, from 0 to 1: a right answer, or, where none is known, the share of
    /// tokens from the first that differs on.
    pub fn loss(&self, target: &Answer, answer: &Answer) -> f64 {
        match (self.is_right(target), self.is_right(answer)) {
            (Some(target), Some(answer)) => f64::from(u8::from(target && !answer)),
            _ => divergence(&target.tokens, &answer.tokens),
        }
    }
}

/// The share of tokens from the first that differs on, of the longer of both.
fn divergence(target: &[u32], answer: &[u32]) -> f64 {
    let same = target.iter().zip(answer).take_while(|(target, answer)| target == answer).count();
    let longer = target.len().max(answer.len());
    (longer - same) as f64 / longer.max(1) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn read(text: &str, chat: bool) -> Result<Vec<Task>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_tasks(file.path(), chat).map(|(tasks, _)| tasks).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_of_all_kinds_are_read() {
        let text = "{\"prompt\": \"a\"}\n\n{\"id\": \"x\", \"messages\": [{\"role\": \"user\", \"content\": \"b\"}], \
                    \"category\": \"code\", \"answer\": \"c\", \"level\": \"simple\"}\n";
        let tasks = read(text, false).unwrap();
        assert_eq!((tasks[0].id.as_str(), tasks[1].id.as_str()), ("1", "x"));
        assert!(matches!(&tasks[0].prompt, Prompt::Text(text) if text == "a"));
        assert_eq!((tasks[0].check.clone(), tasks[1].check.clone()), (None, Some(Check::Lines("c".into()))));
        assert!(
            matches!(&read(text, true).unwrap()[0].prompt, Prompt::Messages(messages) if messages[0].content() == "a")
        );
        for (text, words) in [
            ("", "are empty"),
            ("{\"prompt\": \"a\"}\n{", "Line 2"),
            ("[\"a\", \"code\", \"b\", null, \"c\"]", "expected an object"),
            ("{\"id\": \"a\"}", "neither"),
            ("{\"prompt\": \"a\", \"messages\": []}", "both"),
            (
                "{\"prompt\": \"a\"}\n\n{\"prompt\": \"b\"}\n{\"id\": \"x\", \"prompt\": \"a\"}",
                "Lines 1 and 4 of the prompts",
            ),
        ] {
            let error = read(text, false).unwrap_err();
            assert!(error.contains(words) && error.ends_with('.'), "{error}");
        }
    }

    #[test]
    fn a_turn_is_the_same_prompt_however_it_is_written() {
        let text = "{\"prompt\": \"a\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}";
        assert_eq!(read(text, false).unwrap().len(), 2);
        assert!(read(text, true).unwrap_err().contains("Lines 1 and 2"));
    }

    #[test]
    fn how_prompts_are_rendered_and_losses_counted_is_told() {
        let (text, message) = ("{\"prompt\": \"a\"}", "{\"messages\": [], \"answer\": \"b\"}");
        let both = format!("{text}\n{message}");
        for (lines, chat, expected) in [
            (text, false, (Rendering::Text, Loss::Tokens)),
            (text, true, (Rendering::Messages, Loss::Tokens)),
            (message, false, (Rendering::Messages, Loss::Answers)),
            (&both, false, (Rendering::Both, Loss::Both)),
            (&both, true, (Rendering::Messages, Loss::Both)),
        ] {
            let tasks = read(lines, chat).unwrap();
            assert_eq!((rendering(&tasks), loss(&tasks)), expected, "{lines} {chat}");
        }
    }

    #[test]
    fn losses_are_right_answers_lost_or_tokens_that_differ() {
        assert!(Check::Words("a  b".into()).is_right(" a\nb ") && !Check::Words("a b".into()).is_right("ab"));
        assert!(
            Check::Lines("a\n  b".into()).is_right("a  \n  b\n") && !Check::Lines("a\n  b".into()).is_right("a\n b")
        );
        for (target, answer, expected) in [
            (&[1, 2, 3, 4][..], &[1, 2, 3, 4][..], 0.0),
            (&[1, 2, 3, 4], &[1, 9, 3, 4], 0.75),
            (&[1, 2], &[1, 2, 3, 4], 0.5),
            (&[1, 2, 3, 4], &[], 1.0),
            (&[], &[], 0.0),
        ] {
            assert_eq!(divergence(target, answer), expected, "{target:?}, {answer:?}");
        }
    }
}

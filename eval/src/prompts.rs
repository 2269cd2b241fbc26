//! Prompts of a suite: readers for the project's task sets, plain lists, Spec-Bench, GSM8K and HumanEval.
//!
//! A row that cannot be used is told with its line and left out; the rest is kept.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use paceline::command::fields;
use paceline::files;
use paceline::{Message, Prompt};
use serde::Deserialize;

/// Format of a file of prompts; all are JSON lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `prompt` or `messages`, and where there are some `id`, `category`, `level`, `answer`.
    #[default]
    Tasks,
    /// `question_id`, `category` and `turns`, of which the first is asked; no answers (Xia et al. 2024).
    SpecBench,
    /// `question`, and an `answer` that ends in `#### NUMBER` (Cobbe et al. 2021).
    Gsm8k,
    /// `task_id` and a `prompt` of code to continue. The code is not run, so there is no right answer (Chen et al.
    /// 2021).
    Humaneval,
}

/// Check of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The same words.
    Words(String),
    /// The same lines, but for white space at their ends.
    Lines(String),
    /// The last number is this one.
    Number(String),
}

impl Check {
    /// The check for answers of a category of the task sets.
    pub fn of_task(category: &str, answer: String) -> Self {
        if category == "code" { Self::Lines(answer) } else { Self::Words(answer) }
    }

    /// True if the given answer is right.
    pub fn is_right(&self, given: &str) -> bool {
        let lines = |text: &str| text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        match self {
            Self::Words(answer) => answer.split_whitespace().eq(given.split_whitespace()),
            Self::Lines(answer) => lines(answer) == lines(given),
            Self::Number(answer) => last_number(given).is_some_and(|number| number == *answer),
        }
    }
}

/// The last number of a text, without separators of thousands and zeros behind the point.
fn last_number(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_digit() || ['.', ',', '-'].contains(&c);
    let number = text.split(|c| !is_part(c)).rfind(|part| part.contains(|c: char| c.is_ascii_digit()))?;
    let number = number.replace(',', "");
    let value: f64 = number.trim_end_matches('.').parse().ok()?;
    Some(value.to_string())
}

/// A prompt and what is known of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, unique in the suite.
    pub id: String,
    /// Its kind; empty if nothing is said.
    pub category: String,
    /// Its stated difficulty; empty if none is stated.
    pub level: String,
    /// The prompt.
    pub prompt: Prompt,
    /// The same as text, for a digest.
    pub asked: String,
    /// The check of its answer; `None` where no right one is known.
    pub check: Option<Check>,
}

/// Bytes of a file of prompts at most.
pub(crate) const LARGEST_PROMPTS: u64 = 1 << 30;

/// The prompts of a file, at most `each` of every category and level, and sentences about rows that cannot be used.
///
/// # Errors
/// If the file cannot be read.
pub fn read_cases(path: &Path, format: Format, each: Option<usize>) -> Result<(Vec<Case>, Vec<String>), anyhow::Error> {
    let shown = path.display();
    let bytes = files::read(path, LARGEST_PROMPTS)
        .with_context(|| format!("The prompts {shown} cannot be read; check their path in the suite"))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    let mut taken: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (place, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match read_case(line, format, &format!("{name}-{place}")) {
            Ok(case) => {
                let taken = taken.entry((case.category.clone(), case.level.clone())).or_default();
                *taken += 1;
                if each.is_none_or(|each| *taken <= each) {
                    cases.push(case);
                }
            }
            Err(reason) => problems.push(format!("{shown}, line {place}: {reason}; the row is left out.")),
        }
    }
    Ok((cases, problems))
}

fn read_case(line: &[u8], format: Format, place: &str) -> Result<Case, String> {
    let text =
        std::str::from_utf8(line).map_err(|error| format!("it is not UTF-8 at byte {}", error.valid_up_to() + 1))?;
    let row = fields::read(text).map_err(|error| format!("it is not a JSON object ({error})"))?;
    // A number is taken as it is written: two ids of more than 64 bits would be one as a float.
    let text_of = |key: &str| match row.text(key).ok().flatten() {
        Some(text) if text.starts_with('"') => serde_json::from_str::<String>(text).ok(),
        Some(text) if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => Some(text.to_owned()),
        _ => None,
    };
    let needed = |key: &str| text_of(key).ok_or_else(|| format!("it has no text `{key}`"));
    let or_empty = |key: &str| text_of(key).unwrap_or_default();
    let said = |content: String| vec![Message::new("user", content)];
    let case = |id: Option<String>, category: String, prompt: Prompt, check: Option<Check>| {
        let asked = match &prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Messages(messages) => {
                messages.iter().map(|message| format!("{}: {}\n", message.role(), message.content())).collect()
            }
            Prompt::Tokens(tokens) => format!("{tokens:?}"),
        };
        Case { id: id.unwrap_or_else(|| place.to_owned()), category, level: or_empty("level"), prompt, asked, check }
    };
    Ok(match format {
        Format::Tasks => {
            let prompt = match (text_of("prompt"), row.text("messages").map_err(|error| error.to_string())?) {
                (Some(text), None) => Prompt::Text(text),
                (None, Some(_)) => Prompt::Messages(
                    row.value("messages").map_err(|error| error.to_string())?.ok_or("it has no `messages`")?,
                ),
                (Some(_), Some(_)) => return Err("it has both `prompt` and `messages`".into()),
                (None, None) => return Err("it has neither `prompt` nor `messages`".into()),
            };
            let category = or_empty("category");
            let check = text_of("answer").map(|answer| Check::of_task(&category, answer));
            case(text_of("id"), category, prompt, check)
        }
        Format::SpecBench => {
            let turns: Option<Vec<String>> = row.value("turns").map_err(|error| error.to_string())?;
            let first = turns.into_iter().flatten().next().ok_or("it has no first of `turns`")?;
            let id = text_of("question_id").map(|id| format!("spec-bench-{id}"));
            case(id, or_empty("category"), Prompt::Messages(said(first)), None)
        }
        Format::Gsm8k => {
            let answer = needed("answer")?;
            let number = answer.rsplit_once("####").and_then(|(_, number)| last_number(number));
            let check = Check::Number(number.ok_or("its `answer` does not end in `#### NUMBER`")?);
            case(None, "gsm8k".into(), Prompt::Messages(said(needed("question")?)), Some(check))
        }
        Format::Humaneval => case(text_of("task_id"), "humaneval".into(), Prompt::Text(needed("prompt")?), None),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn read(text: &str, format: Format, each: Option<usize>) -> (Vec<Case>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        read_cases(&path, format, each).unwrap()
    }

    #[test]
    fn every_format_gives_prompts_and_what_is_right() {
        let (cases, problems) =
            read("{\"question\": \"2+2?\", \"answer\": \"two and two\\n#### 1,004.0\"}\n", Format::Gsm8k, None);
        assert!(problems.is_empty() && cases[0].id == "rows-1");
        let check = cases[0].check.as_ref().unwrap();
        assert!(check.is_right("So 5, or rather 1004.") && !check.is_right("1004 is not 5") && !check.is_right("none"));

        let (cases, _) = read(
            "{\"question_id\": 81, \"category\": \"writing\", \"turns\": [\"Compose\", \"Again\"]}",
            Format::SpecBench,
            None,
        );
        assert_eq!(
            (cases[0].id.as_str(), cases[0].asked.as_str(), &cases[0].check),
            ("spec-bench-81", "user: Compose\n", &None)
        );

        let (cases, _) = read("{\"task_id\": \"HumanEval/0\", \"prompt\": \"def f():\"}", Format::Humaneval, None);
        assert_eq!((cases[0].id.as_str(), cases[0].asked.as_str()), ("HumanEval/0", "def f():"));

        let task = "{\"id\": \"a\", \"category\": \"code\", \"level\": \"simple\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"answer\": \"a\\n  b\"}";
        let (cases, _) = read(task, Format::Tasks, None);
        let check = cases[0].check.as_ref().unwrap();
        assert!(check.is_right("a  \n  b\n\n") && !check.is_right("a\nb"));
        assert!(Check::Words("a b".into()).is_right(" a\nb ") && !Check::Words("a b".into()).is_right("ab"));
    }

    #[test]
    fn rows_that_cannot_be_used_are_told_by_line_and_the_rest_is_kept() {
        let text = "{\"prompt\": \"one\"}\nno json\n\n{\"answer\": \"x\"}\n{\"prompt\": \"two\", \"answer\": 4}\n";
        let (cases, problems) = read(text, Format::Tasks, None);
        assert_eq!(cases.iter().map(|case| case.id.as_str()).collect::<Vec<_>>(), ["rows-1", "rows-5"]);
        assert_eq!(cases[1].check, Some(Check::Words("4".into())));
        assert!(
            problems[0].contains("line 2: it is not a JSON object") && problems[1].contains("line 4: it has neither")
        );
        let (cases, problems) = read("{\"question\": \"x\", \"answer\": \"5\"}", Format::Gsm8k, None);
        assert!(cases.is_empty() && problems[0].contains("####"), "{problems:?}");
    }

    #[test]
    fn ids_that_are_long_numbers_stay_apart() {
        let row = |id: &str| format!("{{\"id\": {id}, \"prompt\": \"x\", \"weight\": 1e400}}\n");
        let ids = ["12345678901234567890123", "12345678901234567890124", "9007199254740993.0", "-0"];
        let (cases, problems) = read(&ids.map(row).concat(), Format::Tasks, None);
        assert_eq!((cases.iter().map(|case| case.id.as_str()).collect::<Vec<_>>(), problems.len()), (ids.to_vec(), 0));
    }

    #[test]
    fn of_every_category_and_level_the_first_are_taken() {
        let row = |id: usize, category: &str| {
            format!("{{\"id\": \"{id}\", \"category\": \"{category}\", \"prompt\": \"x\"}}\n")
        };
        let text: String = (0..6).map(|id| row(id, if id % 2 == 0 { "even" } else { "odd" })).collect();
        let (cases, _) = read(&text, Format::Tasks, Some(2));
        assert_eq!(cases.iter().map(|case| case.id.as_str()).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    }
}

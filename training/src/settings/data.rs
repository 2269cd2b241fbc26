//! `[data]`: the texts and tasks that are learned from.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::names::{ANSWERS, CONTINUATIONS, TASKS};
use crate::tasks::{Category, Level};

/// The sources that are learned from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// The most tokens that a document has; longer texts are cut at ends of paragraphs. It is the models' context too.
    pub document_tokens: usize,
    /// `[[data.text]]`: texts, and JSON lines with prompts and answers.
    pub text: Vec<TextSource>,
    /// `[data.tasks]`: generated tasks.
    pub tasks: Option<TaskSource>,
    /// `[[data.focus]]`: more of them, of some categories and levels alone, for phases that practise these.
    pub focus: Vec<FocusSource>,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self { document_tokens: 1024, text: Vec::new(), tasks: None, focus: Vec::new() }
    }
}

/// One source of text: files that are learned from in the same proportion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSource {
    /// The files; `*` in the last name stands for anything. `.jsonl` files have an object a line with `messages`
    /// and `answer`, `prompt` and `answer`, or `text`; all others are plain text.
    pub path: String,
    /// Its name in curves and file names; by default that of its file or folder.
    pub name: Option<String>,
    /// Its share in what is learned, relative to the other sources'.
    #[serde(default = "one")]
    pub weight: f64,
    /// The part that is held out to validate on, from 0 to 0.5: whole files where there are enough, else documents.
    #[serde(default = "a_hundredth")]
    pub validation: f64,
    /// Other names for the fields of JSON lines, as in `fields = { prompt = "question" }`.
    #[serde(default)]
    pub fields: Fields,
}

/// Names of the fields of JSON lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    /// A list of objects with `role` and `content`.
    pub messages: String,
    /// The words of the user, where there are no messages.
    pub prompt: String,
    /// The words that are to be learned.
    pub answer: String,
    /// Text without a prompt, learned as a whole.
    pub text: String,
}

impl Default for Fields {
    fn default() -> Self {
        let own = str::to_owned;
        Self { messages: own("messages"), prompt: own("prompt"), answer: own("answer"), text: own("text") }
    }
}

/// Generated tasks as a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSource {
    /// Tasks to train on.
    pub train: usize,
    /// Their share in what is learned, relative to the other sources'.
    #[serde(default = "one")]
    pub weight: f64,
}

/// More generated tasks, others than those of `[data.tasks]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FocusSource {
    /// Their name in curves, file names and the weights of phases.
    pub name: String,
    /// Tasks to train on.
    pub train: usize,
    /// Their share in what is learned, relative to the other sources'; 0 until a phase gives them one.
    #[serde(default)]
    pub weight: f64,
    /// Their categories.
    #[serde(default = "all_categories")]
    pub categories: Vec<Category>,
    /// Their levels.
    #[serde(default = "all_levels")]
    pub levels: Vec<Level>,
    /// Of these, only those whose last message has this text, and of every `LOOKED_THROUGH` at most one.
    #[serde(default)]
    pub containing: Option<String>,
}

fn all_categories() -> Vec<Category> {
    Category::ALL.to_vec()
}

fn all_levels() -> Vec<Level> {
    Level::ALL.to_vec()
}

fn one() -> f64 {
    1.0
}

fn a_hundredth() -> f64 {
    0.01
}

impl DataRecipe {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.document_tokens < 8 {
            return Err("`document_tokens` of [data] must be at least 8".to_owned());
        }
        // What the generated tasks are called, and what the target writes for its drafts.
        let mut names = vec![TASKS, ANSWERS, CONTINUATIONS];
        for source in &self.text {
            let (path, name) = (&source.path, source.name());
            check_weight(source.weight, path)?;
            if !(0.0..=0.5).contains(&source.validation) {
                return Err(format!("`validation` of `{path}` must lie between 0 and 0.5"));
            }
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "-_. ".contains(c)) {
                return Err(format!(
                    "`{path}` needs a `name` of letters, digits, `-`, `_` and `.` to be told apart by"
                ));
            }
            if names.contains(&name) {
                return Err(format!("another source is called `{name}`; give the one with `{path}` another `name`"));
            }
            names.push(name);
        }
        for FocusSource { name, train, weight, categories, levels, .. } in &self.focus {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
                return Err("a [[data.focus]] needs a `name` of letters, digits, `-` and `_`".to_owned());
            }
            if ["train", "validation"].contains(&name.as_str()) || names.contains(&name.as_str()) {
                return Err(format!("a [[data.focus]] cannot be called `{name}`: another source or file is"));
            }
            names.push(name);
            if *train == 0 {
                return Err(format!("`train` of the focus `{name}` must be above zero"));
            }
            if categories.is_empty() || levels.is_empty() {
                return Err(format!("`categories` and `levels` of the focus `{name}` need one at least"));
            }
            let different =
                [categories.iter().collect::<BTreeSet<_>>().len(), levels.iter().collect::<BTreeSet<_>>().len()];
            if different != [categories.len(), levels.len()] {
                return Err(format!("`categories` or `levels` of the focus `{name}` name one twice"));
            }
            if !(weight.is_finite() && *weight >= 0.0) {
                return Err(format!("the `weight` of the focus `{name}` must be a number from 0 on"));
            }
        }
        self.tasks.as_ref().map_or(Ok(()), |tasks| match tasks.train {
            0 => {
                Err("`train` of [data.tasks] must be above zero; leave the section out to do without tasks".to_owned())
            }
            _ => check_weight(tasks.weight, "[data.tasks]"),
        })
    }

    /// The names of all sources, with their weights.
    pub fn weights(&self) -> Vec<(&str, f64)> {
        let texts = self.text.iter().map(|source| (source.name(), source.weight));
        let tasks = self.tasks.iter().map(|source| (TASKS, source.weight));
        let focus = self.focus.iter().map(|source| (source.name.as_str(), source.weight));
        texts.chain(tasks).chain(focus).collect()
    }
}

fn check_weight(weight: f64, what: &str) -> Result<(), String> {
    match weight.is_finite() && weight > 0.0 {
        true => Ok(()),
        false => Err(format!("the `weight` of {what} must be a number above 0; leave the source out to do without it")),
    }
}

impl TextSource {
    /// Its name: its own, or that of its file, or of its folder if there are many files.
    pub fn name(&self) -> &str {
        if let Some(name) = &self.name {
            return name;
        }
        let path = Path::new(&self.path);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if !stem.contains('*') {
            return stem;
        }
        path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
    }
}

//! A suite: what is asked, and the plans that answer it, in a TOML file.
//!
//! ```toml
//! name = "tasks"
//! repeats = 5
//! reference = "plain"
//! [engine]                 # settings of paceline::EngineConfig
//! model = "models/target"
//! [answer]                 # settings of paceline::GenerationConfig for all plans
//! max-new-tokens = 256
//! [[prompts]]
//! path = "datasets/tasks/test.jsonl"
//! each = 8
//! [[plan]]
//! name = "plain"
//! drafter = "none"
//! [[plan]]
//! name = "auto"
//! ```
//!
//! Paths are meant from the folder of the suite.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use paceline::certificate::needed_precisions;
use paceline::checksum::Checksum;
use paceline::command::wording::{in_words, is_about_a_value, key_on, line_of, read_settings};
use paceline::files;
use paceline::local::{Folders, LocateError, locate_in};
use paceline::visible;
use paceline::{EngineConfig, GenerationConfig, Quality};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::prompts::{Case, Format, read_cases};

/// A suite that can be run.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Number of times every plan answers every prompt.
    pub repeats: usize,
    /// Number of prompts every plan answers before anything is counted.
    pub warm_up: usize,
    /// The plan that others are compared with.
    pub reference: String,
    /// The engine to load.
    pub engine: EngineConfig,
    /// Ways to answer.
    pub plans: Vec<Plan>,
    /// The prompts.
    pub cases: Vec<Case>,
    /// Sentences about rows that cannot be used.
    pub problems: Vec<String>,
    /// Of the file's text and of what is asked: rows of another suite are not mixed with this one's.
    pub digest: u64,
}

/// A way to answer.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: GenerationConfig,
    /// Their differences from the defaults, in words.
    pub described: String,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default = "three")]
    repeats: usize,
    #[serde(default = "three")]
    warm_up: usize,
    reference: Option<String>,
    #[serde(default)]
    engine: Map<String, Value>,
    #[serde(default)]
    answer: Map<String, Value>,
    prompts: Vec<Prompts>,
    plan: Vec<Map<String, Value>>,
}

fn three() -> usize {
    3
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Prompts {
    path: PathBuf,
    #[serde(default)]
    format: Format,
    /// The first so many of every category and level; all without it.
    each: Option<usize>,
}

/// Bytes of a suite at most.
const LARGEST: u64 = 1 << 20;

impl Suite {
    /// Reads a suite and its prompts.
    ///
    /// # Errors
    /// A sentence that says what is wrong, where, and what to do. Single prompts that cannot be used are no error
    /// ([`Suite::problems`]).
    pub fn read(path: &Path) -> Result<Self, anyhow::Error> {
        let shown = path.display();
        let text = files::read_input_text(path, LARGEST).with_context(|| {
            format!("The suite {shown} cannot be read; name a TOML file like eval/suites/tasks.toml")
        })?;
        let file: File = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, &span));
            let reason = match key_on(&text, line).filter(|_| is_about_a_value(error.message())) {
                Some(key) => format!("`{key}` cannot be used: {}", in_words(error.message())),
                None => in_words(error.message()),
            };
            // A reason may quote the file.
            let reason = visible::line(&reason);
            anyhow!("The suite {shown} cannot be used, line {line}: {reason}; `paceline-eval run --help` shows one.")
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let wrong = |reason: String| anyhow!("The suite {shown} cannot be used: {}", visible::line(&reason));
        let mut engine: EngineConfig = settings(&file.engine, "engine").map_err(wrong)?;
        let from_here = |path: &PathBuf| folder.join(path);
        // A model may have a name instead of a path.
        let folders = Folders::of_environment();
        let model = |path: &PathBuf| match folder.join(path) {
            here if here.exists() => Ok(here),
            here => match locate_in(&folders, path) {
                Ok(found) if found != *path => Ok(found),
                Ok(_) | Err(LocateError::Absent { .. }) => Ok(here),
                Err(error) => Err(wrong(error.to_string().trim_end_matches('.').to_owned())),
            },
        };
        engine.model = engine.model.as_ref().map(model).transpose()?;
        engine.draft = engine.draft.iter().map(model).collect::<Result<_, _>>()?;
        engine.certificate = engine.certificate.iter().map(from_here).collect();
        let EngineConfig { online_state, importance_text, journal, materialization_root, .. } = &mut engine;
        for path in [online_state, importance_text, journal, materialization_root] {
            *path = path.as_ref().map(from_here);
        }
        if engine.model.is_none() {
            return Err(wrong(
                "its [engine] names no `model`: a folder in the Hugging Face layout, a GGUF file, or a name.".into(),
            ));
        }
        let plans =
            file.plan.iter().map(|plan| read_plan(&file.answer, plan)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let names: BTreeSet<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
        if names.len() < plans.len() {
            return Err(wrong("two of its plans have one name; rename one.".into()));
        }
        let first = plans.first().ok_or_else(|| wrong("it has no [[plan]].".into()))?.name.clone();
        let reference = file.reference.unwrap_or(first);
        if !names.contains(reference.as_str()) {
            return Err(wrong(format!("its `reference` {reference} is none of its plans.")));
        }
        if file.repeats == 0 {
            return Err(wrong("`repeats` is 0, so nothing would be measured; ask for at least 1.".into()));
        }
        let (mut cases, mut problems) = (Vec::new(), Vec::new());
        for prompts in &file.prompts {
            let (read, complained) = read_cases(&folder.join(&prompts.path), prompts.format, prompts.each)?;
            cases.extend(read);
            problems.extend(complained);
        }
        let mut ids = BTreeSet::new();
        if let Some(twice) = cases.iter().find(|case| !ids.insert(case.id.as_str())) {
            return Err(wrong(format!("two prompts have the id {}; give each its own.", twice.id)));
        }
        if cases.is_empty() {
            bail!("The suite {shown} has no prompt that can be used. {}", problems.first().map_or("", String::as_str));
        }
        let mut sum = Checksum::default();
        sum.text(&text);
        cases.iter().for_each(|case| {
            let check = case.check.as_ref().map_or(String::new(), |check| format!("{check:?}"));
            [&case.id, &case.category, &case.level, &case.asked, &check].into_iter().for_each(|part| sum.text(part));
        });
        if plans.iter().any(|plan| plan.settings.quality == Quality::Bounded) {
            // Who asks for what certificates allow wants it loaded.
            engine.self_draft.extend(needed_precisions(&engine));
        }
        let digest = sum.finish();
        let File { name, repeats, warm_up, .. } = file;
        Ok(Self { name, repeats, warm_up, reference, engine, plans, cases, problems, digest })
    }
}

/// A plan: its name, and settings over those of all plans.
fn read_plan(all: &Map<String, Value>, plan: &Map<String, Value>) -> Result<Plan, String> {
    let mut own = plan.clone();
    let name = match own.remove("name") {
        Some(Value::String(name)) if !name.is_empty() => name,
        _ => return Err("a [[plan]] has no `name`; give it one in quotes.".into()),
    };
    let described: Vec<String> = own.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let mut merged = all.clone();
    merged.extend(own);
    let settings: GenerationConfig = settings(&merged, &format!("plan {name}"))?;
    settings.validate().map_err(|error| format!("in plan {name}, {error}"))?;
    let described = if described.is_empty() { "as by default".to_owned() } else { described.join(", ") };
    Ok(Plan { name, settings, described })
}

/// Settings of the runtime from a table of the suite, of which every key has to be one.
fn settings<T: Default + serde::Serialize + DeserializeOwned>(
    table: &Map<String, Value>,
    place: &str,
) -> Result<T, String> {
    let known = serde_json::to_value(T::default()).map_err(|error| error.to_string())?;
    if let Some(unknown) = table.keys().find(|key| known.get(key.as_str()).is_none()) {
        let known: Vec<&str> = known.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        return Err(format!("[{place}] has no setting `{unknown}`; there are {}.", known.join(", ")));
    }
    read_settings(table).map_err(|reason| format!("in [{place}]: {reason}."))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use paceline::command::wording::rust_word;

    use super::*;

    /// The error message for a suite; its prompts do not exist, which is the last thing that is found.
    fn refused(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("suite.toml");
        std::fs::write(&path, text).unwrap();
        Suite::read(&path).unwrap_err().to_string()
    }

    #[test]
    fn no_wrong_value_is_told_in_words_of_rust() {
        const VALUES: [&str; 14] = [
            "\"x\"",
            "5",
            "-1",
            "1.5",
            "nan",
            "inf",
            "true",
            "2026-01-01",
            "[1]",
            "[\"x\"]",
            "[[1]]",
            "{ a = 1 }",
            "{ a = { b = 2026-01-01 } }",
            "99999999999",
        ];
        let keys = |value: Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let engine = keys(serde_json::to_value(EngineConfig::default()).unwrap());
        let answer = keys(serde_json::to_value(GenerationConfig::default()).unwrap());
        let mut told = 0;
        for value in VALUES {
            let line = |key: &str| format!("{key} = {value}\n");
            let suite = |top: &str, engine: &str, answer: &str, prompts: &str, plan: &str| {
                let name = if top.starts_with("name") { "" } else { "name = \"x\"\n" };
                let model = if engine.starts_with("model") { "" } else { "model = \"m\"\n" };
                let path = if prompts.starts_with("path") { "" } else { "path = \"none.jsonl\"\n" };
                let plan_name = if plan.starts_with("name") { "" } else { "name = \"plain\"\n" };
                format!(
                    "{name}{top}[engine]\n{model}{engine}[answer]\n{answer}[[prompts]]\n{path}{prompts}[[plan]]\n{plan_name}{plan}"
                )
            };
            let top = ["name", "repeats", "warm-up", "reference"].map(|key| suite(&line(key), "", "", "", ""));
            let prompts = ["path", "format", "each"].map(|key| suite("", "", "", &line(key), ""));
            let of_engine = engine.iter().map(|key| suite("", &line(key), "", "", ""));
            let of_answer = answer.iter().map(|key| suite("", "", &line(key), "", ""));
            let of_plan = answer
                .iter()
                .chain([&"name".to_owned()])
                .map(|key| suite("", "", "", "", &line(key)))
                .collect::<Vec<_>>();
            for text in top.into_iter().chain(prompts).chain(of_engine).chain(of_answer).chain(of_plan) {
                let message = refused(&text);
                assert!(!message.contains('\n') && !message.contains(".."), "{text}: {message}");
                assert_eq!(rust_word(&message), None, "{text}: {message}");
                told += 1;
            }
        }
        assert!(told > 800, "{told}");
    }
}

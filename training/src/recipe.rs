//! The recipe: one TOML file with all settings of the pipeline, a section for each step.
//!
//! `${NAME}` in it stands for the value of `--set NAME=VALUE`, so that texts may lie anywhere; `${RECIPE}` is the
//! recipe's own folder. Relative paths start where the command runs. A key that is not known is an error that names
//! the nearest one that is.

mod parameters;
mod sentences;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use paceline::files;
use paceline::visible;
use serde::{Deserialize, Serialize};

pub use self::parameters::Parameter;
use crate::settings::{
    ANSWERS, CONTINUATIONS, DataRecipe, DraftRecipe, DraftVocabularyRecipe, ExitsRecipe, ModelRecipe, Phase,
    RouterRecipe, TARGET, TokenizerRecipe, TracesRecipe, TrainingRecipe,
};

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file could not be read.
    #[error("The recipe `{}` cannot be read: {reason}; name a TOML file, as training/recipes/ holds them.", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something in it is wrong.
    #[error("Recipe `{}`, line {line}: {}", path.display(), ended(reason))]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The rest of the sentence.
        reason: String,
    },
    /// A setting has a value that cannot be, or settings contradict each other.
    #[error("Recipe `{}`: {}", path.display(), ended(reason))]
    Setting {
        /// The file.
        path: PathBuf,
        /// The rest of the sentence.
        reason: String,
    },
}

/// With a full stop, unless it is a question; it may quote the file.
fn ended(reason: &str) -> String {
    let reason = visible::line(reason);
    if reason.ends_with('?') { reason.into_owned() } else { format!("{reason}.") }
}

/// All settings. Sections that a recipe leaves out have their defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The seed of all randomness.
    #[serde(default)]
    pub seed: u64,
    /// `[tokenizer]`.
    #[serde(default)]
    pub tokenizer: TokenizerRecipe,
    /// `[data]`.
    #[serde(default)]
    pub data: DataRecipe,
    /// `[target]`: the model whose tokens come out in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ModelRecipe>,
    /// `[drafts.NAME]`: models that draft for the target, learned from it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drafts: BTreeMap<String, DraftRecipe>,
    /// `[exits]`: heads by which a model can be left early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits: Option<ExitsRecipe>,
    /// `[draft_vocabulary]`: the tokens that drafts choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_vocabulary: Option<DraftVocabularyRecipe>,
    /// `[traces]`: the examples that the router learns from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<TracesRecipe>,
    /// `[router]`: the router and its training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterRecipe>,
}

/// The largest recipe that is read, in bytes.
const LARGEST: u64 = 1 << 20;

impl Recipe {
    /// Reads the recipe at `path` with the values of its parameters.
    ///
    /// # Errors
    /// When it cannot be read, has unknown or impossible settings, or a parameter has no value.
    pub fn read(path: &Path, parameters: &[Parameter]) -> Result<Self, RecipeError> {
        let unreadable = |reason: String| RecipeError::Unreadable { path: path.to_owned(), reason };
        let bytes = files::read_input(path, LARGEST).map_err(|error| unreadable(error.to_string()))?;
        let text = String::from_utf8(bytes)
            .map_err(|error| unreadable(format!("it is not UTF-8 at byte {}", error.utf8_error().valid_up_to() + 1)))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let at_line = |(line, reason)| RecipeError::Line { path: path.to_owned(), line, reason };
        let text = parameters::fill_in(&text, parameters, folder).map_err(at_line)?;
        let recipe: Self =
            toml::from_str(&text).map_err(|error| at_line(sentences::explain(&text, error.message(), error.span())))?;
        recipe.check().map_err(|reason| RecipeError::Setting { path: path.to_owned(), reason })?;
        Ok(recipe)
    }

    /// Checks what serde cannot, section by section, and what concerns several sections.
    fn check(&self) -> Result<(), String> {
        self.data.check()?;
        self.target.iter().try_for_each(|target| target.check("target"))?;
        let sources = self.data.weights();
        if let Some(target) = &self.target {
            check_phases(&target.training, "target.training", &sources)?;
        }
        let (tasks, texts) = (self.data.tasks.as_ref().map_or(0, |tasks| tasks.train), self.data.text.len());
        for (name, draft) in &self.drafts {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            if !plain || name == TARGET {
                return Err(format!(
                    "a draft cannot be called `{name}`: use letters, digits, `-` and `_`, and not `{TARGET}`"
                ));
            }
            draft.check(&format!("drafts.{name}"), tasks, texts)?;
            let own = [(ANSWERS, draft.answers), (CONTINUATIONS, draft.continuations)];
            let own = own.iter().map(|(name, count)| (*name, *count as f64));
            let sources: Vec<_> = sources.iter().copied().chain(own).collect();
            check_phases(&draft.model.training, &format!("drafts.{name}.model.training"), &sources)?;
        }
        self.traces.as_ref().map_or(Ok(()), TracesRecipe::check)?;
        self.router.as_ref().map_or(Ok(()), RouterRecipe::check)?;
        self.draft_vocabulary.map_or(Ok(()), DraftVocabularyRecipe::check)?;
        self.exits.iter().try_for_each(|exits| {
            // Of a model that lies elsewhere the layers are not known yet.
            exits.check(self.target.as_ref().filter(|_| exits.model.is_none()).map(|target| target.layers))
        })
    }
}

/// Checks that every phase of a training has something to draw from.
fn check_phases(training: &TrainingRecipe, section: &str, sources: &[(&str, f64)]) -> Result<(), String> {
    for Phase { weights, .. } in &training.phases {
        if let Some(unknown) = weights.keys().find(|name| sources.iter().all(|(known, _)| known != name)) {
            let known: Vec<_> = sources.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            return Err(format!(
                "`{unknown}` in the weights of [[{section}.phases]] is not a source; there are {known}"
            ));
        }
        if sources.iter().all(|(name, weight)| weights.get(*name).unwrap_or(weight) == &0.0) {
            return Err(format!("[[{section}.phases]] gives every source the weight 0: leave one above it"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn read(text: &str, set: &[&str]) -> Result<Recipe, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small.toml");
        std::fs::write(&path, text).unwrap();
        let set: Vec<Parameter> = set.iter().map(|set| set.parse().unwrap()).collect();
        Recipe::read(&path, &set)
            .map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "RECIPE"))
    }

    #[test]
    fn settings_are_read_and_the_rest_are_defaults() {
        let text = "seed = 7\n[tokenizer]\nvocabulary = 512\n[[data.text]]\npath = \"${TEXT}/books/*.md\"\nweight = 2\n\
                    [[data.text]]\npath = \"${RECIPE}/own.jsonl\"\nfields = { prompt = \"question\" }\n[data.tasks]\ntrain = 100\n";
        let recipe = read(text, &["TEXT=a/b"]).unwrap();
        assert_eq!((recipe.seed, recipe.tokenizer.vocabulary, recipe.data.document_tokens), (7, 512, 1024));
        let [books, own] = &recipe.data.text[..] else { panic!("{recipe:?}") };
        assert_eq!((books.path.as_str(), books.name(), books.weight), ("a/b/books/*.md", "books", 2.0));
        assert!(own.path.ends_with("/own.jsonl") && !own.path.contains("RECIPE"), "{}", own.path);
        assert_eq!((own.fields.prompt.as_str(), own.fields.answer.as_str()), ("question", "answer"));
        assert_eq!(recipe.data.tasks.unwrap().train, 100);
        assert_eq!(read("", &[]).unwrap(), Recipe::default());
    }

    #[test]
    fn committed_recipes_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let mut recipes = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let used =
                ["TEXT", "DATA", "MODEL", "DRAFT"].into_iter().filter(|name| text.contains(&format!("${{{name}}}")));
            let set: Vec<Parameter> = used.map(|name| format!("{name}=x").parse().unwrap()).collect();
            Recipe::read(&path, &set).unwrap();
            recipes += 1;
        }
        assert!(recipes > 0);
    }

    #[test]
    fn what_is_wrong_is_told_in_a_sentence() {
        let with = |more: &str| format!("[target]\nlayers = 2\nhidden = 8\nintermediate = 8\nheads = 2\n{more}");
        for (text, said) in [
            (
                "[tokenizer]\nvocabulery = 512",
                "line 2: `vocabulery` is not a setting of [tokenizer]; did you mean `vocabulary`?",
            ),
            ("sed = 1", "line 1: `sed` is not a setting of a recipe; did you mean `seed`?"),
            ("\n[tokeniser]\n", "line 2: `tokeniser` is not a setting of a recipe; did you mean `tokenizer`?"),
            ("[data.task]\ntrain = 1", "line 1: `task` is not a setting of [data]; did you mean `tasks`?"),
            (
                "seed = 1\n[[data.text]]\npath = \"x\"\nwieght = 3\n",
                "line 4: `wieght` is not a setting of [[data.text]]; did you mean `weight`?",
            ),
            (
                "[[data.text]]\npath = \"x\"\nfields = { promt = \"q\" }\n",
                "line 3: `promt` is not a setting there; did you mean `prompt`?",
            ),
            ("[[data.text]]\nweight = 3\n", "line 1: [[data.text]] lacks the setting `path`"),
            ("seed = \"x\"", "line 1: `seed` cannot be used: write a whole number from 0 to 2^64 - 1"),
            ("seed = -1", "line 1: `seed` cannot be used: write a whole number from 0 to 2^64 - 1"),
            ("seed = ", "line 1: this is not TOML: "),
            ("seed 3", "line 1: this is not TOML: "),
            ("[data]\ndocument_tokens = 2", "`document_tokens` of [data] must be at least 8"),
            ("[[data.text]]\npath = \"a.txt\"\nweight = 0", "the `weight` of a.txt must be a number above 0"),
            ("[[data.text]]\npath = \"a.txt\"\nweight = nan", "the `weight` of a.txt must be a number above 0"),
            ("[[data.text]]\npath = \"a.txt\"\nvalidation = 1", "`validation` of `a.txt` must lie between"),
            ("[[data.text]]\npath = \"*.txt\"", "`*.txt` needs a `name`"),
            (
                "[[data.text]]\npath = \"a.txt\"\n[[data.text]]\npath = \"b/a.md\"",
                "another source is called `a`; give the one with `b/a.md` another",
            ),
            ("[[data.text]]\npath = \"answers.jsonl\"", "another source is called `answers`"),
            ("[data.tasks]\ntrain = 0", "`train` of [data.tasks] must be above zero"),
            ("[data.tasks]\ntrain = 9\nweight = 0", "the `weight` of [data.tasks] must be a number above 0"),
            ("[[data.focus]]\nname = \"a\"\ntrain = 0", "`train` of the focus `a` must be above zero"),
            ("[[data.focus]]\nname = \"a b\"\ntrain = 9", "a [[data.focus]] needs a `name` of letters"),
            ("[[data.focus]]\nname = \"tasks\"\ntrain = 9", "a [[data.focus]] cannot be called `tasks`"),
            (
                "[[data.focus]]\nname = \"a\"\ntrain = 9\nlevels = []",
                "`categories` and `levels` of the focus `a` need one",
            ),
            (
                "[[data.focus]]\nname = \"a\"\ntrain = 9\nlevels = [\"simple\", \"simple\"]",
                "`categories` or `levels` of the focus `a` name one twice",
            ),
            ("[draft_vocabulary]\ntokens = 0", "`tokens` of [draft_vocabulary] must be above zero"),
            (&with("[target.training]\nsteps = 0"), "`training.steps` of [target] must be above zero"),
            (
                &with("[target.training]\nsteps = 10\ngrowth = [{ layers = 1, until = 0.95 }]"),
                "`training.growth` of [target] is not over in the last of 10 steps",
            ),
            (
                "[[data.focus]]\nname = \"a\"\ntrain = 9\nweight = -1",
                "the `weight` of the focus `a` must be a number from 0",
            ),
            (
                "[[data.focus]]\nname = \"a\"\ntrain = 9\ncategories = [\"fact\"]",
                "line 4: `categories` cannot be used: `fact` cannot be chosen; write one of facts,",
            ),
            (
                &with("[[target.training.phases]]\nsteps = 0"),
                "`steps` of [[target.training.phases]] must be above zero",
            ),
            (
                &with("[[target.training.phases]]\nsteps = 1\nweights = { task = 1 }\n[data.tasks]\ntrain = 9"),
                "`task` in the weights of [[target.training.phases]] is not a source; there are tasks",
            ),
            (
                &with("[[target.training.phases]]\nsteps = 1\nweights = { tasks = 0 }\n[data.tasks]\ntrain = 9"),
                "[[target.training.phases]] gives every source the weight 0",
            ),
            (
                &with("[[target.training.phases]]\nsteps = 1\nweights = { tasks = nan }\n[data.tasks]\ntrain = 9"),
                "the weight of `tasks` in [[target.training.phases]] must be a number from 0",
            ),
            (
                &with("[target.training]\noptimizer = { muon = 95 }"),
                "`optimizer.muon` of [target.training] must be a number from 0",
            ),
            (
                &with("[target.training]\noptimizer = { clip = 0 }"),
                "`optimizer.clip` of [target.training] must be a number above 0",
            ),
            (
                &with("[target.training.schedule]\nlearning_rate = inf"),
                "`schedule.learning_rate` of [target.training] must be",
            ),
            (
                &with("[target.training]\nprompt_weight = -1"),
                "`prompt_weight` of [target.training] must be a number from 0 on",
            ),
            (
                &with("[target.training]\nearly_exits = { dropout = 2, loss = 1 }"),
                "`early_exits` of [target.training] needs a `dropout` from 0 to 1",
            ),
            (
                &with(
                    "[[target.training.phases]]\nsteps = 1\nearly_exits = { dropout = 0, loss = 1, depths = [1, 2] }",
                ),
                "`early_exits.depths` of [target.training.phases] has 2, where only 1 to 1 can be",
            ),
            (&with("[exits]\ndepths = [1]\noptimizer = { muon = 0.9 }"), "leave it out of [exits]"),
            (&with("[exits]\ndepths = [2]"), "`depths` of [exits] has 2, but the model has 2 layers"),
            (
                "[data]\n[[data.text]]\npath = \"${TXT}/a\"",
                "line 3: the parameter ${TXT} has no value; give it one with `--set TXT=",
            ),
        ] {
            let message = read(text, &[]).unwrap_err();
            assert!(message.starts_with("Recipe `RECIPE/small.toml`") && message.contains(said), "{message}");
            assert!(!message.contains('\n') && message.ends_with(['.', '?']) && !message.ends_with("?."), "{message}");
        }
        let message = read("seed = 1", &["TEXT=x"]).unwrap_err();
        assert!(message.contains("does not use ${TEXT}"), "{message}");
        let message = Recipe::read(Path::new("/nowhere/x.toml"), &[]).unwrap_err().to_string();
        assert!(message.contains("`/nowhere/x.toml` cannot be read"), "{message}");
    }

    /// `recipes/README.md` lists every key that a recipe of this repository has, written out or as a default.
    #[test]
    fn every_key_is_explained() {
        fn keys<'a>(value: &'a toml::Value, found: &mut BTreeSet<&'a str>) {
            match value {
                toml::Value::Table(table) => table.iter().for_each(|(key, value)| {
                    found.insert(key);
                    // Names of sources and drafts are the recipe's own.
                    match (key.as_str(), value) {
                        ("weights", _) => {}
                        ("drafts", toml::Value::Table(drafts)) => drafts.values().for_each(|draft| keys(draft, found)),
                        _ => keys(value, found),
                    }
                }),
                toml::Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
                _ => {}
            }
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let explained = std::fs::read_to_string(folder.join("README.md")).unwrap();
        let words: BTreeSet<&str> = explained.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        for (name, parameter) in [("family", "DATA"), ("own-text", "TEXT"), ("smoke", "")] {
            let set: Vec<Parameter> =
                if parameter.is_empty() { Vec::new() } else { vec![format!("{parameter}=x").parse().unwrap()] };
            let recipe = Recipe::read(&folder.join(name).with_extension("toml"), &set).unwrap();
            let shown = toml::Value::try_from(&recipe).unwrap();
            let mut found = BTreeSet::new();
            keys(&shown, &mut found);
            assert!(found.len() > 20, "{found:?}");
            for key in found {
                assert!(words.contains(key), "recipes/README.md does not explain `{key}` of {name}.toml");
            }
        }
    }
}

//! The prompts that are traced, and who answers them.

use std::path::Path;

use paceline::command::Failure;
use paceline::routing::RequestHints;
use paceline::{
    DrafterChoice, Engine, EngineConfig, Error, Generation, GenerationConfig, Message, Prompt, SamplingConfig,
};

use super::store::Asked;
use crate::answers::Answerer;
use crate::checksum::Checksum;
use crate::generate;
use crate::job::Job;
use crate::settings::TracesRecipe;
use crate::tasks::{Task, read_rows};
use crate::tokenize;
use crate::tokenizer::ChatTokenizer;
use crate::tokens::text_prompts;

/// A prompt to trace.
pub(super) struct Traced {
    /// Its metadata.
    pub(super) asked: Asked,
    /// The prompt.
    pub(super) prompt: Prompt,
    /// The hints of its request.
    pub(super) hints: RequestHints,
}

impl Traced {
    /// Sampling settings of its answer.
    pub(super) fn sampling(&self, recipe: &TracesRecipe) -> SamplingConfig {
        sampling(&self.prompt, recipe)
    }
}

/// Sampling settings of the answer to a prompt: they follow from the prompt, whatever was answered before.
fn sampling(prompt: &Prompt, recipe: &TracesRecipe) -> SamplingConfig {
    let hash = Checksum::of(format!("{prompt:?}").as_bytes());
    let temperature = recipe.temperatures[(hash % recipe.temperatures.len() as u64) as usize];
    SamplingConfig { temperature, seed: hash >> 32, ..SamplingConfig::default() }
}

/// The recipe's tasks, those that are held out behind the others, and beginnings of its texts.
pub(super) fn gather(job: &Job, recipe: &TracesRecipe, target: &Path) -> Result<Vec<Traced>, Failure> {
    let mut all = Vec::new();
    if job.recipe.data.tasks.is_some() {
        generate::run(job)?;
        for (split, count, held_out) in [("train", recipe.prompts, false), ("validation", recipe.held_out, true)] {
            let rows = read_rows(&job.tasks(split))?;
            all.extend(rows.into_iter().take(count).map(|task| of_task(task, held_out)));
        }
    }
    if recipe.texts > 0 && !job.recipe.data.text.is_empty() {
        let tokens = tokenize::open(job, &ChatTokenizer::open(target)?)?;
        for (number, prompt) in text_prompts(&tokens, job.recipe.seed, recipe.texts).into_iter().enumerate() {
            let asked = Asked {
                id: format!("text-{number}"),
                held_out: number % 10 == 9,
                category: "text".into(),
                ..Asked::default()
            };
            all.push(Traced { asked, prompt, hints: RequestHints::default() });
        }
    }
    if all.is_empty() {
        Err(anyhow::anyhow!(
            "There are no prompts to trace: give the recipe [data.tasks], or [[data.text]] and `texts` in [traces]."
        ))?;
    }
    Ok(all)
}

fn of_task(task: Task, held_out: bool) -> Traced {
    let turn = turns(&task.messages);
    let (category, level) = (task.category.name().to_owned(), task.level.name().to_owned());
    let asked = Asked { id: task.id, held_out, category, level, ..Asked::default() };
    Traced {
        asked,
        prompt: Prompt::Messages(task.messages),
        hints: RequestHints { turn: Some(turn), ..RequestHints::default() },
    }
}

fn turns(messages: &[Message]) -> f32 {
    messages.iter().filter(|message| message.role() == "user").count() as f32
}

/// The target, loaded when the first answer is missing.
pub(super) struct Asker<'a> {
    config: EngineConfig,
    recipe: &'a TracesRecipe,
    engine: Option<Engine>,
}

impl<'a> Asker<'a> {
    /// A target with its drafts.
    pub(super) fn new(config: EngineConfig, recipe: &'a TracesRecipe) -> Self {
        Self { config, recipe, engine: None }
    }
}

impl Answerer for Asker<'_> {
    fn begin(&mut self, prompt: Prompt) -> Result<Option<Generation>, Error> {
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => Engine::load(&self.config)?,
        };
        let engine = self.engine.insert(engine);
        let config = GenerationConfig {
            max_new_tokens: self.recipe.longest_answer,
            sampling: sampling(&prompt, self.recipe),
            drafter: DrafterChoice::Auto,
            ..GenerationConfig::default()
        };
        match engine.generate(prompt, &config) {
            Err(Error::PromptTooLong { .. }) => Ok(None),
            begun => begun.map(Some),
        }
    }
}

//! The step `distill`: draft models, from what the target answers itself and from its distributions over it.
//!
//! First the target answers prompts of the tasks and goes on with texts ([`answers`]); drafts of one recipe share these
//! answers. Then the draft learns the target's distributions over them, and over the data that the target learned from,
//! computed with every batch.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use paceline::checkpoint::Checkpoint;
use paceline::command::{Failure, output};
use paceline::files::AtomicFolder;
use paceline::model::Trainable;
use paceline::{EngineConfig, Prompt};

use crate::answers::{Answered, Target, answers};
use crate::checksum::Checksum;
use crate::curve::Curve;
use crate::export::export;
use crate::generate;
use crate::job::{Job, Outcome, TrainingFlags};
use crate::objective::{Distillation, Objective};
use crate::packing::Source;
use crate::settings::{ANSWERS, CONTINUATIONS, DraftRecipe, Fields, ModelRecipe, TARGET, TASKS, TrainingRecipe};
use crate::sources::{self, Row, Rows};
use crate::tokenize;
use crate::tokenizer::ChatTokenizer;
use crate::tokens::{self, Shard, ShardWriter, SourceTokens, text_prompts};
use crate::trainer::{Trained, Training, agreement_column};

/// Trains the drafts of the recipe, or the one called `only`.
///
/// # Errors
/// When there is no such draft, something that an earlier step makes is not there, or a training fails.
pub fn run(job: &Job, flags: &TrainingFlags, only: Option<&str>) -> Result<(), Failure> {
    let names: Vec<&str> = job.recipe.drafts.keys().map(String::as_str).collect();
    if names.is_empty() {
        return Err(anyhow!("The recipe has no drafts: give it a section [drafts.NAME] for each.").into());
    }
    for name in only.map_or(names, |only| vec![only]) {
        draft(job, flags, name)?.say(&format!("distill {name}"));
    }
    Ok(())
}

/// Trains the draft `name` and writes it to `models/NAME`, unless that is done.
///
/// # Errors
/// As [`run`].
pub fn draft(job: &Job, flags: &TrainingFlags, name: &str) -> Result<Outcome, Failure> {
    let recipe = job.recipe.drafts.get(name).ok_or_else(|| {
        let names: Vec<&str> = job.recipe.drafts.keys().map(String::as_str).collect();
        anyhow!("The recipe has no draft called `{name}`: name one of those that it has ({}).", names.join(", "))
    })?;
    let target = OpenTarget::open(job)?;
    let tokens = tokenize::open(job, &target.tokenizer)?;
    let path = job.model(name);
    let fingerprint = fingerprint(job, recipe, &target, &tokens);
    let key = Checksum::of(format!("{fingerprint} {:?}", recipe.model.training).as_bytes());
    let step = format!("distill-{name}");
    AtomicFolder::recover(&path)?;
    if job.is_done(&step, key) && Checkpoint::open(&path).is_ok() {
        return Ok(Outcome::Kept);
    }

    let place = flags.open()?;
    let folder = job.folder(&format!("drafts/{name}"))?;
    let examples = Examples::make(job, flags, recipe, &target, &tokens, &folder)?;
    let (train, validation) = examples.sources(recipe, &tokens);
    let teacher = Trainable::open(&target.checkpoint, &place.compute)?;
    let teacher = teacher.with_products(recipe.model.training.products.into());
    let (temperature, hard_labels) = (recipe.temperature, recipe.hard_labels);
    let training = Training {
        name,
        config: target.tokenizer.model_config(&recipe.model, job.recipe.data.document_tokens),
        recipe: &recipe.model.training,
        objective: &Objective::Distillation(Box::new(Distillation { teacher, temperature, hard_labels })),
        seed: job.recipe.seed,
        sources: &train,
        validation: &validation,
        place,
        folder,
        fingerprint,
    };
    let Trained { model, curve } = training.run()?;
    export(&model, &target.path, &path)?;
    for source in &validation {
        if let Some([before, after]) = agreement(&curve, source.name) {
            output::say(&format!(
                "{name}: picks the target's token on {} in {:.1}% of all places, {:.1}% before the training\n",
                source.name,
                100.0 * after,
                100.0 * before,
            ));
        }
    }
    job.mark_done(&step, key)?;
    Ok(Outcome::Made)
}

/// The agreement with the target on a source at the beginning and at the end of a curve.
pub fn agreement(curve: &Curve, source: &str) -> Option<[f64; 2]> {
    let column = agreement_column(source);
    let mut values = curve.series(&column).map(|(_, value)| value);
    let first = values.next()?;
    Some([first, values.last().unwrap_or(first)])
}

/// The target as it was trained.
struct OpenTarget {
    path: PathBuf,
    checkpoint: Checkpoint,
    tokenizer: ChatTokenizer,
    /// Of its weights, its shape and its tokenizer.
    hash: u64,
}

impl OpenTarget {
    fn open(job: &Job) -> Result<Self, Failure> {
        let path = job.model(TARGET);
        AtomicFolder::recover(&path)?;
        if !path.exists() {
            return Err(
                anyhow!("There is no target in {} yet: run `paceline-train pretrain` first.", path.display()).into()
            );
        }
        let checkpoint = Checkpoint::open(&path)?;
        let tokenizer = ChatTokenizer::open(&path)?;
        let (own, known) = (tokenizer.tokenizer().vocab_size(), checkpoint.config().vocab_size);
        if own != known || tokenizer.hash() != ChatTokenizer::open(&job.tokenizer())?.hash() {
            return Err(anyhow!(
                "The target {} was not made with the tokenizer in {}: train the target again, or bring its tokenizer back.",
                path.display(),
                job.tokenizer().display()
            )
            .into());
        }
        let (config, weights) = (checkpoint.config(), checkpoint.fingerprint());
        let hash = Checksum::of(format!("{config:?} {weights:x} {:x}", tokenizer.hash()).as_bytes());
        Ok(Self { path, checkpoint, hash, tokenizer })
    }
}

/// All that decides what a draft becomes but for how it is trained, as text.
fn fingerprint(job: &Job, recipe: &DraftRecipe, target: &OpenTarget, tokens: &[SourceTokens]) -> String {
    let (seed, context) = (job.recipe.seed, job.recipe.data.document_tokens);
    let model = ModelRecipe { training: TrainingRecipe::default(), ..recipe.model.clone() };
    let recipe = DraftRecipe { model, ..recipe.clone() };
    format!("{recipe:?} {seed} {context} {:x} {}", target.hash, tokens::fingerprint(tokens))
}

/// The documents that a draft learns from, and those that it is measured with.
struct Examples {
    answers: Option<Shard>,
    continuations: Option<Shard>,
    held_out: Option<Shard>,
}

impl Examples {
    /// Has the target answer what was not answered yet, and makes shards of it in `folder`.
    fn make(
        job: &Job,
        flags: &TrainingFlags,
        recipe: &DraftRecipe,
        target: &OpenTarget,
        tokens: &[SourceTokens],
        folder: &Path,
    ) -> Result<Self, Failure> {
        let config =
            EngineConfig { device: flags.device, threads: flags.threads, ..EngineConfig::new(target.path.clone()) };
        let longest = recipe.longest_answer;
        let mut answerer = Target::new(config, longest);
        let shared = job.folder("answers")?;
        let mut make = |name: &str, prompts: Vec<Prompt>, made_of: u64| -> Result<Option<Shard>, Failure> {
            if prompts.is_empty() {
                return Ok(None);
            }
            let path = shared.join(format!("{name}-{longest}.jsonl"));
            let made_of =
                Checksum::of(format!("{:x} {longest} {made_of:x} {}", target.hash, job.recipe.seed).as_bytes());
            let answers = answers(&path, made_of, &prompts, &mut answerer)?;
            shard(&folder.join(format!("{name}.tokens")), &answers, &target.tokenizer).map(Some)
        };
        let tasks = tokens.iter().find(|source| source.name == TASKS);
        let of_tasks = |split: &str, count: usize| tasks.map_or(Ok(Vec::new()), |_| task_prompts(job, split, count));
        let train = tasks.map_or(0, |tasks| tasks.train.checksum());
        let held_out = tasks.and_then(|tasks| tasks.validation.as_ref()).map_or(0, Shard::checksum);
        let of_texts = text_prompts(tokens, job.recipe.seed, recipe.continuations);
        let checksums: Vec<(u64, u64)> =
            tokens.iter().map(|source| (source.train.checksum(), source.weight.to_bits())).collect();
        let texts = Checksum::of(format!("{checksums:x?}").as_bytes());
        Ok(Self {
            answers: make(ANSWERS, of_tasks("train", recipe.answers)?, train)?,
            continuations: make(CONTINUATIONS, of_texts, texts)?,
            held_out: make("held-out", of_tasks("validation", recipe.held_out)?, held_out)?,
        })
    }

    /// The sources to train on, and those to validate on: answers to held-out tasks, and held-out texts.
    fn sources<'a>(&'a self, recipe: &DraftRecipe, tokens: &'a [SourceTokens]) -> (Vec<Source<'a>>, Vec<Source<'a>>) {
        let source = |name, shard: &'a Option<Shard>, weight| {
            let shard = shard.as_ref().filter(|shard| shard.documents() > 0)?;
            Some(Source { name, shard, weight })
        };
        let (weight, own) = (recipe.continuations_weight, 1.0 - recipe.data_weight);
        let train = [
            source(ANSWERS, &self.answers, own * (1.0 - weight)),
            source(CONTINUATIONS, &self.continuations, own * weight),
        ];
        let all: f64 = tokens.iter().map(|tokens| tokens.weight).sum();
        let data = tokens.iter().filter(|tokens| tokens.train.documents() > 0).map(|tokens| Source {
            name: &tokens.name,
            shard: &tokens.train,
            weight: recipe.data_weight * tokens.weight / all,
        });
        let texts = tokens.iter().filter(|tokens| !tokens.generated);
        let texts = texts.filter_map(|tokens| source(&tokens.name, &tokens.validation, tokens.weight));
        // Those without weight too: a later phase may give them one.
        (
            train.into_iter().flatten().chain(data).collect(),
            source(ANSWERS, &self.held_out, 1.0).into_iter().chain(texts).collect(),
        )
    }
}

/// A shard of answers.
fn shard(path: &Path, answers: &[Answered], tokenizer: &ChatTokenizer) -> Result<Shard, Failure> {
    let mut writer = ShardWriter::create(path, tokenizer)?;
    for document in answers.iter().filter_map(Answered::document) {
        writer.push(&document.tokens, &document.learn)?;
    }
    if writer.documents() == 0 {
        return Err(anyhow!(
            "The target has no room for an answer to any prompt of {}: raise `document_tokens` in [data].",
            path.display()
        )
        .into());
    }
    writer.finish()?;
    Ok(Shard::open(path, tokenizer)?)
}

/// The first prompts of a split of the generated tasks.
fn task_prompts(job: &Job, split: &str, count: usize) -> Result<Vec<Prompt>, Failure> {
    generate::run(job)?;
    let mut rows = Rows::open(&job.tasks(split), &Fields::default())?;
    let prompt = |row: Result<Row, sources::SourceError>| match row {
        Ok(Row::Answer { messages, .. }) => Some(Ok(Prompt::Messages(messages))),
        Ok(Row::Text(_)) => None,
        Err(error) => Some(Err(error)),
    };
    Ok(rows.by_ref().filter_map(prompt).take(count).collect::<Result<_, _>>()?)
}

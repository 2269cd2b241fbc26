//! The step `traces`: what every plan does on every prompt, for the router to learn from.
//!
//! The target answers prompts of the recipe's tasks and texts. Along each answer every drafter is asked for every token, in one
//! pass each ([`forced`]), and rounds of drafting are replayed on that at this machine's costs ([`replay`]). What it leaves is
//! binary parts ([`store`]), the costs, and a table with a row for each prompt and plan.

pub mod costs;
pub mod forced;
mod prompts;
pub mod replay;
pub mod store;
pub mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use paceline::checkpoint::{Checkpoint, CheckpointError};
use paceline::command::obtaining::obtain;
use paceline::command::{Failure, output};
use paceline::drafters::DrafterChoice;
use paceline::files::write_file;
use paceline::model::{Compute, Decoder, DeviceName, Sequence};
use paceline::routing::{Reader, RequestHints, Surface, Watched, identities};
use paceline::sampling::Sampler;
use paceline::text::Tokenizer;
use paceline::{Engine, EngineConfig, SamplingConfig};

use self::forced::{Kind, Source};
use self::prompts::{Asker, gather};
use self::store::{Asked, Heading, Trace};
use crate::answers::answers;
use crate::checksum::Checksum;
use crate::job::{Job, Outcome, TrainingFlags};
use crate::progress::Progress;
use crate::settings::{TARGET, TracesRecipe};

/// Prompts in a part.
const PART: usize = 64;
/// Prompt tokens that go through the target together.
const PREFILL_CHUNK: usize = 256;

/// The folders of the models of a recipe's traces.
pub struct Models {
    /// The target.
    pub target: PathBuf,
    /// Its drafts.
    pub drafts: Vec<PathBuf>,
}

impl Models {
    /// Those that the recipe names, or else its own.
    pub fn of(job: &Job, recipe: &TracesRecipe) -> Self {
        // What is not there is told where it is opened.
        let found = |model: &Path| obtain(model).unwrap_or_else(|_| model.to_owned());
        let own = || job.recipe.drafts.keys().map(|name| job.model(name)).collect();
        Self {
            target: recipe.model.as_deref().map_or_else(|| job.model(TARGET), found),
            drafts: recipe.drafts.as_ref().map_or_else(own, |drafts| drafts.iter().map(|draft| found(draft)).collect()),
        }
    }

    /// Their identity as text: hashes of the target, its exits and the drafts.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn identity(&self, target: &Checkpoint) -> Result<String, CheckpointError> {
        let hashes = identities(target, &self.drafts)?;
        let mut all: Vec<String> = hashes.into_iter().map(|(name, hash)| format!("{name}={hash}")).collect();
        all.sort();
        Ok(format!("target={:016x} {}", target.fingerprint(), all.join(" ")))
    }
}

/// Traces what is not traced yet, and writes costs and table.
///
/// # Errors
/// When models or prompts cannot be used, or the results cannot be written.
pub fn run(job: &Job, flags: &TrainingFlags) -> Result<Outcome, Failure> {
    let recipe = job.recipe.traces.clone().unwrap_or_default();
    let models = Models::of(job, &recipe);
    if !models.target.exists() {
        Err(anyhow!(
            "There is no target in {}: run `paceline-train family` first, or name one with `model` in [traces].",
            models.target.display()
        ))?;
    }
    let checkpoint = Checkpoint::open(&models.target)?;
    let config = EngineConfig {
        draft: models.drafts.clone(),
        threads: flags.threads,
        self_draft: recipe.lower.clone(),
        skip_plan: recipe.skip.first().cloned(),
        ..EngineConfig::new(&models.target)
    };
    let threads = config.resolved_threads();
    let compute = Compute::open(DeviceName::Cpu, threads)?;
    let tracer = Tracer::open(&checkpoint, &models, &recipe, &compute)?;
    let vocabulary = checkpoint.config().vocab_size;
    if vocabulary > 1 << 16 {
        return Err(anyhow!(
            "The target has {vocabulary} tokens, and traces hold 65,536 at most: models of more cannot be routed yet."
        )
        .into());
    }
    let prompts = gather(job, &recipe, &models.target)?;
    let folder = job.folder("traces")?;
    let of_models = models.identity(&checkpoint)?;
    let fingerprint = Checksum::of(
        format!("{recipe:?} {} {of_models} {:016x}", job.recipe.seed, tracer.tokenizer.fingerprint()).as_bytes(),
    );
    let made_of = Checksum::of(
        format!(
            "{fingerprint:x} {:?}",
            prompts.iter().map(|prompt| (&prompt.asked.id, &prompt.prompt)).collect::<Vec<_>>()
        )
        .as_bytes(),
    );

    let table = folder.join("traces.csv");
    if job.is_done("traces", made_of) && table.is_file() {
        return Ok(Outcome::Kept);
    }
    let questions: Vec<_> = prompts.iter().map(|prompt| prompt.prompt.clone()).collect();
    let mut asker = Asker::new(config.clone(), &recipe);
    let answered = answers(&folder.join("answers.jsonl"), made_of, &questions, &mut asker)?;
    drop(asker);

    let heading = Heading {
        fingerprint: format!("{made_of:016x}"),
        models: of_models,
        sources: tracer.sources.iter().map(|source| source.name.clone()).collect(),
        work: tracer.work(),
        width: checkpoint.config().hidden_size,
        asked: Vec::new(),
    };
    let mut progress = Progress::start("traces", "prompts", 0, prompts.len() as u64);
    let mut all: Vec<Trace> = Vec::new();
    for (number, group) in prompts.chunks(PART).enumerate() {
        let path = store::part(&folder, number);
        let known =
            store::open(&path).ok().filter(|(known, _)| Heading { asked: Vec::new(), ..known.clone() } == heading);
        let traces = match known {
            Some((_, traces)) => traces,
            None => {
                let mut traces = Vec::new();
                for (prompt, answered) in group.iter().zip(&answered[number * PART..]) {
                    let widen = |tokens: &[u16]| tokens.iter().map(|&token| u32::from(token)).collect::<Vec<_>>();
                    let (asked, answer) = (widen(&answered.prompt), widen(&answered.answer));
                    if answer.is_empty() {
                        continue;
                    }
                    traces.push(tracer.trace(
                        &prompt.asked,
                        &prompt.sampling(&recipe),
                        &prompt.hints,
                        &asked,
                        &answer,
                    )?);
                }
                let asked = traces.iter().map(|trace| trace.asked.clone()).collect();
                store::save(&path, &Heading { asked, ..heading.clone() }, &traces)?;
                traces
            }
        };
        all.extend(traces);
        progress.show(all.len() as u64, String::new);
    }
    let tokens: usize = all.iter().map(Trace::places).sum();
    progress.finish(&format!("{tokens} tokens of answers"));
    for number in prompts.len().div_ceil(PART).. {
        // What a larger set of prompts left before.
        if std::fs::remove_file(store::part(&folder, number)).is_err() {
            break;
        }
    }

    output::say("traces: measuring what steps and drafts take here\n");
    let costs = costs::measure(&Engine::load(&config)?, &tracer, &questions, threads)?;
    write_file(&folder.join("costs.json"), serde_json::to_string_pretty(&costs)?.as_bytes())?;
    let rows = table::rows(&all, &heading.sources, &costs, &heading.work);
    table::save(&table, &rows).with_context(|| {
        format!("The table {} cannot be written; make room and call the step again", table.display())
    })?;
    output::print(&table::summary(&rows))?;
    job.mark_done("traces", made_of)?;
    Ok(Outcome::Made)
}

/// The states to keep while a prompt is read: those where the recipe says, or else at the first trained exit, or after a
/// sixth of the layers.
///
/// # Errors
/// If the model has fewer layers.
pub fn watched(checkpoint: &Checkpoint, recipe: &TracesRecipe) -> Result<Watched, Failure> {
    let layers = checkpoint.config().layers;
    let exits: Vec<usize> =
        checkpoint.exits()?.iter().flat_map(|exits| exits.config().exits.clone()).map(|exit| exit.depth).collect();
    let layer = recipe.layer.or(exits.first().copied()).unwrap_or(layers.div_ceil(6));
    if !(1..=layers).contains(&layer) {
        Err(anyhow!("`layer` of [traces] is {layer}, and the target has {layers} layers: choose 1 to {layers}."))?;
    }
    Ok(Watched { layer, most_states: recipe.most_states, exit: exits.contains(&layer).then_some(layer) })
}

/// Everything that traces are made with.
pub struct Tracer {
    /// The target.
    pub target: Arc<Decoder>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The drafters that pick tokens along its answers.
    pub sources: Vec<Source>,
    /// The states that are kept while it reads a prompt.
    pub watched: Watched,
    surface: Surface,
}

impl Tracer {
    fn open(
        checkpoint: &Checkpoint,
        models: &Models,
        recipe: &TracesRecipe,
        compute: &Compute,
    ) -> Result<Self, Failure> {
        let load = |checkpoint: &Checkpoint, format| Decoder::load(checkpoint, format, compute, &mut |_, _| {});
        let mut target = load(checkpoint, None)?;
        if let Some(exits) = checkpoint.exits()? {
            target = target.with_exits(checkpoint, &exits)?;
        }
        if let Some(tokens) = checkpoint.draft_vocabulary()? {
            target = target.with_draft_vocabulary(checkpoint, None, tokens)?;
        }
        let tokenizer = Tokenizer::of_model(&models.target)?;
        let mut sources = Vec::new();
        for directory in &models.drafts {
            let draft = Checkpoint::open(directory)?;
            if !Tokenizer::of_model(directory)?.same_vocabulary(&tokenizer) {
                Err(paceline::Error::OtherVocabulary { draft: directory.clone(), target: models.target.clone() })?;
            }
            let mut decoder = load(&draft, None)?;
            if let Some(tokens) = draft.draft_vocabulary()? {
                decoder = decoder.with_draft_vocabulary(&draft, None, tokens)?;
            }
            let name = directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned();
            let name = DrafterChoice::Model(Some(name)).to_string();
            sources.push(Source { name, kind: Kind::Model(Arc::new(decoder)) });
        }
        for lower in &recipe.lower {
            let format = paceline::model::MatrixFormat::Quantized(lower.format());
            let decoder = Arc::new(load(checkpoint, Some(format))?);
            sources.push(Source {
                name: DrafterChoice::SelfQuantized(lower.format()).to_string(),
                kind: Kind::Model(decoder),
            });
        }
        for plan in &recipe.skip {
            plan.check(target.layer_count())?;
            sources
                .push(Source { name: DrafterChoice::Skip(plan.clone()).to_string(), kind: Kind::Skip(plan.clone()) });
        }
        let layers = target.layer_count();
        let trained: Vec<_> = target.exits().copied().collect();
        let watched = watched(checkpoint, recipe)?;
        let temperatures = trained.iter().map(|exit| (exit.depth, exit.temperature));
        // As `auto` considers them.
        let untrained = [layers.div_ceil(4), layers.div_ceil(2), (3 * layers).div_ceil(4)].map(|depth| (depth, 1.0));
        let mut exits: Vec<_> = if trained.is_empty() { untrained.to_vec() } else { temperatures.collect() };
        exits.retain(|(depth, _)| (1..layers).contains(depth));
        exits.dedup();
        let exit = |(depth, temperature)| Source {
            name: DrafterChoice::Exit(depth).to_string(),
            kind: Kind::Exit { depth, temperature },
        };
        sources.extend(exits.into_iter().map(exit));
        Ok(Self { target: Arc::new(target), surface: Surface::new(&tokenizer), tokenizer, sources, watched })
    }

    /// Reads a prompt and scores its answer.
    fn trace(
        &self,
        asked: &Asked,
        sampling: &SamplingConfig,
        hints: &RequestHints,
        prompt: &[u32],
        answer: &[u32],
    ) -> anyhow::Result<Trace> {
        let mut sequence = Sequence::new(Arc::clone(&self.target), prompt.len());
        let mut reader = Reader::new(self.watched, self.target.config().hidden_size);
        let mut see = |hidden| reader.see(hidden);
        sequence.prefill_tapping(
            &prompt[..prompt.len() - 1],
            PREFILL_CHUNK,
            Some((self.watched.layer, &mut see)),
            |_| true,
        );
        let features = reader.features(&self.target, &self.surface, prompt, sampling.temperature, hints);
        let mut sampler = Sampler::new(sampling)?;
        let forced = forced::score(&self.target, &self.sources, prompt, answer, &mut sampler)?;
        let asked = Asked { tokens: prompt.len(), temperature: sampling.temperature, ..asked.clone() };
        Ok(Trace { asked, features, forced, lookups: replay::lookups(prompt, answer) })
    }

    /// The share of the target's work that each source does as a target of its own, in bytes read; `None` for draft models.
    fn work(&self) -> Vec<Option<f64>> {
        let step = self.target.bytes_per_step() as f64;
        let is_rounded = |source: &Source| matches!(source.name.parse(), Ok(DrafterChoice::SelfQuantized(_)));
        let share = |source: &Source| match &source.kind {
            Kind::Exit { depth, .. } => Some(self.target.bytes_per_exit(*depth) as f64 / step),
            Kind::Skip(plan) => Some(self.target.bytes_per_step_without(plan) as f64 / step),
            Kind::Model(decoder) if is_rounded(source) => Some(decoder.bytes_per_step() as f64 / step),
            Kind::Model(_) => None,
        };
        self.sources.iter().map(share).collect()
    }

    /// The sources that are draft models, with a cache of their own.
    pub fn models(&self) -> impl Iterator<Item = (&str, &Arc<Decoder>)> {
        self.sources.iter().filter_map(|source| match (&source.kind, source.name.parse()) {
            (Kind::Model(decoder), Ok(DrafterChoice::Model(_))) => Some((source.name.as_str(), decoder)),
            _ => None,
        })
    }
}

/// Reads all traces of a folder.
///
/// # Errors
/// When there are none, or one is damaged.
pub fn open_all(folder: &Path) -> anyhow::Result<(Heading, Vec<Trace>)> {
    let mut parts = (0..).map(|number| store::part(folder, number)).take_while(|path| path.is_file());
    let first = parts.next().ok_or_else(|| {
        anyhow!("There are no traces in {} yet: run `paceline-train traces` first.", folder.display())
    })?;
    let (heading, mut all) = store::open(&first)?;
    for path in parts {
        let (other, traces) = store::open(&path)?;
        if other.fingerprint != heading.fingerprint {
            Err(anyhow!(
                "The traces {} were made of other things than those before: run `paceline-train traces` again.",
                path.display()
            ))?;
        }
        all.extend(traces);
    }
    Ok((heading, all))
}

//! The step `family`: all steps of a recipe in order, but for those that are done.

use std::fmt::Write as _;
use std::time::Instant;

use paceline::checkpoint::Checkpoint;
use paceline::command::{Failure, output};

use crate::curve::{Curve, Picture};
use crate::distill::{self, agreement};
use crate::job::{Job, Outcome, TrainingFlags};
use crate::progress::{grouped, time};
use crate::recipe::Recipe;
use crate::settings::TARGET;
use crate::trainer::validation_column;
use crate::{exits, frequent, generate, pretrain, router, tokenize, traces, vocabulary};

/// A step of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    Tasks,
    Tokenizer,
    Tokens,
    Pretrain,
    Distill(&'a str),
    Exits,
    DraftVocabulary,
    Traces,
    Router,
}

impl<'a> Step<'a> {
    /// The steps that a recipe asks for, in order.
    fn of(recipe: &'a Recipe) -> Vec<Self> {
        let generates = recipe.data.tasks.is_some() || !recipe.data.focus.is_empty();
        let tasks = generates.then_some(Self::Tasks).into_iter();
        let drafts = recipe.drafts.keys().map(|name| Self::Distill(name));
        let exits = recipe.exits.iter().map(|_| Self::Exits);
        let vocabulary = recipe.draft_vocabulary.iter().map(|_| Self::DraftVocabulary);
        let routing = recipe.router.iter().flat_map(|_| [Self::Traces, Self::Router]);
        tasks
            .chain([Self::Tokenizer, Self::Tokens, Self::Pretrain])
            .chain(drafts)
            .chain(exits)
            .chain(vocabulary)
            .chain(routing)
            .collect()
    }

    fn name(self) -> String {
        match self {
            Self::Tasks => "tasks".to_owned(),
            Self::Tokenizer => "tokenizer".to_owned(),
            Self::Tokens => "tokens".to_owned(),
            Self::Pretrain => "pretrain".to_owned(),
            Self::Distill(name) => format!("distill {name}"),
            Self::Exits => "exits".to_owned(),
            Self::DraftVocabulary => "draft-vocabulary".to_owned(),
            Self::Traces => "traces".to_owned(),
            Self::Router => "router".to_owned(),
        }
    }

    fn run(self, job: &Job, flags: &TrainingFlags) -> Result<Outcome, Failure> {
        match self {
            Self::Tasks => Ok(generate::run(job)?),
            Self::Tokenizer => vocabulary::run(job),
            Self::Tokens => tokenize::run(job),
            Self::Pretrain => pretrain::run(job, flags),
            Self::Distill(name) => distill::draft(job, flags, name),
            Self::Exits => exits::run(job, flags),
            Self::DraftVocabulary => frequent::run(job),
            Self::Traces => traces::run(job, flags),
            Self::Router => router::run(job, flags),
        }
    }
}

/// Does what is left to do, and prints what was made.
///
/// # Errors
/// When a step fails.
pub fn run(flags: &TrainingFlags) -> Result<(), Failure> {
    let job = Job::open(&flags.job)?;
    let steps = Step::of(&job.recipe);
    for (index, step) in steps.iter().enumerate() {
        let started = Instant::now();
        let outcome = match step.run(&job, flags)? {
            Outcome::Kept => "skipped, it was done already".to_owned(),
            Outcome::Made => format!("done in {}", time(started.elapsed())),
        };
        output::say(&format!("family: step {} of {}, {}: {outcome}\n", index + 1, steps.len(), step.name()));
    }
    output::print(&table(&job)?)?;
    Ok(())
}

/// The models with their sizes and what was measured last.
fn table(job: &Job) -> Result<String, Failure> {
    let mut text = format!(
        "{:<12} {:>6} {:>6} {:>12} {:>8}  {:<28} {}\n",
        "model", "layers", "width", "parameters", "MB", "validation loss", "agreement with the target"
    );
    let drafts = job.recipe.drafts.keys().map(|name| (name.as_str(), job.out().join("drafts").join(name)));
    for (name, folder) in [(TARGET, job.out().join(TARGET))].into_iter().chain(drafts) {
        let checkpoint = Checkpoint::open(&job.model(name))?;
        let curve = Curve::open(&folder, "loss", Picture::of_losses(name), u64::MAX)?;
        let sources = || curve.columns().filter_map(|column| column.strip_prefix(&validation_column("")));
        let loss = |source: &str| {
            let (_, loss) = curve.series(&validation_column(source)).last()?;
            Some(format!("{source} {loss:.3}"))
        };
        let agreed = |source: &str| {
            let [before, after] = agreement(&curve, source)?;
            Some(format!("{source} {:.1}%, {:.1}% before", 100.0 * after, 100.0 * before))
        };
        let losses: Vec<String> = sources().filter_map(loss).collect();
        let agreements: Vec<String> = sources().filter_map(agreed).collect();
        let config = checkpoint.config();
        let megabytes = checkpoint.weight_bytes() as f64 / 1e6;
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<12} {:>6} {:>6} {:>12} {megabytes:>8.2}  {:<28} {}",
            config.layers,
            config.hidden_size,
            grouped(checkpoint.parameters()),
            losses.join("; "),
            agreements.join("; "),
        );
    }
    if let Some(exits) = Checkpoint::open(&job.model(TARGET))?.exits()? {
        let agreed = exits.config().exits.iter().map(|exit| format!("{} {:.1}%", exit.depth, 100.0 * exit.agreement));
        let _ = writeln!(text, "exits of {TARGET}, agreement by depth: {}", agreed.collect::<Vec<_>>().join("; "));
    }
    Ok(text)
}

//! The step `exits`: heads by which a trained model can be left early, for drafting with its lower layers.
//!
//! The model stays as it is. What its layers compute over training text is written to a file once ([`Activations`]), the
//! heads learn from that ([`HeadTraining`]), and what they are worth is measured on text that was held out ([`measure`]).

mod activations;
mod heads;
mod measure;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use half::bf16;
use paceline::checkpoint::{Checkpoint, EXITS, ExitConfig, ExitsConfig, side_file};
use paceline::command::obtaining::obtain;
use paceline::command::{Failure, output};
use paceline::files::{AtomicFolder, write_tensors};
use paceline::model::{Parameters, Trainable};
use paceline::text::Tokenizer;
use safetensors::tensor::{Dtype, TensorView};

pub use self::activations::{Activations, Cache};
pub use self::heads::HeadTraining;
pub use self::measure::{Measured, measure};
use crate::checksum::Checksum;
use crate::curve::{Curve, Picture};
use crate::device::Place;
use crate::job::{Job, Outcome, TrainingFlags};
use crate::optimizer::into_values;
use crate::packing::{Drawing, Source, sources};
use crate::progress::grouped;
use crate::settings::{ExitsRecipe, TARGET};
use crate::tokenize;
use crate::tokenizer::{ChatTokenizer, check_vocabulary};
use crate::tokens;

/// Trains exit heads for the target, or the model that the recipe names, and writes them beside it.
///
/// # Errors
/// When something that an earlier step makes is not there, or the training fails.
pub fn run(job: &Job, flags: &TrainingFlags) -> Result<Outcome, Failure> {
    let recipe = job.recipe.exits.as_ref().context(
        "The recipe has no [exits]: give it a section with `depths`, the numbers of layers after which the model can be left.",
    )?;
    let directory = match &recipe.model {
        Some(model) => obtain(model)?,
        None => job.model(TARGET),
    };
    AtomicFolder::recover(&directory)?;
    if !directory.exists() {
        Err(anyhow::anyhow!(
            "There is no model in {} to train exits for: run `paceline-train pretrain` first, or name another with `model` in [exits].",
            directory.display()
        ))?;
    }
    let checkpoint = Checkpoint::open(&directory)?;
    let config = checkpoint.config();
    recipe.check(Some(config.layers)).map_err(|reason| anyhow::anyhow!("The recipe cannot be used: {reason}."))?;
    let tokenizer = ChatTokenizer::open(&job.tokenizer())?;
    if !Tokenizer::of_model(&directory)?.same_vocabulary(tokenizer.tokenizer()) {
        Err(anyhow::anyhow!(
            "The tokenizer in {} is another than that of the model in {}: name the model's own with `from` in [tokenizer].",
            job.tokenizer().display(),
            directory.display()
        ))?;
    }
    check_vocabulary(&directory, tokenizer.tokenizer(), config)?;
    if recipe.length > config.context {
        Err(anyhow::anyhow!(
            "`length` of [exits] is {}, and the context of the model in {} is {}: lower it.",
            recipe.length,
            directory.display(),
            config.context
        ))?;
    }
    let tokens = tokenize::open(job, &tokenizer)?;
    let (train, held_out) = sources(&tokens);
    if held_out.iter().all(|source| source.shard.documents() == 0) {
        Err(anyhow::anyhow!("{NOTHING_HELD_OUT}"))?;
    }
    let fingerprint = checkpoint.fingerprint();
    let of_model = format!("{fingerprint:016x} {} {}", tokens::fingerprint(&tokens), job.recipe.seed);
    let key = Checksum::of(format!("{recipe:?} {of_model}").as_bytes());
    let are_there = |exits: &ExitsConfig| {
        exits.rank == recipe.rank && exits.exits.iter().map(|exit| exit.depth).eq(recipe.depths.iter().copied())
    };
    if job.is_done("exits", key) && checkpoint.exits().is_ok_and(|exits| exits.is_some_and(|e| are_there(e.config()))) {
        return Ok(Outcome::Kept);
    }
    let place = flags.open()?;
    let trunk = Trainable::open(&checkpoint, &place.compute)?;
    let work =
        Work { recipe, trunk: &trunk, place: &place, folder: job.folder("exits")?, of_model, seed: job.recipe.seed };
    let (heads, measured) = work.run(&train, &held_out)?;
    save(&heads, recipe.rank, &measured, fingerprint, &directory)?;
    output::print(&table(&measured))?;
    job.mark_done("exits", key)?;
    Ok(Outcome::Made)
}

/// The error where nothing is held out, before and after it was looked at.
const NOTHING_HELD_OUT: &str =
    "No answers are held out to measure exits on: raise `validation` of the recipe's sources.";

/// The work of the step on a model.
struct Work<'a> {
    recipe: &'a ExitsRecipe,
    trunk: &'a Trainable,
    place: &'a Place,
    folder: PathBuf,
    /// Model, data and seed as text.
    of_model: String,
    seed: u64,
}

impl Work<'_> {
    /// The heads as they are saved, and what they are worth.
    fn run(&self, train: &[Source<'_>], held_out: &[Source<'_>]) -> anyhow::Result<(Parameters, Vec<Measured>)> {
        let recipe = self.recipe;
        let cache = |name: &'static str, sources, seed, rows, once| Cache {
            name,
            trunk: self.trunk,
            recipe,
            sources,
            drawing: Drawing { seed, prompt_weight: 0.0, curriculum: None },
            rows,
            once,
            folder: &self.folder,
            fingerprint: format!("{} {:?} {} {}", self.of_model, recipe.depths, recipe.sequences, recipe.length),
        };
        let known = cache("training", train, self.seed ^ SEED, recipe.rows, false).fill()?;
        let new = cache("held-out", held_out, 0, recipe.held_out, true).fill()?;
        if new.rows() < 2 {
            bail!("{NOTHING_HELD_OUT}");
        }
        let training = HeadTraining {
            recipe,
            trunk: self.trunk,
            place: self.place,
            seed: self.seed,
            folder: &self.folder,
            fingerprint: format!("{recipe:?} {}", self.of_model),
        };
        let heads = training.run(&known, &new)?;
        let heads = rounded(&heads, self.place);
        let measured = measure(self.trunk, &heads, &recipe.depths, &new);
        let picture = Picture {
            title: "Exits: how often their pick is the model's, by depth".to_owned(),
            x: "depth".to_owned(),
            y: "share of held-out rows".to_owned(),
            log_x: false,
            log_y: false,
            hidden: ["temperature", "rows"].map(str::to_owned).into(),
        };
        let mut curve = Curve::open(&self.folder, "agreement", picture, 0)?;
        for exit in &measured {
            let values = [
                ("agreement, untrained", exit.untrained),
                ("agreement, trained", exit.agreement),
                ("calibration error at temperature 1", exit.raw_error),
                ("calibration error, calibrated", exit.calibration_error),
                ("temperature", f64::from(exit.temperature)),
                ("rows", exit.rows as f64),
            ];
            curve.record(exit.depth as u64, &values);
        }
        curve.save()?;
        Ok((heads, measured))
    }
}

/// Told apart from what a model's training draws.
const SEED: u64 = 0x6578_6974_7321;

/// Heads with the values that they have in their file: matrices in bf16.
fn rounded(heads: &Parameters, place: &Place) -> Parameters {
    let shapes = heads.iter().map(|(name, tensor)| (name.to_owned(), tensor.dims().to_vec()));
    let values = heads.values();
    Parameters::new(shapes, &place.compute, |name, _| {
        let values = values.get(name).cloned().unwrap_or_default();
        if is_norm(name) { values } else { values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect() }
    })
}

fn is_norm(name: &str) -> bool {
    name.ends_with(".norm.weight")
}

/// Writes the heads beside the model: matrices in bf16, norms in f32.
fn save(heads: &Parameters, rank: usize, measured: &[Measured], model: u64, directory: &Path) -> anyhow::Result<()> {
    let exits = measured.iter().map(|exit| ExitConfig {
        depth: exit.depth,
        temperature: exit.temperature,
        agreement: exit.agreement,
        calibration_error: exit.calibration_error,
    });
    let config = ExitsConfig { model: ExitsConfig::model_of(model), rank, exits: exits.collect() };
    let tensors: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = heads
        .iter()
        .map(|(name, tensor)| {
            let ([rows, width], values) = (tensor.dims(), into_values(tensor.clone().inner()));
            if is_norm(name) {
                return (name, Dtype::F32, vec![width], values.iter().flat_map(|value| value.to_le_bytes()).collect());
            }
            let bytes = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes());
            (name, Dtype::BF16, vec![rows, width], bytes.collect())
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata = [(ExitsConfig::KEY.to_owned(), serde_json::to_string(&config)?)].into();
    let path = side_file(directory, EXITS);
    Ok(write_tensors(&path, ExitsConfig::KEY, &safetensors::serialize(views, Some(metadata))?)?)
}

/// The table that is printed in the end.
fn table(measured: &[Measured]) -> String {
    let rows = measured.first().map_or(0, |exit| exit.rows as u64);
    let mut text = format!(
        "Exits on {} held-out tokens: how often their pick is the model's, and how far their confidence is from that.\n\
         depth   untrained   trained   error as it is   calibrated   temperature\n",
        grouped(rows)
    );
    for exit in measured {
        let share = |share: f64| format!("{:.1}%", 100.0 * share);
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{:>5}   {:>9}   {:>7}   {:>14}   {:>10}   {:>11.3}",
            exit.depth,
            share(exit.untrained),
            share(exit.agreement),
            share(exit.raw_error),
            share(exit.calibration_error),
            exit.temperature
        );
    }
    text
}

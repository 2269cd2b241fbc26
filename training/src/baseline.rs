//! The command `baseline`: how well a 3-gram model predicts the text that was held out, and the trained target beside it
//! on the same tokens.

mod ngram;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use paceline::command::{Failure, output};
use paceline::files::write_file;
use paceline::model::Decoder;
use serde::Serialize;

pub use self::ngram::Trigrams;
use crate::job::{Job, JobFlags};
use crate::likelihood::{Loss, measure, of_model};
use crate::progress::{Progress, grouped};
use crate::score::load_decoder;
use crate::settings::TARGET;
use crate::tokenize;
use crate::tokenizer::ChatTokenizer;
use crate::tokens::{Document, Shard, SourceTokens};

/// The flags of `baseline`.
#[derive(Debug, Args)]
pub struct BaselineFlags {
    /// Flags of every step.
    #[command(flatten)]
    pub job: JobFlags,
    /// Processor threads for the model; 0 for all that the process may use
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
}

/// Losses on the held-out part of a text, of 3-grams and of the trained target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// The source in the recipe.
    pub source: String,
    /// Tokens that the 3-gram model learned from.
    pub learned: u64,
    /// By 3-grams.
    pub trigrams: Loss,
    /// By the trained target; none where there is no target yet.
    pub model: Option<Loss>,
}

/// Measures every text of the recipe, prints a table and leaves it as `baseline.md` and `baseline.json` in the folder.
///
/// # Errors
/// When the tokens are not there, or nothing of the texts was held out, or the model cannot be used.
pub fn run(flags: &BaselineFlags) -> Result<(), Failure> {
    let job = Job::open(&flags.job)?;
    let tokenizer = ChatTokenizer::open(&job.tokenizer())?;
    let texts: Vec<SourceTokens> = tokenize::open(&job, &tokenizer)?
        .into_iter()
        .filter(|source| !source.generated && source.validation.is_some())
        .collect();
    if texts.is_empty() {
        return Err(anyhow!(
            "No text of the recipe was held out, so there is nothing to measure on: give it a `[[data.text]]` with a \
             `validation` above 0."
        )
        .into());
    }
    let folder = job.model(TARGET);
    let model = if folder.exists() { Some(target(&folder, &tokenizer, flags.threads)?) } else { None };
    let mut rows = Vec::new();
    for source in &texts {
        rows.extend(compare(source, &tokenizer, model.as_ref())?);
    }
    let table = table(&rows);
    write_file(&job.out().join("baseline.md"), table.as_bytes())?;
    write_file(&job.out().join("baseline.json"), (serde_json::to_string_pretty(&rows)? + "\n").as_bytes())?;
    output::print(&table)?;
    Ok(())
}

/// Loads the target, which has to speak in the recipe's tokens.
fn target(folder: &Path, tokenizer: &ChatTokenizer, threads: usize) -> Result<Arc<Decoder>, Failure> {
    if !paceline::text::Tokenizer::of_model(folder)?.same_vocabulary(tokenizer.tokenizer()) {
        return Err(anyhow!(
            "The model {} was made with another tokenizer than the recipe's tokens: run `paceline-train pretrain` again.",
            folder.display()
        )
        .into());
    }
    load_decoder(folder, threads)
}

/// Measures one source; none where nothing was held out.
fn compare(
    source: &SourceTokens,
    tokenizer: &ChatTokenizer,
    model: Option<&Arc<Decoder>>,
) -> Result<Option<Compared>, Failure> {
    let Some(held_out) = &source.validation else { return Ok(None) };
    let trigrams =
        Trigrams::learn(documents(&source.train).map(|document| document.tokens), tokenizer.tokenizer().vocab_size());
    let judge = |what: &str, predict: &mut dyn FnMut(&[u16]) -> Vec<f64>| {
        let mut progress = Progress::start(&format!("{} by {what}", source.name), "tokens", 0, held_out.tokens());
        let mut show = |done| progress.show(done, String::new);
        measure(documents(held_out), tokenizer, predict, &mut show)
    };
    Ok(Some(Compared {
        source: source.name.clone(),
        learned: source.train.tokens(),
        trigrams: judge("3-grams", &mut |tokens| trigrams.log_probabilities(tokens))?,
        model: model.map(|model| judge("the target", &mut |tokens| of_model(model, tokens))).transpose()?,
    }))
}

fn documents(shard: &Shard) -> impl Iterator<Item = Document<'_>> {
    (0..shard.documents()).map(|index| shard.document(index))
}

/// The comparison as Markdown.
fn table(rows: &[Compared]) -> String {
    let mut text = "# Plain English that was held out\n\
        Every text's own 3-grams (interpolated modified Kneser-Ney over the model's tokens) learned from the part that the \
        target is trained on; both are measured on the same tokens.\n\n\
        | text | held-out tokens | bytes | 3-grams learned from | 3-grams, nats a token | bits a byte | target, nats a token | bits a byte |\n\
        |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for Compared { source, learned, trigrams, model } in rows {
        let both = |loss: &Loss| format!("{:.3} | {:.3}", loss.nats_per_token(), loss.bits_per_byte());
        let model = model.as_ref().map_or_else(|| "- | -".to_owned(), both);
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "| {source} | {} | {} | {} | {} | {model} |",
            grouped(trigrams.tokens),
            grouped(trigrams.bytes),
            grouped(*learned),
            both(trigrams),
        );
    }
    text
}

//! The step `tokens`: turns the recipe's texts and tasks into shards of tokens, one for training and one for
//! validation of each source.
//!
//! Which part is held out follows from places alone: of `1 / validation` files, or documents where there are fewer
//! files, the middle one.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use paceline::command::Failure;

use crate::checksum::Checksum;
use crate::generate;
use crate::job::{Job, Outcome};
use crate::progress::{Progress, grouped};
use crate::settings::{Fields, TASKS};
use crate::sources::{self, Paragraphs, Rows, SourceError};
use crate::tokenizer::ChatTokenizer;
use crate::tokens::{Cutter, OwnDocument, Shard, ShardError, ShardWriter, SourceTokens};

/// Opens the tokens of all sources, in the recipe's order, generated tasks last.
///
/// # Errors
/// When some are not there yet, damaged, or made with another tokenizer.
pub fn open(job: &Job, tokenizer: &ChatTokenizer) -> Result<Vec<SourceTokens>, ShardError> {
    let open = |source: &Source| {
        let shard = |split| Shard::open(&place(job, &source.name, split), tokenizer);
        let validation = shard(VALIDATION)?;
        Ok(SourceTokens {
            name: source.name.clone(),
            weight: source.weight,
            generated: job.recipe.data.text.iter().all(|text| text.name() != source.name),
            train: shard(TRAIN)?,
            validation: (validation.documents() > 0).then_some(validation),
        })
    };
    sources_of(job).iter().map(open).collect()
}

const TRAIN: &str = "train";
const VALIDATION: &str = "validation";

/// The file of a shard of a source.
fn place(job: &Job, name: &str, split: &str) -> PathBuf {
    job.tokens().join(format!("{name}.{split}.tokens"))
}

/// A source of the recipe.
struct Source {
    name: String,
    weight: f64,
    fields: Fields,
    /// One of so many files or documents is held out; none if 0. Nothing for the tasks, which come in two files.
    period: Option<usize>,
}

impl Source {
    /// The part that is held out of file number `number` of `files`.
    fn held_out(&self, number: usize, files: usize) -> HeldOut {
        match self.period {
            None if number == 1 => HeldOut::All,
            None | Some(0) => HeldOut::Nothing,
            Some(period) if files < period => HeldOut::OneOf(period),
            Some(period) if number % period == period / 2 => HeldOut::All,
            Some(_) => HeldOut::Nothing,
        }
    }
}

/// The part of a file that is held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeldOut {
    All,
    Nothing,
    /// One of so many documents of the source.
    OneOf(usize),
}

fn sources_of(job: &Job) -> Vec<Source> {
    let data = &job.recipe.data;
    let texts = data.text.iter().map(|source| Source {
        name: source.name().to_owned(),
        weight: source.weight,
        fields: source.fields.clone(),
        period: Some(if source.validation > 0.0 { (1.0 / source.validation).round() as usize } else { 0 }),
    });
    let tasks = data.tasks.iter().map(|tasks| Source {
        name: TASKS.to_owned(),
        weight: tasks.weight,
        fields: Fields::default(),
        period: None,
    });
    let focus = data.focus.iter().map(|focus| Source {
        name: focus.name.clone(),
        weight: focus.weight,
        fields: Fields::default(),
        period: Some(0),
    });
    texts.chain(tasks).chain(focus).collect()
}

/// The files of all sources, in the same order.
fn files_of(job: &Job) -> Result<Vec<Vec<PathBuf>>, SourceError> {
    let data = &job.recipe.data;
    let mut files: Vec<_> = data.text.iter().map(|source| sources::files(&source.path)).collect::<Result<_, _>>()?;
    if data.tasks.is_some() {
        files.push(vec![job.tasks(TRAIN), job.tasks(VALIDATION)]);
    }
    files.extend(data.focus.iter().map(|focus| vec![job.tasks(&focus.name)]));
    if files.is_empty() { Err(SourceError::NoSources) } else { Ok(files) }
}

/// Makes the shards that are not there yet.
///
/// # Errors
/// When a text or the tokenizer is missing or unusable, or a shard cannot be written.
pub fn run(job: &Job) -> Result<Outcome, Failure> {
    generate::run(job)?;
    let tokenizer = ChatTokenizer::open(&job.tokenizer())?;
    let limit = job.recipe.data.document_tokens;
    let folder = job.tokens();
    fs::create_dir_all(&folder).map_err(|error| {
        anyhow!("The folder {} cannot be made: {error}; name another one with `--out`.", folder.display())
    })?;
    let mut outcome = Outcome::Kept;
    for (source, files) in sources_of(job).iter().zip(files_of(job)?) {
        let step = format!("tokens-{}", source.name);
        let mut key = Checksum::default();
        key.text(&format!("{limit} {:?} {:?} {:x}", source.period, source.fields, tokenizer.hash()));
        sources::contents(&files, &mut key)?;
        let key = key.finish();
        let whole = |split| Shard::open(&place(job, &source.name, split), &tokenizer).is_ok();
        if job.is_done(&step, key) && whole(TRAIN) && whole(VALIDATION) {
            continue;
        }
        make(job, source, &files, &tokenizer)?;
        job.mark_done(&step, key)?;
        outcome = Outcome::Made;
    }
    Ok(outcome)
}

/// Makes the two shards of a source.
fn make(job: &Job, source: &Source, files: &[PathBuf], tokenizer: &ChatTokenizer) -> Result<(), Failure> {
    let create = |split| ShardWriter::create(&place(job, &source.name, split), tokenizer);
    let mut splitter = Splitter { train: create(TRAIN)?, validation: create(VALIDATION)?, documents: 0 };
    let what = format!("tokens of {}", source.name);
    let mut progress = Progress::start(&what, "bytes", 0, sources::size(files)?);
    let mut cutter = Cutter::new(tokenizer, job.recipe.data.document_tokens)?;
    let mut before = 0;
    for (number, path) in files.iter().enumerate() {
        let held_out = source.held_out(number, files.len());
        before += read(path, source, &mut cutter, |documents, read| {
            progress.show(before + read, String::new);
            documents.iter().try_for_each(|document| splitter.push(document, held_out))
        })?;
    }
    let long = cutter.long();
    if splitter.documents == 0 {
        return Err(match long {
            0 => SourceError::Empty { path: source.name.clone() }.into(),
            _ => anyhow!(
                "All conversations of `{}` are longer than {} tokens: raise `document_tokens` in [data], or leave the source out.",
                source.name, job.recipe.data.document_tokens
            ).into(),
        });
    }
    if splitter.train.documents() == 0 {
        return Err(anyhow!(
            "All documents of `{}` are held out, and none is left to train on: lower its `validation`, or give it more text.",
            source.name
        )
        .into());
    }
    let (train, validation) = (splitter.train.finish()?, splitter.validation.finish()?);
    let mut detail = format!("{} tokens, {} more held out", grouped(train), grouped(validation));
    if long > 0 {
        detail += &format!(", {} conversations left out because they are longer than a document", grouped(long));
    }
    progress.finish(&detail);
    Ok(())
}

/// Shares documents out between the two shards.
struct Splitter {
    train: ShardWriter,
    validation: ShardWriter,
    documents: usize,
}

impl Splitter {
    fn push(&mut self, document: &OwnDocument, held_out: HeldOut) -> Result<(), ShardError> {
        let held_out = match held_out {
            HeldOut::All => true,
            HeldOut::Nothing => false,
            HeldOut::OneOf(period) => self.documents % period == period / 2,
        };
        self.documents += 1;
        let writer = if held_out { &mut self.validation } else { &mut self.train };
        writer.push(&document.tokens, &document.learn)
    }
}

/// Cuts a file into documents and hands them on with the bytes read so far. Gives the bytes of the file.
fn read(
    path: &Path,
    source: &Source,
    cutter: &mut Cutter<'_>,
    mut take: impl FnMut(Vec<OwnDocument>, u64) -> Result<(), ShardError>,
) -> Result<u64, Failure> {
    if sources::is_rows(path) {
        let mut rows = Rows::open(path, &source.fields)?;
        while let Some(row) = rows.next().transpose()? {
            let documents = cutter.row(&row).map_err(|error| anyhow!("{}: {error}", rows.place()))?;
            take(documents, rows.read())?;
        }
        Ok(rows.read())
    } else {
        let mut paragraphs = Paragraphs::open(path)?;
        while let Some(paragraph) = paragraphs.next().transpose()? {
            take(cutter.paragraph(&paragraph)?, paragraphs.read())?;
        }
        take(cutter.end()?, paragraphs.read())?;
        Ok(paragraphs.read())
    }
}

//! `paceline inspect --search-skip`: which parts of a model it can draft without.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use paceline::EngineConfig;
use paceline::SkipPlan;
use paceline::bench::steps;
use paceline::checkpoint::Checkpoint;
use paceline::command::Failure;
use paceline::command::progress::{self, Progress};
use paceline::drafters::skip_search::{Judged, SkipSearch, cut_text, write_texts};
use paceline::files::{AtomicFile, ReadError, WriteError, read_text};
use paceline::model::{Compute, Decoder};
use paceline::text::Tokenizer;
use paceline::visible;
use serde::Serialize;

use super::bench::read_tokens;
use super::flags::InspectFlags;

/// Tokens that plans are judged on.
const TOKENS: usize = 384;
/// Bytes of a file that may be replaced by a plan: no plan has more.
const LARGEST_PLAN: u64 = 1 << 16;
/// Number of times that steps are timed.
const REPEATS: usize = 5;

/// Result of a search.
#[derive(Serialize)]
pub(super) struct Found {
    precision: String,
    threads: usize,
    /// The file it judged on; none if the model wrote the text.
    text: Option<String>,
    /// Tokens it judged on.
    positions: usize,
    /// The plan after each step.
    steps: Vec<Judged>,
    /// Value for `--drafter`, if drafting with the best plan promises more than plain decoding.
    drafter: Option<String>,
}

/// Searches a plan, with progress where a person looks on.
pub(super) fn search(flags: &InspectFlags, checkpoint: &Checkpoint) -> Result<Found, Failure> {
    // Begun before the work, which is not done in vain.
    let mut out = flags.skip_out.as_deref().map(begin).transpose()?;
    let config = EngineConfig { threads: flags.threads, ..EngineConfig::default() };
    let threads = config.resolved_threads();
    let compute = Compute::open(config.device, threads)?;
    let context = checkpoint.config().context;
    let text = flags.text.as_ref().map(|path| read_tokens(path, checkpoint)).transpose()?;
    let mut progress = Progress::new();
    let target = Decoder::load(checkpoint, flags.precision.format(), &compute, &mut |done, total| {
        progress.show("loading, layers", done, total);
    })?;
    let target = Arc::new(target);
    let texts = match &text {
        Some(tokens) => cut_text(tokens, context, TOKENS),
        None => write_texts(&target, &beginning(checkpoint)?, TOKENS)?,
    };
    if texts.is_empty() {
        return Err(anyhow!(
            "The model stops before it has written anything, so there is no text to search on: name one with `--text FILE`."
        )
        .into());
    }

    let mut progress = Progress::new();
    let costs = steps(&target, threads, REPEATS, &mut |done| progress.show("timing steps, rounds", done, REPEATS))?;
    // A context too short for a row count has no longer drafts either.
    let search = SkipSearch::new(&target, texts, |rows| costs.relative(rows).unwrap_or(rows as f64))?;
    let mut progress = Progress::new();
    let steps = search.run(&mut |skipped, done, total| {
        progress.show(&format!("{skipped} parts skipped, judging the next on tokens"), done, total);
    });
    progress::clear();
    if let (Some(mut file), Some(best)) = (out.take(), steps.last()) {
        let written = writeln!(file, "{}", best.plan).map_err(|error| file.failed(error));
        written.and_then(|()| file.commit()).map_err(|error| unwritable(&error))?;
    }
    let best = steps.last().filter(|best| best.speedup > 1.0);
    Ok(Found {
        precision: target.format().to_string(),
        threads,
        text: flags.text.as_ref().map(|path| path.display().to_string()),
        positions: search.positions(),
        drafter: best.map(|best| format!("skip:{}", best.plan)),
        steps,
    })
}

fn unwritable(error: &WriteError) -> anyhow::Error {
    anyhow!("`--skip-out`: {error}")
}

/// Begins the file of a plan, in the place of another plan or of nothing.
fn begin(path: &Path) -> Result<AtomicFile, anyhow::Error> {
    let is_plan = |text: &str| text.is_empty() || !text.starts_with("file:") && text.parse::<SkipPlan>().is_ok();
    match read_text(path, LARGEST_PLAN) {
        Ok(text) if is_plan(text.trim()) => {}
        Err(ReadError::Absent | ReadError::NotPlain(_)) => {}
        Ok(_) | Err(ReadError::TooLarge { .. } | ReadError::NotText { .. }) => {
            return Err(anyhow!(
                "`--skip-out`: {} holds something else than a skip plan and was left alone; name another file.",
                path.display()
            ));
        }
        // Whoever may write to the folder could replace what nobody lets them read.
        Err(error) => {
            return Err(anyhow!(
                "`--skip-out`: {} cannot be looked at ({error}) and was left alone; name another file.",
                path.display()
            ));
        }
    }
    AtomicFile::create(path).map_err(|error| unwritable(&error))
}

/// Tokens before a text that the model writes by itself.
fn beginning(checkpoint: &Checkpoint) -> Result<Vec<u32>, Failure> {
    let tokenizer = Tokenizer::with_metadata(checkpoint.path(), checkpoint.metadata())?;
    let tokens = [tokenizer.encode("")?, tokenizer.encode("The")?].into_iter().find(|tokens| !tokens.is_empty());
    let vocabulary = checkpoint.config().vocab_size;
    let known = tokens.filter(|tokens| tokens.iter().all(|&token| (token as usize) < vocabulary));
    Ok(known.ok_or_else(|| {
        anyhow!("The tokenizer has no token for the model to begin a text with: name a text with `--text FILE`.")
    })?)
}

impl Found {
    /// The search as a person reads it.
    pub(super) fn describe(&self) -> String {
        let Self { precision, threads, positions, .. } = self;
        let source = self
            .text
            .as_ref()
            .map_or_else(|| "a text that the model wrote".to_owned(), |path| format!("`{}`", visible::line(path)));
        let mut lines = vec![format!(
            "Drafting without some parts, at {precision} on {threads} threads, judged on {positions} tokens of {source}:"
        )];
        lines.push("  agreement   cost of a token   draft length   predicted speedup   plan".to_owned());
        lines.extend(self.steps.iter().map(|Judged { plan, agreement, cost, draft_length, speedup }| {
            let agreement = format!("{:.1}%", 100.0 * agreement);
            format!("  {agreement:<11} {cost:<17.2} {draft_length:<14} {speedup:<19.2} {plan}")
        }));
        lines.push(match &self.drafter {
            Some(drafter) => format!("The last is the best: generate with `--drafter {drafter}`."),
            None => {
                "No plan pays here: even the last, which is the best, would be slower than plain decoding.".to_owned()
            }
        });
        lines.join("\n")
    }
}

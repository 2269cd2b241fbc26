//! The step `tokenizer`: learns a vocabulary from the recipe's text and tasks, or checks the one that it takes over.

mod sample;

use paceline::command::Failure;
use paceline::files::AtomicFolder;

use self::sample::Sample;
use crate::checksum::Checksum;
use crate::generate;
use crate::job::{Job, Outcome};
use crate::progress::{Progress, grouped};
use crate::tokenizer::{ChatTokenizer, learn, save};

/// Learns the vocabulary, unless that is done already or the recipe takes one over.
///
/// # Errors
/// When text is missing or unusable, or the result cannot be written.
pub fn run(job: &Job) -> Result<Outcome, Failure> {
    generate::run(job)?;
    const STEP: &str = "tokenizer";
    let recipe = &job.recipe.tokenizer;
    let folder = job.tokenizer();
    if recipe.from.is_some() {
        ChatTokenizer::open(&folder)?;
        return Ok(Outcome::Kept);
    }
    let mut sample = Sample::open(job)?;
    let mut key = Checksum::default();
    key.text(&format!("{recipe:?} {:?}", job.recipe.data));
    sample.contents(&mut key)?;
    let key = key.finish();
    AtomicFolder::recover(&folder)?;
    if job.is_done(STEP, key) && ChatTokenizer::open(&folder).is_ok() {
        return Ok(Outcome::Kept);
    }
    let part = AtomicFolder::create(&folder)?;
    let mut progress = Progress::start(STEP, "bytes of text", 0, sample.size());
    let mut failure = None;
    let texts = std::iter::from_fn(|| {
        let text = sample.next().map_err(|error| failure = Some(error)).ok().flatten();
        progress.show(sample.read(), String::new);
        text
    });
    let learned = learn(texts, recipe.vocabulary);
    if let Some(error) = failure {
        return Err(error.into());
    }
    save(&learned?, job.recipe.data.document_tokens, part.part())?;
    part.commit()?;
    job.mark_done(STEP, key)?;
    progress.finish(&format!("{} tokens in {}", grouped(recipe.vocabulary as u64), folder.display()));
    Ok(Outcome::Made)
}

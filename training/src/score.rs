//! The command `score`: how many prompts of a task set a model answers rightly, by category and level, how sure it is of
//! its tokens, and how well it predicts plain text.

mod answers;
mod page;
mod picture;
mod tally;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use paceline::checkpoint::Checkpoint;
use paceline::command::obtaining::obtain;
use paceline::command::{Failure, output};
use paceline::files::{Fills, own_folder, write_file};
use paceline::model::{Compute, Decoder, DeviceName};

pub use self::answers::{Answered, Answerer, Greedy};
pub use self::page::page;
pub use self::picture::picture;
pub use self::tally::{Group, Outcome, Score, TextLoss, wilson};
use crate::likelihood::{Loss, measure, of_model};
use crate::progress::Progress;
use crate::sources::{self, Paragraphs, SourceError};
use crate::tasks::{Category, Level, Split, Task, committed_rows, held_out_rows, is_right, read_rows};
use crate::tokenizer::ChatTokenizer;
use crate::tokens::{Cutter, Document, OwnDocument};

/// The seed of the committed task sets.
const SEED: u64 = 0;
/// Tokens of a document that a text is cut into, at most: what the recipes have, so that losses can be compared.
const DOCUMENT_TOKENS: usize = 1024;

/// The flags of `score`.
#[derive(Debug, Args)]
pub struct ScoreFlags {
    /// The model: a folder, a GGUF file, or a name
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The task set: test, validation or calibration, as datasets/tasks has them
    #[arg(long, value_enum, default_value_t = Split::Test)]
    pub split: Split,
    /// Tasks of your own instead, a file of JSON lines like those in datasets/tasks
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "split")]
    pub tasks: Option<PathBuf>,
    /// At most so many prompts of each category and level
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// A plain text to predict as well; may be given several times
    #[arg(long, value_name = "FILE")]
    pub text: Vec<PathBuf>,
    /// Processor threads; 0 for all that the process may use
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// A folder for score.json, score.md, score.svg and all answers, answers.jsonl
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

/// The files of results: numbers, tables, a picture, and the answers.
const FILES: [&str; 4] = ["score.json", "score.md", "score.svg", "answers.jsonl"];

/// Answers, counts, and says what came out.
///
/// # Errors
/// When the model, the tasks or a text cannot be used, or the results cannot be written.
pub fn run(flags: &ScoreFlags) -> Result<(), Failure> {
    let tasks = tasks(flags)?;
    if let Some(out) = &flags.out {
        own_folder(out, Fills::Names(&FILES))?;
    }
    let path = &obtain(&flags.model)?;
    let decoder = load_decoder(path, flags.threads)?;
    // What takes hours comes after everything that may be wrong with the input.
    let texts = texts(flags, path, &decoder)?;
    let mut model = Greedy::new(Arc::clone(&decoder), path)?;
    tasks.iter().try_for_each(|task| model.prompt(task).map(drop))?;
    let (outcomes, answers) = answer_all(&mut model, &tasks)?;
    let mut score = Score::of(&outcomes);
    score.model = flags.model.display().to_string();
    score.precision = decoder.format().to_string();
    score.tasks = match &flags.tasks {
        Some(path) => path.display().to_string(),
        None => format!("{} split, seed {SEED}", flags.split),
    };
    for (path, tokenizer, documents) in &texts {
        score
            .texts
            .push(TextLoss { text: path.display().to_string(), loss: loss(&decoder, path, tokenizer, documents)? });
    }
    let (json, page) = (serde_json::to_string_pretty(&score)? + "\n", page(&score));
    if let Some(out) = &flags.out {
        let picture = picture(&score).map_err(anyhow::Error::msg)?;
        for (name, text) in FILES.into_iter().zip([&json, &page, &picture, &answers]) {
            write_file(&out.join(name), text.as_bytes())?;
        }
    }
    output::print(if flags.json { &json } else { &page })?;
    Ok(())
}

/// The model in `dir` as it is stored, on the processor.
///
/// # Errors
/// When it cannot be read, or the threads cannot be started.
pub fn load_decoder(dir: &Path, threads: usize) -> Result<Arc<Decoder>, Failure> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let compute = Compute::open(DeviceName::Cpu, threads)?;
    Ok(Arc::new(Decoder::load(&Checkpoint::open(dir)?, None, &compute, &mut |_, _| {})?))
}

/// The tasks that were asked for. Those of a split are generated: they are what datasets/tasks holds, and the program
/// need not know where that is.
fn tasks(flags: &ScoreFlags) -> Result<Vec<Task>, Failure> {
    let limit = flags.limit.map_or(usize::MAX, |limit| limit as usize);
    if let Some(path) = &flags.tasks {
        let mut taken = std::collections::BTreeMap::new();
        let mut rows = read_rows(path)?;
        rows.retain(|task| {
            let taken: &mut usize = taken.entry((task.category, task.level)).or_default();
            *taken += 1;
            *taken <= limit
        });
        return Ok(rows);
    }
    let Some(rows) = committed_rows(flags.split) else {
        return Err(Failure::usage(anyhow!(
            "The split {} has no end and was trained on: score test, validation or calibration, or name a file with `--tasks`.",
            flags.split
        )));
    };
    let rows = rows.min(limit.saturating_mul(Category::ALL.len() * Level::ALL.len()));
    Ok(held_out_rows(flags.split, SEED, &Category::ALL, &Level::ALL, rows)?)
}

/// Answers all tasks. Gives what came out, and the answers as JSON lines.
fn answer_all(model: &mut dyn Answerer, tasks: &[Task]) -> Result<(Vec<Outcome>, String), Failure> {
    let mut progress = Progress::start("score", "prompts", 0, tasks.len() as u64);
    let (mut outcomes, mut lines, mut right) = (Vec::new(), String::new(), 0);
    for (done, task) in (1..).zip(tasks) {
        let answered = model.answer(task)?;
        let outcome = judge(task, &answered);
        right += u32::from(outcome.right);
        let line = serde_json::json!({
            "id": task.id, "right": outcome.right, "given": answered.text, "answer": task.answer,
            "tokens": outcome.tokens, "entropy": outcome.entropy / outcome.tokens.max(1) as f64,
        });
        // Writing into a string cannot fail.
        let _ = writeln!(lines, "{line}");
        outcomes.push(outcome);
        progress.show(done, || format!("{:.1}% right", 100.0 * f64::from(right) / done as f64));
    }
    progress.finish("");
    Ok((outcomes, lines))
}

/// The outcome of an answer.
fn judge(task: &Task, answered: &Answered) -> Outcome {
    Outcome {
        category: task.category,
        level: task.level,
        anew: task.is_phrased_anew(SEED),
        right: !answered.cut && is_right(task.category, &task.answer, &answered.text),
        cut: answered.cut,
        tokens: answered.tokens,
        entropy: answered.entropy,
    }
}

type Texts<'a> = Vec<(&'a Path, ChatTokenizer, Vec<OwnDocument>)>;

/// The texts of `--text` in documents, as the step `tokens` cuts them.
fn texts<'a>(flags: &'a ScoreFlags, model: &Path, decoder: &Decoder) -> Result<Texts<'a>, Failure> {
    let cut = |path: &'a PathBuf| {
        if sources::is_rows(path) {
            return Err(Failure::usage(anyhow!(
                "The text {} has JSON lines: `--text` takes plain text.",
                path.display()
            )));
        }
        let tokenizer = ChatTokenizer::open(model)?;
        let mut cutter = Cutter::new(&tokenizer, DOCUMENT_TOKENS.min(decoder.config().context))?;
        let mut documents = Vec::new();
        for paragraph in Paragraphs::open(path)? {
            documents.extend(cutter.paragraph(&paragraph?)?);
        }
        documents.extend(cutter.end()?);
        if documents.is_empty() {
            return Err(SourceError::Empty { path: path.display().to_string() }.into());
        }
        Ok((path.as_path(), tokenizer, documents))
    };
    flags.text.iter().map(cut).collect()
}

/// The loss of the model on a text.
fn loss(
    decoder: &Arc<Decoder>,
    path: &Path,
    tokenizer: &ChatTokenizer,
    documents: &[OwnDocument],
) -> Result<Loss, Failure> {
    let tokens = documents.iter().map(|document| document.tokens.len() as u64).sum();
    let mut progress = Progress::start(&format!("loss on {}", path.display()), "tokens", 0, tokens);
    let documents = documents.iter().map(|document| Document { tokens: &document.tokens, learn: &document.learn });
    let mut predict = |tokens: &[u16]| of_model(decoder, tokens);
    Ok(measure(documents, tokenizer, &mut predict, &mut |done| progress.show(done, String::new))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    /// Knows the answers to everything but the complex prompts, of which it knows one in three, and never ends on
    /// dialogues.
    struct Fake(u32);

    impl Answerer for Fake {
        fn answer(&mut self, task: &Task) -> anyhow::Result<Answered> {
            let complex = task.level == Level::Complex;
            self.0 += u32::from(complex);
            let wrong = complex && !self.0.is_multiple_of(3);
            let text = if wrong { format!("{} not", task.answer) } else { format!("{} \n", task.answer) };
            let (tokens, entropy) = if complex { (10, 5.0) } else { (20, 2.0) };
            Ok(Answered { text, tokens, entropy, cut: task.category == Category::Dialogue })
        }
    }

    #[test]
    fn right_answers_are_counted_by_category_level_and_phrasing() {
        let tasks = held_out_rows(Split::Test, SEED, &Category::ALL, &Level::ALL, 24 * 30).unwrap();
        let (outcomes, lines) = answer_all(&mut Fake(0), &tasks).unwrap();
        assert_eq!(lines.lines().count(), tasks.len());
        let score = Score::of(&outcomes);
        let count = |category, level| {
            let group = score.group(category, level, None).unwrap();
            (group.rows, group.right, group.cut)
        };
        assert_eq!(count(None, None), (720, 7 * (30 + 30) + 70, 90));
        assert_eq!(count(None, Some(Level::Simple)), (240, 210, 30));
        assert_eq!(count(None, Some(Level::Complex)), (240, 70, 30));
        assert_eq!(count(Some(Category::Dialogue), None), (90, 0, 90));
        assert_eq!(count(Some(Category::Code), Some(Level::Medium)), (30, 30, 0));
        let complex = score.group(None, Some(Level::Complex), None).unwrap();
        assert!((complex.entropy - 0.5).abs() < 1e-12 && complex.median_tokens == 10);
        // A quarter of the phrasings are the test split's own; every row is of one kind.
        let of_kind = |anew| score.group(None, None, Some(anew)).unwrap().rows;
        assert_eq!(of_kind(true) + of_kind(false), 720);
        assert!((120..240).contains(&of_kind(true)), "{}", of_kind(true));
        // The page holds what was counted, and the picture a bar for each category and level.
        let page = page(&score);
        for words in ["| **all** | **87.5%", "720 prompts", "90 answers were cut"] {
            assert!(page.contains(words), "{words}: {page}");
        }
        let svg = picture(&score).unwrap();
        for words in ["</svg>", "dialogue", "simple", "complex"] {
            assert!(svg.contains(words), "{words}");
        }
    }

    #[test]
    fn phrasings_are_known_of_the_generators_tasks_alone() {
        for split in [Split::Validation, Split::Calibration] {
            let tasks = held_out_rows(split, SEED, &Category::ALL, &Level::ALL, 48).unwrap();
            assert!(tasks.iter().all(|task| task.is_phrased_anew(SEED) == Some(false)));
        }
        let tasks = held_out_rows(Split::Test, SEED, &Category::ALL, &Level::ALL, 240).unwrap();
        for task in &tasks {
            // The words of a phrasing that stand before its first place are in the prompt, if it is that one.
            let last = task.messages.last().unwrap().content();
            let phrasings = task.category.phrasings();
            let begins = |phrasing: &&str| {
                let place = phrasing.find('{').unwrap();
                place > 8 && last.starts_with(&phrasing[..place])
            };
            let (common, anew) = (phrasings.common.iter().any(&begins), phrasings.test_only.iter().any(begins));
            if common != anew {
                assert_eq!(task.is_phrased_anew(SEED), Some(anew), "{last}");
            }
        }
        let other = Task { answer: "x".to_owned(), ..tasks[0].clone() };
        assert_eq!(other.is_phrased_anew(SEED), None);
        assert_eq!(Task { id: "mine".to_owned(), ..tasks[0].clone() }.is_phrased_anew(SEED), None);
        assert_eq!(tasks[0].is_phrased_anew(SEED + 1), None);
    }
}

//! The target's own answers, as JSON lines: training data for drafts (Kim and Rush 2016).
//!
//! The first line says what the answers were made of; then comes a line for every prompt, in order. Answers are greedy,
//! so they follow from the model and the prompt, and a file that was ended anywhere is resumed behind its last whole
//! line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use paceline::files;
use paceline::{DrafterChoice, Engine, EngineConfig, Error, Generation, GenerationConfig, Prompt};
use serde::{Deserialize, Serialize};

use crate::progress::Progress;
use crate::tokens::{ANSWER, OwnDocument, PROMPT};

/// Answers that are asked for ahead, so that the engine never waits.
const AHEAD: usize = 4;

/// Why answers cannot be kept in a file.
#[derive(Debug, thiserror::Error)]
pub enum AnswersError {
    /// The file could not be read or written.
    #[error("The answers {} cannot be kept: {source}; make room there, or name another folder with `--out`.", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The target failed.
    #[error(transparent)]
    Target(#[from] Error),
}

/// The first line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Heading {
    /// A hash of the model, the prompts and the settings.
    made_of: String,
}

/// A prompt with what the target answered. Both are empty for a prompt that the target has no room for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The prompt's tokens.
    pub prompt: Vec<u16>,
    /// The answer's, its end included if it came.
    pub answer: Vec<u16>,
    /// The answer, for people.
    pub text: String,
}

impl Answered {
    /// As a document to learn from; none if there is no answer.
    pub fn document(&self) -> Option<OwnDocument> {
        let learn = [vec![PROMPT; self.prompt.len()], vec![ANSWER; self.answer.len()]].concat();
        (!self.answer.is_empty()).then(|| OwnDocument { tokens: [&self.prompt[..], &self.answer].concat(), learn })
    }
}

/// Something that answers prompts.
pub trait Answerer {
    /// Begins to answer; answers are finished in the order in which they were begun. `None` for a prompt that there is
    /// no room for.
    ///
    /// # Errors
    /// If the prompt cannot be used.
    fn begin(&mut self, prompt: Prompt) -> Result<Option<Generation>, Error>;
}

/// The target, loaded when the first answer is missing.
pub struct Target {
    config: EngineConfig,
    longest: usize,
    engine: Option<Engine>,
}

impl Target {
    /// The target that `config` names, for answers of at most `longest` tokens.
    pub fn new(config: EngineConfig, longest: usize) -> Self {
        Self { config, longest, engine: None }
    }
}

impl Answerer for Target {
    fn begin(&mut self, prompt: Prompt) -> Result<Option<Generation>, Error> {
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => Engine::load(&self.config)?,
        };
        let engine = self.engine.insert(engine);
        // Where drafts would not be exact, answers would depend on when the program was ended.
        let drafter = if engine.info().exact { DrafterChoice::Auto } else { DrafterChoice::None };
        let config = GenerationConfig { max_new_tokens: self.longest, drafter, ..GenerationConfig::default() };
        match engine.generate(prompt, &config) {
            Err(Error::PromptTooLong { .. }) => Ok(None),
            begun => begun.map(Some),
        }
    }
}

/// The answers to `prompts` from the file at `path`, where those that are missing are added. Only the first answers of a
/// file that has more are given. A file that was made of other things than those that `made_of` is a hash of begins anew.
///
/// # Errors
/// When the file cannot be read or written, or the target fails.
pub fn answers(
    path: &Path,
    made_of: u64,
    prompts: &[Prompt],
    target: &mut dyn Answerer,
) -> Result<Vec<Answered>, AnswersError> {
    let failed = |source| AnswersError::File { path: path.to_owned(), source };
    let (mut file, mut answers) = open(path, made_of, prompts.len()).map_err(failed)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let missing = &prompts[answers.len()..];
    if missing.is_empty() {
        return Ok(answers);
    }
    let mut progress =
        Progress::start(&format!("the target's {name}"), "answers", answers.len() as u64, prompts.len() as u64);
    let mut tokens = 0;
    let mut begun: VecDeque<Option<Generation>> = VecDeque::new();
    let mut missing = missing.iter();
    loop {
        while begun.len() < AHEAD
            && let Some(prompt) = missing.next()
        {
            begun.push_back(target.begin(prompt.clone())?);
        }
        let Some(first) = begun.pop_front() else { break };
        let answered = match first {
            None => Answered::default(),
            Some(generation) => answered(generation)?,
        };
        tokens += answered.answer.len();
        append(&mut file, &answered).map_err(failed)?;
        answers.push(answered);
        progress.show(answers.len() as u64, || format!("{} tokens each", tokens / answers.len()));
    }
    progress.finish(&format!("{tokens} tokens"));
    Ok(answers)
}

/// Waits for an answer.
fn answered(generation: Generation) -> Result<Answered, Error> {
    let answer = generation.finish()?;
    // Training data holds vocabularies of at most 65536 tokens, which was checked when the tokenizer was opened.
    let narrow = |tokens: &[u32]| tokens.iter().map(|&token| token as u16).collect();
    Ok(Answered { prompt: narrow(&answer.prompt_tokens), answer: narrow(&answer.tokens), text: answer.text })
}

/// Beginning of a file of answers.
const BEGINNING: &[u8] = b"{\"made_of\":";

/// Opens the file to append to it, with the first `most` answers that it has. What is behind its last whole line goes,
/// and everything if it was made of other things.
fn open(path: &Path, made_of: u64, most: usize) -> io::Result<(File, Vec<Answered>)> {
    let mut file = files::open_to_change(path)?;
    let mut beginning = Vec::new();
    (&file).take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    if !BEGINNING.starts_with(&beginning) {
        return Err(io::Error::other("it does not begin like answers of a target and was left alone"));
    }
    file.rewind()?;
    let mut answers = Vec::new();
    let heading = Heading { made_of: format!("{made_of:016x}") };
    let mut whole = 0;
    {
        let mut lines = BufReader::new(&file);
        let mut next = |whole: &mut u64, read: &mut dyn FnMut(&str) -> bool| -> io::Result<bool> {
            let mut line = Vec::new();
            lines.by_ref().read_until(b'\n', &mut line)?;
            let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
            let good = text.is_some_and(read);
            *whole += if good { line.len() as u64 } else { 0 };
            Ok(good)
        };
        let mut same = |line: &str| serde_json::from_str::<Heading>(line).is_ok_and(|known| known == heading);
        let mut more = next(&mut whole, &mut same)?;
        let mut keep = |line: &str| serde_json::from_str(line).map(|answered| answers.push(answered)).is_ok();
        while more {
            more = next(&mut whole, &mut keep)?;
        }
    }
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    if whole == 0 {
        append(&mut file, &heading)?;
    }
    answers.truncate(most);
    Ok((file, answers))
}

/// Adds a line at once, so that the end of the process loses none.
fn append(file: &mut File, row: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(row)?;
    line.push(b'\n');
    file.write_all(&line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::fs;

    use super::*;

    /// The fixture's answers, of which only so many come before it fails as if the process had ended.
    struct Ending {
        target: Target,
        left: usize,
    }

    impl Answerer for Ending {
        fn begin(&mut self, prompt: Prompt) -> Result<Option<Generation>, Error> {
            self.left = self.left.checked_sub(1).ok_or(Error::Stopped)?;
            self.target.begin(prompt)
        }
    }

    fn target() -> Target {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llama-draft");
        Target::new(EngineConfig { threads: 1, ..EngineConfig::new(fixture) }, 8)
    }

    fn prompts() -> Vec<Prompt> {
        let short = (0..9).map(|first| Prompt::Tokens(vec![first, 2, 3]));
        short.chain([Prompt::Tokens(vec![1; 5000])]).collect()
    }

    #[test]
    fn a_file_that_was_ended_anywhere_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("whole.jsonl");
        let expected = answers(&whole, 7, &prompts(), &mut target()).unwrap();
        assert_eq!(expected.len(), 10);
        assert!(expected[..9].iter().all(|answered| (1..=8).contains(&answered.answer.len())));
        assert_eq!(expected[9], Answered::default());
        assert_eq!(expected[9].document(), None);
        let bytes = fs::read(&whole).unwrap();
        for end in (0..bytes.len()).step_by(41).chain([bytes.len() - 1, bytes.len()]) {
            let path = dir.path().join("ended.jsonl");
            fs::write(&path, &bytes[..end]).unwrap();
            let kept = bytes[..end].iter().filter(|&&byte| byte == b'\n').count().saturating_sub(1);
            let mut counted = Ending { target: target(), left: 10 - kept };
            assert_eq!(answers(&path, 7, &prompts(), &mut counted).unwrap(), expected, "{end}");
            assert_eq!((fs::read(&path).unwrap(), counted.left), (bytes.clone(), 0), "{end}");
        }
    }

    #[test]
    fn answers_of_something_else_are_made_again_and_more_are_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.jsonl");
        let mut none = Ending { target: target(), left: 0 };
        let two = answers(&path, 7, &prompts()[..2], &mut target()).unwrap();
        let four = answers(&path, 7, &prompts()[..4], &mut Ending { target: target(), left: 2 }).unwrap();
        assert_eq!(four[..2], two);
        assert_eq!(answers(&path, 7, &prompts()[..3], &mut none).unwrap(), four[..3]);
        assert!(matches!(answers(&path, 8, &prompts()[..1], &mut none), Err(AnswersError::Target(Error::Stopped))));
        assert_eq!(answers(&path, 8, &prompts()[..1], &mut target()).unwrap(), two[..1]);
    }
}

//! The text that a vocabulary is learned from: of each source as much as its weight says, taken evenly from all of it.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::checksum::Checksum;
use crate::job::Job;
use crate::settings::{Fields, TASKS};
use crate::sources::{self, Paragraphs, Rows, SourceError};

/// Text is handed on in pieces of about so many bytes: many at a time cost less than one at a time.
const PIECE: usize = 1 << 16;

/// Reads a sample of all sources of a recipe.
pub(super) struct Sample {
    sources: Vec<Source>,
    /// Files that are still to come, with the number of their source.
    files: VecDeque<(usize, PathBuf)>,
    /// The file that is being read.
    open: Option<(usize, Words)>,
    /// Bytes of the files that have been read to their end.
    finished: u64,
}

/// One source's share.
struct Source {
    path: String,
    fields: Fields,
    files: Vec<PathBuf>,
    /// Bytes of its files.
    size: u64,
    /// Bytes to take.
    share: u64,
    /// Bytes of text that came by, and those taken.
    seen: u64,
    taken: u64,
    /// True once there were words.
    words: bool,
}

/// Pieces of text from either kind of file.
enum Words {
    Paragraphs(Paragraphs),
    Rows(Rows),
}

impl Words {
    fn next(&mut self) -> Result<Option<String>, SourceError> {
        match self {
            Self::Paragraphs(paragraphs) => paragraphs.next().transpose(),
            Self::Rows(rows) => rows.next().transpose().map(|row| row.map(|row| row.words())),
        }
    }

    fn read(&self) -> u64 {
        match self {
            Self::Paragraphs(paragraphs) => paragraphs.read(),
            Self::Rows(rows) => rows.read(),
        }
    }
}

impl Sample {
    /// Looks at the recipe's sources.
    ///
    /// # Errors
    /// When one is missing, tasks that were not generated yet included.
    pub(super) fn open(job: &Job) -> Result<Self, SourceError> {
        let data = &job.recipe.data;
        let mut found = Vec::new();
        for source in &data.text {
            let files = sources::files(&source.path)?;
            found.push((source.path.clone(), source.fields.clone(), files, source.weight));
        }
        if let Some(tasks) = &data.tasks {
            let path = job.tasks("train");
            found.push((TASKS.to_owned(), Fields::default(), vec![path], tasks.weight));
        }
        if found.is_empty() {
            return Err(SourceError::NoSources);
        }
        let weights: f64 = found.iter().map(|(.., weight)| weight).sum();
        let share = |weight: f64| (job.recipe.tokenizer.sample_bytes as f64 * weight / weights) as u64;
        let mut sources = Vec::new();
        for (path, fields, files, weight) in found {
            let size = sources::size(&files)?;
            sources.push(Source { path, fields, files, size, share: share(weight), seen: 0, taken: 0, words: false });
        }
        let numbered = sources.iter().enumerate();
        let files = numbered.flat_map(|(number, source)| source.files.iter().map(move |file| (number, file.clone())));
        Ok(Self { files: files.collect(), sources, open: None, finished: 0 })
    }

    /// Bytes of all files.
    pub(super) fn size(&self) -> u64 {
        self.sources.iter().map(|source| source.size).sum()
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.finished + self.open.as_ref().map_or(0, |(_, words)| words.read())
    }

    /// Adds what the files hold to a hash.
    pub(super) fn contents(&self, hash: &mut Checksum) -> Result<(), SourceError> {
        self.sources.iter().try_for_each(|source| sources::contents(&source.files, hash))
    }

    /// The next piece of text; none at the end.
    ///
    /// # Errors
    /// When a file cannot be read or a source turns out to be empty.
    pub(super) fn next(&mut self) -> Result<Option<String>, SourceError> {
        let mut piece = String::new();
        while piece.len() < PIECE {
            if self.open.is_none() {
                let Some((number, path)) = self.files.pop_front() else { break };
                let fields = &self.sources[number].fields;
                let words = match sources::is_rows(&path) {
                    true => Words::Rows(Rows::open(&path, fields)?),
                    false => Words::Paragraphs(Paragraphs::open(&path)?),
                };
                self.open = Some((number, words));
            }
            let Some((number, words)) = &mut self.open else { break };
            let number = *number;
            let source = &mut self.sources[number];
            if let Some(text) = words.next()? {
                source.seen += text.len() as u64;
                source.words |= !text.trim().is_empty();
                // Evenly: at every place as much of what came by as of the whole.
                if u128::from(source.taken) * u128::from(source.size)
                    <= u128::from(source.seen) * u128::from(source.share)
                {
                    source.taken += text.len() as u64;
                    piece.push_str(&text);
                    piece.push('\n');
                }
            } else {
                self.finished += words.read();
                self.open = None;
                let last = self.files.front().is_none_or(|(next, _)| *next != number);
                if last && !source.words {
                    return Err(SourceError::Empty { path: source.path.clone() });
                }
            }
        }
        Ok(if piece.is_empty() { None } else { Some(piece) })
    }
}

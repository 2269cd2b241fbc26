//! A shard: documents of tokens in one file, made to be mapped into memory.
//!
//! All numbers have their lowest byte first.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `PACETOKS` |
//! | 8..12 | version of the format, 1 |
//! | 12..16 | tokens in the tokenizer's vocabulary |
//! | 16..24 | hash of the tokenizer ([`ChatTokenizer::hash`]) |
//! | 24..32 | documents |
//! | 32..40 | tokens |
//! | 40..48 | tokens that are learned: those of any class but [`PROMPT`] |
//! | 48..56 | [`Checksum`] of everything behind the header |
//! | 56..64 | [`Checksum`] of the header up to here |
//! | 64.. | the documents: `n` tokens of two bytes, `n` classes of one byte, and a zero if `n` is odd |
//! | the end | the place of each document and of the end of the last, eight bytes each |

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use paceline::files::{self, AtomicFile, ReadError, WriteError};
use paceline_kernels::MappedFile;

use crate::checksum::Checksum;
use crate::tokenizer::ChatTokenizer;

/// A token of a prompt: it is given, and learned with less weight or not at all.
pub const PROMPT: u8 = 0;
/// A token of an answer, its end included.
pub const ANSWER: u8 = 1;
/// A token of plain text.
pub const TEXT: u8 = 2;

const MAGIC: &[u8; 8] = b"PACETOKS";
const VERSION: u32 = 1;
const HEADER: usize = 64;

/// Why a shard cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// It could not be opened.
    #[error("The tokens {} cannot be read: {source}; run `paceline-train tokens` first.", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It is not a whole shard.
    #[error("The tokens {} are damaged: {reason}; delete the file and run `paceline-train tokens` again.", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage, in words.
        reason: String,
    },
    /// Its numbers mean other words.
    #[error("The tokens {} were made with another tokenizer: run `paceline-train tokens` again.", path.display())]
    OtherTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A document: what a model reads at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document<'a> {
    /// The tokens, the mark for the beginning first.
    pub tokens: &'a [u16],
    /// A class for each token ([`PROMPT`], [`ANSWER`], [`TEXT`]): what it is to be predicted for. The first token is
    /// never predicted, whatever its class.
    pub learn: &'a [u8],
}

/// The numbers of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    vocabulary: u32,
    tokenizer: u64,
    documents: u64,
    tokens: u64,
    learned: u64,
    body: u64,
}

impl Header {
    fn bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.vocabulary.to_le_bytes());
        let numbers = [self.tokenizer, self.documents, self.tokens, self.learned, self.body];
        for (place, number) in bytes[16..56].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let own = Checksum::of(&bytes[..56]);
        bytes[56..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else {
            return Err(format!("it has {} bytes, which is less than a header", bytes.len()));
        };
        if !bytes.starts_with(MAGIC) {
            return Err("it does not begin like a file of tokens".to_owned());
        }
        let number = |start: usize| number(bytes, start).unwrap_or_default();
        let (version, vocabulary) = (number(8) as u32, (number(8) >> 32) as u32);
        if version != VERSION {
            return Err(format!("it is of version {version}, and version {VERSION} is read"));
        }
        if number(56) != Checksum::of(&bytes[..56]) {
            return Err("its header does not match its checksum".to_owned());
        }
        let [tokenizer, documents, tokens, learned, body] = [16, 24, 32, 40, 48].map(number);
        Ok(Self { vocabulary, tokenizer, documents, tokens, learned, body })
    }
}

/// Eight bytes as a number.
fn number(bytes: &[u8], start: usize) -> Option<u64> {
    bytes.get(start..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The tokens of a document of `bytes` bytes: `3 n`, and one more if that is odd.
fn tokens_in(bytes: u64) -> Option<u64> {
    let tokens = bytes / 6 * 2 + u64::from(bytes % 6 == 4);
    matches!(bytes % 6, 0 | 4).then_some(tokens)
}

/// A shard that is being written. Memory grows by eight bytes a document.
#[derive(Debug)]
pub struct ShardWriter {
    file: AtomicFile,
    body: Checksum,
    /// The place where each document begins.
    places: Vec<u64>,
    end: u64,
    header: Header,
}

impl ShardWriter {
    /// Begins a shard that will stand at `path`, for tokens of `tokenizer`.
    ///
    /// # Errors
    /// When it cannot be written there.
    pub fn create(path: &Path, tokenizer: &ChatTokenizer) -> Result<Self, ShardError> {
        let mut file = AtomicFile::create(path)?;
        // The place of the header, which is known last.
        file.write_all(&[0; HEADER]).map_err(|error| file.failed(error))?;
        let vocabulary = u32::try_from(tokenizer.tokenizer().vocab_size()).unwrap_or(u32::MAX);
        let header = Header { vocabulary, tokenizer: tokenizer.hash(), documents: 0, tokens: 0, learned: 0, body: 0 };
        Ok(Self { file, body: Checksum::default(), places: Vec::new(), end: HEADER as u64, header })
    }

    /// Adds a document, with a class for each token.
    ///
    /// # Errors
    /// When it cannot be written, on a full disk for example.
    ///
    /// # Panics
    /// If there are not as many classes as tokens.
    pub fn push(&mut self, tokens: &[u16], learn: &[u8]) -> Result<(), ShardError> {
        assert_eq!(tokens.len(), learn.len(), "a class for each token");
        let mut bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        bytes.extend(learn);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        self.places.push(self.end);
        self.header.tokens += tokens.len() as u64;
        self.header.learned += learn.iter().filter(|&&class| class != PROMPT).count() as u64;
        self.write(&bytes)
    }

    /// Documents so far.
    pub fn documents(&self) -> usize {
        self.places.len()
    }

    /// Writes the end and the header and moves the shard to its place. Gives the number of its tokens.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<u64, ShardError> {
        let places = std::mem::take(&mut self.places);
        self.header.documents = places.len() as u64;
        let end = self.end;
        for place in places.into_iter().chain([end]) {
            self.write(&place.to_le_bytes())?;
        }
        self.header.body = self.body.finish();
        let header = self.header.bytes();
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&header));
        written.map_err(|error| self.file.failed(error))?;
        self.file.commit()?;
        Ok(self.header.tokens)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ShardError> {
        self.body.update(bytes);
        self.end += bytes.len() as u64;
        Ok(self.file.write_all(bytes).map_err(|error| self.file.failed(error))?)
    }
}

/// A shard, checked and mapped into memory.
#[derive(Debug)]
pub struct Shard {
    file: MappedFile,
    header: Header,
    /// The place of the list of the documents' places.
    index: usize,
}

impl Shard {
    /// Opens the shard at `path` and checks all of it, so that nothing damaged is ever learned from.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or was made with another tokenizer.
    pub fn open(path: &Path, tokenizer: &ChatTokenizer) -> Result<Self, ShardError> {
        let unreadable = |error: ReadError| ShardError::Unreadable { path: path.to_owned(), source: error.into() };
        let file = files::map(path).map_err(unreadable)?;
        let (header, index) = check(&file).map_err(|reason| ShardError::Damaged { path: path.to_owned(), reason })?;
        if header.tokenizer != tokenizer.hash() {
            return Err(ShardError::OtherTokenizer { path: path.to_owned() });
        }
        Ok(Self { file, header, index })
    }

    /// A hash of the documents.
    pub fn checksum(&self) -> u64 {
        self.header.body
    }

    /// The number of documents.
    pub fn documents(&self) -> usize {
        self.header.documents as usize
    }

    /// The number of documents to draw for a share of the tokens, relative to other shards: the longer they are, the fewer.
    pub fn documents_for(&self, share: f64) -> f64 {
        share * self.documents() as f64 / self.tokens().max(1) as f64
    }

    /// The number of tokens of all documents.
    pub fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// The number of tokens that are learned fully: those of any class but [`PROMPT`].
    pub fn learned(&self) -> u64 {
        self.header.learned
    }

    /// Document number `index`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn document(&self, index: usize) -> Document<'_> {
        assert!(index < self.documents(), "document {index} of {}", self.documents());
        let document = || {
            let place = |index: usize| number(&self.file, self.index + 8 * index);
            let (start, end) = (place(index)?, place(index + 1)?);
            let (start, tokens) = (usize::try_from(start).ok()?, usize::try_from(tokens_in(end - start)?).ok()?);
            let classes = start + 2 * tokens;
            Some(Document { tokens: self.file.u16s(start..classes)?, learn: self.file.get(classes..classes + tokens)? })
        };
        // All places were checked when the file was opened; it would have to be changed since.
        document().unwrap_or(Document { tokens: &[], learn: &[] })
    }
}

/// Checks a whole file. Gives its header, and where the documents' places are listed.
fn check(file: &MappedFile) -> Result<(Header, usize), String> {
    if cfg!(target_endian = "big") {
        return Err("this machine orders bytes the other way round".to_owned());
    }
    let header = Header::read(file)?;
    // Nothing is trusted that the header says before it fits the file.
    let index = header.documents.checked_add(1).and_then(|places| places.checked_mul(8));
    let index = index.and_then(|length| usize::try_from(length).ok()).and_then(|length| file.len().checked_sub(length));
    let Some(index) = index.filter(|index| *index >= HEADER) else {
        return Err(format!("its {} bytes are too few for {} documents", file.len(), header.documents));
    };
    if Checksum::of(&file[HEADER..]) != header.body {
        return Err("its documents do not match their checksum".to_owned());
    }
    let (mut last, mut tokens) = (HEADER as u64, 0);
    for (document, place) in file[index..].chunks_exact(8).enumerate() {
        let place = number(place, 0).unwrap_or_default();
        let counted = place.checked_sub(last).and_then(tokens_in);
        let begins = document > 0 || place == last;
        let Some(counted) = counted.filter(|_| begins && place <= index as u64) else {
            return Err(format!("document {document} lies at an impossible place"));
        };
        tokens += counted;
        last = place;
    }
    if last != index as u64 {
        return Err(format!("{} bytes of it belong to no document", index as u64 - last));
    }
    if tokens != header.tokens {
        return Err(format!("its documents have {tokens} tokens, and its header says {}", header.tokens));
    }
    Ok((header, index))
}

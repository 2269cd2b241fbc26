//! From files to documents: conversations as they are, text cut at ends of paragraphs.

use super::shard::{ANSWER, PROMPT, TEXT};
use crate::sources::Row;
use crate::tokenizer::{ChatTokenizer, TokenizerError};

/// The tokens of a document with their classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnDocument {
    /// The tokens.
    pub tokens: Vec<u16>,
    /// A class for each.
    pub learn: Vec<u8>,
}

/// White space that makes a paragraph longer than this, in bytes, is left out: a file may have gigabytes of it.
const LONGEST: usize = 1 << 17;

/// Makes documents of at most so many tokens.
#[derive(Debug)]
pub struct Cutter<'a> {
    tokenizer: &'a ChatTokenizer,
    limit: usize,
    /// Tokens that the tokenizer puts around every text, and the end of a text.
    frame: usize,
    /// Paragraphs for the next document, each with words in it, and about how many tokens they take.
    pending: Vec<(String, usize)>,
    /// Conversations that were left out because they are too long.
    long: u64,
}

impl<'a> Cutter<'a> {
    /// Makes documents of at most `limit` tokens.
    ///
    /// # Errors
    /// When the tokenizer fails on an empty text.
    pub fn new(tokenizer: &'a ChatTokenizer, limit: usize) -> Result<Self, TokenizerError> {
        let frame = tokenizer.text("")?.len() + 1;
        Ok(Self { tokenizer, limit: limit.max(frame + 4), frame, pending: Vec::new(), long: 0 })
    }

    /// Conversations that were left out so far because they are longer than a document may be.
    pub fn long(&self) -> u64 {
        self.long
    }

    /// Makes documents of a row.
    ///
    /// # Errors
    /// When the tokenizer or its chat template fails on it.
    pub fn row(&mut self, row: &Row) -> Result<Vec<OwnDocument>, TokenizerError> {
        match row {
            Row::Answer { messages, answer } => {
                let conversation = self.tokenizer.conversation(messages, answer)?;
                let answer = conversation.tokens.len() - conversation.prompt;
                if conversation.tokens.len() > self.limit {
                    self.long += 1;
                    return Ok(Vec::new());
                }
                let learn = [vec![PROMPT; conversation.prompt], vec![ANSWER; answer]].concat();
                Ok(vec![OwnDocument { tokens: conversation.tokens, learn }])
            }
            Row::Text(text) => {
                let mut documents = Vec::new();
                for paragraph in paragraphs(text) {
                    documents.extend(self.paragraph(paragraph)?);
                }
                documents.extend(self.end()?);
                Ok(documents)
            }
        }
    }

    /// Takes the next paragraph of a text. Gives the documents that are full now.
    ///
    /// # Errors
    /// When the tokenizer fails on it.
    pub fn paragraph(&mut self, paragraph: &str) -> Result<Vec<OwnDocument>, TokenizerError> {
        let mut documents = Vec::new();
        for (part, tokens) in self.parts(paragraph)? {
            // White space belongs to the words before it, so that the last document ends in words, and at the very end.
            if part.trim().is_empty() {
                match self.pending.last_mut() {
                    Some((text, _)) if text.len() + part.len() <= LONGEST => text.push_str(&part),
                    _ => {}
                }
                continue;
            }
            let taken: usize = self.pending.iter().map(|(_, tokens)| tokens).sum();
            if taken + tokens + self.frame > self.limit {
                documents.extend(self.cut(false)?);
            }
            self.pending.push((part, tokens));
        }
        Ok(documents)
    }

    /// Ends a text. Gives its last documents, the last with the token that ends a text.
    ///
    /// # Errors
    /// When the tokenizer fails on it.
    pub fn end(&mut self) -> Result<Vec<OwnDocument>, TokenizerError> {
        let mut documents = Vec::new();
        while !self.pending.is_empty() {
            documents.extend(self.cut(true)?);
        }
        Ok(documents)
    }

    /// Makes a document of the pending paragraphs: of all, unless together they have more tokens than apart, so that
    /// some stay. If the text `ends` with them, so does the document.
    fn cut(&mut self, ends: bool) -> Result<Option<OwnDocument>, TokenizerError> {
        let mut taken = self.pending.len();
        while taken > 0 {
            let text: String = self.pending[..taken].iter().map(|(text, _)| text.as_str()).collect();
            let mut tokens = self.tokenizer.text(text.trim_end().trim_start_matches('\n'))?;
            // A part by itself fits: it was cut until it did.
            if tokens.len() < self.limit || taken == 1 {
                let last = ends && taken == self.pending.len();
                tokens.extend(last.then_some(self.tokenizer.end()));
                self.pending.drain(..taken);
                return Ok(Some(OwnDocument { learn: vec![TEXT; tokens.len()], tokens }));
            }
            taken -= 1;
        }
        Ok(None)
    }

    /// A paragraph in parts that fit into a document, with their tokens: whole if it fits, else halved, where a line
    /// ends if possible, or else a word.
    fn parts(&self, paragraph: &str) -> Result<Vec<(String, usize)>, TokenizerError> {
        let tokens = self.tokenizer.text(paragraph)?.len() + 1 - self.frame;
        let cut = if tokens + self.frame <= self.limit { None } else { near_middle(paragraph) };
        match cut {
            None => Ok(vec![(paragraph.to_owned(), tokens)]),
            Some(cut) => {
                let (before, after) = paragraph.split_at(cut);
                Ok([self.parts(before)?, self.parts(after)?].concat())
            }
        }
    }
}

/// The place nearest to the middle of a text behind a line's end, or else before a space, or else between letters;
/// none in a single letter.
fn near_middle(text: &str) -> Option<usize> {
    let middle = text.len() / 2;
    let nearest = |places: &mut dyn Iterator<Item = usize>| {
        places.filter(|place| (1..text.len()).contains(place)).min_by_key(|place| place.abs_diff(middle))
    };
    let lines = &mut text.match_indices('\n').map(|(place, _)| place + 1);
    nearest(lines)
        .or_else(|| nearest(&mut text.match_indices(' ').map(|(place, _)| place)))
        .or_else(|| nearest(&mut text.char_indices().map(|(place, _)| place)))
}

/// A text's paragraphs, each with the blank lines behind it.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive("\n\n")
}

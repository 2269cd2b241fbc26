//! Merges: which two tokens become which, in order of rank. Byte-level files store them; SentencePiece's scores imply them, and
//! transformers derives them in the same way when it converts such a model.

use std::cmp::Reverse;

use tokenizers::models::bpe::{Merges, Vocab};

use super::{MERGES, by_text};
use crate::checkpoint::vocabulary::{Kind, SCORES, SPACE, TOKENS, Vocabulary};
use crate::checkpoint::{CheckpointError, Metadata};
use crate::visible::shown;

/// Bytes of a token that is looked at for merges. Real ones have under 200; the time grows with the square.
const LONGEST_TOKEN: usize = 512;
/// Bytes that derived merges may have for each byte of the vocabulary. Real ones have about three.
const MOST_BYTES: usize = 16;

/// The merges of a file, `None` if it stores none. Both parts and the whole must be tokens; merges of unused tokens are left out.
pub(super) fn stored(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Option<Merges>, CheckpointError> {
    let Some(lines) = metadata.texts(MERGES)? else { return Ok(None) };
    let (by_text, unused) = (by_text(vocabulary), vocabulary.unused());
    let mut merges = Vec::with_capacity(lines.len());
    let mut whole = String::new();
    for (rank, line) in lines.iter().enumerate() {
        let parts = split(line).ok_or_else(|| {
            metadata.error(MERGES, format!("has \"{}\" at {rank}, which is not two tokens with a space", shown(line)))
        })?;
        whole.clear();
        whole.push_str(parts.0);
        whole.push_str(parts.1);
        let texts = [parts.0, parts.1, &whole];
        match texts.iter().find(|text| !by_text.contains_key(**text)) {
            None => merges.push((parts.0.to_owned(), parts.1.to_owned())),
            Some(_) if texts.iter().any(|text| unused.contains(text)) => {}
            Some(missing) => {
                let reason = format!("joins \"{}\" at {rank}, and \"{}\" is no token", shown(line), shown(missing));
                return Err(metadata.error(MERGES, reason));
            }
        }
    }
    Ok(Some(merges))
}

/// The two parts of a line. As in llama.cpp, the first character is no separator.
fn split(line: &str) -> Option<(&str, &str)> {
    let first = line.chars().next()?.len_utf8();
    let space = first + line.get(first..)?.find(' ')?;
    let (left, right) = (line.get(..space)?, line.get(space + 1..)?);
    (!right.is_empty()).then_some((left, right))
}

/// A way to build a token.
struct Merge {
    score: f32,
    left: u32,
    right: u32,
}

/// The merges that scores imply: every way to cut a token into two, those of the best token first, and of its ways the one with
/// the longest left part first.
pub(super) fn from_scores(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Merges, CheckpointError> {
    let scores = vocabulary.scores.as_deref();
    let scores = scores.ok_or_else(|| metadata.error(SCORES, format!("is missing, and {MERGES} are too")))?;
    // Only these take part: others never come out of a merge.
    let parts: Vocab = vocabulary
        .iter()
        .filter(|&(_, token, kind)| merges(token, kind))
        .map(|(id, token, _)| (token.to_owned(), id))
        .collect();
    let (mut found, mut bytes) = (Vec::new(), 0_usize);
    let all: usize = parts.keys().map(String::len).sum();
    for ((id, token, kind), &score) in vocabulary.iter().zip(scores) {
        if !merges(token, kind) {
            continue;
        }
        if token.len() > LONGEST_TOKEN {
            let length = token.len();
            return Err(metadata.error(TOKENS, format!("has {length} bytes at {id}, and {LONGEST_TOKEN} is the most")));
        }
        // SentencePiece's score of tokens that users added, which converters overwrite.
        let score = if kind == Kind::User { 0.0 } else { score };
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            let Some(&left) = parts.get(left) else { continue };
            let Some(&right) = parts.get(right) else { continue };
            bytes += token.len();
            if bytes > all.saturating_mul(MOST_BYTES) {
                return Err(
                    metadata.error(TOKENS, "has tokens that can be built in too many ways to be a real vocabulary")
                );
            }
            found.push(Merge { score, left, right });
        }
    }
    let length = |id: u32| vocabulary.token(id).map_or(0, |token| token.chars().count());
    // Equal ones stay in the order of their ids.
    found.sort_by(|one, other| {
        let by_score = other.score.total_cmp(&one.score);
        by_score.then_with(|| {
            let lengths = |merge: &Merge| Reverse((length(merge.left), length(merge.right)));
            lengths(one).cmp(&lengths(other))
        })
    });
    let text = |id: u32| vocabulary.token(id).unwrap_or_default().to_owned();
    Ok(found.iter().map(|merge| (text(merge.left), text(merge.right))).collect())
}

/// True for tokens that are built or parts of others: text, and runs of spaces that Gemma has as tokens of users. Others are cut
/// out of a text before.
fn merges(token: &str, kind: Kind) -> bool {
    kind == Kind::Normal || kind == Kind::User && token.chars().all(|letter| letter == SPACE)
}

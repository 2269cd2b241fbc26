//! Drafting by lookup (prompt lookup decoding, Saxena 2023): the longest suffix of the text that occurred
//! before, and what followed it there.
//!
//! Free where nothing is found, and strongest where answers repeat their prompt: summaries, code, retrieval.
//! Occurrences are kept in an index that grows with the text, so a draft costs a few look-ups however long
//! the text is.

use std::collections::HashMap;

use super::{Ask, DraftRequest, Drafter};
use crate::sampling::SamplingError;

/// The longest suffix looked for, in tokens.
const LONGEST: usize = 3;

/// The most tokens, backwards, that the earlier context is compared with the current one: more makes a draft no surer.
const LONGEST_AGREEMENT: usize = 16;

/// `LONGEST` ids of which the unused leading ones are `u32::MAX`, no token's id.
type Ngram = [u32; LONGEST];

/// Drafts what followed the last earlier occurrence of the text's suffix.
#[derive(Default)]
pub struct LookupDrafter {
    /// Where the text went on after the last occurrence of an n-gram.
    follows: HashMap<Ngram, usize>,
    indexed: usize,
}

impl LookupDrafter {
    /// A drafter with an empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the text went on after the last earlier occurrence of its longest known suffix, and how many tokens agree before
    /// that place and before the text's end. What was looked up before must be a beginning of this text.
    pub fn look_up(&mut self, text: &[u32]) -> Option<(usize, usize)> {
        self.index(text);
        self.find(text).map(|follow| (follow, agreement(text, follow)))
    }

    /// The log-odds that a token is right which follows where so many agree: Laplace's rule of succession, that what agreed so
    /// far goes on agreeing.
    pub fn log_odds(agreed: usize) -> f32 {
        (agreed as f32 + 1.0).ln()
    }

    /// Indexes n-grams that end before the text's newest token; the newest has no continuation yet.
    fn index(&mut self, text: &[u32]) {
        for follow in self.indexed.max(1)..text.len() {
            for ngram in suffixes(&text[..follow]) {
                self.follows.insert(ngram, follow);
            }
        }
        self.indexed = text.len();
    }

    /// Where the text went on after the last earlier occurrence of its longest known suffix.
    fn find(&self, text: &[u32]) -> Option<usize> {
        suffixes(text).find_map(|ngram| self.follows.get(&ngram).copied())
    }
}

/// The suffixes of a text as n-grams, the longest first.
fn suffixes(text: &[u32]) -> impl Iterator<Item = Ngram> + '_ {
    (1..=LONGEST.min(text.len())).rev().map(|length| {
        let mut ngram = [u32::MAX; LONGEST];
        ngram[LONGEST - length..].copy_from_slice(&text[text.len() - length..]);
        ngram
    })
}

/// Number of tokens before `follow` that are the text's last ones too, so far as that matters.
fn agreement(text: &[u32], follow: usize) -> usize {
    let pairs = text[..follow].iter().rev().zip(text.iter().rev());
    pairs.take(LONGEST_AGREEMENT).take_while(|(before, now)| before == now).count()
}

impl Drafter for LookupDrafter {
    fn go_on(&mut self, request: &mut DraftRequest<'_>, _: Option<&[f32]>) -> Result<Option<Ask>, SamplingError> {
        // Reading on into the draft itself continues a repetition for as long as asked.
        if let Some((mut next, mut agreed)) = self.look_up(request.accepted()) {
            while request.wants_another() {
                request.push(request.history()[next], Self::log_odds(agreed));
                next += 1;
                agreed += 1;
            }
        }
        Ok(None)
    }

    fn backlog(&self, known: usize) -> usize {
        known.saturating_sub(self.indexed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by scanning: the last earlier place after which the longest possible suffix occurred.
    fn scan(text: &[u32]) -> Option<usize> {
        (1..=LONGEST.min(text.len())).rev().find_map(|length| {
            let suffix = &text[text.len() - length..];
            (length..text.len()).rev().find(|&follow| &text[follow - length..follow] == suffix)
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(text in prop::collection::vec(0_u32..5, 0..80), cuts in prop::collection::vec(0_usize..80, 0..6)) {
            let mut lookup = LookupDrafter::new();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut <= text.len()).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            for cut in cuts {
                lookup.index(&text[..cut]);
                prop_assert_eq!(lookup.find(&text[..cut]), scan(&text[..cut]));
            }
        }
    }
}

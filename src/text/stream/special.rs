//! Stop texts with special tokens in them. An answer's text has no special tokens, so such a stop text is looked for in the text
//! with the special tokens where they came.

use tokenizers::Tokenizer;

/// A byte of text or a special token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Byte(u8),
    Token(u32),
}

/// Stands for an unfinished character, which is no part of a stop text; no tokenizer has so many tokens.
const UNFINISHED: u32 = u32::MAX;

/// The stop texts with special tokens, and the special tokens that came among the text that is held back.
#[derive(Debug, Default)]
pub(super) struct SpecialStops {
    /// Their places in the list of all stop texts, and what they are made of.
    stops: Vec<(usize, Vec<Unit>)>,
    /// Special tokens with the byte of the held text that they came before.
    marks: Vec<(usize, u32)>,
}

impl SpecialStops {
    /// Those of `stops` that spell a special token.
    pub(super) fn new(tokenizer: &Tokenizer, stops: &[String]) -> Self {
        if stops.is_empty() {
            return Self::default();
        }
        let added = tokenizer.get_added_tokens_decoder();
        let special: Vec<(&str, u32)> = added
            .iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(&id, token)| (token.content.as_str(), id))
            .collect();
        let units = stops.iter().map(|stop| units_of(stop, &special)).enumerate();
        let has_token = |units: &[Unit]| units.iter().any(|unit| matches!(unit, Unit::Token(_)));
        Self { stops: units.filter(|(_, units)| has_token(units)).collect(), marks: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stops.is_empty()
    }

    /// Notes a special token at the end of the held text, or behind a character after it that is unfinished.
    pub(super) fn push(&mut self, token: u32, held: &str, is_unfinished: bool) {
        if is_unfinished {
            self.marks.push((held.len(), UNFINISHED));
        }
        self.marks.push((held.len(), token));
    }

    /// Where the first of the stop texts begins in the held text, and its place in the list.
    pub(super) fn find(&self, held: &str) -> Option<(usize, usize)> {
        if self.marks.is_empty() {
            return None;
        }
        let units = self.units(held);
        let found = self.stops.iter().filter_map(|(stop, wanted)| {
            let start = units.windows(wanted.len()).position(|window| same(window, wanted))?;
            Some((units.get(start).map_or(held.len(), |(_, byte)| *byte), *stop))
        });
        found.min()
    }

    /// Where the longest end of the held text begins that may be the beginning of a stop text.
    pub(super) fn possible(&self, held: &str) -> usize {
        let longest = self.stops.iter().map(|(_, wanted)| wanted.len()).max().unwrap_or(0);
        if longest == 0 {
            return held.len();
        }
        let units = self.units(held);
        let from = units.len().saturating_sub(longest.saturating_sub(1));
        let begins = |start: &usize| {
            self.stops
                .iter()
                .any(|(_, wanted)| wanted.get(..units.len() - start).is_some_and(|begin| same(&units[*start..], begin)))
        };
        (from..units.len()).find(begins).and_then(|start| units.get(start)).map_or(held.len(), |(_, byte)| *byte)
    }

    /// Follows the held text, whose first `bytes` were handed out.
    pub(super) fn advance(&mut self, bytes: usize) {
        // Those right before what is held may begin a stop text with it.
        self.marks.retain(|(byte, _)| *byte >= bytes);
        self.marks.iter_mut().for_each(|(byte, _)| *byte -= bytes);
    }

    /// The held text and the tokens in it, with the bytes where they are.
    fn units(&self, held: &str) -> Vec<(Unit, usize)> {
        let mut units = Vec::with_capacity(held.len() + self.marks.len());
        let mut marks = self.marks.iter().peekable();
        for (byte, &letter) in held.as_bytes().iter().enumerate() {
            while let Some((_, token)) = marks.next_if(|(mark, _)| *mark <= byte) {
                units.push((Unit::Token(*token), byte));
            }
            units.push((Unit::Byte(letter), byte));
        }
        units.extend(marks.map(|(_, token)| (Unit::Token(*token), held.len())));
        units
    }
}

fn same(units: &[(Unit, usize)], wanted: &[Unit]) -> bool {
    units.iter().map(|(unit, _)| unit).eq(wanted)
}

/// A stop text cut into text and special tokens, the longest that fits at each place.
fn units_of(stop: &str, special: &[(&str, u32)]) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut rest = stop;
    while let Some(first) = rest.chars().next() {
        let fitting = special.iter().filter(|(token, _)| rest.starts_with(token));
        if let Some((token, id)) = fitting.max_by_key(|(token, _)| token.len()) {
            units.push(Unit::Token(*id));
            rest = &rest[token.len()..];
        } else {
            let (letter, after) = rest.split_at(first.len_utf8());
            units.extend(letter.bytes().map(Unit::Byte));
            rest = after;
        }
    }
    units
}

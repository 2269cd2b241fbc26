//! Surface features of a prompt: its tokens, counted.

use std::collections::HashSet;

use paceline_router::Features;

use crate::text::Tokenizer;

/// Classes of tokens, as bits.
const DIGIT: u8 = 1;
const CODE: u8 = 2;
const LINE_END: u8 = 4;
const CAPITAL: u8 = 8;
const MARK: u8 = 16;

/// The names of their features, in the order of the bits.
const CLASSES: [&str; 5] = [
    "share with digits",
    "share with marks of code",
    "share with line ends",
    "share with capitals",
    "share with other marks",
];

/// The classes of all tokens of a vocabulary.
#[derive(Debug)]
pub struct Surface {
    classes: Vec<u8>,
}

impl Surface {
    /// Looks at every token once.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let class = |id: usize| {
            let text = u32::try_from(id).ok().and_then(|id| tokenizer.decode(&[id], true).ok()).unwrap_or_default();
            text.chars().fold(0, |class, c| class | class_of(c))
        };
        Self { classes: (0..tokenizer.vocab_size()).map(class).collect() }
    }

    /// Fills in what the tokens of a prompt show.
    pub fn count(&self, prompt: &[u32], features: &mut Features) {
        let all = prompt.len().max(1) as f32;
        let mut counts = [0_u32; CLASSES.len()];
        for &token in prompt {
            let class = self.classes.get(token as usize).copied().unwrap_or(0);
            counts.iter_mut().enumerate().for_each(|(bit, count)| *count += u32::from(class >> bit & 1));
        }
        for (name, count) in CLASSES.into_iter().zip(counts) {
            features.set(name, count as f32 / all);
        }
        let different = |length: usize| prompt.windows(length).collect::<HashSet<_>>().len() as f32;
        let repeated = |length: usize| {
            let windows = prompt.len().saturating_sub(length - 1);
            (windows as f32 - different(length)) / windows.max(1) as f32
        };
        features.set("tokens, logarithm", all.ln());
        features.set("share of different tokens", different(1) / all);
        features.set("share of pairs that were there before", repeated(2));
        features.set("share of triples that were there before", repeated(3));
    }
}

fn class_of(c: char) -> u8 {
    match c {
        '0'..='9' => DIGIT,
        '{' | '}' | '[' | ']' | '(' | ')' | '<' | '>' | '=' | ';' | '_' | '`' | '#' | '/' | '\\' | '*' | '+' | '&'
        | '|' => CODE,
        '\n' => LINE_END,
        c if c.is_uppercase() => CAPITAL,
        c if c.is_alphanumeric() || c.is_whitespace() => 0,
        _ => MARK,
    }
}

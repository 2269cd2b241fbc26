//! Beginnings of texts as prompts, which a target goes on with.

use paceline::Prompt;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{PROMPT, SourceTokens};

/// The shortest beginning of a text that the target goes on with, in tokens.
const SHORTEST_BEGINNING: usize = 8;

/// Beginnings of documents of the texts: the prompt of a conversation, else up to half of the text. Sources are drawn by
/// their weights. The beginnings of a smaller `count` are the first of those of a larger one.
pub fn text_prompts(tokens: &[SourceTokens], seed: u64, count: usize) -> Vec<Prompt> {
    let texts: Vec<&SourceTokens> =
        tokens.iter().filter(|source| !source.generated && source.train.documents() > 0).collect();
    let weight = |source: &&SourceTokens| source.train.documents_for(source.weight);
    let all: f64 = texts.iter().map(weight).sum();
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x636f_6e74_696e_7565);
    let mut prompt = || {
        let mut point = random.random::<f64>() * all;
        let drawn = texts.iter().find(|source| {
            point -= weight(source);
            point < 0.0
        });
        let source = drawn.or(texts.last())?;
        let document = source.train.document(random.random_range(0..source.train.documents()));
        let asked = document.learn.iter().take_while(|&&class| class == PROMPT).count();
        let half = (document.tokens.len() / 2).max(1);
        let end = match asked {
            0 => random.random_range(SHORTEST_BEGINNING.min(half)..=half),
            asked => asked,
        };
        Some(Prompt::Tokens(document.tokens[..end].iter().map(|&token| u32::from(token)).collect()))
    };
    (0..count).map_while(|_| prompt()).collect()
}

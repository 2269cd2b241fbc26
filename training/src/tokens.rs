//! Tokens to learn from: documents ([`Cutter`]) in files ([`Shard`]), and those of a recipe's sources.

mod documents;
mod prompts;
mod shard;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests;

pub use self::documents::{Cutter, OwnDocument};
pub use self::prompts::text_prompts;
pub use self::shard::{ANSWER, Document, PROMPT, Shard, ShardError, ShardWriter, TEXT};

/// A source's tokens.
#[derive(Debug)]
pub struct SourceTokens {
    /// Its name.
    pub name: String,
    /// Its share in what is learned, relative to the others'.
    pub weight: f64,
    /// True for generated tasks.
    pub generated: bool,
    /// The part to train on.
    pub train: Shard,
    /// The part that was held out, if any.
    pub validation: Option<Shard>,
}

/// All that decides what is learned from sources and measured on them, as text.
pub fn fingerprint(sources: &[SourceTokens]) -> String {
    let of = |source: &SourceTokens| {
        let held_out = source.validation.as_ref().map(Shard::checksum);
        format!("{} {} {:x} {held_out:x?}", source.name, source.weight, source.train.checksum())
    };
    sources.iter().map(of).collect::<Vec<_>>().join(", ")
}

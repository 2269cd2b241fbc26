//! Learning a vocabulary: byte-level BPE over GPT-2's pieces of text, with every digit by itself.
//!
//! GPT-2's pattern keeps ` 1234` together. Numbers cut into changing groups of digits are hard to calculate with, so
//! while the vocabulary is learned, and only then, pieces are cut around digits too: no merge joins a digit with
//! anything, and so the plain pattern, which other programs know, yields single digits as well.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer, Trainer};

use super::save::{BEGIN, SPECIAL};

/// Why no vocabulary was learned.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// It has no place for the bytes.
    #[error(
        "A vocabulary of {vocabulary} tokens is too small: {least} are needed for the single bytes and the special tokens; \
         raise `vocabulary` in [tokenizer]."
    )]
    Small {
        /// Tokens asked for.
        vocabulary: usize,
        /// The least that will do.
        least: usize,
    },
    /// Tokens are stored as 16-bit numbers.
    #[error(
        "A vocabulary of {vocabulary} tokens is too large: at most 65536 can be used; lower `vocabulary` in [tokenizer]."
    )]
    Large {
        /// Tokens asked for.
        vocabulary: usize,
    },
    /// The text repeats too little.
    #[error(
        "The text yields only {found} of the {vocabulary} tokens asked for: give more text, or lower `vocabulary` in \
         [tokenizer] to {found} at most."
    )]
    Few {
        /// Tokens asked for.
        vocabulary: usize,
        /// Tokens that there are.
        found: usize,
    },
    /// The library failed.
    #[error("The vocabulary cannot be learned: {0}; please report this.")]
    Library(#[from] tokenizers::Error),
}

/// The most tokens that fit the shards' 16-bit numbers.
pub(crate) const LARGEST_VOCABULARY: usize = 1 << 16;

/// A piece that occurs less often is not worth a token.
const LEAST_FREQUENCY: u64 = 2;

/// GPT-2's pieces, as llama.cpp knows them by the name `gpt-2`.
fn gpt2() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

/// Learns a vocabulary of `vocabulary` tokens from `texts`: the special tokens, the bytes, and what occurs most. It
/// depends on the texts alone, not on their order, on threads or on chance.
///
/// # Errors
/// When the vocabulary is too small for the bytes or too large for the text.
pub fn learn(texts: impl Iterator<Item = String> + Send, vocabulary: usize) -> Result<Tokenizer, LearnError> {
    let alphabet: std::collections::HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let least = SPECIAL.len() + alphabet.len();
    if vocabulary < least {
        return Err(LearnError::Small { vocabulary, least });
    }
    if vocabulary > LARGEST_VOCABULARY {
        return Err(LearnError::Large { vocabulary });
    }
    let special = || SPECIAL.map(|token| AddedToken::from(token, true).normalized(false)).to_vec();
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .min_frequency(LEAST_FREQUENCY)
        .initial_alphabet(alphabet)
        .special_tokens(special())
        .show_progress(false)
        .build();
    trainer.feed(texts, words)?;
    let mut model = BPE::default();
    trainer.train(&mut model)?;
    let mut tokenizer = Tokenizer::new(model);
    let found = tokenizer.get_vocab_size(false);
    if found < vocabulary {
        return Err(LearnError::Few { vocabulary, found });
    }
    tokenizer.with_pre_tokenizer(Some(gpt2())).with_decoder(Some(gpt2()));
    tokenizer.add_special_tokens(special())?;
    // Every text begins with a mark, as the documents in training do.
    let begin = tokenizer.token_to_id(BEGIN).unwrap_or_default();
    let frame = TemplateProcessing::builder()
        .try_single(format!("{BEGIN} $A"))
        .map(|builder| builder.special_tokens(vec![(BEGIN, begin)]).build().map_err(|error| error.to_string()));
    tokenizer.with_post_processor(Some(frame.flatten().map_err(tokenizers::Error::from)?));
    Ok(tokenizer)
}

/// The words of a text that merges are counted in: GPT-2's pieces, cut around digits.
fn words(text: &str) -> tokenizers::Result<Vec<String>> {
    let mut pieces = PreTokenizedString::from(text);
    gpt2().pre_tokenize(&mut pieces)?;
    let pieces = pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(pieces.iter().flat_map(|(piece, _, _)| around_digits(piece)).map(str::to_owned).collect())
}

/// `piece` cut before and behind every digit. Bytes are written as letters there, and digits stand for themselves.
fn around_digits(piece: &str) -> impl Iterator<Item = &str> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        let end = match rest.find(|c: char| c.is_ascii_digit()) {
            None if rest.is_empty() => return None,
            None => rest.len(),
            Some(0) => 1,
            Some(digit) => digit,
        };
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Many numbers, so that merges of digits would pay most.
    fn texts() -> Vec<String> {
        let syllables = ["ka", "lo", "mi", "ru", "te", "shan", "gor"];
        let name = |i: usize| [i % 7, i / 7 % 7, i / 49 % 7].map(|i| syllables[i]).concat();
        let text = |i: usize| {
            format!("In {} there were {} {} and 1234567 ships, 12.5% of 2024's. x{i}y", 1500 + i, i * i, name(i))
        };
        (0..400).map(text).collect()
    }

    #[test]
    fn the_same_texts_make_the_same_vocabulary() {
        let json = |texts: Vec<String>| learn(texts.into_iter(), 300).unwrap().to_string(false).unwrap();
        let once = json(texts());
        assert_eq!(once, json(texts()));
        assert_eq!(once, json(texts().into_iter().rev().collect()));
        assert_ne!(once, json(texts().into_iter().skip(200).collect()));
    }

    #[test]
    fn no_token_joins_a_digit_with_anything() {
        let tokenizer = learn(texts().into_iter(), 400).unwrap();
        let vocabulary = tokenizer.get_vocab(true);
        assert_eq!(vocabulary.len(), 400);
        for token in vocabulary.keys() {
            assert!(token.len() == 1 || !token.contains(|c: char| c.is_ascii_digit()), "{token}");
        }
        assert_eq!(SPECIAL.map(|token| vocabulary[token]), [0, 1, 2, 3, 4, 5]);
        // Words were merged.
        assert!(vocabulary.contains_key("\u{120}there"));
    }

    #[test]
    fn vocabularies_of_impossible_sizes_are_refused() {
        let message = |size: usize| learn(texts().into_iter(), size).unwrap_err().to_string();
        assert!(message(261).contains("262 are needed"), "{}", message(261));
        assert!(message(65_537).contains("at most 65536"), "{}", message(65_537));
        assert!(message(4000).contains("of the 4000 tokens asked for: give more text"), "{}", message(4000));
        assert_eq!(learn(std::iter::empty(), 262).unwrap().get_vocab_size(true), 262);
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_digits_stay_single(text in "([a-z0-9 .,\\n½\u{96f}€]|[0-9]{3}){0,20}") {
            static TOKENIZER: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(|| learn(texts().into_iter(), 400).unwrap());
            let encoding = TOKENIZER.encode_fast(text.as_str(), true).unwrap();
            let ids = encoding.get_ids();
            prop_assert_eq!(TOKENIZER.decode(ids, true).unwrap(), text.as_str());
            prop_assert_eq!(TOKENIZER.id_to_token(ids[0]).unwrap(), BEGIN);
            let digits = ids.iter().filter(|&&id| TOKENIZER.id_to_token(id).unwrap().contains(|c: char| c.is_ascii_digit())).count();
            prop_assert_eq!(digits, text.chars().filter(char::is_ascii_digit).count());
        }

        #[test]
        fn pieces_around_digits_are_the_whole(piece in "[a0-9½]{0,9}") {
            let cut: Vec<&str> = around_digits(&piece).collect();
            prop_assert_eq!(cut.concat(), piece.as_str());
            prop_assert!(cut.iter().all(|part| part.len() == 1 || !part.contains(|c: char| c.is_ascii_digit())));
        }
    }
}

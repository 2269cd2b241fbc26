//! Tokenizer and chat template from the metadata of a GGUF file, equal to the `tokenizer.json` that the model was
//! converted from.
//!
//! A GGUF file keeps the vocabulary and names its rules; the rules themselves are looked up here: by
//! `tokenizer.ggml.model` the kind of vocabulary, and by `tokenizer.ggml.pre` how a text is cut before byte pairs are
//! merged ([`rules`]). Names that are not known are refused, because a wrong rule gives ids that look right and are not.

mod merges;
mod rules;
mod sentencepiece;
mod template;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

pub(super) use self::template::template;
use super::growth::Growth;
use super::guard::guarded;
use super::tokenizer::Parts;
use super::{TextError, Tokenizer};
use crate::checkpoint::vocabulary::{self, Form, Kind, SpecialIds, Vocabulary};
use crate::checkpoint::{CheckpointError, Metadata};

const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// The parts of a tokenizer, as `tokenizer.json` describes them.
struct Design {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: BpeBuilder,
    /// Begins a text with the first token unless the file says otherwise.
    adds_bos: bool,
}

/// Refuses a vocabulary or a cut of texts that is not known.
///
/// # Errors
/// A sentence that names it.
pub(super) fn check_kind(metadata: &Metadata) -> Result<(), TextError> {
    match Form::of(metadata)? {
        Form::ByteLevel => rules::of(metadata, false).map(drop)?,
        Form::SentencePiece => (),
    }
    Ok(())
}

/// Builds the tokenizer that a file's metadata describes.
///
/// # Errors
/// A sentence on the first thing that is missing, unknown, or contradicts the rest.
pub(super) fn tokenizer(metadata: &Metadata) -> Result<Tokenizer, TextError> {
    let form = Form::of(metadata)?;
    let vocabulary = Vocabulary::read(metadata, form)?;
    let ids = SpecialIds::read(metadata, form, vocabulary.len())?;
    let design = match form {
        Form::ByteLevel => byte_level(metadata, &vocabulary)?,
        Form::SentencePiece => sentencepiece::design(metadata, &vocabulary, &ids)?,
    };
    let added = added_tokens(metadata, &vocabulary, &ids)?;
    let unusable = |reason: String| TextError::Tokenizer { path: metadata.path().to_owned(), reason };
    let contents = added.iter().map(|token| token.content.as_str());
    let growth =
        Growth::of_parts(&design.normalizer, &design.pre_tokenizer, &design.decoder, contents).map_err(unusable)?;
    let frame = frame(metadata, &design, &ids)?;
    let size = vocabulary.len();
    let inner = guarded(|| assemble(design, added)).map_err(unusable)?;
    let parts = Parts { path: metadata.path().to_owned(), inner, frame, end: ids.eos, growth, least_size: size };
    Tokenizer::of_parts(parts)
}

/// Ids by token, without unused ones.
fn by_text(vocabulary: &Vocabulary) -> Vocab {
    vocabulary.used().map(|(id, token, _)| (token.to_owned(), id)).collect()
}

/// Byte pairs over bytes, as GPT-2 has them.
fn byte_level(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Design, CheckpointError> {
    let add_space = metadata.bool(ADD_SPACE)?.unwrap_or(false);
    let rules = rules::of(metadata, add_space)?;
    let pairs = merges::stored(metadata, vocabulary)?
        .ok_or_else(|| metadata.error(MERGES, "is missing, and tokens of this kind are built by merges"))?;
    let model = BPE::builder().vocab_and_merges(by_text(vocabulary), pairs).ignore_merges(rules.ignore_merges);
    Ok(Design {
        normalizer: rules.normalizer,
        pre_tokenizer: rules.pre_tokenizer,
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        model,
        adds_bos: rules.adds_bos,
    })
}

/// The tokens that are found in a text before anything else is done with it: special ones and those of users.
fn added_tokens(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    ids: &SpecialIds,
) -> Result<Vec<AddedToken>, CheckpointError> {
    let eats_spaces = is_phi3(metadata)?;
    let added = vocabulary.iter().filter_map(|(id, token, kind)| {
        let special = match kind {
            Kind::Control | Kind::Unknown => true,
            Kind::User => false,
            // Without kinds, the ids alone tell.
            Kind::Normal if !vocabulary.has_kinds && ids.mark(id) => true,
            _ => return None,
        };
        let strips = eats_spaces && (special || token == "</s>") && !PHI3_KEEPS.contains(&token);
        Some(AddedToken::from(token, special).normalized(false).rstrip(strips))
    });
    Ok(added.collect())
}

/// Special tokens of Phi-3 that leave the spaces behind them alone.
const PHI3_KEEPS: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// True for Phi-3, whose special tokens take the spaces behind them along; GGUF has no field for that, and llama.cpp goes
/// by the name too.
fn is_phi3(metadata: &Metadata) -> Result<bool, CheckpointError> {
    let name = metadata.text("general.name")?.unwrap_or_default().to_lowercase();
    Ok(name.contains("phi-3") || name.contains("phi3"))
}

type Frame = Option<(Vec<u32>, Vec<u32>)>;

/// The tokens around every text.
fn frame(metadata: &Metadata, design: &Design, ids: &SpecialIds) -> Result<Frame, CheckpointError> {
    let side = |key: &str, id_key: &str, default: bool, id: Option<u32>| {
        let stated = metadata.bool(key)?;
        if stated == Some(true) && id.is_none() {
            return Err(metadata.error(key, format!("is true, but there is no {id_key}")));
        }
        Ok(id.filter(|_| stated.unwrap_or(default)).into_iter().collect::<Vec<u32>>())
    };
    let before = side(ADD_BOS, vocabulary::BOS, design.adds_bos, ids.bos)?;
    let after = side(ADD_EOS, vocabulary::EOS, false, ids.eos)?;
    Ok((!before.is_empty() || !after.is_empty()).then_some((before, after)))
}

fn assemble(design: Design, added: Vec<AddedToken>) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut inner = tokenizers::Tokenizer::new(design.model.build()?);
    inner.with_normalizer(serde_json::from_value::<Option<NormalizerWrapper>>(design.normalizer)?)?;
    inner.with_pre_tokenizer(serde_json::from_value::<Option<PreTokenizerWrapper>>(design.pre_tokenizer)?);
    inner.with_decoder(serde_json::from_value::<Option<DecoderWrapper>>(design.decoder)?);
    inner.add_tokens(added)?;
    Ok(inner)
}

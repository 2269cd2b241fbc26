//! SentencePiece's vocabularies (Llama 2, Mistral, Gemma), as transformers converts them.

use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;

use super::{ADD_SPACE, Design, by_text, merges};
use crate::checkpoint::vocabulary::{Kind, SpecialIds, Vocabulary};
use crate::checkpoint::{CheckpointError, Metadata};

/// The parts of such a tokenizer. Merges that are stored go before those that scores imply.
pub(super) fn design(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    ids: &SpecialIds,
) -> Result<Design, CheckpointError> {
    let pairs = match merges::stored(metadata, vocabulary)? {
        Some(pairs) => pairs,
        None => merges::from_scores(metadata, vocabulary)?,
    };
    let bytes = vocabulary.iter().any(|(_, _, kind)| kind == Kind::Byte);
    let by_text = by_text(vocabulary);
    let unknown = ids.unknown.and_then(|id| vocabulary.token(id)).filter(|token| by_text.contains_key(*token));
    let mut model = BPE::builder().fuse_unk(true).byte_fallback(bytes);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown.to_owned());
    }
    let model = model.vocab_and_merges(by_text, pairs);
    let add_space = metadata.bool(ADD_SPACE)?.unwrap_or(true);
    let (normalizer, decoder) = around(add_space);
    Ok(Design { normalizer, pre_tokenizer: Value::Null, decoder, model, adds_bos: true })
}

/// Normalizer and decoder.
fn around(add_space: bool) -> (Value, Value) {
    let to_letter = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let to_space = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let mut decoders = vec![to_space, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if !add_space {
        return (to_letter, json!({"type": "Sequence", "decoders": decoders}));
    }
    decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    let normalizer = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, to_letter]});
    (normalizer, json!({"type": "Sequence", "decoders": decoders}))
}

//! The tokenizer of a model directory or a GGUF file, giving the ids that transformers' `tokenizer(prompt)` gives.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tokenizers::AddedToken;

use super::growth::{Growth, LARGEST_TEXT};
use super::guard::guarded;
use super::{Settings, TextError, gguf};
use crate::checkpoint::{Metadata, metadata_of, vocabulary};
use crate::files::of_model::{FileError, read_json_text};

/// Real files have up to a few tens of megabytes.
const LARGEST_TOKENIZER: u64 = 256 << 20;

/// Turns text into token ids and back. Cheap to share behind a reference; all methods take `&self`.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// Tokens before and after every text, where `tokenizer_config.json` overrules `tokenizer.json`.
    frame: Option<(Vec<u32>, Vec<u32>)>,
    special: HashSet<u32>,
    fingerprint: u64,
    vocab_size: usize,
    end: Option<u32>,
    growth: Growth,
}

/// A tokenizer before what follows from its vocabulary is known.
pub(super) struct Parts {
    /// The file, for messages.
    pub(super) path: PathBuf,
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) frame: Option<(Vec<u32>, Vec<u32>)>,
    pub(super) end: Option<u32>,
    pub(super) growth: Growth,
    /// Ids that there are at least.
    pub(super) least_size: usize,
}

impl Tokenizer {
    /// Refuses a GGUF file whose kind of tokenizer is not known, without reading its tokens.
    ///
    /// # Errors
    /// A sentence that names the kind.
    pub fn check_kind(metadata: &Metadata) -> Result<(), TextError> {
        gguf::check_kind(metadata)
    }

    /// The tokenizer of the model at `path`, a directory or a GGUF file.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir) or [`from_gguf`](Self::from_gguf).
    pub fn of_model(path: &Path) -> Result<Self, TextError> {
        Self::with_metadata(path, metadata_of(path)?.as_ref())
    }

    /// As [`of_model`](Self::of_model), given the metadata of the model's GGUF file, if it lies in one:
    /// [`Checkpoint::metadata`](crate::checkpoint::Checkpoint::metadata) of a model that is open already.
    ///
    /// # Errors
    /// As [`of_model`](Self::of_model).
    pub fn with_metadata(path: &Path, metadata: Option<&Metadata>) -> Result<Self, TextError> {
        match metadata {
            Some(metadata) => Self::from_gguf(metadata),
            None => Self::from_dir(path),
        }
    }

    /// Reads `tokenizer.json` of a model directory, and what of `tokenizer_config.json` changes its results.
    ///
    /// # Errors
    /// When a file is missing, cannot be read, or does not describe a tokenizer.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("tokenizer.json");
        let text = read_json_text(&path, LARGEST_TOKENIZER).map_err(|error| match error {
            FileError::Absent { .. } => TextError::NoTokenizer { dir: dir.to_owned() },
            error => error.into(),
        })?;
        let settings = Settings::read(dir)?;
        let unusable = |reason: String| TextError::Tokenizer { path: path.clone(), reason };
        let growth = Growth::of(text.as_ref()).map_err(unusable)?;
        let inner = guarded(|| {
            let mut inner = tokenizers::Tokenizer::from_bytes(&text)?;
            // transformers cuts and pads only when it is asked to.
            inner.with_truncation(None)?;
            inner.with_padding(None);
            mark_special_tokens(&mut inner, &settings)?;
            Ok(inner)
        })
        .map_err(unusable)?;
        let end = settings.eos_token.as_ref().and_then(|token| inner.token_to_id(&token.0));
        let frame = frame(&inner, &settings);
        Self::of_parts(Parts { path, inner, frame, end, growth, least_size: 0 })
    }

    /// Builds the tokenizer that the metadata of a GGUF file describes. Ids are those of transformers for the model that the file
    /// was converted from; tokens that only fill the vocabulary up (`[PAD7]`) have no text.
    ///
    /// # Errors
    /// When something is missing, is of a kind that is not supported, or contradicts the rest.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        gguf::tokenizer(metadata)
    }

    pub(super) fn of_parts(parts: Parts) -> Result<Self, TextError> {
        let Parts { path, inner, frame, end, growth, least_size } = parts;
        let mut vocabulary: Vec<(u32, String)> =
            inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        vocabulary.sort_unstable();
        let Some(&(largest, _)) = vocabulary.last() else {
            return Err(TextError::Tokenizer { path, reason: "its vocabulary is empty".to_owned() });
        };
        vocabulary.retain(|(id, token)| !is_padding(token, *id));
        let size = usize::try_from(largest).map_or(usize::MAX, |largest| largest.saturating_add(1));
        let added = inner.get_added_tokens_decoder();
        Ok(Self {
            end,
            frame,
            special: added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect(),
            fingerprint: fingerprint(&vocabulary),
            vocab_size: size.max(least_size),
            growth,
            path,
            inner,
        })
    }

    /// The ids of `text`, with the special tokens that the model expects around it.
    ///
    /// # Errors
    /// When the tokenizer has no tokens for the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        match &self.frame {
            None => self.ids(text, true),
            Some((before, after)) => Ok([before.as_slice(), &self.ids(text, false)?, after].concat()),
        }
    }

    /// The ids of a rendered chat template, which brings its special tokens along: none are added.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_chat(&self, rendered: &str) -> Result<Vec<u32>, TextError> {
        self.ids(rendered, false)
    }

    /// The text of `ids`, without special tokens if `skip_special`. Ids that are not in the vocabulary are
    /// left out, and bytes that are not UTF-8 become U+FFFD. Nothing else is tidied up
    /// (`clean_up_tokenization_spaces` is ignored).
    ///
    /// # Errors
    /// When the tokenizer's decoder fails on the tokens.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        let failed = |reason: String| TextError::Decode { path: self.path.clone(), reason };
        if self.growth.decoding > 1 {
            let spelled = ids.iter().filter_map(|&id| self.inner.id_to_token(id)).map(|token| token.len() as u64).sum();
            self.fits(spelled, self.growth.decoding).map_err(failed)?;
        }
        guarded(|| self.inner.decode(ids, skip_special)).map_err(failed)
    }

    /// The id of a token, given as it is written in `tokenizer.json`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The largest id plus one, added tokens included; ids between may be unused.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// True if `id` is a special token, such as the end of a text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The token that ends a text, the `eos_token` of the settings; none if they name none that is in the vocabulary.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// A hash of the vocabulary (every token with its id), the same on every machine. Tokens that converters add to fill it up
    /// (`[PAD7]` as 7) do not count.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// True if both have the same tokens under the same ids, so that one's tokens can be given to the other's model.
    pub fn same_vocabulary(&self, other: &Self) -> bool {
        let tokens = |tokenizer: &Self| {
            let mut vocabulary = tokenizer.inner.get_vocab(true);
            vocabulary.retain(|token, id| !is_padding(token, *id));
            vocabulary
        };
        self.fingerprint == other.fingerprint && tokens(self) == tokens(other)
    }

    /// The tokenizer itself.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>, TextError> {
        let failed = |reason: String| TextError::Encode { path: self.path.clone(), reason };
        self.fits(text.len() as u64, self.growth.encoding).map_err(failed)?;
        let encoding = guarded(|| self.inner.encode_fast(text, special)).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Checks that so many bytes may become `growth` times as long; the error ends a sentence.
    fn fits(&self, bytes: u64, growth: u64) -> Result<(), String> {
        if growth > 1 && bytes.saturating_mul(growth) > LARGEST_TEXT {
            return Err(format!(
                "it has {bytes} bytes and may become {growth} times as long, beyond {LARGEST_TEXT} bytes"
            ));
        }
        Ok(())
    }
}

/// As transformers does, treats the tokens that `tokenizer_config.json` names as special although
/// `tokenizer.json` may not. Names that are not in the vocabulary stay out: the model has no row for them.
///
/// Special tokens are also taken out of normalization, as transformers 5 adds those that it knows by name:
/// `tokenizers` 0.23 knows a normalized one by another name when it decodes, and does not skip it.
fn mark_special_tokens(inner: &mut tokenizers::Tokenizer, settings: &Settings) -> tokenizers::Result<()> {
    let added = inner.get_added_tokens_decoder();
    let known: HashSet<&str> = added.values().map(|token| token.content.as_str()).collect();
    let mut special: Vec<AddedToken> =
        added.values().filter(|token| token.special && token.normalized).cloned().collect();
    for (_, token) in settings.special_tokens() {
        if !token.is_empty() && !known.contains(token) && inner.token_to_id(token).is_some() {
            special.push(AddedToken::from(token, true));
        }
    }
    if special.is_empty() {
        return Ok(());
    }
    inner.add_special_tokens(special.into_iter().map(|token| token.normalized(false)))?;
    // Setting the normalizer makes the vocabulary forget the normalized names.
    let normalizer = inner.get_normalizer().cloned();
    inner.with_normalizer(normalizer)?;
    Ok(())
}

/// Tokens that transformers puts around a text by `add_bos_token` and `add_eos_token`. Only Llama's tokenizer
/// classes give these keys precedence over `tokenizer.json`; for others they count if that has no
/// post-processor.
fn frame(inner: &tokenizers::Tokenizer, settings: &Settings) -> Option<(Vec<u32>, Vec<u32>)> {
    let class = settings.tokenizer_class.as_deref().unwrap_or_default();
    let overrules =
        matches!(class, "LlamaTokenizer" | "LlamaTokenizerFast" | "CodeLlamaTokenizer" | "CodeLlamaTokenizerFast");
    let given = settings.add_bos_token.is_some() || settings.add_eos_token.is_some();
    if !given || !overrules && inner.get_post_processor().is_some() {
        return None;
    }
    let ids = |wanted: Option<bool>, token: &Option<super::TokenText>| -> Vec<u32> {
        let token = token.as_ref().filter(|_| wanted == Some(true));
        token.and_then(|token| inner.token_to_id(&token.0)).into_iter().collect()
    };
    // Llama's classes add the first token unless told otherwise.
    let add_bos = settings.add_bos_token.or(overrules.then_some(true));
    Some((ids(add_bos, &settings.bos_token), ids(settings.add_eos_token, &settings.eos_token)))
}

/// True for a token that a converter has added to fill a vocabulary up.
fn is_padding(token: &str, id: u32) -> bool {
    vocabulary::padding_number(token) == Some(id)
}

/// FNV-1a over ids and tokens in order of ids.
fn fingerprint(vocabulary: &[(u32, String)]) -> u64 {
    let bytes = vocabulary.iter().flat_map(|(id, token)| {
        let length = (token.len() as u64).to_le_bytes();
        id.to_le_bytes().into_iter().chain(length).chain(token.bytes())
    });
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;

    /// A tokenizer of whole words.
    fn words(post_processor: &Value) -> Value {
        json!({
            "version": "1.0", "truncation": {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": null, "normalizer": null, "decoder": null,
            "added_tokens": [{"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": post_processor,
            "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "b": 2, "<s>": 3, "</s>": 7}}
        })
    }

    fn ending() -> Value {
        json!({"type": "TemplateProcessing", "pair": [],
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [7], "tokens": ["</s>"]}}})
    }

    fn open(tokenizer: &Value, settings: &Value) -> Result<Tokenizer, TextError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
        Tokenizer::from_dir(dir.path())
    }

    #[test]
    fn texts_get_the_special_tokens_that_transformers_gives_them() {
        let tokens = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}});
        let with = |more: Value| {
            let mut settings = tokens.clone();
            settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            settings
        };
        let both = json!({"add_bos_token": true, "add_eos_token": true});
        let llama = json!({"add_bos_token": true, "tokenizer_class": "LlamaTokenizerFast"});
        let bare = json!({"add_bos_token": false, "tokenizer_class": "LlamaTokenizer"});
        let other = json!({"add_bos_token": true, "tokenizer_class": "TokenizersBackend"});
        for (post_processor, settings, expected) in [
            (Value::Null, json!({}), &[1, 2][..]),
            (Value::Null, both, &[3, 1, 2, 7]),
            (ending(), json!({}), &[1, 2, 7]),
            (ending(), other, &[1, 2, 7]),
            (ending(), llama, &[3, 1, 2]),
            (ending(), bare, &[1, 2]),
        ] {
            let tokenizer = open(&words(&post_processor), &with(settings.clone())).unwrap();
            assert_eq!(tokenizer.encode("a b").unwrap(), expected, "{settings}");
            assert_eq!(tokenizer.encode_chat("a b").unwrap(), [1, 2], "{settings}");
        }
    }

    #[test]
    fn named_tokens_are_special_and_the_vocabulary_ends_at_the_largest_id() {
        let tokenizer = open(&words(&Value::Null), &json!({"bos_token": "<s>", "eos_token": "<none>"})).unwrap();
        assert_eq!(tokenizer.vocab_size(), 8);
        let special: Vec<u32> = (0..9).filter(|&id| tokenizer.is_special(id)).collect();
        assert_eq!(special, [0, 3]);
        assert_eq!((tokenizer.id_of("b"), tokenizer.id_of("<none>"), tokenizer.end()), (Some(2), None, None));
        let ends = open(&words(&Value::Null), &json!({"eos_token": {"content": "</s>"}})).unwrap();
        assert_eq!(ends.end(), Some(7));
        assert_eq!(tokenizer.decode(&[3, 1, 99, 2], true).unwrap(), "a b");
        assert_eq!(tokenizer.decode(&[3, 1], false).unwrap(), "<s> a");
        // Split off even without a space around it, because it is special.
        assert_eq!(tokenizer.encode("a<s>b").unwrap(), [1, 3, 2]);
    }

    #[test]
    fn special_tokens_are_skipped_and_found_even_if_they_are_marked_as_normalized() {
        let mut tokenizer = words(&Value::Null);
        tokenizer["normalizer"] = json!({"type": "Prepend", "prepend": "_"});
        tokenizer["added_tokens"][0]["normalized"] = json!(true);
        let tokenizer = open(&tokenizer, &json!({})).unwrap();
        assert_eq!(tokenizer.decode(&[1, 0, 2], true).unwrap(), "a b");
        assert_eq!(tokenizer.decode(&[1, 0, 2], false).unwrap(), "a <unk> b");
        assert!(tokenizer.is_special(0));
    }

    #[test]
    fn vocabularies_are_the_same_when_every_token_has_the_same_id() {
        let one = open(&words(&Value::Null), &json!({})).unwrap();
        let same = open(&words(&ending()), &json!({})).unwrap();
        assert!(one.same_vocabulary(&same) && one.fingerprint() == same.fingerprint());
        let mut swapped = words(&Value::Null);
        swapped["model"]["vocab"] = json!({"<unk>": 0, "b": 1, "a": 2, "<s>": 3, "</s>": 7});
        let other = open(&swapped, &json!({})).unwrap();
        assert!(!one.same_vocabulary(&other) && one.fingerprint() != other.fingerprint());
    }

    #[test]
    fn a_tokenizer_that_contradicts_itself_is_an_error() {
        let mut tokenizer = words(&Value::Null);
        tokenizer["model"] = json!({"type": "BPE", "continuing_subword_prefix": "######",
            "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]});
        let message = open(&tokenizer, &json!({})).unwrap_err().to_string();
        assert!(message.contains("cannot be used") && message.ends_with('.'), "{message}");
        let dir = tempfile::tempdir().unwrap();
        let message = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(message.contains("has no tokenizer.json"), "{message}");
    }

    #[test]
    fn golden_prompts_and_texts_are_those_of_transformers() {
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
        let mut cases = 0;
        for folder in ["goldens", "models"] {
            let Ok(models) = fs::read_dir(shared.join(folder)) else {
                println!("skipped: there is no {}", shared.join(folder).display());
                continue;
            };
            for dir in models.map(|entry| entry.unwrap().path()).filter(|path| path.join("golden.json").exists()) {
                let tokenizer = Tokenizer::from_dir(&dir).unwrap();
                let golden: Value = serde_json::from_slice(&fs::read(dir.join("golden.json")).unwrap()).unwrap();
                let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
                for case in golden["cases"].as_array().unwrap() {
                    let prompt = case["prompt"].as_str().unwrap();
                    let found = tokenizer.encode(prompt).unwrap();
                    assert_eq!(found, ids(&case["prompt_ids"]), "{}: {prompt}", dir.display());
                    let text = tokenizer.decode(&ids(&case["generated"]), true).unwrap();
                    assert_eq!(text, case["text"], "{}: {prompt}", dir.display());
                    cases += 1;
                }
            }
        }
        println!("{cases} golden cases");
    }
}

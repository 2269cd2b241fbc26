//! Factor by which the parts of a tokenizer can lengthen a text, known before the `tokenizers` crate is given any of
//! it: a chain of forty replacements that double a text is a kilobyte in `tokenizer.json`, and takes all memory on the
//! first word.

use serde::Deserialize;
use serde_json::Value;

use crate::files::Object;

/// The most that normalizers or decoders may multiply a text by. Real ones do by 12 (SentencePiece's spaces), and by a few
/// hundred with a table of characters.
const LARGEST_GROWTH: u64 = 4096;
/// Normalizers or decoders in a chain; real ones have under ten.
const LONGEST_CHAIN: usize = 64;
/// Characters of a word that WordPiece looks up at most; real ones have 100. It takes the square of that, and more.
const LONGEST_WORD: u64 = 1000;
/// Added tokens; real tokenizers have up to some thousand.
const MOST_ADDED: usize = 50_000;
/// Their bytes; real ones have some hundred thousand at most. Each million takes a second and 80 MB to be searched for.
const MOST_ADDED_BYTES: u64 = 1 << 20;
/// Bytes that a text may become at most. The crate keeps 16 bytes of positions for each.
pub(super) const LARGEST_TEXT: u64 = 32 << 20;

/// Parts of `tokenizer.json` that make texts longer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    model: Value,
    decoder: Value,
    added_tokens: Vec<Added>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Added {
    content: Value,
}

/// The factors by which a text may become longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) encoding: u64,
    pub(super) decoding: u64,
}

impl Growth {
    /// Those of a `tokenizer.json`.
    ///
    /// # Errors
    /// The middle of a sentence, if they are beyond any use.
    pub(super) fn of(file: &[u8]) -> Result<Self, String> {
        let Object(parts): Object<Parts> = serde_json::from_slice(file).map_err(|error| error.to_string())?;
        if repeats(&parts.post_processor) {
            return Err("its post-processor repeats the text".to_owned());
        }
        let word = parts.model.get("max_input_chars_per_word").and_then(Value::as_u64).unwrap_or(0);
        if word > LONGEST_WORD {
            return Err(format!("it looks up words of {word} characters, and {LONGEST_WORD} is the most that is read"));
        }
        let contents = parts.added_tokens.iter().map(|token| token.content.as_str().unwrap_or_default());
        Self::of_parts(&parts.normalizer, &parts.pre_tokenizer, &parts.decoder, contents)
    }

    /// Those of the parts of a tokenizer, as `tokenizer.json` describes them, with the texts of added tokens.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(super) fn of_parts<'a>(
        normalizer: &Value,
        pre_tokenizer: &Value,
        decoder: &Value,
        added: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let normalizing = factor("normalizers", normalizer)?;
        let growth = Self {
            encoding: normalizing.saturating_mul(factor("pre-tokenizers", pre_tokenizer)?),
            decoding: factor("decoders", decoder)?,
        };
        let (count, bytes) =
            added.fold((0_usize, 0_u64), |(count, bytes), content| (count + 1, bytes + content.len() as u64));
        if count > MOST_ADDED {
            return Err(format!("it has {count} added tokens, and {MOST_ADDED} is the most that is read"));
        }
        if bytes > MOST_ADDED_BYTES {
            return Err(format!(
                "its added tokens have {bytes} bytes, and {MOST_ADDED_BYTES} is the most that is read"
            ));
        }
        if bytes.saturating_mul(growth.encoding) > LARGEST_TEXT {
            return Err(format!(
                "its added tokens have {bytes} bytes, which its normalizers multiply by up to {}",
                growth.encoding
            ));
        }
        Ok(growth)
    }
}

fn factor(name: &str, chain: &Value) -> Result<u64, String> {
    let mut links = 0;
    let factor = of_part(chain, &mut links)?;
    if links > LONGEST_CHAIN {
        return Err(format!("it has {links} {name} in a row, and {LONGEST_CHAIN} is the most that is read"));
    }
    if factor > LARGEST_GROWTH {
        return Err(format!("its {name} may make a text more than {LARGEST_GROWTH} times as long"));
    }
    Ok(factor)
}

/// True if a post-processor puts a text into its output more than once.
fn repeats(processor: &Value) -> bool {
    let of_template = |name: &str| {
        let pieces = processor.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let texts = pieces.iter().filter_map(|piece| piece.get("Sequence")).map(|text| text.get("id"));
        let (first, second): (Vec<_>, Vec<_>) = texts.partition(|id| id.and_then(Value::as_str) != Some("B"));
        first.len() > 1 || second.len() > 1
    };
    let inner = processor.get("processors").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    of_template("single") || of_template("pair") || inner.iter().any(repeats)
}

/// The factor of a normalizer, pre-tokenizer or decoder, which may be a chain of others.
fn of_part(part: &Value, links: &mut usize) -> Result<u64, String> {
    match part {
        Value::Array(parts) => {
            parts.iter().try_fold(1_u64, |factor, part| Ok(factor.saturating_mul(of_part(part, links)?)))
        }
        Value::Object(fields) => {
            *links += 1;
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            let mut factor: u64 = match text("type").unwrap_or_default() {
                // Of one character these make up to 33 bytes of 3, and 9 of 3.
                "NFKC" | "NFKD" => 11,
                "NFC" | "NFD" | "Nmt" => 3,
                "Lowercase" | "ByteLevel" => 2,
                // A space becomes a letter of three bytes, and one more comes first.
                "Metaspace" => 6,
                "BertNormalizer" => 9,
                _ => 1,
            };
            let content = text("content").map_or(0, str::len) as u64;
            factor = factor.saturating_mul(match fields.get("pattern") {
                Some(Value::Object(pattern)) => match pattern.get("String").and_then(Value::as_str) {
                    Some(wanted) if !wanted.is_empty() => content.div_ceil(wanted.len() as u64).max(1),
                    // It may match between any two bytes.
                    _ => content.saturating_add(1),
                },
                _ => 1,
            });
            factor = factor.saturating_mul(text("prepend").map_or(1, |prepend| prepend.len() as u64 + 1));
            if let Some(table) = text("precompiled_charsmap") {
                factor = factor.saturating_mul(longest_replacement(table)?);
            }
            for name in ["normalizers", "pretokenizers", "decoders"] {
                factor = factor.saturating_mul(of_part(fields.get(name).unwrap_or(&Value::Null), links)?);
            }
            Ok(factor)
        }
        _ => Ok(1),
    }
}

/// The bytes that SentencePiece's table of characters puts in the place of one at most. The table is the length of an index
/// in bytes, the index, and texts that end in zeros; the crate makes room for as long an index as it says.
fn longest_replacement(table: &str) -> Result<u64, String> {
    if table.is_empty() {
        return Ok(1);
    }
    let bytes = base64(table).ok_or("its `precompiled_charsmap` is not base64")?;
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or("its `precompiled_charsmap` has no index")?;
    let texts = usize::try_from(u32::from_le_bytes(*length)).ok().and_then(|length| rest.get(length / 4 * 4..));
    let texts = texts.ok_or("the index of its `precompiled_charsmap` is longer than the table")?;
    Ok(texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0).max(1) as u64)
}

/// Bytes from base64.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for &letter in text.trim_end_matches('=').as_bytes() {
        bits = bits << 6 | u32::from(digit(letter)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn growth(normalizer: &Value, decoder: &Value) -> Result<Growth, String> {
        Growth::of(json!({"normalizer": normalizer, "decoder": decoder, "model": [1]}).to_string().as_bytes())
    }

    fn replace(pattern: &Value, content: &str) -> Value {
        json!({"type": "Replace", "pattern": pattern, "content": content})
    }

    #[test]
    fn real_tokenizers_grow_a_little() {
        let spaces = replace(&json!({"String": " "}), "▁");
        let llama = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]});
        let decoder = json!({"type": "Sequence", "decoders": [replace(&json!({"String": "▁"}), " "), {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        assert_eq!(growth(&llama, &decoder), Ok(Growth { encoding: 12, decoding: 1 }));
        assert_eq!(growth(&spaces, &Value::Null), Ok(Growth { encoding: 3, decoding: 1 }));
        assert_eq!(
            growth(&json!({"type": "NFC"}), &json!({"type": "ByteLevel"})),
            Ok(Growth { encoding: 3, decoding: 2 })
        );
        // An index of no entries, and the texts "ab" and "c".
        let table = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAGFiAGMA"});
        assert_eq!(growth(&table, &Value::Null), Ok(Growth { encoding: 2, decoding: 1 }));
    }

    /// A post-processor that puts the text so often behind a special token.
    fn template(times: usize) -> Value {
        let mut single = vec![json!({"SpecialToken": {"id": "<s>", "type_id": 0}})];
        single.extend(vec![json!({"Sequence": {"id": "A", "type_id": 0}}); times]);
        let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
        json!({"type": "TemplateProcessing", "single": single, "pair": pair})
    }

    #[test]
    fn what_would_take_all_memory_is_refused() {
        let doubling = vec![replace(&json!({"String": "a"}), "aa"); 40];
        let chain = |name: &str, parts: &[Value]| json!({"type": "Sequence", name: parts});
        for (normalizer, decoder, said) in [
            (chain("normalizers", &doubling), Value::Null, "4096 times"),
            (Value::Null, chain("decoders", &doubling), "4096 times"),
            (chain("normalizers", &vec![json!({"type": "Strip"}); 100]), Value::Null, "in a row"),
            (replace(&json!({"Regex": ""}), &"x".repeat(5000)), Value::Null, "4096 times"),
            (json!({"type": "Prepend", "prepend": "x".repeat(5000)}), Value::Null, "4096 times"),
            // Its index has four billion bytes.
            (
                json!({"type": "Precompiled", "precompiled_charsmap": "/////wAAAAAAAAAA"}),
                Value::Null,
                "longer than the table",
            ),
            (json!({"type": "Precompiled", "precompiled_charsmap": "AAA"}), Value::Null, "no index"),
            (json!({"type": "Precompiled", "precompiled_charsmap": "?"}), Value::Null, "base64"),
        ] {
            let reason = growth(&normalizer, &decoder).unwrap_err();
            assert!(reason.contains(said), "{reason}");
        }
        // Each doubles every byte that is not ASCII.
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
        for (part, said) in [
            (json!({"pre_tokenizer": chain("pretokenizers", &vec![level; 40])}), "its pre-tokenizers may make"),
            (json!({"model": {"type": "WordPiece", "max_input_chars_per_word": 1_000_000_000}}), "words of 1000000000"),
            (json!({"post_processor": template(2)}), "repeats the text"),
            (json!({"post_processor": {"type": "Sequence", "processors": [template(1), template(2)]}}), "repeats"),
        ] {
            let reason = Growth::of(part.to_string().as_bytes()).unwrap_err();
            assert!(reason.contains(said), "{reason}");
        }
        assert!(Growth::of(json!({"post_processor": template(1)}).to_string().as_bytes()).is_ok());
        let many = json!({"added_tokens": vec![json!({"content": "x"}); MOST_ADDED + 1]}).to_string();
        assert!(Growth::of(many.as_bytes()).unwrap_err().contains("50001 added tokens"));
        let added = |normalizer: Value, bytes: usize| {
            let file = json!({"normalizer": normalizer, "added_tokens": [{"content": "x".repeat(bytes)}]});
            Growth::of(file.to_string().as_bytes())
        };
        assert!(added(json!({"type": "NFC"}), 1 << 20).is_ok());
        assert!(added(json!({"type": "NFC"}), (1 << 20) + 1).unwrap_err().contains("have 1048577 bytes, and"));
        let prepend = json!({"type": "Prepend", "prepend": "x".repeat(99)});
        assert!(added(prepend, 1 << 20).unwrap_err().contains("multiply by up to 100"));
    }
}

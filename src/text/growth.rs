//! How much longer the parts of a tokenizer can make a text, known before the `tokenizers` crate is given any of it: a chain
//! of forty replacements that double a text is a kilobyte in `tokenizer.json`, and takes all memory on the first word.

use serde::Deserialize;
use serde_json::Value;

use crate::files::Object;

/// The most that normalizers or decoders may multiply a text by. Real ones do by 12 (SentencePiece's spaces), and by a few
/// hundred with a table of characters.
const LARGEST_GROWTH: u64 = 4096;
/// Normalizers or decoders in a chain; real ones have under ten.
const LONGEST_CHAIN: usize = 64;
/// Added tokens; real tokenizers have up to some thousand.
const MOST_ADDED: usize = 50_000;
/// Their bytes; real ones have some hundred thousand at most. Each million takes a second and 80 MB to be searched for.
const MOST_ADDED_BYTES: u64 = 1 << 20;
/// Bytes that a text may become at most. The crate keeps 16 bytes of positions for each.
pub(super) const LARGEST_TEXT: u64 = 32 << 20;

/// What of `tokenizer.json` makes texts longer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parts {
    normalizer: Value,
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
        let growth =
            Self { encoding: factor("normalizers", &parts.normalizer)?, decoding: factor("decoders", &parts.decoder)? };
        if parts.added_tokens.len() > MOST_ADDED {
            let count = parts.added_tokens.len();
            return Err(format!("it has {count} added tokens, and {MOST_ADDED} is the most that is read"));
        }
        let contents = parts.added_tokens.iter().filter_map(|token| token.content.as_str());
        let bytes: u64 = contents.map(|content| content.len() as u64).sum();
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

/// The factor of a normalizer or decoder, which may be a chain of others.
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
            for name in ["normalizers", "decoders"] {
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

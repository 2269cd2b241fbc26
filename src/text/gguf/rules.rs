//! Rules of byte-level vocabularies: how a text is cut before byte pairs are merged, by the name in `tokenizer.ggml.pre`.
//!
//! The names are llama.cpp's (`llama-vocab.cpp`). A rule is the one in the `tokenizer.json` that the name was made for, which
//! llama.cpp's expressions approximate; for names whose `tokenizer.json` is not known to us, it is llama.cpp's.

use serde_json::{Value, json};

use super::PRE;
use crate::checkpoint::{CheckpointError, Metadata};
use crate::visible::shown;

/// What is done to a text before byte pairs are merged.
pub(super) struct Rules {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    /// Takes a word that is a token as it is, even if no merges lead to it.
    pub(super) ignore_merges: bool,
    /// Begins a text with the first token unless the file says otherwise.
    pub(super) adds_bos: bool,
}

/// A cut, applied to what the ones before have left. The bytes' letters come last.
#[derive(Clone, Copy)]
enum Cut {
    /// Around every match of an expression.
    At(&'static str),
    /// Around every digit.
    Digits,
    /// Around every run of punctuation.
    Punctuation,
    /// By GPT-2's expression, and into its letters for bytes.
    Gpt2,
}

/// A row of the table.
struct Row {
    names: &'static [&'static str],
    cuts: &'static [Cut],
    /// Composes characters first (Unicode's NFC).
    composes: bool,
    ignore_merges: bool,
    adds_bos: bool,
}

const fn row(names: &'static [&'static str], cuts: &'static [Cut]) -> Row {
    Row { names, cuts, composes: false, ignore_merges: false, adds_bos: false }
}

impl Row {
    const fn composing(self) -> Self {
        Self { composes: true, ..self }
    }

    const fn ignoring_merges(self) -> Self {
        Self { ignore_merges: true, ..self }
    }

    const fn adding_bos(self) -> Self {
        Self { adds_bos: true, ..self }
    }
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const JAIS2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILING: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const SEED: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const KANA_AND_HAN: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";
const HAN_AND_HANGUL: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";
/// Letters of Latin, Greek, Cyrillic and others with two cases.
const CASED_LETTERS: &str = concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}",
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}",
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}",
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}",
    r"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}",
    r"\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}",
    r"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}",
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}",
    r"\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}",
    r"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}",
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}",
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+"
);
const WIDE_PUNCTUATION: &str = r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+";
const LINE_BREAK: &str = r"[\r\n]";
const THREE_DIGITS: &str = "[0-9][0-9][0-9]";

/// Every name that is known.
static TABLE: [Row; 24] = [
    row(&["default"], &[Cut::Punctuation, Cut::Gpt2, Cut::At(r"\p{N}+"), Cut::At(THREE_DIGITS)]),
    row(&["gpt-2", "phi-2", "jais", "trillion", "granite-docling"], &[Cut::Gpt2]),
    // Those of GPT-NeoX compose.
    row(&["mpt", "olmo"], &[Cut::Gpt2]).composing(),
    row(&["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"], &[Cut::Digits, Cut::Gpt2]),
    row(&["command-r"], &[Cut::Digits, Cut::Gpt2]).composing(),
    row(&["llama-bpe", "llama3", "llama-v3", "lfm2"], &[Cut::At(LLAMA3)]).ignoring_merges().adding_bos(),
    row(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[Cut::At(LLAMA3)]),
    row(&["glm4", "glm5"], &[Cut::At(LLAMA3)]).ignoring_merges(),
    row(&["jais-2"], &[Cut::At(JAIS2)]),
    row(&["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"], &[Cut::At(QWEN2)]).composing(),
    row(&["stablelm2", "hunyuan", "solar-open", "grok-2"], &[Cut::At(QWEN2)]),
    row(&["qwen35"], &[Cut::At(QWEN35)]).composing(),
    row(&["tekken"], &[Cut::At(TEKKEN)]).ignoring_merges().adding_bos(),
    row(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[Cut::At(GPT4O)]),
    row(&["bailingmoe", "bailingmoe2", "llada-moe"], &[Cut::At(BAILING)]),
    row(&["seed-coder"], &[Cut::At(SEED)]),
    row(&["bloom", "poro-chat", "gpt3-finnish"], &[Cut::At(BLOOM)]),
    row(&["viking"], &[Cut::At(BLOOM), Cut::Digits]),
    row(
        &["deepseek-llm"],
        &[
            Cut::At(LINE_BREAK),
            Cut::At(CASED_LETTERS),
            Cut::At(WIDE_PUNCTUATION),
            Cut::At(r"\s+$"),
            Cut::At(HAN_AND_HANGUL),
            Cut::Digits,
        ],
    ),
    row(
        &["deepseek-coder"],
        &[Cut::At(LINE_BREAK), Cut::At(r"\s?\p{L}+"), Cut::At(r"\s?\p{P}+"), Cut::At(HAN_AND_HANGUL), Cut::Digits],
    ),
    row(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        &[Cut::At(r"\p{N}{1,3}"), Cut::At(KANA_AND_HAN), Cut::At(DEEPSEEK3)],
    ),
    row(&["falcon"], &[Cut::Punctuation, Cut::Gpt2, Cut::At(THREE_DIGITS)]),
    row(&["superbpe"], &[Cut::At(r"\p{N}+"), Cut::At(r"(?=(\d{3})+(?!\d))")]),
    row(&["minicpm5"], &[Cut::At(r"\p{N}{1,3}"), Cut::At(QWEN2)]).ignoring_merges(),
];

/// The rules that a file names; `default` if it names none, as files from before the key existed do.
pub(super) fn of(metadata: &Metadata, add_space: bool) -> Result<Rules, CheckpointError> {
    let name = metadata.text(PRE)?.filter(|name| !name.is_empty()).unwrap_or("default");
    let Some(row) = TABLE.iter().find(|row| row.names.contains(&name)) else {
        let mut known: Vec<&str> = TABLE.iter().flat_map(|row| row.names).copied().collect();
        known.sort_unstable();
        let name = shown(name);
        return Err(metadata.error(
            PRE,
            format!("is \"{name}\", a way to cut texts that is not known; known are {}", known.join(", ")),
        ));
    };
    Ok(Rules {
        normalizer: if row.composes { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer: pre_tokenizer(row.cuts, add_space),
        ignore_merges: row.ignore_merges,
        adds_bos: row.adds_bos,
    })
}

/// The cuts as `tokenizer.json` describes them.
fn pre_tokenizer(cuts: &[Cut], add_space: bool) -> Value {
    let bytes = |expression: bool, add_space: bool| json!({"type": "ByteLevel", "add_prefix_space": add_space, "trim_offsets": true, "use_regex": expression});
    let mut steps: Vec<Value> = cuts
        .iter()
        .map(|cut| match cut {
            Cut::At(expression) => {
                json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false})
            }
            Cut::Digits => json!({"type": "Digits", "individual_digits": true}),
            Cut::Punctuation => json!({"type": "Punctuation", "behavior": "Contiguous"}),
            Cut::Gpt2 => bytes(true, add_space),
        })
        .collect();
    if !cuts.iter().any(|cut| matches!(cut, Cut::Gpt2)) {
        steps.push(bytes(false, add_space));
    }
    json!({"type": "Sequence", "pretokenizers": steps})
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokenizers::PreTokenizerWrapper;

    use super::*;

    #[test]
    fn every_rule_is_one_that_can_be_built_and_has_names_of_its_own() {
        let mut names = HashSet::new();
        for row in &TABLE {
            assert!(row.names.iter().all(|name| names.insert(*name)), "{:?}", row.names);
            let built = serde_json::from_value::<PreTokenizerWrapper>(pre_tokenizer(row.cuts, false));
            assert!(built.is_ok(), "{:?}: {built:?}", row.names);
        }
    }
}

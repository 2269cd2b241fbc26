//! Comparisons with files that are not in the repository.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Gguf, end_of_generation};
use crate::text::{ChatTemplate, Message, TextError, Tokenizer};

/// Texts on which the directories agree with the models' published tokenizers: transformers makes such a directory from the
/// GGUF file without Qwen's composition of characters and without SmolLM's cut around digits.
const TEXTS: [&str; 12] = [
    "",
    " ",
    "Hello, world! It's a test; we'll see what they've done.",
    "fn main() {\n    let x = vec![1, 2, 3];\n\tprintln!(\"{x:?}\");\n}\n\n\n",
    "  leading and trailing  \t \r\n",
    "naïve café, Größe, Привет мир, שלום, مرحبا",
    "日本語のテキストと中文，한국어 텍스트",
    "🦙👩‍👩‍👧‍👦 emoji 🚀🚀",
    "1234567890 3.14159 0xFF 3²",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
    "\u{0}\u{7}\u{200b}\u{feff}ab\u{85}\u{a0}b",
    "[PAD151665] <tool_call>{}</tool_call>",
];

fn open(path: &Path) -> Result<Tokenizer, TextError> {
    Tokenizer::from_gguf(&Gguf::open(path).unwrap().metadata)
}

/// Files of a directory that an environment variable names, `None` with a note if it is not set.
fn files(variable: &str, ending: &str) -> Option<Vec<PathBuf>> {
    let Some(dir) = env::var_os(variable) else {
        println!("skipped: {variable} is not set");
        return None;
    };
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    paths.sort();
    Some(paths)
}

#[test]
fn real_models_have_the_ids_of_their_directories() {
    let pairs = [("smollm2-135m.", "smollm2"), ("qwen2.5-coder-0.5b.", "qwen05"), ("qwen2.5-coder-1.5b.", "qwen15")];
    for path in files("PACELINE_REAL_MODELS", ".gguf").unwrap_or_default() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some((_, dir)) = pairs.iter().find(|(start, _)| name.starts_with(start)) else { continue };
        let (ours, dir) = (open(&path).unwrap(), path.with_file_name(dir));
        if !dir.exists() {
            println!("skipped: {} is not there", dir.display());
            continue;
        }
        let theirs = Tokenizer::from_dir(&dir).unwrap();
        for text in TEXTS {
            let ids = ours.encode(text).unwrap();
            assert_eq!(ids, theirs.encode(text).unwrap(), "{name}: {text:?}");
            for skip in [false, true] {
                assert_eq!(ours.decode(&ids, skip).unwrap(), theirs.decode(&ids, skip).unwrap(), "{name}: {text:?}");
            }
        }
        assert!(ours.same_vocabulary(&theirs) && ours.end() == theirs.end(), "{name}");
        let metadata = Gguf::open(&path).unwrap().metadata;
        let ends = end_of_generation(&metadata).unwrap();
        assert!(ends.contains(&ours.end().unwrap()), "{name}: {ends:?}");
        let render = |template: Option<ChatTemplate>| {
            template.unwrap().render(&[Message::new("user", "Hello"), Message::new("assistant", "Hi")], true).unwrap()
        };
        let chats = [ChatTemplate::from_gguf(&metadata).unwrap(), ChatTemplate::from_dir(&dir).unwrap()];
        let [ours, theirs] = chats.map(render);
        assert_eq!(ours, theirs, "{name}");
        println!("{name}: {} texts, ends {ends:?}", TEXTS.len());
    }
}

/// The vocabularies of llama.cpp's repository (`models/ggml-vocab-*.gguf`), each beside texts and the ids that transformers had
/// for them. The texts of Qwen 3.5 with combining marks are left out: the ids there are not those of transformers, whose tokenizer
/// of that model composes characters first.
#[test]
fn vocabularies_of_llama_cpp_have_the_ids_that_transformers_has() {
    let (mut compared, mut different) = (0, Vec::new());
    for path in files("PACELINE_GGUF_VOCABULARIES", ".gguf").unwrap_or_default() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let tokenizer = match open(&path) {
            Ok(tokenizer) => tokenizer,
            Err(refused) => {
                println!("{refused}");
                continue;
            }
        };
        let beside = |ending: &str| fs::read_to_string(path.with_file_name(format!("{name}{ending}")));
        let (Ok(texts), Ok(ids)) = (beside(".inp"), beside(".out")) else { continue };
        for (text, ids) in texts.split("\n__ggml_vocab_test__\n").zip(ids.lines()) {
            let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            if name.contains("qwen35") && text.contains(|letter| ('\u{300}'..'\u{370}').contains(&letter)) {
                continue;
            }
            let found = tokenizer.encode_chat(text).unwrap();
            compared += 1;
            if found != expected {
                different.push(format!("{name}: {text:?}: {found:?} instead of {expected:?}"));
            }
        }
    }
    println!("{compared} texts");
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Writes the ids of texts for `scripts/token_ids.py`, which compares them with those of transformers: `PACELINE_IDS_MODEL` is a
/// GGUF file or a directory, `PACELINE_IDS_TEXTS` a file of JSON strings, one a line, and `PACELINE_IDS_OUT` gets a list a line.
#[test]
fn ids_are_written_for_comparison() {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from);
    let names = ["PACELINE_IDS_MODEL", "PACELINE_IDS_TEXTS", "PACELINE_IDS_OUT"];
    let [Some(model), Some(texts), Some(out)] = names.map(variable) else {
        println!("skipped: {} are not set", names.join(", "));
        return;
    };
    let tokenizer = if model.is_dir() { Tokenizer::from_dir(&model) } else { open(&model) }.unwrap();
    let mut out = std::io::BufWriter::new(fs::File::create(out).unwrap());
    for line in fs::read_to_string(texts).unwrap().lines() {
        let text: String = serde_json::from_str(line).unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        let text = tokenizer.decode(&ids, true).unwrap();
        writeln!(out, "{}", serde_json::json!([ids, text])).unwrap();
    }
    out.flush().unwrap();
}

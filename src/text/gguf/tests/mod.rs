//! Tokenizers, ends and templates of tiny GGUF files.

#![allow(clippy::unwrap_used)]

mod real;
mod refused;

use crate::checkpoint::end_of_generation;
use crate::checkpoint::gguf_writer::Fields;
use crate::text::{ChatTemplate, Message, Tokenizer};

/// A byte-level vocabulary with a special token, one of users, and one that fills it up.
fn pairs() -> Fields {
    Fields::default()
        .with("ggml.model", "gpt2")
        .with("ggml.pre", "gpt-2")
        .with("ggml.tokens", ["a", "b", "Ġ", "ab", "Ġab", "<|im_end|>", "user b", "[PAD7]"])
        .with("ggml.token_type", [1, 1, 1, 1, 1, 3, 4, 4])
        .with("ggml.merges", ["a b", "Ġ ab"])
        .with("ggml.eos_token_id", 5_u32)
}

/// SentencePiece's form: bytes of "é", and tokens with scores.
fn pieces() -> Fields {
    Fields::default()
        .with("ggml.model", "llama")
        .with("ggml.tokens", ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "c", "▁a", "ab", "bc", "▁ab"])
        .with("ggml.token_type", [2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1])
        .with("ggml.scores", [0.0, 0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -9.0, -3.0, -2.0, -1.0, -4.0])
}

fn open(fields: &Fields) -> Tokenizer {
    Tokenizer::from_gguf(&fields.read()).unwrap()
}

#[test]
fn byte_pairs_are_merged_around_added_tokens() {
    let tokenizer = open(&pairs());
    assert_eq!(tokenizer.encode("ab ab<|im_end|>user b").unwrap(), [3, 4, 5, 6]);
    assert_eq!(tokenizer.decode(&[3, 4, 5, 6, 7], true).unwrap(), "ab abuser b");
    assert_eq!(tokenizer.decode(&[3, 5], false).unwrap(), "ab<|im_end|>");
    assert_eq!((tokenizer.vocab_size(), tokenizer.end()), (8, Some(5)));
    assert!(tokenizer.is_special(5) && !tokenizer.is_special(6));
    let spaced = open(&pairs().with("ggml.add_space_prefix", true));
    assert_eq!(spaced.encode("ab").unwrap(), [4]);
}

#[test]
fn tokens_that_fill_a_vocabulary_up_never_come_from_a_text_and_change_no_fingerprint() {
    let tokenizer = open(&pairs());
    assert_eq!((tokenizer.id_of("[PAD7]"), tokenizer.decode(&[7], false).unwrap()), (None, String::new()));
    assert!(!tokenizer.encode("[PAD7]").unwrap().contains(&7));
    let shorter = pairs()
        .with("ggml.tokens", ["a", "b", "Ġ", "ab", "Ġab", "<|im_end|>", "user b"])
        .with("ggml.token_type", [1, 1, 1, 1, 1, 3, 4]);
    let shorter = open(&shorter);
    assert!(tokenizer.same_vocabulary(&shorter) && shorter.vocab_size() == 7);
    // Unused by kind alone, and without a text; their merges go with them.
    let unused = pairs().with("ggml.token_type", [1, 1, 1, 1, 5, 3, 4, 1]);
    assert_eq!(open(&unused).encode(" ab").unwrap(), [2, 3]);
    let empty = pairs().with("ggml.tokens", ["a", "b", "Ġ", "ab", "Ġab", "<|im_end|>", "", ""]);
    assert_eq!(open(&empty).encode("ab").unwrap(), [3]);
}

#[test]
fn texts_are_cut_as_the_named_rule_says() {
    let digits = pairs()
        .with("ggml.tokens", ["a", "1", "2", "Ġ", "Ġ1", "12", "ĠĠ", "<|im_end|>"])
        .with("ggml.token_type", [1, 1, 1, 1, 1, 1, 1, 3])
        .with("ggml.merges", ["Ġ Ġ", "Ġ 1", "1 2"]);
    for (rule, expected) in [
        ("gpt-2", &[3, 4, 2, 0][..]),
        ("phi-2", &[3, 4, 2, 0]),
        // Digits stand alone, and so do the spaces before them.
        ("smollm", &[6, 1, 2, 0]),
        ("command-r", &[6, 1, 2, 0]),
        // Digits stand alone, and spaces before them are cut in two.
        ("qwen2", &[3, 3, 1, 2, 0]),
        // Up to three digits together, without the space.
        ("llama-bpe", &[3, 3, 5, 0]),
        ("deepseek-v3", &[6, 5, 0]),
    ] {
        let tokenizer = open(&digits.clone().with("ggml.pre", rule));
        assert_eq!(tokenizer.encode("  12a").unwrap(), expected, "{rule}");
    }
    let composed = pairs()
        .with("ggml.tokens", ["e", "Ã", "©", "Ì", "ģ", "Ã©", "a", "b"])
        .with("ggml.merges", ["Ã ©"])
        .without("ggml.token_type");
    let decomposed = "e\u{301}";
    assert_eq!(open(&composed.clone().with("ggml.pre", "qwen2")).encode(decomposed).unwrap(), [5]);
    assert_eq!(open(&composed.with("ggml.pre", "gpt-2")).encode(decomposed).unwrap(), [0, 3, 4]);
}

#[test]
fn a_word_that_is_a_token_needs_no_merges_where_the_rule_says_so() {
    let whole = pairs().with("ggml.merges", ["Ġ ab"]);
    assert_eq!(open(&whole).encode("ab").unwrap(), [0, 1]);
    assert_eq!(open(&whole.with("ggml.pre", "llama-bpe")).encode("ab").unwrap(), [3]);
}

#[test]
fn first_and_last_tokens_are_those_of_the_metadata_or_of_the_rule() {
    let bos = pairs().with("ggml.bos_token_id", 6_u32);
    for (fields, expected) in [
        (bos.clone(), &[3][..]),
        (bos.clone().with("ggml.pre", "llama-bpe"), &[6, 3]),
        (bos.clone().with("ggml.add_bos_token", true), &[6, 3]),
        (bos.clone().with("ggml.pre", "llama-bpe").with("ggml.add_bos_token", false), &[3]),
        (bos.with("ggml.add_eos_token", true), &[3, 5]),
        // None is named.
        (pairs().with("ggml.pre", "llama-bpe"), &[3]),
        (pairs().with("ggml.bos_token_id", u32::MAX), &[3]),
    ] {
        let tokenizer = open(&fields);
        assert_eq!(tokenizer.encode("ab").unwrap(), expected);
        assert_eq!(tokenizer.encode_chat("ab").unwrap(), [3]);
    }
}

#[test]
fn pieces_are_built_by_score_and_fall_back_to_bytes() {
    let tokenizer = open(&pieces());
    // "bc" has the best score, then "ab" and "▁a".
    assert_eq!(tokenizer.encode("abc").unwrap(), [1, 9, 11]);
    assert_eq!(tokenizer.encode("ab").unwrap(), [1, 12]);
    assert_eq!(tokenizer.encode("é").unwrap(), [1, 5, 3, 4]);
    // Neither a token nor bytes: one unknown token for all in a row.
    assert_eq!(tokenizer.encode("xy").unwrap(), [1, 5, 0]);
    assert_eq!(tokenizer.encode("a</s>a").unwrap(), [1, 9, 2, 9]);
    assert_eq!(tokenizer.decode(&[1, 9, 11, 5, 3, 4], true).unwrap(), "abc é");
    assert_eq!(tokenizer.end(), Some(2));
    assert!([0, 1, 2].iter().all(|&id| tokenizer.is_special(id)) && !tokenizer.is_special(3));
    let bare = open(&pieces().with("ggml.add_space_prefix", false).with("ggml.add_bos_token", false));
    assert_eq!(bare.encode("ab a").unwrap(), [10, 9]);
    assert_eq!(bare.decode(&[9], true).unwrap(), " a");
    // Merges that are stored go before scores.
    let stored = open(&pieces().with("ggml.merges", ["a b"]));
    assert_eq!(stored.encode("abc").unwrap(), [1, 5, 10, 8]);
}

#[test]
fn spaces_that_users_added_are_built_from_spaces_as_in_gemma() {
    let gemma = Fields::default()
        .with("ggml.model", "llama")
        .with("ggml.add_space_prefix", false)
        .with("ggml.tokens", ["<unk>", "<bos>", "</s>", "\n\n", "  ", "   ", "▁", "a", "▁a"])
        .with("ggml.token_type", [2, 3, 3, 4, 4, 4, 1, 1, 1])
        .with("ggml.scores", [0.0, 0.0, 0.0, -1000.0, -1000.0, -1000.0, -9.0, -9.0, -1.0]);
    let tokenizer = open(&gemma);
    assert_eq!(tokenizer.encode("   a  a\n\na").unwrap(), [1, 5, 7, 4, 7, 3, 7]);
    assert_eq!(tokenizer.decode(&[5, 7, 8], true).unwrap(), "   a a");
    assert_eq!(tokenizer.id_of("▁▁"), Some(4));
}

#[test]
fn special_tokens_of_phi3_take_the_spaces_behind_them_along() {
    let tokens = pieces()
        .with("ggml.tokens", ["<unk>", "<s>", "</s>", "<0xC3>", "<|end|>", "▁", "a", "b", "c", "▁a", "ab", "bc", "▁ab"])
        .with("ggml.token_type", [2, 3, 4, 6, 3, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(open(&tokens).encode_chat("<|end|> a").unwrap(), [4, 5, 9]);
    let phi = tokens.with_whole("general.name", "Phi-3 Mini");
    assert_eq!(open(&phi).encode_chat("<|end|> a<s> a").unwrap(), [4, 9, 1, 5, 9]);
}

#[test]
fn without_kinds_the_ids_tell_which_tokens_are_special() {
    let bytes = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a"];
    let fields = pieces().with("ggml.tokens", bytes).with("ggml.scores", [0.0; 7]).without("ggml.token_type");
    let tokenizer = open(&fields);
    assert_eq!(tokenizer.encode("é</s>").unwrap(), [1, 5, 3, 4, 2]);
    assert!([0, 1, 2].iter().all(|&id| tokenizer.is_special(id)) && !tokenizer.is_special(6));
}

#[test]
fn answers_end_where_llama_cpp_ends_them() {
    let ends = |fields: &Fields| end_of_generation(&fields.read()).unwrap();
    assert_eq!(ends(&pairs()), [5]);
    assert_eq!(ends(&pieces()), [2]);
    let named = |tokens: [&str; 8], kinds: [i32; 8]| pairs().with("ggml.tokens", tokens).with("ggml.token_type", kinds);
    let coder = named(
        ["a", "b", "<|im_end|>", "<|endoftext|>", "ab", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"],
        [1, 1, 3, 3, 1, 3, 4, 3],
    );
    assert_eq!(ends(&coder.clone().with("ggml.eos_token_id", 3_u32)), [2, 3, 5, 6, 7]);
    // An id goes before a text, and text is no end, unless it is named.
    let by_id =
        coder.with("ggml.fim_pad_token_id", 0_u32).with("ggml.eot_token_id", 1_u32).without("ggml.eos_token_id");
    assert_eq!(ends(&by_id), [0, 1, 2, 3, 6, 7]);
    let text = named(["a", "b", "</s>", "<EOT>", "ab", "x", "y", "z"], [1; 8]);
    assert_eq!(ends(&text), [5]);
    assert_eq!(ends(&text.without("ggml.token_type")), [2, 3, 5]);
    // Ends of a message inside an answer, and text that only looks like an end.
    let harmony = named(["a", "b", "<|end|>", "<|return|>", "<|call|>", "x", "y", "z"], [1, 1, 3, 3, 3, 1, 1, 1]);
    assert_eq!(ends(&harmony), [3, 4, 5]);
    assert_eq!(ends(&harmony.with("ggml.eos_token_id", 2_u32)), [2, 3, 4]);
    let gemma = named(["a", "b", "</s>", "<|tool_response>", "<eos>", "x", "y", "z"], [1, 1, 3, 4, 3, 1, 1, 1]);
    assert_eq!(ends(&gemma), [3, 4, 5]);
}

#[test]
fn templates_are_found_with_the_special_tokens_that_they_write() {
    let read = |fields: &Fields| ChatTemplate::from_gguf(&fields.read()).unwrap();
    assert!(read(&pairs()).is_none());
    let one = pieces().with("chat_template", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}");
    let messages = [Message::new("user", "hi")];
    assert_eq!(read(&one).unwrap().render(&messages, false).unwrap(), "<s>hi</s>");
    let padded = one.with("ggml.padding_token_id", 7_u32);
    assert_eq!(read(&padded).unwrap().render(&messages, false).unwrap(), "<s>hi</s>b");
    let several = pairs()
        .with("chat_template", "plain")
        .with("chat_templates", ["tool_use", "rag"])
        .with("chat_template.tool_use", "tools")
        .with("chat_template.rag", "{% never read");
    let template = read(&several).unwrap();
    assert_eq!(template.render(&messages, false).unwrap(), "plain");
    let tools = serde_json::json!({"tools": [{}]});
    assert_eq!(template.render_with(&messages, tools.as_object().unwrap()).unwrap().text, "tools");
}

//! Every refusal with its sentence, and damaged files.

use super::{pairs, pieces};
use crate::checkpoint::end_of_generation;
use crate::checkpoint::gguf_writer::{Field, Fields, metadata};
use crate::text::{ChatTemplate, Tokenizer};

/// The sentence that refuses a tokenizer.
fn refusal(fields: &Fields) -> String {
    let message = Tokenizer::from_gguf(&fields.read()).unwrap_err().to_string();
    assert!(message.ends_with('.') && message.contains("model.gguf"), "{message}");
    message
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (model, said) in [
        ("t5", "is \"t5\", which is not supported: \"gpt2\", \"llama\" and \"gemma4\" are"),
        ("bert", "is \"bert\""),
        ("rwkv", "is \"rwkv\""),
        ("no_vocab", "is \"no_vocab\""),
    ] {
        let message = refusal(&pairs().with("ggml.model", model));
        assert!(message.contains(said) && message.contains("tokenizer.ggml.model"), "{message}");
    }
    let message = refusal(&pairs().with("ggml.pre", "kimi-k2"));
    assert!(
        message.contains("is \"kimi-k2\", a way to cut texts that is not known; known are bailingmoe, "),
        "{message}"
    );
    assert!(message.contains(", qwen2, ") && message.contains("\"tokenizer.ggml.pre\""), "{message}");
    let message = refusal(&pairs().without("ggml.model"));
    assert!(message.contains("\"tokenizer.ggml.model\"") && message.contains("is missing"), "{message}");
}

#[test]
fn files_without_a_rule_are_cut_by_the_default_one() {
    let old = Tokenizer::from_gguf(&pairs().without("ggml.pre").read()).unwrap();
    assert_eq!(old.encode("ab ab").unwrap(), [3, 4]);
    let empty = Tokenizer::from_gguf(&pairs().with("ggml.pre", "").read()).unwrap();
    assert_eq!(empty.encode("ab ab").unwrap(), [3, 4]);
}

#[test]
fn vocabularies_that_contradict_themselves_are_refused() {
    let doubled = ["a", "b", "Ġ", "ab", "a", "<|im_end|>", "x", "y"];
    let none = Field::Texts(Vec::new());
    for (fields, said) in [
        (pairs().without("ggml.tokens"), "\"tokenizer.ggml.tokens\" of"),
        (pairs().with("ggml.tokens", none).without("ggml.token_type"), "has 0 tokens"),
        (pairs().with("ggml.tokens", doubled), "has the token \"a\" twice, as 0 and 4"),
        (pairs().with("ggml.token_type", [1, 1]), "\"tokenizer.ggml.token_type\" of"),
        (pairs().with("ggml.token_type", [1, 1]), "has 2 values, but there are 8 tokens"),
        (pairs().with("ggml.token_type", [1, 1, 1, 1, 1, 3, 4, 9]), "has the unknown kind 9 at 7"),
        (pairs().with("ggml.tokens", "a"), "is one value, where a list of texts is needed"),
        (pairs().without("ggml.merges"), "is missing, and tokens of this kind are built by merges"),
        (pairs().with("ggml.merges", ["a b", "b a"]), "joins \"b a\" at 1, and \"ba\" is no token"),
        (pairs().with("ggml.merges", ["a z"]), "and \"z\" is no token"),
        (pairs().with("ggml.merges", ["ab"]), "has \"ab\" at 0, which is not two tokens with a space"),
        (pairs().with("ggml.merges", [""]), "has \"\" at 0"),
        (pairs().with("ggml.merges", ["a "]), "has \"a \" at 0"),
        (pairs().with("ggml.eos_token_id", 8_u32), "\"tokenizer.ggml.eos_token_id\" of"),
        (pairs().with("ggml.eos_token_id", 8_u32), "is 8, but there are 8 tokens"),
        (pairs().with("ggml.bos_token_id", 70_000_u32), "\"tokenizer.ggml.bos_token_id\" of"),
        (pairs().with("ggml.padding_token_id", 9_u32), "\"tokenizer.ggml.padding_token_id\" of"),
        (pieces().with("ggml.unknown_token_id", 99_u32), "\"tokenizer.ggml.unknown_token_id\" of"),
        (pairs().with("ggml.add_bos_token", true), "is true, but there is no tokenizer.ggml.bos_token_id"),
        (pairs().with("ggml.add_bos_token", "yes"), "where true or false is needed"),
        (pieces().with("ggml.scores", [0.0]), "has 1 values, but there are 13 tokens"),
        (pieces().with("ggml.scores", [f32::NAN; 13]), "has NaN at 0"),
        (pieces().without("ggml.scores"), "is missing, and tokenizer.ggml.merges are too"),
    ] {
        let message = refusal(&fields);
        assert!(message.contains(said), "{said}: {message}");
    }
    let message = end_of_generation(&pairs().with("ggml.eot_token_id", 8_u32).read()).unwrap_err().to_string();
    assert!(message.contains("\"tokenizer.ggml.eot_token_id\""), "{message}");
}

#[test]
fn vocabularies_that_would_take_all_memory_or_time_are_refused() {
    let of = |tokens: Vec<String>| {
        let count = tokens.len();
        let fields = Fields::default().with("ggml.model", "llama").with("ggml.unknown_token_id", 0_u32);
        fields.with("ggml.tokens", Field::Texts(tokens)).with("ggml.scores", Field::Numbers(vec![0.0; count]))
    };
    // Each can be cut anywhere: the cube of their number.
    let runs = (1..=400).map(|length| "a".repeat(length)).collect();
    let message = refusal(&of(runs));
    assert!(message.contains("built in too many ways"), "{message}");
    let message = refusal(&of(vec!["a".to_owned(), "b".to_owned(), "c".to_owned(), "d".repeat(513)]));
    assert!(message.contains("has 513 bytes at 3, and 512 is the most"), "{message}");
    let many: Vec<String> = (0..50_001).map(|id| format!("<{id}>")).collect();
    let kinds = Field::Integers(vec![4; many.len()]);
    let fields = pairs().with("ggml.tokens", Field::Texts(many)).with("ggml.token_type", kinds);
    let message = refusal(&fields.with("ggml.merges", Field::Texts(Vec::new())));
    assert!(message.contains("50001 added tokens"), "{message}");
}

#[test]
fn damaged_metadata_is_an_error_or_a_tokenizer_and_never_a_panic() {
    let both = [pairs().with("chat_template", "{{ bos_token }}"), pairs().with("ggml.pre", "qwen2"), pieces()];
    let (mut state, mut opened, mut built) = (1_u64, 0, 0);
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for fields in both.iter().cycle().take(3000) {
        let mut bytes = fields.bytes();
        for _ in 0..=draw(3) {
            let at = draw(bytes.len());
            bytes[at] = if draw(2) == 0 { draw(256) as u8 } else { bytes[at] ^ 1 << draw(8) };
        }
        let Ok(metadata) = metadata(&bytes) else { continue };
        opened += 1;
        let sentence =
            |error: String| assert!(error.ends_with('.') && !error.contains("contradict each other"), "{error}");
        match Tokenizer::from_gguf(&metadata) {
            Ok(tokenizer) => {
                built += 1;
                let ids = tokenizer.encode("ab a<|im_end|>é 12 [PAD7] x").unwrap_or_default();
                assert!(tokenizer.decode(&ids, false).is_ok());
            }
            Err(error) => sentence(error.to_string()),
        }
        let _ = end_of_generation(&metadata).map_err(|error| sentence(error.to_string()));
        let _ = ChatTemplate::from_gguf(&metadata).map_err(|error| sentence(error.to_string()));
    }
    println!("{opened} opened, {built} built");
    assert!(built > 100);
}

#[test]
fn templates_that_cannot_be_used_are_refused() {
    let broken = pairs().with("chat_template", "{% if");
    let listed = pairs().with("chat_templates", ["tool_use"]);
    let only_tools = listed.clone().with("chat_template.tool_use", "x");
    for (fields, said) in [
        (broken, "The chat template of"),
        (listed, "\"tokenizer.chat_template.tool_use\" of"),
        (only_tools, "none of [\"tool_use\"] is named default"),
        (pairs().with("chat_template", 3_u32), "where a text is needed"),
    ] {
        let message = ChatTemplate::from_gguf(&fields.read()).unwrap_err().to_string();
        assert!(message.contains(said) && message.ends_with('.'), "{message}");
    }
}

//! A learned tokenizer in its files, read back by the runtime.

use std::path::Path;

use paceline::Message;
use paceline::text::ChatTemplate;
use proptest::prelude::*;

use super::*;

/// A tokenizer of 300 tokens in `folder`.
fn make(folder: &Path) -> ChatTokenizer {
    let text = "the quick brown fox said to the lazy dog that there were 12 of them\n".repeat(3);
    save(&learn(std::iter::once(text), 300).unwrap(), 64, folder).unwrap();
    ChatTokenizer::open(folder).unwrap()
}

fn message(role: &str, content: &str) -> Message {
    Message::new(role, content)
}

#[test]
fn prompts_begin_with_the_mark_and_the_end_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = make(dir.path());
    assert_eq!(tokenizer.text("").unwrap(), [1]);
    assert_eq!(tokenizer.end(), 2);
    let inner = tokenizer.tokenizer();
    assert_eq!(inner.vocab_size(), 300);
    assert!((0..6).all(|id| inner.is_special(id)) && !inner.is_special(6));
    assert_eq!(inner.decode(&inner.encode("the 12 dogs\n").unwrap(), true).unwrap(), "the 12 dogs\n");
}

proptest! {
    /// Written out by hand: marks, and between them the words by themselves.
    #[test]
    fn conversations_are_what_the_template_says(
        contents in prop::collection::vec("[a-z 0-9\n.]{0,12}", 1..5), answer in "[a-z 0-9\n.]{0,12}",
    ) {
        static MADE: std::sync::LazyLock<(ChatTokenizer, ChatTemplate)> = std::sync::LazyLock::new(|| {
            let dir = tempfile::tempdir().unwrap();
            (make(dir.path()), ChatTemplate::of_model(dir.path()).unwrap().unwrap())
        });
        let (tokenizer, template) = &*MADE;
        let roles = [("system", 5), ("user", 3), ("assistant", 4), ("user", 3)];
        let messages: Vec<Message> = roles.iter().zip(&contents).map(|((role, _), content)| message(role, content)).collect();
        let words = |text: &str| tokenizer.text(text).unwrap()[1..].to_vec();
        let mut expected = vec![1];
        for ((_, mark), content) in roles.iter().zip(&contents) {
            expected.push(*mark);
            expected.extend(words(content));
            expected.push(2);
        }
        expected.push(4);
        let conversation = tokenizer.conversation(&messages, &answer).unwrap();
        prop_assert_eq!(&conversation.tokens[..conversation.prompt], &expected[..]);
        // What the runtime gives to a model that is asked this.
        let asked = tokenizer.tokenizer().encode_chat(&template.render(&messages, true).unwrap()).unwrap();
        prop_assert_eq!(asked, expected.iter().map(|&id| u32::from(id)).collect::<Vec<u32>>());
        expected.extend(words(&answer));
        expected.push(2);
        prop_assert_eq!(conversation.tokens, expected);
    }
}

#[test]
fn tokenizers_that_do_not_serve_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |folder: &Path| ChatTokenizer::open(folder).unwrap_err().to_string();
    assert!(refused(dir.path()).contains("run `paceline-train tokenizer` first"), "{}", refused(dir.path()));
    let tokenizer = make(dir.path());
    let message_error = tokenizer.conversation(&[message("robot", "x")], "y").unwrap_err().to_string();
    assert!(message_error.contains("A message is of the role robot"), "{message_error}");
    let settings = |text: &str| {
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
    };
    let before = tokenizer.hash();
    settings("{\"bos_token\": \"<|begin|>\"}");
    assert!(refused(dir.path()).contains("names no `eos_token`"), "{}", refused(dir.path()));
    settings("{\"eos_token\": \"<|end|>\"}");
    let bare = ChatTokenizer::open(dir.path()).unwrap();
    assert_ne!(before, bare.hash());
    let error = bare.conversation(&[message("user", "x")], "y").unwrap_err().to_string();
    assert!(error.contains("has no chat template"), "{error}");
    settings("{\"eos_token\": \"<|end|>\", \"chat_template\": \"{{ messages | length }}\"}");
    let odd = ChatTokenizer::open(dir.path()).unwrap();
    let error = odd.conversation(&[message("user", "x")], "y").unwrap_err().to_string();
    assert!(error.contains("in another way once the answer is there"), "{error}");
}

#[test]
fn the_files_are_those_that_transformers_looks_for() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.path().join(name)).unwrap()).unwrap()
    };
    let tokenizer = read("tokenizer.json");
    let expected =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    assert_eq!((&tokenizer["pre_tokenizer"], &tokenizer["decoder"]), (&expected, &expected));
    assert_eq!(tokenizer["model"]["type"], "BPE");
    assert_eq!(tokenizer["normalizer"], serde_json::Value::Null);
    assert_eq!(read("generation_config.json")["eos_token_id"], 2);
    assert_eq!(read("tokenizer_config.json")["model_max_length"], 64);
}

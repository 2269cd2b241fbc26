//! Shards of any documents come back, damaged ones are refused, and texts are cut without losing a word.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use paceline::Message;
use proptest::prelude::*;

use super::*;
use crate::checksum::Checksum;
use crate::sources::Row;
use crate::tokenizer::{ChatTokenizer, learn, save};

/// A tokenizer of 300 tokens.
fn make(folder: &Path, text: &str) -> ChatTokenizer {
    save(&learn(std::iter::once(text.repeat(3)), 300).unwrap(), 64, folder).unwrap();
    ChatTokenizer::open(folder).unwrap()
}

const WORDS: &str = "the quick brown fox said to the lazy dog that there were 12 of them\n";

static TOKENIZER: LazyLock<ChatTokenizer> = LazyLock::new(|| make(tempfile::tempdir().unwrap().path(), WORDS));

fn write(path: &Path, documents: &[Vec<(u16, u8)>]) -> Result<u64, ShardError> {
    let mut writer = ShardWriter::create(path, &TOKENIZER)?;
    for document in documents {
        let (tokens, learn): (Vec<u16>, Vec<u8>) = document.iter().copied().unzip();
        writer.push(&tokens, &learn)?;
    }
    writer.finish()
}

/// Why the file with these `bytes` is refused.
fn refused(path: &Path, bytes: &[u8]) -> Option<String> {
    fs::write(path, bytes).unwrap();
    let message = Shard::open(path, &TOKENIZER).err()?.to_string();
    assert!(message.ends_with('.') && !message.contains('\n'), "{message}");
    Some(message)
}

proptest! {
    #[test]
    fn documents_come_back(documents in prop::collection::vec(prop::collection::vec((any::<u16>(), 0u8..3), 0..20), 0..20)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tokens");
        let tokens = write(&path, &documents).unwrap();
        let shard = Shard::open(&path, &TOKENIZER).unwrap();
        let all: Vec<(u16, u8)> = documents.concat();
        prop_assert_eq!((shard.documents(), shard.tokens(), tokens), (documents.len(), all.len() as u64, all.len() as u64));
        prop_assert_eq!(shard.learned(), all.iter().filter(|(_, class)| *class != PROMPT).count() as u64);
        for (index, document) in documents.iter().enumerate() {
            let found = shard.document(index);
            let found: Vec<(u16, u8)> = found.tokens.iter().copied().zip(found.learn.iter().copied()).collect();
            prop_assert_eq!(&found, document);
        }
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Whatever happens to a byte, or however many are missing, is noticed.
    #[test]
    fn damaged_shards_are_refused(place in any::<prop::sample::Index>(), change in 1u8.., more in prop::collection::vec(any::<u8>(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tokens");
        write(&path, &[vec![(1, 0), (2, 1), (3, 1)], vec![(7, 2); 4], vec![]]).unwrap();
        let whole = fs::read(&path).unwrap();
        let place = place.index(whole.len());
        let mut flipped = whole.clone();
        flipped[place] ^= change;
        prop_assert!(refused(&path, &flipped).is_some(), "byte {}", place);
        prop_assert!(refused(&path, &whole[..place]).is_some(), "cut at {}", place);
        prop_assert!(refused(&path, &[&whole[..], &more].concat()).is_some());
        prop_assert_eq!(refused(&path, &whole), None);
    }

    /// Sums that are right say nothing of counts that are not.
    #[test]
    fn impossible_counts_are_refused(documents in any::<u64>(), tokens in any::<u64>(), index in prop::collection::vec(any::<u64>(), 0..4)) {
        let dir = tempfile::tempdir().unwrap();
        let mut body: Vec<u8> = vec![0; 12];
        body.extend(index.iter().flat_map(|place| place.to_le_bytes()));
        for documents in [documents, index.len() as u64, (index.len() as u64).saturating_sub(1)] {
            let bytes = shard_with(documents, tokens, &body);
            prop_assert!(refused(&dir.path().join("a"), &bytes).is_some());
        }
    }
}

/// A file with right sums around whatever it is told to hold.
fn shard_with(documents: u64, tokens: u64, body: &[u8]) -> Vec<u8> {
    let mut header = b"PACETOKS\x01\0\0\0\x2c\x01\0\0".to_vec();
    for number in [TOKENIZER.hash(), documents, tokens, 0, Checksum::of(body)] {
        header.extend(number.to_le_bytes());
    }
    header.extend(Checksum::of(&header).to_le_bytes());
    header.extend(body);
    header
}

#[test]
fn what_is_wrong_with_a_shard_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    // Three tokens, three classes and the zero.
    let body = |places: &[u64]| -> Vec<u8> {
        [1u8, 0, 2, 0, 3, 0, 0, 1, 1, 0]
            .into_iter()
            .chain(places.iter().flat_map(|place| place.to_le_bytes()))
            .collect()
    };
    let good = shard_with(1, 3, &body(&[64, 74]));
    assert_eq!(refused(&path, &good), None);
    assert_eq!(Shard::open(&path, &TOKENIZER).unwrap().document(0), Document { tokens: &[1, 2, 3], learn: &[0, 1, 1] });
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, said) in [
        (vec![], "0 bytes, which is less than a header"),
        (with(0, b'X'), "does not begin like a file of tokens"),
        (with(8, 2), "is of version 2, and version 1 is read"),
        (with(24, 9), "header does not match its checksum"),
        (with(64, 9), "documents do not match their checksum"),
        (good[..80].to_vec(), "documents do not match their checksum"),
        (good[..70].to_vec(), "its 70 bytes are too few for 1 documents"),
        (shard_with(u64::MAX, 3, &body(&[64, 74])), "too few for 18446744073709551615 documents"),
        (shard_with(1, 4, &body(&[64, 74])), "documents have 3 tokens, and its header says 4"),
        (shard_with(1, 2, &body(&[64, 70])), "4 bytes of it belong to no document"),
        (shard_with(1, 3, &body(&[64, 73])), "document 1 lies at an impossible place"),
        (shard_with(1, 3, &body(&[65, 74])), "document 0 lies at an impossible place"),
        (shard_with(2, 3, &body(&[64, 74, 64])), "document 2 lies at an impossible place"),
        (shard_with(1, 3, &body(&[64, u64::MAX])), "document 1 lies at an impossible place"),
    ] {
        let message = refused(&path, &bytes).unwrap();
        assert!(message.contains(said) && message.contains("delete the file and run"), "{message}");
    }
    let other = make(&dir.path().join("."), &WORDS.replace("fox", "ibex and a gnu"));
    fs::write(&path, &good).unwrap();
    let message = Shard::open(&path, &other).unwrap_err().to_string();
    assert!(message.contains("made with another tokenizer: run `paceline-train tokens` again"), "{message}");
    let message = Shard::open(&dir.path().join("none"), &TOKENIZER).unwrap_err().to_string();
    assert!(message.contains("run `paceline-train tokens` first"), "{message}");
}

#[test]
fn an_interrupted_shard_leaves_the_former() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    write(&path, &[vec![(1, 1)]]).unwrap();
    let mut writer = ShardWriter::create(&path, &TOKENIZER).unwrap();
    writer.push(&[2, 3], &[2, 2]).unwrap();
    drop(writer);
    assert_eq!(Shard::open(&path, &TOKENIZER).unwrap().document(0).tokens, [1]);
}

proptest! {
    #[test]
    fn texts_are_cut_without_losing_a_word(text in "([a-z]{1,6}[ .,]|[0-9]{1,9}|é|\n|\n\n|    ){0,60}", limit in 8usize..40) {
        let mut cutter = Cutter::new(&TOKENIZER, limit).unwrap();
        let documents = cutter.row(&Row::Text(text.clone())).unwrap();
        let mut found = String::new();
        for (index, document) in documents.iter().enumerate() {
            let last = index + 1 == documents.len();
            prop_assert!(document.tokens.len() <= limit, "{} tokens of {}", document.tokens.len(), limit);
            prop_assert_eq!(&document.learn, &vec![TEXT; document.tokens.len()]);
            prop_assert_eq!(document.tokens.last() == Some(&TOKENIZER.end()), last);
            let ids: Vec<u32> = document.tokens.iter().map(|&id| id.into()).collect();
            let words = TOKENIZER.tokenizer().decode(&ids, true).unwrap();
            // The very ids of the words as a prompt.
            let prompt = TOKENIZER.text(&words).unwrap();
            prop_assert_eq!(&document.tokens[..prompt.len()], &prompt[..]);
            prop_assert_eq!(document.tokens.len() - prompt.len(), usize::from(last));
            found.push_str(&words);
        }
        let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        prop_assert_eq!(plain(&found), plain(&text));
    }

    #[test]
    fn documents_are_nearly_full(words in prop::collection::vec("[a-z]{1,8}", 100..300)) {
        let text: String = words.iter().enumerate().map(|(i, word)| word.clone() + if i % 7 == 6 { "\n\n" } else { " " }).collect();
        let documents = Cutter::new(&TOKENIZER, 150).unwrap().row(&Row::Text(text)).unwrap();
        for document in documents.iter().rev().skip(1) {
            // A paragraph has at most 7 words of 8 letters with what is between them.
            prop_assert!(document.tokens.len() + 7 * 9 + 8 >= 150, "{}", document.tokens.len());
        }
    }
}

#[test]
fn text_is_cut_where_paragraphs_end() {
    let mut cutter = Cutter::new(&TOKENIZER, 36).unwrap();
    let text = "\none two three.\n\nfour five six.\n\n\n\nseven eight nine\nten.\n";
    let documents = cutter.row(&Row::Text(text.to_owned())).unwrap();
    let words = |document: &OwnDocument| {
        let ids: Vec<u32> = document.tokens.iter().map(|&id| id.into()).collect();
        TOKENIZER.tokenizer().decode(&ids, true).unwrap()
    };
    let words: Vec<String> = documents.iter().map(words).collect();
    assert_eq!(words, ["one two three.\n\nfour five six.", "seven eight nine\nten."]);
}

#[test]
fn of_conversations_the_answers_are_learned() {
    let mut cutter = Cutter::new(&TOKENIZER, 40).unwrap();
    let row = |answer: &str| Row::Answer { messages: vec![Message::new("user", "the fox")], answer: answer.to_owned() };
    let [document] = &cutter.row(&row("12 dogs")).unwrap()[..] else { panic!("one document") };
    let conversation = TOKENIZER.conversation(&[Message::new("user", "the fox")], "12 dogs").unwrap();
    assert_eq!(document.tokens, conversation.tokens);
    let answered = document.tokens.len() - conversation.prompt;
    assert_eq!(document.learn, [vec![PROMPT; conversation.prompt], vec![ANSWER; answered]].concat());
    assert_eq!(document.tokens.last(), Some(&TOKENIZER.end()));
    assert_eq!(cutter.long(), 0);
    assert!(cutter.row(&row(&"12".repeat(20))).unwrap().is_empty());
    assert_eq!(cutter.long(), 1);
}

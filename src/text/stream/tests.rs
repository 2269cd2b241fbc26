//! The stream against decoding everything again after every token, on tokenizers of the two families.
#![allow(clippy::unwrap_used, reason = "a test that fails here should stop here")]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A tokenizer whose ids are the places in `vocabulary`; token 0 is special.
fn tokenizer(vocabulary: &[String], decoder: &serde_json::Value) -> Tokenizer {
    let vocab: serde_json::Map<_, _> = vocabulary.iter().cloned().zip((0..).map(|id: u32| json!(id))).collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": decoder,
        "added_tokens": [{"id": 0, "content": vocabulary[0], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "vocab": vocab, "merges": []},
    });
    Tokenizer::from_bytes(file.to_string()).unwrap()
}

/// Spelling of a byte in GPT-2's byte-level vocabularies.
fn byte_level_char(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..);
    if printable(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !printable(byte)).count() as u32;
    char::from_u32(256 + before).unwrap()
}

/// Tokens that cut characters in many ways.
const PIECES: [&[u8]; 23] = [
    b"a",
    b"b",
    b"ab",
    b" ",
    b" a",
    b"aba",
    b"x\xE5",
    b"\xE5",
    b"\x8F",
    b"\x8F\xAB",
    b"\xABy",
    b"\xF0\x9F",
    b"\x98\x80",
    b"\xF0",
    b"\x9F",
    b"\xC3",
    b"\xA9",
    b"\xFF",
    b"\xE0",
    b"\x80",
    b"\xEF\xBF\xBD",
    b"\x98",
    b"<0x80>",
];

fn byte_level() -> Tokenizer {
    let spell = |piece: &&[u8]| piece.iter().copied().map(byte_level_char).collect();
    let mut vocabulary = vec![String::from("<eos>")];
    vocabulary.extend(PIECES.iter().map(spell));
    tokenizer(
        &vocabulary,
        &json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
    )
}

fn fallback_vocabulary() -> Vec<String> {
    let words = ["</s>", "▁", "▁a", "a", "b", "ab", "▁ab", "y", "é", "叫", "▁▁", "\u{FFFD}", "<0x4>"];
    let bytes = [0x20u8, 0x61, 0xE5, 0x8F, 0xAB, 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xA9, 0xFF];
    words.iter().map(|word| (*word).to_owned()).chain(bytes.iter().map(|byte| format!("<0x{byte:02X}>"))).collect()
}

/// As in Llama 2 and its like.
fn llama() -> Tokenizer {
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]});
    tokenizer(&fallback_vocabulary(), &decoder)
}

fn metaspace() -> Tokenizer {
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}, {"type": "ByteFallback"},
    ]});
    tokenizer(&fallback_vocabulary(), &decoder)
}

/// Decodes everything; `None` where the prompt's text is not a prefix.
fn answer_text(tokenizer: &Tokenizer, prompt: &[u32], answer: &[u32]) -> Option<String> {
    let all = tokenizer.decode(&[prompt, answer].concat(), true).unwrap();
    all.strip_prefix(&tokenizer.decode(prompt, true).unwrap()).map(str::to_owned)
}

/// The text, and the token after which which stop string is complete.
type Outcome = (String, Option<(usize, usize)>);

/// Decodes everything again after every token. What may be an unfinished character at the end is not searched.
fn oracle(tokenizer: &Tokenizer, stops: &[String], prompt: &[u32], answer: &[u32]) -> Option<Outcome> {
    for tokens in 0..=answer.len() {
        let text = answer_text(tokenizer, prompt, &answer[..tokens])?;
        let text = text.trim_end_matches(REPLACEMENT);
        let first = stops.iter().enumerate().filter_map(|(index, stop)| Some((text.find(stop.as_str())?, index))).min();
        if let Some((start, index)) = first {
            return Some((text[..start].to_owned(), Some((tokens, index))));
        }
    }
    Some((answer_text(tokenizer, prompt, answer)?, None))
}

fn streamed(tokenizer: &Tokenizer, stops: &[String], prompt: &[u32], answer: &[u32]) -> Outcome {
    let mut stream = TextStream::new(tokenizer, stops, prompt).unwrap();
    let (mut text, mut stopped) = (String::new(), None);
    for (index, &token) in answer.iter().enumerate() {
        let piece = stream.push(token).unwrap();
        text.push_str(&piece.text);
        if stopped.is_none() {
            stopped = piece.stopped.map(|stop| (index + 1, stop));
        }
    }
    text.push_str(&stream.finish().unwrap());
    (text, stopped)
}

fn stops() -> impl Strategy<Value = Vec<String>> {
    let stop = prop::sample::select(vec![
        "ab", "b", "aba", "aab", "bb a", " ", " a", "  ", "y", "叫", "叫y", "a叫", "x叫", "é", "éa", "😀", "😀😀",
        "a😀b", "叫 a",
    ]);
    prop_oneof![1 => Just(vec![]), 3 => prop::collection::vec(stop.prop_map(String::from), 1..4)]
}

/// Random tokens, ids outside the vocabulary included, between characters that are whole.
fn answer(size: u32, whole: Vec<Vec<u32>>) -> impl Strategy<Value = Vec<u32>> {
    let part = prop_oneof![
        3 => prop::collection::vec(0..=size, 1..4),
        3 => prop::sample::select(whole),
    ];
    prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
}

/// The ids that spell `pieces`.
fn ids(tokenizer: &Tokenizer, pieces: &[&str]) -> Vec<u32> {
    pieces.iter().map(|piece| tokenizer.token_to_id(piece).unwrap()).collect()
}

fn byte_ids(tokenizer: &Tokenizer, bytes: &[u8]) -> Vec<u32> {
    bytes.iter().map(|byte| tokenizer.token_to_id(&format!("<0x{byte:02X}>")).unwrap()).collect()
}

fn byte_level_whole() -> Vec<Vec<u32>> {
    let id = |piece: &[u8]| PIECES.iter().position(|known| *known == piece).unwrap() as u32 + 1;
    let spell = |pieces: &[&[u8]]| pieces.iter().copied().map(id).collect::<Vec<_>>();
    vec![
        spell(&[b"\xE5", b"\x8F", b"\xABy"]),
        spell(&[b"x\xE5", b"\x8F\xAB"]),
        spell(&[b"\xF0\x9F", b"\x98\x80"]),
        spell(&[b"\xF0", b"\x9F", b"\x98\x80"]),
        spell(&[b"\xC3", b"\xA9", b"a"]),
        spell(&[b"a", b"b", b"b", b" a"]),
    ]
}

fn fallback_whole() -> Vec<Vec<u32>> {
    let tokenizer = llama();
    vec![
        byte_ids(&tokenizer, "叫".as_bytes()),
        byte_ids(&tokenizer, "😀".as_bytes()),
        byte_ids(&tokenizer, "éa".as_bytes()),
        ids(&tokenizer, &["▁", "a", "b"]),
        ids(&tokenizer, &["b", "b", "▁a", "a"]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 200_000, ..ProptestConfig::with_cases(4000) })]
    #[test]
    fn byte_level_equals_decoding_everything(
        stops in stops(),
        prompt in answer(PIECES.len() as u32, byte_level_whole()),
        answer in answer(PIECES.len() as u32 + 1, byte_level_whole()),
    ) {
        let tokenizer = byte_level();
        let expected = oracle(&tokenizer, &stops, &prompt, &answer);
        prop_assume!(expected.is_some());
        prop_assert_eq!(Some(streamed(&tokenizer, &stops, &prompt, &answer)), expected);
    }

    #[test]
    fn byte_fallback_equals_decoding_everything(
        stops in stops(),
        prompt in prop_oneof![
            3 => prop::sample::select(vec![vec![], vec![0], vec![1], vec![0, 2], vec![3], vec![6, 1], vec![10]]),
            1 => answer(24, fallback_whole()),
        ],
        answer in answer(25, fallback_whole()),
        strip: bool,
    ) {
        let tokenizer = if strip { llama() } else { metaspace() };
        // A prompt that is one space byte has no text, until an invalid byte of the answer makes it U+FFFD:
        // then the text of the prompt is "a prefix" and yet the answer's text is not its own.
        prop_assume!(prompt.iter().all(|token| *token != 13) || !tokenizer.decode(&prompt, true).unwrap().is_empty());
        let expected = oracle(&tokenizer, &stops, &prompt, &answer);
        prop_assume!(expected.is_some());
        prop_assert_eq!(Some(streamed(&tokenizer, &stops, &prompt, &answer)), expected);
    }

    /// Without stop strings nothing waits but unfinished characters and runs of bytes.
    #[test]
    fn text_comes_as_soon_as_it_is_certain(answer in answer(PIECES.len() as u32, byte_level_whole())) {
        let tokenizer = byte_level();
        let mut stream = TextStream::new(&tokenizer, &[], &[]).unwrap();
        let mut text = String::new();
        for tokens in 1..=answer.len() {
            text.push_str(&stream.push(answer[tokens - 1]).unwrap().text);
            let all = tokenizer.decode(&answer[..tokens], true).unwrap();
            prop_assert!(all.starts_with(&text));
            prop_assert_eq!(text.trim_end_matches(REPLACEMENT), all.trim_end_matches(REPLACEMENT));
        }
    }
}

fn texts(tokenizer: &Tokenizer, stops: &[&str], tokens: &[u32]) -> Vec<String> {
    let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
    let mut stream = TextStream::new(tokenizer, &stops, &[]).unwrap();
    let mut texts: Vec<String> = tokens.iter().map(|&token| stream.push(token).unwrap().text).collect();
    texts.push(stream.finish().unwrap());
    texts
}

#[test]
fn a_run_of_bytes_waits_for_its_end() {
    let tokenizer = llama();
    let valid = [ids(&tokenizer, &["▁a"]), byte_ids(&tokenizer, "é叫".as_bytes()), ids(&tokenizer, &["b"])].concat();
    assert_eq!(texts(&tokenizer, &[], &valid), ["a", "", "", "", "", "", "é叫b", ""]);
    // One more byte makes it invalid, as `decode` has it: all characters of the run are gone.
    let broken = [byte_ids(&tokenizer, b"\xC3\xA9\xC3\xFF\x61"), ids(&tokenizer, &["b"])].concat();
    assert_eq!(tokenizer.decode(&broken, true).unwrap(), "\u{FFFD}".repeat(5) + "b");
    assert_eq!(texts(&tokenizer, &[], &broken), ["", "", "", "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}", "\u{FFFD}", "b", ""]);
    // A stop string inside a run ends the answer at once.
    assert_eq!(streamed(&tokenizer, &["é".into()], &[], &valid), ("a".into(), Some((3, 0))));
    assert_eq!(texts(&tokenizer, &[], &byte_ids(&tokenizer, b"\xE5\x8F")), ["", "", "\u{FFFD}\u{FFFD}"]);
}

#[test]
fn the_beginning_of_a_stop_string_waits() {
    let tokenizer = llama();
    let tokens = ids(&tokenizer, &["a", "a", "b", "a", "y", "b"]);
    assert_eq!(texts(&tokenizer, &["aay", "bay"], &tokens), ["", "", "aa", "", "", "", ""]);
    assert_eq!(texts(&tokenizer, &["aay"], &tokens), ["", "", "aab", "", "ay", "b", ""]);
    assert_eq!(texts(&tokenizer, &["ybb"], &tokens), ["a", "a", "b", "a", "", "", "yb"]);
    // Two complete with one token: the one that begins first; on a tie the first in the list.
    assert_eq!(
        streamed(&tokenizer, &["ya".into(), "b".into(), "ba".into()], &[], &tokens),
        ("aa".into(), Some((3, 1)))
    );
    let at_once = ids(&tokenizer, &["y", "ab"]);
    assert_eq!(streamed(&tokenizer, &["b".into(), "yab".into()], &[], &at_once), (String::new(), Some((2, 1))));
    // U+FFFD in a stop string, also where it comes from a run of bytes that looked fine before.
    let run = [ids(&tokenizer, &["a"]), byte_ids(&tokenizer, b"\xC3\xA9\xFF")].concat();
    assert_eq!(streamed(&tokenizer, &["a\u{FFFD}".into()], &[], &run), (String::new(), Some((4, 0))));
    let replaced = ids(&tokenizer, &["a", "\u{FFFD}"]);
    assert_eq!(streamed(&tokenizer, &["a\u{FFFD}".into()], &[], &replaced), (String::new(), Some((2, 0))));
}

#[test]
fn a_stop_string_of_an_incomplete_character_is_found_at_the_end() {
    let (bytes, fallback) = (byte_level(), llama());
    let a = PIECES.iter().position(|known| *known == b"a").unwrap() as u32 + 1;
    let lead = PIECES.iter().position(|known| *known == b"\xE5").unwrap() as u32 + 1;
    let incomplete = [ids(&fallback, &["a"]), byte_ids(&fallback, b"\xE5")].concat();
    for (tokenizer, tokens) in [(&bytes, vec![a, lead]), (&fallback, incomplete)] {
        for (stop, stopped, text) in [("\u{FFFD}", Some(1), ""), ("\u{FFFD}y", None, "\u{FFFD}")] {
            let mut stream = TextStream::new(tokenizer, &[String::from("x"), String::from(stop)], &[]).unwrap();
            for &token in &tokens {
                assert_eq!(stream.push(token).unwrap().stopped, None);
            }
            assert_eq!(stream.stopped(), None);
            assert_eq!((stream.finish().unwrap().as_str(), stream.stopped()), (text, stopped));
        }
    }
    let mut stream = TextStream::new(&fallback, &[String::from("ab")], &[]).unwrap();
    stream.push(fallback.token_to_id("ab").unwrap()).unwrap();
    assert_eq!(stream.stopped(), Some(0));
}

#[test]
fn after_a_stop_string_nothing_comes() {
    let tokenizer = llama();
    let mut stream = TextStream::new(&tokenizer, &[String::from("b")], &[]).unwrap();
    let [a, b] = [3, 4];
    assert_eq!(stream.push(a).unwrap(), Piece { text: "a".into(), stopped: None });
    assert_eq!(stream.push(b).unwrap(), Piece { text: String::new(), stopped: Some(0) });
    assert_eq!(stream.push(a).unwrap(), Piece { text: String::new(), stopped: Some(0) });
    assert_eq!(stream.finish().unwrap(), "");
}

#[test]
fn a_leading_space_is_the_answers_unless_the_text_begins_there() {
    for tokenizer in [llama(), metaspace()] {
        let word = ids(&tokenizer, &["▁ab", "▁a"]);
        assert_eq!(streamed(&tokenizer, &[], &ids(&tokenizer, &["</s>"]), &word).0, "ab a");
        assert_eq!(streamed(&tokenizer, &[], &ids(&tokenizer, &["▁a", "</s>"]), &word).0, " ab a");
    }
}

/// The prompt ends inside a character that the answer completes: no text of the answer alone exists, the
/// character is it.
#[test]
fn a_character_begun_by_the_prompt_is_the_answers() {
    let tokenizer = byte_level();
    let id = |piece: &[u8]| PIECES.iter().position(|known| *known == piece).unwrap() as u32 + 1;
    let prompt = [id(b"a"), id(b"x\xE5"), id(b"\x8F")];
    assert_eq!(streamed(&tokenizer, &[], &prompt, &[id(b"\xABy"), id(b"b")]).0, "叫yb");
    let prompt = [id(b"a"), id(b"\xF0"), id(b"\x9F"), id(b"\x98")];
    assert_eq!(streamed(&tokenizer, &[], &prompt, &[id(b"\x80"), id(b"b")]).0, "😀b");
}

#[test]
fn work_per_token_is_bounded() {
    let (bytes, fallback) = (byte_level(), llama());
    let lone = |piece: &[u8]| vec![PIECES.iter().position(|known| *known == piece).unwrap() as u32 + 1];
    let e = byte_ids(&fallback, "é".as_bytes());
    let cases: [(&Tokenizer, Vec<u32>); 8] = [
        (&bytes, lone(b"a")),
        (&bytes, lone(b"\xFF")),
        (&bytes, lone(b"\x80")),
        (&bytes, lone(b"\xEF\xBF\xBD")),
        (&bytes, [lone(b"\xE0"), lone(b"\xE5"), lone(b"\x8F")].concat()),
        (&fallback, e.clone()),
        (&fallback, e[1..].to_vec()),
        (&fallback, ids(&fallback, &["▁", "\u{FFFD}"])),
    ];
    for (tokenizer, pattern) in cases {
        let mut stream = TextStream::new(tokenizer, &[String::from("never")], &[]).unwrap();
        for &token in pattern.iter().cycle().take(2_000) {
            stream.push(token).unwrap();
            assert!(stream.window.ids.len() <= 10 && stream.window.full.len() <= 40, "{:?}", stream.window);
        }
        let all: Vec<u32> = pattern.iter().copied().cycle().take(2_000).collect();
        assert_eq!(streamed(tokenizer, &[], &[], &all).0, tokenizer.decode(&all, true).unwrap());
    }
}

#[test]
fn an_owned_stream_moves_to_another_thread() {
    let mut stream = TextStream::new(Arc::new(llama()), &[], &[]).unwrap();
    let text = std::thread::spawn(move || stream.push(5).unwrap().text).join().unwrap();
    assert_eq!(text, "ab");
}

#[test]
fn an_empty_stop_string_is_refused() {
    let error = TextStream::new(&llama(), &[String::from("a"), String::new()], &[]).unwrap_err();
    assert_eq!(error.to_string(), "Stop string number 2 is empty and would end every answer at once; leave it out.");
}

/// Expected outcome of a stream with special tokens in its stop texts, found by decoding everything again after every
/// token, with and without special tokens.
fn oracle_with_special(tokenizer: &Tokenizer, stops: &[String], prompt: &[u32], answer: &[u32]) -> Option<Outcome> {
    let special = tokenizer.id_to_token(0).unwrap();
    for tokens in 0..=answer.len() {
        let text = answer_text(tokenizer, prompt, &answer[..tokens])?;
        let all = tokenizer.decode(&[prompt, &answer[..tokens]].concat(), false).unwrap();
        let spelled = all.strip_prefix(&tokenizer.decode(prompt, false).unwrap())?.to_owned();
        let inside = spelled.contains(&format!("{REPLACEMENT}{special}"));
        if inside || spelled.replace(&special, "") != text || text.contains(REPLACEMENT) && tokens == answer.len() {
            // A special token inside of a character, or behind one that is unfinished so far.
            return None;
        }
        let start_of = |stop: &String| {
            if stop.contains(&special) {
                spelled.find(stop.as_str()).map(|start| spelled[..start].replace(&special, "").len())
            } else {
                text.trim_end_matches(REPLACEMENT).find(stop.as_str())
            }
        };
        let first = stops.iter().enumerate().filter_map(|(index, stop)| Some((start_of(stop)?, index))).min();
        if let Some((start, index)) = first {
            return Some((text[..start].to_owned(), Some((tokens, index))));
        }
    }
    Some((answer_text(tokenizer, prompt, answer)?, None))
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 400_000, ..ProptestConfig::with_cases(4000) })]
    #[test]
    fn stop_texts_with_special_tokens_stop_where_the_tokens_are(
        stops in prop::collection::vec(
            prop::sample::select(vec!["<eos>", "a<eos>", "<eos>b", "b<eos>a", "<eos><eos>", "a<eos><eos>", "ab", "b<eos>ab", "x"]).prop_map(String::from),
            1..4,
        ),
        prompt in prop::collection::vec(1_u32..7, 0..3),
        answer in prop::collection::vec(prop_oneof![2 => Just(0_u32), 5 => 1_u32..7, 1 => 7_u32..24], 0..14),
    ) {
        let tokenizer = byte_level();
        let expected = oracle_with_special(&tokenizer, &stops, &prompt, &answer);
        prop_assume!(expected.is_some());
        prop_assert_eq!(Some(streamed(&tokenizer, &stops, &prompt, &answer)), expected);
    }
}

#[test]
fn an_unfinished_character_before_a_special_stop_is_the_answers() {
    let tokenizer = byte_level();
    let unfinished = tokenizer.token_to_id(&byte_level_char(0xE5).to_string()).unwrap();
    let outcome = streamed(&tokenizer, &["<eos>".to_owned()], &[1], &[1, unfinished, 0, 1]);
    assert_eq!(outcome, ("a\u{FFFD}".to_owned(), Some((3, 0))));
    let outcome = streamed(&tokenizer, &["a<eos>".to_owned()], &[1], &[1, unfinished, 0, 1, 0]);
    assert_eq!(outcome, ("a\u{FFFD}".to_owned(), Some((5, 0))));
    let outcome = streamed(&tokenizer, &["<eos>b".to_owned()], &[1], &[1, 0, 1, 0, 2]);
    assert_eq!(outcome, ("aa".to_owned(), Some((5, 0))));
}

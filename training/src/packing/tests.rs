//! Packed rows are documents' rows, in an order that can be resumed.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::tokenizer::{ChatTokenizer, learn, save};
use crate::tokens::{ANSWER, ShardWriter};

/// Token `64 d + i` is at index `i` of document `d`, whose first half is a prompt.
fn shard(folder: &Path, name: &str, lengths: &[usize]) -> Shard {
    let text = "one two three four five six seven eight nine ten\n".repeat(9);
    save(&learn(std::iter::once(text), 280).unwrap(), 64, folder).unwrap();
    let tokenizer = ChatTokenizer::open(folder).unwrap();
    let path = folder.join(name);
    let mut writer = ShardWriter::create(&path, &tokenizer).unwrap();
    for (document, &length) in lengths.iter().enumerate() {
        let tokens: Vec<u16> = (0..length).map(|index| (64 * document + index) as u16).collect();
        let classes: Vec<u8> = (0..length).map(|index| if index < length / 2 { PROMPT } else { ANSWER }).collect();
        writer.push(&tokens, &classes).unwrap();
    }
    writer.finish().unwrap();
    Shard::open(&path, &tokenizer).unwrap()
}

fn drawing(seed: u64) -> Drawing {
    Drawing { seed, prompt_weight: 0.25, curriculum: None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn rows_are_the_documents_rows(
        lengths in prop::collection::vec(2..64usize, 1..30),
        seed: u64,
        length in 1..80usize,
        before in 0..4usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let shard = shard(dir.path(), "a", &lengths);
        let sources = [Source { name: "a", shard: &shard, weight: 1.0 }];
        let mut packer = Packer::new(&sources, drawing(seed), PackingState::default());
        for _ in 0..before {
            packer.next(2, length, 0.5);
        }
        let stopped = packer.state().clone();
        let sample = packer.next(3, length, 0.5);
        // Going on from where it stood gives the same.
        let stored: PackingState = serde_json::from_str(&serde_json::to_string(&stopped).unwrap()).unwrap();
        let again = Packer::new(&sources, drawing(seed), stored).next(3, length, 0.5);
        prop_assert_eq!(again.batch.tokens(), sample.batch.tokens());
        prop_assert_eq!(&again.targets, &sample.targets);
        prop_assert_eq!(&again.weights, &sample.weights);
        prop_assert_eq!(sample.batch.tokens().len(), 3 * length);
        for (row, (&token, &target)) in sample.batch.tokens().iter().zip(&sample.targets).enumerate() {
            let (document, index) = (token as usize / 64, token as usize % 64);
            if sample.weights[row] == 0.0 {
                prop_assert_eq!((token, target), (0, 0)); // padding
                continue;
            }
            prop_assert_eq!(target, token + 1);
            let learned = if index + 1 < lengths[document] / 2 { 0.25 } else { 1.0 };
            prop_assert_eq!(sample.weights[row], learned);
            // A document begins at its first token, in its own sequence.
            prop_assert_eq!(row % length - sample.batch.starts()[row] as usize, index);
        }
    }
}

#[test]
fn every_document_comes_before_one_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), "a", &[9; 50]);
    let sources = [Source { name: "a", shard: &shard, weight: 1.0 }];
    let mut packer = Packer::new(&sources, drawing(3), PackingState::default());
    // 8 rows each: 25 documents fill a sequence, and two sequences are a pass.
    let mut passes = Vec::new();
    for _ in 0..3 {
        let sample = packer.next(2, 25 * 8, 0.0);
        let order: Vec<u32> = sample.batch.tokens().iter().step_by(8).map(|token| token / 64).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<u32>>());
        passes.push(order);
    }
    assert!(passes[0] != passes[1] && passes[1] != passes[2], "every pass has an order of its own");
}

#[test]
fn shares_are_shares_of_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let (short, long) = (shard(dir.path(), "short", &[5; 40]), shard(dir.path(), "long", &[61; 40]));
    let sources =
        [Source { name: "short", shard: &short, weight: 3.0 }, Source { name: "long", shard: &long, weight: 1.0 }];
    let mut packer = Packer::new(&sources, drawing(1), PackingState::default());
    let (mut behind_fourth, mut rows) = (0, 0);
    for _ in 0..60 {
        let sample = packer.next(2, 600, 0.0);
        behind_fourth += sample.batch.tokens().iter().filter(|&token| token % 64 > 3).count();
        rows += sample.batch.tokens().len();
    }
    // Short documents have 4 rows of 5 tokens; of a long one's 60 rows of 61 tokens, 56 are behind the fourth.
    let long_rows = behind_fourth as f64 * 60.0 / 56.0;
    let (long, short) = (long_rows * 61.0 / 60.0, (rows as f64 - long_rows) * 5.0 / 4.0);
    let share = long / (long + short);
    assert!((share - 0.25).abs() < 0.03, "{share}");
}

#[test]
fn weights_can_change_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (shard(dir.path(), "first", &[9; 40]), shard(dir.path(), "second", &[17; 40]));
    let sources =
        [Source { name: "first", shard: &first, weight: 1.0 }, Source { name: "second", shard: &second, weight: 0.0 }];
    let mut packer = Packer::new(&sources, drawing(5), PackingState::default());
    let mut of_second = || {
        let sample = packer.next(2, 400, 0.0);
        let of_second = sample.batch.tokens().iter().any(|token| token % 64 > 8);
        packer.weigh(&BTreeMap::from([("second".to_owned(), 1.0)]));
        of_second
    };
    assert_eq!([of_second(), of_second()], [false, true]);
    packer.weigh(&BTreeMap::new());
    // What was drawn before and waits for room comes first.
    packer.next(2, 400, 0.0);
    assert!(packer.next(2, 400, 0.0).batch.tokens().iter().all(|token| token % 64 <= 8));
}

#[test]
fn short_documents_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let lengths: Vec<usize> = (0..60).map(|document| 4 + document).collect();
    let shard = shard(dir.path(), "a", &lengths);
    let sources = [Source { name: "a", shard: &shard, weight: 1.0 }];
    let curriculum = Some(Curriculum { from: 10, until: 0.5 });
    let longest = |done: f64| {
        let drawing = Drawing { curriculum, ..drawing(7) };
        let mut packer = Packer::new(&sources, drawing, PackingState::default());
        let samples = (0..20).map(|_| packer.next(2, 64, done));
        samples.flat_map(|sample| sample.batch.tokens().to_vec()).map(|token| lengths[token as usize / 64]).max()
    };
    assert_eq!(longest(0.0), Some(10));
    assert!((10..=37).contains(&longest(0.25).unwrap()));
    assert_eq!(longest(0.5), Some(63));
}

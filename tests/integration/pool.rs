//! Steps over pages: whatever sequences share a step and a pool, and in whichever pages they lie, each has the bits that it has
//! alone.

use std::sync::Arc;

use burn::tensor::Device;
use paceline::model::{Compute, Decoder, KvPool, PoolError, SlotId, Step, Track, Vocabulary, Want};
use proptest::prelude::*;

use super::properties::bits;
use super::support::{Numbers, decoder, decoder_on, fixture, random_checkpoint, random_model};

/// A sequence in a shared pool beside the tokens that it holds.
struct Text {
    track: Track,
    tokens: Vec<u32>,
}

/// The logits of every token of a text, alone in a pool of its own, one token at a time.
fn alone(decoder: &Arc<Decoder>, tokens: &[u32]) -> Vec<Vec<u32>> {
    let mut sequence = paceline::model::Sequence::new(Arc::clone(decoder), decoder.config().context);
    tokens.iter().map(|token| bits(sequence.verify(&[*token]).row(0))).collect()
}

/// Runs the next tokens of some texts in one step and compares all logits with those of each text alone.
fn advance(decoder: &Arc<Decoder>, plain: &Arc<Decoder>, kv: &mut KvPool, texts: &mut [(&mut Text, Vec<u32>)]) {
    let rows = texts.iter_mut().map(|(text, tokens)| text.track.rows(tokens.clone(), Want::All, kv).unwrap()).collect();
    let step = Step { rows, depth: decoder.layer_count(), skip: None, taps: &[], vocabulary: Vocabulary::Whole };
    let output = decoder.run(&step, kv);
    for (part, (text, tokens)) in texts.iter_mut().enumerate() {
        text.track.commit(tokens.len());
        text.tokens.append(tokens);
        let expected = alone(plain, &text.tokens);
        let new = step.rows[part].tokens.len();
        for (row, expected) in expected[text.tokens.len() - new..].iter().enumerate() {
            assert_eq!(&bits(output.logits(part, row)), expected, "row {row} of {:?}", text.tokens);
        }
    }
}

/// A few random sequences in one pool: read in common steps, forked, cut, ended.
fn random_traffic(numbers: &mut Numbers, decoder: &Arc<Decoder>, plain: &Arc<Decoder>) {
    let (vocabulary, context) = (decoder.config().vocab_size, decoder.config().context);
    let mut kv = decoder.new_pool(usize::MAX);
    let mut texts: Vec<Text> = Vec::new();
    for _ in 0..14 {
        match numbers.within(0..7) {
            0 if texts.len() < 6 => texts.push(Text { track: Track::open(&mut kv, context), tokens: Vec::new() }),
            1 if !texts.is_empty() && texts.len() < 6 => {
                let of = numbers.within(0..texts.len());
                let shared = numbers.within(0..texts[of].tokens.len() + 1);
                let track = texts[of].track.fork(shared, &mut kv);
                let tokens = texts[of].tokens[..shared].to_vec();
                texts.push(Text { track, tokens });
            }
            2 if texts.len() > 1 => texts.remove(numbers.within(0..texts.len())).track.close(&mut kv),
            3 if !texts.is_empty() => {
                let of = numbers.within(0..texts.len());
                let text = &mut texts[of];
                text.tokens.truncate(numbers.within(0..text.tokens.len() + 1));
                text.track.truncate(text.tokens.len(), &mut kv);
            }
            _ => {
                let mut next: Vec<(&mut Text, Vec<u32>)> = Vec::new();
                for text in &mut texts {
                    let room = (context - text.tokens.len()).min(90);
                    if room > 0 && numbers.within(0..4) > 0 {
                        let count = numbers.within(1..room + 1);
                        let tokens = (0..count).map(|_| numbers.within(0..vocabulary) as u32).collect();
                        next.push((text, tokens));
                    }
                }
                if !next.is_empty() {
                    advance(decoder, plain, &mut kv, &mut next);
                }
            }
        }
        let held: usize = texts.iter().map(|text| KvPool::pages_for(text.tokens.len())).sum();
        assert!(kv.used_pages() <= held + 6 * texts.len().max(1), "{} pages for {held}", kv.used_pages());
    }
    texts.into_iter().for_each(|text| text.track.close(&mut kv));
    assert_eq!(kv.used_pages(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn company_forks_and_pages_change_no_bit(seed in any::<u64>()) {
        let mut numbers = Numbers(seed);
        let (plain, other, _, _) = random_model(&mut numbers);
        random_traffic(&mut numbers, &other, &plain);
    }
}

/// On burn's operations rows of a step are not the same bits as alone, so only nearly the same is asked.
#[test]
fn the_reference_runs_steps_of_several_sequences_too() {
    let decoder = decoder_on(&fixture("llama-tied"), &Compute::Burn(Device::flex()));
    let mut kv = decoder.new_pool(usize::MAX);
    let texts: [&[u32]; 3] = [&[5, 4, 3, 2, 1, 0, 7], &[1], &[9, 9, 8, 9]];
    let mut tracks: Vec<Track> = texts.iter().map(|_| Track::open(&mut kv, 0)).collect();
    let rows =
        tracks.iter_mut().zip(texts).map(|(track, text)| track.rows(text.to_vec(), Want::Last, &mut kv).unwrap());
    let rows = rows.collect();
    let step = Step { rows, depth: decoder.layer_count(), skip: None, taps: &[], vocabulary: Vocabulary::Whole };
    let output = decoder.run(&step, &mut kv);
    for (part, text) in texts.iter().enumerate() {
        let expected = paceline::model::Sequence::new(Arc::clone(&decoder), 16).next_logits(text);
        let apart = output.logits(part, 0).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "{apart}");
    }
}

#[test]
fn a_pool_has_no_more_pages_than_it_may_and_gives_them_again() {
    let decoder = decoder_on(&fixture("llama-tied"), &Compute::open("cpu".parse().unwrap(), 1).unwrap());
    let mut kv = decoder.new_pool(3);
    let (first, second) = (kv.open(0), kv.open(0));
    kv.reserve(first, 100).unwrap();
    kv.reserve(second, 64).unwrap();
    assert_eq!(kv.reserve(second, 65), Err(PoolError::Full { pages: 3 }));
    assert_eq!(kv.used_pages(), 3);
    kv.close(first);
    kv.reserve(second, 65).unwrap();
    kv.close(second);
    assert_eq!(kv.used_pages(), 0);
}

/// What lies before a window is given back, and what comes later does not change.
#[test]
fn pages_before_a_window_are_given_back_and_no_bit_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (seed, _) = (0..)
        .map(|seed| (seed, random_checkpoint(directory.path(), &mut Numbers(seed))))
        .find(|(_, description)| description.contains("mistral"))
        .unwrap();
    let decoder = decoder(directory.path(), 2);
    let window = (0..decoder.layer_count()).filter_map(|layer| decoder.config().window(layer)).max().unwrap();
    let vocabulary = decoder.config().vocab_size;
    println!("seed {seed}, a window of {window}");
    let text: Vec<u32> = (0..300).map(|place| (place * 7 % vocabulary) as u32).collect();
    let expected = alone(&decoder, &text);
    let mut kv = decoder.new_pool(usize::MAX);
    let mut track = Track::open(&mut kv, 0);
    for (place, chunk) in text.chunks(20).enumerate() {
        let rows = track.rows(chunk.to_vec(), Want::All, &mut kv).unwrap();
        let step = Step {
            rows: vec![rows],
            depth: decoder.layer_count(),
            skip: None,
            taps: &[],
            vocabulary: Vocabulary::Whole,
        };
        let output = decoder.run(&step, &mut kv);
        for row in 0..chunk.len() {
            assert_eq!(bits(output.logits(0, row)), expected[20 * place + row]);
        }
        track.commit(chunk.len());
        let slot: SlotId = track.slot();
        kv.drop_before(slot, (track.len() + 1).saturating_sub(window));
        assert!(kv.used_pages() <= 3, "{} pages", kv.used_pages());
    }
}

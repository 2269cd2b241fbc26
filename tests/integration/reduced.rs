//! A model of which less runs: without some parts, and above an exit without tokens that left there.

use std::sync::Arc;

use burn::tensor::Device;
use paceline::model::importance::block_influence;
use paceline::model::{Compute, Decoder, SelfDraft, Sequence};
use proptest::prelude::*;

use crate::support::{Numbers, decoder, decoder_on, random_checkpoint, random_model, random_plan, with_zeros};

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// When the caches above an exit get something of the tokens that left there changes no bit, with or without some parts of
    /// the model. Above the last exit there is one layer, whose input is the exit's state: nothing is lost there at all.
    #[test]
    fn copies_do_not_depend_on_when_they_are_made(seed: u64) {
        let mut numbers = Numbers(seed);
        let (plain, other, _, description) = random_model(&mut numbers);
        let (vocabulary, layers) = (plain.config().vocab_size, plain.layer_count());
        let skip = (numbers.within(0..2) == 0).then(|| random_plan(&mut numbers, layers));
        let text: Vec<u32> = (0..numbers.within(10..90)).map(|_| numbers.within(0..vocabulary) as u32).collect();
        let depth = numbers.within(1..layers);
        let mut one_by_one = Sequence::new(plain.clone(), text.len()).without(skip.clone());
        let mut deep = Sequence::new(plain, text.len()).without(skip.clone());
        let mut early = Sequence::new(other, text.len()).without(skip.clone());
        let mut at = 0;
        while at < text.len() {
            let waiting = numbers.within(0..18).min(text.len() - at - 1);
            let (left, last) = text[at..at + waiting + 1].split_at(waiting);
            for token in left {
                let expected = one_by_one.leave_early(*token, depth).unwrap();
                one_by_one.propagate(1);
                let found = early.leave_early(*token, depth).unwrap();
                prop_assert_eq!(&found, &expected, "{}, {:?}", description, skip);
            }
            // The next one may have run ahead as well.
            if numbers.within(0..2) == 0 {
                early.leave_early(last[0], depth);
            }
            early.propagate(waiting);
            let found = early.next_logits(last);
            prop_assert_eq!(&found, &one_by_one.next_logits(last), "{}, {:?}", description, skip);
            deep.prefill(left, 64, |_| true);
            if depth == layers - 1 {
                prop_assert_eq!(&found, &deep.next_logits(last), "{}, {:?}", description, skip);
            } else {
                deep.prefill(last, 64, |_| true);
            }
            at += waiting + 1;
        }
        prop_assert_eq!(early.len(), text.len());
        prop_assert_eq!(early.cache_bytes(), deep.cache_bytes());
    }

    /// What is made of an exit's state is what burn's operations make of it.
    #[test]
    fn copies_agree_with_burns_operations(seed: u64) {
        let mut numbers = Numbers(seed);
        let directory = tempfile::tempdir().unwrap();
        let description = random_checkpoint(directory.path(), &mut numbers);
        let kernels = decoder(directory.path(), 2);
        let composed = decoder_on(directory.path(), &Compute::Burn(Device::flex()));
        let (vocabulary, layers) = (kernels.config().vocab_size, kernels.layer_count());
        let text: Vec<u32> = (0..20).map(|_| numbers.within(0..vocabulary) as u32).collect();
        let depth = numbers.within(1..layers);
        let skip = (numbers.within(0..2) == 0).then(|| random_plan(&mut numbers, layers));
        let run = |decoder: Arc<Decoder>| {
            let mut sequence = Sequence::new(decoder, text.len()).without(skip.clone());
            sequence.prefill(&text[..5], 9, |_| true);
            let mut found = Vec::new();
            for part in [5..9, 9..10, 10..16] {
                for token in &text[part.clone()] {
                    found.extend(sequence.leave_early(*token, depth).unwrap());
                }
                sequence.propagate(part.len() - 1);
                found.extend(sequence.next_logits(&text[part.end - 1..part.end]));
            }
            found
        };
        let (ours, theirs) = (run(kernels), run(composed));
        let largest = theirs.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max);
        prop_assert!(apart < 5e-5, "{}: {}", apart, description);
    }

    /// A model without some parts is the same on every way through it, and what a view through the whole model computes.
    #[test]
    fn a_model_without_some_parts_is_one_model(seed: u64) {
        let mut numbers = Numbers(seed);
        let directory = tempfile::tempdir().unwrap();
        let description = random_checkpoint(directory.path(), &mut numbers);
        let target = decoder(directory.path(), 1);
        let (vocabulary, layers) = (target.config().vocab_size, target.layer_count());
        let plan = random_plan(&mut numbers, layers);
        let text: Vec<u32> = (0..numbers.within(2..40)).map(|_| numbers.within(0..vocabulary) as u32).collect();
        let mut without = Sequence::new(target.clone(), text.len()).without(Some(plan.clone()));
        let found: Vec<f32> = text.iter().flat_map(|token| without.verify(&[*token]).into_logits()).collect();

        let mut whole = Sequence::new(target.clone(), text.len());
        let view = Arc::new(SelfDraft::new(target, Some(plan.clone())));
        prop_assert_eq!(&found, &whole.draft_through(&view, &text).unwrap(), "{}: {}", plan, description);

        // The description in burn's operations.
        let composed = decoder_on(directory.path(), &Compute::Burn(Device::flex()));
        let expected = Sequence::new(composed, text.len()).without(Some(plan.clone())).verify(&text).into_logits();
        let largest = expected.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max);
        prop_assert!(apart < 5e-5, "{}: {}: {}", apart, plan, description);
    }
}

#[test]
fn a_layer_that_does_nothing_matters_least() {
    for layer in 0..3 {
        let zeros = ["self_attn.o_proj", "mlp.down_proj"].map(|part| format!("model.layers.{layer}.{part}.weight"));
        let target = decoder(with_zeros("llama-tied", &zeros).path(), 2);
        let texts = [vec![3, 9, 41, 8], vec![], (5..60).collect()];
        let influence = block_influence(&target, &texts);
        for (index, influence) in influence.iter().enumerate() {
            assert_eq!(influence.abs() < 1e-6, index == layer, "{influence} of {index} where {layer} does nothing");
            assert!((-1e-6..2.0).contains(influence));
        }
        assert_eq!(block_influence(&target, &[]), [0.0; 3]);
    }
}

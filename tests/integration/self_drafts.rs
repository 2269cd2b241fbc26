//! Drafting through another view of the target: what a view computes, and the search for plans.

use std::sync::Arc;

use paceline::drafters::skip_search::{SkipSearch, write_texts};
use paceline::model::{SelfDraft, Sequence, SkipPlan};
use proptest::prelude::*;

use crate::support::{Numbers, decoder, fixture, random_model, random_plan, with_zeros};

fn view(sequence: &Sequence, plan: &str) -> Arc<SelfDraft> {
    Arc::new(SelfDraft::new(sequence.decoder().clone(), Some(plan.parse().unwrap())))
}

/// What a sublayer adds nothing to the stream is skipped for nothing: the same bits, wherever it stands, so that the
/// other layers meet the right positions, rotations and keys.
#[test]
fn skipping_what_adds_nothing_changes_no_bit() {
    for (plan, zeros) in [
        ("a0", &["layers.0.self_attn.o_proj"][..]),
        ("m0", &["layers.0.mlp.down_proj"]),
        ("0", &["layers.0.self_attn.o_proj", "layers.0.mlp.down_proj"]),
        ("a0,m1", &["layers.0.self_attn.o_proj", "layers.1.mlp.down_proj"]),
        ("a0,a1,a2", &["layers.0.self_attn.o_proj", "layers.1.self_attn.o_proj", "layers.2.self_attn.o_proj"]),
        ("2", &["layers.2.self_attn.o_proj", "layers.2.mlp.down_proj"]),
    ] {
        let zeros: Vec<String> = zeros.iter().map(|name| format!("model.{name}.weight")).collect();
        let directory = with_zeros("llama-tied", &zeros);
        let decoder = decoder(directory.path(), 2);
        let text: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 350).collect();
        let mut whole = Sequence::new(decoder.clone(), 64);
        let mut drafting = Sequence::new(decoder, 64);
        let view = view(&drafting, plan);
        whole.prefill(&text[..20], 7, |_| true);
        drafting.prefill(&text[..20], 20, |_| true);
        // Several steps ahead, of one and of more rows, then settled and ahead again.
        for (from, to, settle) in [(20, 21, false), (21, 25, false), (25, 26, true), (26, 40, false)] {
            let expected = whole.verify(&text[from..to]).into_logits();
            assert_eq!(drafting.draft_through(&view, &text[from..to]), Some(expected), "skip:{plan}, {from}..{to}");
            if settle {
                drafting.verify(&text[20..to]);
            }
        }
    }
}

#[test]
fn a_view_drafts_no_further_than_there_is_room() {
    let decoder = decoder(&fixture("llama-tied"), 1);
    // Where every attention is skipped, no layer tells how far the draft is.
    for plan in ["a0", "m1", "a0,a1,a2"] {
        let mut sequence = Sequence::new(decoder.clone(), 8);
        let view = view(&sequence, plan);
        sequence.verify(&[3, 1]);
        assert_eq!((0..20).filter(|_| sequence.draft_through(&view, &[4]).is_some()).count(), 6, "skip:{plan}");
        assert!(sequence.draft_early(4, 1).is_some(), "another way ahead forgets the first");
        assert!(sequence.draft_through(&view, &[1; 7]).is_none() && sequence.draft_through(&view, &[1; 6]).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A draft through a view is the same bits token by token or in one, and whatever ran ahead before.
    #[test]
    fn a_views_logits_do_not_depend_on_the_way(seed: u64) {
        let mut numbers = Numbers(seed);
        let (plain, other, rounded, description) = random_model(&mut numbers);
        let vocabulary = plain.config().vocab_size;
        let text: Vec<u32> = (0..numbers.within(2..40)).map(|_| numbers.within(0..vocabulary) as u32).collect();
        let (known, draft) = text.split_at(numbers.within(0..text.len()));
        let layers = plain.layer_count();
        let plan = random_plan(&mut numbers, layers);
        let view = Arc::new(SelfDraft::new(rounded, Some(plan.clone())));
        let mut at_once = Sequence::new(plain, text.len());
        at_once.prefill(known, 9, |_| true);
        let expected = at_once.draft_through(&view, draft).unwrap();

        let mut by_token = Sequence::new(other, text.len());
        by_token.prefill(known, 100, |_| true);
        by_token.draft_early(0, numbers.within(1..layers));
        let mut found = Vec::new();
        for token in draft {
            found.extend(by_token.draft_through(&view, &[*token]).unwrap());
        }
        prop_assert_eq!(found, expected, "skip:{}, {}", plan, description);
    }
}

/// The search finds what does nothing first, before it gives up agreement for speed.
#[test]
fn the_search_finds_the_layer_that_does_nothing() {
    for layer in 0..3 {
        let zeros = ["self_attn.o_proj", "mlp.down_proj"].map(|part| format!("model.layers.{layer}.{part}.weight"));
        let directory = with_zeros("llama-tied", &zeros);
        let target = decoder(directory.path(), 2);
        let texts = write_texts(&target, &[1], 200).unwrap();
        // As if verification cost nothing more by its rows, so that no timing decides.
        let search = SkipSearch::new(&target, texts, |_| 1.0).unwrap();
        assert!(search.positions() >= 150, "{}", search.positions());
        let mut last = (0, 0, 0);
        let path = search.run(&mut |skipped, done, total| {
            assert!(skipped >= last.0 && done <= total && total == search.positions());
            last = (skipped, done, total);
        });
        assert!(path.len() >= 2 && path[0].speedup > 1.0, "{path:?}");
        assert_eq!(path[1].plan, layer.to_string().parse::<SkipPlan>().unwrap(), "{path:?}");
        assert!(path[..2].iter().all(|step| step.agreement == 1.0 && step.cost < 1.0), "{path:?}");
        assert!(path.windows(2).all(|pair| pair[1].speedup > pair[0].speedup && pair[1].cost < pair[0].cost));
    }
}

/// Where verifying a row costs as much as a plain step, no draft can pay, and the search says so.
#[test]
fn where_verification_is_dear_no_plan_pays() {
    let target = decoder(&fixture("llama-tied"), 2);
    let texts = write_texts(&target, &[1], 100).unwrap();
    let path = SkipSearch::new(&target, texts, |rows| rows as f64).unwrap().run(&mut |_, _, _| {});
    assert!(!path.is_empty() && path.iter().all(|step| step.speedup < 1.0), "{path:?}");
}

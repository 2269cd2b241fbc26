//! What drafting by early exit costs: counted, not claimed.

use paceline::drafters::exit::ExitDrafter;
use paceline::model::Sequence;
use paceline::sampling::SamplingConfig;
use paceline::speculation::DraftLength;

use crate::support::{Outcome, Task, decoder, fixture};

/// A round of `k` drafted tokens runs every layer once for each of its `k + 1` rows, draft included.
#[test]
fn a_round_costs_k_plus_one_times_l_layer_evaluations() {
    let decoder = decoder(&fixture("qwen3-qknorm"), 1);
    let layers = decoder.layer_count();
    let prompt = [5, 9, 2, 77, 31, 8];
    for depth in 1..layers {
        for length in [1, 4, 8, 16] {
            let task = Task { prompt: &prompt, new_tokens: 60, sampling: SamplingConfig::default() };
            let drafter = Box::new(ExitDrafter::new(depth, 1.0));
            let Outcome { rounds, layer_evaluations, .. } =
                task.speculative(&decoder, vec![drafter], DraftLength::Fixed(length));
            let rows: usize = rounds.iter().map(|round| round.drafted + 1).sum();
            assert!(rounds.iter().any(|round| round.drafted == length));
            let prefill = prompt.len() - 1;
            assert_eq!(layer_evaluations, ((prefill + rows) * layers) as u64, "exit:{depth}, {length} drafted");
        }
    }
}

/// A drafter that does not stop finds the end of the sequence's room, and what it left there does no harm.
#[test]
fn layers_run_ahead_no_further_than_there_is_room() {
    let decoder = decoder(&fixture("qwen3-qknorm"), 1);
    let mut ahead = Sequence::new(decoder.clone(), 8);
    ahead.verify(&[3, 1]);
    let run = (0..20).filter(|_| ahead.draft_early(4, 2).is_some()).count();
    assert_eq!(run, 6);
    assert!(ahead.draft_early(4, 1).is_some(), "another depth forgets what ran ahead");
    let mut fresh = Sequence::new(decoder, 8);
    fresh.verify(&[3, 1]);
    assert_eq!(ahead.verify(&[5, 4]).into_logits(), fresh.verify(&[5, 4]).into_logits());
}

/// Running ahead for other tokens than are verified costs those layers again, and nothing else changes.
#[test]
fn layers_that_ran_for_other_tokens_are_run_again() {
    let decoder = decoder(&fixture("qwen3-qknorm"), 1);
    let layers = decoder.layer_count() as u64;
    let mut ahead = Sequence::new(decoder.clone(), 32);
    ahead.draft_early(3, 2);
    ahead.draft_early(4, 2);
    let logits = ahead.verify(&[3, 5]).into_logits();
    assert_eq!(ahead.layer_evaluations(), 2 * 2 + 2 * layers);
    assert_eq!(logits, Sequence::new(decoder, 32).verify(&[3, 5]).into_logits());
}

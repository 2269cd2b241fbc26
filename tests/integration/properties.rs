//! Exactness as properties over random models of every family, shape and precision.

use std::sync::Arc;

use paceline::drafters::Drafter;
use paceline::drafters::exit::ExitDrafter;
use paceline::drafters::lookup::LookupDrafter;
use paceline::drafters::model::ModelDrafter;
use paceline::drafters::self_draft::SelfDrafter;
use paceline::model::{Decoder, SelfDraft, Sequence};
use paceline::sampling::SamplingConfig;
use paceline::speculation::{DraftLength, MAX_DRAFT};
use proptest::prelude::*;

use crate::support::{Chaos, Numbers, Task, random_model, random_plan};

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However a text gets into the cache (chunks, rows that are rolled back, layers that ran ahead), the
    /// logits after it are those of feeding it token by token on one thread.
    #[test]
    fn logits_do_not_depend_on_the_way(seed: u64) {
        let mut numbers = Numbers(seed);
        let (plain, other, rounded, description) = random_model(&mut numbers);
        let vocabulary = plain.config().vocab_size;
        let text: Vec<u32> = (0..numbers.within(20..120)).map(|_| numbers.within(0..vocabulary) as u32).collect();

        let mut one_by_one = Sequence::new(plain, text.len() + 17);
        let expected: Vec<Vec<u32>> = text.iter().map(|token| bits(&one_by_one.verify(&[*token]).into_logits())).collect();

        let mut sequence = Sequence::new(other.clone(), text.len() + 17);
        let layers = sequence.decoder().layer_count();
        let plan = random_plan(&mut numbers, layers);
        let views = [(rounded.clone(), None), (other, Some(plan.clone())), (rounded, Some(plan))];
        let views = views.map(|(decoder, skip)| Arc::new(SelfDraft::new(decoder, skip)));
        let mut at = 0;
        while at < text.len() {
            // Something that will be rolled back.
            if numbers.within(0..3) == 0 {
                let junk: Vec<u32> = (0..numbers.within(1..17)).map(|_| numbers.within(0..vocabulary) as u32).collect();
                sequence.verify(&junk);
                sequence.truncate(at);
            }
            // Drafts through views, whose traces in the cache have to go.
            while numbers.within(0..3) == 0 {
                let draft: Vec<u32> = (0..numbers.within(1..5)).map(|_| numbers.within(0..vocabulary) as u32).collect();
                sequence.draft_through(&views[numbers.within(0..3)], &draft);
            }
            let rows = &text[at..(at + numbers.within(1..60)).min(text.len())];
            match numbers.within(0..3) {
                0 => prop_assert_eq!(sequence.prefill(rows, numbers.within(1..64), |_| true), rows.len()),
                kind => {
                    let rows = &rows[..rows.len().min(17)];
                    // Lower layers may run ahead, for all or some of the rows, or for tokens that turn out otherwise.
                    if kind == 1 {
                        let depth = numbers.within(1..layers);
                        for token in &rows[..numbers.within(0..rows.len() + 1)] {
                            let ahead = if numbers.within(0..12) == 0 { 0 } else { *token };
                            sequence.draft_early(ahead, depth);
                        }
                    }
                    let verified = sequence.verify(rows);
                    for row in 0..rows.len() {
                        prop_assert_eq!(&bits(verified.row(row)), &expected[at + row], "row {} at {}: {}", row, at, description);
                    }
                    at += rows.len();
                    // Sometimes a part of it is refused.
                    let kept = at - numbers.within(0..rows.len());
                    sequence.truncate(kept);
                    at = kept;
                    continue;
                }
            }
            at += rows.len();
        }
    }

    /// Whatever drafts, the loop's tokens are those of plain decoding.
    #[test]
    fn tokens_do_not_depend_on_the_draft(seed: u64) {
        let mut numbers = Numbers(seed);
        let (plain, other, rounded, description) = random_model(&mut numbers);
        let vocabulary = plain.config().vocab_size;
        let prompt: Vec<u32> = (0..numbers.within(1..40)).map(|_| numbers.within(0..vocabulary) as u32).collect();
        let sampling = SamplingConfig {
            temperature: numbers.choose(&[0.0, 0.7, 1.0, 1.5]),
            top_k: numbers.choose(&[0, 0, 3, 20]),
            top_p: numbers.choose(&[1.0, 1.0, 0.9, 0.5]),
            min_p: numbers.choose(&[0.0, 0.0, 0.1]),
            repetition_penalty: numbers.choose(&[1.0, 1.0, 1.3]),
            presence_penalty: numbers.choose(&[0.0, 0.0, 0.5]),
            seed: numbers.next(),
        };
        let task = Task { prompt: &prompt, new_tokens: numbers.within(1..60), sampling };
        let expected = task.plain(&plain);

        let capacity = prompt.len() + task.new_tokens + 17;
        let right = [&prompt[..], &expected].concat();
        let chaos: Box<dyn Drafter> = Box::new(Chaos { numbers: Numbers(numbers.next()), right, vocabulary, layers: plain.layer_count(), asked: 0 });
        // The model drafts for itself: the best draft there is, and a second cache to keep in step.
        let itself = Box::new(ModelDrafter::new(plain.clone(), capacity));
        let plan = random_plan(&mut numbers, plain.layer_count());
        let description = format!("{description}, skip:{plan}");
        let view = |decoder: &Arc<Decoder>, skip| Box::new(SelfDrafter::new(SelfDraft::new(decoder.clone(), skip)));
        let exit = Box::new(ExitDrafter::new(numbers.within(1..plain.layer_count()), 0.5));
        let drafters: [(&str, Box<dyn Drafter>); 8] = [
            ("chaos", chaos),
            ("itself", itself),
            ("itself over one cache", view(&plain, None)),
            ("rounded", view(&rounded, None)),
            ("in part", view(&other, Some(plan.clone()))),
            ("rounded in part", view(&rounded, Some(plan))),
            ("exit", exit),
            ("lookup", Box::new(LookupDrafter::new())),
        ];
        for (name, drafter) in drafters {
            let length = DraftLength::Fixed(numbers.within(1..17));
            let length = numbers.choose(&[length, length, DraftLength::Auto]);
            let stop_tokens: Vec<u32> = (0..numbers.within(0..5)).map(|_| numbers.within(0..vocabulary) as u32).collect();
            let outcome = task.speculative_without(None, &stop_tokens, &other, vec![drafter], length);
            let (tokens, rounds) = (outcome.tokens, outcome.rounds);
            prop_assert_eq!(&tokens, &expected, "{} with {:?}, {:?}: {}", name, length, task.sampling, description);
            let mut at = 0;
            for round in &rounds {
                // Of a draft all is kept, or looked at up to what is not; a stop token has nothing behind it.
                prop_assert!(round.tokens <= round.accepted + 1 && round.evaluated <= round.drafted);
                let kept = &tokens[at..at + round.accepted];
                let stop = kept.iter().position(|token| stop_tokens.contains(token));
                prop_assert!(stop.is_none_or(|stop| stop + 1 == round.drafted), "{:?}: {}", round, description);
                at += round.tokens;
            }
            if name == "itself" && length != DraftLength::Auto {
                // What it ran for a draft it does not run again, but where the rotation changes: before each draft it reads what
                // the last round brought.
                let read_again = rounds.iter().skip(1).filter(|round| round.backlog > MAX_DRAFT).count();
                let may_read = usize::from(plain.config().longest_short_text().is_some());
                prop_assert!(read_again <= may_read, "{:?}: {}", rounds, description);
            }
            if name.starts_with("itself") {
                // Its drafts are the target's picks, so every one is kept: the coupling holds between models,
                // not only within one.
                prop_assert!(rounds.iter().all(|round| round.accepted == round.drafted), "{:?}: {}", rounds, description);
                // Where the rotation changes, up to two rounds draft nothing.
                let must_draft = tokens.len() >= 5 && length != DraftLength::Auto;
                prop_assert!(!must_draft || rounds.iter().any(|round| round.drafted > 0), "{}", description);
            }
        }
    }
}

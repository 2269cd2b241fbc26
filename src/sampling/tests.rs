//! Penalties, filters and errors of the sampler, against hand-computed cases and an oracle that sorts everything.
#![allow(clippy::unwrap_used, reason = "a test that fails here should stop here")]

use proptest::prelude::*;

use super::*;

fn sampler(change: impl FnOnce(&mut SamplingConfig)) -> Sampler {
    let mut config = SamplingConfig::default();
    change(&mut config);
    Sampler::new(&config).unwrap()
}

/// The ids that can be drawn, likeliest first.
fn kept(sampler: &mut Sampler, logits: &[f32]) -> Vec<u32> {
    sampler.distribution(logits, &[], 0).unwrap().into_iter().map(|(id, _)| id).collect()
}

/// transformers' warpers, as literally as possible: sort everything, drop with ascending cumulative probabilities.
fn oracle(config: &SamplingConfig, logits: &[f32]) -> Vec<(u32, f64)> {
    let softmax = |kept: &[(u32, f64)]| -> Vec<f64> {
        let max = kept.iter().fold(f64::NEG_INFINITY, |max, (_, z)| max.max(*z));
        let weights: Vec<f64> = kept.iter().map(|(_, z)| (z - max).exp()).collect();
        let total: f64 = weights.iter().rev().sum();
        weights.iter().map(|weight| weight / total).collect()
    };
    let temperature = f64::from(config.temperature);
    let mut kept: Vec<(u32, f64)> =
        logits.iter().enumerate().map(|(id, z)| (id as u32, f64::from(*z) / temperature)).collect();
    kept.retain(|(_, z)| z.is_finite());
    // A stable sort, so that equal logits stay in order of id.
    kept.sort_by(|a, b| b.1.total_cmp(&a.1));
    if config.top_k > 0 {
        kept.truncate(config.top_k);
    }
    let probabilities = softmax(&kept);
    let mut ascending = 0.0;
    for position in (1..kept.len()).rev() {
        ascending += probabilities[position];
        if config.top_p < 1.0 && ascending <= 1.0 - f64::from(config.top_p) {
            kept.truncate(position);
        }
    }
    let probabilities = softmax(&kept);
    let mut position = 0;
    kept.retain(|_| {
        position += 1;
        probabilities[position - 1] >= f64::from(config.min_p) * probabilities[0] * (1.0 - 1e-12)
    });
    let probabilities = softmax(&kept);
    kept.into_iter().map(|(id, _)| id).zip(probabilities).collect()
}

fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        5 => -8.0f32..8.0,
        3 => (-2i8..=2).prop_map(|z| f32::from(z) + 0.25),
        1 => Just(f32::NEG_INFINITY),
    ];
    // Also more tokens than the first attempt at a nucleus sorts.
    prop_oneof![prop::collection::vec(logit.clone(), 1..40), prop::collection::vec(logit, 200..700)]
        .prop_filter("some token must be possible", |logits| logits.iter().any(|z| z.is_finite()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn filters_equal_the_oracle(
        logits in logits(),
        temperature in 0.2f32..3.0,
        top_k in prop_oneof![Just(0usize), 1usize..60],
        top_p in prop_oneof![Just(1.0f32), 0.001f32..0.999],
        min_p in prop_oneof![2 => Just(0.0f32), 1 => 0.0f32..=1.0, 1 => Just(1.0f32)],
        seed: u64,
        index: u64,
    ) {
        let config = SamplingConfig { temperature, top_k, top_p, min_p, seed, ..SamplingConfig::default() };
        let mut sampler = Sampler::new(&config).unwrap();
        let expected = oracle(&config, &logits);
        let found = sampler.distribution(&logits, &[], 0).unwrap();
        let ids = |distribution: &[(u32, f64)]| distribution.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        prop_assert_eq!(ids(&found), ids(&expected));
        for ((_, found), (_, expected)) in found.iter().zip(&expected) {
            prop_assert!((found - expected).abs() < 1e-12);
        }
        // Draws come from what is kept. The history is as long as the index says; without penalties nobody reads it.
        let index = index % 50;
        let picked = sampler.pick(&logits, &[0; 50], index).unwrap();
        prop_assert!(ids(&expected).contains(&picked));
        // Filters act as if the other logits were -inf: the noise of a token does not depend on its rank.
        let masked: Vec<f32> = (0u32..).zip(&logits)
            .map(|(id, z)| if ids(&expected).contains(&id) { *z } else { f32::NEG_INFINITY })
            .collect();
        let plain = SamplingConfig { temperature, seed, ..SamplingConfig::default() };
        prop_assert_eq!(Sampler::new(&plain).unwrap().pick(&masked, &[0; 50], index).unwrap(), picked);
    }

    #[test]
    fn pick_depends_on_its_arguments_alone(
        calls in prop::collection::vec((prop::collection::vec(-5.0f32..5.0, 1..130), prop::collection::vec(0u32..140, 3..20), 0u64..3), 1..8),
        seed: u64,
        top_k in 0usize..5,
    ) {
        let config = SamplingConfig {
            temperature: 0.9, top_k, top_p: 0.95, repetition_penalty: 1.3, presence_penalty: 0.4, seed, ..SamplingConfig::default()
        };
        let mut reused = Sampler::new(&config).unwrap();
        for (logits, history, index) in &calls {
            let fresh = Sampler::new(&config).unwrap().pick(logits, history, *index);
            prop_assert_eq!(reused.pick(logits, history, *index), fresh);
        }
    }

    #[test]
    fn the_lead_is_what_the_pick_can_lose_before_another_is_picked(
        logits in logits(),
        temperature in prop_oneof![Just(0.0f32), 0.1f32..3.0],
        penalty in prop_oneof![Just(0.0f32), Just(0.5f32)],
        seed: u64,
    ) {
        let mut sampler = sampler(|config| {
            (config.temperature, config.seed, config.presence_penalty) = (temperature, seed, penalty);
        });
        let history = [1, 2, 0];
        let (token, lead) = sampler.pick_with_lead(&logits, &history, 2).unwrap();
        prop_assert_eq!(token, sampler.pick(&logits, &history, 2).unwrap());
        prop_assert!(lead >= 0.0);
        let others = logits.iter().enumerate().filter(|(id, z)| *id != token as usize && z.is_finite()).count();
        prop_assert_eq!(lead == f32::INFINITY, others == 0);
        if lead.is_finite() {
            let unit = if temperature == 0.0 { 1.0 } else { temperature };
            let mut picked_after_losing = |loss: f32| {
                let mut logits = logits.clone();
                logits[token as usize] -= loss * unit;
                sampler.pick(&logits, &history, 2).unwrap()
            };
            prop_assert!(lead < 1e-2 || picked_after_losing(lead - 1e-3) == token);
            prop_assert_ne!(picked_after_losing(lead + 1e-3), token);
        }
    }

    #[test]
    fn filters_leave_the_pick_with_a_lead_what_it_is(logits in logits(), top_k in 1usize..5, seed: u64) {
        let mut sampler = sampler(|config| (config.temperature, config.top_k, config.seed) = (1.0, top_k, seed));
        let (token, lead) = sampler.pick_with_lead(&logits, &[], 0).unwrap();
        prop_assert_eq!(token, sampler.pick(&logits, &[], 0).unwrap());
        prop_assert_eq!(lead == f32::INFINITY, kept(&mut sampler, &logits).len() == 1);
    }
}

#[test]
fn greedy_takes_the_smallest_id_on_ties_and_ignores_filters_and_seed() {
    let mut plain = sampler(|_| {});
    assert_eq!(plain.pick(&[0.0, 3.0, f32::NEG_INFINITY, 3.0], &[], 0), Ok(1));
    assert_eq!(plain.pick(&[-0.0, 0.0], &[], 0), Ok(0));
    let mut filtered = sampler(|c| (c.top_k, c.top_p, c.min_p, c.seed) = (2, 0.1, 0.9, 7));
    assert_eq!(filtered.pick(&[0.0, 3.0, 1.0, 3.0], &[], 0), Ok(1));
    assert_eq!(filtered.distribution(&[0.0, 3.0, 1.0, 3.0], &[], 0), Ok(vec![(1, 1.0)]));
}

#[test]
fn filters_on_known_distributions() {
    let equal = [1.0f32; 4];
    assert_eq!(kept(&mut sampler(|c| (c.temperature, c.top_k) = (1.0, 2)), &equal), [0, 1]);
    // Exactly half reached by two of four: the smallest set, not one more.
    assert_eq!(kept(&mut sampler(|c| (c.temperature, c.top_p) = (1.0, 0.5)), &equal), [0, 1]);
    assert_eq!(kept(&mut sampler(|c| (c.temperature, c.top_p) = (1.0, 0.51)), &equal), [0, 1, 2]);
    assert_eq!(kept(&mut sampler(|c| (c.temperature, c.top_p) = (1.0, 1e-6)), &equal), [0]);
    // Probabilities 0.5, 0.25, 0.125, 0.125.
    let halves = [8.0f32.ln(), 4.0f32.ln(), 2.0f32.ln(), 2.0f32.ln()];
    assert_eq!(kept(&mut sampler(|c| (c.temperature, c.min_p) = (1.0, 0.3)), &halves), [0, 1]);
    // top-p counts what top-k left (0.667 and 0.333), min-p is relative to the likeliest.
    assert_eq!(kept(&mut sampler(|c| (c.temperature, c.top_k, c.top_p) = (1.0, 2, 0.6)), &halves), [0]);
    // The temperature comes before the filters: at 0.5 the ratio of the first two is 4.
    assert_eq!(kept(&mut sampler(|c| (c.temperature, c.min_p) = (0.5, 0.3)), &halves), [0]);
}

#[test]
fn penalties_in_order_each_token_once_and_presence_for_the_answer_alone() {
    // Repetition over prompt (0, 0, 1) and answer (2, 2); presence over the answer; ids outside the vocabulary ignored.
    let mut both = sampler(|c| (c.temperature, c.repetition_penalty, c.presence_penalty) = (1.0, 2.0, 0.5));
    let history = [0, 0, 1, 99, 2, 2, u32::MAX];
    let found = both.distribution(&[2.0, -1.0, 3.0, 0.5], &history, 3).unwrap();
    // 2 / 2, -1 * 2, 3 / 2 - 0.5, 0.5.
    let expected = [(0, 1.0f64), (2, 1.0), (3, 0.5), (1, -2.0)];
    let total: f64 = expected.iter().map(|(_, z)| z.exp()).sum();
    for ((id, p), (expected_id, z)) in found.iter().zip(&expected) {
        assert_eq!(id, expected_id);
        assert!((p - z.exp() / total).abs() < 1e-12);
    }
    // All of it prompt: no presence penalty, so token 2 leads; greedy sees penalties too.
    assert_eq!(both.distribution(&[2.0, -1.0, 3.0, 0.5], &history, 0).unwrap()[0].0, 2);
    let mut greedy = sampler(|c| c.repetition_penalty = 2.0);
    assert_eq!(greedy.pick(&[2.0, 1.5, 0.0], &[0], 1), Ok(1));
    assert_eq!(greedy.pick(&[-1.0, -1.5, -9.0], &[0], 0), Ok(1));
    let mut presence = sampler(|c| c.presence_penalty = 1.0);
    assert_eq!(presence.pick(&[2.0, 1.5], &[0], 0), Ok(0), "the prompt is not penalised");
    assert_eq!(presence.pick(&[2.0, 1.5], &[0], 1), Ok(1));
}

#[test]
fn errors_say_where() {
    let mut plain = sampler(|_| {});
    let sentence = plain.pick(&[0.0, f32::NAN, f32::INFINITY], &[5; 9], 4).unwrap_err().to_string();
    assert!(sentence.starts_with("The logit of vocabulary id 1 is NaN at generated token 4,"), "{sentence}");
    let infinite = plain.pick(&[0.0, f32::INFINITY, f32::NAN], &[], 0);
    assert_eq!(infinite, Err(SamplingError::NotFinite { index: 0, token: 1, value: f32::INFINITY }));
    let nothing = plain.pick(&[f32::NEG_INFINITY; 3], &[1], 1);
    assert_eq!(nothing, Err(SamplingError::NothingPossible { index: 1 }));
    assert_eq!(plain.pick(&[], &[], 0), Err(SamplingError::EmptyLogits { index: 0 }));
    assert_eq!(plain.pick(&[1.0], &[7], 2), Err(SamplingError::HistoryTooShort { index: 2, length: 1 }));
    assert!(matches!(plain.pick(&[1.0], &[], u64::MAX), Err(SamplingError::HistoryTooShort { .. })));
    let mut sampled = sampler(|c| (c.temperature, c.top_k) = (1.0, 3));
    assert!(sampled.pick(&[f32::NAN], &[], 0).is_err());
    assert!(sampled.distribution(&[f32::NAN], &[], 0).is_err());
    let mut huge = sampler(|c| (c.temperature, c.repetition_penalty) = (1.0, 1e-30));
    assert!(matches!(huge.pick(&[1e30, 0.0], &[0], 0), Err(SamplingError::PenaltyOverflow { .. })));
    assert!(Sampler::new(&SamplingConfig { top_p: 0.0, ..SamplingConfig::default() }).is_err());
}

#[test]
fn extreme_temperatures_do_not_overflow() {
    let logits = [f32::MAX, f32::MIN, 0.0];
    let mut cold = sampler(|c| c.temperature = f32::from_bits(1));
    assert_eq!(cold.pick(&logits, &[], 0), Ok(0));
    assert_eq!(cold.distribution(&logits, &[], 0).unwrap()[0], (0, 1.0));
    let mut hot = sampler(|c| (c.temperature, c.top_p, c.min_p) = (f32::MAX, 0.9, 0.1));
    let total: f64 = hot.distribution(&logits, &[], 0).unwrap().iter().map(|(_, p)| p).sum();
    assert!((total - 1.0).abs() < 1e-12);
}

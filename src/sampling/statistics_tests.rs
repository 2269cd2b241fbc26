//! Is it sampling, and do coupled samplers agree as often as promised? Seeds are fixed, so each test has one outcome.
//!
//! Marginals cannot see noise that is reused from one token to the next, so pairs of successive tokens are tested too,
//! and the test itself is tested on samplers that are broken on purpose.
#![allow(clippy::unwrap_used, reason = "a test that fails here should stop here")]

use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::philox::philox4x32_10;
use super::*;

const DRAWS: u64 = 100_000;
const ALPHA: f64 = 1e-3;

fn config(seed: u64, temperature: f32) -> SamplingConfig {
    SamplingConfig { seed, temperature, ..SamplingConfig::default() }
}

/// Logits between -`spread` and `spread`, from another stream than the noise.
fn random_logits(vocabulary: usize, stream: u32, spread: f32) -> Vec<f32> {
    let word = |id: u32| philox4x32_10([id, stream, 0, 0], [1, 2])[0];
    (0..vocabulary as u32).map(|id| (word(id) as f32 / u32::MAX as f32 * 2.0 - 1.0) * spread).collect()
}

/// Probability of every token `[vocab]`.
fn probabilities(sampler: &mut Sampler, logits: &[f32]) -> Vec<f64> {
    let mut dense = vec![0.0; logits.len()];
    for (id, probability) in sampler.distribution(logits, &[], 0).unwrap() {
        dense[id as usize] = probability;
    }
    dense
}

/// Pearson's chi-square: the probability of counts at least this far from `expected` (probabilities) by chance.
fn p_value(expected: &[f64], draws: impl Iterator<Item = usize>) -> f64 {
    let mut counts = vec![0u64; expected.len()];
    let mut total = 0u64;
    for draw in draws {
        counts[draw] += 1;
        total += 1;
    }
    let (mut statistic, mut cells) = (0.0, 0u32);
    for (count, expected) in counts.iter().zip(expected) {
        let expected = expected * total as f64;
        if expected == 0.0 {
            assert_eq!(*count, 0, "a token that cannot be drawn was drawn");
            continue;
        }
        assert!(expected > 5.0, "too few draws for a chi-square test");
        statistic += (*count as f64 - expected).powi(2) / expected;
        cells += 1;
    }
    ChiSquared::new(f64::from(cells - 1)).unwrap().sf(statistic)
}

/// The chi-square test of the pairs of successive draws. `draw(t)` is the token at index `t`; `even` and `odd` are the
/// distributions at even and odd indices. Returns the p-values of pairs that start at even and at odd indices.
fn pair_p_values(even: &[f64], odd: &[f64], mut draw: impl FnMut(u64) -> u32) -> [f64; 2] {
    let tokens: Vec<usize> = (0..2 * DRAWS + 1).map(|index| draw(index) as usize).collect();
    let product = |first: &[f64], second: &[f64]| -> Vec<f64> {
        first.iter().flat_map(|p| second.iter().map(move |q| p * q)).collect()
    };
    let pairs = |from: usize, width: usize| -> Vec<usize> {
        tokens[from..].chunks_exact(2).map(|pair| pair[0] * width + pair[1]).collect()
    };
    [
        p_value(&product(even, odd), pairs(0, odd.len()).into_iter()),
        p_value(&product(odd, even), pairs(1, even.len()).into_iter()),
    ]
}

#[test]
fn single_draws_follow_the_distribution() {
    let mut settings = vec![config(1, 0.7), config(u64::MAX, 1.0), config(1 << 40, 1.5)];
    settings.push(SamplingConfig { top_k: 5, ..config(4, 1.0) });
    settings.push(SamplingConfig { top_p: 0.8, min_p: 0.05, ..config(5, 1.2) });
    let history = vec![0; DRAWS as usize];
    let level = ALPHA / settings.len() as f64;
    for setting in settings {
        let logits = random_logits(11, 1, 2.0);
        let mut sampler = Sampler::new(&setting).unwrap();
        let expected = probabilities(&mut sampler, &logits);
        let draws = (0..DRAWS).map(|index| sampler.pick(&logits, &history, index).unwrap() as usize);
        let p = p_value(&expected, draws);
        assert!(p > level, "{setting:?}: p = {p}");
    }
}

#[test]
fn successive_draws_are_independent() {
    let (even_logits, odd_logits) = (random_logits(6, 2, 1.5), random_logits(7, 3, 1.5));
    let history = vec![0; 2 * DRAWS as usize + 2];
    let seeds = [0, 1, 0xdead_beef_0000_0001];
    for seed in seeds {
        let mut sampler = Sampler::new(&config(seed, 1.0)).unwrap();
        let even = probabilities(&mut sampler, &even_logits);
        let odd = probabilities(&mut sampler, &odd_logits);
        let ps = pair_p_values(&even, &odd, |index| {
            let logits = if index.is_multiple_of(2) { &even_logits } else { &odd_logits };
            sampler.pick(logits, &history, index).unwrap()
        });
        assert!(ps.iter().all(|p| *p > ALPHA / (2 * seeds.len()) as f64), "seed {seed}: {ps:?}");
    }
}

#[test]
fn successive_seeds_are_independent() {
    let logits = random_logits(6, 4, 1.5);
    let expected = probabilities(&mut Sampler::new(&config(0, 1.0)).unwrap(), &logits);
    let ps = pair_p_values(&expected, &expected, |seed| {
        Sampler::new(&config(seed, 1.0)).unwrap().pick(&logits, &[0; 3], 3).unwrap()
    });
    assert!(ps.iter().all(|p| *p > ALPHA / 2.0), "{ps:?}");
}

/// A test of the test: noise that is used for two successive tokens leaves every marginal right and must be caught.
#[test]
fn pair_test_catches_reused_noise_and_the_marginal_test_does_not() {
    let logits = random_logits(6, 2, 1.5);
    let history = vec![0; 2 * DRAWS as usize + 2];
    let mut sampler = Sampler::new(&config(0, 1.0)).unwrap();
    let expected = probabilities(&mut sampler, &logits);
    let mut broken = |index: u64| sampler.pick(&logits, &history, index & !1).unwrap();
    let [even, odd] = pair_p_values(&expected, &expected, &mut broken);
    assert!(even < 1e-12, "reused noise was not caught: p = {even}");
    assert!(odd > ALPHA, "pairs across the reuse are independent: p = {odd}");
    let marginal = p_value(&expected, (0..DRAWS).map(|index| broken(2 * index + 1) as usize));
    assert!(marginal > ALPHA, "p = {marginal}");
}

/// A test of the test: noise shared by two tokens of the vocabulary gives a wrong distribution and must be caught.
#[test]
fn chi_square_catches_noise_shared_between_tokens() {
    let logits = random_logits(8, 5, 1.0);
    let mut sampler = Sampler::new(&config(0, 1.0)).unwrap();
    let expected = probabilities(&mut sampler, &logits);
    let noise = GumbelNoise::new(0);
    let shared = |index: u64| -> u32 {
        // As if the lane of a block were forgotten: draw among the first token of each group of four.
        let first = |group: usize| likeliest(&logits[4 * group..4 * group + 4]).unwrap().unwrap();
        let groups = [0u32, 1].map(|group| Candidate { logit: first(group as usize).logit, id: 4 * group });
        let best = if groups[1].logit > groups[0].logit { groups[1] } else { groups[0] };
        let group = noise.argmax(index, 1.0, Some(best), groups.into_iter()).id / 4;
        4 * group + first(group as usize).id
    };
    let p = p_value(&expected, (0..DRAWS).map(|index| shared(index) as usize));
    assert!(p < 1e-12, "p = {p}");
}

/// Daliri, Musco, Suresh 2024: samplers that share their noise agree with probability at least (1 - TV) / (1 + TV).
#[test]
fn coupled_samplers_agree_as_often_as_promised() {
    let indices = 4_000u64;
    let history = vec![0; indices as usize];
    let mut tightest = f64::INFINITY;
    for case in 0..60u32 {
        let vocabulary = 3 + case as usize % 40;
        let target_logits = random_logits(vocabulary, 1000 + case, 3.0);
        let difference = random_logits(vocabulary, 2000 + case, 0.2 + 0.1 * case as f32);
        let draft_logits: Vec<f32> = target_logits.iter().zip(&difference).map(|(z, d)| z + d).collect();
        let mut setting = config(u64::from(case), [0.7, 1.0, 1.5][case as usize % 3]);
        if case % 4 == 0 {
            (setting.top_k, setting.top_p) = (8, 0.95);
        }
        let (mut target, mut draft) = (Sampler::new(&setting).unwrap(), Sampler::new(&setting).unwrap());
        let p = probabilities(&mut target, &target_logits);
        let q = probabilities(&mut draft, &draft_logits);
        let distance = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0;
        let promised = (1.0 - distance) / (1.0 + distance);
        let agreed = (0..indices)
            .filter(|index| {
                target.pick(&target_logits, &history, *index) == draft.pick(&draft_logits, &history, *index)
            })
            .count() as f64
            / indices as f64;
        // Four standard deviations of a rate over this many indices.
        let slack = 4.0 * (promised * (1.0 - promised) / indices as f64).sqrt();
        assert!(agreed >= promised - slack, "case {case}: agreed {agreed}, promised {promised}");
        assert!(agreed <= 1.0 - distance + slack + 1e-3, "no coupling can agree more often than 1 - TV");
        tightest = tightest.min(agreed - promised);
    }
    // The promise is met with little to spare somewhere, so the test does compare with the right bound.
    assert!(tightest < 0.05, "{tightest}");
}

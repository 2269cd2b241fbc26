//! That the whole loop, drafts included, draws from the model's distribution: chi-square of single tokens and of pairs.
//!
//! Pairs matter: noise used twice leaves every single token right and makes successive tokens depend on each other.

use paceline::drafters::Drafter;
use paceline::drafters::exit::ExitDrafter;
use paceline::drafters::model::ModelDrafter;
use paceline::model::Sequence;
use paceline::sampling::SamplingConfig;
use paceline::speculation::DraftLength;
use statrs::distribution::{ChiSquared, ContinuousCDF};

use crate::support::{Outcome, Task, decoder, fixture};

const DRAWS: u64 = 100_000;
/// The chance that a correct program fails, over all comparisons of this file.
const ALPHA: f64 = 1e-3;
const COMPARISONS: f64 = 6.0;

/// Softmax of logits at a temperature, in f64.
fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let weights: Vec<f64> = logits.iter().map(|x| (f64::from(x - largest) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The p-value of counts against probabilities; cells expecting fewer than 5 are pooled.
fn p_value(counts: &[u64], probabilities: &[f64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let (mut statistic, mut cells) = (0.0, 0_u32);
    let (mut rest_count, mut rest_expected) = (0.0, 0.0);
    for (count, probability) in counts.iter().zip(probabilities) {
        let (count, expected) = (*count as f64, probability * total as f64);
        if expected < 5.0 {
            (rest_count, rest_expected) = (rest_count + count, rest_expected + expected);
        } else {
            statistic += (count - expected).powi(2) / expected;
            cells += 1;
        }
    }
    if rest_expected >= 5.0 {
        statistic += (rest_count - rest_expected).powi(2) / rest_expected;
        cells += 1;
    } else {
        assert!(rest_count < 40.0, "impossible outcomes happened {rest_count} times");
    }
    1.0 - ChiSquared::new(f64::from(cells - 1)).unwrap().cdf(statistic)
}

fn check(temperature: f32, make: impl Fn() -> Box<dyn Drafter>, name: &str) {
    let target = decoder(&fixture("micro"), 1);
    let vocabulary = target.config().vocab_size;
    let prompt = [2, 7, 4];

    // What the model says, row by row: the first token, and the second after each first.
    let mut sequence = Sequence::new(target.clone(), 32);
    let first = softmax(&sequence.next_logits(&prompt), temperature.into());
    let second: Vec<Vec<f64>> = (0..vocabulary as u32)
        .map(|token| {
            sequence.truncate(prompt.len());
            softmax(&sequence.next_logits(&[token]), temperature.into())
        })
        .collect();
    let pairs: Vec<f64> = first.iter().zip(&second).flat_map(|(p, next)| next.iter().map(move |q| p * q)).collect();
    let second: Vec<f64> = (0..vocabulary).map(|b| (0..vocabulary).map(|a| pairs[a * vocabulary + b]).sum()).collect();

    let mut counts = [vec![0; vocabulary], vec![0; vocabulary], vec![0; vocabulary * vocabulary]];
    let mut accepted = 0;
    for seed in 0..DRAWS {
        let sampling = SamplingConfig { temperature, seed, ..SamplingConfig::default() };
        let task = Task { prompt: &prompt, new_tokens: 3, sampling };
        let length = DraftLength::Fixed(1 + seed as usize % 2);
        let Outcome { tokens, rounds, .. } = task.speculative(&target, vec![make()], length);
        accepted += rounds.iter().map(|round| round.accepted).sum::<usize>();
        let (a, b) = (tokens[0] as usize, tokens[1] as usize);
        counts[0][a] += 1;
        counts[1][b] += 1;
        counts[2][a * vocabulary + b] += 1;
    }
    // Both branches are taken often: a draft kept, a draft refused.
    assert!((DRAWS as usize / 4..DRAWS as usize * 2).contains(&accepted), "{accepted} drafted tokens accepted");
    for (what, counts, probabilities) in
        [("first token", &counts[0], &first), ("second token", &counts[1], &second), ("pair", &counts[2], &pairs)]
    {
        let p = p_value(counts, probabilities);
        println!("{name} at temperature {temperature}: {what} has p = {p:.4}");
        assert!(p > ALPHA / COMPARISONS, "{name} at temperature {temperature}: the {what} is off, p = {p:e}");
    }
}

#[test]
fn with_a_draft_model_the_loop_draws_from_the_targets_distribution() {
    let draft = decoder(&fixture("micro-draft"), 1);
    check(1.0, || Box::new(ModelDrafter::new(draft.clone(), 32)), "draft model");
}

#[test]
fn with_an_exit_the_loop_draws_from_the_targets_distribution() {
    check(0.7, || Box::new(ExitDrafter::new(1, 1.0)), "exit:1");
}

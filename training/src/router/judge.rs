//! The worth of a router on prompts that it did not learn from: the cost of its decisions beside the best static plan
//! and the oracle, and the accuracy of its acceptances and difficulties.

use std::fmt::Write as _;

use burn::tensor::Device;
use paceline_router::network::{Batch, LEVELS, Network};
use paceline_router::router::sigmoid;
use paceline_router::{Features, Group};

use super::examples::{Example, Examples, without};
use crate::optimizer::into_values;

/// Bins of the reliability curve.
const BINS: usize = 10;

/// A lossy plan on held-out prompts.
#[derive(Debug, Clone, Copy, Default)]
pub struct JudgedLossy {
    /// The share of answers that differ from the target's, as predicted.
    pub predicted: f64,
    /// The share of answers that differ from the target's, as measured.
    pub found: f64,
    /// By what share its perplexity of the target's answers is above the target's: the mean over prompts.
    pub perplexity: f64,
    /// Mean absolute error of reports' estimate of that share for each prompt, from [`Self::perplexity`] and the
    /// predicted loss.
    pub perplexity_error: f64,
    /// The share of the target's work that it does.
    pub work: f64,
}

/// Costs are means over held-out prompts, in units of plain decoding, at the costs of the machine of the traces.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Of the router's decisions.
    pub routed: f64,
    /// Of the best static plan, by what was learned from.
    pub fixed: f64,
    /// Which that is; `None` is plain decoding.
    pub fixed_plan: Option<usize>,
    /// Of the best plan for each prompt.
    pub oracle: f64,
    /// Of a plan drawn at random, plain decoding among them.
    pub random: f64,
    /// Number of times each plan is chosen, plain decoding last.
    pub chosen: Vec<usize>,
    /// `confusion[true][predicted]` shares of the classes of difficulty.
    pub confusion: [[f64; LEVELS.len()]; LEVELS.len()],
    /// For every drafter, by predicted acceptance: prompts' tokens, mean prediction, share accepted.
    pub reliability: Vec<Vec<[f64; 3]>>,
    /// For every lossy plan, what was predicted and what was.
    pub lossy: Vec<JudgedLossy>,
    /// The mean relative error of predicted lengths.
    pub length: f64,
}

impl Judged {
    /// Judges a network, without a group of features where it learned without.
    pub fn of(examples: &Examples, network: &Network, stopping: &[[f64; 2]], group: Option<Group>) -> Self {
        let drafters = examples.drafters.len();
        let machine = &examples.machines[0];
        let plain = machine.steps.first().copied().unwrap_or(1.0);
        let mut judged = Self {
            chosen: vec![0; drafters + 1],
            reliability: vec![vec![[0.0; 3]; BINS]; drafters],
            lossy: vec![JudgedLossy::default(); examples.lossy.len()],
            ..Self::default()
        };
        let mean_cost = |prompts: &[Example], place: usize| {
            prompts.iter().map(|example| example.cost[0][place]).sum::<f64>() / prompts.len() as f64
        };
        let fixed =
            (0..drafters).min_by(|a, b| mean_cost(&examples.train, *a).total_cmp(&mean_cost(&examples.train, *b)));
        judged.fixed_plan = fixed.filter(|place| mean_cost(&examples.train, *place) < 1.0);
        judged.fixed = judged.fixed_plan.map_or(1.0, |place| mean_cost(&examples.held_out, place));
        let count = examples.held_out.len() as f64;
        let mut estimates: Vec<(f64, f64)> = Vec::new();
        for example in &examples.held_out {
            let features: Features = without(&example.trace.features, group);
            let outputs = network.forward(Batch::new(&[&features], &Device::flex()));
            let odds = into_values(outputs.acceptance);
            let length = f64::from(into_values(outputs.length)[0]).exp();
            let expected = examples.drafters.iter().zip(&odds).zip(stopping).map(|((name, odds), [offset, factor])| {
                let effective = sigmoid(offset + factor * f64::from(*odds));
                let reading = machine.drafters.get(name).map_or(0.0, |cost| cost.reading)
                    * example.trace.asked.tokens as f64
                    / length;
                machine
                    .prices(name)
                    .map_or(f64::INFINITY, |prices| (prices.seconds_per_token(effective) + reading) / plain)
            });
            let best = expected.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, cost)| *cost < 1.0);
            let place = best.map_or(drafters, |(place, _)| place);
            judged.chosen[place] += 1;
            judged.routed += example.cost[0].get(place).copied().unwrap_or(1.0) / count;
            judged.oracle += example.cost[0].iter().copied().fold(1.0, f64::min) / count;
            judged.random += (example.cost[0].iter().sum::<f64>() + 1.0) / (drafters + 1) as f64 / count;
            for ((bins, odds), [all, right]) in judged.reliability.iter_mut().zip(&odds).zip(&example.counts) {
                let predicted = sigmoid(f64::from(*odds));
                let bin = &mut bins[((predicted * BINS as f64) as usize).min(BINS - 1)];
                let terms = [*all, predicted * all, *right];
                bin.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
            let classes = into_values(outputs.difficulty);
            let predicted = (0..LEVELS.len()).max_by(|a, b| classes[*a].total_cmp(&classes[*b])).unwrap_or(0);
            judged.confusion[example.level][predicted] += 1.0;
            if !examples.lossy.is_empty() {
                let odds = into_values(outputs.loss);
                let predicted = odds.iter().map(|odds| sigmoid(f64::from(*odds)));
                let known = example.lost.iter().zip(&example.lossy);
                for ((sums, predicted), (lost, [perplexity, work])) in judged.lossy.iter_mut().zip(predicted).zip(known)
                {
                    sums.predicted += predicted / count;
                    sums.found += lost / count;
                    sums.perplexity += perplexity / count;
                    sums.work += work / count;
                    estimates.push((predicted, *perplexity));
                }
            }
            let tokens = example.trace.places() as f64;
            judged.length += (length - tokens).abs() / tokens / count;
        }
        for row in &mut judged.confusion {
            let all: f64 = row.iter().sum();
            row.iter_mut().for_each(|share| *share /= all.max(1.0));
        }
        let plans = judged.lossy.len().max(1);
        for estimates in estimates.chunks_exact(plans) {
            for (plan, (predicted, perplexity)) in judged.lossy.iter_mut().zip(estimates) {
                let estimate = plan.perplexity * predicted / plan.found.max(1e-3);
                plan.perplexity_error += (estimate - perplexity).abs() / count;
            }
        }
        for bin in judged.reliability.iter_mut().flatten() {
            let all = bin[0].max(1.0);
            (bin[1], bin[2]) = (bin[1] / all, bin[2] / all);
        }
        judged
    }

    /// Share of the prompts for which each drafter was chosen.
    pub fn shares_chosen(&self) -> Vec<f64> {
        let all = self.chosen.iter().sum::<usize>().max(1) as f64;
        self.chosen[..self.chosen.len() - 1].iter().map(|count| *count as f64 / all).collect()
    }

    /// The share of what the oracle saves on the best static plan.
    pub fn closed(&self) -> f64 {
        (self.fixed - self.routed) / (self.fixed - self.oracle).max(1e-12)
    }

    /// The expected calibration error of a drafter's acceptance, by tokens.
    pub fn calibration_error(&self, drafter: usize) -> f64 {
        let bins = &self.reliability[drafter];
        let all: f64 = bins.iter().map(|bin| bin[0]).sum();
        bins.iter().map(|[count, predicted, found]| count * (predicted - found).abs()).sum::<f64>() / all.max(1.0)
    }

    /// The reliability curve as a table.
    pub fn reliability_table(&self, examples: &Examples) -> String {
        let mut text = "drafter,tokens,predicted,accepted\n".to_owned();
        for (drafter, bins) in examples.drafters.iter().zip(&self.reliability) {
            for [count, predicted, found] in bins.iter().filter(|bin| bin[0] > 0.0) {
                // Writing into a string cannot fail.
                let _ = writeln!(text, "{drafter},{count},{predicted:.4},{found:.4}");
            }
        }
        text
    }
}

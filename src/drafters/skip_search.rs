//! The search for a skip plan: which sublayers a target can draft without.
//!
//! Greedy forward selection on agreement per cost, without training (the objective of SWIFT, Xia et al. 2024, which
//! looks for a plan while it answers). Agreement is measured as drafting meets it: at each block of a text, the target
//! has read everything before, and the plan runs over the block on top of the target's own cache. It agrees where its
//! greedy pick is the target's.

use std::sync::Arc;

use serde::Serialize;

use crate::model::{Decoder, SelfDraft, Sequence, SkipPlan, Sublayer};
use crate::sampling::{Sampler, SamplingConfig, SamplingError};

/// The longest draft that is considered, and the rows of a block.
pub const LONGEST: usize = 8;
/// The most tokens of a text that plans are judged on.
pub const WRITTEN: usize = 64;
/// Tokens of a cut text that are only read.
const LEAD: usize = 16;
/// Prompt tokens that go through the target together.
const CHUNK: usize = 256;

/// A plan and what it is worth.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Parts that are skipped.
    pub plan: SkipPlan,
    /// The share of greedy picks that are the target's.
    pub agreement: f64,
    /// Bytes of weights that a draft step reads, in units of a plain step's.
    pub cost: f64,
    /// The draft length at which it pays most.
    pub draft_length: usize,
    /// Tokens per second in units of plain decoding's, predicted for that length.
    pub speedup: f64,
}

/// Texts that `target` writes by itself after `prompt`, at temperature 1, for [`SkipSearch::new`]: as many as it takes for
/// `tokens` new tokens, each of [`WRITTEN`] or up to a stop token. Fewer, where the model stops at once time and again.
///
/// # Errors
/// If the target's logits are not finite.
pub fn write_texts(
    target: &Arc<Decoder>,
    prompt: &[u32],
    tokens: usize,
) -> Result<Vec<(Vec<u32>, usize)>, SamplingError> {
    let most = WRITTEN.min(target.config().context.saturating_sub(prompt.len()));
    let (mut texts, mut written) = (Vec::new(), 0);
    for seed in 0..4 * tokens.div_ceil(WRITTEN) as u64 {
        if written >= tokens {
            break;
        }
        let mut sampler = Sampler::new(&SamplingConfig { temperature: 1.0, seed, ..SamplingConfig::default() })?;
        let mut sequence = Sequence::new(Arc::clone(target), prompt.len() + most);
        let mut text = prompt.to_vec();
        for index in 0..most {
            let logits = sequence.next_logits(if index == 0 { prompt } else { &text[text.len() - 1..] });
            let token = sampler.pick(&logits, &text, index as u64)?;
            if target.config().stop_tokens.contains(&token) {
                break;
            }
            text.push(token);
        }
        if text.len() > prompt.len() {
            written += text.len() - prompt.len();
            texts.push((text, prompt.len()));
        }
    }
    Ok(texts)
}

/// Parts of a text for [`SkipSearch::new`], spread over it: each up to 16 tokens to read and [`WRITTEN`] to judge
/// on, and no longer than `context`, for `tokens` judged tokens together or as many as there are.
pub fn cut_text(text: &[u32], context: usize, tokens: usize) -> Vec<(Vec<u32>, usize)> {
    let length = (LEAD + WRITTEN).min(context).max(2);
    let count = (text.len() / length).clamp(1, tokens.div_ceil(WRITTEN).max(1));
    let part = |index: usize| {
        let part = &text[index * (text.len() / count)..];
        let part = part[..length.min(part.len())].to_vec();
        let lead = LEAD.min(part.len().saturating_sub(1));
        (part, lead)
    };
    (0..count).map(part).filter(|(part, _)| !part.is_empty()).collect()
}

/// A text to search on.
struct Text {
    tokens: Vec<u32>,
    /// Where the first block begins.
    start: usize,
    /// The target's greedy pick after each token from `start` on.
    picks: Vec<u32>,
}

/// A search on given texts.
pub struct SkipSearch<'a> {
    target: &'a Arc<Decoder>,
    texts: Vec<Text>,
    /// The cost of a verification over `index + 1` rows, in plain steps.
    verify_costs: [f64; LONGEST + 1],
}

impl<'a> SkipSearch<'a> {
    /// A search of a plan for `target`. Each text comes with the number of its first tokens that are only read, at
    /// most all but one: a prompt. `verify_cost` is the cost of a verification by its number of rows, in plain steps.
    ///
    /// # Errors
    /// If the target's logits are not finite.
    pub fn new(
        target: &'a Arc<Decoder>,
        texts: Vec<(Vec<u32>, usize)>,
        verify_cost: impl Fn(usize) -> f64,
    ) -> Result<Self, SamplingError> {
        let verify_costs = std::array::from_fn(|index| verify_cost(index + 1).max(1.0));
        let judge = |(tokens, start): (Vec<u32>, usize)| {
            let mut sequence = Sequence::new(Arc::clone(target), tokens.len());
            sequence.prefill(&tokens[..start], CHUNK, |_| true);
            let mut picks = Vec::with_capacity(tokens.len() - start);
            for block in tokens[start..].chunks(LONGEST) {
                let verified = sequence.verify(block);
                for row in 0..block.len() {
                    picks.push(pick(verified.row(row))?);
                }
            }
            Ok(Text { tokens, start, picks })
        };
        let texts: Result<_, SamplingError> = texts.into_iter().map(judge).collect();
        Ok(Self { target, texts: texts?, verify_costs })
    }

    /// Tokens on which plans are judged.
    pub fn positions(&self) -> usize {
        self.texts.iter().map(|text| text.picks.len()).sum()
    }

    /// Adds, step by step, the sublayer without which drafting promises most, for as long as that promises more than
    /// the step before. Returns the plan after each step; the last is the best, which may be slower than plain decoding
    /// all the same. `progress` hears how many sublayers
    /// are skipped already, and the tokens judged of all in this step.
    pub fn run(&self, progress: &mut dyn FnMut(usize, usize, usize)) -> Vec<Judged> {
        let layers = 0..self.target.layer_count();
        let all: Vec<Sublayer> = layers.clone().map(Sublayer::Attention).chain(layers.map(Sublayer::Mlp)).collect();
        let mut path: Vec<Judged> = Vec::new();
        // The first step need not beat plain decoding: several steps together may lead up.
        let mut best = 0.0;
        loop {
            let skipped = path.last().map(|judged| &judged.plan);
            let rest = all.iter().filter(|sublayer| skipped.is_none_or(|plan| !plan.skips(**sublayer)));
            let plans = rest.map(|sublayer| skipped.map_or(SkipPlan::of(*sublayer), |plan| plan.with(*sublayer)));
            let plans = plans.filter(|plan| plan.check(self.target.layer_count()).is_ok()).collect();
            let judged = self.judge(plans, &mut |done| progress(path.len(), done, self.positions()));
            let better = judged.into_iter().filter(|judged| judged.speedup > best);
            let Some(step) = better.max_by(|a, b| a.speedup.total_cmp(&b.speedup)) else { return path };
            best = step.speedup;
            path.push(step);
        }
    }

    /// Judges plans together, so that the target runs over the texts once. `progress` hears the tokens done.
    pub fn judge(&self, plans: Vec<SkipPlan>, progress: &mut dyn FnMut(usize)) -> Vec<Judged> {
        let view = |plan: &SkipPlan| Arc::new(SelfDraft::new(Arc::clone(self.target), Some(plan.clone())));
        let views: Vec<Arc<SelfDraft>> = plans.iter().map(view).collect();
        let mut agreed = vec![0_usize; plans.len()];
        let mut done = 0;
        for Text { tokens, start, picks } in &self.texts {
            let mut sequence = Sequence::new(Arc::clone(self.target), tokens.len());
            sequence.prefill(&tokens[..*start], CHUNK, |_| true);
            for (block, picks) in tokens[*start..].chunks(LONGEST).zip(picks.chunks(LONGEST)) {
                for (view, agreed) in views.iter().zip(&mut agreed) {
                    let Some(logits) = sequence.draft_through(view, block) else { continue };
                    let rows = logits.chunks(logits.len() / block.len());
                    // Logits that are not finite agree with nothing.
                    *agreed += rows.zip(picks).filter(|(row, wanted)| pick(row).as_ref() == Ok(*wanted)).count();
                }
                sequence.prefill(block, CHUNK, |_| true);
                done += block.len();
                progress(done);
            }
        }
        let step = self.target.bytes_per_step() as f64;
        let judged = plans.into_iter().zip(agreed).map(|(plan, agreed)| {
            let agreement = agreed as f64 / self.positions().max(1) as f64;
            let cost = self.target.bytes_per_step_without(&plan) as f64 / step;
            let (draft_length, speedup) = self.speedup(agreement, cost);
            Judged { plan, agreement, cost, draft_length, speedup }
        });
        judged.collect()
    }

    /// The best draft length and its speed-up, by the cost model: with agreement `a` and a draft step's cost `c`,
    /// `(1 + a + .. + a^k) / (k c + v(k + 1))`.
    fn speedup(&self, agreement: f64, cost: f64) -> (usize, f64) {
        let (mut tokens, mut survival, mut best) = (1.0, 1.0, (1, 0.0));
        for length in 1..=LONGEST {
            survival *= agreement;
            tokens += survival;
            let speedup = tokens / (length as f64 * cost + self.verify_costs[length]);
            if speedup > best.1 {
                best = (length, speedup);
            }
        }
        best
    }
}

/// The greedy pick, as the loop makes it.
fn pick(logits: &[f32]) -> Result<u32, SamplingError> {
    Sampler::new(&SamplingConfig::default())?.pick(logits, &[], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_parts_that_fit() {
        let text: Vec<u32> = (0..1000).collect();
        for (length, context, tokens) in
            [(1000, 4096, 384), (1000, 32, 384), (81, 4096, 64), (80, 80, 64), (2, 99, 9), (1, 9, 9)]
        {
            let parts = cut_text(&text[..length], context, tokens);
            assert!(!parts.is_empty() && parts.len() <= tokens.div_ceil(WRITTEN), "{parts:?}");
            for (part, lead) in &parts {
                assert!(part.len() <= context && *lead < part.len() && part.len() - lead <= WRITTEN, "{parts:?}");
                assert!(part.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{parts:?}");
            }
            assert!(parts.windows(2).all(|pair| pair[0].0.last() < pair[1].0.first()), "{parts:?}");
        }
        assert_eq!(cut_text(&text, 4096, 384).iter().map(|(part, lead)| part.len() - lead).sum::<usize>(), 384);
        assert!(cut_text(&[], 9, 9).is_empty());
    }
}

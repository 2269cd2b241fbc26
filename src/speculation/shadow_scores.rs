//! Shadow scores: exits that did not draft, scored all the same.
//!
//! Verification runs every layer anyway, so what an exit would have picked costs its head alone (full information: DEL, Zarch
//! et al. 2025; HedgeSpec, Liu et al. 2025). One exit is looked at in a round, now and then, within a share of the time.

use crate::model::{Decoder, Hidden};
use crate::sampling::{Sampler, SamplingError};

/// Picks of an exit that did not draft: the lead of each, and whether it is the token that came out.
pub type ShadowScores = Vec<(f32, bool)>;

/// Text whose last tokens came out of a verification.
#[derive(Clone, Copy)]
pub struct Verified<'a> {
    /// Prompt and answer so far.
    pub tokens: &'a [u32],
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Number of tokens that came out of the verification.
    pub new: usize,
}

/// Scores the exit after `depth` layers on the states `[rows, hidden]` that the verification had there.
///
/// # Errors
/// If its logits are not finite.
pub fn score(
    target: &Decoder,
    depth: usize,
    states: &Hidden,
    text: Verified<'_>,
    sampler: &mut Sampler,
) -> Result<ShadowScores, SamplingError> {
    let rows = text.new.min(states.rows());
    let temperature = target.exit_temperature(depth);
    let mut logits = target.exit_logits(depth, &states.slice(0..rows));
    logits.iter_mut().for_each(|logit| *logit /= temperature);
    let first = text.tokens.len() - text.new;
    let pick = |(row, logits): (usize, &[f32])| {
        let index = (first + row - text.prompt) as u64;
        let (pick, lead) = sampler.pick_with_lead(logits, &text.tokens[..first + row], index)?;
        Ok((lead, pick == text.tokens[first + row]))
    };
    logits.chunks_exact(target.config().vocab_size).enumerate().map(pick).collect()
}

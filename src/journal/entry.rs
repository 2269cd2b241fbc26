//! Journal entry of an answer: numbers and names, nothing of what was asked or said.

use serde::{Deserialize, Serialize};

use super::now;
use crate::answer::Answer;
use crate::lossy::LossyPlan;
use crate::report::BIT_IDENTICAL;

/// A way in which an answer was made other than by plain decoding with the whole target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adaptation {
    /// Tokens were drafted.
    Drafted,
    /// Tokens left the target early, without verification.
    EarlyExit,
    /// The target did without layers, or parts of them.
    LayersSkipped,
    /// The target answered in a lower precision than it was loaded in.
    LowerPrecision,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was done: milliseconds since 1970, UTC.
    pub at: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub tokens: u64,
    /// Milliseconds from the start of work on the prompt to the last token.
    pub latency_ms: f64,
    /// The part of it that drafting and the target's steps took.
    pub decode_ms: f64,
    /// Milliseconds of a plain step of the target as it was loaded, on this machine; `None` without a measurement.
    pub plain_step_ms: Option<f64>,
    /// Watt-hours; none where nothing told.
    pub energy_wh: Option<f64>,
    /// Where that number comes from.
    pub energy_source: String,
    /// Why it may be wrong, if it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_doubt: Option<String>,
    /// The drafter that made most of the drafts, or `none`.
    pub drafter: String,
    /// Difficulty of the prompt, as the router took it to be.
    pub difficulty: Option<String>,
    /// Adaptations of the answer.
    pub adapted: Vec<Adaptation>,
    /// Steps of the target after the prefill.
    pub steps: u64,
    /// Drafted tokens that were looked at.
    pub evaluated: u64,
    /// Those of them that were kept.
    pub accepted: u64,
    /// True if the tokens are those of plain decoding.
    pub exact: bool,
    /// The probability that they are, where something was given up and the router judged it; 1 of an exact answer.
    pub quality: Option<f64>,
}

/// Larger numbers are damage; sums of as many as a journal holds stay finite.
const LARGEST: f64 = 1e12;

impl Entry {
    /// Entry of a finished answer that followed a plan, where a plain step of the target as it was loaded takes so many
    /// milliseconds.
    pub fn now(answer: &Answer, plan: &LossyPlan, plain_step_ms: Option<f64>) -> Self {
        let report = &answer.report;
        let speculation = &report.speculation;
        let lossy = match plan {
            LossyPlan::Exit { .. } => (speculation.unverified > 0).then_some(Adaptation::EarlyExit),
            LossyPlan::Skip(_) => Some(Adaptation::LayersSkipped),
            LossyPlan::Precision(_) => Some(Adaptation::LowerPrecision),
            LossyPlan::None => None,
        };
        let drafted = (speculation.drafted > 0).then_some(Adaptation::Drafted);
        let exact = report.exactness == BIT_IDENTICAL;
        Self {
            at: now(),
            prompt_tokens: answer.prompt_tokens.len() as u64,
            tokens: answer.tokens.len() as u64,
            latency_ms: report.latency_ms,
            decode_ms: report.draft_ms + report.verify_ms,
            plain_step_ms,
            energy_wh: report.energy_wh,
            energy_source: report.energy_source.clone(),
            energy_doubt: report.energy_doubt.clone(),
            drafter: report.plan.drafter.clone(),
            difficulty: report.plan.difficulty.clone(),
            adapted: drafted.into_iter().chain(lossy).collect(),
            steps: speculation.steps,
            evaluated: speculation.evaluated,
            accepted: speculation.accepted,
            exact,
            quality: if exact { Some(1.0) } else { report.quality_metrics.confidence },
        }
    }

    /// True if its numbers are plausible.
    fn is_sound(&self) -> bool {
        let measured = [Some(self.latency_ms), Some(self.decode_ms), self.plain_step_ms, self.energy_wh];
        let counted = [self.prompt_tokens, self.tokens, self.steps, self.evaluated, self.accepted];
        measured.into_iter().flatten().all(|number| (0.0..=LARGEST).contains(&number))
            && counted.into_iter().all(|count| count as f64 <= LARGEST)
            && self.quality.is_none_or(|share| (0.0..=1.0).contains(&share))
    }
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    /// An answer.
    Entry(Box<Entry>),
    /// Stands first where the older half has gone.
    Dropped {
        /// Number of answers that have gone, all in all.
        dropped: u64,
        /// When the last of them was done: milliseconds since 1970.
        until: u64,
    },
}

impl Line {
    /// Reads a line; `None` if it is damaged.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let parsed: Self = serde_json::from_slice(line).ok()?;
        match &parsed {
            Self::Entry(entry) if !entry.is_sound() => None,
            _ => Some(parsed),
        }
    }

    /// The line with its end.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Structs of numbers and texts are always JSON.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

//! Traces: what a plan does on a prompt, as a row of a table.

use serde::{Deserialize, Serialize};

/// A plan on a prompt. Acceptance is teacher-forced: a drafter is asked at every place of the answer that the target gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceRow {
    /// The prompt.
    pub id: String,
    /// `train` or `validation`.
    pub split: String,
    /// Category of the prompt, where that is known.
    pub category: String,
    /// Difficulty of the prompt, where that is known.
    pub level: String,
    /// The temperature that tokens were drawn at.
    pub temperature: f32,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub answer_tokens: usize,
    /// The target's mean entropy over the answer, in nats.
    pub entropy: f64,
    /// The plan.
    pub plan: String,
    /// Places at which it was asked.
    pub evaluated: usize,
    /// Places at which it picked what the target picks.
    pub accepted: usize,
    /// Replayed: rounds.
    pub rounds: usize,
    /// Replayed: tokens drafted.
    pub drafted: usize,
    /// Replayed: drafted tokens that were verified.
    pub verified: usize,
    /// Replayed: how many drafts had their first, second, .. token accepted, separated by spaces.
    pub accepted_by_position: String,
    /// Replayed at the costs beside the table: microseconds a token, reading the prompt included.
    pub microseconds_per_token: f64,
    /// The same of plain decoding.
    pub plain_microseconds_per_token: f64,
    /// For a lossy plan: whether its answer is the target's.
    pub exact_match: Option<bool>,
    /// For a lossy plan: the mean distance of its distributions from the target's (total variation, from 0 to 1).
    pub divergence: Option<f64>,
    /// For a lossy plan: by what share its perplexity of the target's answer is above the target's own.
    pub perplexity_delta: Option<f64>,
    /// For a lossy plan: the share of the target's work (layers, or bytes read) that it does.
    pub work: Option<f64>,
}

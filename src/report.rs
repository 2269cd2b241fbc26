//! Report on an answer. Comes with every answer, and is printed by `--json`.
//!
//! A number that nobody measured is `null` and its source says so; sources are never mixed.

use std::collections::BTreeMap;

use serde::Serialize;

/// Value of [`Report::exactness`] for an answer that gave nothing up.
pub const BIT_IDENTICAL: &str = "bit-identical to plain decoding";

/// The report on one answer. Times are in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// From the start of work on the prompt to the last token.
    pub latency_ms: f64,
    /// From the start of work on the prompt to its first token; `null` if none came.
    pub time_to_first_token_ms: Option<f64>,
    /// The part of it that the prompt's prefill took.
    pub prefill_ms: f64,
    /// Time that the router took after that; `null` where none was asked.
    pub routing_ms: Option<f64>,
    /// Time spent drafting.
    pub draft_ms: f64,
    /// Time spent in the target's steps.
    pub verify_ms: f64,
    /// Gross energy in watt-hours, over the whole of [`Report::latency_ms`].
    pub energy_wh: Option<f64>,
    /// The same without what the machine takes when it is idle, where that is known.
    pub energy_net_wh: Option<f64>,
    /// Where these numbers come from: what was measured and how, or the formula of an estimate, or `unavailable`.
    pub energy_source: String,
    /// Doubts about them, in sentences: of most meters that the answer was short.
    pub energy_doubt: Option<String>,
    /// Statement that the tokens are those of plain decoding, bit for bit, or of what was given up.
    pub exactness: String,
    /// Which way was taken.
    pub plan: PlanReport,
    /// Tokens drafted and accepted.
    pub speculation: Speculation,
    /// Changes that were made to meet constraints.
    pub adaptations: Adaptations,
    /// Effect of these changes on the quality.
    pub quality_metrics: QualityMetrics,
    /// Milliseconds of a target step by its number of rows, as known after this answer.
    pub step_costs_ms: BTreeMap<usize, f64>,
    /// Milliseconds of a drafted token, by drafter, as known after this answer.
    pub draft_costs_ms: BTreeMap<String, f64>,
    /// The share of a step that verifying an exit's drafts takes, by exit: their layers are not run again.
    pub verification_shares: BTreeMap<String, f64>,
    /// Layers run by the target, each counted once per token, prefill included; also where one half of a layer is left out. Keys and
    /// values that are only made of an exit's state are not counted.
    pub layer_evaluations: u64,
    /// The precision of the caches' keys and values.
    pub kv_cache: String,
    /// Bytes of the target's keys and values after this answer.
    pub kv_cache_bytes: u64,
    /// Threads of the processor.
    pub threads: usize,
    /// Things that deserve attention, in sentences.
    pub warnings: Vec<String>,
}

/// Which way was taken.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PlanReport {
    /// The drafter that made most of the drafts, or `none`.
    pub drafter: String,
    /// The mean length of its drafts.
    pub draft_length: f64,
    /// Its exit depth, if it is an exit, or that of the exit from which tokens came out unverified.
    pub exit_depth: Option<usize>,
    /// The precision it drafts in.
    pub draft_precision: Option<String>,
    /// The target's precision.
    pub target_precision: String,
    /// Layers that were skipped, attention and MLP both: by the target ([`Adaptations::layers_skipped`]), and by its draft, where
    /// that is one without some parts.
    pub layers_skipped: usize,
    /// The prompt's difficulty, judged by the router.
    pub difficulty: Option<String>,
    /// Router's expectation of each drafter: the effective acceptance of its tokens, with the gain of stopping where it
    /// is unsure; `null` where none was asked.
    pub expected_acceptance: Option<BTreeMap<String, f64>>,
    /// Why, in plain words.
    pub why: String,
}

/// Tokens drafted and accepted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Speculation {
    /// Steps of the target after the prefill.
    pub steps: u64,
    /// Tokens drafted.
    pub drafted: u64,
    /// Drafted tokens that were looked at: accepted ones and the first rejected of each draft.
    pub evaluated: u64,
    /// Drafted tokens that were kept.
    pub accepted: u64,
    /// Tokens that came out of an exit without verification, by consent.
    pub unverified: u64,
    /// Tokens generated per step of the target, those without verification included; their layers are in
    /// [`Report::layer_evaluations`].
    pub tokens_per_step: f64,
    /// Number of drafts that had their first, second, .. token accepted.
    pub accepted_by_position: Vec<u64>,
    /// The same counts for each drafter that was used.
    pub by_drafter: BTreeMap<String, DrafterCounts>,
}

/// Counts of one drafter.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DrafterCounts {
    /// Rounds in which it drafted.
    pub rounds: u64,
    /// Tokens drafted.
    pub drafted: u64,
    /// Tokens looked at.
    pub evaluated: u64,
    /// Tokens kept.
    pub accepted: u64,
}

/// Changes that were made to meet constraints.
#[derive(Clone, Debug, Serialize)]
pub struct Adaptations {
    /// The precision that the target answered in.
    pub precision: String,
    /// Layers that the target did without, attention and MLP both.
    pub layers_skipped: usize,
    /// Tokens of prompt and answer together.
    pub context_used: usize,
    /// Answers made at once.
    pub batch_size: usize,
    /// The certificate that says what may be given up, in quality `bounded`.
    pub certificate: Option<String>,
}

/// Effects on quality: none in exact mode.
#[derive(Clone, Debug, Serialize)]
pub struct QualityMetrics {
    /// By what share the perplexity is estimated to be above the target's, by the router.
    pub estimated_perplexity_delta: Option<f64>,
    /// The probability that the answer is the target's, by the router.
    pub confidence: Option<f64>,
}

impl Speculation {
    /// Adds a round of `drafter` with `drafted` tokens, of which `evaluated` were looked at and `accepted` kept.
    pub(crate) fn add(&mut self, drafter: Option<&str>, drafted: usize, evaluated: usize, accepted: usize) {
        let evaluated = evaluated as u64;
        self.steps += 1;
        self.drafted += drafted as u64;
        self.evaluated += evaluated;
        self.accepted += accepted as u64;
        if self.accepted_by_position.len() < drafted {
            self.accepted_by_position.resize(drafted, 0);
        }
        self.accepted_by_position.iter_mut().take(accepted).for_each(|count| *count += 1);
        if let Some(drafter) = drafter {
            let counts = self.by_drafter.entry(drafter.to_owned()).or_default();
            counts.rounds += 1;
            counts.drafted += drafted as u64;
            counts.evaluated += evaluated;
            counts.accepted += accepted as u64;
        }
    }

    /// The drafter with the most drafted tokens.
    pub(crate) fn main_drafter(&self) -> Option<(&str, &DrafterCounts)> {
        self.by_drafter.iter().max_by_key(|(_, counts)| counts.drafted).map(|(name, counts)| (name.as_str(), counts))
    }
}

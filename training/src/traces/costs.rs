//! Costs of steps and drafts on this machine: steps by the bench, drafts by answers that are drafted for, as the
//! runtime itself counts it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use paceline::bench::{self, Spread};
use paceline::command::Failure;
use paceline::model::Sequence;
use paceline::{DrafterChoice, Engine, GenerationConfig, Prompt};
use paceline_router::CostTable;
use paceline_router::costs::DrafterCost;

use super::Tracer;

/// Prompts that every drafter answers in a turn, tokens of an answer, and turns.
const PROMPTS: usize = 8;
const TOKENS: usize = 64;
const TURNS: usize = 3;
/// Tokens that a draft model reads to be timed, and how often.
const READ: usize = 128;
const READINGS: usize = 9;
/// Number of times steps are timed.
const REPEATS: usize = 31;

/// Measures target and drafters.
///
/// # Errors
/// If an answer fails.
pub fn measure(engine: &Engine, tracer: &Tracer, prompts: &[Prompt], threads: usize) -> Result<CostTable, Failure> {
    let drafters: Vec<DrafterChoice> = std::iter::once("lookup")
        .chain(tracer.sources.iter().map(|source| source.name.as_str()))
        .map(|name| name.parse().map_err(|error| anyhow::anyhow!("{error}")))
        .collect::<Result<_, _>>()?;
    let (mut drafted, mut shares): (BTreeMap<String, f64>, BTreeMap<String, f64>) = Default::default();
    // Prompts from all over, so that no category decides.
    let stride = (prompts.len() / PROMPTS).max(1);
    for _ in 0..TURNS {
        for drafter in &drafters {
            for prompt in prompts.iter().step_by(stride).take(PROMPTS) {
                let config = GenerationConfig {
                    max_new_tokens: TOKENS,
                    drafter: drafter.clone(),
                    ..GenerationConfig::default()
                };
                let report = match engine.generate(prompt.clone(), &config) {
                    Err(paceline::Error::PromptTooLong { .. }) => continue,
                    begun => begun?.finish()?.report,
                };
                drafted.extend(report.draft_costs_ms);
                shares.extend(report.verification_shares);
            }
        }
    }
    let timed = bench::steps(&tracer.target, threads, REPEATS, &mut |_| {})?;
    let steps = timed.rows.iter().map(|(_, spread)| spread.median).collect();
    let mut costs =
        CostTable { machine: format!("{threads} threads, {}", engine.info().format), steps, drafters: BTreeMap::new() };
    for drafter in &drafters {
        let name = drafter.to_string();
        let token = drafted.get(&name).map_or(0.0, |milliseconds| milliseconds / 1e3);
        let share = shares.get(&name).copied().unwrap_or(1.0);
        costs.drafters.insert(name, DrafterCost { token, share, ..DrafterCost::default() });
    }
    for (name, decoder) in tracer.models() {
        let room = READ.min(decoder.config().context);
        let read = |_| {
            let mut sequence = Sequence::new(Arc::clone(decoder), room);
            let started = Instant::now();
            sequence.prefill(&vec![0; room], room, |_| true);
            started.elapsed().as_secs_f64() / room as f64
        };
        let cost = costs.drafters.entry(name.to_owned()).or_default();
        cost.reading = Spread::of((0..READINGS).map(read).collect()).median;
        cost.bytes = decoder.weight_bytes();
    }
    Ok(costs)
}

//! The family that ships, with its router, while it learns from its answers.

use std::collections::BTreeMap;

use paceline::info::RouterState;
use paceline::{
    DrafterChoice, Engine, EngineConfig, GenerationConfig, Message, Profile, Prompt, Quality, SamplingConfig, SelfDraft,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Task {
    category: String,
    level: String,
    messages: Vec<Message>,
}

/// The first test prompts of every category and level.
fn prompts(each: usize) -> Vec<Prompt> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tasks/test.jsonl");
    let mut taken: BTreeMap<(String, String), usize> = BTreeMap::new();
    let text = std::fs::read_to_string(path).unwrap();
    let tasks = text.lines().map(|line| serde_json::from_str::<Task>(line).unwrap());
    let is_among_the_first = |task: &Task| {
        let taken = taken.entry((task.category.clone(), task.level.clone())).or_default();
        *taken += 1;
        *taken <= each
    };
    tasks.filter(is_among_the_first).map(|task| Prompt::Messages(task.messages)).collect()
}

fn family(state: &std::path::Path, threads: usize) -> EngineConfig {
    let model = |name: &str| format!("{}/models/{name}", env!("CARGO_MANIFEST_DIR")).into();
    EngineConfig {
        draft: vec![model("small"), model("tiny")],
        online_state: Some(state.to_owned()),
        threads,
        ..EngineConfig::new(format!("{}/models/target", env!("CARGO_MANIFEST_DIR")))
    }
}

#[test]
fn the_shipped_router_and_what_it_learns_change_no_token() {
    let prompts = prompts(2);
    assert_eq!(prompts.len(), 48);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    let mut drafters: BTreeMap<String, usize> = BTreeMap::new();
    for threads in [2, 1] {
        // The second engine begins with what the first one learned.
        let engine = Engine::load(&family(&state, threads)).unwrap();
        assert_eq!(engine.info().router, RouterState::Used);
        for temperature in [0.0, 0.7, 1.0, 1.5] {
            for (seed, prompt) in (0..).zip(&prompts) {
                let sampling = SamplingConfig { temperature, seed, ..SamplingConfig::default() };
                let auto = GenerationConfig { sampling, max_new_tokens: 64, ..GenerationConfig::default() };
                let plain = GenerationConfig { drafter: DrafterChoice::None, ..auto.clone() };
                let answer =
                    |config: &GenerationConfig| engine.generate(prompt.clone(), config).unwrap().finish().unwrap();
                let (expected, routed) = (answer(&plain), answer(&auto));
                assert_eq!(routed.tokens, expected.tokens, "prompt {seed} at {temperature} on {threads} threads");
                assert!(routed.report.warnings.is_empty(), "{:?}", routed.report.warnings);
                assert!(routed.report.plan.difficulty.is_some());
                *drafters.entry(routed.report.plan.drafter).or_default() += 1;
            }
        }
        drop(engine);
        assert!(state.exists(), "what was learned is written before the engine is gone");
    }
    assert!(drafters.len() > 1, "prompts differ, and so do plans: {drafters:?}");
}

#[test]
fn capacity_drafts_without_memory_of_its_own_and_odd_prompts_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::load(&family(&folder.path().join("state.json"), 1)).unwrap();
    let ask = |prompt: Prompt, config: &GenerationConfig| engine.generate(prompt, config).unwrap().finish().unwrap();
    for prompt in prompts(1) {
        let config = GenerationConfig { profile: Profile::Capacity, max_new_tokens: 48, ..GenerationConfig::default() };
        let report = ask(prompt, &config).report;
        let drafters: Vec<&String> = report.speculation.by_drafter.keys().collect();
        assert!(drafters.iter().all(|name| !name.starts_with("model:")), "{drafters:?}");
    }
    // One token leaves no states to read, and the longest prompt room for one token.
    let context = engine.info().target.context;
    for tokens in [1, 2, context - 1] {
        let prompt = Prompt::Tokens((0..tokens).map(|place| 300 + (place % 700) as u32).collect());
        let plain =
            GenerationConfig { drafter: DrafterChoice::None, max_new_tokens: 24, ..GenerationConfig::default() };
        let expected = ask(prompt.clone(), &plain);
        let routed = ask(prompt, &GenerationConfig { drafter: DrafterChoice::Auto, ..plain });
        assert_eq!(routed.tokens, expected.tokens, "{tokens}");
        assert!(routed.report.plan.difficulty.is_some());
    }
}

#[test]
fn best_effort_alone_leaves_the_choice_to_the_router_which_estimates_what_it_costs() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    let config = EngineConfig { self_draft: vec![SelfDraft::Int8], ..family(&state, 1) };
    let engine = Engine::load(&config).unwrap();
    let ask = |engine: &Engine, prompt: &Prompt, config: &GenerationConfig| {
        engine.generate(prompt.clone(), config).unwrap().finish().unwrap()
    };
    let exact = GenerationConfig { max_new_tokens: 64, ..GenerationConfig::default() };
    let free = GenerationConfig { quality: Quality::BestEffort, ..exact.clone() };
    let named = GenerationConfig { lower_precision: Some(SelfDraft::Int8), ..free.clone() };
    let (mut estimated, mut same) = (0.0, 0);
    let prompts = prompts(2);
    for prompt in &prompts {
        let (expected, found) = (ask(&engine, prompt, &exact), ask(&engine, prompt, &free));
        assert_eq!(
            (expected.report.adaptations.precision.as_str(), expected.report.quality_metrics.confidence),
            ("bf16", None)
        );
        assert_eq!(found.report.adaptations.precision, "int8");
        assert!(found.report.exactness.contains("lossy"), "{}", found.report.exactness);
        assert_eq!(found.tokens, ask(&engine, prompt, &named).tokens);
        let delta = found.report.quality_metrics.estimated_perplexity_delta.unwrap();
        assert!((0.0..0.05).contains(&delta), "{delta}");
        estimated += found.report.quality_metrics.confidence.unwrap();
        same += usize::from(found.tokens == expected.tokens);
    }
    let (estimated, same) = (estimated / prompts.len() as f64, same as f64 / prompts.len() as f64);
    assert!((estimated - same).abs() < 0.05, "expected {estimated} of the answers to be the same, and {same} are");

    // With nothing loaded to choose from, nothing is given up.
    let engine = Engine::load(&family(&state, 1)).unwrap();
    let (expected, found) = (ask(&engine, &prompts[0], &exact), ask(&engine, &prompts[0], &free));
    assert_eq!(found.tokens, expected.tokens);
    assert_eq!(found.report.adaptations.precision, "bf16");
}

//! What is given up by consent: it is what was asked for, nothing else, and never in exact mode.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use paceline::checkpoint::Checkpoint;
use paceline::drafters::skip_search::cut_text;
use paceline::model::importance::block_influence;
use paceline::model::{Decoder, Sequence};
use paceline::sampling::{Sampler, SamplingConfig};
use paceline::speculation::early::MOST_IN_A_ROW;
use paceline::{Answer, DraftLength, Engine, EngineConfig, GenerationConfig, Precision, Prompt, Quality, SelfDraft};

use crate::exits::{ExitsFile, cpu};
use crate::support::fixture;

/// The model that ships, whose exits are trained.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/target")
}

fn engine(config: EngineConfig) -> Engine {
    Engine::load(&EngineConfig { threads: 2, ..config }).unwrap()
}

fn best_effort() -> GenerationConfig {
    GenerationConfig { quality: Quality::BestEffort, max_new_tokens: 40, ..GenerationConfig::default() }
}

fn leaving_at(threshold: f64) -> GenerationConfig {
    GenerationConfig { exit_threshold: Some(threshold), ..best_effort() }
}

fn answer(engine: &Engine, prompt: &str, config: &GenerationConfig) -> Answer {
    engine.generate(Prompt::Text(prompt.to_owned()), config).unwrap().finish().unwrap()
}

const QUESTIONS: [&str; 4] = [
    "<|user|>\nSort these words: pear fig apple\n<|assistant|>\n",
    "<|user|>\nWhat is 17 + 25?\n<|assistant|>\n",
    "Once upon a time there was a",
    "1 2 3 4 1 2 3 4 1 2",
];

fn sampled(temperature: f32, seed: u64) -> SamplingConfig {
    SamplingConfig { temperature, seed, ..SamplingConfig::default() }
}

#[test]
fn at_a_threshold_of_one_the_answer_is_that_of_plain_decoding() {
    let engine = engine(EngineConfig::new(shipped()));
    for prompt in QUESTIONS {
        for (temperature, seed) in [(0.0, 0), (1.0, 3), (1.5, 4)] {
            let sampling = sampled(temperature, seed);
            let plain = GenerationConfig { drafter: "none".parse().unwrap(), max_new_tokens: 40, ..Default::default() };
            let plain = answer(&engine, prompt, &GenerationConfig { sampling: sampling.clone(), ..plain });
            let found = answer(&engine, prompt, &GenerationConfig { sampling: sampling.clone(), ..leaving_at(1.0) });
            assert_eq!(found.tokens, plain.tokens, "{prompt:?} at {temperature}");
            assert_eq!(found.report.speculation.unverified, 0);
            assert_eq!(found.report.exactness, "bit-identical to plain decoding");
            // Consent without a plan gives nothing up.
            let found = answer(&engine, prompt, &GenerationConfig { sampling, ..best_effort() });
            assert_eq!((found.tokens, found.report.speculation.unverified), (plain.tokens, 0));
            assert_eq!(found.report.exactness, "bit-identical to plain decoding");
        }
    }
}

/// Every token is what the exit picks after the text so far where it is sure, and else what the whole model picks: by a loop
/// that lets no token wait. After some that left in a row, one goes through the whole model.
#[test]
fn a_token_comes_from_the_exit_where_it_is_sure_and_else_from_the_model() {
    let target = {
        let checkpoint = Checkpoint::open(&shipped()).unwrap();
        let exits = checkpoint.exits().unwrap().unwrap();
        let decoder = Decoder::load(&checkpoint, None, &cpu(2), &mut |_, _| {}).unwrap();
        Arc::new(decoder.with_exits(&checkpoint, &exits).unwrap())
    };
    let engine = engine(EngineConfig::new(shipped()));
    let mut left = [0, 0];
    for (depth, threshold, temperature) in [(2, 0.5, 0.0), (2, 0.99, 1.0), (6, 0.9, 0.7), (9, 0.9, 0.0)] {
        let head = *target.exits().find(|exit| exit.depth == depth).unwrap();
        for prompt in QUESTIONS {
            let sampling = SamplingConfig { repetition_penalty: 1.2, top_k: 50, ..sampled(temperature, 5) };
            let drafter = format!("exit:{depth}").parse().unwrap();
            let config =
                GenerationConfig { drafter, sampling: sampling.clone(), ignore_eos: true, ..leaving_at(threshold) };
            let found = answer(&engine, prompt, &config);
            let mut sampler = Sampler::new(&sampling).unwrap();
            let mut text = found.prompt_tokens.clone();
            let mut sequence = Sequence::new(Arc::clone(&target), text.len() + found.tokens.len());
            sequence.prefill(&text[..text.len() - 1], 64, |_| true);
            let (mut expected_left, mut in_a_row) = (0, 0);
            for index in 0..found.tokens.len() {
                let last = text[text.len() - 1];
                let early = sequence.leave_early(last, depth).unwrap();
                let weights = early.iter().map(|logit| f64::from(logit / head.temperature).exp());
                let (largest, sum) =
                    weights.fold((0.0, 0.0), |(largest, sum): (f64, f64), w| (largest.max(w), sum + w));
                let logits = if in_a_row < MOST_IN_A_ROW && largest / sum >= threshold {
                    in_a_row += 1;
                    expected_left += 1;
                    sequence.propagate(1);
                    early
                } else {
                    in_a_row = 0;
                    sequence.next_logits(&[last])
                };
                text.push(sampler.pick(&logits, &text, index as u64).unwrap());
            }
            assert_eq!(text[found.prompt_tokens.len()..], found.tokens, "exit:{depth}, {threshold}, {prompt:?}");
            assert_eq!(found.report.speculation.unverified, expected_left);
            let steps = found.report.speculation.steps;
            assert_eq!(found.tokens.len() as u64, steps + expected_left);
            left[0] += expected_left;
            left[1] += steps;
        }
    }
    assert!(left.iter().all(|count| *count > 50), "both ways are taken: {left:?}");
}

#[test]
fn the_lower_the_threshold_the_fewer_layers_run_and_the_report_says_what_was_given_up() {
    let engine = engine(EngineConfig::new(shipped()));
    let mut last = (u64::MAX, 0);
    for threshold in [1.0, 0.999, 0.9, 0.5] {
        let (mut layers, mut unverified) = (0, 0);
        for prompt in QUESTIONS {
            let config =
                GenerationConfig { ignore_eos: true, drafter: "exit:3".parse().unwrap(), ..leaving_at(threshold) };
            let found = answer(&engine, prompt, &config);
            let report = &found.report;
            let left = report.speculation.unverified;
            layers += report.layer_evaluations;
            unverified += left;
            assert_eq!((report.plan.drafter.as_str(), report.plan.exit_depth), ("none", Some(3)));
            assert_eq!((report.speculation.drafted, report.speculation.accepted), (0, 0));
            assert_eq!(report.speculation.steps + left, 40);
            assert_eq!((report.adaptations.layers_skipped, report.adaptations.precision.as_str()), (0, "bf16"));
            let words = format!("lossy: {left} of 40 tokens left the target after layer 3 without verification");
            assert_eq!(report.exactness.contains(&words), left > 0, "{}", report.exactness);
        }
        assert!(
            layers < last.0 && unverified >= last.1,
            "{threshold}: {layers} layers, {unverified} tokens after {last:?}"
        );
        last = (layers, unverified);
    }
    assert!(last.1 > 80, "{last:?}");
}

/// A lossy target is a target: whatever drafts for it changes nothing. Against one that does without what adds nothing, too.
#[test]
fn drafts_change_nothing_for_a_target_without_some_layers() {
    let model = ExitsFile::new("qwen3-qknorm", 5).write();
    let engines = [1, 2].map(|threads| {
        let config = EngineConfig {
            self_draft: vec![SelfDraft::Int8, SelfDraft::Int4],
            skip_plan: Some("a0".parse().unwrap()),
            ..EngineConfig::new(model.path())
        };
        Engine::load(&EngineConfig { threads, ..config }).unwrap()
    });
    let layers = engines[0].info().target.layers;
    let mut drafters: Vec<String> =
        ["auto", "lookup", "self:int8", "self:int4", "skip:a0", "skip:m1,2"].map(String::from).into();
    drafters.extend((1..layers).map(|depth| format!("exit:{depth}")));
    let mut different = 0;
    for choice in ["uniform:1", "importance:1", "a1", "0,m2", "a0,a1"] {
        for (temperature, seed) in [(0.0, 0), (1.0, 1)] {
            for prompt in ["A paceline is", "1 2 3 4 1 2 3 4 1 2"] {
                let config = |drafter: &str, draft_len| GenerationConfig {
                    skip_layers: Some(choice.parse().unwrap()),
                    sampling: sampled(temperature, seed),
                    ignore_eos: true,
                    drafter: drafter.parse().unwrap(),
                    draft_len,
                    ..best_effort()
                };
                let expected = answer(&engines[0], prompt, &config("none", DraftLength::Auto));
                assert!(expected.report.exactness.starts_with("lossy: the target did without "));
                let whole = GenerationConfig { skip_layers: None, ..config("none", DraftLength::Auto) };
                different += usize::from(answer(&engines[0], prompt, &whole).tokens != expected.tokens);
                for engine in &engines {
                    for drafter in &drafters {
                        for length in [DraftLength::Auto, DraftLength::Fixed(5)] {
                            let found = answer(engine, prompt, &config(drafter, length));
                            assert_eq!(found.tokens, expected.tokens, "{choice}, {drafter}, {length} at {temperature}");
                            let skipped = if choice == "a1" || choice == "a0,a1" { 0 } else { 1 };
                            assert_eq!(found.report.adaptations.layers_skipped, skipped, "{choice}");
                            assert!(found.report.plan.layers_skipped >= skipped);
                        }
                    }
                }
            }
        }
    }
    assert!(different > 10, "what is skipped makes a difference: {different}");
}

#[test]
fn layers_that_do_not_run_are_not_counted() {
    let engine = engine(EngineConfig::new(fixture("qwen3-qknorm")));
    let layers = engine.info().target.layers as u64;
    let config = |choice: &str| GenerationConfig {
        skip_layers: Some(choice.parse().unwrap()),
        drafter: "none".parse().unwrap(),
        ignore_eos: true,
        ..best_effort()
    };
    for (choice, runs, caches) in
        [("early:1", layers - 1, layers - 1), ("a1", layers, layers - 1), ("m1", layers, layers)]
    {
        let found = answer(&engine, "A paceline is", &config(choice));
        let tokens = found.report.adaptations.context_used as u64 - 1;
        assert_eq!(found.report.layer_evaluations, runs * tokens, "{choice}");
        assert_eq!(found.report.kv_cache_bytes, engine.info().cache_bytes_per_token / layers * caches * tokens);
    }
}

#[test]
fn a_lower_precision_answers_as_if_it_had_been_named_for_the_target() {
    let loaded = [SelfDraft::Int8, SelfDraft::Int4];
    let both = engine(EngineConfig { self_draft: loaded.to_vec(), ..EngineConfig::new(fixture("llama-tied")) });
    for (lower, precision) in loaded.into_iter().zip([Precision::Int8, Precision::Int4]) {
        let alone = engine(EngineConfig { precision, ..EngineConfig::new(fixture("llama-tied")) });
        for drafter in ["none", "auto", "lookup", "exit:1", "skip:a0", "self:int4"] {
            let is_own = drafter == "self:int4" && lower == SelfDraft::Int4;
            let config =
                GenerationConfig { drafter: drafter.parse().unwrap(), lower_precision: Some(lower), ..best_effort() };
            if is_own {
                let error = both.generate(Prompt::Text("x".into()), &config).err().unwrap().to_string();
                assert!(error.contains("would not be cheaper"), "{error}");
                continue;
            }
            let plain = GenerationConfig { max_new_tokens: 40, drafter: "none".parse().unwrap(), ..Default::default() };
            let found = answer(&both, "A paceline is", &config);
            assert_eq!(found.tokens, answer(&alone, "A paceline is", &plain).tokens, "{drafter}, {lower:?}");
            let report = found.report;
            assert_eq!(report.exactness, format!("lossy: the target answered in {} instead of f32", lower.format()));
            assert_eq!(
                (report.adaptations.precision, report.plan.target_precision),
                (lower.format().to_string(), lower.format().to_string())
            );
        }
    }
    // What was answered by others stays as it was.
    let plain = GenerationConfig { max_new_tokens: 40, ..Default::default() };
    let alone = engine(EngineConfig::new(fixture("llama-tied")));
    assert_eq!(answer(&both, "A paceline is", &plain).tokens, answer(&alone, "A paceline is", &plain).tokens);
}

/// Importance is block influence, on the text that was given; it is measured for the first answer that asks and kept.
#[test]
fn the_least_important_layers_of_a_text_are_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text");
    std::fs::write(&path, QUESTIONS.concat().repeat(30)).unwrap();
    let given = engine(EngineConfig { importance_text: Some(path), ..EngineConfig::new(shipped()) });
    let own = engine(EngineConfig::new(shipped()));
    let tokens = own.tokenizer().encode_chat(&QUESTIONS.concat().repeat(30)).unwrap();
    let parts = cut_text(&tokens, own.info().target.context, 384).into_iter().map(|(part, _)| part).collect::<Vec<_>>();
    assert_eq!(parts.len(), 6);
    let influence = block_influence(&crate::support::decoder(&shipped(), 1), &parts);
    let mut order: Vec<usize> = (1..11).collect();
    order.sort_by(|a, b| influence[*a].total_cmp(&influence[*b]));
    let skipped = |engine: &Engine, count: usize| {
        let choice = Some(format!("importance:{count}").parse().unwrap());
        answer(engine, "1 2", &GenerationConfig { skip_layers: choice, max_new_tokens: 2, ..best_effort() })
            .report
            .exactness
    };
    let mut different = false;
    for count in [1, 2, 3, 4, 1] {
        let mut least = order[..count].to_vec();
        least.sort_unstable();
        let least = least.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(skipped(&given, count), format!("lossy: the target did without {least}"));
        different |= skipped(&own, count) != skipped(&given, count);
    }
    assert!(different, "the text makes a difference");
}

/// What exact mode refuses, what nobody can promise, and what a model has not.
#[test]
fn what_cannot_be_given_up_is_refused_with_a_sentence() {
    let plain = engine(EngineConfig::new(fixture("llama-tied")));
    let exits = engine(EngineConfig::new(shipped()));
    let ask = |engine: &Engine, config: &GenerationConfig| {
        let error = engine.generate(Prompt::Text("x".into()), config).err().map(|error| error.to_string());
        error.unwrap_or_default()
    };
    let exact = |config| GenerationConfig { quality: Quality::Exact, ..config };
    let (leaving, skipping) =
        (leaving_at(0.9), GenerationConfig { skip_layers: Some("early:1".parse().unwrap()), ..best_effort() });
    let lower = GenerationConfig { lower_precision: Some(SelfDraft::Int4), ..best_effort() };
    let bounded = |quality_floor| GenerationConfig { quality: Quality::Bounded, quality_floor, ..Default::default() };
    let with =
        |drafter: &str, threshold| GenerationConfig { drafter: drafter.parse().unwrap(), ..leaving_at(threshold) };
    for (engine, config, words) in [
        (&exits, exact(leaving.clone()), &["`exit-threshold`", "`exact`", "--quality best-effort"][..]),
        (&plain, exact(skipping.clone()), &["`skip-layers`", "`exact`", "--quality best-effort"]),
        (&plain, exact(lower.clone()), &["`lower-precision`", "`exact`", "--quality best-effort"]),
        (&exits, bounded(None), &["--quality-floor"]),
        (&exits, bounded(Some(0.98)), &["0.98", "certificate", "`exact`", "`best-effort`"]),
        (&exits, bounded(Some(1.5)), &["quality-floor", "1.5", "0 to 1"]),
        (&exits, bounded(Some(f64::NAN)), &["quality-floor", "NaN"]),
        (&exits, GenerationConfig { quality_floor: Some(0.9), ..best_effort() }, &["best-effort", "floor"]),
        (&exits, leaving_at(0.49), &["exit-threshold", "0.49", "0.5 to 1"]),
        (&exits, leaving_at(f64::NAN), &["exit-threshold", "NaN"]),
        (&exits, with("lookup", 0.9), &["`lookup`", "`exit:E`"]),
        (&exits, with("exit:5", 0.9), &["`exit:5` was not", "exit:2, exit:3"]),
        (&exits, with("exit:12", 0.9), &["`exit:12` does not exist"]),
        (&plain, leaving.clone(), &["paceline-train exits"]),
        (
            &plain,
            GenerationConfig { skip_layers: Some("late:2".parse().unwrap()), ..best_effort() },
            &["`late:2`", "1 to 1"],
        ),
        (&plain, GenerationConfig { skip_layers: Some("a3".parse().unwrap()), ..best_effort() }, &["`a3`", "3 layers"]),
        (&plain, lower, &["int4", "self-draft"]),
        (
            &exits,
            GenerationConfig { skip_layers: skipping.skip_layers, ..leaving },
            &["`exit-threshold` and `skip-layers`"],
        ),
    ] {
        let told = ask(engine, &config);
        assert!(words.iter().all(|word| told.contains(word)) && told.ends_with('.'), "{words:?}: {told}");
    }
}

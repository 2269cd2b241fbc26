//! The promise, through the front door: an engine's tokens are those of `--drafter none`, whatever drafts,
//! however far, on however many threads, at every temperature.

use std::path::{Path, PathBuf};

use paceline::sampling::SamplingConfig;
use paceline::{
    CachePrecision, DraftLength, DrafterChoice, Engine, EngineConfig, GenerationConfig, Precision, Prompt, SelfDraft,
};

use crate::draft_vocabulary;
use crate::exits::ExitsFile;
use crate::support::{copy_of, fixture, shared};

/// What is compared on one target.
struct Suite<'a> {
    target: &'a Path,
    drafts: &'a [PathBuf],
    precision: Precision,
    kv_cache: CachePrecision,
    self_draft: &'a [SelfDraft],
    skip_plans: &'a [&'a str],
    prompts: &'a [&'a str],
    new_tokens: usize,
    seeds: u64,
}

impl Suite<'_> {
    fn engine(&self, threads: usize) -> Engine {
        let config = EngineConfig {
            draft: self.drafts.to_vec(),
            threads,
            precision: self.precision,
            kv_cache: self.kv_cache,
            self_draft: self.self_draft.to_vec(),
            skip_plan: self.skip_plans.first().map(|plan| plan.parse().unwrap()),
            ..EngineConfig::new(self.target)
        };
        Engine::load(&config).unwrap()
    }

    /// Compares every drafter at every length, temperature, seed and thread count with plain decoding; the
    /// number of comparisons.
    fn check(&self) {
        let engines = [self.engine(1), self.engine(2)];
        let layers = engines[0].info().target.layers;
        let mut drafters = vec![DrafterChoice::Auto, DrafterChoice::Lookup];
        drafters.extend(engines[0].info().drafts.iter().map(|name| DrafterChoice::Model(Some(name.clone()))));
        drafters.extend((1..layers).map(DrafterChoice::Exit));
        drafters.extend(self.self_draft.iter().map(|draft| DrafterChoice::SelfQuantized(draft.format())));
        drafters.extend(self.skip_plans.iter().map(|plan| DrafterChoice::Skip(plan.parse().unwrap())));
        let lengths = [1, 4, 8, 16].map(DraftLength::Fixed).into_iter().chain([DraftLength::Auto]);
        let lengths: Vec<DraftLength> = lengths.collect();
        let mut comparisons = 0;
        for prompt in self.prompts {
            for temperature in [0.0, 0.7, 1.0, 1.5] {
                for seed in 0..if temperature == 0.0 { 1 } else { self.seeds } {
                    let config = |drafter: &DrafterChoice, draft_len| GenerationConfig {
                        max_new_tokens: self.new_tokens,
                        sampling: SamplingConfig { temperature, seed, ..SamplingConfig::default() },
                        ignore_eos: true,
                        drafter: drafter.clone(),
                        draft_len,
                        ..GenerationConfig::default()
                    };
                    let tokens = |engine: &Engine, config: &GenerationConfig| {
                        engine.generate(Prompt::Text((*prompt).to_owned()), config).unwrap().finish().unwrap().tokens
                    };
                    let expected = tokens(&engines[0], &config(&DrafterChoice::None, DraftLength::Auto));
                    assert!(!expected.is_empty());
                    for engine in &engines {
                        for drafter in &drafters {
                            for length in &lengths {
                                let found = tokens(engine, &config(drafter, *length));
                                assert_eq!(
                                    found,
                                    expected,
                                    "{}: {drafter}, length {length}, temperature {temperature}, seed {seed}, {} threads, {prompt:?}",
                                    self.target.display(),
                                    engine.info().threads
                                );
                                comparisons += 1;
                            }
                        }
                    }
                }
            }
        }
        let runs = self.prompts.len() * (1 + 3 * self.seeds as usize);
        let drafters = 2 + self.drafts.len() + layers - 1 + self.self_draft.len() + self.skip_plans.len();
        assert_eq!(comparisons, runs * 2 * drafters * 5, "a drafter, a length or a thread count was left out");
        println!("{}: {comparisons} token lists equal those of plain decoding", self.target.display());
    }
}

#[test]
fn fixtures_are_exact() {
    let drafts = [fixture("llama-draft")];
    let suite = |name: &str, drafts: &[PathBuf], precision, kv_cache| {
        let prompts = ["A paceline is", "The rider in front", "1 2 3 4 1 2 3 4 1 2"];
        let (target, skip_plans) = (fixture(name), ["a0", "0", "a0,m1"]);
        let self_draft = match precision {
            // Its own integers are no more than these.
            Precision::Auto if name.starts_with("gguf") => &[][..],
            Precision::Int4 => &[][..],
            Precision::Int8 => &[SelfDraft::Int4],
            _ => &[SelfDraft::Int8, SelfDraft::Int4],
        };
        Suite {
            target: &target,
            drafts,
            precision,
            kv_cache,
            self_draft,
            skip_plans: &skip_plans,
            prompts: &prompts,
            new_tokens: 60,
            seeds: 2,
        }
        .check();
    };
    suite("llama-tied", &drafts, Precision::Auto, CachePrecision::F32);
    suite("llama-tied", &drafts, Precision::Auto, CachePrecision::F16);
    suite("llama-tied", &drafts, Precision::Int8, CachePrecision::F32);
    suite("llama-tied", &drafts, Precision::Int4, CachePrecision::F32);
    for name in ["llama-rope3", "mistral-window", "qwen2-bias", "qwen3-qknorm"] {
        suite(name, &[], Precision::Auto, CachePrecision::F32);
    }
    suite("mistral-window", &[], Precision::Auto, CachePrecision::F16);
    for name in ["gguf-llama", "gguf-qwen2"] {
        suite(name, &[], Precision::Auto, CachePrecision::F16);
    }
}

/// A model that somebody else trained: `smollm2-135m.q8_0.gguf` in the folder `PACELINE_REAL_MODELS`, where it is.
#[test]
fn a_real_model_is_exact() {
    let folder = std::env::var_os("PACELINE_REAL_MODELS").map(PathBuf::from);
    let model = folder.map(|folder| folder.join("smollm2-135m.q8_0.gguf")).filter(|model| model.exists());
    let Some(target) = model else {
        println!("skipped: PACELINE_REAL_MODELS names no folder with smollm2-135m.q8_0.gguf");
        return;
    };
    let engine = |threads| {
        let config = EngineConfig { threads, self_draft: vec![SelfDraft::Int4], ..EngineConfig::new(&target) };
        Engine::load(&config).unwrap()
    };
    let engines = [engine(1), engine(2)];
    let prompts = [
        "def fibonacci(n):",
        "The capital of France is",
        "Repeat after me: one two three four, one two three four,",
        "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    ];
    let drafters = ["auto", "lookup", "self:int4", "exit:10", "exit:20", "skip:a3,m3,5"];
    for (number, prompt) in prompts.iter().enumerate() {
        for temperature in [0.0, 0.8] {
            let config = |drafter: &str, draft_len| GenerationConfig {
                max_new_tokens: 96,
                sampling: SamplingConfig { temperature, seed: number as u64, ..SamplingConfig::default() },
                ignore_eos: true,
                drafter: drafter.parse().unwrap(),
                draft_len,
                ..GenerationConfig::default()
            };
            let tokens = |engine: &Engine, config: &GenerationConfig| {
                engine.generate(Prompt::Text((*prompt).to_owned()), config).unwrap().finish().unwrap().tokens
            };
            let expected = tokens(&engines[0], &config("none", DraftLength::Auto));
            assert_eq!(expected.len(), 96);
            for drafter in drafters {
                for (engine, length) in [(0, DraftLength::Fixed(4)), (1, DraftLength::Fixed(9)), (1, DraftLength::Auto)]
                {
                    let found = tokens(&engines[engine], &config(drafter, length));
                    assert_eq!(found, expected, "{drafter}, length {length}, temperature {temperature}, {prompt:?}");
                }
            }
        }
    }
}

/// Heads that draft anything but what the model would: only the verifier decides.
#[test]
fn trained_exits_are_exact() {
    for (name, precision) in
        [("llama-tied", Precision::Auto), ("llama-tied", Precision::Int8), ("qwen3-qknorm", Precision::Auto)]
    {
        let model = ExitsFile::new(name, 5).write();
        Suite {
            target: model.path(),
            drafts: &[],
            precision,
            kv_cache: CachePrecision::F32,
            self_draft: &[],
            skip_plans: &[],
            prompts: &["A paceline is", "1 2 3 4 1 2 3 4 1 2"],
            new_tokens: 60,
            seeds: 2,
        }
        .check();
    }
}

#[test]
fn drafts_of_some_tokens_are_exact() {
    let (target, draft) = (ExitsFile::new("llama-tied", 5).write(), copy_of("llama-draft"));
    for model in [target.path(), draft.path()] {
        draft_vocabulary::write(model);
    }
    for precision in [Precision::Auto, Precision::Int4] {
        Suite {
            target: target.path(),
            drafts: &[draft.path().to_owned()],
            precision,
            kv_cache: CachePrecision::F32,
            self_draft: &[],
            skip_plans: &[],
            prompts: &["A paceline is", "1 2 3 4 1 2 3 4 1 2"],
            new_tokens: 60,
            seeds: 2,
        }
        .check();
    }
}

#[test]
fn development_models_are_exact() {
    let Some(models) = shared("models", "development_models_are_exact") else { return };
    let prompts = ["Once upon a time", "Tom had a big red ball. He", "It was a rainy day and Sara was sad because"];
    let check = |name: &str, drafts: &[PathBuf]| {
        let target = models.join(name);
        let (precision, kv_cache) = (Precision::Auto, CachePrecision::F32);
        Suite {
            target: &target,
            drafts,
            precision,
            kv_cache,
            self_draft: &[SelfDraft::Int4],
            skip_plans: &["a0"],
            prompts: &prompts,
            new_tokens: 96,
            seeds: 3,
        }
        .check();
    };
    check("babyllama-a", &[models.join("babyllama-b")]);
    check("stories-260k", &[]);
    check("tinystories-656k", &[]);
}

//! Bounded answers: what a certificate allows and nothing else, for as long as it holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use paceline::certificate::{
    Calibration, Certificate, CertifiedLevel, Conditions, FOLDER, Loss, Rendering, Tested, VERSION,
};
use paceline::{
    Answer, DrafterChoice, Engine, EngineConfig, GenerationConfig, Message, Precision, Prompt, Quality, RequestHints,
    SamplingConfig, SelfDraft,
};
use paceline_router::Lossy;
use paceline_router::network::LEVELS;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/target")
}

/// The model that ships, in both lower precisions too.
fn config() -> EngineConfig {
    EngineConfig { self_draft: vec![SelfDraft::Int8, SelfDraft::Int4], threads: 2, ..EngineConfig::new(shipped()) }
}

/// What certificates for it hold for.
static CONDITIONS: LazyLock<Conditions> =
    LazyLock::new(|| Conditions::of(Engine::load(&config()).unwrap().info()).unwrap());

fn int8() -> Lossy {
    Lossy::Precision("int8".into())
}

/// A certificate made by hand for this floor, which allows these plans for simple, medium and complex prompts.
fn certificate(floor: f64, plans: [Option<Lossy>; 3]) -> Certificate {
    let mut bundles: Vec<Lossy> = Vec::new();
    for plan in plans.iter().flatten() {
        if !bundles.contains(plan) {
            bundles.push(plan.clone());
        }
    }
    let level = |(name, plan): (&str, Option<Lossy>)| {
        let last = plan.as_ref().and_then(|plan| bundles.iter().position(|bundle| bundle == plan));
        let tested = |(place, bundle): (usize, &Lossy)| {
            let passes = last.is_some_and(|last| place <= last);
            Tested { plan: bundle.clone(), losses: 10.0, risk: 0.001, p_value: if passes { 1e-9 } else { 0.5 } }
        };
        let tested = bundles.iter().enumerate().take(last.map_or(1, |last| last + 2)).map(tested).collect();
        CertifiedLevel {
            level: name.to_owned(),
            n: 10_000,
            losses: if plan.is_some() { 10.0 } else { 0.0 },
            risk: if plan.is_some() { 0.001 } else { 0.0 },
            p_value: plan.is_some().then_some(1e-9),
            plan,
            tested,
        }
    };
    Certificate {
        version: VERSION,
        floor,
        eps: 1.0 - floor,
        delta: 0.05,
        claims: 3,
        levels: LEVELS.into_iter().zip(plans).map(level).collect(),
        bundles,
        calibration: Calibration {
            tasks: "0".repeat(16),
            n: 30_000,
            max_new_tokens: 256,
            rendering: Rendering::Messages,
            loss: Loss::Answers,
        },
        conditions: CONDITIONS.clone(),
        checksum: String::new(),
    }
}

/// Files of certificates, gone when the test ends.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, certificate: &Certificate) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, certificate.to_json().unwrap()).unwrap();
        path
    }
}

/// The first test prompts of every category and level.
fn prompts(each: usize) -> Vec<Prompt> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tasks/test.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let mut taken: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut prompts = Vec::new();
    for line in text.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| row[key].as_str().unwrap().to_owned();
        let taken = taken.entry((word("category"), word("level"))).or_default();
        *taken += 1;
        if *taken <= each {
            let messages: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
            prompts.push(Prompt::Messages(messages));
        }
    }
    prompts
}

fn bounded(floor: f64) -> GenerationConfig {
    GenerationConfig {
        quality: Quality::Bounded,
        quality_floor: Some(floor),
        max_new_tokens: 48,
        ..GenerationConfig::default()
    }
}

/// What asks for a plan by name.
fn named(plan: &Option<Lossy>) -> GenerationConfig {
    let free = GenerationConfig { quality: Quality::BestEffort, max_new_tokens: 48, ..GenerationConfig::default() };
    match plan {
        None => GenerationConfig { quality: Quality::Exact, ..free },
        Some(Lossy::Exit { depth, threshold }) => {
            GenerationConfig { drafter: DrafterChoice::Exit(*depth), exit_threshold: Some(*threshold), ..free }
        }
        Some(Lossy::Skip(plan)) => GenerationConfig { skip_layers: Some(plan.parse().unwrap()), ..free },
        Some(Lossy::Precision(name)) => {
            GenerationConfig { lower_precision: Some(serde_json::from_value(name.clone().into()).unwrap()), ..free }
        }
    }
}

fn ask(engine: &Engine, prompt: &Prompt, config: &GenerationConfig) -> Answer {
    engine.generate(prompt.clone(), config).unwrap().finish().unwrap()
}

/// Plans that change much, so that answers show which of them was followed.
fn different_plans() -> [[Option<Lossy>; 3]; 2] {
    let exit = Some(Lossy::Exit { depth: 2, threshold: 0.6 });
    [
        [Some(Lossy::Skip("7,8,10".into())), exit.clone(), None],
        [exit, Some(Lossy::Precision("int4".into())), Some(int8())],
    ]
}

#[test]
fn bounded_answers_are_those_of_the_certified_plan_for_the_prompts_level() {
    let files = Files::new();
    let exact = Engine::load(&config()).unwrap();
    let prompts = prompts(2);
    for (place, plans) in different_plans().into_iter().enumerate() {
        let path = files.write(&format!("{place}.json"), &certificate(0.9, plans.clone()));
        let engine = Engine::load(&EngineConfig { certificate: vec![path.clone()], ..config() }).unwrap();
        let mut seen: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for prompt in &prompts {
            let whole = ask(&exact, prompt, &named(&None));
            let level = whole.report.plan.difficulty.clone().unwrap();
            let plan = &plans[LEVELS.iter().position(|name| *name == level).unwrap()];
            let expected = ask(&exact, prompt, &named(plan));
            // Whatever drafts, and however low the floor is.
            for (floor, drafter) in [(0.9, "auto"), (0.5, "none"), (0.85, "lookup")] {
                let asked = GenerationConfig { drafter: drafter.parse().unwrap(), ..bounded(floor) };
                let found = ask(&engine, prompt, &asked);
                assert_eq!(found.tokens, expected.tokens, "{plan:?} for a {level} prompt, {drafter}");
                let report = &found.report;
                assert_eq!(report.plan.difficulty.as_deref(), Some(&*level));
                assert_eq!(report.adaptations.certificate.as_deref(), path.to_str());
                assert_eq!(report.adaptations.precision, expected.report.adaptations.precision);
                assert_eq!(report.adaptations.layers_skipped, expected.report.adaptations.layers_skipped);
                let words = [&*format!("takes to be {level}"), "floor of 0.9", "95%", "at most 10%", "30000"];
                assert!(words.iter().all(|word| report.plan.why.contains(word)), "{}", report.plan.why);
                let is_lossy = expected.report.exactness.starts_with("lossy: ");
                assert!(report.exactness.starts_with(&expected.report.exactness), "{}", report.exactness);
                assert_eq!(report.exactness.contains("within a quality floor of 0.9 by"), is_lossy);
            }
            let seen = seen.entry(level).or_default();
            *seen = [seen[0] + 1, seen[1] + usize::from(expected.tokens != whole.tokens)];
        }
        assert_eq!(seen.len(), 3, "all levels come up: {seen:?}");
        assert!(seen.values().map(|[_, other]| other).sum::<usize>() > 3, "plans make a difference: {seen:?}");
    }
}

#[test]
fn where_all_levels_have_one_plan_it_is_followed_without_a_judgement() {
    let files = Files::new();
    let path = files.write("c.json", &certificate(0.9, [(); 3].map(|()| Some(int8()))));
    let engine = Engine::load(&EngineConfig { certificate: vec![path], ..config() }).unwrap();
    for prompt in prompts(1) {
        let drafter = DrafterChoice::None;
        let found = ask(&engine, &prompt, &GenerationConfig { drafter: drafter.clone(), ..bounded(0.9) });
        let plainly = GenerationConfig { drafter, ..named(&Some(int8())) };
        let expected = ask(&engine, &prompt, &plainly);
        assert_eq!(found.tokens, expected.tokens);
        assert_eq!(found.report.layer_evaluations, expected.report.layer_evaluations);
        assert!(found.report.plan.why.contains("all prompts"), "{}", found.report.plan.why);
    }
}

#[test]
fn the_lowest_floor_that_is_high_enough_is_taken() {
    let files = Files::new();
    let all = |plan: Option<Lossy>| [(); 3].map(|()| plan.clone());
    let strict = files.write("strict.json", &certificate(0.99, all(None)));
    let loose = files.write("loose.json", &certificate(0.9, all(Some(Lossy::Precision("int4".into())))));
    let middle = files.write("middle.json", &certificate(0.95, all(Some(int8()))));
    let engine = Engine::load(&EngineConfig { certificate: vec![strict, loose, middle], ..config() }).unwrap();
    let prompt = &prompts(1)[0];
    for (floor, precision) in
        [(0.0, "int4"), (0.9, "int4"), (0.91, "int8"), (0.95, "int8"), (0.96, "bf16"), (0.99, "bf16")]
    {
        assert_eq!(ask(&engine, prompt, &bounded(floor)).report.adaptations.precision, precision, "{floor}");
    }
    let error = engine.generate(prompt.clone(), &bounded(0.995)).err().unwrap().to_string();
    let words = ["0.995", "only those for 0.99, 0.9, 0.95", "paceline-eval certify --floor 0.995", "published with it"];
    assert!(words.iter().all(|word| error.contains(word)) && error.ends_with('.'), "{error}");
    // All of the quality is kept by the target in full, whatever certificates say.
    let whole = ask(&engine, prompt, &bounded(1.0));
    assert_eq!(whole.tokens, ask(&engine, prompt, &named(&None)).tokens);
    assert_eq!(whole.report.exactness, "bit-identical to plain decoding");
    assert_eq!((whole.report.adaptations.certificate, engine.calibrated_tokens(1.0)), (None, None));
    assert_eq!((engine.calibrated_tokens(0.9), engine.calibrated_tokens(0.995)), (Some(256), None));
}

/// What was learned while serving, what a request says of itself and how busy the engine was change no bounded choice.
#[test]
fn online_learning_and_hints_do_not_change_bounded_choices() {
    let files = Files::new();
    let plans = different_plans()[1].clone();
    let path = files.write("c.json", &certificate(0.9, plans));
    let state = files.0.path().join("state.json");
    let learning = EngineConfig { certificate: vec![path.clone()], online_state: Some(state.clone()), ..config() };
    let frozen = EngineConfig { certificate: vec![path], frozen: true, ..config() };
    let prompts = prompts(2);
    let choices = |engine: &Engine, hints: RequestHints| -> Vec<(Vec<u32>, Option<String>)> {
        let config = GenerationConfig { hints, ..bounded(0.9) };
        let of = |prompt: &Prompt| {
            let answer = ask(engine, prompt, &config);
            (answer.tokens, answer.report.plan.difficulty)
        };
        prompts.iter().map(of).collect()
    };
    let hints = RequestHints { turn: Some(9.0), past_acceptance: Some(0.0), relevance: Some(0.0), load: Some(1.0) };
    let expected = choices(&Engine::load(&frozen).unwrap(), RequestHints::default());
    assert_eq!(choices(&Engine::load(&frozen).unwrap(), hints), expected);
    for _ in 0..2 {
        let engine = Engine::load(&learning).unwrap();
        for prompt in &prompts {
            ask(&engine, prompt, &GenerationConfig { max_new_tokens: 48, ..GenerationConfig::default() });
        }
        assert_eq!(choices(&engine, hints), expected);
    }
    assert!(state.exists(), "something was learned");
    // Hints do reach the router where nothing is certified.
    let engine = Engine::load(&frozen).unwrap();
    let expectations = |hints: RequestHints| {
        let exact = GenerationConfig { hints, max_new_tokens: 2, ..GenerationConfig::default() };
        prompts.iter().map(|prompt| ask(&engine, prompt, &exact).report.plan.expected_acceptance).collect::<Vec<_>>()
    };
    assert!(expectations(hints) != expectations(RequestHints::default()));
}

#[test]
fn a_certificate_that_does_not_hold_here_is_refused_with_a_sentence() {
    let files = Files::new();
    let good = certificate(0.9, different_plans()[1].clone());
    let changed = |change: &dyn Fn(&mut Certificate)| {
        let mut other = good.clone();
        change(&mut other);
        files.write("c.json", &other)
    };
    let load = |path: PathBuf, config: EngineConfig| {
        let loaded = Engine::load(&EngineConfig { certificate: vec![path], ..config });
        loaded.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(load(changed(&|_| ()), config()), "");
    let tampered = changed(&|_| ());
    let text = std::fs::read_to_string(&tampered).unwrap();
    std::fs::write(&tampered, text.replacen("int4", "int8", 1)).unwrap();
    let mut cases = vec![(load(tampered, config()), vec!["changed after it was made", "c.json"])];
    type Change = fn(&mut Conditions);
    let conditions: [(Change, &str); 8] = [
        (|c| c.target = "0".repeat(16), "another target"),
        (|c| c.router = "0".repeat(16), "another router"),
        (|c| c.exits = String::new(), "another set of exits (none"),
        (|c| c.instruction_set = "abacus".into(), "another instruction set (abacus"),
        (|c| c.precision = "f32".into(), "precision of the target (f32, and here is bf16)"),
        (|c| c.kv_cache = "f16".into(), "precision of the cache (f16, and here is f32)"),
        (|c| c.text = "0".repeat(16), "another tokenizer, chat template or set of stop tokens (0000"),
        (|c| c.build = "0.0.0".into(), "another version of Paceline (0.0.0"),
    ];
    for (change, words) in conditions {
        cases.push((load(changed(&|c| change(&mut c.conditions)), config()), vec![words, "void here"]));
    }
    let whole = changed(&|_| ());
    let int4 = EngineConfig { precision: Precision::Int8, self_draft: vec![SelfDraft::Int4], ..config() };
    cases.extend([
        (load(whole.clone(), int4), vec!["bf16, and here is int8"]),
        (load(whole.clone(), EngineConfig { self_draft: Vec::new(), ..config() }), vec!["int4", "self-draft"]),
        (load(whole, EngineConfig { no_router: true, ..config() }), vec!["router", "--no-router"]),
        (load(changed(&|c| c.version = 1), config()), vec!["version 1", "knows 2"]),
        (load("/nowhere/c.json".into(), config()), vec!["/nowhere/c.json", "cannot be read"]),
    ]);
    for (told, words) in cases {
        assert!(words.iter().all(|word| told.contains(word)) && told.ends_with('.'), "{words:?}: {told:?}");
    }
}

/// The shipped model's files in a folder of their own.
fn copied() -> tempfile::TempDir {
    let model = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(shipped()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, model.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    model
}

/// The same weights with another template or other stop tokens are another model to a certificate, though not to a router.
#[test]
fn another_chat_template_other_stop_tokens_or_a_refused_router_void_a_certificate() {
    let files = Files::new();
    let path = files.write("c.json", &certificate(0.9, different_plans()[1].clone()));
    let model = copied();
    let load = || {
        let config = EngineConfig { model: Some(model.path().to_owned()), certificate: vec![path.clone()], ..config() };
        Engine::load(&config).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(load(), "");
    let file = |name: &str| model.path().join(name);
    let template = file("chat_template.jinja");
    std::fs::write(&template, "{{ messages[0].content }}").unwrap();
    let told = load();
    assert!(told.contains("another tokenizer, chat template or set of stop tokens") && told.ends_with('.'), "{told}");
    std::fs::remove_file(template).unwrap();
    let settings = std::fs::read_to_string(file("generation_config.json")).unwrap();
    std::fs::write(file("generation_config.json"), "{\"eos_token_id\": [5, 6]}").unwrap();
    assert!(load().contains("set of stop tokens"), "{}", load());
    std::fs::write(file("generation_config.json"), settings).unwrap();
    assert_eq!(load(), "");
    // The reason is the router's own, and no advice about a flag that nobody gave.
    std::fs::write(file("router.safetensors"), "x").unwrap();
    let told = load();
    assert!(told.contains("cannot be used") && told.contains("router.safetensors"), "{told}");
    assert!(!told.contains("--no-router") && told.ends_with('.') && !told.ends_with(".."), "{told}");
}

/// Who names no limit gets the one that was calibrated, and who names a higher one a sentence.
#[test]
fn the_calibrated_limit_is_the_default_of_bounded_answers() {
    let files = Files::new();
    let mut short = certificate(0.9, [(); 3].map(|()| Some(int8())));
    short.calibration.max_new_tokens = 3;
    let path = files.write("c.json", &short);
    let model = shipped();
    let generate = |more: &[&str]| {
        let asked = ["--prompt", "Sort these words: pear fig apple", "--chat", "--json", "--no-journal"];
        let bounded = ["--quality", "bounded", "--quality-floor", "0.9", "--threads", "1"];
        let files = ["--model", model.to_str().unwrap(), "--certificate", path.to_str().unwrap()];
        let arguments = [&["generate"][..], &asked, &bounded, &files, more].concat();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_paceline"))
            .env("HF_HUB_OFFLINE", "1")
            .args(arguments)
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        (serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap(), told)
    };
    let (answer, told) = generate(&[]);
    assert_eq!(answer["tokens"].as_array().map(Vec::len), Some(3), "{answer} {told}");
    let (answer, _) = generate(&["--max-new-tokens", "2"]);
    assert_eq!(answer["tokens"].as_array().map(Vec::len), Some(2), "{answer}");
    let (answer, told) = generate(&["--max-new-tokens", "4"]);
    assert!(answer["error"].as_str().unwrap().contains("--max-new-tokens 3") && told.contains("c.json"), "{told}");
}

/// Found ones need no flag. One that does not hold spoils nothing, and is told where it is missed.
#[test]
fn certificates_beside_the_target_are_found() {
    let model = copied();
    let folder = model.path().join(FOLDER);
    std::fs::create_dir(&folder).unwrap();
    let all = [(); 3].map(|()| Some(int8()));
    let mut stale = certificate(0.99, all.clone());
    stale.conditions.target = "0".repeat(16);
    std::fs::write(folder.join("a-stale.json"), stale.to_json().unwrap()).unwrap();
    std::fs::write(folder.join("b-good.json"), certificate(0.9, all).to_json().unwrap()).unwrap();
    std::fs::write(folder.join("notes.txt"), "not a certificate").unwrap();

    let engine = Engine::load(&EngineConfig { model: Some(model.path().to_owned()), ..config() }).unwrap();
    let prompt = &prompts(1)[0];
    let found = ask(&engine, prompt, &bounded(0.9)).report;
    assert_eq!(found.adaptations.precision, "int8");
    assert!(found.adaptations.certificate.unwrap().ends_with("b-good.json"));
    let error = engine.generate(prompt.clone(), &bounded(0.95)).err().unwrap().to_string();
    assert!(["0.95", "a-stale.json", "another target"].iter().all(|word| error.contains(word)), "{error}");
    // Named ones are taken instead.
    let files = Files::new();
    let named_one = files.write("c.json", &certificate(0.8, [(); 3].map(|()| None)));
    let instead = EngineConfig { model: Some(model.path().to_owned()), certificate: vec![named_one], ..config() };
    let error = Engine::load(&instead).unwrap().generate(prompt.clone(), &bounded(0.9)).err().unwrap().to_string();
    assert!(error.contains("there are only those for 0.8:"), "{error}");
    let exact = ask(&engine, prompt, &named(&None)).report;
    assert_eq!((exact.exactness.as_str(), exact.adaptations.certificate), ("bit-identical to plain decoding", None));
}

#[test]
fn what_was_not_certified_is_no_bounded_answer() {
    let files = Files::new();
    let path = files.write("c.json", &certificate(0.9, different_plans()[1].clone()));
    let engine = Engine::load(&EngineConfig { certificate: vec![path], ..config() }).unwrap();
    let sampling = |temperature, repetition_penalty| SamplingConfig {
        temperature,
        repetition_penalty,
        ..SamplingConfig::default()
    };
    for (asked, words) in [
        (GenerationConfig { sampling: sampling(0.7, 1.0), ..bounded(0.9) }, ["greedy", "`temperature`"]),
        (GenerationConfig { sampling: sampling(0.0, 1.1), ..bounded(0.9) }, ["greedy", "penalties"]),
        (GenerationConfig { exit_threshold: Some(0.9), ..bounded(0.9) }, ["`exit-threshold`", "`best-effort`"]),
        (
            GenerationConfig { lower_precision: Some(SelfDraft::Int4), ..bounded(0.9) },
            ["`lower-precision`", "certificate"],
        ),
        (GenerationConfig { ignore_eos: true, ..bounded(0.9) }, ["`ignore-eos`", "`exact`"]),
        (GenerationConfig { max_new_tokens: 257, ..bounded(0.9) }, ["c.json", "--max-new-tokens 256"]),
        (bounded(0.9), ["this one is a plain text", "--chat"]),
    ] {
        let error = engine.generate(Prompt::Text("1 2".into()), &asked).err().unwrap().to_string();
        assert!(words.iter().all(|word| error.contains(word)) && error.ends_with('.'), "{words:?}: {error}");
    }
}

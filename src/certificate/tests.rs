//! Certificates as files: what is noticed of a changed one, and what must follow from what.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use paceline_kernels::QuantizedFormat;

use super::*;
use crate::config::{EngineConfig, GenerationConfig, Precision, SelfDraft};
use crate::lossy::Capabilities;
use crate::text::Message;

fn tested(plan: Lossy, losses: f64, p_value: f64) -> Tested {
    Tested { plan, losses, risk: losses / 1000.0, p_value }
}

fn certificate() -> Certificate {
    let bundles =
        vec![Lossy::Precision("int8".into()), Lossy::Exit { depth: 9, threshold: 0.99 }, Lossy::Skip("a3".into())];
    let level = |level: &str| CertifiedLevel {
        level: level.to_owned(),
        n: 1000,
        plan: Some(bundles[1].clone()),
        losses: 21.0,
        risk: 0.021,
        p_value: Some(1.234_567_890_123e-7),
        tested: vec![
            tested(bundles[0].clone(), 1.0, 3.3e-20),
            tested(bundles[1].clone(), 21.0, 1.234_567_890_123e-7),
            tested(bundles[2].clone(), 80.0, 0.99),
        ],
    };
    let text = str::to_owned;
    Certificate {
        version: VERSION,
        floor: 0.95,
        eps: 0.05,
        delta: 0.05,
        claims: 3,
        levels: LEVELS.map(level).to_vec(),
        bundles,
        calibration: Calibration {
            tasks: text("0a"),
            n: 3000,
            max_new_tokens: 256,
            rendering: Rendering::Messages,
            loss: Loss::Answers,
        },
        conditions: Conditions {
            build: text("1.2.3"),
            instruction_set: text("avx512"),
            precision: text("bf16"),
            kv_cache: text("f32"),
            target: text("01"),
            text: text("04"),
            exits: text("02"),
            router: text("03"),
        },
        checksum: String::new(),
    }
}

fn read(text: &str) -> Result<Certificate, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Certificate::read(file.path()).map_err(|error| error.to_string())
}

#[test]
fn a_certificate_reads_back_however_it_is_laid_out() {
    let text = certificate().to_json().unwrap();
    let back = read(&text).unwrap();
    assert_eq!(Certificate { checksum: String::new(), ..back.clone() }, certificate());
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read(&value.to_string()).unwrap(), back);
}

#[test]
fn a_changed_certificate_is_noticed_wherever_it_was_changed() {
    let text = certificate().to_json().unwrap();
    for (from, to) in [
        ("\"floor\": 0.95", "\"floor\": 0.96"),
        ("\"losses\": 21.0", "\"losses\": 20.0"),
        ("\"threshold\": 0.99", "\"threshold\": 0.98"),
        ("\"avx512\"", "\"avx2\""),
        ("\"a3\"", "\"a4\""),
        ("3.3e-20", "3.4e-20"),
        ("\"max_new_tokens\": 256", "\"max_new_tokens\": 25"),
        ("\"messages\"", "\"text\""),
        ("\"answers\"", "\"tokens\""),
        ("\"1.2.3\"", "\"1.2.4\""),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        let error = read(&text.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains("changed after it was made") && error.ends_with('.'), "{from}: {error}");
    }
    for (text, words) in [
        (text.replace("\"version\": 2", "\"version\": 7"), &["version 7", "knows 2"][..]),
        // Of the first version, which knew less of what it holds for.
        ("{\"version\": 1, \"floor\": 0.95}".to_owned(), &["version 1", "knows 2", "make it again"]),
        (text.replace("\"delta\"", "\"gamma\""), &["cannot be read", "gamma"]),
        (text[..text.len() / 2].to_owned(), &["cannot be read"]),
        (String::new(), &["cannot be read"]),
    ] {
        let error = read(&text).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)) && error.ends_with('.'), "{words:?}: {error}");
    }
    let error = Certificate::read(Path::new("/nowhere/c.json")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/c.json"), "{error}");
}

/// With a right checksum, what follows from each other must do so.
#[test]
fn a_certificate_that_contradicts_itself_is_refused() {
    let refused = |words: &str, change: &dyn Fn(&mut Certificate)| {
        let mut changed = certificate();
        change(&mut changed);
        let error = read(&changed.to_json().unwrap()).unwrap_err();
        assert!(error.contains("contradicts itself") && error.contains(words), "{words}: {error}");
    };
    refused("cannot be", &|c| c.floor = 0.99);
    refused("cannot be", &|c| (c.floor, c.eps) = (1.0, 0.0));
    refused("cannot be", &|c| c.delta = 1.0);
    refused("levels", &|c| c.levels.swap(0, 1));
    refused("levels", &|c| c.claims = 1);
    refused("order", &|c| c.bundles.swap(0, 1));
    refused("losses and risks", &|c| c.levels[1].tested[0].risk = 0.5);
    refused("the 3001 prompts of its calibration", &|c| c.calibration.n = 3001);
    refused("the 3000 prompts of its calibration", &|c| c.levels[0].n = usize::MAX);
    refused("lost in part", &|c| {
        let test = &mut c.levels[1].tested[0];
        (test.losses, test.risk) = (0.5, 0.0005);
    });
    // 0.95 to the power of 1000 is 5.3e-23.
    for p_value in [0.0, 5.2e-23, 1.1, -0.1] {
        refused("cannot come from 1000 prompts", &move |c| c.levels[1].tested[0].p_value = p_value);
    }
    refused("lost as much", &|c| {
        let level = &mut c.levels[2];
        (level.losses, level.risk) = (50.0, 0.05);
        (level.tested[1].losses, level.tested[1].risk) = (50.0, 0.05);
    });
    refused("last that passed", &|c| c.levels[1].plan = Some(c.bundles[2].clone()));
    refused("last that passed", &|c| c.levels[1].plan = None);
    refused("last that passed", &|c| c.levels[0].tested[1].p_value = 0.04);
    refused("last that passed", &|c| c.levels[2].risk = 0.0);
    refused("last that passed", &|c| {
        c.levels[2].tested[0].p_value = 0.9;
    });
}

#[test]
fn the_p_value_of_no_loss_at_all_is_possible() {
    let mut certificate = certificate();
    for level in &mut certificate.levels {
        (level.tested[0].losses, level.tested[0].risk, level.tested[0].p_value) = (0.0, 0.0, 0.95_f64.powi(1000));
    }
    read(&certificate.to_json().unwrap()).unwrap();
}

fn certified(change: impl Fn(&mut Certificate)) -> Certified {
    let mut certificate = certificate();
    change(&mut certificate);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.to_json().unwrap()).unwrap();
    let capabilities = Capabilities { layers: 12, exits: &[9], lower: &[QuantizedFormat::Int8] };
    Certified::new(file.path(), Ok(&certificate.conditions), &capabilities).unwrap()
}

#[test]
fn what_is_promised_is_what_was_counted() {
    for (loss, words) in [
        (Loss::Answers, &["at most 5% of the answers lose what the target had right"][..]),
        (Loss::Tokens, &["at most 5% of an answer's tokens", "in the mean", "first on that differs"]),
        (Loss::Both, &["at most 5% is lost in the mean", "had it right", "the share of its tokens"]),
    ] {
        let said = certified(|c| c.calibration.loss = loss).sentence(None);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(said.contains("a confidence of 95%") && said.ends_with('.'), "{said}");
        assert_eq!(said.contains("of the answers lose"), loss == Loss::Answers, "{said}");
    }
}

#[test]
fn answers_of_another_kind_than_was_calibrated_are_not_covered() {
    let messages = Prompt::Messages(vec![Message::new("user", "x")]);
    let (text, tokens) = (Prompt::Text("x".into()), Prompt::Tokens(vec![1]));
    let told = |rendering, prompt: &Prompt, max_new_tokens| {
        let config = GenerationConfig { max_new_tokens, ..GenerationConfig::default() };
        let covered = certified(|c| c.calibration.rendering = rendering).covers(prompt, &config);
        covered.err().map(|error| error.to_string()).unwrap_or_default()
    };
    for (rendering, prompt, words) in [
        (Rendering::Messages, &messages, ""),
        (Rendering::Messages, &text, "this one is a plain text: add `--chat`"),
        (Rendering::Text, &text, ""),
        (Rendering::Text, &messages, "calibrated on plain texts"),
        (Rendering::Both, &text, ""),
        (Rendering::Both, &messages, ""),
        // How tokens came about is not known.
        (Rendering::Messages, &tokens, ""),
        (Rendering::Text, &tokens, ""),
    ] {
        let error = told(rendering, prompt, 256);
        assert!(error.contains(words) && error.is_empty() == words.is_empty(), "{rendering:?}, {prompt:?}: {error}");
        let error = told(rendering, prompt, 257);
        let words = ["at most 256 tokens", "257 are asked for", "--max-new-tokens 256"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn why_no_router_judges_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate().to_json().unwrap()).unwrap();
    let capabilities = Capabilities { layers: 12, exits: &[], lower: &[] };
    for (why, words) in [
        (NoRouter::LeftOut, "`--no-router` leaves it out"),
        (NoRouter::Absent, "paceline-train router"),
        (NoRouter::Refused("The router x is of another target.".into()), "cannot be used: The router x is of another"),
    ] {
        let is_left_out = matches!(why, NoRouter::LeftOut);
        let error = Certified::new(file.path(), Err(&why), &capabilities).unwrap_err().to_string();
        assert!(error.contains(words) && error.ends_with('.') && !error.ends_with(".."), "{error}");
        assert_eq!(error.contains("--no-router"), is_left_out, "{error}");
    }
}

#[test]
fn the_first_condition_that_differs_is_named() {
    let certified = certificate().conditions;
    assert_eq!(certified.difference(&certified), None);
    let differing = |change: &dyn Fn(&mut Conditions)| {
        let mut here = certified.clone();
        change(&mut here);
        certified.difference(&here).map(|(what, ..)| what)
    };
    assert_eq!(differing(&|c| c.target.push('0')), Some("target"));
    assert_eq!(differing(&|c| c.router.clear()), Some("router"));
    assert_eq!(differing(&|c| c.text.push('0')), Some("tokenizer, chat template or set of stop tokens"));
    assert_eq!(differing(&|c| c.build.push('0')), Some("version of Paceline"));
    assert_eq!(differing(&|c| c.exits.clear()), Some("set of exits"));
    assert_eq!(differing(&|c| c.instruction_set = "avx2".into()), Some("instruction set"));
    assert_eq!(differing(&|c| c.precision = "int8".into()), Some("precision of the target"));
    assert_eq!(differing(&|c| c.kv_cache = "f16".into()), Some("precision of the cache"));
}

#[test]
fn the_precisions_of_deployed_plans_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
    let write = |name: &str, deployed: usize| {
        let mut certificate = certificate();
        for level in &mut certificate.levels {
            let test = &level.tested[deployed];
            (level.plan, level.losses, level.risk, level.p_value) =
                (Some(test.plan.clone()), test.losses, test.risk, Some(test.p_value));
            level.tested.truncate(deployed + 1);
        }
        std::fs::write(folder.path().join(FOLDER).join(name), certificate.to_json().unwrap()).unwrap();
    };
    write("b.json", 1);
    std::fs::write(folder.path().join(FOLDER).join("damaged.json"), "{").unwrap();
    assert_eq!(needed_precisions(&EngineConfig::new(folder.path())), []);
    write("a.json", 0);
    assert_eq!(needed_precisions(&EngineConfig::new(folder.path())), [SelfDraft::Int8]);
    let named =
        EngineConfig { certificate: vec![folder.path().join(FOLDER).join("a.json")], ..EngineConfig::new("/nowhere") };
    assert_eq!(needed_precisions(&named), [SelfDraft::Int8]);
    // For a target of another precision it is void.
    for (precision, needed) in [(Precision::Bf16, &[SelfDraft::Int8][..]), (Precision::Int8, &[])] {
        assert_eq!(needed_precisions(&EngineConfig { precision, ..named.clone() }), needed);
    }
    // Where some are named, those beside the target are left alone.
    let other = EngineConfig {
        certificate: vec![folder.path().join(FOLDER).join("b.json")],
        ..EngineConfig::new(folder.path())
    };
    assert_eq!(needed_precisions(&other), []);
}

//! Certificates as files: what is noticed of a changed one, and what must follow from what.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use super::*;
use crate::config::{EngineConfig, SelfDraft};

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
        calibration: Calibration { tasks: text("0a"), n: 3000, max_new_tokens: 256 },
        conditions: Conditions {
            instruction_set: text("avx512"),
            precision: text("bf16"),
            kv_cache: text("f32"),
            target: text("01"),
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
    ] {
        assert!(text.contains(from), "{from}: {text}");
        let error = read(&text.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains("changed after it was made") && error.ends_with('.'), "{from}: {error}");
    }
    for (text, words) in [
        (text.replace("\"version\": 1", "\"version\": 7"), &["version 7", "knows 1"][..]),
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
    refused("last that passed", &|c| c.levels[1].plan = Some(c.bundles[2].clone()));
    refused("last that passed", &|c| c.levels[1].plan = None);
    refused("last that passed", &|c| c.levels[0].tested[1].p_value = 0.04);
    refused("last that passed", &|c| c.levels[2].risk = 0.0);
    refused("last that passed", &|c| {
        c.levels[2].tested[0].p_value = 0.9;
    });
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
}

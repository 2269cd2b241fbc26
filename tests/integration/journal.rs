//! The journal through the front door: what an engine's answers come to is what their reports say.

use paceline::{Engine, EngineConfig, Error, GenerationConfig, Period, Prompt};

use crate::support::fixture;

#[test]
fn what_answers_come_to_is_what_their_reports_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let config = EngineConfig { threads: 1, journal: Some(path.clone()), ..EngineConfig::new(fixture("llama-tied")) };
    let engine = Engine::load(&config).unwrap();
    let of_nothing = engine.adaptation_stats(Period::All).unwrap();
    assert_eq!((of_nothing.all.answers, path.exists()), (0, false));

    let (mut tokens, mut decode_ms, mut drafted, mut steps) = (0, 0.0, 0, 0);
    for drafter in ["none", "exit:1", "lookup", "auto"] {
        let config = GenerationConfig { drafter: drafter.parse().unwrap(), max_new_tokens: 30, ..Default::default() };
        let prompt = Prompt::Text("Each rider takes a turn".into());
        let answer = engine.generate(prompt, &config).unwrap().finish().unwrap();
        tokens += answer.tokens.len() as u64;
        decode_ms += answer.report.draft_ms + answer.report.verify_ms;
        drafted += u64::from(answer.report.speculation.drafted > 0);
        steps += answer.report.speculation.steps;
        assert!(answer.report.warnings.is_empty(), "{:?}", answer.report.warnings);
    }
    // The journal is complete when an answer is.
    let stats = engine.adaptation_stats("1h".parse().unwrap()).unwrap();
    let all = &stats.all;
    assert_eq!((all.answers, all.tokens, all.adapted, all.quality.exact), (4, tokens, drafted, 4));
    assert!((all.time.decode_ms - decode_ms).abs() < 1e-6 && all.time.answers == 4, "{:?}", all.time);
    assert!(drafted > 0 && all.tokens_per_step == Some(tokens as f64 / steps as f64), "{all:?}");
    assert_eq!(stats.adaptations.drafted, drafted);
    drop(engine);
    // Another engine goes on with it.
    let again = Engine::load(&config).unwrap().adaptation_stats(Period::All).unwrap();
    assert_eq!(again.all.answers, 4);
}

#[test]
fn a_library_writes_no_journal_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let model = EngineConfig { threads: 1, ..EngineConfig::new(fixture("micro")) };
    for config in [model.clone(), EngineConfig { journal: Some(path.clone()), no_journal: true, ..model }] {
        let engine = Engine::load(&config).unwrap();
        let config = GenerationConfig { max_new_tokens: 2, ..Default::default() };
        engine.generate(Prompt::Text("abc".into()), &config).unwrap().finish().unwrap();
        assert!(matches!(engine.adaptation_stats(Period::All), Err(Error::NoJournal)));
        assert!(!path.exists());
    }
}

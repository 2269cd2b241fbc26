//! The library as its users meet it: streams, stops, limits, errors, cancelling, async.

use paceline::model::weight_bytes;
use paceline::sampling::SamplingConfig;
use paceline::{
    Answer, DraftLength, DrafterChoice, Engine, EngineConfig, Error, Event, FinishReason, GenerationConfig, Precision,
    Prompt,
};

use crate::support::fixture;

fn engine() -> Engine {
    let draft = vec![fixture("llama-draft")];
    Engine::load(&EngineConfig { draft, threads: 1, ..EngineConfig::new(fixture("llama-tied")) }).unwrap()
}

fn text(text: &str) -> Prompt {
    Prompt::Text(text.to_owned())
}

fn answer(engine: &Engine, prompt: &str, config: &GenerationConfig) -> Answer {
    engine.generate(text(prompt), config).unwrap().finish().unwrap()
}

/// Every drafter with drafts long enough that stops fall into their middle.
fn drafters() -> impl Iterator<Item = GenerationConfig> {
    let names = ["none", "auto", "lookup", "model", "model:llama-draft", "exit:1", "exit:2", "skip:a0,m2"];
    names.into_iter().flat_map(|name| {
        [DraftLength::Fixed(16), DraftLength::Fixed(3)].map(|draft_len| GenerationConfig {
            drafter: name.parse().unwrap(),
            draft_len,
            max_new_tokens: 60,
            ..GenerationConfig::default()
        })
    })
}

#[test]
fn a_stop_text_ends_the_answer_before_it_wherever_it_falls() {
    let engine = engine();
    let whole =
        answer(&engine, "A paceline is", &GenerationConfig { max_new_tokens: 60, ..GenerationConfig::default() }).text;
    assert!(whole.len() > 60, "{whole}");
    // Every place, so that stops begin and end inside tokens, inside drafts and at their edges.
    for start in (1..50).filter(|&start| whole.is_char_boundary(start) && whole.is_char_boundary(start + 5)) {
        let stop = &whole[start..start + 5];
        let expected = &whole[..whole.find(stop).unwrap()];
        let mut tokens = None;
        for config in drafters().step_by(3) {
            let config = GenerationConfig { stop: vec!["never in there".into(), stop.into()], ..config };
            let found = answer(&engine, "A paceline is", &config);
            assert_eq!(
                (found.text.as_str(), found.finish_reason),
                (expected, FinishReason::Stop),
                "{stop:?}, {config:?}"
            );
            assert_eq!(*tokens.get_or_insert(found.tokens.clone()), found.tokens, "{config:?}");
        }
    }
}

#[test]
fn a_stop_token_ends_the_answer_and_is_its_last_token_but_not_in_its_text() {
    let engine = engine();
    let messages = || Prompt::Messages(vec![paceline::Message::new("user", "What is a paceline?")]);
    for config in drafters() {
        let found = engine.generate(messages(), &config).unwrap().finish().unwrap();
        assert_eq!(found.finish_reason, FinishReason::Stop, "{config:?}");
        assert_eq!(found.text, "A row of riders who share the wind.", "{config:?}");
        assert_eq!(found.tokens.last(), Some(&351), "{config:?}");
        let ignoring = GenerationConfig { ignore_eos: true, ..config };
        let longer = engine.generate(messages(), &ignoring).unwrap().finish().unwrap();
        assert_eq!((longer.finish_reason, longer.tokens.len()), (FinishReason::Length, 60));
        assert!(longer.tokens.starts_with(&found.tokens));
    }
}

#[test]
fn the_stream_is_the_answer_in_pieces() {
    let engine = engine();
    for config in drafters() {
        let (mut streamed, mut tokens, mut last) = (String::new(), Vec::new(), None);
        for event in engine.generate(text("The rider"), &config).unwrap() {
            match event.unwrap() {
                Event::Prefill { done, total } => assert!(done < total),
                Event::Token { id, text } => {
                    tokens.push(id);
                    streamed.push_str(&text);
                }
                Event::Done { text, answer } => {
                    streamed.push_str(&text);
                    last = Some(answer);
                }
            }
        }
        let answer = last.unwrap();
        assert_eq!((answer.text, answer.tokens), (streamed, tokens), "{config:?}");
    }
}

#[test]
fn the_report_counts_what_happened() {
    let engine = engine();
    for config in drafters() {
        let found = answer(&engine, "A paceline is", &config);
        let s = &found.report.speculation;
        assert_eq!(found.tokens.len() as u64, s.steps + s.accepted, "a step yields its accepted tokens and one more");
        assert!(s.accepted <= s.evaluated && s.evaluated <= s.drafted);
        assert_eq!(s.accepted_by_position.iter().sum::<u64>(), s.accepted);
        assert!(s.accepted_by_position.is_sorted_by(|a, b| a >= b), "a position is kept only where the one before was");
        assert_eq!(s.by_drafter.values().map(|counts| counts.drafted).sum::<u64>(), s.drafted);
        assert_eq!(config.drafter == DrafterChoice::None, s.drafted == 0 && found.report.plan.drafter == "none");
        assert_eq!(found.report.exactness, "bit-identical to plain decoding");
        assert_eq!(found.report.energy_wh.is_some(), engine.info().meter.problem().is_none());
        assert_eq!(found.report.energy_source, engine.info().meter.source());
        assert!(found.report.warnings.is_empty());
    }
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let engine = engine();
    let context = engine.info().target.context;
    for config in drafters() {
        let config = GenerationConfig { max_new_tokens: usize::MAX, ignore_eos: true, ..config };
        let prompt: Vec<u32> = (0..context as u32 - 9).map(|i| i % 300).collect();
        let found = engine.generate(Prompt::Tokens(prompt), &config).unwrap().finish().unwrap();
        assert_eq!((found.tokens.len(), found.finish_reason), (9, FinishReason::Length), "{config:?}");
    }
}

#[test]
fn what_cannot_be_answered_gets_a_sentence() {
    let engine = engine();
    let context = engine.info().target.context;
    let config = GenerationConfig::default;
    let with = |drafter: &str| GenerationConfig { drafter: drafter.parse().unwrap(), ..config() };
    for (prompt, config, words) in [
        (Prompt::Tokens(vec![]), config(), "prompt is empty"),
        (Prompt::Tokens(vec![1, 352]), config(), "Token 352 at place 1"),
        (Prompt::Tokens(vec![1; context]), config(), "context holds 256"),
        (text("x"), GenerationConfig { max_new_tokens: 0, ..config() }, "max-new-tokens"),
        (text("x"), GenerationConfig { stop: vec![String::new()], ..config() }, "`stop`"),
        (text("x"), with("exit:3"), "3 layers"),
        (text("x"), with("exit:0"), "exit:1 to exit:2"),
        (text("x"), with("skip:a3"), "3 layers"),
        (text("x"), with("skip:0,1,2"), "everything"),
        (text("x"), with("self:int4"), "`self-draft = [\"int4\"]`"),
        (text("x"), with("model:other"), "llama-draft"),
        (
            Prompt::Messages(vec![]),
            GenerationConfig { sampling: SamplingConfig { top_p: 2.0, ..Default::default() }, ..config() },
            "top-p",
        ),
    ] {
        let error = engine.generate(prompt, &config).err().unwrap().to_string();
        assert!(error.contains(words) && !error.contains('\n') && error.ends_with(['.', '?']), "{error}");
    }
    // The engine is as good as before.
    assert!(!answer(&engine, "A paceline is", &config()).text.is_empty());
}

#[test]
fn drafts_with_another_vocabulary_are_refused_by_name() {
    let refused = |draft: Vec<_>| {
        Engine::load(&EngineConfig { draft, ..EngineConfig::new(fixture("llama-tied")) }).err().unwrap().to_string()
    };
    let error = refused(vec![fixture("qwen2-bias")]);
    assert!(error.contains("qwen2-bias") && error.contains("llama-tied"), "{error}");
    let error = refused(vec![fixture("llama-draft"), fixture("llama-draft")]);
    assert!(error.contains("llama-draft"), "{error}");
    assert!(matches!(Engine::load(&EngineConfig::default()), Err(Error::NoModel)));
}

#[test]
fn dropping_the_stream_cancels_the_answer() {
    let engine = engine();
    let config = GenerationConfig { max_new_tokens: 200, ignore_eos: true, ..GenerationConfig::default() };
    // One answer nobody waits for would pass unnoticed; so many, each with a prompt to read, would not.
    let prompt = || Prompt::Tokens((0..50).collect());
    let started = std::time::Instant::now();
    let whole = engine.generate(prompt(), &config).unwrap().finish().unwrap();
    let one = started.elapsed();
    (0..2000).for_each(|_| drop(engine.generate(prompt(), &config).unwrap()));
    let started = std::time::Instant::now();
    assert_eq!(engine.generate(prompt(), &config).unwrap().finish().unwrap().tokens, whole.tokens);
    assert!(started.elapsed() < 1000 * one, "2000 answers that nobody wanted were made");
}

#[test]
fn answers_can_be_awaited() {
    let engine = engine();
    let config = GenerationConfig { max_new_tokens: 20, ..GenerationConfig::default() };
    let expected = answer(&engine, "A paceline is", &config).tokens;
    pollster::block_on(async {
        // Two at once, read in turn.
        let mut first = engine.generate(text("A paceline is"), &config).unwrap();
        let mut second = engine.generate(text("A paceline is"), &config).unwrap();
        for stream in [&mut second, &mut first] {
            let mut tokens = Vec::new();
            while let Some(event) = stream.recv().await {
                if let Event::Token { id, .. } = event.unwrap() {
                    tokens.push(id);
                }
            }
            assert_eq!(tokens, expected);
            assert!(stream.recv().await.is_none(), "a stream that is over stays over");
        }
    });
}

#[test]
fn an_engine_may_go_before_its_answers() {
    let engine = engine();
    let stream = engine.generate(text("A paceline is"), &GenerationConfig::default()).unwrap();
    drop(engine);
    assert!(!stream.finish().unwrap().tokens.is_empty());
}

#[test]
fn logits_that_are_no_numbers_end_the_answer_with_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    damage(&fixture("llama-tied"), directory.path(), "model.norm.weight", f32::MAX);
    let engine = Engine::load(&EngineConfig::new(directory.path())).unwrap();
    let config = GenerationConfig::default();
    let error = engine.generate(text("A paceline is"), &config).unwrap().finish().err().unwrap();
    assert!(matches!(error, Error::Sampling(_)), "{error}");
    // And again: the decode thread lives on.
    assert!(engine.generate(text("A paceline is"), &config).unwrap().finish().is_err());
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name_in_every_precision() {
    let tensors = ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"];
    let untied = ["model.embed_tokens.weight", "lm_head.weight"].map(|tensor| ("micro", tensor));
    for (model, tensor) in tensors.map(|tensor| ("llama-tied", tensor)).into_iter().chain(untied) {
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let directory = tempfile::tempdir().unwrap();
            damage(&fixture(model), directory.path(), tensor, value);
            for precision in [Precision::Auto, Precision::F16, Precision::Int8, Precision::Int4] {
                let config = EngineConfig { precision, ..EngineConfig::new(directory.path()) };
                let error = Engine::load(&config).err().unwrap().to_string();
                assert!(error.contains(tensor) && error.ends_with('.'), "{error}");
            }
        }
    }
}

#[test]
fn weights_too_large_for_a_precision_are_refused_there_alone() {
    let directory = tempfile::tempdir().unwrap();
    damage(&fixture("llama-tied"), directory.path(), "model.layers.1.mlp.up_proj.weight", 1e6);
    let load = |precision| Engine::load(&EngineConfig { precision, ..EngineConfig::new(directory.path()) });
    assert!(load(Precision::Auto).is_ok() && load(Precision::Bf16).is_ok());
    let error = load(Precision::F16).err().unwrap().to_string();
    assert!(error.contains("model.layers.1.mlp.up_proj.weight") && error.contains("f16"), "{error}");
}

#[test]
fn a_draft_model_whose_logits_are_no_numbers_changes_nothing_but_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    damage(&fixture("llama-draft"), directory.path(), "model.norm.weight", f32::MAX);
    let config = GenerationConfig { max_new_tokens: 40, ..GenerationConfig::default() };
    let expected = answer(&engine(), "A paceline is", &config).tokens;
    let broken = EngineConfig { draft: vec![directory.path().to_owned()], ..EngineConfig::new(fixture("llama-tied")) };
    let found = answer(
        &Engine::load(&broken).unwrap(),
        "A paceline is",
        &GenerationConfig { drafter: DrafterChoice::Model(None), draft_len: DraftLength::Fixed(4), ..config },
    );
    assert_eq!(found.tokens, expected);
    assert_eq!(found.report.warnings.len(), 1, "{:?}", found.report.warnings);
}

#[test]
fn a_broken_chat_template_falls_back_to_what_the_vocabulary_gives_away() {
    let directory = tempfile::tempdir().unwrap();
    copy(&fixture("llama-tied"), directory.path());
    std::fs::write(directory.path().join("chat_template.jinja"), "{% for %}").unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let path = directory.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace("<|user|>", "<|im_start|>").replace("<|end|>", "<|im_end|>")).unwrap();
    }
    let engine = Engine::load(&EngineConfig::new(directory.path())).unwrap();
    let notes = engine.info().notes.join(" ");
    assert!(
        engine.can_chat() && notes.contains("chat_template.jinja") && notes.contains("the format ChatML"),
        "{notes}"
    );
    let prompt = Prompt::Messages(vec![paceline::Message::new("user", "Hi")]);
    let ids = engine.generate(prompt, &GenerationConfig::default()).unwrap().finish().unwrap().prompt_tokens;
    let tokenizer = paceline::text::Tokenizer::of_model(directory.path()).unwrap();
    assert_eq!(ids, tokenizer.encode_chat("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n").unwrap());
}

#[test]
fn a_broken_chat_template_stops_conversations_alone() {
    let directory = tempfile::tempdir().unwrap();
    copy(&fixture("qwen2-bias"), directory.path());
    std::fs::write(directory.path().join("chat_template.jinja"), "{% for %}").unwrap();
    let engine = Engine::load(&EngineConfig::new(directory.path())).unwrap();
    assert!(!engine.can_chat());
    assert!(!answer(&engine, "A paceline is", &GenerationConfig::default()).text.is_empty());
    let messages = vec![paceline::Message::new("user", "Hi")];
    let error = engine.generate(Prompt::Messages(messages), &GenerationConfig::default()).err().unwrap().to_string();
    assert!(error.contains("chat_template.jinja"), "{error}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Copies a checkpoint and makes all of one of its tensors `number`.
fn damage(from: &std::path::Path, to: &std::path::Path, tensor: &str, number: f32) {
    copy(from, to);
    let path = to.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let (start, end) = metadata.info(tensor).unwrap().data_offsets;
    for value in bytes[8 + header..][start..end].chunks_exact_mut(4) {
        value.copy_from_slice(&number.to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_named_precision_defines_the_target() {
    let engine =
        |precision| Engine::load(&EngineConfig { precision, ..EngineConfig::new(fixture("llama-tied")) }).unwrap();
    let (stored, narrow) = (engine(Precision::Auto), engine(Precision::Bf16));
    assert!(narrow.info().weight_bytes < stored.info().weight_bytes * 11 / 20);
    let config =
        |drafter| GenerationConfig { drafter, max_new_tokens: 100, ignore_eos: true, ..GenerationConfig::default() };
    let plain = answer(&narrow, "1 2 3", &config(DrafterChoice::None));
    assert_eq!(plain.report.plan.target_precision, narrow.info().format.to_string());
    assert_eq!(plain.tokens, answer(&narrow, "1 2 3", &config(DrafterChoice::Exit(1))).tokens);
    let mut bytes = vec![stored.info().weight_bytes, narrow.info().weight_bytes];
    for precision in [Precision::Int8, Precision::Int4] {
        let quantized = engine(precision);
        bytes.push(quantized.info().weight_bytes);
        let plain = answer(&quantized, "1 2 3", &config(DrafterChoice::None));
        assert_eq!(plain.report.plan.target_precision, quantized.info().format.to_string());
        assert_eq!(plain.tokens, answer(&quantized, "1 2 3", &config(DrafterChoice::Exit(1))).tokens);
    }
    assert!(bytes[3] < bytes[2], "four bits take less than eight: {bytes:?}");
    // f32 named for an f32 checkpoint is the checkpoint itself.
    let same = answer(&engine(Precision::F32), "1 2 3", &config(DrafterChoice::None)).tokens;
    assert_eq!(same, answer(&stored, "1 2 3", &config(DrafterChoice::None)).tokens);
}

#[test]
fn the_bytes_that_a_precision_takes_are_known_before_loading() {
    for name in ["llama-tied", "llama-rope3", "mistral-window", "qwen2-bias"] {
        let checkpoint = paceline::checkpoint::Checkpoint::open(&fixture(name)).unwrap();
        for precision in [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8, Precision::Int4] {
            let engine = Engine::load(&EngineConfig { precision, ..EngineConfig::new(fixture(name)) }).unwrap();
            let expected = weight_bytes(precision.format(), &checkpoint);
            assert_eq!(engine.info().weight_bytes, expected, "{name} at {precision:?}");
        }
    }
}

#[test]
fn penalties_and_filters_see_drafted_tokens_as_plain_decoding_sees_them() {
    let engine = engine();
    let sampling = SamplingConfig {
        temperature: 1.2,
        top_k: 40,
        top_p: 0.95,
        min_p: 0.01,
        repetition_penalty: 1.3,
        presence_penalty: 0.4,
        seed: 11,
    };
    let config = |config: GenerationConfig| GenerationConfig { sampling: sampling.clone(), ignore_eos: true, ..config };
    let plain = GenerationConfig { drafter: DrafterChoice::None, max_new_tokens: 60, ..GenerationConfig::default() };
    let expected = answer(&engine, "A paceline is", &config(plain)).tokens;
    for drafter in drafters() {
        assert_eq!(answer(&engine, "A paceline is", &config(drafter.clone())).tokens, expected, "{drafter:?}");
    }
}

//! Cancelling: an answer that is no longer wanted ends within one step, its prefill within one part.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use paceline::drafters::{Ask, DraftRequest, Drafter, DrafterChoice};
use paceline::journal::Period;
use paceline::model::{Pools, Sequence};
use paceline::sampling::{Sampler, SamplingConfig, SamplingError};
use paceline::speculation::planner::Candidate;
use paceline::speculation::request::DecodeSetup;
use paceline::speculation::{DraftLength, Flow, Listener, Planner, Request, Round, Target, round};
use paceline::text::Tokenizer;
use paceline::{Engine, EngineConfig, Error, Event, FinishReason, GenerationConfig, Prompt};

use crate::support::{decoder, fixture};

/// Wants so many rounds and counts those it gets.
struct Patience {
    wanted: usize,
    rounds: usize,
    tokens: usize,
}

impl Listener for Patience {
    fn token(&mut self, _: u32) -> Flow {
        self.tokens += 1;
        Flow::Continue
    }

    fn round(&mut self, _: &Round, _: usize) {
        self.rounds += 1;
    }

    fn drafter_failed(&mut self, _: usize, error: &SamplingError) {
        panic!("{error}");
    }

    fn is_cancelled(&self) -> bool {
        self.rounds >= self.wanted
    }
}

/// Drafts one token.
struct Asking;

impl Drafter for Asking {
    fn go_on(&mut self, request: &mut DraftRequest<'_>, _: Option<&[f32]>) -> Result<Option<Ask>, SamplingError> {
        request.push(1, 0.0);
        Ok(None)
    }
}

#[test]
fn decoding_ends_with_the_step_in_which_it_is_cancelled() {
    let decoder = decoder(&fixture("llama-tied"), 1);
    for wanted in [0, 1, 5] {
        let listener = Patience { wanted, rounds: 0, tokens: 0 };
        let mut planner = Planner::new(vec![Candidate::new(DrafterChoice::Lookup, 0.0)]);
        let mut pools = Pools::new(usize::MAX);
        let sampler = Sampler::new(&SamplingConfig::default()).unwrap();
        let mut request = Request::new(vec![3], 100, sampler, None, listener);
        while request.end().is_none() {
            if request.is_read() {
                let (drafters, state) = (vec![Some(Box::new(Asking) as Box<dyn Drafter>)], planner.begin(99, 0.0));
                request.decode(DecodeSetup { drafters, length: DraftLength::Fixed(1), early: None, state });
            }
            let mut target = Target { decoder: &decoder, skip: None, planner: &mut planner, pools: &mut pools };
            round(&mut target, &mut [&mut request]);
        }
        let listener = request.into_listener();
        assert_eq!(listener.rounds, wanted);
        assert!((wanted..=2 * wanted).contains(&listener.tokens));
    }
}

#[test]
fn a_prefill_ends_with_the_part_in_which_it_is_cancelled() {
    let decoder = decoder(&fixture("llama-tied"), 1);
    let layers = decoder.layer_count() as u64;
    let mut sequence = Sequence::new(decoder, 128);
    let mut heard = Vec::new();
    let done = sequence.prefill(&[5; 100], 32, |done| {
        heard.push(done);
        done < 64
    });
    assert_eq!((done, heard), (64, vec![0, 32, 64]));
    assert_eq!((sequence.len(), sequence.layer_evaluations()), (64, 64 * layers));
}

/// The everyday model, with room for an answer that is not over before it is cancelled.
fn roomy_engine(journal: Option<&Path>) -> (tempfile::TempDir, Engine) {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("llama-tied")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let place = folder.path().join("config.json");
    let config = std::fs::read_to_string(&place).unwrap();
    std::fs::write(&place, config.replace("\"max_position_embeddings\": 256", "\"max_position_embeddings\": 200000"))
        .unwrap();
    let journal = journal.map(Path::to_owned);
    // One answer at a time, so that others wait.
    let config = EngineConfig { journal, threads: 1, parallel: 1, ..EngineConfig::new(folder.path()) };
    let engine = Engine::load(&config).unwrap();
    (folder, engine)
}

fn endless() -> GenerationConfig {
    GenerationConfig { max_new_tokens: 190_000, ignore_eos: true, ..GenerationConfig::default() }
}

fn prompt() -> Prompt {
    Prompt::Text("A paceline is".into())
}

#[test]
fn a_cancelled_answer_is_the_beginning_of_the_whole_one_and_is_in_the_journal() {
    let kept = tempfile::tempdir().unwrap();
    let journal = kept.path().join("journal.jsonl");
    let (_folder, engine) = roomy_engine(Some(&journal));
    let mut generation = engine.generate(prompt(), &endless()).unwrap();
    let (mut streamed, mut tokens) = (String::new(), 0);
    let answer = loop {
        match generation.next().unwrap().unwrap() {
            Event::Prefill { .. } => {}
            Event::Token { text, .. } => {
                streamed.push_str(&text);
                tokens += 1;
                if tokens == 20 {
                    generation.cancel();
                }
            }
            Event::Done { text, answer } => {
                streamed.push_str(&text);
                break answer;
            }
        }
    };
    assert_eq!(answer.finish_reason, FinishReason::Cancelled);
    assert!(answer.tokens.len() == tokens && tokens >= 20 && answer.text == streamed);
    assert!(generation.next().is_none());
    let stats = engine.adaptation_stats(Period::All).unwrap();
    assert_eq!((stats.all.answers, stats.all.tokens), (1, tokens as u64));
    let whole = GenerationConfig { max_new_tokens: tokens, ..endless() };
    let whole = engine.generate(prompt(), &whole).unwrap().finish().unwrap();
    assert_eq!((&whole.tokens, whole.finish_reason), (&answer.tokens, FinishReason::Length));
}

#[test]
fn an_answer_that_is_cancelled_before_it_begins_is_empty() {
    let (_folder, engine) = roomy_engine(None);
    let first = engine.generate(prompt(), &endless()).unwrap();
    let second = engine.generate(Prompt::Tokens(vec![5; 150_000]), &endless()).unwrap();
    // From another thread, as a program does that waits for the answer here.
    let (one, two) = (first.canceller(), second.canceller());
    two.cancel();
    std::thread::spawn(move || one.cancel()).join().unwrap();
    assert_eq!(first.finish().unwrap().finish_reason, FinishReason::Cancelled);
    let second = second.finish().unwrap();
    assert_eq!((second.finish_reason, second.tokens.len(), second.text.as_str()), (FinishReason::Cancelled, 0, ""));
    assert_eq!(second.report.layer_evaluations, 0, "nothing of its prompt was read");
}

#[test]
fn an_engine_takes_so_many_requests_and_no_more_until_one_is_done() {
    let (_folder, engine) = roomy_engine(None);
    let goes_on = engine.generate(prompt(), &endless()).unwrap();
    // Once something comes of it, it is no longer in the queue.
    let mut goes_on = goes_on;
    assert!(goes_on.next().is_some());
    let mut waiting: Vec<_> = (0..64).map(|_| engine.generate(prompt(), &endless()).unwrap()).collect();
    let refused = std::iter::repeat_with(|| engine.generate(prompt(), &endless())).take(2).find_map(Result::err);
    assert!(matches!(refused, Some(Error::Busy { waiting: 64 })), "{refused:?}");
    waiting.pop();
    waiting.pop();
    let one_more = engine.generate(prompt(), &endless()).unwrap();
    waiting.push(one_more);
    drop(waiting);
    goes_on.cancel();
    assert_eq!(goes_on.finish().unwrap().finish_reason, FinishReason::Cancelled);
}

#[test]
fn the_library_leaves_the_process_s_panic_hook_alone() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }));
    let folder = tempfile::tempdir().unwrap();
    // A merge that is shorter than the prefix of subwords, on which the tokenizers crate panics.
    let tokenizer = r#"{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,
        "model":{"type":"BPE","continuing_subword_prefix":"prefix","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#;
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    let refused = Tokenizer::from_dir(folder.path());
    let caught = CALLS.load(Ordering::Relaxed);
    let _ = std::panic::catch_unwind(|| panic!("of the program's own"));
    let own = CALLS.load(Ordering::Relaxed);
    std::panic::set_hook(before);
    assert!(refused.is_err() && !paceline::text::panic_is_caught());
    assert!(own > caught, "the program's hook is the one that is called");
}

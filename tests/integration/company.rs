//! Answers in company: whoever shares a step, whenever they come and go, and whatever memory there is, each answer's tokens are
//! those that it has alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use paceline::drafters::exit::ExitDrafter;
use paceline::drafters::lookup::LookupDrafter;
use paceline::drafters::model::ModelDrafter;
use paceline::drafters::self_draft::SelfDrafter;
use paceline::drafters::{Ask, DraftRequest, Drafter, DrafterChoice};
use paceline::model::{Decoder, KvPool, Pools, SelfDraft, SkipPlan};
use paceline::sampling::{Sampler, SamplingConfig, SamplingError};
use paceline::speculation::planner::Candidate;
use paceline::speculation::request::DecodeSetup;
use paceline::speculation::{DraftLength, EarlyExit, End, Flow, Listener, Planner, Request, Round, Target, round};
use paceline::{Answer, Engine, EngineConfig, FinishReason, GenerationConfig, Prompt};
use proptest::prelude::*;

use crate::support::{Chaos, Numbers, Task, fixture, random_model, random_plan};

/// Wants so many tokens, and panics at one of them if it is told to.
struct Ear {
    wanted: usize,
    panics_at: Option<usize>,
    heard: Vec<u32>,
    company: usize,
}

impl Listener for Ear {
    fn token(&mut self, token: u32) -> Flow {
        assert!(Some(self.heard.len()) != self.panics_at, "on purpose");
        self.heard.push(token);
        Flow::Continue
    }

    fn round(&mut self, _: &Round, company: usize) {
        self.company = self.company.max(company);
    }

    fn drafter_failed(&mut self, _: usize, error: &SamplingError) {
        panic!("a drafter failed: {error}");
    }

    fn is_cancelled(&self) -> bool {
        self.heard.len() >= self.wanted
    }
}

/// Drafts a token that no vocabulary has, or wants it computed: the step that verifies or computes it panics.
struct Absurd {
    in_draft: bool,
}

impl Drafter for Absurd {
    fn go_on(&mut self, request: &mut DraftRequest<'_>, _: Option<&[f32]>) -> Result<Option<Ask>, SamplingError> {
        if self.in_draft {
            return Ok(Some(Ask::Exit { depth: 1, token: u32::MAX }));
        }
        request.push(u32::MAX, 9.0);
        Ok(None)
    }
}

/// An answer that is to be made: when it comes, and what it is alone.
struct Wanted {
    arrives: usize,
    prompt: Vec<u32>,
    sampling: SamplingConfig,
    tokens: Vec<u32>,
    cancelled_after: usize,
    panics_at: Option<usize>,
    is_absurd: bool,
}

/// The models of a case, and what their answers do without.
struct Models {
    plain: Arc<Decoder>,
    other: Arc<Decoder>,
    rounded: Arc<Decoder>,
    skip: Option<SkipPlan>,
    early: Option<EarlyExit>,
}

fn drafter(numbers: &mut Numbers, models: &Models, wanted: &Wanted) -> Box<dyn Drafter> {
    let Models { plain, other, rounded, .. } = models;
    let (vocabulary, layers) = (plain.config().vocab_size, plain.layer_count());
    let way = |decoder: &Arc<Decoder>, skip| Box::new(SelfDrafter::new(SelfDraft::new(decoder.clone(), skip)));
    let right = [&wanted.prompt[..], &wanted.tokens].concat();
    match numbers.within(0..8) {
        0 => Box::new(Chaos { numbers: Numbers(numbers.next()), right, vocabulary, layers, asked: 0 }),
        1 => Box::new(ModelDrafter::new(plain.clone(), numbers.within(2..200))),
        2 => way(rounded, None),
        3 => way(other, Some(random_plan(numbers, layers))),
        4 => Box::new(ExitDrafter::new(numbers.within(1..layers), 0.7)),
        5 => way(plain, None),
        _ => Box::new(LookupDrafter::new()),
    }
}

/// An answer whose tokens may leave early, alone.
fn alone(task: &Task<'_>, models: &Models) -> Vec<u32> {
    let (mut planner, mut pools) = (Planner::new(Vec::new()), Pools::new(usize::MAX));
    let ear = Ear { wanted: usize::MAX, panics_at: None, heard: vec![], company: 0 };
    let sampler = Sampler::new(&task.sampling).unwrap();
    let limit = task.prompt.len() + task.new_tokens;
    let mut request = Request::new(task.prompt.to_vec(), limit, sampler, None, ear);
    while request.end().is_none() {
        if request.is_read() {
            let (length, state) = (DraftLength::Auto, planner.begin(task.new_tokens, 0.0));
            request.decode(DecodeSetup { drafters: vec![], length, early: models.early, state });
        }
        let skip = models.skip.as_ref();
        let mut target = Target { decoder: &models.plain, skip, planner: &mut planner, pools: &mut pools };
        round(&mut target, &mut [&mut request]);
    }
    request.listener.heard.clone()
}

fn wanted(numbers: &mut Numbers, models: &Models, texts: &[Vec<u32>]) -> Wanted {
    let vocabulary = models.plain.config().vocab_size;
    let mut prompt = if numbers.within(0..3) == 0 { texts[numbers.within(0..texts.len())].clone() } else { Vec::new() };
    prompt.extend((0..numbers.within(1..60)).map(|_| numbers.within(0..vocabulary) as u32));
    let temperature = numbers.choose(&[0.0, 1.0]);
    let sampling = SamplingConfig { temperature, seed: numbers.next(), ..SamplingConfig::default() };
    let task = Task { prompt: &prompt, new_tokens: numbers.within(1..50), sampling: sampling.clone() };
    let tokens = match models.early {
        None => task.plain_without(models.skip.as_ref(), &models.plain),
        Some(_) => alone(&task, models),
    };
    let cancelled_after = if numbers.within(0..4) == 0 { numbers.within(0..50) } else { usize::MAX };
    let arrives = numbers.within(0..30);
    Wanted { arrives, prompt, sampling, tokens, cancelled_after, panics_at: None, is_absurd: false }
}

/// Answers them all together, in a pool of so many pages, and checks each.
fn answer(numbers: &mut Numbers, models: &Models, all: &[Wanted], most_pages: usize) -> usize {
    let (mut planner, mut pools) =
        (Planner::new(vec![Candidate::new(DrafterChoice::Lookup, 0.0)]), Pools::new(most_pages));
    let (mut requests, mut company): (Vec<(usize, Request<Ear>)>, _) = (Vec::new(), 0);
    let mut open = all.len();
    for now in 0.. {
        assert!(now < 5000, "answers do not end");
        for (index, wanted) in all.iter().enumerate().filter(|(_, wanted)| wanted.arrives == now) {
            let ear = Ear { wanted: wanted.cancelled_after, panics_at: wanted.panics_at, heard: vec![], company: 0 };
            let sampler = Sampler::new(&wanted.sampling).unwrap();
            let limit = wanted.prompt.len() + wanted.tokens.len();
            requests.push((index, Request::new(wanted.prompt.clone(), limit, sampler, None, ear)));
        }
        let mut together: Vec<&mut Request<Ear>> = requests.iter_mut().map(|(_, request)| request).collect();
        let skip = models.skip.as_ref();
        let mut target = Target { decoder: &models.other, skip, planner: &mut planner, pools: &mut pools };
        round(&mut target, &mut together);
        for (index, request) in requests.iter_mut().filter(|(_, request)| request.is_read()) {
            let wanted = &all[*index];
            let in_draft = numbers.within(0..2) == 0;
            let own = if wanted.is_absurd { Box::new(Absurd { in_draft }) } else { drafter(numbers, models, wanted) };
            let (early, drafters) = match models.early {
                None => (None, vec![Some(own)]),
                early => (early, Vec::new()),
            };
            let length = numbers.within(1..17);
            let auto = if wanted.is_absurd { DraftLength::Fixed(length) } else { DraftLength::Auto };
            let length = numbers.choose(&[DraftLength::Fixed(length), auto]);
            // The planner has yet to see plain steps before it drafts by itself.
            let state = planner.begin(wanted.tokens.len(), 0.0);
            request.decode(DecodeSetup { drafters, length, early, state });
        }
        for (index, request) in requests.extract_if(.., |(_, request)| request.end().is_some()) {
            let (mut request, wanted) = (request, &all[index]);
            request.release(&models.other, &mut pools);
            planner.end(request.state().unwrap_or(&Default::default()));
            open -= 1;
            company = company.max(request.listener.company);
            let heard = &request.listener.heard;
            let whole = wanted.tokens.len().min(wanted.cancelled_after);
            match request.end() {
                Some(End::Complete) => {
                    assert!(wanted.panics_at.is_none_or(|at| at >= whole) && !wanted.is_absurd);
                    assert!(
                        heard.len() >= whole && *heard == wanted.tokens[..heard.len()],
                        "{heard:?} of {:?}",
                        wanted.tokens
                    );
                }
                Some(End::Panicked) => {
                    assert!(wanted.panics_at.is_some() || wanted.is_absurd, "an innocent answer ended");
                    assert_eq!(*heard, wanted.tokens[..heard.len()]);
                }
                end => panic!("{end:?}"),
            }
        }
        if open == 0 {
            break;
        }
    }
    assert_eq!(pools.of(&models.other).used_pages(), 0, "all pages are given back");
    company
}

fn case(numbers: &mut Numbers) -> (Models, Vec<Wanted>, String) {
    let (plain, other, rounded, description) = random_model(numbers);
    let layers = plain.layer_count();
    let skip = (numbers.within(0..3) == 0).then(|| random_plan(numbers, layers));
    let models = Models { plain, other, rounded, skip, early: None };
    let vocabulary = models.plain.config().vocab_size;
    let texts: Vec<Vec<u32>> =
        (0..2).map(|_| (0..numbers.within(1..150)).map(|_| numbers.within(0..vocabulary) as u32).collect()).collect();
    let all = (0..numbers.within(1..17)).map(|_| wanted(numbers, &models, &texts)).collect();
    (models, all, description)
}

/// Pages that the largest of some answers needs alone.
fn needed(all: &[Wanted]) -> usize {
    let positions = all.iter().map(|wanted| wanted.prompt.len() + wanted.tokens.len() + 17).max().unwrap();
    KvPool::pages_for(positions)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn tokens_do_not_depend_on_the_company(seed: u64) {
        let mut numbers = Numbers(seed);
        let (models, all, description) = case(&mut numbers);
        println!("{} answers of {description}", all.len());
        answer(&mut numbers, &models, &all, usize::MAX);
    }

    /// Where the pool is too small for all of them, the youngest wait and go on later.
    #[test]
    fn tokens_do_not_depend_on_how_much_memory_there_is(seed: u64) {
        let mut numbers = Numbers(seed);
        let (models, all, _) = case(&mut numbers);
        let pages = needed(&all) + numbers.within(0..3);
        answer(&mut numbers, &models, &all, pages);
    }

    /// Tokens that leave early are no function of the text alone, so such answers keep what they have.
    #[test]
    fn tokens_that_leave_early_do_not_depend_on_company_and_memory(seed: u64) {
        let mut numbers = Numbers(seed);
        let (mut models, _, _) = case(&mut numbers);
        let depth = numbers.within(1..models.plain.layer_count());
        let threshold = numbers.choose(&[0.1, 0.3, 0.6]);
        models.early = Some(EarlyExit { depth, temperature: 1.0, threshold });
        let all: Vec<Wanted> =
            (0..numbers.within(1..9)).map(|_| wanted(&mut numbers, &models, &[vec![1], vec![2; 70]])).collect();
        let pages = needed(&all) + numbers.within(0..3);
        answer(&mut numbers, &models, &all, pages);
    }

    /// A listener that panics, and a draft with which the common step panics: the others go on.
    #[test]
    fn a_panic_ends_only_the_answer_that_caused_it(seed: u64) {
        let mut numbers = Numbers(seed);
        let (models, mut all, _) = case(&mut numbers);
        let (panics, absurd) = (numbers.within(0..all.len()), numbers.within(0..all.len()));
        (all[panics].panics_at, all[panics].cancelled_after) = (Some(numbers.within(0..all[panics].tokens.len())), usize::MAX);
        // After a common step for drafts that panicked, an answer goes on without a draft in that round: a short one is complete then.
        (all[absurd].is_absurd, all[absurd].cancelled_after) = (all[absurd].tokens.len() > 3, usize::MAX);
        let quiet = catch_unwind(AssertUnwindSafe(|| answer(&mut numbers, &models, &all, usize::MAX)));
        prop_assert!(quiet.is_ok());
    }
}

#[test]
fn steps_are_shared() {
    let mut numbers = Numbers(7);
    let (plain, other, rounded, _) = random_model(&mut numbers);
    let models = Models { plain, other, rounded, skip: None, early: None };
    let all: Vec<Wanted> = (0..8)
        .map(|_| Wanted { arrives: 0, cancelled_after: usize::MAX, ..wanted(&mut numbers, &models, &[vec![1]]) })
        .collect();
    assert!(answer(&mut numbers, &models, &all, usize::MAX) >= 4);
}

/// The everyday model with everything that can draft for it.
fn engine(kv_pool: usize, parallel: usize, threads: usize) -> Engine {
    let config = EngineConfig {
        draft: vec![fixture("llama-draft")],
        self_draft: vec![paceline::config::SelfDraft::Int8],
        threads,
        kv_pool,
        parallel,
        ..EngineConfig::new(fixture("llama-tied"))
    };
    Engine::load(&config).unwrap()
}

/// An answer from an engine, all in one: tokens, text and why it ended.
fn told(answer: Answer) -> (Vec<u32>, String, FinishReason) {
    (answer.tokens, answer.text, answer.finish_reason)
}

/// Many threads ask one engine; each gets what it gets from an engine that answers one at a time.
#[test]
fn threads_that_share_an_engine_get_the_answers_that_each_gets_alone() {
    let alone = engine(0, 1, 1);
    let drafters = ["none", "auto", "lookup", "model", "exit:1", "exit:2", "self:int8", "skip:a0,m1"];
    let prompts = ["A paceline is", "Each rider", "The wind", "One two three one two three one two"];
    let requests: Vec<(String, GenerationConfig)> = (0..32)
        .map(|index| {
            let drafter = drafters[index % drafters.len()].parse().unwrap();
            let temperature = [0.0, 1.0][index / 4 % 2];
            let sampling = SamplingConfig { temperature, seed: index as u64, ..SamplingConfig::default() };
            let config = GenerationConfig { drafter, sampling, max_new_tokens: 60, ..GenerationConfig::default() };
            (prompts[index % prompts.len()].repeat(1 + index % 3), config)
        })
        .collect();
    let answer = |engine: &Engine, (prompt, config): &(String, GenerationConfig)| {
        engine.generate(Prompt::Text(prompt.clone()), config).unwrap().finish().unwrap()
    };
    let expected: Vec<_> = requests.iter().map(|request| told(answer(&alone, request))).collect();
    // With a pool for three answers, most of them wait for memory now and then.
    for (kv_pool, parallel, threads) in [(0, 8, 2), (0, 3, 1), (512, 16, 2)] {
        let engine = engine(kv_pool, parallel, threads);
        let mut batch = 0;
        std::thread::scope(|scope| {
            let asked: Vec<_> = requests.iter().map(|request| scope.spawn(|| answer(&engine, request))).collect();
            for (asked, (expected, request)) in asked.into_iter().zip(expected.iter().zip(&requests)) {
                let answer = asked.join().unwrap();
                batch = batch.max(answer.report.adaptations.batch_size);
                assert_eq!(&told(answer), expected, "{request:?}, a pool of {kv_pool}");
            }
        });
        assert!((2..=parallel).contains(&batch), "{batch} answers at once");
    }
}

/// Cancelled in every phase: before it begins, while its prompt is read, while it decodes, while it waits for memory.
#[test]
fn answers_that_are_cancelled_leave_the_others_alone() {
    let engine = engine(512, 4, 1);
    let config = GenerationConfig { max_new_tokens: 100, ignore_eos: true, ..GenerationConfig::default() };
    let prompt = |index: u32| Prompt::Tokens((0..80).map(|place| (place * 7 + index) % 300).collect());
    let expected: Vec<_> =
        (0..4).map(|index| told(engine.generate(prompt(index), &config).unwrap().finish().unwrap())).collect();
    for events in [0, 1, 2, 3, 5, 40, 90] {
        let mut others: Vec<_> = (0..4).map(|index| engine.generate(prompt(index), &config).unwrap()).collect();
        let mut cancelled = engine.generate(prompt(9), &config).unwrap();
        let dropped = engine.generate(prompt(8), &config).unwrap();
        (0..events).for_each(|_| drop(cancelled.next()));
        cancelled.cancel();
        drop(dropped);
        let part = cancelled.finish().unwrap();
        assert!(part.finish_reason == FinishReason::Cancelled || part.tokens.len() == 100);
        for (other, expected) in others.drain(..).zip(&expected) {
            assert_eq!(&told(other.finish().unwrap()), expected, "cancelled after {events} events");
        }
    }
}

#[test]
fn what_the_pool_could_never_hold_is_refused_with_the_numbers() {
    let engine = engine(128, 2, 1);
    let config = GenerationConfig { max_new_tokens: 200, ..GenerationConfig::default() };
    let error = engine.generate(Prompt::Tokens(vec![5; 9]), &config).err().unwrap().to_string();
    assert!(error.contains("225 positions") && error.contains("holds 128"), "{error}");
    let fits = GenerationConfig { max_new_tokens: 20, ..config };
    assert_eq!(engine.generate(Prompt::Tokens(vec![5; 9]), &fits).unwrap().finish().unwrap().prompt_tokens.len(), 9);
}

/// Answers of the target as it is and without some of its parts share its pool, though not its steps.
#[test]
fn variants_of_a_target_wait_for_each_other_s_memory() {
    let engine = engine(192, 4, 1);
    let whole = GenerationConfig { max_new_tokens: 90, ignore_eos: true, ..GenerationConfig::default() };
    let part = GenerationConfig {
        quality: paceline::Quality::BestEffort,
        skip_layers: Some("a0,m1".parse().unwrap()),
        ..whole.clone()
    };
    let ask = |config: &GenerationConfig| engine.generate(Prompt::Tokens(vec![7; 40]), config).unwrap();
    let expected = [&whole, &part].map(|config| told(ask(config).finish().unwrap()));
    assert_ne!(expected[0].0, expected[1].0);
    let answers: Vec<_> = (0..6).map(|index| (index % 2, ask([&whole, &part][index % 2]))).collect();
    for (of, answer) in answers {
        assert_eq!(told(answer.finish().unwrap()), expected[of]);
    }
}

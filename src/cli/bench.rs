//! `paceline bench`: what loading and steps cost on this machine, and plain decoding against every drafter.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use paceline::bench::{LoadBench, ProductBench, Spread, StepBench, exchange, load, perplexity, products, steps};
use paceline::checkpoint::Checkpoint;
use paceline::command::Failure;
use paceline::command::output::{note, print_json, print_line};
use paceline::command::progress::{self, Progress};
use paceline::files::read_input;
use paceline::local::locate;
use paceline::model::{Compute, Decoder, DeviceError, MatrixFormat};
use paceline::report::Speculation;
use paceline::text::Tokenizer;
use paceline::{
    CachePrecision, DrafterChoice, Engine, EngineConfig, Error, GenerationConfig, Precision, Prompt, SamplingConfig,
    SelfDraft, SkipPlan,
};
use serde::Serialize;

mod describe;

use describe::describe;

use super::flags::parse_setting;
use super::prompts::{self, Task};
use super::shipped;

const MEASURES: &str = "\
What is measured, at each precision:
  loading     Seconds until the model is loaded and packed, tokenizer included, with its files in
              the system's cache, and until it has answered one token with one token. Then the
              process's resident memory: its own (anonymous) and that of mapped files. That of a
              second precision includes what the first left behind, which is said beside it. Then
              the processor time of the idle model, over a second, as a share of one core. Linux
              alone tells memory and processor time; elsewhere they are left out.
  steps       Steps of 1 to 17 rows with 64 tokens in the cache, a prompt of 256 tokens, and a plain
              read of as many bytes as the weights that a step reads, by as many threads, next to
              the step that it is compared with. A row count that costs 15% more than the one before
              is marked: drafts had better end there.
  products    The products of such steps alone, for each format of the model's matrices.
  perplexity  Of the text of --text.
  drafters    On the prompts of --prompt or --prompts: plain decoding, every drafter, auto. The
              target in --self-draft only where that is lower than the target's own precision.
And once, before everything else and after it:
  exchange    A cache line that two threads hand to each other, there and back. On shared machines
              it tells where the system has put them: a few hundred nanoseconds are cores that
              share no cache, where a step of several rows costs more plain steps than between
              neighbours.

The object of --json has the keys model, kv_cache, threads, repeats, exchange_seconds (before and
after, or empty for a single thread), and these lists of objects:
  loads       precision, seconds_to_load, seconds_to_first_token, weight_bytes, cache_bytes,
              resident and resident_before {anonymous, file} (bytes, or null),
              idle_share (of a core, or null)
  steps       precision, context, rows [[rows, seconds]..], prefill_tokens,
              prefill_tokens_per_second, bytes_per_step (weights), cache_bytes_per_token,
              read_bytes_per_second, share_of_read
  products    precision, formats {format, bytes, rows [[rows, seconds]..]}
  perplexity  precision, tokens, perplexity
  drafters    precision, drafter, seconds_per_token, speedup, tokens_per_step, acceptance,
              same_tokens
where seconds, share_of_read and seconds_per_token are {smallest, median, largest} of rounds.";

/// Flags of `paceline bench`.
#[derive(Args)]
#[command(after_help = MEASURES)]
pub(super) struct BenchFlags {
    /// The target model: a GGUF file, a directory, or a name [default: the one that ships, and its drafts]
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// A draft model with the same tokenizer; may be given several times
    #[arg(long, value_name = "MODEL")]
    draft: Vec<PathBuf>,
    /// Compare the target rounded to this precision as a drafter, int8 or int4; may be given several times
    #[arg(long, value_name = "P", value_parser = parse_setting::<SelfDraft>)]
    self_draft: Vec<SelfDraft>,
    /// Compare the target without these parts as a drafter, as in a3,m3,5 or file:PATH
    #[arg(long, value_name = "PLAN")]
    skip_plan: Option<SkipPlan>,
    /// Precisions to time: auto (as stored), f32, bf16, f16, int8 or int4; may be given several times
    #[arg(long, value_name = "P", default_value = "auto", value_parser = parse_setting::<Precision>)]
    precision: Vec<Precision>,
    /// The precision of cached keys and values: f32 or f16
    #[arg(long, value_name = "P", default_value = "f32", value_parser = parse_setting::<CachePrecision>)]
    kv_cache: CachePrecision,
    /// Time plain decoding and every drafter on this prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "prompts")]
    prompt: Option<String>,
    /// Time plain decoding and every drafter on the prompts of a file with an object a line
    #[arg(long, value_name = "FILE.jsonl")]
    prompts: Option<PathBuf>,
    /// Measure the perplexity of this text at every precision
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens per answer
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// Randomness of the answers
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// How often everything is timed; medians are shown
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Processor threads [default: all that the process may use]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Print one object, with the keys listed below
    #[arg(long)]
    json: bool,
}

/// Everything that was measured, as `--json` prints it.
#[derive(Serialize)]
struct Measured {
    model: String,
    kv_cache: String,
    threads: usize,
    repeats: u16,
    exchange_seconds: Vec<f64>,
    loads: Vec<LoadBench>,
    steps: Vec<StepBench>,
    products: Vec<ProductsBench>,
    perplexity: Vec<PerplexityBench>,
    drafters: Vec<DrafterBench>,
}

/// The products of each format at one precision.
#[derive(Serialize)]
struct ProductsBench {
    precision: String,
    formats: Vec<ProductBench>,
}

/// The perplexity of the given text.
#[derive(Serialize)]
struct PerplexityBench {
    precision: String,
    tokens: usize,
    perplexity: f64,
}

/// A drafter on the given prompts.
#[derive(Serialize)]
struct DrafterBench {
    /// The target's precision.
    precision: String,
    drafter: String,
    /// Seconds per token.
    seconds_per_token: Spread,
    /// Plain decoding's time over this drafter's, the median of the rounds' ratios.
    speedup: f64,
    tokens_per_step: f64,
    /// Accepted of evaluated tokens.
    acceptance: Option<f64>,
    /// True if all answers were those of plain decoding.
    same_tokens: bool,
}

/// Runs the command.
pub(super) fn bench(flags: &BenchFlags) -> Result<ExitCode, Failure> {
    let models = shipped::or_shipped(flags.model.as_deref(), &flags.draft)?;
    let engine_config = EngineConfig {
        draft: models.drafts,
        threads: flags.threads,
        kv_cache: flags.kv_cache,
        ..EngineConfig::new(&models.target)
    };
    let cache_format = flags.kv_cache.format();
    let threads = engine_config.resolved_threads();
    let repeats = usize::from(flags.repeats);
    let tasks = match (&flags.prompt, &flags.prompts) {
        (Some(text), _) => vec![Task::new(text, models.shipped)],
        (None, Some(path)) => prompts::from_file(path, models.shipped)?,
        (None, None) => Vec::new(),
    };

    let compute = Compute::open(engine_config.device, threads)?;
    let checkpoint = Checkpoint::open(&models.target)?;
    // Drafters are timed last; what is wrong with them is said before anything is timed.
    if let Some(plan) = &flags.skip_plan {
        plan.check(checkpoint.config().layers).map_err(Error::Skip)?;
    }
    let generation = GenerationConfig {
        max_new_tokens: flags.max_new_tokens,
        sampling: SamplingConfig { temperature: flags.temperature, ..SamplingConfig::default() },
        ignore_eos: true,
        ..GenerationConfig::default()
    };
    generation.validate()?;
    for draft in &engine_config.draft {
        Checkpoint::open(&locate(draft)?)?;
    }
    let prompts = tasks.into_iter().map(|task| task.prompt).collect::<Result<Vec<_>, _>>()?;
    let drafters_are_named = flags.skip_plan.is_some() || !flags.self_draft.is_empty() || !flags.draft.is_empty();
    let stored = MatrixFormat::from(checkpoint.stored_format());
    let is_lower = |draft: &SelfDraft, target: Precision| draft.format().is_below(target.format().unwrap_or(stored));
    if let Some(draft) =
        flags.self_draft.iter().find(|draft| !flags.precision.iter().any(|target| is_lower(draft, *target)))
    {
        let target = flags.precision.first().and_then(|precision| precision.format()).unwrap_or(stored);
        return Err(paceline::lossy::LossyError::NotLower { draft: draft.format(), target }.into());
    }
    if prompts.is_empty() && drafters_are_named {
        return Err(
            anyhow!("Drafters are compared on prompts, and there are none: add `--prompt` or `--prompts`.").into()
        );
    }
    let text = match &flags.text {
        Some(path) => Some(read_tokens(path, &checkpoint)?),
        None => None,
    };
    let mut exchange_seconds = Vec::new();
    let mut time_exchange = || -> Result<(), Error> {
        if threads > 1 {
            exchange_seconds.push(exchange().map_err(DeviceError::Threads)?);
        }
        Ok(())
    };
    time_exchange()?;
    let (mut loads, mut timed, mut multiplied, mut judged) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for &precision in &flags.precision {
        // First, so that as little as possible has been in memory before.
        loads.push(load(&EngineConfig { precision, ..engine_config.clone() })?);
        let decoder = Decoder::load(&checkpoint, precision.format(), &compute, &mut |_, _| {})?;
        let decoder = Arc::new(decoder.with_cache_format(cache_format)?);
        let mut progress = Progress::new();
        let what = format!("timing steps at {}, rounds", decoder.format());
        timed.push(steps(&decoder, threads, repeats, &mut |done| progress.show(&what, done, repeats))?);
        let what = format!("timing products at {}, rounds", decoder.format());
        let formats = products(&decoder, repeats, &mut |done| progress.show(&what, done, repeats));
        multiplied.push(ProductsBench { precision: decoder.format().to_string(), formats });
        if let Some(tokens) = &text {
            let (mut progress, precision) = (Progress::new(), decoder.format().to_string());
            let what = format!("judging the text at {precision}, tokens");
            let perplexity = perplexity(&decoder, tokens, &mut |done| progress.show(&what, done, tokens.len()));
            judged.push(PerplexityBench { precision, tokens: tokens.len(), perplexity });
        }
    }
    drop((checkpoint, compute));
    let mut drafters = Vec::new();
    if !prompts.is_empty() {
        let engine_config = EngineConfig { skip_plan: flags.skip_plan.clone(), ..engine_config };
        for &precision in &flags.precision {
            let self_draft = flags.self_draft.iter().copied().filter(|draft| is_lower(draft, precision)).collect();
            let engine = Engine::load(&EngineConfig { precision, self_draft, ..engine_config.clone() })?;
            drafters.extend(compare(&engine, &prompts, &generation, repeats)?);
        }
    }
    time_exchange()?;
    progress::clear();

    let measured = Measured {
        model: models.target.display().to_string(),
        kv_cache: cache_format.to_string(),
        threads,
        repeats: flags.repeats,
        exchange_seconds,
        loads,
        steps: timed,
        products: multiplied,
        perplexity: judged,
        drafters,
    };
    let differs = measured.drafters.iter().any(|drafter| !drafter.same_tokens);
    if flags.json {
        print_json(&serde_json::to_string(&measured)?)?;
    } else {
        print_line(&describe(&measured))?;
    }
    if differs {
        return Err(anyhow!("A drafter changed the tokens, which must not happen: please report this.").into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes of a text at most: of more than some hundred thousand tokens nothing else is learned.
const LARGEST_TEXT: u64 = 64 << 20;

/// The tokens of a text file, without the special tokens around it.
pub(super) fn read_tokens(path: &Path, checkpoint: &Checkpoint) -> Result<Vec<u32>, Failure> {
    let shown = path.display();
    let unreadable = |error: &dyn std::fmt::Display| {
        anyhow!("The text {shown} cannot be read: {error}; name a text file in UTF-8 with `--text`.")
    };
    let bytes = read_input(path, LARGEST_TEXT).map_err(|error| unreadable(&error))?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(&error.utf8_error()))?;
    let tokens = Tokenizer::with_metadata(checkpoint.path(), checkpoint.metadata())?.encode_chat(&text)?;
    if tokens.len() < 2 {
        return Err(anyhow!("The text {shown} has fewer than two tokens: there is nothing to judge.").into());
    }
    let vocabulary = checkpoint.config().vocab_size;
    if tokens.iter().any(|&token| token as usize >= vocabulary) {
        return Err(anyhow!("The tokenizer has tokens for {shown} that the model does not know.").into());
    }
    Ok(tokens)
}

/// Totals of a drafter's answers.
#[derive(Default)]
struct Tally {
    /// Seconds per token, a value for each round.
    seconds_per_token: Vec<f64>,
    tokens: usize,
    steps: u64,
    accepted: u64,
    evaluated: u64,
    differs: bool,
}

impl Tally {
    /// Answers the prompts once, counts what happened and returns the answers' tokens.
    fn round(
        &mut self,
        engine: &Engine,
        prompts: &[Prompt],
        generation: &GenerationConfig,
    ) -> Result<Vec<Vec<u32>>, Error> {
        let (mut seconds, mut answers) = (0.0, Vec::new());
        for prompt in prompts {
            let answer = engine.generate(prompt.clone(), generation)?.finish()?;
            let Speculation { steps, accepted, evaluated, .. } = answer.report.speculation;
            self.steps += steps;
            self.accepted += accepted;
            self.evaluated += evaluated;
            seconds += (answer.report.latency_ms - answer.report.prefill_ms) / 1e3;
            answers.push(answer.tokens);
        }
        let tokens: usize = answers.iter().map(Vec::len).sum();
        self.tokens += tokens;
        self.seconds_per_token.push(seconds / tokens.max(1) as f64);
        Ok(answers)
    }

    /// Results that are reported, beside the seconds per token of plain decoding in the same rounds.
    fn told(self, precision: &str, drafter: &DrafterChoice, plain: &[f64]) -> DrafterBench {
        let ratios = plain.iter().zip(&self.seconds_per_token).map(|(plain, own)| plain / own);
        DrafterBench {
            precision: precision.to_owned(),
            drafter: drafter.to_string(),
            speedup: Spread::of(ratios.collect()).median,
            seconds_per_token: Spread::of(self.seconds_per_token),
            tokens_per_step: self.tokens as f64 / self.steps.max(1) as f64,
            acceptance: (self.evaluated > 0).then(|| self.accepted as f64 / self.evaluated as f64),
            same_tokens: !self.differs,
        }
    }
}

/// Times every drafter on the prompts, going round.
fn compare(
    engine: &Engine,
    prompts: &[Prompt],
    generation: &GenerationConfig,
    rounds: usize,
) -> Result<Vec<DrafterBench>, Failure> {
    let (context, limit) = (engine.info().target.context, generation.max_new_tokens);
    let is_cut = |prompt: &&Prompt| {
        engine
            .prompt_tokens((*prompt).clone(), generation)
            .is_ok_and(|tokens| tokens.len().saturating_add(limit) > context)
    };
    match prompts.iter().filter(is_cut).count() {
        0 => {}
        cut => note(&format!(
            "{cut} of {} answers end before their {limit} tokens, where the model's context of {context} does: shorten \
             the prompts, or lower `--max-new-tokens`.",
            prompts.len()
        )),
    }
    let mut drafters = vec![DrafterChoice::None, DrafterChoice::Auto];
    drafters.extend_from_slice(&engine.info().drafters);
    let precision = engine.info().format.to_string();
    let mut tallies: Vec<Tally> = drafters.iter().map(|_| Tally::default()).collect();
    let (mut progress, what) = (Progress::new(), format!("timing drafters at {precision}, runs"));
    for round in 0..rounds {
        let mut plain = None;
        for (index, (drafter, tally)) in drafters.iter().zip(&mut tallies).enumerate() {
            progress.show(&what, round * drafters.len() + index, rounds * drafters.len());
            let answers =
                tally.round(engine, prompts, &GenerationConfig { drafter: drafter.clone(), ..generation.clone() })?;
            // Plain decoding comes first in every round.
            tally.differs |= *plain.get_or_insert_with(|| answers.clone()) != answers;
        }
    }
    let plain = tallies[0].seconds_per_token.clone();
    Ok(drafters.iter().zip(tallies).map(|(drafter, tally)| tally.told(&precision, drafter, &plain)).collect())
}

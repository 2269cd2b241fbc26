//! `paceline inspect`: what a model directory holds.

use std::fmt;
use std::process::ExitCode;

use paceline::checkpoint::{Checkpoint, ExitConfig, ModelConfig};
use paceline::command::Failure;
use paceline::command::obtaining::obtain;
use paceline::command::output::{print_json, print_line};
use paceline::model::{KvPool, weight_bytes};
use paceline::text::{ChatTemplate, Tokenizer};
use paceline::visible;
use paceline::{CachePrecision, Precision};
use paceline_kernels::StoredFormat;
use serde::Serialize;
use serde_json::{Map, Value};

use super::flags::InspectFlags;
use super::gguf;
use super::shipped;
use super::skip_search::{Found, search};

/// Output of `inspect`, as `--json` prints it.
#[derive(Serialize)]
struct Inspection<'a> {
    directory: String,
    config: &'a ModelConfig,
    parameters: u64,
    stored_precision: String,
    /// Share of the matrices' values by the format that they are stored in.
    stored_shares: Map<String, Value>,
    files: Vec<File>,
    /// Metadata of a GGUF file: values by key, and the lengths of lists.
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    /// Bytes of the weights by precision.
    weight_bytes: Map<String, Value>,
    /// Bytes of the cache for one token, by its precision.
    cache_bytes_per_token: Map<String, Value>,
    tokenizer: Option<TokenizerFacts>,
    tokenizer_problem: Option<String>,
    /// Names that `--drafter` may have besides exits and skip plans.
    drafters: [&'static str; 6],
    /// Depths at which the model can be left, with its own norm and output matrix where no head was trained.
    exits: Vec<usize>,
    /// The exits with a head that was trained for them.
    trained_exits: Vec<ExitConfig>,
    /// Why they cannot be used, if there are such.
    exits_problem: Option<String>,
    /// Harmless errors in what the files say about themselves.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
    /// Result of `--search-skip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    skip_search: Option<Found>,
}

#[derive(Serialize)]
struct File {
    path: String,
    bytes: u64,
}

#[derive(Serialize)]
struct TokenizerFacts {
    vocabulary: usize,
    chat_template: bool,
    /// Why the chat template cannot be used, if there is one that cannot.
    chat_template_problem: Option<String>,
}

/// Runs the command.
pub(super) fn inspect(flags: &InspectFlags) -> Result<ExitCode, Failure> {
    let directory = &match flags.directory() {
        Some(name) => obtain(name)?,
        None => shipped::target()?,
    };
    let checkpoint = match Checkpoint::open(directory) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Err(gguf::unusable(directory, error, flags.json)),
    };
    let config = checkpoint.config();
    let parameters = checkpoint.parameters();
    let tokenizer = Tokenizer::with_metadata(directory, checkpoint.metadata()).map(|tokenizer| {
        let template = ChatTemplate::with_metadata(directory, checkpoint.metadata());
        TokenizerFacts {
            vocabulary: tokenizer.vocab_size(),
            chat_template: matches!(template, Ok(Some(_))),
            chat_template_problem: template.err().map(|error| error.to_string()),
        }
    });
    let (tokenizer, tokenizer_problem) = match tokenizer {
        Ok(facts) => (Some(facts), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (trained_exits, exits_problem) = match checkpoint.exits() {
        Ok(exits) => (exits.map_or_else(Vec::new, |exits| exits.config().exits.clone()), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let inspection = Inspection {
        directory: directory.display().to_string(),
        config,
        parameters,
        stored_precision: checkpoint.stored_format().to_string(),
        stored_shares: shares(&checkpoint.stored_formats()),
        metadata: checkpoint.metadata().map(gguf::metadata).unwrap_or_default(),
        files: checkpoint
            .files()
            .iter()
            .map(|file| File { path: file.path.display().to_string(), bytes: file.bytes })
            .collect(),
        weight_bytes: weight_sizes(&checkpoint),
        cache_bytes_per_token: [CachePrecision::F32, CachePrecision::F16]
            .map(CachePrecision::format)
            .into_iter()
            .map(|format| (format.to_string(), Value::from(KvPool::bytes_per_token(config, format))))
            .collect(),
        tokenizer,
        tokenizer_problem,
        drafters: ["auto", "none", "lookup", "model", "self:int8", "self:int4"],
        exits: (1..config.layers).collect(),
        trained_exits,
        exits_problem,
        notes: checkpoint.notes(),
        skip_search: if flags.search_skip { Some(search(flags, &checkpoint)?) } else { None },
    };
    if flags.json {
        print_json(&serde_json::to_string(&inspection)?)?;
    } else {
        print_line(&describe(&inspection))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(inspection: &Inspection<'_>) -> String {
    let c = inspection.config;
    let mut lines = vec![
        format!(
            "{}: {} with {} parameters, stored as {}",
            inspection.directory,
            c.family,
            count(inspection.parameters),
            stored(&inspection.stored_shares)
        ),
        format!("  layers        {}, {} wide, feed-forward {}", c.layers, c.hidden_size, c.intermediate_size),
        format!("  attention     {} heads of {}, {} key-value heads{}", c.heads, c.head_dim, c.kv_heads, windows(c)),
        format!(
            "  vocabulary    {}, {}",
            c.vocab_size,
            if c.tied_embeddings { "output tied to the embedding" } else { "output matrix of its own" }
        ),
        format!("  context       {} tokens, cache {} a token", c.context, sizes(&inspection.cache_bytes_per_token)),
        format!("  stop tokens   {:?}", c.stop_tokens),
    ];
    lines.push(format!("  weights       {}", sizes(&inspection.weight_bytes)));
    lines.push(match (&inspection.tokenizer, &inspection.tokenizer_problem) {
        (Some(facts), _) => format!(
            "  tokenizer     {} tokens, {}",
            facts.vocabulary,
            match (&facts.chat_template_problem, facts.chat_template) {
                (Some(problem), _) => format!("chat template unusable: {problem}"),
                (None, true) => "with a chat template".to_owned(),
                (None, false) => "no chat template".to_owned(),
            }
        ),
        (None, problem) => format!("  tokenizer     unusable: {}", problem.as_deref().unwrap_or("unknown")),
    });
    let untrained = if inspection.trained_exits.is_empty() { " (untrained)" } else { " (some trained, as below)" };
    let exits = match inspection.exits.as_slice() {
        [] => String::new(),
        [only] => format!(", exit:{only}{untrained}"),
        [first, .., last] => format!(", exit:{first} to exit:{last}{untrained}"),
    };
    lines.push(format!(
        "  drafters      none, lookup{exits}, self:int8, self:int4 (itself, rounded), skip:PLAN (itself in part; --search-skip looks for one), model (with --draft DIR); auto chooses"
    ));
    if let Some(problem) = &inspection.exits_problem {
        lines.push(format!("  trained exits unusable: {problem}"));
    }
    if !inspection.trained_exits.is_empty() {
        let exit = |exit: &ExitConfig| {
            let (agreement, error) = (100.0 * exit.agreement, 100.0 * exit.calibration_error);
            format!("exit:{} (agrees {agreement:.1}%, calibration error {error:.1}%)", exit.depth)
        };
        let exits: Vec<String> = inspection.trained_exits.iter().map(exit).collect();
        lines.push(format!("  trained exits {}", exits.join(", ")));
    }
    lines.extend(
        inspection.metadata.iter().map(|(key, value)| format!("  metadata      {key} = {}", gguf::shown(value))),
    );
    lines.extend(inspection.notes.iter().map(|note| format!("  note          {note}")));
    // Names of files and what they hold stay on their lines.
    let mut lines: Vec<String> = lines.iter().map(|line| visible::line(line).into_owned()).collect();
    lines.extend(inspection.skip_search.iter().map(|found| format!("\n{}", found.describe())));
    lines.join("\n")
}

/// Bytes of the weights by precision, as stored first where that is none of the others.
fn weight_sizes(checkpoint: &Checkpoint) -> Map<String, Value> {
    let named = [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8, Precision::Int4];
    let named = named.into_iter().filter_map(Precision::format);
    let mut sizes = Map::new();
    if matches!(checkpoint.stored_format(), StoredFormat::Blocks(_)) {
        sizes.insert("auto".to_owned(), weight_bytes(None, checkpoint).into());
    }
    sizes.extend(named.map(|format| (format.to_string(), weight_bytes(Some(format), checkpoint).into())));
    sizes
}

/// The share of each format in all values.
pub(super) fn shares<K: fmt::Display>(formats: &[(K, u64)]) -> Map<String, Value> {
    let all: u64 = formats.iter().map(|(_, values)| values).sum();
    formats.iter().map(|(format, values)| (format.to_string(), (*values as f64 / all.max(1) as f64).into())).collect()
}

/// `Q4_K 86%, Q6_K 14%`, or the only one.
fn stored(shares: &Map<String, Value>) -> String {
    match shares.len() {
        1 => shares.keys().next().cloned().unwrap_or_default(),
        _ => in_percent(shares),
    }
}

/// `Q4_K 86%, Q6_K 14%`.
pub(super) fn in_percent(shares: &Map<String, Value>) -> String {
    let share = |(name, share): (&String, &Value)| format!("{name} {:.0}%", 100.0 * share.as_f64().unwrap_or(0.0));
    shares.iter().map(share).collect::<Vec<_>>().join(", ")
}

fn windows(config: &ModelConfig) -> String {
    let windowed: Vec<usize> = (0..config.layers).filter_map(|layer| config.window(layer)).collect();
    match windowed.first() {
        None => String::new(),
        Some(window) if windowed.len() == config.layers => format!(", window {window}"),
        Some(window) => format!(", window {window} in {} layers", windowed.len()),
    }
}

fn count(number: u64) -> String {
    match number {
        0..=9_999 => number.to_string(),
        10_000..=9_999_999 => format!("{:.1} thousand", number as f64 / 1e3),
        10_000_000..=9_999_999_999 => format!("{:.1} million", number as f64 / 1e6),
        _ => format!("{:.2} billion", number as f64 / 1e9),
    }
}

/// Bytes by precision.
fn sizes(by_precision: &Map<String, Value>) -> String {
    let size = |(name, size): (&String, &Value)| format!("{name} {}", bytes(size.as_u64().unwrap_or(0)));
    by_precision.iter().map(size).collect::<Vec<_>>().join(", ")
}

fn bytes(number: u64) -> String {
    match number {
        0..=9_999 => format!("{number} B"),
        10_000..=9_999_999 => format!("{:.1} kB", number as f64 / 1e3),
        10_000_000..=9_999_999_999 => format!("{:.1} MB", number as f64 / 1e6),
        _ => format!("{:.2} GB", number as f64 / 1e9),
    }
}

//! Command-line flags, each with its words in the help.
//!
//! A flag that was not given is `None`, so that a config file's value stays; [`super::settings`] says what both amount to.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use paceline::command::fields;
use paceline::command::wording::in_words;
use paceline::routing::RequestHints;
use paceline::{DraftLength, DrafterChoice, LayerChoice, Objective, Precision, Profile, SkipPlan};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const EXAMPLES: &str = "\
Examples:
  A question to the small model that ships, which drafts with two smaller ones:
    paceline generate --prompt 'Sort the list from a to z: cloud, paper, glass, boat, moon.'
  A prompt; the answer streams as it comes:
    paceline generate --model DIR --prompt 'Once upon a time' --max-new-tokens 100
  A conversation, ended with Ctrl-D:
    paceline generate --model DIR
  A question to a chat model, from another program:
    echo 'What is a paceline?' | paceline generate --model DIR --chat
  With a smaller model of the same tokenizer as drafter; the answer stays the same:
    paceline generate --model DIR --draft SMALL --prompt 'Once upon a time'
  With the model itself as drafter, its weights rounded to 4 bits; the answer stays the same:
    paceline generate --model DIR --drafter self:int4 --prompt 'Once upon a time'
  A file of prompts, an object each, like {\"id\": 1, \"prompt\": \"Once upon a time\"}:
    paceline generate --model DIR --prompts prompts.jsonl --json > answers.jsonl
  Settings from a file, with lines like `model = \"DIR\"` and `max-new-tokens = 100`:
    paceline generate --config settings.toml --prompt 'Once upon a time'

  Less work, and not always the same answer: without a layer, or leaving it early where it is sure:
    paceline generate --prompt 'Work out 319 + 577.' --quality best-effort --skip-layers late:1
    paceline generate --prompt 'Work out 319 + 577.' --quality best-effort --exit-threshold 0.999

The tokens are those of plain decoding (`--drafter none`), whatever drafts; only the time differs.
With `--quality best-effort` they need not be: what is named is given up, or else a lower precision
that the router expects to change hardly an answer; the report says what was.
Ctrl-C ends an answer, which is printed and noted as `cancelled`; a second one ends the program.
Exit codes: 0 done, 1 something failed (a sentence on standard error says what), 2 wrong usage, 130
or 143 ended by Ctrl-C or SIGTERM.";

/// Flags of `paceline generate`.
#[derive(Args, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = EXAMPLES)]
pub(super) struct GenerateFlags {
    /// The target model: a GGUF file, a directory (config.json, model.safetensors, tokenizer.json), or the name of one on this
    /// machine, as `paceline models` lists them [default: the one that ships, and its drafts]
    #[arg(long, help_heading = "Model", value_name = "MODEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<PathBuf>,
    /// A draft model with the same tokenizer; may be given several times
    #[arg(long, help_heading = "Model", value_name = "MODEL")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    draft: Vec<PathBuf>,
    /// The target's precision: auto (as stored), f32, bf16, f16, int8 or int4 [default: auto]
    #[arg(long, help_heading = "Model", value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<String>,
    /// The draft models' precision: auto, f32, bf16, f16, int8 or int4 [default: auto]
    #[arg(long, help_heading = "Model", value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    draft_precision: Option<String>,
    /// Load the target in a lower precision too, int8 or int4, to draft for itself; may be given several times
    #[arg(long, help_heading = "Model", value_name = "P")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    self_draft: Vec<String>,
    /// The precision of cached keys and values: f32, or f16 for half the memory [default: f32]
    #[arg(long, help_heading = "Model", value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_cache: Option<String>,
    /// Tokens whose keys and values are held at once, of all answers together; 0 for as many as there is memory for [default: 0]
    #[arg(long, help_heading = "Model", value_name = "TOKENS", value_parser = whole::<usize>, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_pool: Option<usize>,
    /// Answers of `--prompts` that are made at once, at most 64, sharing steps; the tokens are the same, and answers come in the
    /// order of the prompts [default: 1]
    #[arg(long, help_heading = "Prompt", value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel: Option<usize>,
    /// The prompt; without it and `--prompts`, standard input is the prompt, or a conversation starts on a terminal
    #[arg(long, help_heading = "Prompt", value_name = "TEXT", conflicts_with = "prompts", allow_hyphen_values = true)]
    #[serde(skip)]
    pub(super) prompt: Option<String>,
    /// A file with an object a line, with `prompt` or `messages`, optionally `seed`; all its fields come back
    /// with the answer
    #[arg(long, help_heading = "Prompt", value_name = "FILE.jsonl")]
    #[serde(skip)]
    pub(super) prompts: Option<PathBuf>,
    /// Render prompts with the model's chat template; always so with the model that ships
    #[arg(long, help_heading = "Prompt")]
    #[serde(skip)]
    pub(super) chat: bool,
    /// What the chat template is given beside the messages, as in '{"enable_thinking": false}': an object with `tools`,
    /// `documents` or whatever the template knows
    #[arg(long, help_heading = "Prompt", value_name = "JSON", value_parser = object)]
    #[serde(skip_serializing_if = "Option::is_none")]
    template_args: Option<Map<String, Value>>,
    /// Tokens to generate at most [default: 256; with `--quality bounded`, as many as the certificate was calibrated with]
    #[arg(long, help_heading = "Answer", value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_new_tokens: Option<usize>,
    /// Randomness; 0 always takes the likeliest token [default: 0]
    #[arg(long, help_heading = "Answer", value_name = "T", allow_negative_numbers = true, value_parser = number)]
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    /// Sample among the K likeliest tokens; 0 means all [default: 0]
    #[arg(long, help_heading = "Answer", value_name = "K", value_parser = whole::<usize>, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<usize>,
    /// Sample among the likeliest tokens that together have probability P [default: 1]
    #[arg(long, help_heading = "Answer", value_name = "P", allow_negative_numbers = true, value_parser = number)]
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    /// Sample among tokens at least P times as likely as the likeliest [default: 0]
    #[arg(long, help_heading = "Answer", value_name = "P", allow_negative_numbers = true, value_parser = number)]
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f32>,
    /// Make tokens of prompt and answer less likely; 1 is off [default: 1]
    #[arg(long, help_heading = "Answer", value_name = "R", allow_negative_numbers = true, value_parser = number)]
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f32>,
    /// Subtract this once from tokens already in the answer; 0 is off [default: 0]
    #[arg(long, help_heading = "Answer", value_name = "R", allow_negative_numbers = true, value_parser = number)]
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    /// Fixes every random choice [default: 0]
    #[arg(long, help_heading = "Answer", value_name = "S", value_parser = whole::<u64>, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// A text that ends the answer; may be given several times
    #[arg(long, help_heading = "Answer", value_name = "TEXT", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop: Vec<String>,
    /// Go on after the model's own stop tokens
    #[arg(long, help_heading = "Answer")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_eos: bool,
    /// What drafts: auto, none, lookup, model, model:NAME, exit:E (the target's lowest E layers), self:int8 or self:int4
    /// (the target rounded), or skip:PLAN (the target without some parts, as in skip:a3,m3,5) [default: auto]
    #[arg(long, help_heading = "Drafting", value_name = "DRAFTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    drafter: Option<DrafterChoice>,
    /// Let `auto` draft with the target without these parts: a3 is the attention of layer 3 (counted from 0), m3 its
    /// MLP, 5 all of layer 5, as in a3,m3,5; `paceline inspect DIR --search-skip` looks for a plan
    #[arg(long, help_heading = "Drafting", value_name = "PLAN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    skip_plan: Option<SkipPlan>,
    /// How many tokens to draft: auto or a number from 1 to 16 [default: auto]
    #[arg(long, help_heading = "Drafting", value_name = "auto|N", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    draft_len: Option<DraftLength>,
    /// What may be given up for speed: exact (nothing), best-effort (what the flags below name, or what
    /// the router expects to change hardly an answer), or bounded (nothing that falls
    /// below `--quality-floor`; needs a certificate) [default: exact]
    #[arg(long, help_heading = "Quality", value_name = "QUALITY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<String>,
    /// With `--quality bounded`: the share of the target's quality to keep, from 0 to 1 (the target in full)
    #[arg(long, help_heading = "Quality", value_name = "Q", allow_negative_numbers = true, value_parser = number64)]
    #[serde(skip_serializing_if = "Option::is_none")]
    quality_floor: Option<f64>,
    /// With `--quality bounded`: a certificate that `paceline-eval certify` made; may be given several times [default: those in
    /// the folder `certificates` beside the model]
    #[arg(long, help_heading = "Quality", value_name = "FILE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    certificate: Vec<PathBuf>,
    /// With `--quality best-effort`: tokens that an exit of the target is sure of with this probability, from 0.5 to 1, come out
    /// without verification; `--drafter exit:E` names the exit
    #[arg(long, help_heading = "Quality", value_name = "C", allow_negative_numbers = true, value_parser = number64)]
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_threshold: Option<f64>,
    /// With `--quality best-effort`: the target does without N layers, importance:N (those that change least), uniform:N,
    /// early:N or late:N, or without the parts of a plan, as in a3,m3,5
    #[arg(long, help_heading = "Quality", value_name = "LAYERS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    skip_layers: Option<LayerChoice>,
    /// Measure for `--skip-layers importance:N` on this text, one like those that the model is for, instead of one that it
    /// writes itself
    #[arg(long, help_heading = "Quality", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    importance_text: Option<PathBuf>,
    /// With `--quality best-effort`: the target answers in this lower precision, int8 or int4
    #[arg(long, help_heading = "Quality", value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lower_precision: Option<String>,
    /// What matters: latency, balanced (time and energy), energy, or capacity (drafters without memory of their own). Energy is
    /// taken to go with time, so the first three choose alike
    /// [default: latency]
    #[arg(long, help_heading = "Routing", value_name = "PROFILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
    /// The same in weights of your own, as in time=1,energy=0.5,memory=0.1: in units of plain decoding's time and energy a
    /// token, and of the target's size
    #[arg(long, help_heading = "Routing", value_name = "WEIGHTS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<Objective>,
    /// What is known of the request, for the router: turn=N (of the conversation), past-acceptance=S (of this user's drafts),
    /// relevance=S (of retrieved passages), load=S (of the machine), shares from 0 to 1. A router heeds those that it saw in its
    /// training: the one that ships the turn
    #[arg(long, help_heading = "Routing", value_name = "HINTS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    hints: Option<RequestHints>,
    /// Keep the weights of models in a named precision (`--precision int8`) in this folder, for a faster next start: a file for
    /// each, as large as they are in memory
    #[arg(long, help_heading = "Model", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    materialization_root: Option<PathBuf>,
    /// Leave the router beside the model out: `auto` goes by measurements alone
    #[arg(long, help_heading = "Routing")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_router: bool,
    /// A file that keeps what is learned while answering, for the next time
    #[arg(long, help_heading = "Routing", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    online_state: Option<PathBuf>,
    /// Learn nothing while answering: the router and what is in the file of --online-state stay as they are
    #[arg(long, help_heading = "Routing")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    frozen: bool,
    /// Add a digest of each answer, without its prompt and text, to this file, for `paceline stats` [default:
    /// paceline/journal.jsonl in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, help_heading = "Output and settings", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<PathBuf>,
    /// Keep no journal
    #[arg(long, help_heading = "Output and settings")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_journal: bool,
    /// Processor threads [default: all that the process may use]
    #[arg(long, help_heading = "Machine", value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<usize>,
    /// Bind threads to processors: only where nothing else runs
    #[arg(long, help_heading = "Machine")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pin_threads: bool,
    /// Where to compute: cpu or cuda:I [default: cpu]
    #[arg(long, help_heading = "Machine", value_name = "DEVICE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// What tells the energy in reports: auto (what measures the device), nvml (the NVIDIA card), rapl (the processor package),
    /// estimated (a formula over processor time, from the numbers below), or none [default: auto]
    #[arg(long, help_heading = "Energy", value_name = "SOURCE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    energy_source: Option<String>,
    /// Watts that what is measured takes when nothing runs; with them, reports tell net energy too
    #[arg(long, help_heading = "Energy", value_name = "W", allow_negative_numbers = true, value_parser = number64)]
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_watts: Option<f64>,
    /// With `--energy-source estimated`: watts of the whole package when all its processors work
    #[arg(long, help_heading = "Energy", value_name = "W", allow_negative_numbers = true, value_parser = number64)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tdp_watts: Option<f64>,
    /// With `--energy-source estimated`: the share of the package's idle watts that is this machine's, from 0 to 1 [default: 1]
    #[arg(long, help_heading = "Energy", value_name = "S", allow_negative_numbers = true, value_parser = number64)]
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_share: Option<f64>,
    /// With `--energy-source estimated`: processors (hardware threads) of the whole package; a virtual machine shows fewer
    #[arg(long, help_heading = "Energy", value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    package_cores: Option<usize>,
    /// Print an object per prompt, with tokens and a report
    #[arg(long, help_heading = "Output and settings")]
    #[serde(skip)]
    pub(super) json: bool,
    /// Settings from a file: the same names as these flags, without the dashes in front
    #[arg(long, help_heading = "Output and settings", value_name = "FILE.toml")]
    #[serde(skip)]
    pub(super) config: Option<PathBuf>,
}

const SEARCH: &str = "\
--search-skip looks for parts of the model without which it can draft for itself: attention and
MLP are left out one after the other, each time the one without which drafting promises most, for
as long as that promises more. It judges on a text, of which the drafts should guess the model's
likeliest tokens: the one of --text, or, without it, one that the model writes itself, at random,
after its beginning-of-text token (or after `The`, where its tokenizer has none). The model's steps
are timed for it, so other load on the machine disturbs it. What it finds is a prediction:
`paceline bench --skip-plan PLAN --prompt TEXT` measures it, at the stored precision. Agreement
is the share of tokens that a draft gets right, its cost that of a plain step's weights.";

/// Flags of `paceline inspect`.
#[derive(Args)]
#[command(after_help = SEARCH)]
pub(super) struct InspectFlags {
    /// The model: a GGUF file, a directory, or a name [default: the model that ships]
    #[arg(value_name = "MODEL")]
    directory: Option<PathBuf>,
    /// The model, as the other commands take it
    #[arg(long, value_name = "MODEL", conflicts_with = "directory")]
    model: Option<PathBuf>,
    /// Look for parts that can be skipped while drafting, for `generate --drafter skip:PLAN`; takes longer the more layers there are
    #[arg(long)]
    pub(super) search_skip: bool,
    /// Write the best plan to a file, for `skip:file:FILE`, whether it pays or not
    #[arg(long, value_name = "FILE", requires = "search_skip")]
    pub(super) skip_out: Option<PathBuf>,
    /// Search on this text, instead of one that the model writes itself
    #[arg(long, value_name = "FILE", requires = "search_skip")]
    pub(super) text: Option<PathBuf>,
    /// The precision to search at: auto (as stored), f32, bf16, f16, int8 or int4
    #[arg(long, value_name = "P", default_value = "auto", requires = "search_skip", value_parser = parse_setting::<Precision>)]
    pub(super) precision: Precision,
    /// Processor threads of the search [default: all that the process may use]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, requires = "search_skip")]
    pub(super) threads: usize,
    /// Print one object
    #[arg(long)]
    pub(super) json: bool,
}

impl InspectFlags {
    /// The model's directory, whichever way it was given, if it was.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref().or(self.model.as_deref())
    }
}

fn number(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|number: &f32| number.is_finite())
        .ok_or_else(|| "write a finite number, like 0.7".to_owned())
}

fn number64(text: &str) -> Result<f64, String> {
    let not_finite = || "write a finite number, like 0.9".to_owned();
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(not_finite)
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    fields::numbers_stay("--template-args", text).map_err(|error| error.to_string())?;
    serde_json::from_str(text)
        .map_err(|error| format!("write a JSON object, like {{\"enable_thinking\": false}} ({error})"))
}

fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "write a whole number from 0 to 2^64 - 1".to_owned())
}

/// Reads a setting that is a word.
pub(super) fn parse_setting<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
    serde_json::from_value(Value::from(text)).map_err(|error| in_words(&error.to_string()))
}

//! The command line: one subcommand a step, each with a recipe and a folder.
//!
//! To add a step: a function of [`Job`], a line in [`Command`] and one in [`run`].

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use paceline::command::output::print;
use paceline::command::{self, Failure};

use crate::baseline::{self, BaselineFlags};
use crate::job::{Job, JobFlags, TrainingFlags};
use crate::recipe::Recipe;
use crate::score::{self, ScoreFlags};
use crate::speed::{self, SpeedFlags};
use crate::task_sets::{self, TasksFlags};
use crate::{distill, exits, family, frequent, pretrain, router, tokenize, traces, vocabulary};

const EXAMPLES: &str = "\
Examples:
  paceline-train tokenizer recipe.toml --set TEXT=my/texts   learn a vocabulary from the text
  paceline-train tokens recipe.toml --set TEXT=my/texts      turn text and tasks into tokens
  paceline-train tokens --help                               what a step does, with examples

A recipe is a TOML file with all settings; training/recipes/ holds some. What a recipe makes goes to
the folder of --out. A step that was ended before it was done goes on when it is called again; one
that is done is skipped. Ctrl-C or SIGTERM ends a training after a checkpoint, a second one at once.
Exit codes: 0 done, 1 failed (one sentence says why), 2 wrong usage, 130 or 143 ended by a signal.";

const EXITS_EXAMPLES: &str = "\
Heads by which the model can be left early, for drafting with its lower layers (`paceline generate --drafter exit:6`). The
model itself stays as it is. Its activations over the recipe's text are kept in OUT/exits while the heads learn from them;
they may be deleted afterwards. The heads go to exits.safetensors beside the model, where the runtime finds them.

Example of a section for a recipe whose target has 12 layers:
  [exits]
  depths = [3, 6, 9]
  rank = 32
  rows = 200000

  paceline-train exits own.toml --set TEXT=my/texts --out my-model

prints how often each exit picks what the model picks, and how well its confidence tells so. For a model made elsewhere:
[exits] model = \"path/to/model\", with [tokenizer] from = \"path/to/model\".";

const TOKENIZER_EXAMPLES: &str = "\
Byte-level BPE with GPT-2's split pattern; a digit is always a token by itself. Tokens for conversations come first:
<|begin|>, <|end|>, <|user|>, <|assistant|>, <|system|>, <|pad|>.

Example of a recipe, own.toml:
  [tokenizer]
  vocabulary = 4096
  [[data.text]]
  path = \"${TEXT}/*.txt\"

  paceline-train tokenizer own.toml --set TEXT=my/texts --out my-model

makes my-model/tokenizer/ with tokenizer.json, tokenizer_config.json (chat template), special_tokens_map.json and
generation_config.json. To take a model's tokenizer over instead: [tokenizer] from = \"path/to/model\".";

const TOKENS_EXAMPLES: &str = "\
Plain text is cut at ends of paragraphs into documents of at most `document_tokens`. Of conversations, rows of .jsonl
files with `messages` or `prompt` and an `answer`, only the answers are learned.

Example of a recipe, own.toml:
  [data]
  document_tokens = 1024
  [[data.text]]
  path = \"${TEXT}/*.txt\"
  [[data.text]]
  path = \"${TEXT}/questions.jsonl\"
  fields = { prompt = \"question\" }
  weight = 0.5

  paceline-train tokens own.toml --set TEXT=my/texts --out my-model

makes my-model/tokens/ with a file of each source to train on and one that is held out (`validation`, 1%).";

const SCORE_EXAMPLES: &str = "\
Answers are greedy, at the precision that is stored, through the model's chat template: the tokens of `paceline generate`.

Examples:
  paceline-train score models/target                                 the whole test split
  paceline-train score models/target --split validation --limit 10   240 prompts, for a first look
  paceline-train score models/target --text essay.txt --out card     a folder with page and data
  paceline-train score models/target --tasks mine.jsonl --json       tasks of your own";

const BASELINE_EXAMPLES: &str = "\
For every [[data.text]] of the recipe: an interpolated 3-gram model (modified Kneser-Ney) over the recipe's tokens learns
from what is trained on and is measured on what was held out; so is models/target of the same folder, once it is there.

Example:
  paceline-train baseline own.toml --set TEXT=my/texts --out my-model

prints a table, and leaves it as my-model/baseline.md and baseline.json.";

const DISTILL_EXAMPLES: &str = "\
The target (models/target) answers prompts of the tasks and goes on with texts, greedily; the draft learns the target's
distributions over that. How often both pick the same token on held-out tasks is measured on the way.

Example of a draft in a recipe:
  [drafts.small]
  answers = 20000
  [drafts.small.model]
  layers = 3
  hidden = 128
  intermediate = 344
  heads = 2
  training = { steps = 2000 }

  paceline-train distill recipe.toml --draft small

makes models/small/ beside models/target/, with the target's tokenizer.";

const DRAFT_VOCABULARY_EXAMPLES: &str = "\
Example of a recipe's section:
  [draft_vocabulary]
  tokens = 1024

  paceline-train draft-vocabulary recipe.toml

writes draft_vocabulary.json beside the target and its drafts. The target goes on to choose from all tokens.";

const TRACES_EXAMPLES: &str = "\
The target answers prompts; along its answers every exit, every draft model and every rounded or shortened form of the target
is asked for every token, and rounds of drafting are replayed at this machine's costs.

Example of a recipe for models made elsewhere, own.toml:
  [tokenizer]
  from = \"path/to/model\"
  [[data.text]]
  path = \"${TEXT}/*.txt\"
  [traces]
  model = \"path/to/model\"
  drafts = [\"path/to/small-model\"]
  texts = 2000

  paceline-train tokens own.toml --set TEXT=my/texts --out my-router
  paceline-train traces own.toml --set TEXT=my/texts --out my-router

makes my-router/traces/ with traces.csv (a row for each prompt and plan), costs.json and the parts that `router` learns from.";

const ROUTER_EXAMPLES: &str = "\
Learns from OUT/traces, which `paceline-train traces` makes, and writes router.safetensors beside the target, where the runtime
finds it. OUT/router has a page about it, its losses and its reliability curve.

Example:
  paceline-train traces own.toml --out my-router
  paceline-train router own.toml --out my-router";

const FAMILY_EXAMPLES: &str = "\
Example: the smallest family, in about a minute, from generated tasks alone:
  paceline-train family training/recipes/smoke.toml

makes out/smoke/models/ with the target and its drafts, each a Hugging Face folder.";

/// What was typed.
#[derive(Parser)]
#[command(name = "paceline-train", version, about, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Learn a vocabulary from the recipe's text and tasks, or check the one that it takes over.
    #[command(after_help = TOKENIZER_EXAMPLES)]
    Tokenizer(JobFlags),
    /// Turn the recipe's text and tasks into tokens to train on.
    #[command(after_help = TOKENS_EXAMPLES)]
    Tokens(JobFlags),
    /// Train the target model.
    Pretrain(TrainingFlags),
    /// Train the draft models on what the target answers itself, and on its distributions.
    #[command(after_help = DISTILL_EXAMPLES)]
    Distill {
        /// What every training takes.
        #[command(flatten)]
        flags: TrainingFlags,
        /// The draft to train, by its name in the recipe [default: all of them]
        #[arg(long, value_name = "NAME")]
        draft: Option<String>,
    },
    /// All steps in order, from the tasks to the exit heads. What is done is skipped.
    #[command(after_help = FAMILY_EXAMPLES)]
    Family(TrainingFlags),
    /// Train heads by which the model can be left early.
    #[command(after_help = EXITS_EXAMPLES)]
    Exits(TrainingFlags),
    /// Choose the tokens that drafts choose from, those that are learned most often, for the target's exits and its drafts.
    #[command(after_help = DRAFT_VOCABULARY_EXAMPLES)]
    DraftVocabulary(JobFlags),
    /// Write down what every plan does on every prompt, for the router to learn from.
    #[command(after_help = TRACES_EXAMPLES)]
    Traces(TrainingFlags),
    /// Train the router on traces, and say what it is worth.
    #[command(after_help = ROUTER_EXAMPLES)]
    Router(TrainingFlags),
    /// Say how fast the recipe's target trains here.
    Speed(SpeedFlags),
    /// Say how many prompts a model answers rightly, by category and level, and how well it predicts texts.
    #[command(after_help = SCORE_EXAMPLES)]
    Score(ScoreFlags),
    /// Say how well 3-grams predict the text that was held out, and the trained target beside them.
    #[command(after_help = BASELINE_EXAMPLES)]
    Baseline(BaselineFlags),
    /// Read a recipe and say what its settings are, defaults included.
    Show(JobFlags),
    /// Write task sets with checkable answers.
    Tasks(TasksFlags),
}

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    command::run("paceline-train", |arguments: Arguments| {
        match arguments.command {
            Command::Tokenizer(flags) => vocabulary::run(&Job::open(&flags)?)?.say("tokenizer"),
            Command::Tokens(flags) => tokenize::run(&Job::open(&flags)?)?.say("tokens"),
            Command::Pretrain(flags) => pretrain::run(&Job::open(&flags.job)?, &flags)?.say("pretrain"),
            Command::Distill { flags, draft } => distill::run(&Job::open(&flags.job)?, &flags, draft.as_deref())?,
            Command::Exits(flags) => exits::run(&Job::open(&flags.job)?, &flags)?.say("exits"),
            Command::DraftVocabulary(flags) => frequent::run(&Job::open(&flags)?)?.say("draft-vocabulary"),
            Command::Traces(flags) => traces::run(&Job::open(&flags.job)?, &flags)?.say("traces"),
            Command::Router(flags) => router::run(&Job::open(&flags.job)?, &flags)?.say("router"),
            Command::Family(flags) => family::run(&flags)?,
            Command::Speed(flags) => speed::run(&flags)?,
            Command::Score(flags) => score::run(&flags)?,
            Command::Baseline(flags) => baseline::run(&flags)?,
            Command::Show(flags) => show(&flags)?,
            Command::Tasks(flags) => task_sets::run(&flags)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints the recipe with its defaults.
fn show(flags: &JobFlags) -> Result<(), Failure> {
    let recipe = Recipe::read(&flags.recipe, &flags.set)?;
    print(&toml::to_string(&recipe)?)?;
    Ok(())
}

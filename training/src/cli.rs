//! The command line: one subcommand a step, each with a recipe and a folder.
//!
//! To add a step: a function of [`Job`], a line in [`Command`] and one in [`run`].

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use paceline::command::output::print;
use paceline::command::{self, Failure};

use crate::job::{Job, JobFlags};
use crate::pretrain::{self, TrainingFlags};
use crate::recipe::Recipe;
use crate::speed::{self, SpeedFlags};
use crate::{exits, tasks, tokenizer, tokens};

const EXAMPLES: &str = "\
Examples:
  paceline-train tokenizer recipe.toml --set TEXT=my/texts     learn a vocabulary from the recipe's text
  paceline-train tokens recipe.toml --set TEXT=my/texts        turn text and tasks into tokens
  paceline-train tokens --help                                 what a step does, with examples

A recipe is a TOML file with all settings; training/recipes/ holds some. What a recipe makes goes to the folder
of --out. A step that was ended before it was done goes on when it is called again; one that is done is skipped.
Exit codes: 0 done, 1 failed (one sentence says why), 2 wrong usage.";

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
    /// Train heads by which the model can be left early.
    #[command(after_help = EXITS_EXAMPLES)]
    Exits(TrainingFlags),
    /// Say how fast the recipe's target trains here.
    Speed(SpeedFlags),
    /// Read a recipe and say what its settings are, defaults included.
    Show(JobFlags),
    /// Write task sets with checkable answers.
    Tasks(tasks::TasksFlags),
}

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    command::run("paceline-train", |arguments: Arguments| {
        match arguments.command {
            Command::Tokenizer(flags) => tokenizer::run(&Job::open(&flags)?)?,
            Command::Tokens(flags) => tokens::run(&Job::open(&flags)?)?,
            Command::Pretrain(flags) => pretrain::run(&flags)?,
            Command::Exits(flags) => exits::run(&flags)?,
            Command::Speed(flags) => speed::run(&flags)?,
            Command::Show(flags) => show(&flags)?,
            Command::Tasks(flags) => tasks::run(&flags)?,
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

//! The command line: one subcommand a step.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use paceline::command;

use crate::certify::{self, CertifyFlags};
use crate::report::{self, CompareFlags, ReportFlags};
use crate::run::{self, RunFlags};

const EXAMPLES: &str = "\
Examples:
  paceline-eval run eval/suites/tasks.toml --out measured      answer; goes on where it was ended
  paceline-eval run suite.toml --out measured --shard 2/4      the second quarter of the prompts
  paceline-eval report measured                                measured/report.html and its tables
  paceline-eval compare before after                           what changed between two runs
  paceline-eval certify tasks.jsonl --floor 0.95 --out certs   what may be given up, 95% being kept

Exit codes: 0 done, 1 failed (one sentence says why), 2 wrong usage, 130 or 143 ended by a signal.";

const RUN_EXAMPLES: &str = "\
Example of a suite:
  name = \"tasks\"
  repeats = 5                       # how often every plan answers every prompt
  reference = \"plain\"               # the plan that others are compared with
  [engine]                          # settings of what is loaded, as in a config file of `paceline generate`
  model = \"../../models/target\"
  draft = [\"../../models/small\"]
  [answer]                          # settings of all plans
  max-new-tokens = 256
  [[prompts]]
  path = \"../../datasets/tasks/test.jsonl\"
  format = \"tasks\"                  # or spec-bench, gsm8k, humaneval
  each = 8                          # the first of every category and level
  [[plan]]
  name = \"plain\"
  drafter = \"none\"
  [[plan]]
  name = \"auto\"

Paths are meant from the suite's folder. Prompts are lines of JSON with `prompt` or `messages`, and `id`, `category`, `level`,
`answer` where there are some; lines that cannot be used are told and left out.";

/// What was typed.
#[derive(Parser)]
#[command(name = "paceline-eval", version, about = "Says what Paceline brings and what it costs, with uncertainty.", arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Have the plans of a suite answer its prompts, in turns, and write a row for each answer.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunFlags),
    /// Make a page of what was measured, and the tables behind it.
    Report(ReportFlags),
    /// Compare two runs of one suite, plan by plan.
    Compare(CompareFlags),
    /// Certify lossy plans for quality floors, by their losses on calibration prompts
    Certify(CertifyFlags),
}

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    command::run("paceline-eval", |arguments: Arguments| match arguments.command {
        Command::Run(flags) => run::run(&flags),
        Command::Report(flags) => report::report(&flags),
        Command::Compare(flags) => report::compare(&flags),
        Command::Certify(flags) => certify::certify(&flags),
    })
}

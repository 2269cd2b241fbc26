//! The command `run`: every plan answers every prompt of a suite, in turns, and what happened becomes rows.
//!
//! Plans answer a prompt one after the other, in another order each time, so that a machine that changes its pace
//! changes it for all of them. They share one engine: what steps cost is learned once, as in a program that serves them all.
//!
//! A prompt's rows are written together. A run that was ended drops a block that is not whole and goes on behind the last that
//! is; its rows are those of a run that was not, but for what was measured.

mod environment;
mod facts;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use paceline::command::Failure;
use paceline::command::engine::{CommandEngine, ended_by_signals};
use paceline::command::obtaining::obtain;
use paceline::command::output::{note, print_line};
use paceline::command::progress::{self, Progress};
use paceline::command::signals::Keeping;
use paceline::files::{self, Fills, LockError, LockKind, lock, own_folder, write_file};
use paceline::{Answer, Engine, Error, GenerationConfig, Prompt};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

pub use self::environment::Environment;
pub use self::facts::{Facts, PlanFacts};
use crate::prompts::Case;
use crate::rows::{Appender, LARGEST_ROWS, Row, header, read_rows, to_csv};
use crate::suite::Suite;

/// The flags of `run`.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// The suite, a TOML file
    #[arg(value_name = "SUITE.toml")]
    pub suite: PathBuf,
    /// The folder for what is measured; a run that is there is gone on with
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Do the i-th of n parts of the prompts, for several processes or machines; parts in one folder are one run for `report`
    #[arg(long, value_name = "i/n", default_value = "1/1")]
    pub shard: Shard,
}

/// A part of the prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 1.
    pub part: usize,
    /// Of how many.
    pub of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Self { part, of }),
            _ => Err("write i/n with i from 1 to n, as in 2/4".to_owned()),
        }
    }
}

impl Shard {
    /// True if the prompt of an index belongs to it.
    fn has(self, index: usize) -> bool {
        index % self.of == self.part - 1
    }

    /// The name of a file of it.
    fn file(self, name: &str, kind: &str) -> String {
        if self.of == 1 { format!("{name}.{kind}") } else { format!("{name}-{}-of-{}.{kind}", self.part, self.of) }
    }
}

/// A prompt that is due, in a repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    repeat: usize,
    case: usize,
    /// Its place among the turns of all shards.
    number: usize,
}

/// The prompts of a shard in the order in which they are answered: all of them in each repeat, shuffled. They are numbered among those
/// of all shards, so that a prompt's plans answer in the same order however the prompts are shared out.
fn turns(suite: &Suite, shard: Shard) -> Vec<Turn> {
    let shuffled = |repeat: usize| {
        let mut cases: Vec<usize> = (0..suite.cases.len()).collect();
        cases.shuffle(&mut ChaCha8Rng::seed_from_u64(repeat as u64));
        cases.into_iter().map(move |case| (repeat, case))
    };
    let all = (0..suite.repeats).flat_map(shuffled).enumerate();
    all.filter(|(_, (_, case))| shard.has(*case))
        .map(|(number, (repeat, case))| Turn { repeat, case, number })
        .collect()
}

/// The plans in the order in which they answer. Over as many turns in a row as there are plans (twice as many, of an odd number), each is at
/// every place and follows every other equally often, so that what one leaves in the caches helps or hinders all alike: a Latin
/// square balanced for first-order carry-over (Williams 1949).
fn plan_order(plans: usize, turn: Turn) -> Vec<usize> {
    // 0, 1, n-1, 2, n-2, ..: all steps from one to the next are different.
    let first = (0..plans).map(|place| if place % 2 == 1 { place.div_ceil(2) } else { (plans - place / 2) % plans });
    let mut order: Vec<usize> = first.map(|plan| (plan + turn.number) % plans).collect();
    if plans % 2 == 1 && (turn.number / plans) % 2 == 1 {
        order.reverse();
    }
    order
}

/// Runs a suite.
///
/// # Errors
/// A sentence that says what is wrong, where, and what to do.
pub fn run(flags: &RunFlags) -> Result<ExitCode, Failure> {
    let suite = Suite::read(&flags.suite)?;
    suite.problems.iter().for_each(|problem| note(problem));
    let _lock = take(&flags.out, flags.shard)?;
    let rows_file = flags.out.join(flags.shard.file("rows", "csv"));
    let facts_file = flags.out.join(flags.shard.file("run", "json"));
    let before = Facts::read(&facts_file)?;
    if let Some(before) = before.as_ref().filter(|before| before.suite_digest != suite.digest) {
        return Err(anyhow!(
            "{} holds a run of another suite, {}, or of this one before it was changed; name another folder with --out.",
            flags.out.display(),
            before.suite
        )
        .into());
    }
    let done = resume(&rows_file, &suite)?;
    let due: Vec<Turn> = turns(&suite, flags.shard)
        .into_iter()
        .filter(|turn| !done.contains(&(suite.cases[turn.case].id.clone(), turn.repeat)))
        .collect();
    if due.is_empty() {
        print_line(&format!("{}: done already, {} prompts", suite.name, done.len()))?;
        return Ok(ExitCode::SUCCESS);
    }

    for model in suite.engine.model.iter().chain(&suite.engine.draft) {
        obtain(model)?;
    }
    let mut progress = Progress::new();
    let engine = CommandEngine::from(Engine::load_with_progress(&suite.engine, &mut |stage| {
        progress.show(&format!("loading {}", stage.directory.display()), stage.done, stage.total);
    })?);
    progress::clear();
    let mut facts = Facts::gather(&suite, &engine, flags.shard)?;
    if let Some(before) = before {
        facts.go_on(before).map_err(|reason| {
            anyhow!(
                "The run in {} cannot be resumed, as {reason}; name another folder with --out.",
                flags.out.display()
            )
        })?;
    }
    warm_up(&engine, &suite)?;
    facts.write(&facts_file)?;
    let mut rows = Appender::open(&rows_file)?;

    let keeping = Keeping::begin();
    let mut progress = Progress::new();
    for (number, &turn) in due.iter().enumerate() {
        progress.show(&format!("{}: prompts", suite.name), number, due.len());
        let case = &suite.cases[turn.case];
        let mut block = Vec::with_capacity(suite.plans.len());
        for (place, plan) in plan_order(suite.plans.len(), turn).into_iter().enumerate() {
            let plan = &suite.plans[plan];
            let answer = answer(&engine, &case.prompt, &plan.settings);
            // An answer that a signal ended is no measurement; the block is made anew when the run goes on.
            keeping.check()?;
            block.push(match &answer {
                Ok(answer) => Row::of(case, &plan.name, turn.repeat, place, answer),
                Err(error) => Row::failed(case, &plan.name, turn.repeat, place, error),
            });
            if let Ok(answer) = answer {
                facts.learn(&answer.report);
            }
        }
        rows.append(&block)?;
    }
    progress::clear();
    facts.finish(&engine, &suite);
    facts.write(&facts_file)?;
    print_line(&format!(
        "{}: {} prompts, {} plans, {} repeats are in {}; `paceline-eval report {}` makes a page of them.",
        suite.name,
        turns(&suite, flags.shard).len() / suite.repeats,
        suite.plans.len(),
        suite.repeats,
        rows_file.display(),
        flags.out.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Answers a prompt; a signal ends it early.
fn answer(engine: &Engine, prompt: &Prompt, settings: &GenerationConfig) -> Result<Answer, Error> {
    let generation = engine.generate(prompt.clone(), settings)?;
    let _on_signal = ended_by_signals(&generation);
    generation.finish()
}

/// Some prompts, answered by every plan and not counted: caches fill, costs are learned.
///
/// # Errors
/// If a plan answers none of them: it would most likely answer none at all.
fn warm_up(engine: &Engine, suite: &Suite) -> Result<(), anyhow::Error> {
    let prompts = suite.warm_up.max(1);
    let stride = (suite.cases.len() / prompts).max(1);
    let cases: Vec<&Case> = suite.cases.iter().step_by(stride).take(prompts).collect();
    let mut answered = vec![false; suite.plans.len()];
    let mut failures = vec![None; suite.plans.len()];
    for case in cases {
        for (place, plan) in suite.plans.iter().enumerate() {
            match engine.generate(case.prompt.clone(), &plan.settings).and_then(paceline::Generation::finish) {
                Ok(_) => answered[place] = true,
                // Single prompts that cannot be answered are told in their rows.
                Err(error) => failures[place] = Some(error.to_string()),
            }
        }
    }
    let useless = suite.plans.iter().zip(answered).zip(failures).find(|((_, answered), _)| !answered);
    match useless {
        Some(((plan, _), failure)) => {
            Err(anyhow!("The plan {} answers none of the first prompts. {}", plan.name, failure.unwrap_or_default()))
        }
        None => Ok(()),
    }
}

/// Prompts and repeats that an earlier run completed; the file is left with whole blocks alone.
fn resume(path: &Path, suite: &Suite) -> Result<BTreeSet<(String, usize)>, anyhow::Error> {
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    let text = files::read(path, LARGEST_ROWS)
        .with_context(|| format!("{} cannot be read; check its permissions", path.display()))?;
    if header().as_bytes().starts_with(&text) && !text.ends_with(b"\n") {
        // It was ended in the header.
        write_file(path, header().as_bytes())?;
        return Ok(BTreeSet::new());
    }
    if !text.starts_with(header().as_bytes()) {
        return Err(anyhow!(
            "{} has other columns than this version writes; go on with the version that began it, or name another folder with --out.",
            path.display()
        ));
    }
    // A line without its end was being written.
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let torn = whole < text.len();
    if torn {
        write_file(path, &text[..whole])?;
    }
    let table = read_rows(path)?;
    let blocks: Vec<&[Row]> = table.rows.chunk_by(|a, b| (&a.id, a.repeat) == (&b.id, b.repeat)).collect();
    let kept: Vec<&[Row]> = blocks.into_iter().filter(|block| block.len() == suite.plans.len()).collect();
    let rows: Vec<&Row> = kept.iter().copied().flatten().collect();
    if rows.len() < table.rows.len() || !table.problems.is_empty() {
        let mut bytes = header().into_bytes();
        bytes.extend(to_csv(&rows, false)?);
        write_file(path, &bytes)?;
    }
    Ok(kept.iter().filter_map(|block| block.first()).map(|row| (row.id.clone(), row.repeat)).collect())
}

/// Makes the folder and locks a shard of it against another command; the system lets go when the process ends, however.
fn take(out: &Path, shard: Shard) -> Result<File, anyhow::Error> {
    let shown = out.display();
    let unwritable = || format!("The folder {shown} cannot be written to; name another with --out");
    own_folder(out, Fills::Names(&[&shard.file("rows", "csv"), &shard.file("run", "json")]))?;
    lock(&out.join(shard.file("in-use", "lock")), LockKind::Alone, Duration::ZERO).or_else(|error| match error {
        LockError::Held => Err(anyhow!(
            "Another command is writing this part of {shown}; wait for it, or name another folder with --out."
        )),
        LockError::Impossible(error) => Err(error).with_context(unwritable),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_written_as_two_numbers() {
        assert_eq!("2/4".parse(), Ok(Shard { part: 2, of: 4 }));
        for wrong in ["0/4", "5/4", "1", "a/b", "1/0", "-1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        assert_eq!(Shard { part: 1, of: 1 }.file("rows", "csv"), "rows.csv");
    }

    #[test]
    fn every_plan_has_every_place_and_every_predecessor_equally_often() {
        for plans in 1..9 {
            let (mut places, mut follows) = (vec![vec![0; plans]; plans], vec![vec![0; plans]; plans]);
            for number in 0..2 * plans {
                let order = plan_order(plans, Turn { repeat: 3, case: 5, number });
                order.iter().enumerate().for_each(|(place, &plan)| places[plan][place] += 1);
                order.windows(2).for_each(|pair| follows[pair[0]][pair[1]] += 1);
            }
            assert_eq!(places, vec![vec![2; plans]; plans]);
            let apart = |before: usize, after: usize| if before == after { 0 } else { 2 };
            let expected: Vec<Vec<i32>> =
                (0..plans).map(|before| (0..plans).map(|after| apart(before, after)).collect()).collect();
            assert_eq!(follows, expected, "{plans} plans");
        }
        assert!(plan_order(0, Turn { repeat: 0, case: 0, number: 0 }).is_empty());
    }
}

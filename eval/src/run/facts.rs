//! Metadata of a run: suite, machine, versions, hashes, meters. Kept beside its rows as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use paceline::certificate::Conditions;
use paceline::checkpoint::Checkpoint;
use paceline::files::{self, write_file};
use paceline::{Engine, Report};
use serde::{Deserialize, Serialize};

use super::Shard;
use super::environment::Environment;
use crate::suite::Suite;

/// Metadata of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The suite's name, and a checksum of all that it asks.
    pub suite: String,
    /// See [`Suite::digest`].
    pub suite_digest: u64,
    /// The plan that others are compared with.
    pub reference: String,
    /// The plans.
    pub plans: Vec<PlanFacts>,
    /// Prompts of the whole suite, and how often each is answered.
    pub prompts: usize,
    /// See [`Suite::repeats`].
    pub repeats: usize,
    /// Which part of the prompts this is, from 1, of how many.
    pub part: (usize, usize),
    /// The target: the last part of its directory, and a checksum of its weights and config in hexadecimal digits.
    pub target: String,
    /// See [`Checkpoint::fingerprint`].
    pub target_hash: String,
    /// Hashes of its trained exits and its router; empty without.
    pub exits_hash: String,
    /// See [`Facts::exits_hash`].
    pub router_hash: String,
    /// The draft models, with theirs.
    pub drafts: Vec<(String, String)>,
    /// The precision of the target's matrices.
    pub precision: String,
    /// Layers of the target.
    pub layers: usize,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// Threads.
    pub threads: usize,
    /// The instruction set of the kernels, or `burn` on devices without them.
    pub instruction_set: String,
    /// The processor's name and how many the process may use, and the operating system.
    pub machine: String,
    /// The version of the program.
    pub version: String,
    /// The command that ran.
    pub command: String,
    /// When it began and ended, in seconds since 1970.
    pub began: u64,
    /// See [`Facts::began`]; 0 as long as it has not.
    pub ended: u64,
    /// The machine before the first answer, and after the last: idle power is known by both.
    pub before: Environment,
    /// See [`Facts::before`]; empty as long as the run is not over.
    pub after: Environment,
    /// Milliseconds of a step by its rows, as known at the end.
    pub step_costs_ms: BTreeMap<usize, f64>,
    /// Milliseconds of a drafted token, by drafter.
    pub draft_costs_ms: BTreeMap<String, f64>,
    /// Rows of the suite that could not be used.
    pub problems: Vec<String>,
}

/// Metadata of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanFacts {
    /// Its name.
    pub name: String,
    /// Those of its settings that the suite names.
    pub described: String,
    /// True if it may change tokens.
    pub lossy: bool,
}

/// Bytes of the file at most.
const LARGEST: u64 = 64 << 20;

impl Facts {
    /// Metadata known at the start.
    ///
    /// # Errors
    /// If a model cannot be read.
    pub fn gather(suite: &Suite, engine: &Engine, shard: Shard) -> Result<Self, anyhow::Error> {
        let info = engine.info();
        let named = |directory: &Path| -> Result<(String, String), anyhow::Error> {
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, format!("{:016x}", Checkpoint::open(directory)?.fingerprint())))
        };
        let (target, target_hash) = named(&info.directory)?;
        let Conditions { exits, router, instruction_set, .. } = Conditions::of(info)?;
        let plan = |plan: &crate::suite::Plan| PlanFacts {
            name: plan.name.clone(),
            described: plan.described.clone(),
            lossy: plan.settings.quality != paceline::Quality::Exact,
        };
        Ok(Self {
            suite: suite.name.clone(),
            suite_digest: suite.digest,
            reference: suite.reference.clone(),
            plans: suite.plans.iter().map(plan).collect(),
            prompts: suite.cases.len(),
            repeats: suite.repeats,
            part: (shard.part, shard.of),
            target,
            target_hash,
            exits_hash: exits,
            router_hash: router,
            instruction_set,
            drafts: suite.engine.draft.iter().map(|draft| named(draft)).collect::<Result<_, _>>()?,
            precision: info.format.to_string(),
            layers: info.target.layers,
            weight_bytes: info.weight_bytes,
            threads: info.threads,
            machine: machine(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: command(),
            before: Environment::look(engine, suite.engine.device),
            began: now(),
            problems: suite.problems.clone(),
            ..Self::default()
        })
    }

    /// Resumes a run that was begun by `before`.
    ///
    /// # Errors
    /// If anything differs from then: rows of both would look like one run.
    pub fn go_on(&mut self, before: Self) -> Result<(), String> {
        if let Some((what, then, now)) = before.difference(self) {
            return Err(format!("{what} was {then} and is {now}"));
        }
        let places = [
            ("machine", &before.machine, &self.machine),
            ("instruction set", &before.instruction_set, &self.instruction_set),
        ];
        if let Some((what, then, now)) = places.into_iter().find(|(_, then, now)| then != now) {
            return Err(format!("the {what} was {then} and is {now}"));
        }
        (self.began, self.before) = (before.began, before.before);
        Ok(())
    }

    /// The first difference from another part of a run, with both values: answers would be those of another version,
    /// model or setting. Parts may be of different machines, as a prompt's plans are compared within one.
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let of = |facts: &Self| {
            let drafts: Vec<String> = facts.drafts.iter().map(|(name, hash)| format!("{name} ({hash})")).collect();
            [
                ("the suite", format!("{} ({:016x})", facts.suite, facts.suite_digest)),
                ("the target", format!("{} ({})", facts.target, facts.target_hash)),
                ("the trained exits", facts.exits_hash.clone()),
                ("the router", facts.router_hash.clone()),
                ("the draft models", drafts.join(", ")),
                ("the precision", facts.precision.clone()),
                ("the number of threads", facts.threads.to_string()),
                ("the version", facts.version.clone()),
            ]
        };
        let shown = |value: String| if value.is_empty() { "none".to_owned() } else { value };
        let differs = of(self).into_iter().zip(of(other)).find(|(own, others)| own.1 != others.1);
        differs.map(|((what, own), (_, others))| (what, shown(own), shown(others)))
    }

    /// Takes what steps cost from the last report that knows it.
    pub fn learn(&mut self, report: &Report) {
        self.step_costs_ms.extend(&report.step_costs_ms);
        self.draft_costs_ms.extend(report.draft_costs_ms.iter().map(|(name, cost)| (name.clone(), *cost)));
    }

    /// The run is over.
    pub fn finish(&mut self, engine: &Engine, suite: &Suite) {
        self.ended = now();
        self.after = Environment::look(engine, suite.engine.device);
    }

    /// Watts of the idle machine: the mean of what was measured before and after.
    pub fn idle_watts(&self) -> Option<f64> {
        let known: Vec<f64> = [&self.before, &self.after].into_iter().filter_map(|around| around.idle_watts).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// Reads what is there, if anything is.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>, anyhow::Error> {
        if !path.exists() {
            return Ok(None);
        }
        let text = files::read(path, LARGEST)
            .with_context(|| format!("{} cannot be read; check its permissions", path.display()))?;
        let read = serde_json::from_slice(&text);
        read.map(Some).map_err(|error| {
            anyhow!("{} is damaged ({error}); remove the folder and run the suite again.", path.display())
        })
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// If that fails.
    pub fn write(&self, path: &Path) -> Result<(), anyhow::Error> {
        Ok(write_file(path, &serde_json::to_vec_pretty(self)?)?)
    }
}

/// The command line, with the program's name alone in place of its path.
fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().map(PathBuf::from);
    let name = program.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The processor's name, how many there are for the process, and the operating system.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.trim()));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let system = fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| String::new(), |release| format!(" {}", release.trim()));
    format!("{}, {processors} processors, {}{system}", name.unwrap_or(std::env::consts::ARCH), std::env::consts::OS)
}

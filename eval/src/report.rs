//! The commands `report` and `compare`: what was measured, as one page and the tables behind it.
//!
//! [`prompts`], [`energy`], [`quality`], [`plans`] and [`router`] make numbers of rows, [`warnings`] says which of them are doubtful,
//! [`summary`], [`pictures`] and [`page`] show them.

mod compare;
pub mod energy;
mod measured;
pub mod page;
pub mod pictures;
pub mod plans;
pub mod prompts;
pub mod quality;
pub mod router;
mod summary;
mod tables;
mod targets;
mod warnings;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Args;
use paceline::command::Failure;
use paceline::command::output::{note, print_line};
use paceline::files::{Fills, own_folder, write_file};

pub use self::compare::{CompareFlags, compare};
use self::plans::{PlanResult, results};
use self::router::{Regret, regret};
use crate::rows::{Row, read_rows};
use crate::run::{Facts, PlanFacts};

/// The flags of `report`.
#[derive(Debug, Args)]
pub struct ReportFlags {
    /// The folder of a run, with all its parts
    #[arg(value_name = "DIR")]
    pub run: PathBuf,
    /// Rows of another program for the same prompts, as CSV with columns of ours (id, plan, tokens, latency_ms, command, ..); may be
    /// given several times
    #[arg(long, value_name = "FILE.csv")]
    pub import: Vec<PathBuf>,
    /// The folder for report.html and its tables [default: the run's]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A title
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
}

/// All that a report says.
pub struct Findings {
    /// The title.
    pub title: String,
    /// Metadata of the run: that of the first part, and the differences of the others.
    pub facts: Facts,
    /// All parts.
    pub parts: Vec<Facts>,
    /// The rows.
    pub rows: Vec<Row>,
    /// The plans, the reference first.
    pub plans: Vec<PlanResult>,
    /// The worth of choosing a plan by prompt.
    pub regret: Option<Regret>,
    /// Doubts about the results.
    pub warnings: Vec<String>,
}

impl Findings {
    /// The plan that chooses by prompt, if one does.
    pub fn auto(&self) -> Option<&PlanResult> {
        let name = self
            .rows
            .iter()
            .find(|row| row.expected_acceptance.is_some() && !self.is_lossy(&row.plan))
            .map(|row| &row.plan)?;
        self.plans.iter().find(|plan| plan.name == *name)
    }

    /// Metadata of a plan; `None` for an imported one.
    pub fn known(&self, plan: &str) -> Option<&PlanFacts> {
        self.facts.plans.iter().find(|known| known.name == plan)
    }

    /// True if a plan may change tokens.
    pub fn is_lossy(&self, plan: &str) -> bool {
        self.known(plan).is_some_and(|known| known.lossy)
    }

    /// True if a plan is of the run, and not imported.
    pub fn is_own(&self, plan: &str) -> bool {
        self.known(plan).is_some()
    }

    /// Number of plans whose right answers are tested against the reference's.
    pub fn tested(&self) -> usize {
        self.plans.iter().filter(|plan| plan.quality.tests.is_some()).count()
    }

    /// The rows of a plan.
    pub fn rows_of(&self, plan: &str) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.plan == plan && row.error.is_empty()).collect()
    }
}

/// Makes a report.
///
/// # Errors
/// A sentence that says what is wrong, where, and what to do.
pub fn report(flags: &ReportFlags) -> Result<ExitCode, Failure> {
    let findings = find(&flags.run, &flags.import, flags.title.clone())?;
    let out = flags.out.as_ref().unwrap_or(&flags.run);
    let place = |name: &str| out.join(name);
    let tables = tables::all(&findings)?;
    let names: Vec<&str> = tables.iter().map(|(name, _)| *name).chain(["report.html"]).collect();
    own_folder(out, Fills::Names(&names))?;
    for (name, bytes) in tables {
        write_file(&place(name), &bytes)?;
    }
    write_file(&place("report.html"), page::page(&findings).as_bytes())?;
    findings.warnings.iter().for_each(|warning| note(warning));
    for sentence in summary::summary(&findings) {
        print_line(&sentence)?;
    }
    print_line(&place("report.html").display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a run and makes numbers of it.
pub(crate) fn find(run: &Path, imports: &[PathBuf], title: Option<String>) -> Result<Findings, anyhow::Error> {
    let (parts, mut rows, mut problems) = read_run(run)?;
    let facts = parts.first().cloned().ok_or_else(|| {
        anyhow!("{} holds no run; make one with `paceline-eval run SUITE --out {}`.", run.display(), run.display())
    })?;
    for import in imports {
        let table = read_rows(import)?;
        if let Some(own) = table.rows.iter().find(|row| facts.plans.iter().any(|plan| plan.name == row.plan)) {
            return Err(anyhow!(
                "{} has rows of a plan that the run has too, {}; give it another name.",
                import.display(),
                own.plan
            ));
        }
        problems.extend(table.problems);
        // What a prompt is, the run knows.
        rows.extend(
            table
                .rows
                .into_iter()
                .map(|mut row| {
                    if let Some(known) = rows.iter().find(|known| known.id == row.id) {
                        (row.category, row.level) = (known.category.clone(), known.level.clone());
                    }
                    row
                })
                .collect::<Vec<_>>(),
        );
    }
    let is_exact = |plan: &str| facts.plans.iter().any(|known| known.name == plan && !known.lossy);
    let plans = results(&rows, &facts.reference, |plan| !is_exact(plan));
    if plans.is_empty() {
        return Err(anyhow!(
            "{} holds no answers of the plan {}, with which others are compared; run the suite to its end.",
            run.display(),
            facts.reference
        ));
    }
    let title = title.unwrap_or_else(|| format!("{}: {}", facts.target, facts.suite));
    let mut findings = Findings { title, facts, parts, rows, plans, regret: None, warnings: Vec::new() };
    findings.regret = findings.auto().and_then(|auto| {
        let is_static = |plan: &&PlanResult| {
            plan.name != auto.name
                && findings.is_own(&plan.name)
                && !findings.is_lossy(&plan.name)
                && !is_automatic(&findings, &plan.name)
        };
        regret(auto, &findings.plans.iter().filter(is_static).collect::<Vec<_>>())
    });
    findings.warnings = warnings::of(&findings, problems);
    Ok(findings)
}

/// True if a plan leaves the choice of the drafter open: it recorded its expectations of several, or its settings say
/// so. Where they name none, the suite's settings for all plans may; then all its answers are drafted by that one, and
/// it chooses nothing.
fn is_automatic(findings: &Findings, plan: &str) -> bool {
    let rows = findings.rows_of(plan);
    let used =
        || rows.iter().map(|row| row.drafter.as_str()).filter(|drafter| !drafter.is_empty() && *drafter != "none");
    let expects = rows.iter().any(|row| row.expected_acceptance.is_some());
    expects
        || findings.known(plan).is_some_and(|known| match setting(&known.described, "drafter") {
            Some(drafter) => drafter == "auto",
            None => used().collect::<BTreeSet<_>>().len() > 1,
        })
}

/// The value of a setting among those of a plan in words, such as `drafter = "lookup", quality = "exact"`.
fn setting<'a>(described: &'a str, name: &str) -> Option<&'a str> {
    let value = |part: &'a str| part.strip_prefix(name)?.strip_prefix(" = ");
    described.split(", ").find_map(value).map(|value| value.trim_matches('"'))
}

/// The parts of a run, their rows, and what is wrong with others.
type RunRead = (Vec<Facts>, Vec<Row>, Vec<String>);

/// The parts of a run and their rows.
fn read_run(run: &Path) -> Result<RunRead, anyhow::Error> {
    let entries = fs::read_dir(run).with_context(|| {
        format!("The run {} cannot be read; name the folder of `paceline-eval run --out`", run.display())
    })?;
    let mut names: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.sort();
    let (mut parts, mut rows, mut problems): RunRead = Default::default();
    for path in names {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(ending) = name.strip_prefix("run").and_then(|rest| rest.strip_suffix(".json")) else { continue };
        let Some(facts) = Facts::read(&path)? else { continue };
        let other = parts.first().and_then(|first: &Facts| first.difference(&facts));
        if let Some((what, first, here)) = other {
            return Err(anyhow!(
                "{} holds parts of different runs: {what} is {first} in one and {here} in {name}; put them into folders of their own.",
                run.display()
            ));
        }
        let mut table = read_rows(&run.join(format!("rows{ending}.csv")))?;
        if let Some(watts) = facts.idle_watts() {
            table.rows.iter_mut().for_each(|row| row.take_off_idle(watts));
        }
        parts.push(facts);
        rows.extend(table.rows);
        problems.extend(table.problems);
    }
    // Parts are merged as if they had been one run.
    rows.sort_by(|a, b| (a.repeat, &a.id, a.place).cmp(&(b.repeat, &b.id, b.place)));
    if let Some(twice) = rows
        .windows(2)
        .find(|pair| (&pair[0].id, pair[0].repeat, &pair[0].plan) == (&pair[1].id, pair[1].repeat, &pair[1].plan))
    {
        return Err(anyhow!(
            "{} has an answer twice, prompt {} with plan {}; keep one set of parts of a run in a folder.",
            run.display(),
            twice[0].id,
            twice[0].plan
        ));
    }
    Ok((parts, rows, problems))
}

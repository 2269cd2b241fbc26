//! Measurements: a row for each prompt, plan and repeat, as CSV.
//!
//! Rows of other programs are read from CSV with the same names of columns, of which `id`, `plan` and `tokens` are
//! needed; columns that are missing are unknown.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use paceline::files;
use paceline::{Answer, FinishReason};
use serde::{Deserialize, Serialize};

use crate::prompts::Case;

/// One answer. Times are in milliseconds, energy in joules; what is unknown is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Row {
    /// The prompt.
    pub id: String,
    /// Its kind and level.
    pub category: String,
    /// Its stated difficulty.
    pub level: String,
    /// The plan.
    pub plan: String,
    /// The repeat, from 0.
    pub repeat: usize,
    /// Which of the plans it was, in the order in which they answered this prompt.
    pub place: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// True if the answer ended by itself, not by the limit.
    pub ended: Option<bool>,
    /// True if it is right; unknown where the prompt has no answer.
    pub right: Option<bool>,
    /// A checksum of its tokens, in hexadecimal digits: equal tokens have equal ones.
    pub digest: String,
    /// From the start of work on the prompt to the last token.
    pub latency_ms: Option<f64>,
    /// The part of it in which the prompt was read.
    pub prefill_ms: Option<f64>,
    /// From the start of work to the first token.
    pub first_token_ms: Option<f64>,
    /// Time in the router.
    pub routing_ms: Option<f64>,
    /// Time spent drafting.
    pub draft_ms: Option<f64>,
    /// Time of the target's steps.
    pub verify_ms: Option<f64>,
    /// Energy, everything included.
    pub joules: Option<f64>,
    /// The same without what an idle machine takes, where that was known; else a report knows it by the run's idle power.
    pub net_joules: Option<f64>,
    /// Which meter says so.
    pub energy_source: String,
    /// Why that is doubtful, if it is.
    pub energy_doubt: String,
    /// Steps of the target.
    pub steps: u64,
    /// Tokens drafted, looked at, and kept.
    pub drafted: u64,
    /// Of them looked at.
    pub evaluated: u64,
    /// Of them kept.
    pub accepted: u64,
    /// Tokens without verification.
    pub unverified: u64,
    /// Drafts whose first, second, .. token was kept, with `;` between.
    pub by_position: String,
    /// Rounds in which something was drafted.
    pub rounds: u64,
    /// The drafter that drafted most.
    pub drafter: String,
    /// The exit that tokens came from or that drafted.
    pub exit_depth: Option<usize>,
    /// The difficulty as the router judged it.
    pub difficulty: String,
    /// The acceptance that the router expected of that drafter.
    pub expected_acceptance: Option<f64>,
    /// The probability that the answer is the target's, by the router.
    pub confidence: Option<f64>,
    /// By what share the perplexity is estimated to rise, by the router.
    pub perplexity_delta: Option<f64>,
    /// Layers run, each once per token.
    pub layer_evaluations: Option<u64>,
    /// Why there is no answer, if there is none.
    pub error: String,
    /// The command that measured this, for rows of other programs.
    pub command: String,
}

impl Row {
    /// The row of an answer.
    pub fn of(case: &Case, plan: &str, repeat: usize, place: usize, answer: &Answer) -> Self {
        let report = &answer.report;
        let said = &report.speculation;
        let positions: Vec<String> = said.accepted_by_position.iter().map(u64::to_string).collect();
        let expected = report.plan.expected_acceptance.as_ref();
        Self {
            id: case.id.clone(),
            category: case.category.clone(),
            level: case.level.clone(),
            plan: plan.to_owned(),
            repeat,
            place,
            prompt_tokens: answer.prompt_tokens.len(),
            tokens: answer.tokens.len(),
            ended: Some(answer.finish_reason == FinishReason::Stop),
            right: case.check.as_ref().map(|check| check.is_right(&answer.text)),
            digest: digest(&answer.tokens),
            latency_ms: Some(report.latency_ms),
            prefill_ms: Some(report.prefill_ms),
            first_token_ms: report.time_to_first_token_ms,
            routing_ms: report.routing_ms,
            draft_ms: Some(report.draft_ms),
            verify_ms: Some(report.verify_ms),
            joules: report.energy_wh.map(|hours| hours * 3600.0),
            net_joules: report.energy_net_wh.map(|hours| hours * 3600.0),
            energy_source: report.energy_source.clone(),
            energy_doubt: report.energy_doubt.clone().unwrap_or_default(),
            steps: said.steps,
            drafted: said.drafted,
            evaluated: said.evaluated,
            accepted: said.accepted,
            unverified: said.unverified,
            by_position: positions.join(";"),
            rounds: said.by_drafter.values().map(|counts| counts.rounds).sum(),
            drafter: report.plan.drafter.clone(),
            exit_depth: report.plan.exit_depth,
            difficulty: report.plan.difficulty.clone().unwrap_or_default(),
            expected_acceptance: expected.and_then(|expected| expected.get(&report.plan.drafter).copied()),
            confidence: report.quality_metrics.confidence,
            perplexity_delta: report.quality_metrics.estimated_perplexity_delta,
            layer_evaluations: Some(report.layer_evaluations),
            error: String::new(),
            command: String::new(),
        }
    }

    /// The row of a prompt that could not be answered.
    pub fn failed(case: &Case, plan: &str, repeat: usize, place: usize, error: &paceline::Error) -> Self {
        Self {
            id: case.id.clone(),
            category: case.category.clone(),
            level: case.level.clone(),
            plan: plan.to_owned(),
            repeat,
            place,
            error: error.to_string(),
            ..Self::default()
        }
    }

    /// Fills in net joules where they are unknown, of a machine that takes so many watts when idle.
    pub fn take_off_idle(&mut self, watts: f64) {
        let net = self.joules.zip(self.latency_ms).map(|(joules, ms)| joules - watts * ms / 1e3);
        self.net_joules = self.net_joules.or(net);
    }

    /// Milliseconds per token after the prompt was read; without knowledge of that, of the whole answer.
    pub fn decode_ms(&self) -> Option<f64> {
        let spent = self.latency_ms? - self.prefill_ms.unwrap_or(0.0);
        (self.tokens > 0 && self.error.is_empty()).then(|| spent / self.tokens as f64)
    }
}

/// A checksum of tokens.
fn digest(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    format!("{:016x}", paceline::checksum::Checksum::of(&bytes))
}

/// Rows and the sentences about those that cannot be used.
#[derive(Debug, Default)]
pub struct Table {
    /// Rows, in order.
    pub rows: Vec<Row>,
    /// Problems of the other rows, with their lines.
    pub problems: Vec<String>,
}

/// Bytes of a file of rows at most.
pub const LARGEST_ROWS: u64 = 4 << 30;

/// Reads rows; those that cannot be used are told by line and left out.
///
/// # Errors
/// If the file cannot be read or has no columns that a row needs.
pub fn read_rows(path: &Path) -> Result<Table, anyhow::Error> {
    let shown = path.display();
    let bytes = files::read_input(path, LARGEST_ROWS)
        .with_context(|| format!("The rows {shown} cannot be read; check the path"))?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(&*bytes);
    let header = reader.headers().with_context(|| format!("The rows {shown} have no header that can be read"))?.clone();
    let known: Vec<String> = columns();
    for needed in ["id", "plan", "tokens"] {
        if !header.iter().any(|name| name == needed) {
            return Err(anyhow!("The rows {shown} have no column `{needed}`; columns are {}.", known.join(", ")));
        }
    }
    if let Some(other) = header.iter().find(|name| !known.iter().any(|column| column == name)) {
        return Err(anyhow!(
            "The rows {shown} have a column `{other}` that means nothing here; columns are {}.",
            known.join(", ")
        ));
    }
    let mut table = Table::default();
    for record in reader.records() {
        let row = record
            .map_err(|error| (error.position().map_or(0, csv::Position::line), error.to_string()))
            .and_then(|record| {
                let line = record.position().map_or(0, csv::Position::line);
                if record.len() != header.len() {
                    return Err((line, format!("it has {} fields instead of {}", record.len(), header.len())));
                }
                record.deserialize::<Row>(Some(&header)).map_err(|error| (line, reason(&error)))
            });
        match row {
            Ok(row) => table.rows.push(row),
            Err((line, reason)) => {
                table.problems.push(format!("{shown}, line {line}: {reason}; the row is left out."));
            }
        }
    }
    Ok(table)
}

/// The problem of a record, without its position, which is reported already.
fn reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => match err.field() {
            Some(field) => format!(
                "column `{}` cannot be read ({})",
                columns().get(field as usize).map_or("?", String::as_str),
                err.kind()
            ),
            None => err.kind().to_string(),
        },
        _ => error.to_string(),
    }
}

/// The names of the columns, in order.
fn columns() -> Vec<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = writer.serialize(Row::default()).map_err(|error| error.to_string());
    let bytes = written.and_then(|()| writer.into_inner().map_err(|error| error.to_string())).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.lines().next().unwrap_or_default().split(',').map(str::to_owned).collect()
}

/// The first line of a file of rows.
pub fn header() -> String {
    format!("{}\n", columns().join(","))
}

/// Rows that are written as they come, a prompt's together.
pub struct Appender {
    path: PathBuf,
    file: File,
}

impl Appender {
    /// Opens a file that has only whole blocks, or begins one.
    ///
    /// # Errors
    /// If that fails.
    pub fn open(path: &Path) -> Result<Self, anyhow::Error> {
        let open = || {
            let mut file = files::open_to_append(path)?;
            if file.metadata()?.len() == 0 {
                file.write_all(header().as_bytes())?;
            }
            Ok::<_, std::io::Error>(file)
        };
        let file = open().with_context(|| {
            format!("{} cannot be written; name a folder that you may write with --out", path.display())
        })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes rows at once.
    ///
    /// # Errors
    /// If they cannot be written, as on a full disk; those before are safe, and the run goes on from there when it is called again.
    pub fn append(&mut self, rows: &[Row]) -> Result<(), anyhow::Error> {
        let bytes = to_csv(rows, false)?;
        self.file.write_all(&bytes).with_context(|| {
            format!(
                "{} can no longer be written; free some space and call the command again, which goes on from here",
                self.path.display()
            )
        })
    }
}

/// Rows as CSV.
///
/// # Errors
/// If a row cannot be written, which does not happen.
pub fn to_csv<T: Serialize>(rows: &[T], header: bool) -> Result<Vec<u8>, anyhow::Error> {
    let mut writer = csv::WriterBuilder::new().has_headers(header).from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row))?;
    writer.into_inner().map_err(|error| anyhow!("rows cannot be written: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn row(id: &str) -> Row {
        Row {
            id: id.into(),
            plan: "a,\"b\"\nc".into(),
            tokens: 4,
            latency_ms: Some(10.0),
            prefill_ms: Some(2.0),
            ..Row::default()
        }
    }

    #[test]
    fn rows_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let rows =
            [row("one"), Row { right: Some(true), by_position: "4;3".into(), joules: Some(0.1 + 0.2), ..row("two") }];
        Appender::open(&path).unwrap().append(&rows[..1]).unwrap();
        Appender::open(&path).unwrap().append(&rows[1..]).unwrap();
        let table = read_rows(&path).unwrap();
        assert!(table.rows == rows && table.problems.is_empty(), "{table:?}");
        assert_eq!(table.rows[0].decode_ms(), Some(2.0));
    }

    #[test]
    fn malformed_rows_are_told_by_line_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, "id,plan,tokens,latency_ms\na,p,4,10\nb,p,many,10\nc,p\nd,p,5,\n").unwrap();
        let table = read_rows(&path).unwrap();
        assert_eq!(table.rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["a", "d"]);
        assert!(
            table.problems[0].contains("line 3") && table.problems[1].contains("line 4: it has 2 fields"),
            "{:?}",
            table.problems
        );
        for (text, words) in [("id,plan\n", "no column `tokens`"), ("id,plan,tokens,tokns\n", "`tokns`")] {
            std::fs::write(&path, text).unwrap();
            assert!(read_rows(&path).unwrap_err().to_string().contains(words));
        }
    }
}

//! What every bundle loses on every calibration prompt, as a CSV file: what certificates rest on, and where a run that was ended
//! goes on.
//!
//! The first line says what the losses were made of. Then comes a line for every prompt, in order, written at once when all
//! bundles have answered it; what is behind the last whole line is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use paceline::certificate::Conditions;
use paceline::checksum::Checksum;
use paceline::routing::identity::written;
use paceline_router::network::LEVELS;

use super::bundles::Bundle;

/// The file's name.
pub const LOSSES: &str = "losses.csv";

/// How the first line begins.
const HEADING: &str = "# losses by prompt and plan, made of ";

/// Why losses cannot be kept in a file.
#[derive(Debug, thiserror::Error)]
pub enum LossesError {
    /// The file could not be read or written.
    #[error("The losses {} cannot be kept: {source}; make room there, or name another folder with `--out`.", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is of something else.
    #[error(
        "The losses {} were made with another model, other prompts, settings or plans: name another folder with `--out`, or remove the file.",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
    },
}

/// One prompt's losses.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The prompt.
    pub id: String,
    /// The level that the router predicts, by its place.
    pub level: usize,
    /// Whether the target's answer is right; `None` where no right one is known.
    pub right: Option<bool>,
    /// What each bundle loses, in order, from 0 to 1.
    pub losses: Vec<f64>,
}

/// A hash of all that decides losses.
pub fn made_of(conditions: &Conditions, tasks: &str, max_new_tokens: usize, bundles: &[Bundle]) -> String {
    let mut hash = Checksum::default();
    let bundles: Vec<String> = bundles.iter().map(Bundle::to_string).collect();
    hash.text(&format!("{conditions:?} {tasks} {max_new_tokens} {bundles:?}"));
    written(hash.finish())
}

/// The file, open to go on with.
#[derive(Debug)]
pub struct LossesFile {
    path: PathBuf,
    file: File,
    /// The rows that it has.
    pub rows: Vec<Row>,
}

impl LossesFile {
    /// Opens or begins the file in a folder.
    ///
    /// # Errors
    /// When it cannot be read or written, or is of something else.
    pub fn open(folder: &Path, made_of: &str, bundles: &[Bundle]) -> Result<Self, LossesError> {
        let path = folder.join(LOSSES);
        let failed = |source| LossesError::File { path: path.clone(), source };
        let open = || {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok((file, bytes))
        };
        let (mut file, bytes) = open().map_err(failed)?;
        let heading = heading(made_of, bundles);
        let (rows, whole) = match bytes.strip_prefix(heading.as_bytes()) {
            Some(rest) => {
                let (rows, length) = rows(rest, bundles.len());
                (rows, heading.len() + length)
            }
            // A beginning of the heading alone is what an early end left.
            None if heading.as_bytes().starts_with(&bytes) => (Vec::new(), 0),
            None => return Err(LossesError::Other { path }),
        };
        let mut go_on = || {
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::Start(whole as u64))?;
            if whole == 0 { file.write_all(heading.as_bytes()) } else { Ok(()) }
        };
        go_on().map_err(failed)?;
        Ok(Self { path, file, rows })
    }

    /// Adds a row, at once, so that the end of the process loses none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, row: Row) -> Result<(), LossesError> {
        let right = row.right.map_or("", |right| if right { "1" } else { "0" });
        let losses = row.losses.iter().map(f64::to_string);
        let fields: Vec<String> =
            [row.id.clone(), LEVELS[row.level].to_owned(), right.to_owned()].into_iter().chain(losses).collect();
        self.file.write_all(&line(&fields)).map_err(|source| LossesError::File { path: self.path.clone(), source })?;
        self.rows.push(row);
        Ok(())
    }
}

fn heading(made_of: &str, bundles: &[Bundle]) -> String {
    let names = bundles.iter().map(Bundle::to_string);
    let fields: Vec<String> = ["id", "level", "right"].map(str::to_owned).into_iter().chain(names).collect();
    format!("{HEADING}{made_of}\n{}", String::from_utf8_lossy(&line(&fields)))
}

/// Fields as a line of CSV.
fn line(fields: &[String]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Memory takes everything.
    let _ = writer.write_record(fields);
    writer.into_inner().unwrap_or_default()
}

/// The rows of a file behind its heading, up to the first that is not whole, and their length in bytes.
fn rows(bytes: &[u8], bundles: usize) -> (Vec<Row>, usize) {
    let (mut rows, mut whole) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(row) = line.ends_with(b"\n").then(|| row(line, bundles)).flatten() else { break };
        rows.push(row);
        whole += line.len();
    }
    (rows, whole)
}

fn row(line: &[u8], bundles: usize) -> Option<Row> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line);
    let record = reader.records().next()?.ok()?;
    let level = LEVELS.iter().position(|name| *name == record.get(1).unwrap_or_default())?;
    let right = match record.get(2)? {
        "" => None,
        "0" => Some(false),
        "1" => Some(true),
        _ => return None,
    };
    let losses: Vec<f64> = record.iter().skip(3).map(str::parse).collect::<Result<_, _>>().ok()?;
    let sound = losses.len() == bundles && losses.iter().all(|loss| (0.0..=1.0).contains(loss));
    sound.then(|| Row { id: record[0].to_owned(), level, right, losses })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn bundles() -> Vec<Bundle> {
        ["int8", "exit:9@0.99"].map(|name| name.parse().unwrap()).to_vec()
    }

    fn all() -> Vec<Row> {
        let row = |place: usize| Row {
            id: format!("a \"prompt\", {place}"),
            level: place % 3,
            right: [None, Some(true), Some(false)][place % 3],
            losses: vec![0.1 * (place % 10) as f64, f64::from(u8::from(place.is_multiple_of(2)))],
        };
        (0..12).map(row).collect()
    }

    #[test]
    fn a_file_that_was_ended_anywhere_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOSSES);
        let fill = || {
            let mut file = LossesFile::open(folder.path(), "1a", &bundles()).unwrap();
            let there = file.rows.len();
            assert_eq!(file.rows, all()[..there]);
            all().into_iter().skip(there).for_each(|row| file.add(row).unwrap());
            there
        };
        assert_eq!(fill(), 0);
        let bytes = std::fs::read(&path).unwrap();
        for end in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let kept = bytes[..end].iter().filter(|byte| **byte == b'\n').count().saturating_sub(2);
            assert_eq!(fill(), kept, "{end}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "{end}");
        }
    }

    #[test]
    fn losses_of_something_else_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        LossesFile::open(folder.path(), "1a", &bundles()).unwrap().add(all()[0].clone()).unwrap();
        for (made_of, bundles) in [("2b", bundles()), ("1a", bundles()[..1].to_vec())] {
            let error = LossesFile::open(folder.path(), made_of, &bundles).unwrap_err().to_string();
            assert!(error.contains("losses.csv") && error.contains("--out"), "{error}");
        }
        assert_eq!(LossesFile::open(folder.path(), "1a", &bundles()).unwrap().rows.len(), 1);
    }
}

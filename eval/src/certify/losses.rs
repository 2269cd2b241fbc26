//! Losses of every bundle on every calibration prompt, as a CSV file: certificates rest on it, and an interrupted run
//! is resumed from it.
//!
//! The first line says what the losses were made of. Then comes a line for every prompt, in order, written at once when
//! all bundles have answered it. A last line without its end is what an early end left, and is dropped; any other that
//! is damaged is refused, as what comes behind it was measured too.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use paceline::certificate::{Calibration, Conditions};
use paceline::checksum::Checksum;
use paceline::files::{self, ReadError};
use paceline::routing::identity::written;
use paceline_router::network::LEVELS;

use super::bundles::Bundle;

/// The file's name.
pub const LOSSES: &str = "losses.csv";

/// Beginning of the first line.
const HEADING: &str = "# losses by prompt and plan, made of ";

/// Why losses cannot be kept in a file.
#[derive(Debug, thiserror::Error)]
pub enum LossesError {
    /// The file could not be read or written.
    #[error("The losses {} cannot be kept: {source}; make room there, or name another folder with `--out`.", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is of something else.
    #[error(
        "The losses {} were made with another model, other prompts, settings or plans, or by another version of this program: name another folder with `--out`, or remove the file.",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// It is not as it was written.
    #[error(
        "Line {line} of the losses {} is damaged ({reason}): bring the file back as it was, or remove it and certify again.",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The problem with it.
        reason: String,
    },
    /// It is not of all prompts, or of more.
    #[error(
        "The losses {} are of {found} prompts, and {prompts} were to be measured: certify again with the same prompts, which goes on where it was ended.",
        path.display()
    )]
    Count {
        /// The file.
        path: PathBuf,
        /// Rows that it has.
        found: usize,
        /// Prompts that it should be of.
        prompts: usize,
    },
}

/// One prompt's losses.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The prompt.
    pub id: String,
    /// The level that the router predicts, by its place.
    pub level: usize,
    /// True if the target's answer is right; `None` where no right one is known.
    pub right: Option<bool>,
    /// The loss of each bundle, in order, from 0 to 1.
    pub losses: Vec<f64>,
}

/// A hash of all that decides losses.
pub fn made_of(conditions: &Conditions, calibration: &Calibration, bundles: &[Bundle]) -> String {
    let mut hash = Checksum::default();
    let bundles: Vec<String> = bundles.iter().map(Bundle::to_string).collect();
    hash.text(&format!("{conditions:?} {calibration:?} {bundles:?}"));
    written(hash.finish())
}

/// The file, open to be continued.
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
    /// When it cannot be read or written, is of something else, or is damaged. It is left as it is then.
    pub fn open(folder: &Path, made_of: &str, bundles: &[Bundle]) -> Result<Self, LossesError> {
        let path = folder.join(LOSSES);
        let failed = |source| LossesError::File { path: path.clone(), source };
        let open = || {
            let mut file = files::open_to_change(&path)?;
            let mut bytes = Vec::new();
            if (&mut file).take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
                return Err(ReadError::TooLarge { most: LARGEST }.into());
            }
            Ok((file, bytes))
        };
        let (mut file, bytes) = open().map_err(failed)?;
        let heading = heading(made_of, bundles);
        let (rows, whole) = match bytes.strip_prefix(heading.as_bytes()) {
            Some(rest) => {
                let (rows, length) = rows(&path, rest, bundles.len())?;
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

    /// Checks that its rows are of the first of these prompts, in order.
    ///
    /// # Errors
    /// The first that is of another.
    pub fn check_order<'a>(&self, prompts: impl ExactSizeIterator<Item = &'a str>) -> Result<(), LossesError> {
        if self.rows.len() > prompts.len() {
            let (path, found, prompts) = (self.path.clone(), self.rows.len(), prompts.len());
            return Err(LossesError::Count { path, found, prompts });
        }
        match (FIRST_ROW..).zip(self.rows.iter().zip(prompts)).find(|(_, (row, prompt))| row.id != *prompt) {
            None => Ok(()),
            Some((line, (row, prompt))) => Err(LossesError::Damaged {
                path: self.path.clone(),
                line,
                reason: format!("it is of the prompt {}, where {prompt} comes", row.id),
            }),
        }
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

/// The rows of the file in a folder, which stays as it is.
///
/// # Errors
/// When it cannot be read, is of something else, or is damaged.
pub fn read(folder: &Path, made_of: &str, bundles: &[Bundle]) -> Result<Vec<Row>, LossesError> {
    let path = folder.join(LOSSES);
    let unreadable = |error: ReadError| LossesError::File { path: path.clone(), source: error.into() };
    let bytes = files::read(&path, LARGEST).map_err(unreadable)?;
    match bytes.strip_prefix(heading(made_of, bundles).as_bytes()) {
        Some(rest) => Ok(rows(&path, rest, bundles.len())?.0),
        None => Err(LossesError::Other { path }),
    }
}

/// Bytes of the file at most.
const LARGEST: u64 = 1 << 30;

/// The line of the first row, behind the heading's two.
const FIRST_ROW: usize = 3;

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

/// The rows of a file behind its heading, but for an unfinished last line, and their length in bytes.
fn rows(path: &Path, bytes: &[u8], bundles: usize) -> Result<(Vec<Row>, usize), LossesError> {
    let (mut rows, mut whole) = (Vec::new(), 0);
    for (number, line) in (FIRST_ROW..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        if !line.ends_with(b"\n") {
            break;
        }
        rows.push(row(line, bundles).ok_or_else(|| LossesError::Damaged {
            path: path.to_owned(),
            line: number,
            reason: format!("no prompt with its level and {bundles} losses from 0 to 1"),
        })?);
        whole += line.len();
    }
    Ok((rows, whole))
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
    use paceline::certificate::{Loss, Rendering};

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

    #[test]
    fn damage_before_the_end_is_refused_with_its_line_and_nothing_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOSSES);
        let mut file = LossesFile::open(folder.path(), "1a", &bundles()).unwrap();
        all().into_iter().for_each(|row| file.add(row).unwrap());
        let whole = std::fs::read_to_string(&path).unwrap();
        let open = || LossesFile::open(folder.path(), "1a", &bundles()).map(|file| file.rows);
        let lines: Vec<&str> = whole.lines().collect();
        for (place, damaged) in
            [(4, "x"), (2, ""), (13, "a,simple,1,0.5"), (7, "a,simple,1,0.5,2"), (7, "a,easy,1,0,0")]
        {
            let mut lines = lines.clone();
            lines[place] = damaged;
            let text = lines.join("\n") + "\n";
            std::fs::write(&path, &text).unwrap();
            for result in [open(), read(folder.path(), "1a", &bundles())] {
                let error = result.unwrap_err().to_string();
                assert!(
                    error.contains(&format!("Line {} of the losses", place + 1)) && error.ends_with('.'),
                    "{error}"
                );
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        // Who only reads cuts off nothing, not even an unfinished line.
        let cut = &whole[..whole.len() - 3];
        std::fs::write(&path, cut).unwrap();
        assert_eq!(read(folder.path(), "1a", &bundles()).unwrap(), all()[..11]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), cut);
        for (made_of, words) in [("2b", "another model"), ("1a", "cannot be kept")] {
            let folder = if made_of == "1a" { Path::new("/nowhere") } else { folder.path() };
            let error = read(folder, made_of, &bundles()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn rows_of_other_prompts_than_those_to_be_measured_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = LossesFile::open(folder.path(), "1a", &bundles()).unwrap();
        all().into_iter().take(4).for_each(|row| file.add(row).unwrap());
        let names: Vec<String> = all().into_iter().map(|row| row.id).collect();
        let check = |names: Vec<&str>| file.check_order(names.into_iter()).map_err(|error| error.to_string());
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(check(names.clone()), Ok(()));
        assert!(check(names[..3].to_vec()).unwrap_err().contains("of 4 prompts, and 3 were"));
        names.remove(1);
        let error = check(names).unwrap_err();
        assert!(["Line 4", "\"prompt\", 1", "\"prompt\", 2 comes"].iter().all(|word| error.contains(word)), "{error}");
    }

    #[test]
    fn whatever_changes_answers_changes_what_losses_are_made_of() {
        let text = str::to_owned;
        let conditions = Conditions {
            build: text("1"),
            instruction_set: text("avx512"),
            precision: text("bf16"),
            kv_cache: text("f32"),
            target: text("01"),
            text: text("02"),
            exits: text("03"),
            router: text("04"),
        };
        let calibration = Calibration {
            tasks: text("0a"),
            n: 9,
            max_new_tokens: 64,
            rendering: Rendering::Messages,
            loss: Loss::Answers,
        };
        let mut all = vec![
            made_of(&conditions, &calibration, &bundles()),
            made_of(&conditions, &calibration, &bundles()[..1]),
            made_of(&Conditions { text: text("05"), ..conditions.clone() }, &calibration, &bundles()),
            made_of(&Conditions { build: text("2"), ..conditions.clone() }, &calibration, &bundles()),
        ];
        for changed in [
            Calibration { tasks: text("0b"), ..calibration.clone() },
            Calibration { max_new_tokens: 65, ..calibration.clone() },
            Calibration { rendering: Rendering::Text, ..calibration.clone() },
            Calibration { loss: Loss::Both, ..calibration },
        ] {
            all.push(made_of(&conditions, &changed, &bundles()));
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}

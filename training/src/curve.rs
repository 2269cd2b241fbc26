//! The curve of a training: a table of losses and whatever else is measured on the way, as CSV and as a picture.
//!
//! Both files are written whole at every checkpoint, so they never show a half-written row; after a resume the rows
//! past the checkpoint are dropped and measured again.

mod picture;

use std::path::{Path, PathBuf};

use paceline::files::{self, WriteError, write_file};

pub use self::picture::Picture;

/// Why a curve cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CurveError {
    /// The table of an earlier run could not be understood.
    #[error(
        "The curve {} cannot be resumed: {reason}; move it away, and the curve begins at the checkpoint.",
        path.display()
    )]
    Table {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// The picture could not be drawn.
    #[error("The curve {} cannot be drawn: {reason}; its table beside it is whole.", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// The error of the drawing.
        reason: String,
    },
    /// One of the files could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Measurements at one step; a value for each column, as far as there are.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    step: u64,
    values: Vec<Option<f64>>,
}

/// Bytes of a table at most.
const LARGEST: u64 = 256 << 20;

/// A curve that grows.
#[derive(Debug)]
pub struct Curve {
    csv: PathBuf,
    svg: PathBuf,
    picture: Picture,
    columns: Vec<String>,
    /// With rising steps.
    rows: Vec<Row>,
}

impl Curve {
    /// Opens the curve `name` (`name.csv`, `name.svg`) in `folder` to go on after `step`: of an earlier run the rows
    /// up to there are kept. Nothing is written yet.
    ///
    /// # Errors
    /// When an earlier table cannot be read.
    pub fn open(folder: &Path, name: &str, picture: Picture, step: u64) -> Result<Self, CurveError> {
        let file = |ending: &str| folder.join(format!("{name}.{ending}"));
        let mut curve = Self { csv: file("csv"), svg: file("svg"), picture, columns: Vec::new(), rows: Vec::new() };
        if step > 0 && curve.csv.exists() {
            curve.read(step).map_err(|reason| CurveError::Table { path: curve.csv.clone(), reason })?;
        }
        Ok(curve)
    }

    fn read(&mut self, last: u64) -> Result<(), String> {
        let table = files::read(&self.csv, LARGEST).map_err(|error| error.to_string())?;
        let mut reader = csv::Reader::from_reader(&*table);
        let headers = reader.headers().map_err(|error| error.to_string())?;
        if headers.get(0) != Some(self.picture.x.as_str()) {
            return Err(format!("its first column is not `{}`", self.picture.x));
        }
        self.columns = headers.iter().skip(1).map(str::to_owned).collect();
        for record in reader.records() {
            let record = record.map_err(|error| error.to_string())?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong = |text: &str| format!("`{text}` in line {line} is not a number");
            let first = record.get(0).unwrap_or_default();
            let step: u64 = first.parse().map_err(|_| wrong(first))?;
            if self.rows.last().is_some_and(|row| row.step >= step) {
                return Err(format!("step {step} in line {line} does not come after the one before"));
            }
            let number = |text: &str| match text {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|_| wrong(text)),
            };
            let values: Vec<Option<f64>> = record.iter().skip(1).map(number).collect::<Result<_, _>>()?;
            if step <= last {
                self.rows.push(Row { step, values });
            }
        }
        Ok(())
    }

    /// Notes what was measured at `step`, by the columns' names. Steps only rise; what is noted for the last one
    /// again is added to its row. A name that is new becomes a column.
    pub fn record(&mut self, step: u64, values: &[(&str, f64)]) {
        // Going back would be a mistake of the caller's; what it says then replaces what was ahead.
        self.rows.retain(|row| row.step <= step);
        if self.rows.last().is_none_or(|row| row.step < step) {
            self.rows.push(Row { step, values: Vec::new() });
        }
        for (name, value) in values {
            let known = self.columns.iter().position(|column| column == name);
            let column = known.unwrap_or_else(|| {
                self.columns.push((*name).to_owned());
                self.columns.len() - 1
            });
            if let Some(row) = self.rows.last_mut() {
                row.values.resize(row.values.len().max(column + 1), None);
                row.values[column] = Some(*value);
            }
        }
    }

    /// The names of the columns, but for the step.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(String::as_str)
    }

    /// The steps of a column with its values; none if there is no such column.
    pub fn series(&self, column: &str) -> impl Iterator<Item = (u64, f64)> {
        let column = self.columns.iter().position(|known| known == column);
        self.rows.iter().filter_map(move |row| Some((row.step, (*row.values.get(column?)?)?)))
    }

    /// Writes both files, each whole or not at all.
    ///
    /// # Errors
    /// When one of them cannot be written; it is then as it was.
    pub fn save(&self) -> Result<(), CurveError> {
        write_file(&self.csv, &self.table()?)?;
        let svg = self.picture.draw(self.columns.iter().map(|name| (name.as_str(), self.series(name).collect())));
        let svg = svg.map_err(|reason| CurveError::Picture { path: self.svg.clone(), reason })?;
        Ok(write_file(&self.svg, svg.as_bytes())?)
    }

    /// The table; numbers as short as they can be read back to the same bits.
    fn table(&self) -> Result<Vec<u8>, CurveError> {
        let failed = |reason: String| CurveError::Table { path: self.csv.clone(), reason };
        let mut writer = csv::Writer::from_writer(Vec::new());
        let headers = std::iter::once(self.picture.x.as_str()).chain(self.columns.iter().map(String::as_str));
        writer.write_record(headers).map_err(|error| failed(error.to_string()))?;
        for row in &self.rows {
            let value = |column: usize| row.values.get(column).copied().flatten();
            let cells = (0..self.columns.len()).map(|column| value(column).map_or(String::new(), |v| v.to_string()));
            let cells = std::iter::once(row.step.to_string()).chain(cells);
            writer.write_record(cells).map_err(|error| failed(error.to_string()))?;
        }
        writer.into_inner().map_err(|error| failed(error.to_string()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn open(folder: &Path, step: u64) -> Result<Curve, CurveError> {
        Curve::open(folder, "pretrain", Picture::of_losses("A training"), step)
    }

    #[test]
    fn a_resumed_curve_is_that_of_an_uninterrupted_run() {
        let whole = tempfile::tempdir().unwrap();
        let resumed = tempfile::tempdir().unwrap();
        let measure = |curve: &mut Curve, steps: std::ops::RangeInclusive<u64>| {
            for step in steps {
                curve.record(step, &[("train", 10.0 / step as f64), ("learning rate", 1e-3)]);
                if step.is_multiple_of(10) {
                    curve.record(step, &[("books, \"held out\"", 11.0 / step as f64)]);
                }
            }
        };
        let mut curve = open(whole.path(), 0).unwrap();
        measure(&mut curve, 1..=50);
        curve.save().unwrap();
        // Killed after step 37; the last checkpoint was at 30.
        let mut curve = open(resumed.path(), 0).unwrap();
        measure(&mut curve, 1..=37);
        curve.save().unwrap();
        let mut curve = open(resumed.path(), 30).unwrap();
        assert_eq!(curve.series("train").last(), Some((30, 10.0 / 30.0)));
        measure(&mut curve, 31..=50);
        curve.save().unwrap();
        for name in ["pretrain.csv", "pretrain.svg"] {
            let read = |folder: &Path| fs::read_to_string(folder.join(name)).unwrap();
            assert_eq!(read(whole.path()), read(resumed.path()), "{name}");
        }
        let table = fs::read_to_string(whole.path().join("pretrain.csv")).unwrap();
        assert!(table.starts_with("step,train,learning rate,\"books, \"\"held out\"\"\"\n1,10,0.001,\n"), "{table}");
        assert_eq!(table.lines().count(), 51);
        // A run from the start leaves nothing of the former.
        assert_eq!(open(resumed.path(), 0).unwrap().rows, []);
    }

    proptest! {
        #[test]
        fn numbers_come_back_as_the_same_bits(values in prop::collection::vec(prop::option::of(any::<f64>()), 1..20)) {
            let dir = tempfile::tempdir().unwrap();
            let mut curve = open(dir.path(), 0).unwrap();
            for (step, value) in values.iter().enumerate() {
                let value = value.map(|value| ("a", value));
                curve.record(step as u64, &value.into_iter().collect::<Vec<_>>());
            }
            curve.save().unwrap();
            let again = open(dir.path(), values.len() as u64).unwrap();
            let bits = |curve: &Curve| curve.series("a").map(|(step, value)| (step, value.to_bits())).collect::<Vec<_>>();
            // A NaN's payload is nothing that a table can hold.
            let expected: Vec<(u64, u64)> = values.iter().enumerate()
                .filter_map(|(step, value)| Some((step as u64, if value.as_ref()?.is_nan() { f64::NAN } else { (*value)? }.to_bits())))
                .collect();
            prop_assert_eq!(bits(&again), expected);
        }
    }

    #[test]
    fn a_damaged_table_is_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        for (text, said) in [
            ("loss\n1\n", "first column is not `step`"),
            ("step,loss\n1,x\n", "`x` in line 2 is not a number"),
            ("step,loss\n-1,2\n", "`-1` in line 2 is not a number"),
            ("step,loss\n2,2\n2,2\n", "step 2 in line 3 does not come after"),
            ("step,loss\n2\n", "record"),
        ] {
            fs::write(dir.path().join("pretrain.csv"), text).unwrap();
            let message = open(dir.path(), 9).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains("move it away"), "{message}");
        }
    }
}

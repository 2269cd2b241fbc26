//! Activations of a frozen model over training text, kept in a file: for every row the state after each exit's layers
//! and the one after the last.
//!
//! The file grows by a few sequences at a time, and a note beside it says how many rows are whole and where in the text
//! they end, so that it is resumed wherever it was left.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{anyhow, bail};
use paceline::command::output;
use paceline::files::{self, write_file};
use paceline::model::{Model, Trainable};
use paceline_kernels::MappedFile;
use serde::{Deserialize, Serialize};

use crate::objective::Sample;
use crate::optimizer::into_values;
use crate::packing::{Drawing, Packer, PackingState, Source};
use crate::progress::{Progress, grouped};
use crate::settings::ExitsRecipe;

/// A file of activations to be made.
pub struct Cache<'a> {
    /// Its name, in file names and on the screen.
    pub name: &'a str,
    /// The model.
    pub trunk: &'a Trainable,
    /// Depths, and how many tokens are computed together.
    pub recipe: &'a ExitsRecipe,
    /// The text.
    pub sources: &'a [Source<'a>],
    /// The drawing of the text. Rows of prompts are left out where these weigh nothing.
    pub drawing: Drawing,
    /// Rows to keep.
    pub rows: usize,
    /// True to stop where text begins to come a second time.
    pub once: bool,
    /// Where the file goes.
    pub folder: &'a Path,
    /// All that decides what is computed, as text, but for the number of rows.
    pub fingerprint: String,
}

/// The note beside the file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    fingerprint: String,
    /// Whole rows.
    rows: usize,
    /// True if there are no more to come.
    complete: bool,
    /// Where in the text they end.
    packing: PackingState,
}

/// Bytes of a note at most.
const MOST_OF_NOTE: u64 = 16 << 20;

const BYTES: usize = size_of::<f32>();

impl Cache<'_> {
    /// Computes what is not there yet.
    ///
    /// # Errors
    /// When there is nothing to compute from, or the file cannot be written or read.
    pub fn fill(&self) -> anyhow::Result<Activations> {
        if self.sources.iter().all(|source| source.shard.documents() == 0) {
            bail!("There is no text for the rows `{}` of exits: give the recipe more data.", self.name);
        }
        let depths = self.recipe.depths.len() + 1;
        let width = self.trunk.config().hidden_size;
        let row_bytes = depths * width * BYTES;
        let [data, note] = ["rows", "json"].map(|ending| self.folder.join(format!("{}.{ending}", self.name)));
        let unwritable = |error: io::Error| {
            anyhow!(
                "The activations {} cannot be written: {error}; {} rows take {} bytes: make room, or lower `rows` in [exits].",
                data.display(),
                grouped(self.rows as u64),
                grouped((self.rows * row_bytes) as u64)
            )
        };
        let mut known = self.known(&note);
        let mut file = files::open_to_change(&data).map_err(unwritable)?;
        let mut end = (known.rows * row_bytes) as u64;
        if file.metadata().map_err(unwritable)?.len() < end {
            (known, end) = (self.anew(), 0);
        }
        if !known.complete {
            output::say(&format!(
                "exits: activations of `{}`, at most {} bytes\n",
                self.name,
                grouped((self.rows * row_bytes) as u64)
            ));
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(unwritable)?;
        let model = self.trunk.model(true);
        let mut packer = Packer::new(self.sources, self.drawing, known.packing.clone());
        let what = format!("exits, activations of `{}`", self.name);
        let mut progress = Progress::start(&what, "rows", known.rows as u64, self.rows as u64);
        // What comes only once is drawn in small portions, so that little of it is left out or comes twice.
        let sequences = if self.once { 1 } else { self.recipe.sequences };
        while !known.complete {
            if packer.repeats() && known.rows == 0 {
                bail!(
                    "No answer of `{}` begins within {} tokens: raise `length` of [exits].",
                    self.name,
                    self.recipe.length
                );
            }
            let sample = packer.next(sequences, self.recipe.length, 1.0);
            if self.once && packer.repeats() && known.rows > 0 {
                known.complete = true;
            } else {
                let bytes = self.bytes_of(&model, &sample, self.rows - known.rows);
                file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(unwritable)?;
                known.rows += bytes.len() / row_bytes;
                known.complete = known.rows >= self.rows;
                known.packing = packer.state().clone();
            }
            // The rows are on the disk before the note says so.
            write_file(&note, serde_json::to_string(&known)?.as_bytes())?;
            progress.show(known.rows as u64, String::new);
        }
        drop(progress);
        Activations::open(&data, known.rows, depths, width)
    }

    /// The note of an earlier run for the same rows, or an empty one.
    fn known(&self, note: &Path) -> Note {
        let known = files::read(note, MOST_OF_NOTE).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        known.filter(|known| known.fingerprint == self.fingerprint()).unwrap_or_else(|| self.anew())
    }

    fn anew(&self) -> Note {
        Note { fingerprint: self.fingerprint(), ..Note::default() }
    }

    fn fingerprint(&self) -> String {
        format!("{} {:?} {}", self.fingerprint, self.drawing, self.rows)
    }

    /// The rows of a sample that count, at most `most`, as they stand in the file.
    fn bytes_of(&self, model: &Model, sample: &Sample, most: usize) -> Vec<u8> {
        let mut hidden = model.embed(&sample.batch);
        let mut states: Vec<Vec<f32>> = Vec::new();
        let mut before = 0;
        for depth in self.recipe.depths.iter().copied().chain([self.trunk.config().layers]) {
            hidden = model.forward_layers(before..depth, &sample.batch, hidden, None);
            states.push(into_values(hidden.clone().inner()));
            before = depth;
        }
        let width = self.trunk.config().hidden_size;
        let counted = sample.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0).take(most);
        let of_row = |(row, _): (usize, &f32)| states.iter().flat_map(move |state| &state[row * width..][..width]);
        counted.flat_map(of_row).flat_map(|value| value.to_le_bytes()).collect()
    }
}

/// A file of activations.
pub struct Activations {
    map: MappedFile,
    rows: usize,
    /// States of a row.
    states: usize,
    width: usize,
}

impl Activations {
    fn open(path: &Path, rows: usize, states: usize, width: usize) -> anyhow::Result<Self> {
        if rows == 0 {
            bail!("No row of {} counts: the recipe's text has no answers to learn from.", path.display());
        }
        let map = files::map(path).map_err(|error| {
            anyhow!("The activations {} cannot be read: {error}; call the step again.", path.display())
        })?;
        if map.len() != rows * states * width * BYTES {
            bail!("The activations {} were changed by another program; call the step again.", path.display());
        }
        Ok(Self { map, rows, states, width })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// State number `state` of some rows (exits by depth, and then the last layer's), `[rows, hidden]`, row-major.
    ///
    /// # Panics
    /// If there is no such row or state.
    pub fn gather(&self, state: usize, rows: impl Iterator<Item = usize>) -> Vec<f32> {
        assert!(state < self.states, "there is a state for each exit and one more");
        let bytes = |row: usize| &self.map[(row * self.states + state) * self.width * BYTES..][..self.width * BYTES];
        rows.flat_map(|row| bytes(row).as_chunks().0).map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// The number of the last layer's state.
    pub fn last(&self) -> usize {
        self.states - 1
    }

    /// Values of a state.
    pub fn width(&self) -> usize {
        self.width
    }
}

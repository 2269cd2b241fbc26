//! Whether the rows of a step are cut into parts: both ways race.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use paceline_kernels::Race;

/// Work whose runs are like one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stretch {
    /// The layers that run.
    pub(super) layers: Range<usize>,
    /// The rows that run through them.
    pub(super) rows: usize,
    /// True if parts of the layers are left out.
    pub(super) skips: bool,
}

/// A race for each kind of work, as one kind says nothing of another.
#[derive(Default)]
pub(super) struct Races(Mutex<HashMap<Stretch, Arc<Race>>>);

impl Races {
    /// The race of a kind of work.
    pub(super) fn of(&self, stretch: Stretch) -> Arc<Race> {
        let mut races = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(races.entry(stretch).or_default())
    }
}

//! Angles of the rotary position embedding (Su et al. 2021).

use super::pool::SlotRun;
use crate::checkpoint::{Frequencies, ModelConfig};

/// Where a row stands, as far as its rotation depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Tokens before it in its text.
    pub(super) position: usize,
    /// True if its text is a long one ([`ModelConfig::longest_short_text`]).
    pub(super) is_long: bool,
}

/// The places of all rows of `runs`.
pub(super) fn places(runs: &[SlotRun]) -> Vec<Place> {
    let of_run = |run: &SlotRun| {
        let is_long = run.is_long;
        (run.start..run.start + run.rows).map(move |position| Place { position, is_long })
    };
    runs.iter().flat_map(of_run).collect()
}

/// The frequencies of a rotation. Without any it turns nothing.
#[derive(PartialEq)]
struct Turns {
    of_short: Frequencies,
    /// Those in long texts, where they are others.
    of_long: Option<Frequencies>,
}

impl Turns {
    fn at(&self, place: Place) -> &Frequencies {
        self.of_long.as_ref().filter(|_| place.is_long).unwrap_or(&self.of_short)
    }
}

/// The rotations of a model's layers: most models have one, some have two, and layers without.
pub(super) struct Rotations {
    /// All there are.
    all: Vec<Turns>,
    /// Which of them each layer has.
    of_layers: Vec<usize>,
    longest_short_text: Option<usize>,
}

impl Rotations {
    /// The rotations of a model.
    pub(super) fn new(config: &ModelConfig) -> Self {
        let (mut all, mut of_layers) = (Vec::new(), vec![0; config.layers]);
        for (layers, spec) in config.specs.runs(config.layers) {
            let rope = config.rope_of(spec);
            let (of_short, of_long) = (rope.frequencies(spec.rotated), rope.long_frequencies(spec.rotated));
            let turns = Turns { of_short, of_long };
            let index = all.iter().position(|known| *known == turns).unwrap_or(all.len());
            if index == all.len() {
                all.push(turns);
            }
            of_layers[layers].fill(index);
        }
        Self { all, of_layers, longest_short_text: config.longest_short_text() }
    }

    /// [`ModelConfig::longest_short_text`].
    pub(super) fn longest_short_text(&self) -> Option<usize> {
        self.longest_short_text
    }

    /// The number of a layer's rotation.
    pub(super) fn of(&self, layer: usize) -> usize {
        self.of_layers[layer]
    }

    /// The angles of rows at `places`, of each rotation by its number.
    pub(super) fn angles(&self, places: &[Place]) -> Vec<Angles> {
        self.all.iter().map(|turns| Angles::new(turns, places)).collect()
    }
}

/// Cosines and sines for rows at their positions, `[rows, rotated / 2]` each, computed once for a call and shared by
/// all layers that turn alike.
pub(super) struct Angles {
    /// The cosines.
    pub(super) cos: Vec<f32>,
    /// The sines.
    pub(super) sin: Vec<f32>,
}

impl Angles {
    /// The angles of rows at `places`; a head turns twice as many values as there are frequencies.
    fn new(turns: &Turns, places: &[Place]) -> Self {
        let len = places.len() * turns.of_short.inverse.len();
        let (mut cos, mut sin) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for &place in places {
            let Frequencies { inverse, magnitude } = turns.at(place);
            // In f32 as the reference implementation does, so that far positions see the same rounding.
            for angle in inverse.iter().map(|frequency| place.position as f32 * frequency) {
                cos.push(angle.cos() * magnitude);
                sin.push(angle.sin() * magnitude);
            }
        }
        Self { cos, sin }
    }
}

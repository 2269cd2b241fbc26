//! Angles of the rotary position embedding (Su et al. 2021).

use crate::checkpoint::{Frequencies, ModelConfig};

/// The rotations of a model's layers: most models have one, some have two, and layers without.
pub(super) struct Rotations {
    /// All there are. One without frequencies turns nothing.
    all: Vec<Frequencies>,
    /// Which of them each layer has.
    of_layers: Vec<usize>,
}

impl Rotations {
    /// The rotations of a model.
    pub(super) fn new(config: &ModelConfig) -> Self {
        let (mut all, mut of_layers) = (Vec::new(), vec![0; config.layers]);
        for (layers, spec) in config.specs.runs(config.layers) {
            let frequencies = config.rope_of(spec).frequencies(spec.rotated);
            let index = all.iter().position(|known| *known == frequencies).unwrap_or(all.len());
            if index == all.len() {
                all.push(frequencies);
            }
            of_layers[layers].fill(index);
        }
        Self { all, of_layers }
    }

    /// The number of a layer's rotation.
    pub(super) fn of(&self, layer: usize) -> usize {
        self.of_layers[layer]
    }

    /// The angles of rows at `positions`, of each rotation by its number.
    pub(super) fn angles(&self, positions: &[usize]) -> Vec<Angles> {
        self.all.iter().map(|frequencies| Angles::new(frequencies, positions)).collect()
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
    /// The angles of rows at `positions`; a head turns twice as many values as there are frequencies.
    pub(super) fn new(frequencies: &Frequencies, positions: &[usize]) -> Self {
        let Frequencies { inverse, magnitude } = frequencies;
        let len = positions.len() * inverse.len();
        let (mut cos, mut sin) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for &position in positions {
            // In f32 as the reference implementation does, so that far positions see the same rounding.
            for angle in inverse.iter().map(|frequency| position as f32 * frequency) {
                cos.push(angle.cos() * magnitude);
                sin.push(angle.sin() * magnitude);
            }
        }
        Self { cos, sin }
    }
}

//! Angles of the rotary position embedding (Su et al. 2021).

/// Cosines and sines for rows at their positions, `[rows, head_dim / 2]` each, computed once for a call and shared by
/// all layers.
pub(super) struct Angles {
    /// The cosines.
    pub(super) cos: Vec<f32>,
    /// The sines.
    pub(super) sin: Vec<f32>,
}

impl Angles {
    /// The angles of rows at `positions`; the head's width is twice the number of frequencies.
    pub(super) fn new(inverse_frequencies: &[f32], positions: &[usize]) -> Self {
        let len = positions.len() * inverse_frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for &position in positions {
            // In f32 as the reference implementation does, so that far positions see the same rounding.
            for angle in inverse_frequencies.iter().map(|frequency| position as f32 * frequency) {
                cos.push(angle.cos());
                sin.push(angle.sin());
            }
        }
        Self { cos, sin }
    }
}

//! Rounding weights to 4 bits in affine groups: `w = unit * (scale * q - 16 * minimum)`, with q of 0 to 15, a scale
//! and a minimum of 8 bits for each sixteen values of k, and a float unit for each output.
//!
//! A group's values are spread over its steps however they lie about zero, and the range of a few values is small:
//! that keeps more of a model than any symmetric groups of the same size in memory (`benchsuite/results/2026-11-21-int4.md` has the numbers).
//! Scales and minima are integers because products then need no float for a group (see [`crate::dot`]).
//!
//! Everything here works on sixteen outputs at once, a lane for each: no sum crosses lanes, and the compiler makes
//! vectors of the arrays. Multiplications are not fused, so that the bits are the same with and without FMA.

use crate::dot::MINIMUM4;
use crate::quantizer::ROUNDER;
use crate::simd::LANES;

/// Values of k that share a scale and a minimum.
pub(crate) const SUBGROUP: usize = 16;

/// The largest q.
const STEPS: f32 = 15.0;
/// The largest scale.
const SCALE: f32 = 255.0;
/// The largest range of a group, in units.
const RANGE: f32 = STEPS * SCALE;
/// The largest minimum: such that no weight is further from 0 than a range.
const MINIMUM: f32 = 239.0;

/// Candidate clippings: shares of a group's range cut off at either end, so that the rest has finer steps.
const CUTS: [f32; 4] = [0.0, 1.0 / 30.0, 2.0 / 30.0, 0.1];
/// Number of times the best pair is then replaced by the least-squares line through its steps, where that is better.
const FITS: usize = 2;

/// A value of each of sixteen outputs.
pub(crate) type Lanes = [f32; LANES];

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> Lanes {
    std::array::from_fn(f)
}

/// The nearest integer from 0 to `most`, ties to even; 0 for NaN.
#[inline(always)]
fn nearest(value: f32, most: f32) -> f32 {
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < most { value } else { most };
    (value + ROUNDER) - ROUNDER
}

/// A byte that is held as a float.
#[inline(always)]
fn byte(value: f32) -> u8 {
    (value + ROUNDER).to_bits() as u8
}

/// The least of the values and 0, and the largest of them.
#[inline(always)]
fn ends(values: &[Lanes]) -> (Lanes, Lanes) {
    let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
    for value in values {
        low = lanes(|i| if value[i] < low[i] { value[i] } else { low[i] });
        high = lanes(|i| if value[i] > high[i] { value[i] } else { high[i] });
    }
    (low, high)
}

/// The units of sixteen outputs, of all their values: such that the largest range of a sub-group is `15 * 255`; 0 for
/// one that would not be a normal float, and NaN where a value is not finite.
#[inline(always)]
pub(crate) fn units(values: &[Lanes]) -> Lanes {
    let (mut units, mut zeros) = ([0.0; LANES], [0.0; LANES]);
    for group in values.chunks(SUBGROUP) {
        let (low, high) = ends(group);
        // Divided first: the range itself may leave f32's.
        let range = lanes(|i| high[i] / RANGE - low[i] / RANGE);
        units = lanes(|i| if range[i] > units[i] { range[i] } else { units[i] });
        for value in group {
            zeros = lanes(|i| zeros[i] + value[i] * 0.0); // NaN from what is not finite
        }
    }
    // Where rounding up would make the largest weight infinite: the next float towards 0.
    let units = units.map(|unit| if unit * RANGE > f32::MAX { f32::from_bits(unit.to_bits() - 1) } else { unit });
    lanes(|i| if units[i] < f32::MIN_POSITIVE { zeros[i] } else { units[i] + zeros[i] })
}

/// A sub-group of sixteen outputs.
#[derive(Clone, Copy)]
pub(crate) struct Affine {
    pub(crate) scales: [u8; LANES],
    pub(crate) minima: [u8; LANES],
    /// `[k][output]`; 0 for values of k that are missing.
    pub(crate) steps: [[u8; LANES]; SUBGROUP],
}

/// A scale and a minimum for each output: integers.
#[derive(Clone, Copy)]
struct Line {
    scale: Lanes,
    minimum: Lanes,
}

impl Line {
    /// The nearest line to `scale * q + start`.
    #[inline(always)]
    fn nearest(scale: Lanes, start: Lanes) -> Self {
        let per_minimum = 1.0 / MINIMUM4 as f32;
        Self {
            scale: lanes(|i| nearest(scale[i], SCALE)),
            minimum: lanes(|i| nearest(-start[i] * per_minimum, MINIMUM)),
        }
    }

    /// The steps' inverse lengths (0 where there are none) and the values of q = 0.
    #[inline(always)]
    fn inverse_and_start(&self) -> (Lanes, Lanes) {
        let inverse = lanes(|i| if self.scale[i] > 0.0 { 1.0 / self.scale[i] } else { 0.0 });
        (inverse, lanes(|i| -(MINIMUM4 as f32) * self.minimum[i]))
    }
}

/// The step of each output that is nearest to its value.
#[inline(always)]
fn steps(value: &Lanes, inverse: &Lanes, start: &Lanes) -> Lanes {
    lanes(|i| nearest((value[i] - start[i]) * inverse[i], STEPS))
}

/// The squared errors of `values` on a line.
#[inline(always)]
fn errors(values: &[Lanes], line: &Line) -> Lanes {
    let (inverse, start) = line.inverse_and_start();
    let mut errors = [0.0; LANES];
    for value in values {
        let q = steps(value, &inverse, &start);
        let off = lanes(|i| value[i] - (line.scale[i] * q[i] + start[i]));
        errors = lanes(|i| errors[i] + off[i] * off[i]);
    }
    errors
}

/// The line of least squares through values and their steps on `line`.
#[inline(always)]
fn fit(values: &[Lanes], line: &Line) -> Line {
    let (inverse, start) = line.inverse_and_start();
    let [mut q1, mut q2, mut x1, mut xq] = [[0.0; LANES]; 4];
    for value in values {
        let q = steps(value, &inverse, &start);
        q1 = lanes(|i| q1[i] + q[i]);
        q2 = lanes(|i| q2[i] + q[i] * q[i]);
        x1 = lanes(|i| x1[i] + value[i]);
        xq = lanes(|i| xq[i] + value[i] * q[i]);
    }
    let count = values.len() as f32;
    // Where all are on one step, any scale will do: the least is taken.
    let spread = lanes(|i| count * q2[i] - q1[i] * q1[i]);
    let scale = lanes(|i| if spread[i] > 0.0 { (count * xq[i] - q1[i] * x1[i]) / spread[i] } else { 0.0 });
    Line::nearest(scale, lanes(|i| (x1[i] - scale[i] * q1[i]) / count))
}

/// The best line so far, and its errors.
struct Best {
    line: Line,
    errors: Lanes,
}

impl Best {
    /// Takes the outputs' scales and minima from `line` where that has less error.
    #[inline(always)]
    fn consider(&mut self, values: &[Lanes], line: &Line) {
        let errors = errors(values, line);
        let better: [bool; LANES] = std::array::from_fn(|i| errors[i] < self.errors[i]);
        let pick = |new: &Lanes, old: &Lanes| lanes(|i| if better[i] { new[i] } else { old[i] });
        self.line.scale = pick(&line.scale, &self.line.scale);
        self.line.minimum = pick(&line.minimum, &self.line.minimum);
        self.errors = pick(&errors, &self.errors);
    }
}

/// Rounds at most sixteen values of k of sixteen outputs, given the inverses of the outputs' units.
#[inline(always)]
pub(crate) fn quantize4(values: &[Lanes], inverse_units: &Lanes) -> Affine {
    let mut in_units = [[0.0; LANES]; SUBGROUP];
    for (to, from) in in_units.iter_mut().zip(values) {
        *to = lanes(|i| from[i] * inverse_units[i]);
    }
    let values = &in_units[..values.len()];
    let (low, high) = ends(values);
    let range = lanes(|i| high[i] - low[i]);

    let nothing = Line { scale: [0.0; LANES], minimum: [0.0; LANES] };
    let mut best = Best { line: nothing, errors: [f32::INFINITY; LANES] };
    for below in CUTS {
        for above in CUTS {
            let scale = lanes(|i| range[i] * ((1.0 - below - above) / STEPS));
            best.consider(values, &Line::nearest(scale, lanes(|i| low[i] + below * range[i])));
        }
    }
    for _ in 0..FITS {
        let fitted = fit(values, &best.line);
        best.consider(values, &fitted);
    }

    let (inverse, start) = best.line.inverse_and_start();
    let mut result = Affine {
        scales: best.line.scale.map(byte),
        minima: best.line.minimum.map(byte),
        steps: [[0; LANES]; SUBGROUP],
    };
    for (to, value) in result.steps.iter_mut().zip(values) {
        *to = steps(value, &inverse, &start).map(byte);
    }
    result
}

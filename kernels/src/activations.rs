//! Activations that products multiply their weights with, and their layout.
//!
//! Rows are laid out once for all products with them (see [`crate::form`]).
//! Steps that a row has to go through before (a norm, a gated activation) are done on the way, while its values are in
//! registers: the work of a step between its products is then one hand-over to the threads and no further pass over
//! memory.

use std::ops::Range;

use crate::buffer::SharedOutput;
use crate::elementwise::{Activation, Residual, add, gate_values, inverse_root_mean_square, weigh};
use crate::form::{Form, Kind, Place};
use crate::quantizer::{GROUP, HEADER, Rounded, SIXTEENS_HEADER, TOGETHER, group_scales, sixteenth_scales};
use crate::simd::{LANES, Op, Simd};

/// The rows that products are made with, `[rows, in_features]`.
pub enum Input<'a> {
    /// As they are.
    Rows(&'a [f32]),
    /// Their norm, as [`crate::Kernels::rms_norm`] computes it.
    Norm {
        /// `[rows, in_features]`.
        x: &'a [f32],
        /// `[in_features]`.
        weight: &'a [f32],
        /// Added to the mean square.
        eps: f32,
    },
    /// First `x += delta`, then the norm of the sum, as [`crate::Kernels::add_rms_norm`] computes them.
    AddNorm {
        /// `[rows, in_features]`.
        x: &'a mut [f32],
        /// `[rows, in_features]`.
        delta: &'a [f32],
        /// What becomes of `delta` before.
        residual: Residual<'a>,
        /// `[in_features]`.
        weight: &'a [f32],
        /// Added to the mean square.
        eps: f32,
    },
    /// `f(gate) * up`, as [`crate::Kernels::gated`] computes it.
    Gated {
        /// `[rows, in_features]`.
        gate: &'a [f32],
        /// `[rows, in_features]`.
        up: &'a [f32],
        /// f.
        activation: Activation,
    },
}

impl<'a> Input<'a> {
    /// For the threads to share, once it is certain that there are `rows` rows of `k` values.
    pub(crate) fn checked(self, rows: usize, k: usize) -> Source<'a> {
        let values = |x: &[f32]| assert_eq!(x.len(), rows * k, "x is [rows, in_features]");
        match self {
            Self::Rows(x) => {
                values(x);
                Source::Rows(x)
            }
            Self::Norm { x, weight, eps } => {
                values(x);
                assert_eq!(weight.len(), k, "a norm's weight is [in_features]");
                Source::Norm { x, weight, eps }
            }
            Self::AddNorm { x, delta, residual, weight, eps } => {
                values(x);
                values(delta);
                let is_width = |weight: &[f32]| weight.len() == k;
                let norms = residual.norm.is_none_or(|(weight, _)| is_width(weight)) && is_width(weight);
                assert!(norms, "a norm's weight is [in_features]");
                Source::AddNorm { x: SharedOutput::new(x), delta, residual, weight, eps }
            }
            Self::Gated { gate, up, activation } => {
                values(gate);
                values(up);
                Source::Gated { gate, up, activation }
            }
        }
    }
}

/// An [`Input`] that has the sizes it must have, and whose rows several threads prepare, each its own.
pub(crate) enum Source<'a> {
    Rows(&'a [f32]),
    Norm { x: &'a [f32], weight: &'a [f32], eps: f32 },
    AddNorm { x: SharedOutput<'a>, delta: &'a [f32], residual: Residual<'a>, weight: &'a [f32], eps: f32 },
    Gated { gate: &'a [f32], up: &'a [f32], activation: Activation },
}

/// A row on its way.
enum Row<'a> {
    Plain(&'a [f32]),
    Normed { x: &'a [f32], inverse: f32, weight: &'a [f32] },
    Gated { gate: &'a [f32], up: &'a [f32], activation: Activation },
}

impl Source<'_> {
    /// Work of preparing `values` values, as [`crate::Kernels::split`] counts it.
    pub(crate) fn work(&self, values: usize) -> usize {
        match self {
            Self::Rows(_) => 2 * values,
            Self::Norm { .. } | Self::AddNorm { .. } => 4 * values,
            Self::Gated { .. } => 4 * values,
        }
    }

    /// True if a value of a row depends on other values of that row.
    pub(crate) fn needs_whole_rows(&self) -> bool {
        matches!(self, Self::Norm { .. } | Self::AddNorm { .. })
    }

    /// # Safety
    /// While the row lives, it must not be asked for again, if [`Source::needs_whole_rows`].
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, s: S, row: usize, k: usize) -> Row<'_> {
        let at = row * k..(row + 1) * k;
        match self {
            Self::Rows(x) => Row::Plain(&x[at]),
            Self::Norm { x, weight, eps } => {
                let x = &x[at];
                Row::Normed { x, inverse: inverse_root_mean_square(s, x, *eps), weight }
            }
            Self::AddNorm { x, delta, residual, weight, eps } => {
                // SAFETY: the only use of this row, by the caller.
                let x = unsafe { x.slice(at.start, k) };
                add(s, x, &delta[at], *residual);
                Row::Normed { x, inverse: inverse_root_mean_square(s, x, *eps), weight }
            }
            Self::Gated { gate, up, activation } => {
                Row::Gated { gate: &gate[at.clone()], up: &up[at], activation: *activation }
            }
        }
    }
}

impl Row<'_> {
    /// `count` groups from `first` on, zeros after the row's end.
    #[inline(always)]
    fn groups<S: Simd>(&self, s: S, (first, count): (usize, usize), groups: &mut [[f32; GROUP]; TOGETHER]) {
        let (Self::Plain(x) | Self::Normed { x, .. } | Self::Gated { gate: x, .. }) = self;
        let (start, values) = (first * GROUP, groups[..count].as_flattened_mut());
        let (part, rest) = values.split_at_mut(values.len().min(x.len() - start));
        self.part(s, start, part);
        rest.fill(0.0);
    }

    /// As many values from `start` on as `values` has.
    #[inline(always)]
    fn part<S: Simd>(&self, s: S, start: usize, values: &mut [f32]) {
        let at = start..start + values.len();
        match self {
            Self::Plain(x) => values.copy_from_slice(&x[at]),
            Self::Normed { x, inverse, weight } => weigh(s, &x[at.clone()], *inverse, &weight[at], values),
            Self::Gated { gate, up, activation } => gate_values(s, *activation, &gate[at.clone()], &up[at], values),
        }
    }
}

/// Where laid out rows go.
pub(crate) struct Target<'a> {
    pub(crate) form: Form,
    pub(crate) words: SharedOutput<'a, u32>,
}

impl Target<'_> {
    /// Writes `count` groups of a row, at most sixteen, from `first` on.
    ///
    /// # Safety
    /// Each must be written once, by one thread, at the place that [`Form::place`] says.
    #[inline(always)]
    unsafe fn put<S: Simd>(
        &self,
        s: S,
        place: Place,
        (first, count): (usize, usize),
        values: &[[f32; GROUP]; TOGETHER],
    ) {
        let form = self.form;
        // SAFETY: by the caller, and no other row's or group's; here and below.
        let words =
            |index: usize| unsafe { self.words.slice(place.values + (first + index) * place.step, form.values()) };
        // With a length that the compiler knows, a copy is a store and not a call.
        macro_rules! put {
            ($scales:expr, $round:ident, $header:ident, $len:ident) => {{
                let scales = $scales;
                for (index, values) in values[..count].iter().enumerate() {
                    let rounded = Rounded::$round(s, values, &scales, index);
                    put_bytes(s, words(index), rounded.integers);
                    // SAFETY: as above.
                    let header = unsafe { self.words.slice(place.header + (first + index) * place.step, $len) };
                    header.copy_from_slice(&rounded.$header());
                }
            }};
        }
        match form.kind {
            Kind::Floats => {
                for (index, values) in values[..count].iter().enumerate() {
                    for (word, value) in words(index).iter_mut().zip(values) {
                        *word = value.to_bits();
                    }
                }
            }
            Kind::Int8 | Kind::Int4 => put!(group_scales(s, values, count), of_group, header, HEADER),
            Kind::Blocks => put!(sixteenth_scales(s, values, count), of_sixteens, sixteens_header, SIXTEENS_HEADER),
        }
    }
}

/// Writes the lowest bytes of a group's vectors, four to a word.
#[inline(always)]
fn put_bytes<S: Simd>(s: S, words: &mut [u32], integers: [S::V; GROUP / LANES]) {
    for (words, integers) in words.as_chunks_mut::<4>().0.iter_mut().zip(integers) {
        let bytes = s.low_bytes(integers);
        for (word, four) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*four);
        }
    }
}

/// Prepares and lays out some groups of some rows of `k` values.
pub(crate) struct Lay<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) k: usize,
    pub(crate) rows: Range<usize>,
    /// All of them, where the source needs whole rows.
    pub(crate) groups: Range<usize>,
    /// Those of the kinds that a product wants.
    pub(crate) targets: &'a [Option<Target<'a>>],
}

impl Op for Lay<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let groups = self.k.div_ceil(GROUP);
        // Where there are fewer groups, of what was there before.
        let mut values = [[0.0; GROUP]; TOGETHER];
        for index in self.rows {
            // SAFETY: a row belongs to one part, or at least a group of it where those are independent.
            let row = unsafe { self.source.row(s, index, self.k) };
            for first in self.groups.clone().step_by(TOGETHER) {
                let these = (first, TOGETHER.min(self.groups.end - first));
                row.groups(s, these, &mut values);
                for target in self.targets.iter().flatten() {
                    // SAFETY: as above.
                    unsafe { target.put(s, target.form.place(index, groups), these, &values) };
                }
            }
        }
    }
}

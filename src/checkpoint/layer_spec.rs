//! A decoder layer as data: everything in which one layer may differ from another.
//!
//! [`ModelConfig`](super::ModelConfig)'s constructor turns a family's rules into these values. The layout of tensors, both
//! backends and training read them and do not know families, so that a new family is one more constructor.

use std::ops::Range;

use paceline_kernels::{Activation, Scores};

use super::rope::Rope;

/// Sizes and settings of a layer: attention and a gated MLP, each behind a norm and beside the residual stream. All sizes are
/// above zero.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the MLP.
    pub intermediate_size: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head, even; `heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Number added to the mean square by the layer's RMS norms.
    pub norm_eps: f32,
    /// True if the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// True if the attention's output projection has a bias.
    pub output_bias: bool,
    /// True if the three projections of the MLP have biases.
    pub mlp_bias: bool,
    /// True if queries and keys are normalized per head.
    pub qk_norm: bool,
    /// Positions that a row sees at most, itself included; `None` if it sees everything before it.
    pub window: Option<usize>,
    /// Factor that the products of queries and keys are multiplied by before the softmax.
    pub score_factor: f32,
    /// Cap c of the scores that come of it: a score x becomes `c * tanh(x / c)`.
    pub score_cap: Option<f32>,
    /// Values of each head that the rotation turns, its first ones, even: all of them, some, or none.
    pub rotated: usize,
    /// The layer's own position embedding, where it is not the model's.
    pub rope: Option<Rope>,
    /// Function by which one product of the MLP gates another.
    pub activation: Activation,
    /// True if the outputs of attention and MLP are normalized before they are added to the residual stream.
    pub post_norms: bool,
    /// Factor that these outputs are multiplied by before they are added.
    pub residual_factor: f32,
}

impl LayerSpec {
    /// A layer of Llama: no biases, no window, no norms but the two before its parts, all of a head rotated.
    pub fn llama(hidden_size: usize, intermediate_size: usize, heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self {
            hidden_size,
            intermediate_size,
            heads,
            kv_heads,
            head_dim,
            norm_eps: 1e-5,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            window: None,
            score_factor: Self::usual_score_factor(head_dim),
            score_cap: None,
            rotated: head_dim,
            rope: None,
            activation: Activation::Silu,
            post_norms: false,
            residual_factor: 1.0,
        }
    }

    /// What its attention makes of products of queries and keys.
    pub fn scores(&self) -> Scores {
        Scores { scale: self.score_factor, cap: self.score_cap }
    }

    /// The factor of Vaswani et al. (2017) for scores: one over the square root of a head's width.
    pub fn usual_score_factor(head_dim: usize) -> f32 {
        (head_dim as f32).powf(-0.5)
    }

    /// Width of a row's queries, `heads * head_dim`.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of a row's keys, and of its values, `kv_heads * head_dim`.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// At least the number of values in the layer's weights; `None` if it does not fit.
    pub(super) fn most_values(&self) -> Option<usize> {
        let queries = self.heads.checked_mul(self.head_dim)?;
        let keys = self.kv_heads.checked_mul(self.head_dim)?;
        let attention = queries.checked_add(keys)?.checked_mul(self.hidden_size)?.checked_mul(2)?;
        let mlp = self.intermediate_size.checked_mul(self.hidden_size)?.checked_mul(3)?;
        // Norms and biases: at most each of these widths a few times.
        let widths = queries.checked_add(keys)?.checked_add(self.intermediate_size)?.checked_add(self.hidden_size)?;
        attention.checked_add(mlp)?.checked_add(widths.checked_mul(6)?)
    }

    /// True if what it multiplies by and caps at is above zero.
    pub(super) fn has_usable_factors(&self) -> bool {
        let factors = [self.norm_eps, self.score_factor, self.residual_factor];
        factors.into_iter().chain(self.score_cap).all(|number| number.is_finite() && number > 0.0)
    }

    /// True if the numbers are what their descriptions promise.
    pub(super) fn is_possible(&self) -> bool {
        let sizes = [self.hidden_size, self.intermediate_size, self.heads, self.kv_heads, self.head_dim];
        sizes.iter().all(|&size| size > 0)
            && self.heads.is_multiple_of(self.kv_heads)
            && self.head_dim.is_multiple_of(2)
            && self.rotated <= self.head_dim
            && self.rotated.is_multiple_of(2)
            && self.rope.as_ref().is_none_or(|rope| rope.fits(self.rotated))
            && self.window != Some(0)
            && self.has_usable_factors()
    }
}

/// The layers of a model: their kinds, and from which layer on each kind stands. A file may claim any number of layers;
/// memory follows the kinds and changes that it lists.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpecs {
    kinds: Vec<LayerSpec>,
    /// A layer from which on there is another kind, and the kind's index. The first change is at layer 0, the others rise.
    changes: Vec<(usize, usize)>,
}

/// Layers of the largest model whose layers are listed one by one: a file may claim any number.
const MOST_LISTED: usize = 1 << 16;

/// For each of `layers` layers false if it is the last of its `period` layers; why not, where there are too many to list.
pub(super) fn but_each_last(period: usize, layers: usize) -> Result<Vec<bool>, String> {
    if layers > MOST_LISTED {
        return Err(format!("is {layers}, more than the {MOST_LISTED} that are read"));
    }
    Ok((1..=layers).map(|number| !number.is_multiple_of(period)).collect())
}

impl LayerSpecs {
    /// Layers that are all of this kind.
    pub fn alike(spec: LayerSpec) -> Self {
        Self { kinds: vec![spec], changes: vec![(0, 0)] }
    }

    /// The same layers, but from layer `index` on all are of this kind.
    #[must_use]
    pub fn from_layer(mut self, index: usize, spec: LayerSpec) -> Self {
        let kind = self.kinds.iter().position(|kind| *kind == spec).unwrap_or(self.kinds.len());
        if kind == self.kinds.len() {
            self.kinds.push(spec);
        }
        self.changes.truncate(self.changes.partition_point(|(from, _)| *from < index));
        if self.changes.last().is_none_or(|(_, last)| *last != kind) {
            self.changes.push((index, kind));
        }
        self
    }

    /// The same layers, as many as `is_rotated` has entries, of which those are not rotated that it says false of.
    #[must_use]
    pub(super) fn rotated_where(&self, is_rotated: &[bool]) -> Self {
        let of = |index: usize| {
            let spec = self.get(index).clone();
            if is_rotated[index] { spec } else { LayerSpec { rotated: 0, ..spec } }
        };
        (1..is_rotated.len()).fold(Self::alike(of(0)), |specs, index| specs.from_layer(index, of(index)))
    }

    /// The same layers, of which those with a window have a position embedding of their own.
    #[must_use]
    pub(super) fn with_near_rope(mut self, rope: &Rope) -> Self {
        let near = self.kinds.iter_mut().filter(|spec| spec.window.is_some());
        near.for_each(|spec| spec.rope = Some(rope.clone()));
        self
    }

    /// The layer of an index.
    pub fn get(&self, index: usize) -> &LayerSpec {
        let after = self.changes.partition_point(|(from, _)| *from <= index);
        &self.kinds[self.changes[after - 1].1]
    }

    /// The first `layers` layers as ranges of one kind each.
    pub fn runs(&self, layers: usize) -> impl Iterator<Item = (Range<usize>, &LayerSpec)> {
        let ends = self.changes.iter().skip(1).map(|(from, _)| *from).chain([usize::MAX]);
        let runs = self.changes.iter().zip(ends);
        let runs = runs.map(move |((from, kind), end)| (*from..end.min(layers), &self.kinds[*kind]));
        runs.filter(|(range, _)| !range.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(window: Option<usize>) -> LayerSpec {
        LayerSpec { window, ..LayerSpec::llama(16, 24, 4, 2, 4) }
    }

    #[test]
    fn layers_are_those_of_the_latest_change() {
        let (all, near) = (spec(None), spec(Some(3)));
        let listed = [&all, &near, &near, &all, &near];
        let mut specs = LayerSpecs::alike(all.clone());
        for (index, spec) in listed.into_iter().enumerate() {
            specs = specs.from_layer(index, spec.clone());
        }
        for index in 0..9 {
            assert_eq!(specs.get(index), listed[index.min(4)]);
        }
        let runs: Vec<_> = specs.runs(7).collect();
        assert_eq!(runs, [(0..1, &all), (1..3, &near), (3..4, &all), (4..7, &near)]);
        assert_eq!(
            specs.runs(2).collect::<Vec<_>>(),
            runs[..1].iter().cloned().chain([(1..2, &near)]).collect::<Vec<_>>()
        );
        assert_eq!(specs.kinds.len(), 2);
        assert_eq!(specs.from_layer(0, near.clone()).runs(9).collect::<Vec<_>>(), [(0..9, &near)]);
        let far = LayerSpecs::alike(all.clone()).from_layer(usize::MAX, near.clone());
        assert_eq!((far.get(usize::MAX - 1), far.get(usize::MAX)), (&all, &near));
    }

    #[test]
    fn impossible_layers_are_told() {
        let possible = spec(Some(3));
        assert!(possible.is_possible());
        for impossible in [
            LayerSpec { kv_heads: 3, ..possible.clone() },
            LayerSpec { kv_heads: 0, ..possible.clone() },
            LayerSpec { head_dim: 5, ..possible.clone() },
            LayerSpec { window: Some(0), ..possible.clone() },
            LayerSpec { norm_eps: f32::NAN, ..possible.clone() },
            LayerSpec { score_factor: 0.0, ..possible.clone() },
            LayerSpec { score_cap: Some(0.0), ..possible.clone() },
            LayerSpec { residual_factor: f32::INFINITY, ..possible.clone() },
            LayerSpec { rotated: 6, ..possible.clone() },
            LayerSpec { rotated: 3, ..possible.clone() },
            LayerSpec { rope: Some(Rope::plain(-1.0)), ..possible },
        ] {
            assert!(!impossible.is_possible(), "{impossible:?}");
        }
        assert!(LayerSpec { rotated: 2, ..possible.clone() }.is_possible());
        assert_eq!(LayerSpec { heads: usize::MAX, ..possible }.most_values(), None);
    }
}
